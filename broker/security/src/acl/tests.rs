mod naive;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use self::naive::Naive;
use super::*;
use crate::acl::index::{Asker, Index};
use crate::principal::{KafkaPrincipal, Principal};

const HOST: &str = "10.0.0.1";

fn requester(principal: &str) -> Requester {
    requester_at(principal, HOST)
}

fn requester_at(principal: &str, host: &str) -> Requester {
    let principal = KafkaPrincipal::parse(principal).unwrap();
    Requester::new(principal.into(), host.parse().unwrap())
}

/// An ACL as `allow User:a 10.0.0.1 READ TOPIC LITERAL name`.
fn acl(text: &str) -> Acl {
    let words: Vec<&str> = text.split(' ').collect();
    let [permission, principal, host, operation, kind, pattern, name] = words[..] else {
        panic!("{text}")
    };
    fn find<T: Copy + ToString>(all: &[T], text: &str) -> T {
        *all.iter().find(|value| value.to_string() == text).unwrap_or_else(|| panic!("{text}"))
    }
    Acl {
        resource_type: find(ResourceType::ALL, kind),
        pattern_type: find(PatternType::ALL, pattern),
        name: name.to_owned(),
        principal: KafkaPrincipal::parse(principal).unwrap(),
        host: host.to_owned(),
        operation: find(Operation::ALL, operation),
        permission: find(Permission::ALL, permission),
    }
}

fn acls(texts: &[&str]) -> Arc<BTreeSet<Acl>> {
    Arc::new(texts.iter().map(|text| acl(text)).collect())
}

fn authorizer(texts: &[&str]) -> Authorizer {
    Authorizer::new(Policy::default(), acls(texts))
}

#[test]
fn a_deny_prevails_and_only_a_permission_implies() {
    use Operation::*;
    let cases: &[(&[&str], Operation, bool)] = &[
        (&[], Read, false),
        (&["ALLOW User:a * READ TOPIC LITERAL t"], Read, true),
        (&["ALLOW User:b * READ TOPIC LITERAL t"], Read, false),
        (&["ALLOW User:* * READ TOPIC LITERAL t"], Read, true),
        (&["ALLOW Group:* * READ TOPIC LITERAL t"], Read, false),
        (&["ALLOW User:a 10.0.0.1 READ TOPIC LITERAL t"], Read, true),
        (&["ALLOW User:a 10.0.0.2 READ TOPIC LITERAL t"], Read, false),
        (&["ALLOW User:a * READ TOPIC LITERAL *"], Read, true),
        (&["ALLOW User:a * READ TOPIC PREFIXED *"], Read, false),
        (&["ALLOW User:a * READ TOPIC PREFIXED t"], Read, true),
        (&["ALLOW User:a * READ TOPIC PREFIXED tt"], Read, false),
        (&["ALLOW User:a * READ GROUP LITERAL t"], Read, false),
        (&["ALLOW User:a * ALL TOPIC LITERAL t"], AlterConfigs, true),
        (&["ALLOW User:a * READ TOPIC LITERAL t"], Describe, true),
        (&["ALLOW User:a * WRITE TOPIC LITERAL t"], Describe, true),
        (&["ALLOW User:a * DELETE TOPIC LITERAL t"], Describe, true),
        (&["ALLOW User:a * ALTER TOPIC LITERAL t"], Describe, true),
        (&["ALLOW User:a * CREATE TOPIC LITERAL t"], Describe, false),
        (&["ALLOW User:a * DESCRIBE_CONFIGS TOPIC LITERAL t"], Describe, false),
        (&["ALLOW User:a * CLUSTER_ACTION TOPIC LITERAL t"], Describe, false),
        (&["ALLOW User:a * ALTER_CONFIGS TOPIC LITERAL t"], DescribeConfigs, true),
        (&["ALLOW User:a * ALTER TOPIC LITERAL t"], DescribeConfigs, false),
        (
            &["ALLOW User:a * READ TOPIC LITERAL t", "DENY User:* * READ TOPIC PREFIXED t"],
            Read,
            false,
        ),
        // Deny Read leaves Describe, which Write implies.
        (
            &["ALLOW User:a * WRITE TOPIC LITERAL t", "DENY User:a * READ TOPIC LITERAL t"],
            Describe,
            true,
        ),
        (
            &["ALLOW User:a * WRITE TOPIC LITERAL t", "DENY User:a * DESCRIBE TOPIC LITERAL t"],
            Describe,
            false,
        ),
        (&["ALLOW User:a * ALL TOPIC LITERAL t", "DENY User:a * ALL TOPIC LITERAL *"], Read, false),
    ];
    for (texts, operation, allowed) in cases {
        let decision =
            authorizer(texts).decide(&requester("User:a"), *operation, Resource::Topic("t"));
        assert_eq!(decision.allowed, *allowed, "{operation} by {texts:?}: {decision}");
    }
}

