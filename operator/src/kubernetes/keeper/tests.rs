//! A keeper with an API server in memory: it does not touch objects of somebody else.

mod addresses;
mod certificates;
mod deletion;
mod recovery;

use serde_json::{Value, json};
use weir_protocol::types::BrokerId;

use super::super::hosted_clusters::BrokerAddresses;
use super::*;
use crate::store::kube::CLUSTER_LABEL;
use crate::store::kube::ours::{MANAGED_BY, MANAGER};
use crate::store::kube::tests::server::Server;

const CLUSTER: &str = "/apis/weir.dev/v1alpha1/namespaces/n/kafkaclusters/c";
const UID: &str = "5c5e8a1e-0000-4000-8000-000000000001";

/// An API server with the cluster `c`.
fn server(spec: &Value) -> Server {
    let server = Server::default();
    server.put(
        CLUSTER,
        &json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "uid": UID}, "spec": spec}),
    );
    server
}

/// A keeper with the ends of its channels.
struct Kept {
    keeper: ClusterReconciler,
    resource: watch::Sender<Arc<KafkaCluster>>,
    _notices: mpsc::Receiver<Notice>,
}

impl Kept {
    fn by(server: &Server) -> Self {
        let context = Context::of_tests(server);
        let (resource, received) = watch::channel(Arc::new(resource(server)));
        let (notices, noticed) = mpsc::channel(64);
        let keeper = ClusterReconciler::new(
            context,
            Arc::default(),
            Key::new(Some("n"), Some("c")),
            received,
            Arc::default(),
            notices,
        );
        Self { keeper, resource, _notices: noticed }
    }

    /// Takes the cluster over; returns whether it continues with a former cluster's state.
    async fn starts(&mut self, server: &Server) -> bool {
        self.pass(server).await;
        self.keeper.host.as_ref().unwrap().takes_up()
    }

    /// One pass over the current resource.
    async fn pass(&mut self, server: &Server) {
        self.resource.send_replace(Arc::new(resource(server)));
        self.keeper.status = status::Written::default();
        self.keeper.reconcile().await.unwrap();
    }
}

fn resource(server: &Server) -> KafkaCluster {
    serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap()
}

fn one_broker() -> Value {
    json!({"brokers": {"replicas": 1}, "listeners": [{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "SharedLoadBalancer"}]})
}

/// Somebody else's object of that name, with labels that anybody can set.
fn foreign(path: &str) -> Value {
    let (_, name) = path.rsplit_once('/').unwrap();
    json!({
        "metadata": {"name": name, "namespace": "n", "uid": "somebody-elses", "labels": {MANAGED_BY: MANAGER, CLUSTER_LABEL: "c"}},
        // A Secret's values are in base64.
        "data": {"whose": "c29tZWJvZHkgZWxzZSdz"},
    })
}

/// `Status: message` of a condition.
fn said(server: &Server, kind: &str) -> String {
    let cluster = server.get(CLUSTER).unwrap();
    let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| {
        format!("{}: {}", found["status"].as_str().unwrap(), found["message"].as_str().unwrap())
    })
}

fn is_weirs_own(path: &str) -> bool {
    path.contains("/weir.dev/") || path.contains("/events")
}

const CREDENTIALS: &str = "/api/v1/namespaces/n/secrets/c-scram-credentials";

#[tokio::test]
async fn what_somebody_else_made_is_never_touched() {
    let all = server(&one_broker());
    Kept::by(&all).pass(&all).await;
    assert!(said(&all, "NameTaken").starts_with("False: "), "{}", said(&all, "NameTaken"));
    let mut paths: Vec<String> =
        all.paths().into_iter().filter(|path| !is_weirs_own(path)).collect();
    // A part of the state, as the tables are.
    paths.retain(|path| path != CREDENTIALS);
    assert_eq!(paths.len(), 14, "{paths:#?}");
    for taken in &paths {
        let server = server(&one_broker());
        server.put(taken, &foreign(taken));
        let before = server.get(taken);
        let mut kept = Kept::by(&server);
        kept.pass(&server).await;
        kept.pass(&server).await;
        let name = taken.rsplit_once('/').unwrap().1;
        assert_eq!(server.get(taken), before, "{taken}");
        let message = said(&server, "NameTaken");
        assert!(
            message.starts_with("True: ") && message.contains(&format!(" n/{name} ")),
            "{taken}: {message}"
        );
        // The rest is created. The exceptions are brokers that would use somebody else's settings
        // or certificates, the certificates of a CA that is not there, and slices that would direct
        // somebody else's Service to them.
        let goes_on = |path: &&String| {
            let is_secret = taken.contains("/secrets/");
            let brokers = (is_secret
                || taken.ends_with("s/c-brokers") && !taken.contains("/services/"))
                && path.contains("/statefulsets/");
            let certificates = is_secret && path.contains("/secrets/");
            let slices =
                taken.contains("/services/c-bootstrap-ext") && path.contains("/endpointslices/");
            !brokers && !certificates && !slices
        };
        for path in paths.iter().filter(goes_on) {
            assert!(server.get(path).is_some(), "{taken}: {path}");
        }
        for path in paths.iter().filter(|path| !goes_on(path) && *path != taken) {
            assert_eq!(server.get(path), None, "{taken}");
        }
        // The operator creates it once the name is free.
        server.remove(taken);
        kept.pass(&server).await;
        assert!(
            server
                .get(taken)
                .is_some_and(|made| made["metadata"]["ownerReferences"][0]["uid"] == UID),
            "{taken}"
        );
        assert!(said(&server, "NameTaken").starts_with("False: "), "{taken}");
    }
}

