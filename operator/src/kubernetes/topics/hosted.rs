//! A cluster whose controller runs here, for the task of the topics.

use std::sync::Arc;

use super::super::context::Context;
use super::super::sizes::Sizes;
use crate::controller::Key;
use crate::shell::Controller;
use crate::store::kube::ClusterCache;
use crate::verdict::Verdict;

/// A cluster whose controller runs here.
#[derive(Clone, Debug)]
pub(in crate::kubernetes) struct Hosted {
    pub(in crate::kubernetes) cluster: Key,
    pub(in crate::kubernetes) controller: Controller,
    pub(in crate::kubernetes) cache: ClusterCache,
    pub(in crate::kubernetes) sizes: Sizes,
}

impl Hosted {
    /// Whether the cluster in the committed state takes Topics of a namespace.
    pub(super) fn verdict(&self, context: &Context, namespace: &str) -> Verdict {
        let committed = self.controller.committed();
        let cluster = Arc::clone(&committed.borrow().cluster.resource);
        context.namespaces.verdict(&cluster, namespace)
    }
}

/// A keeper's message to the task of the topics.
#[derive(Debug)]
pub(in crate::kubernetes) enum Notice {
    /// A cluster's controller runs.
    Hosted(Hosted),
    /// A cluster's controller has ended.
    Gone(Key),
}
