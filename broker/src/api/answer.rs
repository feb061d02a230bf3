//! From a response to its frame, for which there is room first (`budget`).
//!
//! What only reads is carried out again once there is room for the answer, and keeps nothing of it
//! meanwhile: a response may take ten times what its frame does. What changes something is carried
//! out once, and keeps its response, which is no more than what its request named. Where the
//! response describes more than that, it is made anew once there is room.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use weir_protocol::api::ApiKey;
use weir_protocol::frame::{encode_response, response_bytes_max};
use weir_protocol::messages::{ApiMessage, Failing, Measured};

use super::context::RequestContext;
use super::reply::Reply;
use super::request::Request;
use super::services::Services;
use crate::budget::Room;

/// What an API answers.
pub(super) trait Response: ApiMessage + Failing + Measured + Send + Sync + 'static {}

impl<R: ApiMessage + Failing + Measured + Send + Sync + 'static> Response for R {}

/// Whether a request may be carried out twice: it only reads. Metadata may make a topic, and finds
/// it the second time.
const fn only_reads(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::ApiVersions
            | ApiKey::ConsumerGroupDescribe
            | ApiKey::DescribeAcls
            | ApiKey::DescribeClientQuotas
            | ApiKey::DescribeCluster
            | ApiKey::DescribeConfigs
            | ApiKey::DescribeGroups
            | ApiKey::DescribeLogDirs
            | ApiKey::DescribeProducers
            | ApiKey::DescribeQuorum
            | ApiKey::DescribeTopicPartitions
            | ApiKey::DescribeTransactions
            | ApiKey::DescribeUserScramCredentials
            | ApiKey::FindCoordinator
            | ApiKey::ListConfigResources
            | ApiKey::ListGroups
            | ApiKey::ListOffsets
            | ApiKey::ListPartitionReassignments
            | ApiKey::ListTransactions
            | ApiKey::Metadata
            | ApiKey::OffsetFetch
            | ApiKey::OffsetForLeaderEpoch
    )
}

/// Whether what answers it may be megabytes that a coordinator writes down for each who asks.
const fn describes_groups(api: ApiKey) -> bool {
    matches!(api, ApiKey::OffsetFetch | ApiKey::DescribeGroups | ApiKey::ConsumerGroupDescribe)
}

/// What has become of a request so far.
pub(super) enum Answer<R> {
    /// Its frame is there.
    Encoded(Reply),
    /// There is no room for so many bytes. What the request did is here, unless it can be done
    /// again.
    NoRoom(usize, Option<R>),
}

impl Request {
    /// Encodes a response for which there is room at once.
    pub(super) fn try_answer<R: Response>(&self, response: R) -> Answer<R> {
        let bytes_max = response_bytes_max(&response);
        match self.services.answer_memory.try_room(bytes_max) {
            Some(room) => Answer::Encoded(self.encoded(&response, room)),
            None => Answer::NoRoom(bytes_max, (!only_reads(self.api)).then_some(response)),
        }
    }

    /// Carries out a request and answers it.
    pub(super) async fn answer_to<Q: Clone, R: Response, F: Future<Output = R>>(
        &self,
        body: Q,
        act: impl Fn(Arc<Services>, RequestContext, Q) -> F,
    ) -> Reply {
        let (again, body) =
            if only_reads(self.api) { (Some(body.clone()), body) } else { (None, body) };
        let response = act(Arc::clone(&self.services), self.cx.clone(), body).await;
        match (self.try_answer(response), again) {
            (Answer::Encoded(reply), _) => reply,
            (Answer::NoRoom(bytes_max, Some(response)), _) => {
                self.once_there_is_room(bytes_max, async || response).await
            }
            (Answer::NoRoom(bytes_max, None), Some(body)) => {
                let act_again = async || {
                    let _turn = self.turn().await;
                    act(Arc::clone(&self.services), self.cx.clone(), body).await
                };
                self.once_there_is_room(bytes_max, act_again).await
            }
            // What is not kept can be done again.
            (Answer::NoRoom(_, None), None) => Reply::close(),
        }
    }

    /// Answers a request that has changed something: with what `describe` makes of what came of it,
    /// which is little.
    pub(super) async fn answer_described<D, R: Response>(
        &self,
        done: D,
        describe: impl Fn(&Services, &RequestContext, &D) -> R,
    ) -> Reply {
        let response = || describe(&self.services, &self.cx, &done);
        match self.try_answer(response()) {
            Answer::Encoded(reply) => reply,
            Answer::NoRoom(bytes_max, kept) => {
                drop(kept);
                self.once_there_is_room(bytes_max, async || response()).await
            }
        }
    }

    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        match describes_groups(self.api) {
            true => self.services.answer_memory.turn().await,
            false => None,
        }
    }

    /// Waits for room for `bytes_max`, and encodes the response that is there then.
    pub(super) async fn once_there_is_room<R: Response>(
        &self,
        bytes_max: usize,
        response: impl AsyncFnOnce() -> R,
    ) -> Reply {
        match self.room_for_answer(bytes_max).await {
            Some(room) => self.encoded(&response().await, room),
            None => Reply::close(),
        }
    }

    /// Room for an answer; `None` where there is none for as long as a connection may be idle.
    pub(super) async fn room_for_answer(&self, bytes_max: usize) -> Option<Room> {
        let wait_max = self.services.settings().connections_idle_max;
        self.services.answer_memory.room(self.cx.caller.peer.ip(), bytes_max, wait_max).await
    }

    /// The frame of a response. One that cannot be encoded is a bug: the client sees the connection
    /// end, the log why.
    pub(super) fn encoded<R: Response>(&self, response: &R, room: Room) -> Reply {
        match encode_response(response, self.api, self.cx.version, self.correlation_id) {
            Ok(frame) => {
                let reply = Reply { room, ..Reply::bytes(frame.freeze()) };
                self.reply(reply, response.has_error())
            }
            Err(error) => self.unencodable(&error),
        }
    }

    pub(super) fn unencodable(&self, error: &dyn std::error::Error) -> Reply {
        tracing::error!(api = %self.api, version = self.cx.version, %error, "a response cannot be encoded");
        Reply::close()
    }
}
