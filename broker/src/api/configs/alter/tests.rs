//! Refusals before the request reaches the controller, and the merging of the controller's answers.

use super::*;
use crate::api::fixtures::{everyone, nobody, request};

fn change<'a>(kind: i8, name: &'a str, entries: &[(&'a str, i8, Option<&'a str>)]) -> Change<'a> {
    Change { kind, name, entries: entries.to_vec() }
}

/// The refusals as `type/name code message`.
fn refused(authorizer: &Authorizer, changes: &[Change<'_>]) -> Vec<String> {
    let refused = refusals(BrokerId(3), authorizer, &request(1), changes);
    let text = |((kind, name), (error, message)): (&Key, &Outcome)| {
        format!("{kind}/{name} {} {}", error.code(), message.as_deref().unwrap_or("-"))
    };
    refused.iter().map(text).collect()
}

#[test]
fn what_is_refused_before_the_controller_is_asked() {
    let rows = [
        (change(2, "a", &[("retention.ms", SET, Some("5"))]), None),
        (change(4, "3", &[("log.retention.ms", SET, Some("5"))]), None),
        (
            change(
                4,
                "",
                &[
                    ("log.cleanup.policy", APPEND, Some("compact")),
                    ("log.retention.ms", DELETE, None),
                ],
            ),
            None,
        ),
        (
            change(2, "a", &[("x", SET, Some("1")), ("x", DELETE, None)]),
            Some("42 Error due to duplicate config keys"),
        ),
        (
            change(2, "a", &[("x", SET, None), ("y", APPEND, None)]),
            Some("42 Null value not supported for : x, y"),
        ),
        (change(4, "4", &[]), Some("42 Unexpected broker id, expected 3, but received 4")),
        (change(4, "x", &[]), Some("42 Node id must be an integer, but it is: x")),
        (
            change(4, "", &[("log.retention.hours", SET, Some("5"))]),
            Some("42 Cannot update these configs dynamically: [log.retention.hours]"),
        ),
        (
            change(4, "", &[("no.such", SET, Some("5"))]),
            Some("42 Unknown broker config name: no.such"),
        ),
        (
            change(4, "3", &[("min.insync.replicas", SET, Some("2"))]),
            Some(
                "40 Broker-level min.insync.replicas cannot be altered: the controller goes by it, too, and it is the same for all brokers.",
            ),
        ),
        // A key that an older version accepted can be deleted.
        (change(4, "3", &[("min.insync.replicas", DELETE, None)]), None),
        (change(4, "", &[("min.insync.replicas", SET, Some("2"))]), None),
        (
            change(4, "", &[("log.retention.ms", APPEND, Some("5"))]),
            Some("40 Config value append is not allowed for config key: log.retention.ms"),
        ),
        (
            change(4, "", &[("log.retention.ms", 9, Some("5"))]),
            Some("42 Unknown operations type 9"),
        ),
        (change(8, "3", &[]), Some("42 Unknown resource type 8")),
    ];
    for (change, expected) in rows {
        let key = format!("{}/{}", change.kind, change.name);
        let expected: Vec<_> = expected.map(|text| format!("{key} {text}")).into_iter().collect();
        assert_eq!(refused(&everyone(), &[change]), expected);
    }
}

#[test]
fn each_resource_once_and_only_by_those_who_may() {
    let twice = [change(2, "a", &[]), change(2, "b", &[]), change(2, "a", &[])];
    assert_eq!(refused(&everyone(), &twice), ["2/a 42 Each resource must appear at most once."]);
    let codes =
        refusals(BrokerId(3), &nobody(), &request(1), &[change(2, "a", &[]), change(4, "", &[])]);
    let codes: Vec<_> = codes.into_values().map(|(error, _)| error).collect();
    assert_eq!(codes, [ErrorCode::TopicAuthorizationFailed, ErrorCode::ClusterAuthorizationFailed]);
}

#[test]
fn the_answer_keeps_the_order_of_the_request() {
    let changes = [change(2, "b", &[]), change(8, "0", &[]), change(2, "a", &[])];
    let verdicts = || Verdicts::on(BrokerId(3), &everyone(), &request(1), &changes);
    let shown = |verdicts: Verdicts| {
        verdicts
            .into_answers()
            .map(|((_, name), (error, _))| format!("{name} {}", error.code()))
            .collect::<Vec<_>>()
    };
    let mut answered = verdicts();
    assert!(answered.is_open(2, "a") && !answered.is_open(8, "0"));
    answered.add_results(Ok([((2, "b".to_owned()), (40, None))].into_iter()));
    assert_eq!(shown(answered), ["b 40", "0 42", "a -1"]);
    let mut alone = verdicts();
    alone.add_results(Err::<std::iter::Empty<_>, _>(ErrorCode::NotController));
    assert_eq!(shown(alone), ["b 41", "0 42", "a 41"]);
}
