use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_first_colon_separates_type_and_name() {
    let cases = [
        ("User:alice", "User", "alice"),
        ("User:system:serviceaccount:shop:orders", "User", "system:serviceaccount:shop:orders"),
        ("User:CN=a,OU=b", "User", "CN=a,OU=b"),
        ("User:", "User", ""),
        (":x", "", "x"),
        ("Group:*", "Group", "*"),
    ];
    for (text, kind, name) in cases {
        let parsed = KafkaPrincipal::parse(text).unwrap();
        assert_eq!((parsed.kind(), parsed.name()), (kind, name));
        assert_eq!(parsed.to_string(), text);
    }
    for text in ["", "alice", "broker 3", "controller"] {
        assert!(KafkaPrincipal::parse(text).is_err(), "{text}");
    }
    let long = KafkaPrincipal::parse(&"x".repeat(100_000)).unwrap_err();
    assert!(long.to_string().len() < 300, "an error repeats a long text");
}

#[test]
fn types_and_names_are_case_sensitive() {
    assert_ne!(KafkaPrincipal::parse("user:a"), KafkaPrincipal::parse("User:a"));
    assert_ne!(KafkaPrincipal::user("A"), KafkaPrincipal::user("a"));
    assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
}

#[test]
fn a_node_has_one_uri_in_its_own_cluster() {
    let cluster = "5f1c";
    for node in [Principal::Broker(0), Principal::Broker(i32::MAX), Principal::Controller] {
        let uri = node_uri(cluster, &node).unwrap();
        assert_eq!(node_of(&uri, cluster), Some(node));
    }
    assert_eq!(node_uri(cluster, &Principal::anonymous()), None);
    let others = [
        "weir://5f1d/broker/3",
        "weir://5f1c5/broker/3",
        "weir://5f1/broker/3",
        "weir://5f1c/broker/",
        "weir://5f1c/broker/+3",
        "weir://5f1c/broker/03",
        "weir://5f1c/broker/-3",
        "weir://5f1c/broker/3/",
        "weir://5f1c/broker/3?x",
        "weir://5f1c/broker/3 ",
        "weir://5f1c/broker/2147483648",
        "weir://5f1c/Controller",
        "weir://5f1c/controller/",
        "WEIR://5f1c/controller",
        "weir:///controller",
        "spiffe://5f1c/controller",
        "",
    ];
    for uri in others {
        assert_eq!(node_of(uri, cluster), None, "{uri}");
    }
}

/// Of a self-signed certificate that `openssl req -x509` made.
const OF_BROKER: &str = include_str!("tests/broker.hex");

#[test]
fn a_certificate_has_a_subject_and_uris() {
    let certificate = Certificate::parse(&bytes(OF_BROKER.trim())).unwrap();
    assert_eq!(certificate.subject, "CN=broker 3,OU=Streams\\, inc.,O=Weir,C=DE");
    assert_eq!(certificate.uris, ["weir://5f1c/broker/3", "https://example.org/x"]);
    assert_eq!(certificate.node("5f1c"), Some(Principal::Broker(3)));
    assert_eq!(certificate.node("5f1d"), None);
    let two = Certificate {
        uris: vec!["weir://5f1c/broker/3".to_owned(), "weir://5f1c/broker/4".to_owned()],
        ..certificate
    };
    assert_eq!(two.node("5f1c"), None, "which of the two is it?");
}

/// What Java 17 prints for the same bytes (`new X500Principal(der).getName()`).
#[test]
fn a_subject_is_written_as_java_writes_it() {
    for line in include_str!("tests/java.dn").lines() {
        let (der, name) = line.split_once('\t').unwrap();
        let name = name.replace("<CR>", "\r").replace("<LF>", "\n").replace("<TAB>", "\t");
        assert_eq!(rfc2253(&bytes(der)).unwrap(), name, "{der}");
    }
}

/// What Apache Kafka 4.3.1 makes of the same rules (`SslPrincipalMapper`); `!` before what it
/// refuses when it reads the rules, `?` before what it refuses when a client connects.
#[test]
fn rules_map_as_kafkas_do() {
    for line in include_str!("tests/kafka.rules").lines() {
        let [rules, subject, name] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let rules = rules.replace("<LF>", "\n").replace("<TAB>", "\t");
        let parsed = MappingRules::parse(&rules);
        if let Some(message) = name.strip_prefix('!') {
            let error = parsed.unwrap_err().to_string();
            assert!(message.is_empty() || error == message, "{rules}: {error}");
        } else if name == "?" {
            let refused = match parsed {
                Ok(rules) => rules.name(subject).is_err(),
                Err(_) => true,
            };
            assert!(refused, "{rules}");
        } else {
            assert_eq!(parsed.unwrap().name(subject).as_deref(), Ok(name), "{rules}");
        }
    }
}

#[test]
fn a_name_does_not_grow_without_bound() {
    let rules = format!("RULE:(a?)*/{}/", "x".repeat(60_000));
    let rules = MappingRules::parse(&rules).unwrap();
    assert!(matches!(rules.name("aaaa"), Err(NoName::TooLong(_))));
    assert_eq!(MappingRules::parse(&" ".repeat(100_000)).unwrap_err(), BadRules::TooLong);
    assert!(MappingRules::parse("RULE:(((a{1000}){1000}){1000})/x/").is_err());
    assert!(MappingRules::parse("RULE:(?=a)b/x/").is_err(), "look-around");
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed(kind in "[^:]{0,8}", name in ".{0,20}") {
        let text = format!("{kind}:{name}");
        prop_assert_eq!(KafkaPrincipal::parse(&text).unwrap().to_string(), text);
    }

    /// Whatever a user is called, it is no node, and is not printed like one.
    #[test]
    fn no_user_is_a_node(name in ".{0,20}", id in any::<i32>()) {
        let user = Principal::from(KafkaPrincipal::user(&name));
        for node in [Principal::Broker(id), Principal::Controller] {
            prop_assert_ne!(&user, &node);
            prop_assert_ne!(user.to_string(), node.to_string());
            prop_assert!(KafkaPrincipal::parse(&node.to_string()).is_err());
        }
    }

    /// Any text is rules or an error, and rules give any subject a name or an error.
    #[test]
    fn any_text_of_rules_ends(
        rules in prop_oneof![".{0,40}", "(RULE:|DEFAULT|/|\\$|[0-9]|\\\\|,|L|\\(|\\)|\\*|a| ){0,30}"],
        subject in ".{0,20}",
    ) {
        if let Ok(rules) = MappingRules::parse(&rules) {
            let _ = rules.name(&subject);
        }
    }

    /// Arbitrary bytes, and damaged ones, are a certificate or an error.
    #[test]
    fn any_bytes_are_a_certificate_or_an_error(
        random in proptest::collection::vec(any::<u8>(), 0..200),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
    ) {
        let mut damaged = bytes(OF_BROKER.trim());
        for (at, byte) in damage {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        let _ = (Certificate::parse(&random), rfc2253(&random));
        let _ = Certificate::parse(&damaged);
        let cut = bytes(OF_BROKER.trim());
        let length = length.index(cut.len());
        prop_assert!(Certificate::parse(&cut[..length]).is_err(), "cut off at {}", length);
    }
}
