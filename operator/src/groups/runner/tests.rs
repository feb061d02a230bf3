//! The owner of a group, its metrics, and the writes of a deposed operator.

use serde_json::json;

use super::*;
use crate::controller::state::{Cluster, State};

fn resource(name: &str, fields: serde_json::Value) -> ConsumerGroup {
    let mut object = json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "ConsumerGroup", "metadata": {"name": name, "generation": 1},
        "spec": {"clusterRef": {"name": "c"}, "groupId": "g", "reset": {"id": "r", "to": {"shift": 1}}},
    });
    for (pointer, value) in fields.as_object().unwrap() {
        *object.pointer_mut(pointer).unwrap() = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

#[test]
fn the_oldest_resource_has_the_group_and_a_users_before_one_that_was_made() {
    let made = |name: &str, at: &str, reflected: bool| {
        let metadata = json!({"name": name, "creationTimestamp": at, "labels": {mirror::REFLECTED_LABEL: reflected.to_string()}});
        Arc::new(resource(name, json!({"/metadata": metadata})))
    };
    let groups = [
        made("a", "2026-01-03T00:00:00Z", false),
        made("b", "2026-01-02T00:00:00Z", false),
        made("c", "2026-01-01T00:00:00Z", true),
    ];
    assert_eq!(owners(&groups), [("g".to_owned(), (String::new(), "b".to_owned()))].into());
}

/// Has two resources of one name in two namespaces for one group, and records the shown statuses.
struct Conflicting(tokio::sync::watch::Sender<BTreeMap<Named, ConsumerGroupStatus>>);

impl GroupBackend for Conflicting {
    fn groups(&self) -> Vec<Arc<ConsumerGroup>> {
        let of = |namespace: &str| {
            resource(
                "g",
                json!({"/metadata": {"name": "g", "namespace": namespace, "generation": 1}}),
            )
        };
        ["a", "b"].map(|namespace| Arc::new(of(namespace))).into()
    }

    fn knows_all(&self) -> bool {
        true
    }

    fn take_deleted(&self) -> Vec<Arc<ConsumerGroup>> {
        Vec::new()
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn write_status(&self, _: &ConsumerGroup, _: &ConsumerGroupStatus) -> anyhow::Result<()> {
        Ok(())
    }

    async fn workload(&self, _: &ConsumerGroup) -> Workload {
        Workload::None
    }

    async fn scale(&self, _: &ConsumerGroup, _: i32) -> anyhow::Result<()> {
        Ok(())
    }

    async fn make(&self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &ConsumerGroup) -> anyhow::Result<()> {
        Ok(())
    }

    fn show<'a>(
        &self,
        groups: impl Iterator<Item = (&'a Named, &'a ConsumerGroupStatus)>,
        _: bool,
    ) {
        let shown = groups.map(|(named, status)| (named.clone(), status.clone()));
        self.0.send_replace(shown.collect());
    }

    async fn may_act(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn how_the_groups_do_is_shown_after_each_look() {
    let cluster = serde_json::from_value(json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c"}, "spec": {},
    }));
    let state = State::new(Cluster::new("id".to_owned(), cluster.unwrap()));
    let (_committed, state) = tokio::sync::watch::channel(state);
    let home = Arc::new(Conflicting(tokio::sync::watch::Sender::default()));
    let mut shown = home.0.subscribe();
    let keeping = tokio::spawn(keep(Arc::clone(&home), Client::new(state, None), Pace::KUBERNETES));
    // The second of two resources for one group gets its status without a broker.
    let judged = shown.wait_for(|shown| {
        shown.get(&("b".to_owned(), "g".to_owned())).is_some_and(|status| {
            status
                .conditions
                .iter()
                .any(|c| c.reason == "Conflict" && c.message.contains("ConsumerGroup \"a/g\""))
        })
    });
    let judged =
        tokio::time::timeout(Duration::from_secs(60), judged).await.unwrap().unwrap().clone();
    assert_eq!(judged.len(), 2);
    keeping.abort();
}

#[test]
fn what_another_operator_has_done_is_done() {
    let phase = |phase: &str, id: &str| -> ConsumerGroupStatus {
        let saved = json!([{"id": id, "offsets": "t=1"}]);
        serde_json::from_value(
            json!({"lastReset": {"id": id, "phase": phase, "partitions": 1}, "undo": saved}),
        )
        .unwrap()
    };
    for (before, theirs, taken) in [
        (phase("Committing", "r"), phase("Done", "r"), true),
        (phase("Committing", "r"), phase("Waiting", "r"), false),
        (phase("Committing", "r"), phase("Done", "older"), false),
    ] {
        let mut group = resource("a", json!({}));
        group.status = Some(before.clone());
        let mut kept = Kept::new(&group);
        group.status = Some(theirs.clone());
        kept.take_over_done(&group);
        assert_eq!(kept.status, if taken { theirs } else { before });
    }
}
