//! From a frame to the API that it asks for, and from its answer to a frame: nothing else happens here.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use weir_protocol::api::{ApiKey, unsupported_api_versions};
use weir_protocol::frame::encode_response;
use weir_protocol::header::{HeaderError, RequestHeader};
use weir_protocol::messages::Message;

use super::answer::{Answer, Response};
use super::{
    Caller, RequestContext, api_versions, cluster, configs, delete_records, describe_cluster, describe_quorum, describe_topic_partitions, fetch,
    groups, leader_epoch, list_offsets, log_dirs, metadata, produce, producer_ids, security, topics, transactions,
};
use crate::broker::Broker;
use crate::net::{Reply, Room};

/// What is to be done with a request.
pub(crate) enum Handled {
    /// It is answered.
    Now(Reply),
    /// It will be.
    Later(BoxFuture<'static, Reply>),
    /// It will be, and other produces need not wait for that.
    Produced {
        reply: BoxFuture<'static, Reply>,
        /// What the answer takes at most.
        bytes_max: usize,
        /// What comes after it has to wait for the answer: also the next produce.
        alone: bool,
    },
    /// It cannot be answered: the connection ends, for this reason.
    Close(String),
}

/// The largest body that is decoded and answered on the thread of its connection: some milliseconds of work. Of a resource with nothing but its name DescribeConfigs tells a hundred
/// settings, and so does CreateTopics.
const fn body_bytes_max(api: ApiKey) -> usize {
    match api {
        ApiKey::DescribeConfigs | ApiKey::CreateTopics => 2 * 1024,
        // Some twenty thousand partitions: who fetches, a follower too, does so again and again, and is not to wait for others.
        ApiKey::Fetch => 1024 * 1024,
        _ => 64 * 1024,
    }
}

/// A request on its way: what an answer needs besides its body.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) broker: Arc<Broker>,
    pub(super) cx: RequestContext,
    pub(super) api: ApiKey,
    correlation_id: i32,
    started: Instant,
}

