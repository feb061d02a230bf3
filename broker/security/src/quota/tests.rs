use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

/// An entity as `user=a client-id=*`; `*` is the default.
fn entity(text: &str) -> Entity {
    Entity::of_parts(parts(text)).unwrap()
}

fn parts(text: &str) -> Vec<(&str, Option<&str>)> {
    let parts = text.split_whitespace().map(|part| part.split_once('=').unwrap());
    parts.map(|(kind, name)| (kind, Some(name).filter(|name| *name != "*"))).collect()
}

fn quotas(texts: &[(&str, f64)]) -> Quotas {
    let one = |(text, rate): &(&str, f64)| {
        let entity = entity(text);
        let key = match entity {
            Entity::Ip(_) => Key::ConnectionCreationRate,
            _ => Key::ProducerByteRate,
        };
        (entity, BTreeMap::from([(key, *rate)]))
    };
    texts.iter().map(one).collect()
}

#[test]
fn the_most_special_quota_counts() {
    let all = [
        ("user=u client-id=c", 1.0),
        ("user=u client-id=*", 2.0),
        ("user=u", 3.0),
        ("user=* client-id=c", 4.0),
        ("user=* client-id=*", 5.0),
        ("user=*", 6.0),
        ("client-id=c", 7.0),
        ("client-id=*", 8.0),
    ];
    let both = (Some("u"), Some("c"));
    let buckets = [both, both, (Some("u"), None), both, both, (Some("u"), None), (None, Some("c"))];
    for from in 0..8 {
        let limits = Limits::new(&quotas(&all[from..]), Key::ProducerByteRate);
        let limit = limits.of("u", "c").unwrap();
        assert_eq!(limit.rate, (from + 1) as f64);
        let (user, client_id) = buckets[from.min(6)];
        let owned = |text: Option<&str>| text.map(str::to_owned);
        assert_eq!(limit.bucket, Bucket { user: owned(user), client_id: owned(client_id) });
        assert!(Limits::new(&quotas(&all[from..]), Key::ConsumerByteRate).is_empty());
    }
    let only = |text| Limits::new(&quotas(&[(text, 1.0)]), Key::ProducerByteRate);
    assert_eq!(only("user=u").of("v", "c"), None);
    assert_eq!(only("client-id=c").of("u", "d"), None);
    assert_eq!(only("user=u client-id=c").of("u", "d"), None);
    // The default of users is a bucket for each.
    let limits = only("user=*");
    assert_ne!(limits.of("a", "c").unwrap().bucket, limits.of("b", "c").unwrap().bucket);
    assert_eq!(limits.of("a", "c").unwrap().bucket, limits.of("a", "d").unwrap().bucket);
    // Without client id there is no quota of client ids.
    let limits = Limits::new(&quotas(&all), Key::ProducerByteRate);
    assert_eq!(limits.of("u", "").unwrap().rate, 3.0);
    assert_eq!(limits.of("v", "").unwrap().rate, 6.0);
    assert_eq!(only("client-id=*").of("u", ""), None);
}

#[test]
fn an_address_has_one_quota() {
    let limits = Limits::new(
        &quotas(&[("ip=10.0.0.1", 1.0), ("ip=*", 2.0), ("ip=0:0:0:0:0:0:0:1", 3.0)]),
        Key::ConnectionCreationRate,
    );
    let of = |ip: &str| limits.of_ip(ip.parse::<IpAddr>().unwrap());
    assert_eq!(of("10.0.0.1"), Some(1.0));
    assert_eq!(of("::ffff:10.0.0.1"), Some(1.0));
    assert_eq!(of("10.0.0.2"), Some(2.0));
    assert_eq!(of("::1"), Some(3.0));
    assert_eq!(limits.of("u", "c"), None);
}

fn alteration(entity: &str, ops: &[(&str, Option<f64>)]) -> Alteration {
    let part = |(kind, name): (&str, Option<&str>)| EntityPart {
        kind: kind.to_owned(),
        name: name.map(str::to_owned),
    };
    let op = |(key, value): &(&str, Option<f64>)| Op { key: (*key).to_owned(), value: *value };
    Alteration {
        entity: parts(entity).into_iter().map(part).collect(),
        ops: ops.iter().map(op).collect(),
    }
}

