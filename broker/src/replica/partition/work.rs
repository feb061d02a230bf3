//! What is brought to a partition, and what it keeps while it leads.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_protocol::types::LeaderEpoch;

use crate::log::{AppendError, AppendInfo, Prepared};
use crate::replica::core::Leadership;

/// What a produce waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// That it was tried.
    None,
    /// That the leader has it, as `flush.mode` understands having.
    Leader,
    /// That it is committed.
    All,
}

/// A leadership, and whether time does something to it.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) leadership: Leadership,
    pub(super) is_checked: bool,
}

/// What a produce brings.
pub(super) struct Append {
    pub(super) records: Prepared,
    /// The epoch that they are meant for; in another one they are refused. `None`: whichever it is.
    pub(super) epoch: Option<LeaderEpoch>,
    pub(super) answer: oneshot::Sender<Result<(AppendInfo, LeaderEpoch), AppendError>>,
    /// Dropped with the records.
    pub(super) keepsake: Keepsake,
}

/// What belongs to records that are in memory, and is let go with them.
pub(crate) type Keepsake = Option<Arc<dyn Send + Sync>>;