/// Takes up the request in `frame`, which is without its length prefix, and its room in memory.
pub(crate) fn dispatch(broker: &Arc<Broker>, caller: &Arc<Caller>, mut frame: BytesMut, room: Room) -> Handled {
    let started = Instant::now();
    let header = match RequestHeader::parse(&mut frame) {
        Ok(header) => header,
        Err(HeaderError::UnsupportedApiVersions { correlation_id, .. }) => return unsupported(correlation_id),
        Err(error) => return Handled::Close(error.to_string()),
    };
    let cx = RequestContext {
        caller: Arc::clone(caller),
        client_id: header.client_id,
        version: header.version,
        room,
    };
    let request = Request {
        broker: Arc::clone(broker),
        cx,
        api: header.api,
        correlation_id: header.correlation_id,
        started,
    };
    // What lists all that there is, whatever its body says, is never carried out on the thread of its connection.
    match header.api {
        ApiKey::Produce => produce::handle(request, frame),
        ApiKey::Fetch if request.is_large(&frame) => {
            let reply = fetch::decode_and_reply(request, frame);
            Handled::Later(broker.large_requests.carry_out(reply))
        }
        ApiKey::Fetch => request.decoded(frame, fetch::handle),
        ApiKey::ListOffsets => request.later(frame, async |broker, cx, body| list_offsets::handle(&broker, &cx, body).await),
        ApiKey::DeleteRecords => request.later(frame, async |broker, cx, body| delete_records::handle(&broker, &cx, body).await),
        ApiKey::OffsetForLeaderEpoch => request.now(frame, leader_epoch::handle),
        ApiKey::ApiVersions => request.now(frame, api_versions::handle),
        ApiKey::Metadata => request.later_or_aside(frame, metadata::is_of_many, async |broker, cx, body| {
            metadata::handle(&broker, &cx, body).await
        }),
        ApiKey::DescribeCluster => request.now(frame, describe_cluster::handle),
        ApiKey::DescribeTopicPartitions => request.now(frame, describe_topic_partitions::handle),
        ApiKey::CreateTopics => request.described(
            frame,
            async |broker, cx, body| topics::create(&broker, &cx, body).await,
            topics::describe_creations,
        ),
        ApiKey::DeleteTopics => request.later(frame, async |broker, cx, body| topics::handle_delete(&broker, &cx, body).await),
        ApiKey::CreatePartitions => request.later(frame, async |broker, cx, body| topics::handle_create_partitions(&broker, &cx, body).await),
        ApiKey::DescribeAcls => request.now(frame, security::describe_acls),
        ApiKey::CreateAcls => request.now(frame, security::create_acls),
        ApiKey::DeleteAcls => request.now(frame, security::delete_acls),
        ApiKey::DescribeClientQuotas => request.now(frame, security::describe_quotas),
        ApiKey::DescribeUserScramCredentials => request.now(frame, security::describe_scram_users),
        ApiKey::DescribeConfigs => request.now(frame, configs::handle),
        ApiKey::ListConfigResources => request.aside(frame, async |broker, cx, body| configs::handle_list(&broker, &cx, body)),
        ApiKey::AlterConfigs => request.later(frame, async |broker, cx, body| configs::handle_alter(&broker, &cx, body).await),
        ApiKey::IncrementalAlterConfigs => request.later(frame, async |broker, cx, body| {
            configs::handle_incremental_alter(&broker, &cx, body).await
        }),
        ApiKey::FindCoordinator => request.later(frame, async |broker, cx, body| groups::find_coordinator(&broker, &cx, body).await),
        ApiKey::OffsetCommit => request.later(frame, async |broker, cx, body| groups::offset_commit(&broker, &cx, body).await),
        ApiKey::OffsetFetch => request.later_or_aside(frame, groups::fetches_many, async |broker, cx, body| {
            groups::offset_fetch(&broker, &cx, body).await
        }),
        ApiKey::OffsetDelete => request.later(frame, async |broker, cx, body| groups::offset_delete(&broker, &cx, body).await),
        ApiKey::JoinGroup => request.later(frame, async |broker, cx, body| groups::join(&broker, &cx, body).await),
        ApiKey::SyncGroup => request.later(frame, async |broker, cx, body| groups::sync(&broker, &cx, body).await),
        ApiKey::Heartbeat => request.later(frame, async |broker, cx, body| groups::heartbeat(&broker, &cx, body).await),
        ApiKey::LeaveGroup => request.later(frame, async |broker, cx, body| groups::leave(&broker, &cx, body).await),
        ApiKey::ListGroups => request.aside(frame, async |broker, cx, body| groups::list_groups(&broker, &cx, body).await),
        ApiKey::DescribeGroups => request.aside(frame, async |broker, cx, body| groups::describe_groups(&broker, &cx, body).await),
        ApiKey::DeleteGroups => request.later(frame, async |broker, cx, body| groups::delete_groups(&broker, &cx, body).await),
        ApiKey::ConsumerGroupHeartbeat => request.later(frame, async |broker, cx, body| groups::consumer_group_heartbeat(&broker, &cx, body).await),
        ApiKey::ConsumerGroupDescribe => request.aside(frame, async |broker, cx, body| groups::consumer_group_describe(&broker, &cx, body).await),
        ApiKey::ElectLeaders => request.later(frame, async |broker, cx, body| cluster::handle_elect_leaders(&broker, &cx, body).await),
        ApiKey::AlterPartitionReassignments => request.later(frame, async |broker, cx, body| {
            cluster::handle_alter_reassignments(&broker, &cx, body).await
        }),
        ApiKey::ListPartitionReassignments => request.later(frame, async |broker, cx, body| {
            cluster::handle_list_reassignments(&broker, &cx, body).await
        }),
        ApiKey::UnregisterBroker => request.later(frame, async |broker, cx, body| cluster::handle_unregister(&broker, &cx, body).await),
        ApiKey::UpdateFeatures => request.later(frame, async |broker, cx, body| cluster::handle_update_features(&broker, &cx, body).await),
        ApiKey::DescribeQuorum => request.later(frame, async |broker, cx, body| describe_quorum::handle(&broker, &cx, body).await),
        ApiKey::AlterReplicaLogDirs => request.now(frame, log_dirs::handle_alter),
        ApiKey::DescribeLogDirs => request.aside(frame, async |broker, cx, body| log_dirs::handle(&broker, &cx, body)),
        ApiKey::AddPartitionsToTxn => request.later(frame, async |broker, cx, body| transactions::add_partitions(&broker, &cx, body).await),
        ApiKey::AddOffsetsToTxn => request.later(frame, async |broker, cx, body| transactions::add_offsets(&broker, &cx, body).await),
        ApiKey::EndTxn => request.later(frame, async |broker, cx, body| transactions::end(&broker, &cx, body).await),
        ApiKey::WriteTxnMarkers => request.later(frame, async |broker, cx, body| transactions::write_markers(&broker, &cx, body).await),
        ApiKey::TxnOffsetCommit => request.later(frame, async |broker, cx, body| transactions::commit_offsets(&broker, &cx, body).await),
        ApiKey::DescribeProducers => request.later(frame, async |broker, cx, body| transactions::producers(&broker, &cx, body).await),
        ApiKey::DescribeTransactions => request.later(frame, async |broker, cx, body| transactions::describe(&broker, &cx, body).await),
        ApiKey::ListTransactions => request.aside(frame, async |broker, cx, body| transactions::list(&broker, &cx, body).await),
        ApiKey::InitProducerId => request.later(frame, async |broker, cx, body| producer_ids::handle(&broker, &cx, body).await),
    }
}

