//! A machine's disk: the logs and the files beside them.

use std::rc::Rc;

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
    /// The topic of each log; `None` if the log does not exist.
    pub(super) topics: Vec<Option<TopicId>>,
    pub(super) kept: Option<Kept>,
}

/// The file `image`: the last metadata that a process acted on, and its registration at the time.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) epoch: BrokerEpoch,
    pub(super) controller_epoch: ControllerEpoch,
    pub(super) state: Rc<State>,
}
