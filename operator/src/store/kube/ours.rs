//! PURE: the owner of an object. The operator writes and deletes only objects that it created.
//!
//! From the first write on, an object of a cluster has an owner reference with the cluster's uid
//! and `controller: true`. An object without it was created by somebody else, whatever its name and
//! its labels are: anybody can choose those. Pods and volume claims are created by the StatefulSet
//! controller and do not name the cluster; [`is_pod_of`] and [`is_claim_of`] recognise them.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;

/// On every object of a cluster: the cluster's `metadata.name`.
pub const CLUSTER_LABEL: &str = "weir.dev/cluster";

/// The label that names an object's creator, for selectors.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "weir-operator";

/// The owner reference with `controller: true`; there is at most one.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether an object was created for the cluster of this uid.
pub fn is_ours(metadata: &ObjectMeta, cluster_uid: &str) -> bool {
    !cluster_uid.is_empty() && controller_of(metadata).is_some_and(|owner| owner.uid == cluster_uid)
}

/// The object, if it was created for the cluster of this uid.
pub fn if_ours<K: Resource>(object: Option<K>, cluster_uid: &str) -> Option<K> {
    object.filter(|object| is_ours(object.meta(), cluster_uid))
}

/// Whether nobody but the StatefulSet with the cluster's name controls an object. While that is
/// being created again nobody does.
fn may_be_a_pod_of(cluster: &str, metadata: &ObjectMeta) -> bool {
    controller_of(metadata).is_none_or(|owner| owner.kind == "StatefulSet" && owner.name == cluster)
}

/// The label with the revision of a pod's template. The StatefulSet controller writes it on each
/// pod that it creates, and not on one that it adopts.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// Whether a pod with a broker's name and labels is a broker's: the StatefulSet controller created
/// it. It also adopts a pod of somebody else that has the labels. Such a pod has its controller,
/// and neither the revision of a template nor the prefix of generated names.
pub fn is_pod_of(cluster: &str, metadata: &ObjectMeta) -> bool {
    let is_generated =
        metadata.generate_name.as_deref().and_then(|name| name.strip_suffix('-')) == Some(cluster);
    let has_revision =
        metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(REVISION_LABEL));
    is_generated && has_revision && may_be_a_pod_of(cluster, metadata)
}

/// Whether a claim with a broker's name is a broker's. The StatefulSet controller sets an owner
/// only if the volumes go with the cluster. It sets none if they are kept, and a restored claim has
/// none. It always copies the labels of the template, so these decide, as long as nobody else owns
/// the claim. A claim without them was created by somebody else before the broker.
pub fn is_claim_of(cluster: &str, metadata: &ObjectMeta) -> bool {
    let label = |name: &str| {
        metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str)
    };
    label(CLUSTER_LABEL) == Some(cluster)
        && label(MANAGED_BY) == Some(MANAGER)
        && may_be_a_pod_of(cluster, metadata)
}

/// An object of somebody else with the name of one of the cluster's objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its owner or manager, as far as its metadata says.
    pub whose: Option<String>,
}

impl Taken {
    /// Names an object.
    pub fn of(kind: &str, namespace: &str, name: &str, metadata: &ObjectMeta) -> Self {
        let managed = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        let managed = managed.filter(|by| *by != MANAGER).map(|by| format!("{by:?} manages it"));
        let owner = controller_of(metadata).map(|owner| {
            format!("the {} {:?} of uid {} owns it", owner.kind, owner.name, owner.uid)
        });
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            whose: owner.or(managed),
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}/{} was made by somebody else", self.kind, self.namespace, self.name)?;
        match &self.whose {
            Some(whose) => write!(f, " ({whose})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn metadata(of: &Value) -> ObjectMeta {
        serde_json::from_value(of.clone()).unwrap()
    }

    fn owned(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        json!({"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": controller}]})
    }

    #[test]
    fn ours_is_what_names_the_clusters_uid_as_its_controller() {
        let ours = |of: &Value, uid: &str| is_ours(&metadata(of), uid);
        assert!(ours(&owned("KafkaCluster", "c", "u", true), "u"));
        for other in [
            json!({}),
            json!({"labels": {CLUSTER_LABEL: "c", MANAGED_BY: MANAGER}}),
            owned("KafkaCluster", "c", "another", true),
            owned("KafkaCluster", "c", "u", false),
        ] {
            assert!(!ours(&other, "u"), "{other}");
        }
        assert!(
            !ours(&owned("KafkaCluster", "c", "", true), ""),
            "a cluster without a uid has nothing"
        );
    }

    #[test]
    fn claims_are_told_by_the_template_they_were_made_of() {
        let labels = json!({CLUSTER_LABEL: "c", MANAGED_BY: MANAGER});
        let with_labels = |mut of: Value| {
            of["labels"] = labels.clone();
            metadata(&of)
        };
        assert!(is_claim_of("c", &with_labels(json!({}))), "kept, or restored");
        assert!(is_claim_of("c", &with_labels(owned("StatefulSet", "c", "s", true))));
        assert!(!is_claim_of("d", &with_labels(json!({}))));
        assert!(!is_claim_of("c", &with_labels(owned("StatefulSet", "other", "s", true))));
        assert!(!is_claim_of("c", &with_labels(owned("Pod", "c", "s", true))));
        assert!(!is_claim_of("c", &metadata(&json!({}))));
    }

    #[test]
    fn what_is_taken_is_named_with_whose_it_is() {
        let said = |of: &Value| Taken::of("Service", "n", "c-0", &metadata(of)).to_string();
        assert_eq!(said(&json!({})), "the Service n/c-0 was made by somebody else");
        assert_eq!(
            said(&json!({"labels": {MANAGED_BY: "Helm"}})),
            "the Service n/c-0 was made by somebody else (\"Helm\" manages it)"
        );
        assert_eq!(
            said(&owned("Deployment", "d", "u", true)),
            "the Service n/c-0 was made by somebody else (the Deployment \"d\" of uid u owns it)"
        );
        assert_eq!(
            said(&json!({"labels": {MANAGED_BY: MANAGER}})),
            "the Service n/c-0 was made by somebody else"
        );
    }
}
