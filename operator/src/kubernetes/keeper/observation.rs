//! The findings of a pass over a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_crds::{BrokerStrays, ListenerStatus};
use weir_security::principal::Validity;

use super::pods::Pods;
use super::rollout::Step;
use super::table_recovery::Stage;
use crate::node_cas::Waits;
use crate::store::kube::ours::Taken;

/// The certificates of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct CertificateFindings {
    /// What they are, and when they are valid.
    pub(super) all: Vec<(String, Validity)>,
    /// Whom an exchange of the CA of the nodes waits for.
    pub(super) exchange: Option<Waits>,
}

/// The findings of a pass, for the status.
#[derive(Debug, Default)]
pub(super) struct Observation {
    pub(super) image: String,
    pub(super) paused: bool,
    pub(super) refusal: Option<String>,
    pub(super) pods: Pods,
    pub(super) replicas: i32,
    pub(super) rollout: Option<Step>,
    /// Why a claim is not bound; its broker cannot start.
    pub(super) unbound: Option<String>,
    /// Where volumes cannot follow the spec. Brokers run on the existing ones.
    pub(super) storage: Option<String>,
    pub(super) troubles: Vec<String>,
    /// Why this pass failed, as did the one before.
    pub(super) failed: Option<String>,
    /// The API server refused for a lasting reason.
    pub(super) refused: bool,
    /// The controller has answered this generation of the resource.
    pub(super) taken_up: bool,
    /// Why brokers beyond `replicas` still exist.
    pub(super) scale_down: Option<String>,
    /// Their replicas are being moved to other brokers.
    pub(super) moving: bool,
    /// The progress of growing volumes.
    pub(super) growing: Option<String>,
    /// Brokers that are down as planned.
    pub(super) away: BTreeSet<i32>,
    /// The bytes of all records, if known.
    pub(super) bytes: Option<i64>,
    /// Logs that brokers have set aside; `None` if the pass did not ask.
    pub(super) strays: Option<Vec<BrokerStrays>>,
    /// Objects of somebody else with the cluster's names; `None` if the pass did not check.
    pub(super) taken: Option<Vec<Taken>>,
    /// The certificates of the cluster; `None` if the pass did not look.
    pub(super) certificates: Option<CertificateFindings>,
    /// The addresses for clients, by listener.
    pub(super) listeners: Vec<ListenerStatus>,
    /// The partition tables are missing, and this is the stage of their recovery.
    pub(super) recovering: Option<Stage>,
    /// Nothing has advanced for this long, which is the deadline.
    pub(super) overdue: Option<Duration>,
    /// Something is in progress that no watch reports.
    pub(super) under_way: bool,
}

impl Observation {
    /// Why a volume differs from the spec; a volume that keeps its broker down comes first.
    pub(super) fn storage_trouble(&self) -> Option<&String> {
        self.unbound.as_ref().or(self.storage.as_ref())
    }
}
