//! Decodes a frame, calls the API that it names, and encodes the answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tracing::Span;
use tracing::field::display;
use weir_protocol::api::{ApiKey, unsupported_api_versions};
use weir_protocol::frame::encode_response;
use weir_protocol::header::{HeaderError, RequestHeader};
use weir_protocol::messages::Message;

use super::answer::{Answer, Response};
use super::context::{Caller, RequestContext};
use super::reply::Reply;
use super::request::{Dispatch, Received, Request};
use super::services::Services;
use super::{
    api_versions, cluster, configs, delete_records, describe_cluster, describe_quorum,
    describe_topic_partitions, fetch, groups, leader_epoch, list_offsets, log_dirs, login,
    metadata, produce, producer_ids, scram_users, security, topics, transactions,
};
use crate::metrics::RequestName;

/// The largest body, in bytes, that is decoded and answered on the thread of its connection: some
/// milliseconds of work. DescribeConfigs and CreateTopics return a hundred settings for a resource
/// that is only named.
const fn body_bytes_max(api: ApiKey) -> usize {
    match api {
        ApiKey::DescribeConfigs | ApiKey::CreateTopics => 2 * 1024,
        // Some twenty thousand partitions. Consumers and followers fetch again and again, and
        // should not wait for other large requests.
        ApiKey::Fetch => 1024 * 1024,
        _ => 64 * 1024,
    }
}

