//! What a deleted cluster leaves, and what continues with it.

use weir_protocol::messages::CreateTopicsRequest;
use weir_protocol::messages::create_topics_request::CreatableTopic;

use super::*;
use crate::controller::state::SHARDS;
use crate::controller::{AdminRequest, Reply, TOPIC_ID_ANNOTATION};
use crate::kubernetes::annotations::CLUSTER_ID_ANNOTATION;
use crate::store::kube::tests::broker::Broker;

pub(super) const TABLES: &str = "/apis/weir.dev/v1alpha1/namespaces/n/partitiontables";
pub(super) const TOPICS: &str = "/apis/weir.dev/v1alpha1/namespaces/n/topics";
/// The uid of the cluster that is created after the first one was deleted.
const ANEW: &str = "5c5e8a1e-0000-4000-8000-000000000002";

fn spec(on_delete: &str) -> Value {
    json!({"brokers": {"replicas": 1, "storage": {"onDelete": on_delete}}})
}

/// Creates the cluster `c` with this uid.
pub(super) fn make(server: &Server, uid: &str, spec: &Value) {
    server.put(
        CLUSTER,
        &json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "uid": uid}, "spec": spec}),
    );
}

/// A cluster with a broker and the topic `made`, which a client created.
pub(super) async fn in_use(server: &Server) -> (Kept, Broker) {
    let mut kept = Kept::by(server);
    kept.pass(server).await;
    let host = kept.keeper.host.as_ref().unwrap();
    let broker = Broker::serves(host.controller(), host.cluster_id()).await;
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "made".to_owned(),
            num_partitions: 3,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer =
        host.controller().ask(broker.asks(AdminRequest::CreateTopics(request))).await.unwrap();
    assert!(matches!(answer.reply, Reply::Admin(_)), "{answer:?}");
    assert!(server.get(&format!("{TOPICS}/made")).is_some());
    (kept, broker)
}

pub(super) fn tables(server: &Server) -> Vec<Value> {
    let paths = server.paths().into_iter().filter(|path| path.starts_with(TABLES));
    paths.map(|path| server.get(&path).unwrap()).collect()
}

