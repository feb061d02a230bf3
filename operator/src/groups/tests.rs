mod lag;
mod reset;
mod rules;

use serde_json::{Value, json};
use weir_crds::{ConsumerGroup, ConsumerGroupStatus};

use super::marks::Marks;
use super::observed::{Log, Member, Observed};
use super::reconcile::{Decision, Memory, Seen, Workload, reconcile};

/// A resource of the group `g` with `fields` in its spec.
fn resource(fields: Value) -> ConsumerGroup {
    let mut spec = json!({"clusterRef": {"name": "c"}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let object = json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "ConsumerGroup", "metadata": {"name": "g", "uid": "u-1", "generation": 1}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// Partitions 0, 1, … of the topic `t`, each with its committed offset, start and end.
fn observed(state: &str, members: usize, logs: &[(Option<i64>, i64, i64)]) -> Observed {
    let log = |(committed, start, end): (Option<i64>, i64, i64)| Log {
        committed,
        start: Some(start),
        end: Some(end),
        oldest_ms: None,
    };
    Observed {
        coordinator: Some(0),
        state: state.to_owned(),
        protocol: "Classic".to_owned(),
        members: (0..members).map(member).collect(),
        marks: Some(Marks::default()),
        partitions: (0..)
            .zip(logs)
            .map(|(index, row)| (("t".to_owned(), index), log(*row)))
            .collect(),
        ..Observed::default()
    }
}

/// Member `n`, with partition `n`.
fn member(n: usize) -> Member {
    Member {
        id: format!("m-{n}"),
        client_id: format!("client-{n}"),
        partitions: [("t".to_owned(), n as i32)].into(),
        ..Member::default()
    }
}

fn decide(
    resource: &ConsumerGroup,
    status: &ConsumerGroupStatus,
    observed: &Observed,
    memory: &mut Memory,
    now_ms: i64,
) -> Decision {
    reconcile(resource, status, &Seen::Group(observed), &Workload::None, memory, now_ms)
}

/// A condition as `Status/Reason`.
fn says(status: &ConsumerGroupStatus, kind: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    format!("{}/{}", condition.status, condition.reason)
}