#[tokio::test]
async fn who_is_faster_keeps_what_it_made() {
    let (services, map) =
        ("/api/v1/namespaces/n/services", "/api/v1/namespaces/n/configmaps/c-brokers");
    let server = server(&one_broker());
    let theirs = foreign("services/c-bootstrap");
    server.race("POST", services, &theirs);
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let path = format!("{services}/c-bootstrap");
    assert_eq!(server.get(&path).unwrap()["metadata"]["uid"], "somebody-elses");
    assert_eq!(server.get(&path).unwrap()["metadata"].get("ownerReferences"), None);
    assert!(said(&server, "NameTaken").contains("n/c-bootstrap "));
    // An object of the cluster that somebody else deletes and creates again between the read and
    // the write.
    server.race("PATCH", map, &foreign(map));
    kept.keeper.context.controller_address = "elsewhere:9190".to_owned();
    kept.pass(&server).await;
    assert_eq!(server.get(map).unwrap()["data"], foreign(map)["data"]);
    assert_eq!(server.get(map).unwrap()["metadata"].get("ownerReferences"), None);
    assert!(said(&server, "NameTaken").contains("ConfigMap n/c-brokers "));
}

#[tokio::test]
async fn what_is_written_again_is_written_as_it_was_looked_at() {
    let map = "/api/v1/namespaces/n/configmaps/c-brokers";
    let server = server(&one_broker());
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let managers = || server.get(map).unwrap()["metadata"]["managedFields"].clone();
    assert_eq!(
        (&managers()[0]["operation"], &managers()[0]["manager"]),
        (&json!("Update"), &json!("weir-operator"))
    );
    drop(server.take_writes());
    kept.pass(&server).await;
    let objects = |writes: Vec<String>| {
        writes.into_iter().filter(|write| !is_weirs_own(write)).collect::<Vec<_>>()
    };
    assert_eq!(objects(server.take_writes()), Vec::<String>::new(), "nothing is written at rest");
    // The fields of the creation belong to the application from now on, so the next write removes a
    // dropped field.
    for writes in [2, 1] {
        kept.keeper.context.controller_address += "0";
        kept.pass(&server).await;
        assert_eq!(objects(server.take_writes()), vec![format!("PATCH {map}"); writes]);
        assert_eq!(
            server.get(map).unwrap()["data"]["WEIR_CONTROLLER"],
            kept.keeper.context.controller_address
        );
        assert_eq!(managers()[0]["operation"], "Apply");
    }
}