/// Handles the request in a frame. `span` gets what its header says, if anybody wants to know.
pub(crate) fn dispatch(
    services: &Arc<Services>,
    caller: &Arc<Caller>,
    received: Received,
    span: &Span,
) -> Dispatch {
    let Received { mut frame, room, waited, whole_at } = received;
    let started = Instant::now();
    let header = match RequestHeader::parse(&mut frame) {
        Ok(header) => header,
        Err(HeaderError::UnsupportedApiVersions { correlation_id, .. }) => {
            return unsupported(correlation_id, caller);
        }
        Err(error) => return Dispatch::Close(error.to_string(), caller.span()),
    };
    if !span.is_disabled() {
        span.record("api", display(header.api));
        span.record("correlation_id", header.correlation_id);
        span.record("client_id", header.client_id.as_deref());
    }
    let cx = RequestContext {
        caller: Arc::clone(caller),
        api: header.api,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        version: header.version,
        room,
    };
    let request = Request {
        services: Arc::clone(services),
        cx,
        name: RequestName::of(header.api),
        queue: waited + started.saturating_duration_since(whole_at),
        started,
    };
    // A request that lists everything, whatever its body, never runs on the thread of its
    // connection.
    match header.api {
        ApiKey::Produce => produce::handle(request, frame),
        ApiKey::Fetch if request.is_large(&frame) => {
            let reply = fetch::decode_and_reply(request, frame);
            Dispatch::Later(services.large_requests.carry_out(reply))
        }
        ApiKey::Fetch => request.decoded(frame, fetch::handle),
        ApiKey::ListOffsets => request.later(frame, async |services, cx, body| {
            list_offsets::handle(&services, &cx, body).await
        }),
        ApiKey::DeleteRecords => request.later(frame, async |services, cx, body| {
            delete_records::handle(&services, &cx, body).await
        }),
        ApiKey::OffsetForLeaderEpoch => request.now(frame, leader_epoch::handle),
        ApiKey::ApiVersions => request.now(frame, api_versions::handle),
        ApiKey::SaslHandshake => request.now(frame, login::handshake_out_of_turn),
        ApiKey::SaslAuthenticate => request.now(frame, login::authenticate_out_of_turn),
        ApiKey::Metadata => {
            request.later_or_aside(frame, metadata::is_of_many, async |services, cx, body| {
                metadata::handle(&services, &cx, body).await
            })
        }
        ApiKey::DescribeCluster => request.now(frame, describe_cluster::handle),
        ApiKey::DescribeTopicPartitions => request.now(frame, describe_topic_partitions::handle),
        ApiKey::CreateTopics => request.described(
            frame,
            async |services, cx, body| topics::create(&services, &cx, body).await,
            topics::describe_creations,
        ),
        ApiKey::DeleteTopics => request.later(frame, async |services, cx, body| {
            topics::handle_delete(&services, &cx, body).await
        }),
        ApiKey::CreatePartitions => request.later(frame, async |services, cx, body| {
            topics::handle_create_partitions(&services, &cx, body).await
        }),
        ApiKey::DescribeAcls => request.now(frame, security::describe_acls),
        ApiKey::CreateAcls => request.now(frame, security::create_acls),
        ApiKey::DeleteAcls => request.now(frame, security::delete_acls),
        ApiKey::DescribeClientQuotas => request.now(frame, security::describe_quotas),
        ApiKey::DescribeUserScramCredentials => request.now(frame, scram_users::describe),
        ApiKey::AlterUserScramCredentials => request.later(frame, async |services, cx, body| {
            scram_users::alter(&services, &cx, body).await
        }),
        ApiKey::DescribeConfigs => request.now(frame, configs::handle),
        ApiKey::ListConfigResources => request
            .aside(frame, async |services, cx, body| configs::handle_list(&services, &cx, body)),
        ApiKey::AlterConfigs => request.later(frame, async |services, cx, body| {
            configs::handle_alter(&services, &cx, body).await
        }),
        ApiKey::IncrementalAlterConfigs => request.later(frame, async |services, cx, body| {
            configs::handle_incremental_alter(&services, &cx, body).await
        }),
        ApiKey::FindCoordinator => request.later(frame, async |services, cx, body| {
            groups::find_coordinator(&services, &cx, body).await
        }),
        ApiKey::OffsetCommit => request.later(frame, async |services, cx, body| {
            groups::offset_commit(&services, &cx, body).await
        }),
        ApiKey::OffsetFetch => {
            request.later_or_aside(frame, groups::fetches_many, async |services, cx, body| {
                groups::offset_fetch(&services, &cx, body).await
            })
        }
        ApiKey::OffsetDelete => request.later(frame, async |services, cx, body| {
            groups::offset_delete(&services, &cx, body).await
        }),
        ApiKey::JoinGroup => request
            .later(frame, async |services, cx, body| groups::join(&services, &cx, body).await),
        ApiKey::SyncGroup => request
            .later(frame, async |services, cx, body| groups::sync(&services, &cx, body).await),
        ApiKey::Heartbeat => request
            .later(frame, async |services, cx, body| groups::heartbeat(&services, &cx, body).await),
        ApiKey::LeaveGroup => request
            .later(frame, async |services, cx, body| groups::leave(&services, &cx, body).await),
        ApiKey::ListGroups => request.aside(frame, async |services, cx, body| {
            groups::list_groups(&services, &cx, body).await
        }),
        ApiKey::DescribeGroups => request.aside(frame, async |services, cx, body| {
            groups::describe_groups(&services, &cx, body).await
        }),
        ApiKey::DeleteGroups => request.later(frame, async |services, cx, body| {
            groups::delete_groups(&services, &cx, body).await
        }),
        ApiKey::ConsumerGroupHeartbeat => request.later(frame, async |services, cx, body| {
            groups::consumer_group_heartbeat(&services, &cx, body).await
        }),
        ApiKey::ConsumerGroupDescribe => request.aside(frame, async |services, cx, body| {
            groups::consumer_group_describe(&services, &cx, body).await
        }),
        ApiKey::ElectLeaders => request.later(frame, async |services, cx, body| {
            cluster::handle_elect_leaders(&services, &cx, body).await
        }),
        ApiKey::AlterPartitionReassignments => request.later(frame, async |services, cx, body| {
            cluster::handle_alter_reassignments(&services, &cx, body).await
        }),
        ApiKey::ListPartitionReassignments => request.later(frame, async |services, cx, body| {
            cluster::handle_list_reassignments(&services, &cx, body).await
        }),
        ApiKey::UnregisterBroker => request.later(frame, async |services, cx, body| {
            cluster::handle_unregister(&services, &cx, body).await
        }),
        ApiKey::UpdateFeatures => request.later(frame, async |services, cx, body| {
            cluster::handle_update_features(&services, &cx, body).await
        }),
        ApiKey::DescribeQuorum => request.later(frame, async |services, cx, body| {
            describe_quorum::handle(&services, &cx, body).await
        }),
        ApiKey::AlterReplicaLogDirs => request.now(frame, log_dirs::handle_alter),
        ApiKey::DescribeLogDirs => {
            request.aside(frame, async |services, cx, body| log_dirs::handle(&services, &cx, body))
        }
        ApiKey::AddPartitionsToTxn => request.later(frame, async |services, cx, body| {
            transactions::add_partitions(&services, &cx, body).await
        }),
        ApiKey::AddOffsetsToTxn => request.later(frame, async |services, cx, body| {
            transactions::add_offsets(&services, &cx, body).await
        }),
        ApiKey::EndTxn => request
            .later(frame, async |services, cx, body| transactions::end(&services, &cx, body).await),
        ApiKey::WriteTxnMarkers => request.later(frame, async |services, cx, body| {
            transactions::write_markers(&services, &cx, body).await
        }),
        ApiKey::TxnOffsetCommit => request.later(frame, async |services, cx, body| {
            transactions::commit_offsets(&services, &cx, body).await
        }),
        ApiKey::DescribeProducers => request.later(frame, async |services, cx, body| {
            transactions::producers(&services, &cx, body).await
        }),
        ApiKey::DescribeTransactions => request.later(frame, async |services, cx, body| {
            transactions::describe(&services, &cx, body).await
        }),
        ApiKey::ListTransactions => request.aside(frame, async |services, cx, body| {
            transactions::list(&services, &cx, body).await
        }),
        ApiKey::InitProducerId => request.later(frame, async |services, cx, body| {
            producer_ids::handle(&services, &cx, body).await
        }),
    }
}