#[test]
fn an_alteration_is_refused_as_kafka_refuses_it() {
    let rate = "producer_byte_rate";
    let connections = "connection_creation_rate";
    let some = |value| Some(value);
    let cases: &[(&str, &[(&str, Option<f64>)], &str)] = &[
        ("", &[(rate, some(1.0))], "Invalid empty client quota entity"),
        ("group=g", &[(rate, some(1.0))], "Unhandled client quota entity type: group"),
        ("user=", &[(rate, some(1.0))], "Empty user not supported"),
        (
            "user=a user=b",
            &[(rate, some(1.0))],
            "Invalid client quota entity, duplicate entity entry user",
        ),
        (
            "user=a ip=10.0.0.1",
            &[(connections, some(1.0))],
            "Invalid quota entity combination, IP entity should not be combined with User or \
             ClientId",
        ),
        ("ip=nohost", &[(connections, some(1.0))], "nohost is not a valid IP address."),
        ("user=a", &[("x", some(1.0))], "Invalid configuration key x"),
        (
            "user=a",
            &[(connections, some(1.0))],
            "Invalid configuration key connection_creation_rate",
        ),
        ("ip=*", &[(rate, some(1.0))], "Invalid configuration key producer_byte_rate"),
        ("user=a", &[(rate, some(0.0))], "Quota producer_byte_rate must be greater than 0"),
        ("user=a", &[(rate, some(-1.0))], "Quota producer_byte_rate must be greater than 0"),
        ("user=a", &[(rate, some(f64::NAN))], "Quota producer_byte_rate must be greater than 0"),
        ("user=a", &[(rate, some(1.5))], "producer_byte_rate cannot be a fractional value."),
        (
            "user=a",
            &[(rate, some(1e19))],
            "Proposed value for producer_byte_rate is too large for a LONG.",
        ),
        (
            "ip=*",
            &[(connections, some(2_147_483_648.0))],
            "Proposed value for connection_creation_rate is too large for an INT.",
        ),
        (
            "user=a",
            &[(rate, some(1.0)), (rate, None)],
            "Duplicate quota key producer_byte_rate not updating quota for this entity",
        ),
    ];
    for (entity, ops, message) in cases {
        let outcome = alter(&Quotas::new(), &[alteration(entity, ops)]).remove(0);
        assert_eq!(outcome.unwrap_err().to_string(), *message, "{entity} {ops:?}");
    }
}

#[test]
fn an_alteration_leaves_what_it_does_not_name() {
    let mut before = quotas(&[("user=a", 5.0)]);
    before.get_mut(&entity("user=a")).unwrap().insert(Key::RequestPercentage, 7.5);
    let altered = |entity, ops: &[(&str, Option<f64>)]| {
        alter(&before, &[alteration(entity, ops)]).remove(0).unwrap().1
    };
    let consumer = ("consumer_byte_rate", Some(3.0));
    let all = altered("user=a", &[consumer, ("request_percentage", Some(0.5))]);
    let keys = [Key::ProducerByteRate, Key::ConsumerByteRate, Key::RequestPercentage];
    assert_eq!(keys.map(|key| all[&key]), [5.0, 3.0, 0.5]);
    let some = altered("user=a", &[("producer_byte_rate", None)]);
    assert_eq!(some, BTreeMap::from([(Key::RequestPercentage, 7.5)]));
    let none = altered("user=b", &[("producer_byte_rate", None)]);
    assert!(none.is_empty(), "to remove what is not there is no error");
    assert_eq!(altered("client-id=*", &[consumer]).len(), 1);
    assert_eq!(altered("ip=::1", &[("connection_creation_rate", Some(5.0))]).len(), 1);
    let entries = [
        alteration("user=a client-id=c", &[consumer]),
        alteration("client-id=c user=a", &[consumer]),
        alteration("user=x", &[("x", None)]),
        alteration("user=y", &[consumer]),
    ];
    let outcomes = alter(&before, &entries);
    assert_eq!(outcomes[0], Err(QuotaError::DuplicateEntity));
    assert_eq!(outcomes[1], Err(QuotaError::DuplicateEntity));
    assert!(outcomes[2].is_err() && outcomes[3].is_ok());
}

