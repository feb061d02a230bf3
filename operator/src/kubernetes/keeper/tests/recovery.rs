//! A cluster that has lost its tables, and gets them back from its brokers' volumes.

use uuid::Uuid;
use weir_protocol::controller as rpc;

use super::deletion::{TABLES, TOPICS, events, in_use, make, tables};
use super::*;
use crate::controller::{TOPIC_ID_ANNOTATION, image};
use crate::kubernetes::annotations::CLUSTER_ID_ANNOTATION;

const CONFIG_MAP: &str = "/api/v1/namespaces/n/configmaps/c-brokers";

fn spec(recovers: bool) -> Value {
    let mut spec = json!({"brokers": {"replicas": 1, "storage": {"onDelete": "Retain"}}});
    if recovers {
        spec["recoverFrom"] = json!("Volumes");
    }
    spec
}

/// The cluster id that brokers get.
fn told(server: &Server) -> String {
    let map = server.get(CONFIG_MAP).unwrap();
    map["data"]["WEIR_CLUSTER_ID"].as_str().unwrap().to_owned()
}

/// Broker 0 comes to the desk.
fn hands_in(kept: &Kept, inventory: Option<rpc::Inventory>) -> rpc::TakeStockResponse {
    let request = rpc::TakeStockRequest { broker_id: 0, incarnation: vec![1], inventory };
    kept.keeper.recovery.as_ref().unwrap().desk.hand_in(request).unwrap()
}

fn condition(server: &Server, kind: &str) -> String {
    let cluster = server.get(CLUSTER).unwrap();
    let all = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| found["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn tables_that_are_gone_are_made_of_what_brokers_have() {
    let server = server(&spec(false));
    let written = format!("{TOPICS}/written");
    let by_a_user = json!({"apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "written", "namespace": "n"}, "spec": {"clusterRef": {"name": "c"}, "topicName": "made", "partitions": 5}});
    let (first, broker) = in_use(&server).await;
    let before = first.keeper.host.as_ref().unwrap().state();
    drop((first, broker));
    // Everything but the volumes is gone: the namespace was deleted. A user has created the topic
    // under another name.
    let all = server.paths();
    all.iter().for_each(|path| server.remove(path));
    make(&server, UID, &spec(true));
    server.put(&written, &by_a_user);

    let mut second = Kept::by(&server);
    second.pass(&server).await;
    assert!(tables(&server).is_empty() && second.keeper.host.is_none());
    assert_eq!(told(&server), "recover:n/c", "its brokers say what they have");
    for (kind, reason) in [
        ("Recovering", "WaitsForBrokers"),
        ("Ready", "Recovering"),
        ("Available", "Recovering"),
        ("Reconciling", "Recovering"),
    ] {
        assert_eq!(condition(&server, kind), reason, "{kind}");
        assert!(said(&server, kind).contains("broker 0 to come"), "{}", said(&server, kind));
    }
    let image = image::full(&before);
    let inventory = rpc::Inventory {
        cluster_id: before.cluster.id.clone(),
        log_dir_id: Uuid::from_u128(2).as_bytes().to_vec(),
        broker_epoch: Some(before.brokers[&BrokerId(0)].epoch.0),
        controller_epoch: before.cluster.controller_epoch.0,
        image: Some(image),
        ..Default::default()
    };
    let answer = hands_in(&second, Some(inventory.clone()));
    assert!(
        answer.heard && answer.cluster_id.is_empty() && answer.waits_for.contains("broker 0"),
        "{answer:?}"
    );
    // The operator dies half way, and its successor collects the inventory again.
    server.refuse("POST", &format!("{TABLES}/c-registry"), 500, "it is dead");
    second.keeper.reconcile().await.unwrap_err();
    assert!(!tables(&server).is_empty(), "some are there");
    server.allow_all();
    let mut third = Kept::by(&server);
    third.pass(&server).await;
    assert!(third.keeper.host.is_none() && !hands_in(&third, None).heard);
    drop(hands_in(&third, Some(inventory)));
    third.pass(&server).await;
    let host = third.keeper.host.as_ref().unwrap();
    let after = host.state();
    assert_eq!(
        (after.cluster.id.as_str(), told(&server).as_str()),
        (before.cluster.id.as_str(), before.cluster.id.as_str())
    );
    assert!(
        after.cluster.controller_epoch > before.cluster.controller_epoch
            && after.cluster.next_producer_id > before.cluster.next_producer_id
    );
    let (was, is) = (before.topic_by_name("made").unwrap(), after.topic_by_name("made").unwrap());
    assert_eq!((is.id, is.partitions.len(), is.key.name.as_str()), (was.id, 3, "written"));
    for (was, is) in was.partitions.iter().zip(&is.partitions) {
        assert_eq!(was.replicas, is.replicas);
        assert!(is.leader_epoch > was.leader_epoch && is.partition_epoch > was.partition_epoch);
    }
    let topic = server.get(&written).unwrap();
    assert_eq!(topic["spec"], by_a_user["spec"], "what a user wrote stays");
    assert_eq!(topic["metadata"]["annotations"][TOPIC_ID_ANNOTATION], is.id.0.to_string());
    assert_eq!(server.get(&format!("{TOPICS}/made")), None);
    assert!(events(&server).contains("Recovered"), "{}", events(&server));
    assert_eq!(condition(&server, "Recovering"), "HasTables");
    // The broker learns the id, and so does one that comes late, even from an operator that has
    // restarted since.
    let answer = hands_in(&third, None);
    assert_eq!((answer.heard, answer.cluster_id), (true, before.cluster.id.clone()));
    let mut fourth = Kept::by(&server);
    fourth.pass(&server).await;
    let answer = hands_in(&fourth, None);
    assert_eq!((answer.heard, answer.cluster_id), (false, before.cluster.id));
}

#[tokio::test]
async fn a_new_cluster_begins_once_its_brokers_say_that_they_are_new() {
    let server = server(&spec(true));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert!(kept.keeper.host.is_none());
    drop(hands_in(&kept, Some(rpc::Inventory::default())));
    kept.pass(&server).await;
    let host = kept.keeper.host.as_ref().unwrap();
    assert_eq!(host.cluster_id(), "XF6KHgAAQACAAAAAAAAAAQ");
    assert_eq!(hands_in(&kept, None).cluster_id, host.cluster_id());
    assert_eq!(
        (told(&server).as_str(), condition(&server, "Recovering").as_str()),
        (host.cluster_id(), "HasTables")
    );
}

#[tokio::test]
async fn volumes_of_another_cluster_are_refused() {
    let server = server(&spec(true));
    let mut object = server.get(CLUSTER).unwrap();
    object["metadata"]["annotations"][CLUSTER_ID_ANNOTATION] = json!("mine");
    server.put(CLUSTER, &object);
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let inventory = rpc::Inventory {
        cluster_id: "another".to_owned(),
        log_dir_id: Uuid::from_u128(2).as_bytes().to_vec(),
        ..Default::default()
    };
    drop(hands_in(&kept, Some(inventory)));
    kept.pass(&server).await;
    assert!(kept.keeper.host.is_none() && tables(&server).is_empty());
    for kind in ["Recovering", "Stalled"] {
        assert_eq!(condition(&server, kind), "CannotRecover", "{kind}");
    }
    assert!(
        said(&server, "Recovering").contains("this is mine"),
        "{}",
        said(&server, "Recovering")
    );
}