fn owners(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    owners.iter().map(|owner| owner["uid"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn events(server: &Server) -> String {
    let paths = server.paths().into_iter().filter(|path| path.contains("/events"));
    paths.map(|path| server.get(&path).unwrap().to_string()).collect()
}

#[tokio::test]
async fn a_cluster_that_is_made_anew_goes_on_with_what_was_kept() {
    let server = server(&spec("Retain"));
    server.put(
        &format!("{TOPICS}/written"),
        &json!({"apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "written", "namespace": "n"}, "spec": {"clusterRef": {"name": "c"}}}),
    );
    let (first, broker) = in_use(&server).await;
    let before = first.keeper.host.as_ref().unwrap().state();
    let made = server.get(&format!("{TOPICS}/made")).unwrap();
    drop((first, broker));
    server.delete_with_dependents(CLUSTER);
    assert_eq!(tables(&server).len(), usize::from(SHARDS) + 1);
    assert_eq!(server.get(&format!("{TOPICS}/made")).as_ref(), Some(&made));
    let left = server.paths().into_iter().filter(|path| !is_weirs_own(path));
    let kept = ["/api/v1/namespaces/n/secrets/c-scram-credentials"];
    assert_eq!(left.collect::<Vec<_>>(), kept, "what makes brokers run goes");

    make(&server, ANEW, &spec("Retain"));
    // The operator dies while it takes over, twice.
    for part in ["c-05", "c-registry"] {
        server.refuse("PUT", &format!("{TABLES}/{part}"), 500, "it is dead");
        Kept::by(&server).keeper.reconcile().await.unwrap_err();
        server.allow_all();
    }
    let mut second = Kept::by(&server);
    second.pass(&server).await;
    let host = second.keeper.host.as_ref().unwrap();
    let after = host.state();
    assert_eq!(after.cluster.id, before.cluster.id);
    assert!(after.cluster.controller_epoch > before.cluster.controller_epoch);
    assert!(
        after.cluster.next_broker_epoch >= before.cluster.next_broker_epoch
            && after.cluster.next_producer_id >= before.cluster.next_producer_id
    );
    assert_eq!(
        after.brokers.values().map(|broker| (broker.id, broker.log_dir)).collect::<Vec<_>>(),
        before.brokers.values().map(|broker| (broker.id, broker.log_dir)).collect::<Vec<_>>()
    );
    let (was, is) = (before.topic_by_name("made").unwrap(), after.topic_by_name("made").unwrap());
    assert_eq!(is.id, was.id);
    assert_eq!(is.partitions, was.partitions, "replicas, ISR and epochs go on");
    assert_eq!(is.partitions.len(), 3);
    assert_eq!(
        server.get(&format!("{TOPICS}/made")).unwrap()["metadata"]["annotations"]
            [TOPIC_ID_ANNOTATION],
        is.id.0.to_string()
    );
    assert!(
        tables(&server)
            .iter()
            .all(|table| table["spec"]["clusterUid"] == ANEW && owners(table).is_empty())
    );
    assert_eq!(
        server.get(CLUSTER).unwrap()["metadata"]["annotations"][CLUSTER_ID_ANNOTATION],
        json!(before.cluster.id)
    );
    assert!(events(&server).contains("TakesUpKept"), "{}", events(&server));
    assert!(said(&server, "NameTaken").starts_with("False: "));
    assert!(said(&server, "Degraded").starts_with("False: "), "{}", said(&server, "Degraded"));
    // Its own state does not count as a former cluster's.
    assert!(!Kept::by(&server).starts(&server).await);
}

/// The cluster was deleted and created again at once: its pods are still stopping.
#[tokio::test]
async fn pods_of_a_former_cluster_are_waited_for() {
    let server = server(&spec("Retain"));
    let (pod, set) = ("/api/v1/namespaces/n/pods/c-0", "/apis/apps/v1/namespaces/n/statefulsets/c");
    let owners = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": "former", "controller": true}]);
    let mut labels = json!(Names::of(&resource(&server)).labels());
    labels["controller-revision-hash"] = json!("c-old");
    server.put(
        pod,
        &json!({"metadata": {"name": "c-0", "generateName": "c-", "labels": labels, "ownerReferences": owners}}),
    );
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert!(server.get(set).is_none());
    assert!(said(&server, "UpToDate").starts_with("False: "), "{}", said(&server, "UpToDate"));
    server.remove(pod);
    kept.pass(&server).await;
    assert!(server.get(set).is_some());
}

/// `kubectl delete --cascade=orphan` leaves the pods, whose brokers serve on.
#[tokio::test]
async fn brokers_that_a_former_cluster_left_running_are_not_called_restarting() {
    let server = server(&spec("Retain"));
    drop(in_use(&server).await);
    server.delete_with_dependents(CLUSTER);
    make(&server, ANEW, &spec("Retain"));
    let owners = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": "former", "controller": true}]);
    let mut labels = json!(Names::of(&resource(&server)).labels());
    labels["controller-revision-hash"] = json!("c-old");
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    server.put(
        "/api/v1/namespaces/n/pods/c-0",
        &json!({"metadata": {"name": "c-0", "generateName": "c-", "labels": labels, "ownerReferences": owners}, "status": ready}),
    );
    let mut second = Kept::by(&server);
    second.pass(&server).await;
    let host = second.keeper.host.as_ref().unwrap();
    let _broker = Broker::serves(host.controller(), host.cluster_id()).await;
    second.pass(&server).await;
    for kind in ["Ready", "UpToDate", "Progressing", "DrainBlocked"] {
        let said = said(&server, kind);
        assert!(!said.is_empty() && !said.contains("restarted"), "{kind}: {said}");
    }
    assert!(said(&server, "DrainBlocked").starts_with("False: "));
}

#[tokio::test]
async fn where_the_volumes_go_everything_goes() {
    let server = server(&spec("Delete"));
    drop(in_use(&server).await);
    server.delete_with_dependents(CLUSTER);
    let left: Vec<String> =
        server.paths().into_iter().filter(|path| !path.contains("/events")).collect();
    assert_eq!(left, Vec::<String>::new());
    make(&server, ANEW, &spec("Delete"));
    let mut second = Kept::by(&server);
    second.pass(&server).await;
    assert!(second.keeper.host.as_ref().unwrap().state().topics.is_empty());
    assert!(!events(&server).contains("TakesUpKept"));
}

/// Claims that the StatefulSet controller skips: somebody else's pod has the broker's name, or the
/// broker was removed before the policy changed.
#[tokio::test]
async fn claims_without_a_pod_of_the_clusters_go_with_it_as_well() {
    let claim = |name: &str| format!("/api/v1/namespaces/n/persistentvolumeclaims/{name}");
    let server = server(&spec("Delete"));
    let labels = json!({MANAGED_BY: MANAGER, CLUSTER_LABEL: "c"});
    let set = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": "set", "controller": true}]);
    let put = |name: &str, labels: &Value, owners: &Value| {
        let metadata = json!({"name": name, "namespace": "n", "uid": name, "labels": labels, "ownerReferences": owners});
        server.put(&claim(name), &json!({"metadata": metadata}));
    };
    let of = |name: &str| owners(&server.get(&claim(name)).unwrap());
    let pod = "/api/v1/namespaces/n/pods/c-0";
    server.put(pod, &json!({"metadata": {"name": "c-0", "uid": "somebody-elses"}}));
    for ours in ["data-c-0", "data-c-7"] {
        put(ours, &labels, &json!([]));
    }
    // A copy, a claim from before the cluster, and one with another controller.
    put("data-c-0-copy", &labels, &json!([]));
    put("data-c-8", &json!({}), &json!([]));
    let theirs =
        json!([{"apiVersion": "v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}]);
    put("data-c-9", &labels, &theirs);
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert_eq!(["data-c-0", "data-c-7"].map(of), [[UID], [UID]]);
    drop(server.take_writes());
    kept.pass(&server).await;
    let written = server.take_writes().into_iter().any(|write| write.contains("volumeclaims"));
    assert!(!written, "nothing is written at rest");
    // What is settled is not read again until a claim has changed.
    let _ = server.take_listed();
    kept.pass(&server).await;
    assert_eq!(server.take_listed(), 0, "claims are listed at rest");
    // Deleting a former StatefulSet would delete it.
    put("data-c-6", &labels, &set);
    kept.keeper.wake.all_of("PersistentVolumeClaim");
    make(&server, UID, &spec("Retain"));
    kept.pass(&server).await;
    let none = Vec::<String>::new();
    assert_eq!(["data-c-0", "data-c-6", "data-c-7"].map(of), [none.clone(), none.clone(), none]);
    make(&server, UID, &spec("Delete"));
    kept.pass(&server).await;
    drop(kept);
    server.delete_with_dependents(CLUSTER);
    let left: Vec<String> =
        server.paths().into_iter().filter(|path| !path.contains("/events")).collect();
    let stay = ["data-c-0-copy", "data-c-8", "data-c-9"].map(claim);
    assert_eq!(left, [stay.as_slice(), &[pod.to_owned()]].concat());
}

/// The StatefulSet controller handles a claim whose pod it created: the operator leaves it alone.
#[tokio::test]
async fn a_claim_with_its_pod_is_left_to_the_stateful_set() {
    let path = "/api/v1/namespaces/n/persistentvolumeclaims/data-c-0";
    let server = server(&spec("Retain"));
    let set = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": "set", "controller": true}]);
    let labels = Names::of(&resource(&server)).labels();
    let metadata = |name: &str| json!({"name": name, "namespace": "n", "uid": name, "labels": labels, "ownerReferences": set});
    let mut pod = metadata("c-0");
    pod["generateName"] = json!("c-");
    pod["labels"]["controller-revision-hash"] = json!("c-old");
    server.put("/api/v1/namespaces/n/pods/c-0", &json!({"metadata": pod}));
    server.put(path, &json!({"metadata": metadata("data-c-0")}));
    let before = server.get(path);
    for on_delete in ["Retain", "Delete"] {
        make(&server, UID, &spec(on_delete));
        Kept::by(&server).pass(&server).await;
        assert_eq!(server.get(path), before, "{on_delete}");
    }
}

#[tokio::test]
async fn what_stays_is_decided_until_the_cluster_is_deleted() {
    let server = server(&spec("Delete"));
    let (mut kept, _broker) = in_use(&server).await;
    // A topic with an additional owner, and a user's topic without one.
    let (path, written) = (format!("{TOPICS}/made"), format!("{TOPICS}/written"));
    server.put(
        &written,
        &json!({"apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "written", "namespace": "n"}, "spec": {"clusterRef": {"name": "c"}}}),
    );
    let mut topic = server.get(&path).unwrap();
    topic["metadata"]["ownerReferences"]
        .as_array_mut()
        .unwrap()
        .push(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": "theirs"}));
    server.put(&path, &topic);
    let untouched = server.get(&written);
    for (on_delete, ours, of_the_topic) in
        [("Retain", vec![], vec!["theirs"]), ("Delete", vec![UID], vec!["theirs", UID])]
    {
        make(&server, UID, &spec(on_delete));
        kept.pass(&server).await;
        assert!(tables(&server).iter().all(|table| owners(table) == ours), "{on_delete}");
        assert_eq!(owners(&server.get(&path).unwrap()), of_the_topic, "{on_delete}");
        assert_eq!(server.get(&written), untouched);
        drop(server.take_writes());
        kept.pass(&server).await;
        let writes = server
            .take_writes()
            .into_iter()
            .filter(|write| write.contains("topics") || write.contains("partitiontables"));
        assert_eq!(writes.collect::<Vec<_>>(), Vec::<String>::new(), "nothing is written at rest");
    }
}

#[tokio::test]
async fn what_an_older_operator_wrote_is_kept_from_the_first_pass_on() {
    let server = server(&spec("Delete"));
    drop(in_use(&server).await);
    // An older operator, which set an owner on every object for any policy, and recorded no uid.
    for mut table in tables(&server) {
        let path = format!("{TABLES}/{}", table["metadata"]["name"].as_str().unwrap());
        table["spec"].as_object_mut().unwrap().remove("clusterUid");
        server.put(&path, &table);
    }
    make(&server, UID, &spec("Retain"));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert!(tables(&server).iter().all(|table| owners(table).is_empty()));
    assert_eq!(owners(&server.get(&format!("{TOPICS}/made")).unwrap()), Vec::<String>::new());
    assert!(!events(&server).contains("TakesUpKept"), "it is its own");
}

#[tokio::test]
async fn what_cannot_be_this_clusters_is_left_alone() {
    // Another cluster than the resource's left it.
    let other = server(&spec("Retain"));
    drop(in_use(&other).await);
    other.delete_with_dependents(CLUSTER);
    let mut object = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "uid": ANEW}, "spec": spec("Retain")});
    object["metadata"]["annotations"][CLUSTER_ID_ANNOTATION] = json!("another");
    other.put(CLUSTER, &object);
    let before = tables(&other);
    let error = Kept::by(&other).keeper.reconcile().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("this one is another: remove the annotation"),
        "{error:#}"
    );
    assert_eq!(tables(&other), before);
    // Without the registry the cluster's id is unknown.
    let lost = server(&spec("Retain"));
    drop(in_use(&lost).await);
    lost.delete_with_dependents(CLUSTER);
    lost.remove(&format!("{TABLES}/c-registry"));
    make(&lost, ANEW, &spec("Retain"));
    let before = tables(&lost);
    let error = Kept::by(&lost).keeper.reconcile().await.unwrap_err();
    assert!(
        format!("{error:#}")
            .contains("kubectl delete partitiontables,pvc -n n -l weir.dev/cluster=c"),
        "{error:#}"
    );
    assert_eq!(tables(&lost), before);
}

#[tokio::test]
async fn kept_volumes_are_as_they_were_until_they_grow() {
    let claim = |id: i32| format!("/api/v1/namespaces/n/persistentvolumeclaims/data-c-{id}");
    let set = "/apis/apps/v1/namespaces/n/statefulsets/c";
    let wanted = |size: &str| json!({"brokers": {"replicas": 2, "storage": {"size": size, "storageClassName": "other"}}});
    let server = server(&wanted("5Gi"));
    for (id, size) in [(0, "20Gi"), (1, "10Gi")] {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": size}}});
        let labels = json!({MANAGED_BY: MANAGER, CLUSTER_LABEL: "c"});
        server.put(
            &claim(id),
            &json!({"metadata": {"name": format!("data-c-{id}"), "namespace": "n", "labels": labels}, "spec": spec}),
        );
    }
    let requested = |object: &Value| object["spec"]["resources"]["requests"]["storage"].clone();
    let template = || server.get(set).unwrap()["spec"]["volumeClaimTemplates"][0].clone();
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert_eq!(
        (requested(&template()), &template()["spec"]["storageClassName"]),
        (json!("10Gi"), &json!("fast"))
    );
    assert!(
        said(&server, "StorageOk").contains("volumes cannot shrink"),
        "{}",
        said(&server, "StorageOk")
    );
    make(&server, UID, &wanted("15Gi"));
    kept.pass(&server).await;
    let sizes = [0, 1].map(|id| requested(&server.get(&claim(id)).unwrap()));
    assert_eq!((sizes, requested(&template())), ([json!("20Gi"), json!("15Gi")], json!("15Gi")));
}
