use super::*;

#[test]
fn what_others_made_is_said_until_it_was_looked_at_again() {
    let cluster = cluster(json!({"brokers": {"replicas": 3}}));
    let state = state(&cluster, 3);
    let next = |before: &KafkaClusterStatus, taken: Option<Vec<Taken>>| {
        let findings = Observation { taken, ..found() };
        status_of(&cluster, before, Some(&state), &findings, &at(0))
    };
    let many: Vec<Taken> = (0..7).map(|_| somebody_elses("Service")).collect();
    let first = next(&KafkaClusterStatus::default(), Some(many));
    assert!(
        said(&first, NAME_TAKEN).starts_with("NameTaken=True MadeByOthers: the Service n/c "),
        "{first:?}"
    );
    assert!(said(&first, NAME_TAKEN).contains(", and 2 more objects: "), "{first:?}");
    let budget = next(&first, Some(vec![somebody_elses("PodDisruptionBudget")]));
    let unseen = next(&budget, None);
    assert_eq!(said(&unseen, DRAIN_BLOCKED), said(&budget, DRAIN_BLOCKED));
    assert!(said(&unseen, DRAIN_BLOCKED).starts_with("DrainBlocked=Unknown "), "{unseen:?}");
    // A pass of a paused cluster does not check it.
    let second = next(&first, None);
    assert_eq!(said(&second, NAME_TAKEN), said(&first, NAME_TAKEN));
    assert!(said(&next(&second, Some(Vec::new())), NAME_TAKEN).starts_with("NameTaken=False "));
}