#[test]
fn an_operation_by_type_needs_one_pattern_that_is_not_denied_as_a_whole() {
    let allow = |pattern: &str| format!("ALLOW User:a * WRITE TOPIC {pattern}");
    let deny = |pattern: &str| format!("DENY User:* 10.0.0.1 ALL TOPIC {pattern}");
    let cases: &[(&[String], bool)] = &[
        (&[], false),
        (&[allow("LITERAL t")], true),
        (&[allow("LITERAL t"), deny("LITERAL t")], false),
        (&[allow("LITERAL t"), allow("LITERAL u"), deny("LITERAL t")], true),
        (&[allow("LITERAL tt"), deny("PREFIXED t")], false),
        (&[allow("LITERAL t"), deny("PREFIXED tt")], true),
        (&[allow("PREFIXED t"), deny("LITERAL t")], true),
        (&[allow("PREFIXED t"), deny("PREFIXED tt")], true),
        (&[allow("PREFIXED tt"), deny("PREFIXED t")], false),
        (&[allow("PREFIXED t"), deny("PREFIXED t")], false),
        (&[allow("LITERAL *"), deny("PREFIXED t")], true),
        (&[allow("LITERAL *"), deny("LITERAL *")], false),
        (&[allow("LITERAL t"), deny("LITERAL *")], false),
    ];
    let may = |authorizer: &Authorizer, host, operation| {
        authorizer.allows_by_type(&requester_at("User:a", host), operation, ResourceType::Topic)
    };
    for (texts, allowed) in cases {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let authorizer = authorizer(&texts);
        assert_eq!(may(&authorizer, HOST, Operation::Write), *allowed, "{texts:?}");
        // What denies is for one host.
        let elsewhere = texts.iter().any(|text| text.starts_with("ALLOW"));
        assert_eq!(may(&authorizer, "10.0.0.2", Operation::Write), elsewhere, "{texts:?}");
        assert!(!may(&authorizer, HOST, Operation::Read), "{texts:?}");
    }
    let reads = |pattern| authorizer(&[&format!("ALLOW User:a * READ TOPIC {pattern}")]);
    assert!(!may(&reads("LITERAL t"), HOST, Operation::Describe), "nothing is implied");
    assert!(may(&reads("LITERAL *"), HOST, Operation::Describe), "but for any one name");
}