/// An ApiVersions request of a version from the future: answered in version 0, from which the client learns what to ask (KIP-511).
fn unsupported(correlation_id: i32) -> Handled {
    match encode_response(&unsupported_api_versions(), ApiKey::ApiVersions, 0, correlation_id) {
        Ok(frame) => Handled::Now(Reply::bytes(frame.freeze())),
        Err(error) => Handled::Close(error.to_string()),
    }
}

impl Request {
    /// Decodes the body and goes on with it.
    fn decoded<Q: Message>(self, body: BytesMut, act: impl FnOnce(Self, Q) -> Handled) -> Handled {
        match Q::decode(&mut Bytes::from(body), self.cx.version) {
            Ok(body) => act(self, body),
            Err(error) => self.malformed(&error),
        }
    }

    /// The end of a connection whose request is not what it says.
    pub(super) fn malformed(&self, error: &dyn std::error::Error) -> Handled {
        Handled::Close(format!("{} v{}: {error}", self.api, self.cx.version))
    }

    /// Answers a request for which nothing has to be waited.
    fn now<Q, R>(self, body: BytesMut, act: impl Fn(&Broker, &RequestContext, Q) -> R + Send + Sync + 'static) -> Handled
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
    {
        if self.is_large(&body) {
            return self.aside(body, move |broker, cx, body| std::future::ready(act(&broker, &cx, body)));
        }
        self.decoded(body, |request, body: Q| {
            let response = act(&request.broker, &request.cx, body.clone());
            match request.try_answer(response) {
                Answer::Encoded(reply) => Handled::Now(reply),
                Answer::NoRoom(bytes_max, kept) => Handled::Later(
                    async move {
                        let response = async || kept.unwrap_or_else(|| act(&request.broker, &request.cx, body));
                        request.once_there_is_room(bytes_max, response).await
                    }
                    .boxed(),
                ),
            }
        })
    }

    /// Answers a request for which something has to be waited.
    fn later<Q, R, F>(self, body: BytesMut, act: impl Fn(Arc<Broker>, RequestContext, Q) -> F + Send + Sync + 'static) -> Handled
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
        F: Future<Output = R> + Send + 'static,
    {
        self.later_or_aside(body, |_, _| false, act)
    }

    /// Answers a request for which something has to be waited, and whose answer `is_large` where its body is not.
    fn later_or_aside<Q, R, F>(
        self,
        body: BytesMut,
        is_large: impl FnOnce(&Broker, &Q) -> bool,
        act: impl Fn(Arc<Broker>, RequestContext, Q) -> F + Send + Sync + 'static,
    ) -> Handled
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
        F: Future<Output = R> + Send + 'static,
    {
        if self.is_large(&body) {
            return self.aside(body, act);
        }
        self.decoded(body, |request, body| {
            let aside = is_large(&request.broker, &body).then(|| Arc::clone(&request.broker));
            let reply = async move { request.answer_to(body, act).await };
            Handled::Later(match aside {
                Some(broker) => broker.large_requests.carry_out(reply),
                None => reply.boxed(),
            })
        })
    }

    /// Answers a request that changes something, and whose answer describes at length what came of it.
    fn described<Q, D, R, F>(
        self,
        body: BytesMut,
        act: impl Fn(Arc<Broker>, RequestContext, Q) -> F + Send + Sync + 'static,
        describe: impl Fn(&Broker, &RequestContext, &D) -> R + Send + Sync + 'static,
    ) -> Handled
    where
        Q: Message + Send + Sync + 'static,
        D: Send + Sync + 'static,
        R: Response,
        F: Future<Output = D> + Send + 'static,
    {
        let reply = async move |request: Self, body: Q| {
            let done = act(Arc::clone(&request.broker), request.cx.clone(), body).await;
            request.answer_described(done, describe).await
        };
        if self.is_large(&body) {
            return self.aside_by(body, reply);
        }
        self.decoded(body, |request, body| Handled::Later(reply(request, body).boxed()))
    }

    /// Whether what the body asks for would hold up the others of its connection's thread.
    fn is_large(&self, body: &BytesMut) -> bool {
        body.len() > body_bytes_max(self.api)
    }

    /// Decodes and answers a request on the thread for large ones.
    fn aside<Q, R, F>(self, body: BytesMut, act: impl Fn(Arc<Broker>, RequestContext, Q) -> F + Send + Sync + 'static) -> Handled
    where
        Q: Message + Send + Sync + 'static,
        R: Response,
        F: Future<Output = R> + Send + 'static,
    {
        self.aside_by(body, async move |request: Self, body| request.answer_to(body, act).await)
    }

    /// Decodes a request on the thread for large ones, and has it answered there.
    fn aside_by<Q, F>(self, body: BytesMut, reply: impl FnOnce(Self, Q) -> F + Send + 'static) -> Handled
    where
        Q: Message + Send + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let broker = Arc::clone(&self.broker);
        let reply = async move {
            match Q::decode(&mut Bytes::from(body), self.cx.version) {
                Ok(body) => reply(self, body).await,
                Err(error) => self.unreadable(&error),
            }
        };
        Handled::Later(broker.large_requests.carry_out(reply))
    }

    /// The end of a connection whose large request is not what it says.
    pub(super) fn unreadable(&self, error: &dyn std::error::Error) -> Reply {
        self.broker.metrics.bad_request();
        tracing::info!(peer = %self.cx.peer, api = %self.api, version = self.cx.version, %error, "closed a connection over a request that cannot be answered");
        Reply::close()
    }

    /// Counts the request as answered by `reply`, which may tell of an error.
    pub(super) fn reply(&self, reply: Reply, failed: bool) -> Reply {
        self.broker.metrics.request_finished(self.api, self.started.elapsed(), failed);
        reply
    }

    /// What the response carries back.
    pub(super) fn correlation_id(&self) -> i32 {
        self.correlation_id
    }
}
