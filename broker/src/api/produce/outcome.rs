//! The state of a produce request's records.

use std::sync::Arc;

use bytes::BytesMut;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::produce_response::BatchIndexAndErrorMessage;
use weir_protocol::types::{TopicId, TopicPartition};

use crate::budget::Room;
use crate::replica::{Appending, Partition};
use weir_log::{AppendError, LogConfig, Prepared, validate};

/// The state of one partition's records.
pub(super) enum Outcome {
    Brought {
        appending: Appending,
        log_append_time: bool,
    },
    /// The transaction's coordinator must be asked first.
    Asking(Box<Asking>),
    /// Validation takes long, so it runs on the thread for large requests.
    Unread(Box<Unread>),
    Refused(Refusal),
}

/// Records that are not validated yet, with what they need.
pub(super) struct Unread {
    pub(super) partition: Arc<Partition>,
    pub(super) config: Arc<LogConfig>,
    pub(super) records: BytesMut,
    pub(super) room: Room,
}

/// The reason why records were refused.
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: Option<String>,
    pub(super) records: Vec<BatchIndexAndErrorMessage>,
    /// Whether the answer has the log start offset.
    pub(super) tells_log_start: bool,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
            tells_log_start: matches!(
                code,
                ErrorCode::NotEnoughReplicas
                    | ErrorCode::NotEnoughReplicasAfterAppend
                    | ErrorCode::RequestTimedOut
            ),
        }
    }
}

impl From<validate::Refusal> for Refusal {
    fn from(refusal: validate::Refusal) -> Self {
        let records = refusal.bad_records().iter().map(|record| BatchIndexAndErrorMessage {
            batch_index: record.index,
            batch_index_error_message: Some(record.message.clone()),
        });
        Self {
            code: refusal.code(),
            message: Some(refusal.to_string()),
            records: records.collect(),
            tells_log_start: refusal.tells_log_start(),
        }
    }
}

/// The partitions of one topic in the response.
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) id: TopicId,
    pub(super) partitions: Vec<(TopicPartition, Outcome)>,
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        let code = match error {
            AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
            AppendError::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
            AppendError::Storage | AppendError::Nameless => ErrorCode::KafkaStorageError,
            AppendError::Producer(error) => {
                return Self {
                    code: error.code(),
                    message: Some(error.to_string()),
                    records: Vec::new(),
                    tells_log_start: true,
                };
            }
        };
        code.into()
    }
}

/// Records that wait for the answer of their transaction's coordinator.
pub(super) struct Asking {
    pub(super) partition: Arc<Partition>,
    pub(super) prepared: Prepared,
    pub(super) log_append_time: bool,
    pub(super) room: Room,
}