#[test]
fn the_rule_that_decided_is_named() {
    let policy = Policy {
        super_users: parse_super_users(" User:root ;;User:CN=admin,O=x").unwrap(),
        allow_everyone_if_no_acl_found: true,
    };
    let set = acls(&[
        "ALLOW User:* * READ TOPIC PREFIXED t",
        "DENY User:a 10.0.0.1 ALL TOPIC LITERAL ta",
    ]);
    let authorizer = Authorizer::new(policy.clone(), set);
    let say = |principal: &str, name| {
        authorizer.decide(&requester(principal), Operation::Read, Resource::Topic(name)).to_string()
    };
    assert_eq!(say("User:root", "ta"), "SuperUser");
    assert_eq!(say("User:CN=admin,O=x", "ta"), "SuperUser");
    assert_eq!(
        say("User:a", "ta"),
        "MatchingAcl[acl=StandardAcl[resourceType=TOPIC, resourceName=ta, patternType=LITERAL, \
         principal=User:a, host=10.0.0.1, operation=ALL, permissionType=DENY]]"
    );
    assert_eq!(
        say("User:b", "ta"),
        "MatchingAcl[acl=StandardAcl[resourceType=TOPIC, resourceName=t, patternType=PREFIXED, \
         principal=User:*, host=*, operation=READ, permissionType=ALLOW]]"
    );
    assert_eq!(say("User:b", "s"), "DefaultAllow");
    let write = |name| {
        authorizer.decide(&requester("User:b"), Operation::Write, Resource::Topic(name)).to_string()
    };
    assert_eq!(write("s"), "DefaultAllow");
    // An ACL for somebody else closes the resource to everyone.
    assert_eq!(write("tb"), "DefaultDeny");
    assert!(parse_super_users("User:a;root").is_err());

    let loading = Authorizer::not_loaded(policy);
    let may = |who: &Requester| loading.allows(who, Operation::Read, Resource::Topic("t"));
    assert!(may(&requester("User:root")), "a super user waits for no ACLs");
    assert!(!may(&requester("User:b")), "nobody else may anything before the ACLs are known");
    assert!(!loading.allows_by_type(&requester("User:b"), Operation::Write, ResourceType::Topic));
    let open = Authorizer::unconfigured();
    assert!(open.allows(&requester("User:b"), Operation::Read, Resource::Topic("t")));
    assert!(open.allows_by_type(&requester("User:b"), Operation::Write, ResourceType::Topic));
    assert!(open.acls().is_none());
}

#[test]
fn nodes_are_no_users_and_users_no_nodes() {
    let authorizer = authorizer(&[
        "DENY User:* * ALL CLUSTER LITERAL kafka-cluster",
        "ALLOW User:* * READ TOPIC LITERAL t",
    ]);
    let at = |principal| Requester::new(principal, HOST.parse().unwrap());
    let may =
        |who: Principal, operation, resource| authorizer.allows(&at(who), operation, resource);
    let action = Operation::ClusterAction;
    assert!(may(Principal::Broker(3), action, Resource::Cluster));
    assert!(!may(Principal::Broker(3), Operation::Alter, Resource::Cluster));
    assert!(!may(Principal::Broker(3), Operation::Read, Resource::Topic("t")), "not by User:*");
    assert!(may(Principal::Controller, Operation::Read, Resource::Group("g")));
    for name in ["broker 3", "3", "Broker:3", "controller"] {
        let user = KafkaPrincipal::user(name);
        assert!(!may(user.into(), action, Resource::Cluster), "{name}");
    }
}

