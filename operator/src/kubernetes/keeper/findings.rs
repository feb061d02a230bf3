//! What a pass over a cluster found out.

use std::collections::BTreeSet;

use weir_crds::{BrokerStrays, ListenerStatus};

use super::pods::PodView;
use super::rollout::Step;
use super::table_recovery::Stage;
use crate::store::kube::ours::Taken;

/// What a pass found out, for the status.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) image: String,
    pub(super) paused: bool,
    pub(super) refusal: Option<String>,
    pub(super) pods: Vec<PodView>,
    pub(super) replicas: i32,
    pub(super) rollout: Option<Step>,
    /// Why a claim is not bound: its broker cannot start.
    pub(super) unbound: Option<String>,
    /// What volumes cannot be that the spec wants. Brokers run on them as they are.
    pub(super) storage: Option<String>,
    pub(super) troubles: Vec<String>,
    /// Why this pass did not come to its end, and neither did the one before.
    pub(super) failed: Option<String>,
    /// The API server does not take it, however often it is asked.
    pub(super) refused: bool,
    /// The controller has answered on this generation of the resource.
    pub(super) taken_up: bool,
    /// Why brokers that are to go are still there.
    pub(super) scale_down: Option<String>,
    /// What they hold is on its way to others.
    pub(super) moving: bool,
    /// How far volumes are that grow.
    pub(super) growing: Option<String>,
    /// Brokers that are away as planned.
    pub(super) away: BTreeSet<i32>,
    /// The bytes of all records, as far as they are known.
    pub(super) bytes: Option<i64>,
    /// Logs that brokers have set aside; `None` if that was not looked at.
    pub(super) strays: Option<Vec<BrokerStrays>>,
    /// What somebody else made under names of the cluster's; `None` if that was not looked at.
    pub(super) taken: Option<Vec<Taken>>,
    /// What clients outside are told, by listener.
    pub(super) listeners: Vec<ListenerStatus>,
    /// The partition tables are gone, and this is how far it is to have them made anew.
    pub(super) recovering: Option<Stage>,
    /// Something is under way of which no event will tell.
    pub(super) under_way: bool,
}

impl Findings {
    /// Why a volume is not as the spec wants it; first what keeps its broker away.
    pub(super) fn storage_trouble(&self) -> Option<&String> {
        self.unbound.as_ref().or(self.storage.as_ref())
    }
}
