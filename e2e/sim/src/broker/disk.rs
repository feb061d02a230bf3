//! A machine's disk: the logs and what lies beside them.

use std::rc::Rc;

use weir_broker::replica::core::Asked;
use weir_operator::controller::state::State;
use weir_protocol::types::{BrokerEpoch, ControllerEpoch, TopicId};

use crate::log::Log;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) log_dir: u128,
    /// The file `run`: the boot id and the broker epoch of the last run.
    pub(super) boot: u64,
    pub(super) epoch: Option<BrokerEpoch>,
    pub(super) clean: bool,
    pub(super) logs: Vec<Log>,
    /// Whose they are; `None`: there is none.
    pub(super) topics: Vec<Option<TopicId>>,
    pub(super) kept: Option<Kept>,
    /// What leaders here asked for last.
    pub(super) asked: Vec<Option<Asked>>,
}

/// The file `image`: the metadata that the last process acted on, and the registration under which
/// it did.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) epoch: BrokerEpoch,
    pub(super) controller_epoch: ControllerEpoch,
    pub(super) state: Rc<State>,
}