#[test]
fn addresses_are_written_as_java_writes_them() {
    let cases = [
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("2001:db8::a:0:1", "2001:db8:0:0:0:a:0:1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ];
    for (address, text) in cases {
        assert_eq!(host_text(address.parse().unwrap()), text);
    }
    let authorizer = authorizer(&["ALLOW User:a 0:0:0:0:0:0:0:1 READ TOPIC LITERAL t"]);
    let from = |host| {
        authorizer.allows(&requester_at("User:a", host), Operation::Read, Resource::Topic("t"))
    };
    assert!(from("::1") && !from("::2"));
}

#[test]
fn the_bit_field_holds_the_operations_of_the_type() {
    let all = Authorizer::unconfigured();
    let who = requester("User:a");
    let of = |codes: &[i32]| codes.iter().fold(0, |bits, code| bits | 1 << code);
    let cases = [
        (Resource::Topic("t"), of(&[3, 4, 5, 6, 7, 8, 10, 11])),
        (Resource::Group("g"), of(&[3, 6, 8, 10, 11])),
        (Resource::Cluster, of(&[5, 7, 8, 9, 10, 11, 12])),
        (Resource::TransactionalId("x"), of(&[4, 8, 15])),
        (Resource::DelegationToken("d"), of(&[8])),
        (Resource::User("User:a"), of(&[13, 14])),
    ];
    for (resource, bits) in cases {
        assert_eq!(all.allowed_operations(&who, resource), bits, "{resource:?}");
        assert_eq!(authorizer(&[]).allowed_operations(&who, resource), 0, "{resource:?}");
    }
    let reads = authorizer(&["ALLOW User:a * READ TOPIC LITERAL t"]);
    assert_eq!(reads.allowed_operations(&who, Resource::Topic("t")), of(&[3, 8]));
}

fn creation(resource_type: i8, name: &'static str) -> Creation<'static> {
    Creation {
        resource_type,
        name,
        pattern_type: 3,
        principal: "User:a",
        host: "*",
        operation: 3,
        permission: 3,
    }
}

#[test]
fn a_creation_is_refused_as_kafka_refuses_it() {
    let good = creation(2, "t");
    let cases: &[(Creation<'_>, &str)] = &[
        (creation(4, "other"), "The only valid name for the CLUSTER resource is kafka-cluster"),
        (creation(4, ""), "The only valid name for the CLUSTER resource is kafka-cluster"),
        (creation(2, ""), "Invalid empty resource name"),
        (creation(0, "t"), "Invalid resourceType UNKNOWN"),
        (creation(1, "t"), "Invalid resourceType ANY"),
        (creation(77, "t"), "Invalid resourceType UNKNOWN"),
        (Creation { pattern_type: 1, ..good }, "Invalid patternType ANY"),
        (Creation { pattern_type: 2, ..good }, "Invalid patternType MATCH"),
        (Creation { pattern_type: 0, ..good }, "Invalid patternType UNKNOWN"),
        (Creation { operation: 1, ..good }, "Invalid operation ANY"),
        (Creation { operation: 0, ..good }, "Invalid operation UNKNOWN"),
        (Creation { operation: 16, ..good }, "Invalid operation UNKNOWN"),
        (Creation { permission: 1, ..good }, "Invalid permissionType ANY"),
        (Creation { permission: 4, ..good }, "Invalid permissionType UNKNOWN"),
        (
            Creation { principal: "alice", ..good },
            "Could not parse principal from `alice` (no colon is present separating the principal \
             type from the principal name)",
        ),
    ];
    for (creation, message) in cases {
        assert_eq!(creation.validate().unwrap_err().to_string(), *message, "{creation:?}");
    }
    assert_eq!(good.validate().unwrap(), acl("ALLOW User:a * READ TOPIC LITERAL t"));
    assert!(creation(4, "kafka-cluster").validate().is_ok());
    assert!(Creation { host: "no host at all", ..good }.validate().is_ok(), "Kafka takes any");
}

#[test]
fn a_filter_says_which_patterns_it_means() {
    let all = [
        acl("ALLOW User:a * READ TOPIC LITERAL foo"),
        acl("ALLOW User:a * READ TOPIC PREFIXED foo"),
        acl("ALLOW User:a * READ TOPIC PREFIXED f"),
        acl("ALLOW User:a * READ TOPIC LITERAL *"),
        acl("ALLOW User:a * ALL GROUP LITERAL foo"),
        acl("DENY User:* 10.0.0.1 READ TOPIC LITERAL foobar"),
    ];
    let wanted = |filter: &Filter| -> Vec<usize> {
        (0..all.len()).filter(|&at| filter.matches(&all[at])).collect()
    };
    let named = |name: &str, pattern| Filter {
        name: Some(name.to_owned()),
        ..Filter::any().with_codes(1, pattern, 1, 1).unwrap()
    };
    let cases = [
        (Filter::any(), vec![0, 1, 2, 3, 4, 5]),
        (named("foo", 1), vec![0, 1, 4]),
        (named("foo", 3), vec![0, 4]),
        (named("foo", 4), vec![1]),
        (named("foo", 2), vec![0, 1, 2, 3, 4]),
        (named("foobar", 2), vec![1, 2, 3, 5]),
        (named("*", 2), vec![3]),
        (named("*", 1), vec![3]),
        (Filter::any().with_codes(1, 4, 1, 1).unwrap(), vec![1, 2]),
        (Filter::any().with_codes(3, 2, 1, 1).unwrap(), vec![4]),
        (Filter::any().with_codes(1, 1, 2, 1).unwrap(), vec![4]),
        (Filter::any().with_codes(1, 1, 3, 2).unwrap(), vec![5]),
        (Filter { principal: Some("User:*".to_owned()), ..Filter::any() }, vec![5]),
        (Filter { host: Some("*".to_owned()), ..Filter::any() }, vec![0, 1, 2, 3, 4]),
        (Filter { principal: Some("User".to_owned()), ..Filter::any() }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(wanted(&filter), expected, "{filter:?}");
    }
    for (codes, message) in [
        ((0, 1, 1, 1), "Unknown patternFilter."),
        ((1, 0, 1, 1), "Unknown patternFilter."),
        ((1, 5, 1, 1), "Unknown patternFilter."),
        ((1, 1, 0, 1), "Unknown entryFilter."),
        ((1, 1, 1, 9), "Unknown entryFilter."),
    ] {
        let filter = Filter::any().with_codes(codes.0, codes.1, codes.2, codes.3);
        assert_eq!(filter.unwrap_err().to_string(), message);
    }
}

#[test]
fn a_request_deletes_ten_thousand_at_most() {
    let many = |count: usize| -> BTreeSet<Acl> {
        let at =
            |n: usize| Acl { name: format!("t{n}"), ..acl("ALLOW User:a * READ TOPIC LITERAL t") };
        (0..count).map(at).collect()
    };
    let (just, above) = (many(ACLS_DELETED_MAX), many(ACLS_DELETED_MAX + 1));
    let any = [Filter::any()];
    assert_eq!(matches_to_delete(&just, &any).unwrap()[0].len(), ACLS_DELETED_MAX);
    assert_eq!(matches_to_delete(&above, &any), Err(TooManyDeleted));
    let filters = [Filter { name: Some("t1".to_owned()), ..Filter::any() }, Filter::any()];
    let few = many(3);
    let answers = matches_to_delete(&few, &filters).unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3], "in both answers");
    // Filters that all want the same make no answer without bound.
    let same = vec![Filter::any(); 100];
    assert_eq!(matches_to_delete(&many(200), &same), Err(TooManyDeleted));
}

/// What a decision looks at does not grow with ACLs that are not about it.
#[test]
fn a_decision_looks_at_few_acls_of_many() {
    let set = |count: usize| -> BTreeSet<Acl> {
        let mut set = BTreeSet::new();
        for n in 0..count {
            let (user, team) = (n % 100, n / 100);
            set.insert(acl(&format!("ALLOW User:u{user} * READ TOPIC LITERAL topic-{n}")));
            set.insert(acl(&format!("ALLOW User:u{user} * WRITE TOPIC PREFIXED team-{team}-")));
            set.insert(acl(&format!("DENY User:* * ALL TOPIC PREFIXED secret-{n}-")));
            set.insert(acl(&format!("ALLOW User:u{n} * ALL TOPIC PREFIXED team-")));
            set.insert(acl("ALLOW User:* * DESCRIBE TOPIC LITERAL *"));
        }
        set
    };
    let looked_at = |count| {
        let set = set(count);
        let index = Index::new(&set);
        let asker = Asker { principal: &KafkaPrincipal::user("u1"), host: HOST };
        let patterns = |name| index.patterns_looked_at(asker, ResourceType::Topic, name);
        (set.len(), patterns("topic-1"), patterns("team-0-orders"), patterns("secret-1-x"))
    };
    let (few, many) = (looked_at(10), looked_at(10_000));
    assert!(many.0 > 30_000);
    assert_eq!((few.1, few.2, few.3), (2, 3, 2));
    assert_eq!((many.1, many.2, many.3), (2, 3, 2));
}

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

/// Names over few letters, so that they are equal and nest often.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[ab*é]{1,4}", 1 => Just("*".to_owned()), 1 => Just("hardcode".to_owned())]
}

fn principals() -> impl Strategy<Value = &'static str> {
    any_of(&["User:a", "User:b", "User:*", "Group:a"])
}

/// Some occur often, so that ACLs are about the same.
fn operations() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![any_of(Operation::ALL), any_of(&[All, Read, Describe])]
}