#[test]
fn a_filter_describes_as_kafkas() {
    let all = quotas(&[
        ("user=a", 1.0),
        ("user=*", 2.0),
        ("user=a client-id=c", 3.0),
        ("user=* client-id=*", 4.0),
        ("client-id=c", 5.0),
        ("ip=10.0.0.1", 6.0),
    ]);
    let component = |kind: &str, match_type, name: Option<&str>| Component {
        kind: kind.to_owned(),
        match_type,
        name: name.map(str::to_owned),
    };
    let found = |components: &[Component], strict| {
        let filter = Filter::new(components, strict).unwrap();
        let mut rates: Vec<f64> =
            describe(&all, &filter).flat_map(|(_, values)| values.values().copied()).collect();
        rates.sort_by(f64::total_cmp);
        rates
    };
    assert_eq!(found(&[], false), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert!(found(&[], true).is_empty());
    assert_eq!(found(&[component("user", 0, Some("a"))], false), [1.0, 3.0]);
    assert_eq!(found(&[component("user", 0, Some("a"))], true), [1.0]);
    assert_eq!(found(&[component("user", 1, None)], false), [2.0, 4.0]);
    assert_eq!(found(&[component("user", 2, None)], false), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(found(&[component("user", 2, None)], true), [1.0, 2.0]);
    let both = [component("user", 2, None), component("client-id", 0, Some("c"))];
    assert_eq!(found(&both, true), [3.0]);
    assert_eq!(found(&[component("ip", 2, None)], true), [6.0]);
    let cases = [
        (vec![component("", 2, None)], "Invalid empty entity type."),
        (vec![component("x", 2, None)], "Unsupported entity type x"),
        (
            vec![component("user", 2, None), component("user", 0, Some("a"))],
            "Entity type user cannot appear more than once in the filter.",
        ),
        (
            vec![component("user", 0, None)],
            "Request specified MATCH_TYPE_EXACT, but set match string to null.",
        ),
        (
            vec![component("user", 1, Some("a"))],
            "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.",
        ),
        (
            vec![component("user", 2, Some("a"))],
            "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.",
        ),
        (vec![component("user", 3, None)], "Unknown match type 3"),
        (
            vec![component("ip", 2, None), component("user", 2, None)],
            "Invalid entity filter component combination. IP filter component should not be used \
             with user or clientId filter component.",
        ),
    ];
    for (components, message) in cases {
        let error = Filter::new(&components, false).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// Numbers with commas between, of a line of `tests/kafka.rates`.
fn numbers(event: &str) -> Vec<i64> {
    event.split(',').map(|number| number.parse().unwrap()).collect()
}

/// What Apache Kafka 4.3.1's `Rate`, `TokenBucket` and `Sensor` make of the same events. A line has
/// the windows, the limit and the events: time, value, throttle, and for a bucket whether it
/// passed.
#[test]
fn throttles_are_as_long_as_kafkas() {
    let mut throttled = 0;
    for line in include_str!("tests/kafka.rates").lines() {
        let [kind, count, length_ms, limit, events] = line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        let (count, length_ms) = (count.parse().unwrap(), length_ms.parse().unwrap());
        let (windows, limit) = (Windows { count, length_ms }, limit.parse::<f64>().unwrap());
        let (mut rate, mut bucket) = (Rate::default(), TokenBucket::default());
        for event in events.split(' ').map(numbers) {
            let (now_ms, value) = (u64::try_from(event[0]).unwrap(), event[1]);
            let throttle = if kind == "RATE" {
                rate.record(windows, value as f64, now_ms);
                rate.throttle_ms(windows, limit, now_ms)
            } else {
                let mut request = Mutations::new(windows, limit, kind == "STRICT");
                let passed = request.admit(&mut bucket, u32::try_from(value).unwrap(), now_ms);
                assert_eq!(i64::from(passed), event[3], "{line}");
                request.throttle_ms(now_ms)
            };
            assert_eq!(i64::try_from(throttle).unwrap(), event[2], "{now_ms} of {line}");
            throttled += usize::from(throttle > 0);
        }
    }
    assert!(throttled > 300, "the events are too tame: {throttled}");
}

#[test]
fn a_throttle_of_changes_runs_out_while_the_request_waits() {
    let windows = Windows { count: 11, length_ms: 1_000 };
    let mut bucket = TokenBucket::default();
    let mut first = Mutations::new(windows, 2.0, true);
    assert!(first.admit(&mut bucket, 100, 0), "more than there is passes once");
    assert_eq!(first.throttle_ms(0), 0);
    let mut second = Mutations::new(windows, 2.0, true);
    assert!(!second.admit(&mut bucket, 1, 0));
    assert_eq!(second.throttle_ms(0), 39_000);
    assert_eq!(second.throttle_ms(38_999), 1);
    assert_eq!(second.throttle_ms(50_000), 0);
    let mut old = Mutations::new(windows, 2.0, false);
    assert!(old.admit(&mut bucket, 2, 0), "an old client's change is carried out");
    assert_eq!(old.throttle_ms(0), 40_000);
}

#[test]
fn buckets_are_counted_apart_and_forgotten() {
    let windows = Windows::default();
    let limit = |id: &str, rate| Limit {
        bucket: Bucket { user: None, client_id: Some(id.to_owned()) },
        rate,
    };
    let mut bytes = Limiter::of_bytes(windows);
    assert_eq!(bytes.record(&limit("a", 10.0), 100.0, 0), 0, "the first ten windows' worth");
    let throttle_ms = bytes.record(&limit("a", 10.0), 900.0, 0);
    assert_eq!(throttle_ms, 90_000);
    assert_eq!(bytes.record(&limit("b", 10.0), 1.0, 0), 0);
    bytes.take_back(&limit("a", 10.0), 900.0, 0);
    assert_eq!(bytes.record(&limit("a", 10.0), 0.0, 0), 0);
    let mut requests = Limiter::of_requests(windows);
    assert_eq!(requests.record(&limit("a", 1.0), percentage(5_000_000_000), 0), 1_000);
    assert_eq!(percentage(10_000_000), 1.0);
    for client in 0..5_000u64 {
        bytes.record(&limit(&format!("c{client}"), 10.0), 1.0, client * 100);
    }
    assert!(bytes.buckets() < 3_000, "{} buckets of clients that are gone", bytes.buckets());
    assert_eq!(Windows::default().at_once(200.0), 2_000.0);
}

#[test]
fn new_connections_wait_or_are_closed() {
    let windows = Windows::default();
    let mut rates = ConnectionRates::new(windows);
    let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut connect = |address, limit_of_listener, now_ms| {
        let arrival = rates.arrive("PLAINTEXT", None, limit_of_listener, now_ms);
        let wait_ms = arrival.wait_ms;
        (wait_ms, rates.admit(arrival, address, Some(5.0), now_ms))
    };
    for n in 0..50 {
        assert_eq!(connect(one, Some(1_000.0), 0), (0, 0), "connection {n}");
    }
    for _ in 0..3 {
        assert_eq!(connect(one, Some(1_000.0), 0), (0, 200), "an address has its limit");
    }
    assert_eq!(connect(other, Some(1_000.0), 0), (0, 0), "another one has its own");
    // Connections that were closed do not count: 51 of 50 a second in ten windows.
    assert_eq!(connect(other, Some(5.2), 0), (0, 0));
    assert_eq!(connect(other, Some(5.2), 0), (192, 0), "the listener has one, too");
    assert_eq!(connect(other, Some(0.1), 0).0, 1_000, "at most one window");
    let mut rates = ConnectionRates::new(windows);
    for _ in 0..50 {
        assert_eq!(rates.arrive("A", Some(5.0), None, 0).wait_ms, 0);
    }
    assert_eq!(rates.arrive("A", Some(5.0), None, 0).wait_ms, 200);
    assert_eq!(rates.arrive("INTERNAL", None, None, 0).wait_ms, 0, "not limited by the broker's");
    // What is closed for its address does not count for the broker either.
    let mut rates = ConnectionRates::new(windows);
    let mut connect = |address| {
        let arrival = rates.arrive("A", Some(5.1), None, 0);
        (arrival.wait_ms, rates.admit(arrival, address, Some(5.0), 0))
    };
    for _ in 0..50 {
        assert_eq!(connect(one), (0, 0));
    }
    for _ in 0..5 {
        assert_eq!(connect(one), (0, 200));
    }
    assert_eq!(connect(other), (0, 0));
    assert!(connect(other).0 > 0);
}

/// `ClientQuotaManager.DefaultQuotaCallback`: the tags of a request, and the quota of tags.
fn naive(texts: &[&str], user: &str, id: &str) -> Option<(String, String, f64)> {
    let find = |text: &str| texts.iter().position(|other| *other == text).map(|n| n as f64);
    let (user_and, and_default) = (format!("user={user} client-id={id}"), "client-id=*");
    let any = |all: bool, kind: bool| {
        texts.iter().any(|t| (t.contains(' ') == all) && t.starts_with("user") == kind)
    };
    let (has_both, has_user, has_id) = (any(true, true), any(false, true), any(false, false));
    let full = || (user.to_owned(), id.to_owned());
    let of_user = || (user.to_owned(), String::new());
    let of_id = || (String::new(), id.to_owned());
    let tags = match (has_both, has_user, has_id) {
        (false, false, _) => of_id(),
        (false, true, false) => of_user(),
        (true, false, false) => full(),
        _ if find(&user_and).is_some() => full(),
        _ if find(&format!("user={user} {and_default}")).is_some() => full(),
        _ if find(&format!("user={user}")).is_some() => of_user(),
        _ if find(&format!("user=* client-id={id}")).is_some() => full(),
        _ if find("user=* client-id=*").is_some() => full(),
        _ if find("user=*").is_some() => of_user(),
        _ => of_id(),
    };
    let rate = match (tags.0.is_empty(), tags.1.is_empty()) {
        (false, false) => find(&user_and)
            .or_else(|| find(&format!("user={user} {and_default}")))
            .or_else(|| find(&format!("user=* client-id={id}")))
            .or_else(|| find("user=* client-id=*")),
        (false, true) => find(&format!("user={user}")).or_else(|| find("user=*")),
        (true, false) => find(&format!("client-id={id}")).or_else(|| find(and_default)),
        (true, true) => None,
    };
    rate.map(|rate| (tags.0, tags.1, rate))
}

const ENTITIES: [&str; 12] = [
    "user=a client-id=c",
    "user=a client-id=*",
    "user=a",
    "user=* client-id=c",
    "user=* client-id=*",
    "user=*",
    "client-id=c",
    "client-id=*",
    "user=b",
    "user=b client-id=d",
    "client-id=d",
    "user=* client-id=d",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// The quota and those who share it are what Kafka's callback finds.
    #[test]
    fn the_quota_is_the_one_that_kafka_finds(
        texts in proptest::sample::subsequence(&ENTITIES[..], 0..=12),
        user in proptest::sample::select(&["a", "b", "z"][..]),
        id in proptest::sample::select(&["c", "d", "z", ""][..]),
    ) {
        let rates: Vec<(&str, f64)> =
            texts.iter().enumerate().map(|(n, text)| (*text, n as f64)).collect();
        let limits = Limits::new(&quotas(&rates), Key::ProducerByteRate);
        let found = limits.of(user, id).map(|limit| {
            let Bucket { user, client_id } = limit.bucket;
            (user.unwrap_or_default(), client_id.unwrap_or_default(), limit.rate)
        });
        prop_assert_eq!(found, naive(&texts, user, id));
    }

    /// Any entries and filters are taken or refused, and what is taken is a quota.
    #[test]
    fn any_entry_is_taken_or_refused(
        entries in proptest::collection::vec(
            (
                proptest::collection::vec(("(user|client-id|ip|x|)", "(|a|10.0.0.1|::1|é)"), 0..3),
                proptest::collection::vec(
                    ("(producer_byte_rate|request_percentage|connection_creation_rate|y)", any::<f64>()),
                    0..3,
                ),
            ),
            0..4,
        ),
        match_type in any::<i8>(),
    ) {
        let entries: Vec<Alteration> = entries
            .into_iter()
            .map(|(parts, ops)| Alteration {
                entity: parts
                    .iter()
                    .map(|(kind, name)| EntityPart {
                        kind: kind.clone(),
                        name: Some(name.clone()).filter(|name| name != "a"),
                    })
                    .collect(),
                ops: ops
                    .into_iter()
                    .map(|(key, value)| Op { key, value: Some(value).filter(|v| *v != 1.0) })
                    .collect(),
            })
            .collect();
        let outcomes = alter(&Quotas::new(), &entries);
        prop_assert_eq!(outcomes.len(), entries.len());
        for (entity, values) in outcomes.into_iter().flatten() {
            prop_assert_eq!(Entity::of_parts(entity.parts()).unwrap(), entity);
            prop_assert!(values.values().all(|value| *value > 0.0));
        }
        for entry in &entries {
            let components: Vec<Component> = entry
                .entity
                .iter()
                .map(|part| Component {
                    kind: part.kind.clone(),
                    match_type,
                    name: part.name.clone(),
                })
                .collect();
            let _ = Filter::new(&components, true);
        }
    }
}
