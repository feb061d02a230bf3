//! The jobs of a partition's writer, and the state that it keeps while it leads.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_protocol::types::LeaderEpoch;

use crate::replica::core::Leadership;
use weir_log::{AppendError, AppendInfo, Prepared};

/// The acknowledgement that a produce waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// The append was tried.
    None,
    /// The leader has the batch: in memory or on disk, as `flush.mode` says.
    Leader,
    /// The batch is committed.
    All,
}

/// A leadership, and whether it is in the queue of periodic checks.
#[derive(Debug)]
pub(super) struct LeaderState {
    pub(super) leadership: Leadership,
    pub(super) is_checked: bool,
}

/// A batch to append.
pub(super) struct Append {
    pub(super) records: Prepared,
    /// The only epoch in which the records may be appended; `None`: any.
    pub(super) epoch: Option<LeaderEpoch>,
    pub(super) answer: oneshot::Sender<Result<(AppendInfo, LeaderEpoch), AppendError>>,
    /// Dropped with the records.
    pub(super) keepsake: Keepsake,
}

/// An object that lives as long as the records are in memory, such as their share of a budget.
pub(crate) type Keepsake = Option<Arc<dyn Send + Sync>>;