#[tokio::test]
async fn only_what_the_cluster_owns_is_deleted() {
    let server = server(&one_broker());
    let services = "/api/v1/namespaces/n/services";
    let labelled = format!("{services}/c-7");
    server.put(&labelled, &foreign(&labelled));
    let mut ours = foreign("services/c-8");
    ours["metadata"]["ownerReferences"] = json!([{"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "name": "c", "uid": UID, "controller": true}]);
    server.put(&format!("{services}/c-8"), &ours);
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert!(server.get(&labelled).is_some(), "labels do not make an object the cluster's");
    assert_eq!(server.get(&format!("{services}/c-8")), None);
}

#[tokio::test]
async fn volumes_and_stateful_sets_of_others_stay_as_they_are() {
    let set = "/apis/apps/v1/namespaces/n/statefulsets/c";
    let claim = "/api/v1/namespaces/n/persistentvolumeclaims/data-c-0";
    let small =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let wanted = json!({"brokers": {"replicas": 1, "storage": {"size": "5Gi"}}});
    // Somebody created this claim before the broker: no broker writes into it.
    let first = server(&wanted);
    first.put(claim, &json!({"metadata": {"name": "data-c-0", "namespace": "n"}, "spec": small}));
    let before = first.get(claim);
    let mut kept = Kept::by(&first);
    kept.pass(&first).await;
    assert_eq!((first.get(claim), first.get(set)), (before, None));
    assert!(said(&first, "NameTaken").contains("PersistentVolumeClaim n/data-c-0 "));
    // A claim with the labels of the brokers' claims is a broker's, whoever created it.
    let mut labelled = json!({"metadata": {"name": "data-c-0", "namespace": "n", "labels": {MANAGED_BY: MANAGER, CLUSTER_LABEL: "c"}}, "spec": small});
    first.put(claim, &labelled);
    kept.pass(&first).await;
    assert!(first.get(set).is_some() && said(&first, "NameTaken").starts_with("False: "));
    // Somebody else's StatefulSet is not deleted, and its claims do not grow.
    let second = server(&wanted);
    let template = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": small}]});
    second.put(set, &json!({"metadata": {"name": "c", "namespace": "n"}, "spec": template}));
    labelled["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "other", "uid": "o", "controller": true}]);
    second.put(claim, &labelled);
    let before = (second.get(claim), second.get(set));
    Kept::by(&second).pass(&second).await;
    assert_eq!((second.get(claim), second.get(set)), before);
}

/// A volume whose class does not allow growth, or that exceeds a quota.
#[tokio::test]
async fn a_volume_that_may_not_grow_is_said_and_holds_up_nothing_else() {
    let set = "/apis/apps/v1/namespaces/n/statefulsets/c";
    let claim = "/api/v1/namespaces/n/persistentvolumeclaims/data-c-0";
    let spec = |size: &str, memory: &str| json!({"brokers": {"replicas": 1, "storage": {"size": size}, "resources": {"requests": {"memory": memory}}}});
    let server = server(&spec("1Gi", "64Mi"));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let small =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let labels = json!({MANAGED_BY: MANAGER, CLUSTER_LABEL: "c"});
    server.put(
        claim,
        &json!({"metadata": {"name": "data-c-0", "namespace": "n", "labels": labels}, "spec": small, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}),
    );
    let mut cluster = server.get(CLUSTER).unwrap();
    cluster["spec"] = spec("5Gi", "100Mi");
    server.put(CLUSTER, &cluster);
    server.refuse(
        "PATCH",
        claim,
        403,
        "the storageclass that provisions the pvc must support resize",
    );
    kept.pass(&server).await;
    let sizes = || {
        let set = server.get(set).unwrap();
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let template = &set["spec"]["volumeClaimTemplates"][0]["spec"];
        [
            template["resources"]["requests"]["storage"].clone(),
            container["resources"]["requests"]["memory"].clone(),
        ]
    };
    assert_eq!(sizes(), ["1Gi", "100Mi"], "the API server takes no other size");
    assert!(
        said(&server, "StorageOk").starts_with("False: data-c-0 cannot grow to 5Gi"),
        "{}",
        said(&server, "StorageOk")
    );
    assert!(said(&server, "UpToDate").starts_with("False: data-c-0 cannot grow"));
    assert!(said(&server, "Stalled").starts_with("True: data-c-0 cannot grow"));
    // Once it may grow, it does; the status says that it has not reached its size.
    server.allow_all();
    kept.pass(&server).await;
    assert_eq!(sizes(), ["5Gi", "100Mi"]);
    kept.pass(&server).await;
    assert!(said(&server, "StorageOk").starts_with("True: "));
}

#[tokio::test]
async fn pods_of_others_are_not_restarted() {
    let server = server(&json!({"brokers": {"replicas": 2}}));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let set = "/apis/apps/v1/namespaces/n/statefulsets/c";
    let mut object = server.get(set).unwrap();
    object["status"] = json!({"replicas": 2, "updateRevision": "c-new", "observedGeneration": 1});
    server.put(set, &object);
    let labels: std::collections::BTreeMap<String, String> = Names::of(&resource(&server)).labels();
    let uid = object["metadata"]["uid"].clone();
    let pods = "/api/v1/namespaces/n/pods";
    let pod = |id: i32, owner: &Value| {
        let mut labels = json!(labels);
        labels["controller-revision-hash"] = json!("c-old");
        // It cannot run, so a broker's pod would be replaced at once.
        let waiting = json!({"name": "broker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}});
        let owners = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": owner, "controller": true}]);
        json!({"metadata": {"name": format!("c-{id}"), "generateName": "c-", "namespace": "n", "labels": labels, "ownerReferences": owners}, "status": {"containerStatuses": [waiting]}})
    };
    let (ours, other) = (format!("{pods}/c-0"), format!("{pods}/c-1"));
    server.put(&ours, &pod(0, &uid));
    server.put(&other, &pod(1, &json!("another set's")));
    kept.pass(&server).await;
    kept.pass(&server).await;
    assert_eq!(server.get(&ours), None);
    assert!(server.get(&other).is_some());
    // The StatefulSet controller adopts a pod of somebody else that has the labels, and does not
    // create it: it stays, and the status says so.
    let mut adopted = pod(0, &uid);
    adopted["metadata"]["labels"].as_object_mut().unwrap().remove("controller-revision-hash");
    adopted["metadata"].as_object_mut().unwrap().remove("generateName");
    server.put(&ours, &adopted);
    kept.pass(&server).await;
    kept.pass(&server).await;
    assert!(server.get(&ours).is_some());
    assert!(said(&server, "NameTaken").contains("Pod n/c-0 "), "{}", said(&server, "NameTaken"));
    // A pod without labels has a broker's name: the status says so.
    server.put(&ours, &json!({"metadata": {"name": "c-0", "namespace": "n"}}));
    kept.pass(&server).await;
    assert!(server.get(&ours).is_some());
    assert!(said(&server, "NameTaken").contains("Pod n/c-0 "), "{}", said(&server, "NameTaken"));
}

#[tokio::test]
async fn the_tables_of_another_cluster_are_not_taken_over() {
    let registry = "/apis/weir.dev/v1alpha1/namespaces/n/partitiontables/c-registry";
    let server = server(&json!({"brokers": {"replicas": 1, "storage": {"onDelete": "Delete"}}}));
    Kept::by(&server).pass(&server).await;
    let mut table = server.get(registry).unwrap();
    assert_eq!(table["metadata"]["ownerReferences"][0]["uid"], UID);
    // A table of a deleted cluster with the same name.
    table["metadata"]["ownerReferences"][0]["uid"] = json!("the former one's");
    server.put(registry, &table);
    let before = server.get(registry);
    let mut kept = Kept::by(&server);
    let error = kept.keeper.reconcile().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("PartitionTable n/c-registry was made by somebody else"),
        "{error:#}"
    );
    let mut retry = RETRY_MAX;
    kept.keeper.failed(&error, &mut retry).await;
    assert_eq!(server.get(registry), before);
    assert!(said(&server, "NameTaken").contains("PartitionTable n/c-registry "));
    // A table from a backup names no owner, and belongs to the cluster in its spec.
    table["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    server.put(registry, &table);
    kept.pass(&server).await;
    assert_eq!(server.get(registry).unwrap()["metadata"]["ownerReferences"][0]["uid"], UID);
}

/// So is its Secret of credentials.
#[tokio::test]
async fn credentials_of_somebody_else_are_not_taken_over() {
    let server = server(&one_broker());
    server.put(CREDENTIALS, &foreign(CREDENTIALS));
    let before = server.get(CREDENTIALS);
    let mut kept = Kept::by(&server);
    let error = kept.keeper.reconcile().await.unwrap_err();
    let mut retry = RETRY_MAX;
    kept.keeper.failed(&error, &mut retry).await;
    assert_eq!(server.get(CREDENTIALS), before);
    assert!(said(&server, "NameTaken").contains("Secret n/c-scram-credentials "));
    server.remove(CREDENTIALS);
    kept.pass(&server).await;
    // The volumes stay, and so does this. It names the cluster alone.
    assert_eq!(server.get(CREDENTIALS).unwrap()["metadata"]["labels"][CLUSTER_LABEL], "c");
    assert!(said(&server, "NameTaken").starts_with("False: "));
}

#[tokio::test]
async fn addresses_of_other_services_are_told_to_nobody() {
    let server = server(
        &json!({"brokers": {"replicas": 1}, "listeners": [{"name": "ext", "port": 9094, "type": "LoadBalancer"}]}),
    );
    for name in ["c-bootstrap-ext", "c-0-ext"] {
        let path = format!("/api/v1/namespaces/n/services/{name}");
        let mut theirs = foreign(&path);
        theirs["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.66"}]}});
        server.put(&path, &theirs);
    }
    Kept::by(&server).pass(&server).await;
    assert!(!server.get(CLUSTER).unwrap()["status"].to_string().contains("192.0.2.66"));
    assert_eq!(
        BrokerAddresses::of(&server.client(), &resource(&server), 0).await.unwrap(),
        BrokerAddresses::default()
    );
}

#[tokio::test]
async fn what_the_api_server_does_not_take_is_said_in_its_words() {
    let server = server(&one_broker());
    for (code, words) in [
        (404, "namespaces \"n\" not found"),
        (403, "exceeded quota"),
        (409, "the object has been modified"),
    ] {
        server.refuse("POST", "/api/v1/namespaces/n/services/c-0", code, words);
        let error = Kept::by(&server).keeper.reconcile().await.unwrap_err();
        let expected = if code == 409 { "others write it all the time" } else { words };
        assert!(
            format!("{error:#}").starts_with("apply Service c-0: ")
                && format!("{error:#}").contains(expected),
            "{error:#}"
        );
        server.allow_all();
    }
}
