//! What every part of the operator needs, for as long as this replica leads.

use std::sync::Arc;

use kube::Client;

use super::args::Scope;
use super::figures::Figures;
use super::groups::GroupStore;
use super::namespaces::Namespaces;
use super::objects::Monitoring;
use crate::rpc::Controllers;
use crate::store::kube::LeaseCheck;

/// What every part of the operator needs.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) scope: Scope,
    pub(super) broker_image: String,
    pub(super) controller_address: String,
    /// How Prometheus finds the brokers.
    pub(super) monitoring: Monitoring,
    /// Where events come from: this replica.
    pub(super) reporter: String,
    pub(super) controllers: Controllers,
    pub(super) figures: Arc<Figures>,
    /// The ConsumerGroups that the watch knows of.
    pub(super) groups: Arc<GroupStore>,
    /// The labels of namespaces, where a cluster goes by them.
    pub(super) namespaces: Arc<Namespaces>,
    /// Whether this term goes on.
    pub(super) leads: LeaseCheck,
}

#[cfg(test)]
impl Context {
    /// Of an operator that leads.
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
