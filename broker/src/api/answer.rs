//! Encodes a response into its frame, once there is memory for it (`budget`).
//!
//! A request that only reads runs again once there is room for the answer, and keeps nothing
//! meanwhile: a response may take ten times the memory of its frame. A request that changes
//! something runs once and keeps its response, which is no larger than what the request named. If
//! the response describes more than that, it is built again once there is room.

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
use crate::budget::{Room, no_room};

/// The response of an API.
pub(super) trait Response: ApiMessage + Failing + Measured + Send + Sync + 'static {}

impl<R: ApiMessage + Failing + Measured + Send + Sync + 'static> Response for R {}

/// Whether a request may run twice, because it only reads. Metadata may create a topic, and finds
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

/// Whether the response may take megabytes, which a coordinator builds for each request.
const fn describes_groups(api: ApiKey) -> bool {
    matches!(api, ApiKey::OffsetFetch | ApiKey::DescribeGroups | ApiKey::ConsumerGroupDescribe)
}

/// The state of a request's answer.
pub(super) enum Answer<R> {
    /// The encoded frame.
    Encoded(Reply),
    /// There is no room for this many bytes. Holds the response, unless the request can run again.
    NoRoom(usize, Option<R>),
}

impl Request {
    /// Encodes a response if there is room for it now.
    pub(super) fn try_answer<R: Response>(&self, response: R) -> Answer<R> {
        let bytes_max = response_bytes_max(&response);
        match self.services.answer_memory.try_room(bytes_max) {
            Some(room) => Answer::Encoded(self.encoded(&response, room)),
            None => Answer::NoRoom(bytes_max, (!only_reads(self.cx.api)).then_some(response)),
        }
    }

    /// Runs a request and answers it.
    pub(super) async fn answer_to<Q: Clone, R: Response, F: Future<Output = R>>(
        &self,
        body: Q,
        act: impl Fn(Arc<Services>, RequestContext, Q) -> F,
    ) -> Reply {
        let (again, body) =
            if only_reads(self.cx.api) { (Some(body.clone()), body) } else { (None, body) };
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
            // A response that is not kept belongs to a request that can run again.
            (Answer::NoRoom(_, None), None) => Reply::close(),
        }
    }

    /// Answers a request that has changed something. `describe` builds the response from the
    /// result, which is small, and does so again if there is no room at first.
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
        match describes_groups(self.cx.api) {
            true => self.services.answer_memory.turn().await,
            false => None,
        }
    }

    /// Waits for room for `bytes_max`, and then builds and encodes the response.
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

    /// Waits for room for an answer, as long as a connection may be idle; `None` when there is none
    /// by then.
    pub(super) async fn room_for_answer(&self, bytes_max: usize) -> Option<Room> {
        let wait_max = self.services.settings().connections_idle_max;
        let room =
            self.services.answer_memory.room(self.cx.caller.peer.ip(), bytes_max, wait_max).await;
        if room.is_none() {
            self.cx.span().in_scope(|| no_room(bytes_max, wait_max));
        }
        room
    }

    /// The frame of a response. A response that cannot be encoded is a bug: the broker closes the
    /// connection and logs the error.
    pub(super) fn encoded<R: Response>(&self, response: &R, room: Room) -> Reply {
        match encode_response(response, self.cx.api, self.cx.version, self.cx.correlation_id) {
            Ok(frame) => {
                let reply = Reply { room, ..Reply::bytes(frame.freeze()) };
                self.reply(reply, response.has_error())
            }
            Err(error) => self.unencodable(&error),
        }
    }

    pub(super) fn unencodable(&self, error: &dyn std::error::Error) -> Reply {
        self.cx.span().in_scope(|| {
            tracing::error!(%error, "a response cannot be encoded: its connection is closed");
        });
        Reply::close()
    }
}