/// Answers an ApiVersions request of an unsupported version in version 0, which tells the client
/// the supported ones (KIP-511).
fn unsupported(correlation_id: i32, caller: &Caller) -> Dispatch {
    match encode_response(&unsupported_api_versions(), ApiKey::ApiVersions, 0, correlation_id) {
        Ok(frame) => Dispatch::Now(Reply::bytes(frame.freeze())),
        Err(error) => Dispatch::Close(error.to_string(), caller.span()),
    }
}

impl Request {
    /// Decodes the body and calls `act` with it.
    fn decoded<Q: Message>(
        self,
        body: BytesMut,
        act: impl FnOnce(Self, Q) -> Dispatch,
    ) -> Dispatch {
        match Q::decode(&mut Bytes::from(body), self.cx.version) {
            Ok(body) => act(self, body),
            Err(error) => self.malformed(&error),
        }
    }

    /// Answers a request whose API never waits.
    fn now<Q, R>(
        self,
        body: BytesMut,
        act: impl Fn(&Services, &RequestContext, Q) -> R + Send + Sync + 'static,
    ) -> Dispatch
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
    {
        if self.is_large(&body) {
            return self.aside(body, move |services, cx, body| {
                std::future::ready(act(&services, &cx, body))
            });
        }
        self.decoded(body, |request, body: Q| {
            let response = act(&request.services, &request.cx, body.clone());
            match request.try_answer(response) {
                Answer::Encoded(reply) => Dispatch::Now(reply),
                Answer::NoRoom(bytes_max, kept) => Dispatch::Later(
                    async move {
                        let response = async || {
                            kept.unwrap_or_else(|| act(&request.services, &request.cx, body))
                        };
                        request.once_there_is_room(bytes_max, response).await
                    }
                    .boxed(),
                ),
            }
        })
    }

    /// Answers a request whose API may wait.
    fn later<Q, R, F>(
        self,
        body: BytesMut,
        act: impl Fn(Arc<Services>, RequestContext, Q) -> F + Send + Sync + 'static,
    ) -> Dispatch
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
        F: Future<Output = R> + Send + 'static,
    {
        self.later_or_aside(body, |_, _| false, act)
    }

    /// Like [`Request::later`], for a request that also runs on the thread for large requests when
    /// `is_large` says that its answer is large.
    fn later_or_aside<Q, R, F>(
        self,
        body: BytesMut,
        is_large: impl FnOnce(&Services, &Q) -> bool,
        act: impl Fn(Arc<Services>, RequestContext, Q) -> F + Send + Sync + 'static,
    ) -> Dispatch
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
        F: Future<Output = R> + Send + 'static,
    {
        if self.is_large(&body) {
            return self.aside(body, act);
        }
        self.decoded(body, |request, body| {
            let aside = is_large(&request.services, &body).then(|| Arc::clone(&request.services));
            let reply = async move { request.answer_to(body, act).await };
            Dispatch::Later(match aside {
                Some(services) => services.large_requests.carry_out(reply),
                None => reply.boxed(),
            })
        })
    }

    /// Answers a request that changes something, and whose response describes the result at length.
    fn described<Q, D, R, F>(
        self,
        body: BytesMut,
        act: impl Fn(Arc<Services>, RequestContext, Q) -> F + Send + Sync + 'static,
        describe: impl Fn(&Services, &RequestContext, &D) -> R + Send + Sync + 'static,
    ) -> Dispatch
    where
        Q: Message + Send + Sync + 'static,
        D: Send + Sync + 'static,
        R: Response,
        F: Future<Output = D> + Send + 'static,
    {
        let reply = async move |request: Self, body: Q| {
            let done = act(Arc::clone(&request.services), request.cx.clone(), body).await;
            request.answer_described(done, describe).await
        };
        if self.is_large(&body) {
            return self.aside_by(body, reply);
        }
        self.decoded(body, |request, body| Dispatch::Later(reply(request, body).boxed()))
    }

    /// Whether the body would hold up the other requests on the connection's thread.
    fn is_large(&self, body: &BytesMut) -> bool {
        body.len() > body_bytes_max(self.cx.api)
    }

    /// Decodes and answers a request on the thread for large requests.
    fn aside<Q, R, F>(
        self,
        body: BytesMut,
        act: impl Fn(Arc<Services>, RequestContext, Q) -> F + Send + Sync + 'static,
    ) -> Dispatch
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
        F: Future<Output = R> + Send + 'static,
    {
        self.aside_by(body, async move |request: Self, body| request.answer_to(body, act).await)
    }

    /// Decodes a request on the thread for large requests, and runs `reply` there.
    fn aside_by<Q, F>(
        self,
        body: BytesMut,
        reply: impl FnOnce(Self, Q) -> F + Send + 'static,
    ) -> Dispatch
    where
        Q: Message + Send + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let services = Arc::clone(&self.services);
        let reply = async move {
            match Q::decode(&mut Bytes::from(body), self.cx.version) {
                Ok(body) => reply(self, body).await,
                Err(error) => self.unreadable(&error),
            }
        };
        Dispatch::Later(services.large_requests.carry_out(reply))
    }
}