fn hosts() -> impl Strategy<Value = &'static str> {
    any_of(&["10.0.0.1", "10.0.0.2"])
}

prop_compose! {
    fn some_acl()(
        resource_type in any_of(&ResourceType::ALL[..2]),
        pattern_type in any_of(PatternType::ALL),
        name in prop_oneof![10 => names(), 1 => Just("h".to_owned())],
        principal in principals(),
        host in prop_oneof![Just("*"), hosts()],
        operation in operations(),
        permission in prop_oneof![3 => Just(Permission::Allow), 1 => Just(Permission::Deny)],
    ) -> Acl {
        let principal = KafkaPrincipal::parse(principal).unwrap();
        let host = host.to_owned();
        Acl { resource_type, pattern_type, name, principal, host, operation, permission }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// The compiled authorizer decides as one that looks at every ACL.
    #[test]
    fn it_decides_as_the_naive_one(
        set in proptest::collection::btree_set(some_acl(), 0..24),
        super_user in proptest::option::of(principals()),
        allow_everyone_if_no_acl_found in any::<bool>(),
        asked in proptest::collection::vec(
            (principals(), hosts(), operations(), any_of(&ResourceType::ALL[..2]), names()),
            1..16,
        ),
    ) {
        let super_users = super_user.map(|user| KafkaPrincipal::parse(user).unwrap());
        let policy = Policy {
            super_users: super_users.into_iter().collect(),
            allow_everyone_if_no_acl_found,
        };
        let set = Arc::new(set);
        let authorizer = Authorizer::new(policy.clone(), Arc::clone(&set));
        let naive = Naive { policy: &policy, acls: &set };
        for (principal, host, operation, kind, name) in asked {
            let who = requester_at(principal, host);
            let resource = match kind {
                ResourceType::Topic => Resource::Topic(&name),
                _ => Resource::Group(&name),
            };
            let decision = authorizer.decide(&who, operation, resource);
            prop_assert_eq!(decision.allowed, authorizer.allows(&who, operation, resource));
            prop_assert_eq!(
                decision.allowed,
                naive.authorize(principal, host, operation, kind, &name),
                "{} {} {} {}: {}", principal, host, operation, name, decision
            );
            if let Rule::Acl(acl) = &decision.rule {
                prop_assert!(set.contains(acl), "{} is none of the ACLs", acl);
                prop_assert_eq!(acl.permission == Permission::Allow, decision.allowed);
            }
            prop_assert_eq!(
                authorizer.allows_by_type(&who, operation, kind),
                naive.authorize_by_resource_type(principal, host, operation, kind),
                "{} {} {} by type", principal, host, operation
            );
        }
    }

    /// Any codes and texts are an ACL or an error, and an ACL keeps what was written.
    #[test]
    fn any_creation_is_an_acl_or_refused(
        codes in any::<(i8, i8, i8, i8)>(),
        name in ".{0,12}",
        principal in ".{0,12}",
    ) {
        let (resource_type, pattern_type, operation, permission) = codes;
        let host = "*";
        let creation = Creation {
            resource_type, name: &name, pattern_type, principal: &principal, host, operation, permission,
        };
        let filter = Filter::any().with_codes(resource_type, pattern_type, operation, permission);
        if let Ok(acl) = creation.validate() {
            prop_assert_eq!(acl.principal.to_string(), principal);
            prop_assert!(filter.unwrap().matches(&acl), "a filter of the same codes wants it");
        }
    }
}
