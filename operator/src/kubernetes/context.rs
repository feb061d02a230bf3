//! The shared values of the operator's parts, while this replica leads.

use std::sync::Arc;

use kube::Client;

use super::args::Scope;
use super::groups::GroupStore;
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::objects::Monitoring;
use crate::rpc::Controllers;
use crate::store::kube::LeaseCheck;

/// The shared values of the operator's parts.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) scope: Scope,
    pub(super) broker_image: String,
    pub(super) controller_address: String,
    /// Labels and interval of the brokers' PodMonitors.
    pub(super) monitoring: Monitoring,
    /// The reporter of events: this replica.
    pub(super) reporter: String,
    pub(super) controllers: Controllers,
    pub(super) figures: Arc<Metrics>,
    /// The ConsumerGroups that the watch knows of.
    pub(super) groups: Arc<GroupStore>,
    /// The labels of namespaces, for clusters that select namespaces by label.
    pub(super) namespaces: Arc<Namespaces>,
    /// Checks that this term of leadership continues.
    pub(super) leads: LeaseCheck,
}

#[cfg(test)]
impl Context {
    /// The context of an operator that leads.
    pub(super) fn of_tests(server: &crate::store::kube::tests::server::Server) -> Self {
        Self {
            client: server.client(),
            scope: Scope::All,
            broker_image: "broker:1".to_owned(),
            controller_address: "operator:9190".to_owned(),
            reporter: "operator-0".to_owned(),
            monitoring: Monitoring::default(),
            controllers: Controllers::default(),
            figures: Arc::default(),
            groups: Arc::default(),
            namespaces: Arc::default(),
            leads: Arc::new(|| Box::pin(async { true })),
        }
    }
}
