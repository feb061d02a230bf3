use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{scram::message::escaped, secret::Secret};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn credential(mechanism: Mechanism, password: &str) -> Credential {
    Credential::of_password(mechanism, password.as_bytes(), b"salt".to_vec(), ITERATIONS_MIN)
        .unwrap()
}

/// RFC 7677, section 3, and for SHA-512 what Apache Kafka 4.3.1 computes of the same messages
/// (`ScramFormatter`).
#[test]
fn the_messages_are_those_of_the_rfc() {
    let cases = [
        (
            Mechanism::Sha256,
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        (
            Mechanism::Sha512,
            "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
            "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
        ),
    ];
    let salt = message::decoded("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    for (mechanism, proof, signature) in cases {
        let mut client =
            Client::with_nonce(mechanism, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned());
        let first = client.first();
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let credential = Credential::of_password(mechanism, b"pencil", salt.clone(), 4096).unwrap();
        let parsed = ClientFirst::parse(&first).unwrap();
        let (server, challenge) =
            Server::begin_with_nonce(parsed, credential, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        assert_eq!(
            std::str::from_utf8(&challenge).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = client.answer(&challenge).unwrap();
        assert_eq!(
            std::str::from_utf8(&last).unwrap(),
            format!("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p={proof}")
        );
        let accepted = server.finish(&last).unwrap();
        assert_eq!(std::str::from_utf8(&accepted.message).unwrap(), format!("v={signature}"));
        assert_eq!((&*accepted.user, accepted.by_previous), ("user", false));
        client.finish(&accepted.message).unwrap();
    }
}

/// What Apache Kafka 4.3.1 stores for the same password (`ScramFormatter.generateCredential`).
#[test]
fn the_keys_are_those_of_kafka() {
    let cases = [
        (
            Mechanism::Sha256,
            "48645f239e96a5189030f914215650c6225df0d67066334e5e00e9c95749a144",
            "59f8a72be9898064068b4b46222213676fb304d2f604b3a3885e90b6fc47a617",
            "7edfebcf0e476f54f6deb5675aa1646a804f5af260c3b469e0402fab221b0ba4",
        ),
        (
            Mechanism::Sha512,
            "4d6317a337c67f461d1298478913f41b1ff9146a09f3e3aa7fbc160274a9de265e5200ac873382f09a86900d\
             7b41f83fb795b8d5fcd2f3da952f99b865680936",
            "06422fa77bd908a255d8066090ed6a3672aa9614c51dc45b08d8e4337e6bbe90f0216170e623279b0ff253c4\
             52dcd4593d9e656cc0adef5b2c44da0b067fea50",
            "583a6922c69f49c4812896266bddc5b40a63b159ce01d9106ad955293de8d10c1fad74b4228a68c8b8519d45\
             eb6aaea5435af00f8d7fdb9ca54af0c8e2f270f4",
        ),
    ];
    for (mechanism, salted, stored_key, server_key) in cases {
        let salt = b"0123456789abcdefghij".to_vec();
        let made = Credential::of_password(mechanism, b"pencil", salt.clone(), 4096).unwrap();
        let password = mechanism.salted_password(b"pencil", &salt, made.iterations());
        assert_eq!(hex(password.expose()), salted);
        assert_eq!(hex(made.keys().stored_key.expose()), stored_key);
        assert_eq!(hex(made.keys().server_key.expose()), server_key);
        let same = Credential::of_salted_password(mechanism, &password, salt.clone(), 4096);
        assert_eq!(same.as_ref(), Ok(&made));
        let kept = Credential::of_keys(mechanism, salt, 4096, made.keys().clone(), None);
        assert_eq!(kept, same);
    }
}

#[test]
fn a_credential_has_bounds() {
    let made = |iterations, salt: usize| {
        let salt = vec![b's'; salt];
        Credential::of_password(Mechanism::Sha256, b"p", salt, iterations).map(|_| ())
    };
    assert_eq!(made(4096, 1), Ok(()));
    assert_eq!(made(16_384, SALT_BYTES_MAX), Ok(()));
    assert_eq!(made(4095, 26), Err(BadCredential::TooFewIterations));
    assert_eq!(made(0, 26), Err(BadCredential::TooFewIterations));
    assert_eq!(made(16_385, 26), Err(BadCredential::TooManyIterations));
    assert_eq!(made(4096, 0), Err(BadCredential::Salt));
    assert_eq!(made(4096, SALT_BYTES_MAX + 1), Err(BadCredential::Salt));
    let short = Secret::new(vec![0; 31]);
    let of_short =
        Credential::of_salted_password(Mechanism::Sha256, &short, b"salt".to_vec(), 4096);
    assert_eq!(of_short, Err(BadCredential::KeyLength));
    let of_another = credential(Mechanism::Sha512, "p").keys().clone();
    let kept = Credential::of_keys(Mechanism::Sha256, b"s".to_vec(), 4096, of_another, None);
    assert_eq!(kept, Err(BadCredential::KeyLength));
}

/// A login of a client with a password; returns the server's verdict.
fn log_in(credential: Credential, user: &str, password: &str) -> Result<Accepted, Refused> {
    let mut client = Client::new(credential.mechanism(), user, password, &[9; 24]);
    let first = ClientFirst::parse(&client.first()).unwrap();
    assert_eq!(first.user(), user);
    let (server, challenge) = Server::begin(first, credential, &[7; 24]);
    let accepted = server.finish(&client.answer(&challenge).unwrap())?;
    client.finish(&accepted.message).expect("the server proves that it knows the password, too");
    Ok(accepted)
}

#[test]
fn two_passwords_are_good_during_a_rotation() {
    for mechanism in Mechanism::ALL {
        let old = credential(mechanism, "old");
        let both = old.rotated(b"new");
        assert_eq!((both.salt(), both.iterations()), (old.salt(), old.iterations()));
        let verdict = |credential: &Credential, password| {
            log_in(credential.clone(), "u", password).map(|accepted| accepted.by_previous)
        };
        assert_eq!(verdict(&old, "old"), Ok(false));
        assert_eq!(verdict(&old, "new"), Err(Refused::Proof));
        assert_eq!(verdict(&both, "new"), Ok(false));
        assert_eq!(verdict(&both, "old"), Ok(true));
        assert_eq!(verdict(&both, "other"), Err(Refused::Proof));
        let after = both.clone().without_previous();
        assert_eq!(verdict(&after, "new"), Ok(false));
        assert_eq!(verdict(&after, "old"), Err(Refused::Proof));
        assert_eq!(verdict(&old.rotated(b"old"), "old"), Ok(false), "the same password again");
        // A second rotation drops the first password.
        let third = both.rotated(b"third");
        assert_eq!(verdict(&third, "new"), Ok(true));
        assert_eq!(verdict(&third, "old"), Err(Refused::Proof));
        // PLAIN uses the same credentials.
        let is = |password: &str| both.is_password(password.as_bytes());
        assert!(is("new") && is("old") && !is("other") && !is(""));
    }
}

#[test]
fn an_unknown_user_is_answered_like_a_known_one() {
    let secret = Secret::new(b"of the cluster".to_vec());
    let nobody = |user: &str| Credential::of_nobody(Mechanism::Sha256, &secret, user);
    let salt_of = |user: &str| nobody(user).salt().to_vec();
    assert_eq!(salt_of("eve"), salt_of("eve"), "the same each time");
    assert_ne!(salt_of("eve"), salt_of("eva"));
    let elsewhere = Secret::new(b"of another cluster".to_vec());
    let other = Credential::of_nobody(Mechanism::Sha256, &elsewhere, "eve");
    assert_ne!(salt_of("eve"), other.salt(), "only the cluster can tell");
    assert_eq!(nobody("eve").iterations().get(), ITERATIONS_MIN);
    assert_eq!(log_in(nobody("eve"), "eve", "pencil"), Err(Refused::Proof));
    assert!(!nobody("eve").is_password(b"pencil"));
}

/// The final message of a client with the right password, changed by `change`.
fn finish_with(first: &str, change: impl Fn(String, &str, &str) -> String) -> Result<(), Refused> {
    let mechanism = Mechanism::Sha256;
    let credential = credential(mechanism, "pencil");
    let parsed = ClientFirst::parse(first.as_bytes()).unwrap();
    let header = parsed.header.clone();
    let bare = parsed.bare.clone();
    let client_nonce = parsed.nonce.clone();
    let (server, challenge) = Server::begin_with_nonce(parsed, credential.clone(), "server");
    let challenge = String::from_utf8(challenge).unwrap();
    let nonce = format!("{client_nonce}server");
    let c = message::encoded(header.as_bytes());
    let without_proof = change(format!("c={c},r={nonce}"), &client_nonce, &nonce);
    let salted = mechanism.salted_password(b"pencil", credential.salt(), credential.iterations());
    let key = mechanism.hmac(salted.expose(), &[b"Client Key"]);
    let signed = format!("{bare},{challenge},{without_proof}");
    let signature = mechanism.hmac(&mechanism.hash(&key), &[signed.as_bytes()]);
    let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let last = format!("{without_proof},p={}", message::encoded(&proof));
    server.finish(last.as_bytes()).map(|_| ())
}

#[test]
fn the_nonce_is_the_servers() {
    let with_nonce = |nonce: fn(&str, &str) -> String| {
        finish_with("n,,n=u,r=client", move |_, client, whole| {
            format!("c=biws,r={}", nonce(client, whole))
        })
    };
    assert_eq!(with_nonce(|_, whole| whole.to_owned()), Ok(()));
    // librdkafka before 2.6.1.
    assert_eq!(with_nonce(|client, whole| format!("{client}{whole}")), Ok(()));
    let wrong: [fn(&str, &str) -> String; 5] = [
        |client, whole| format!("{client}{client}{whole}"),
        |client, _| client.to_owned(),
        |_, whole| format!("{whole}x"),
        |_, whole| format!("x{whole}"),
        |_, _| "server".to_owned(),
    ];
    for nonce in wrong {
        assert_eq!(with_nonce(nonce), Err(Refused::Nonce));
    }
}

#[test]
fn the_proof_covers_what_was_received() {
    let same = |message: String, _: &str, _: &str| message;
    assert_eq!(finish_with("n,,n=u,r=c", same), Ok(()));
    assert_eq!(finish_with("n,,n=u,r=c,b=2,a=1", same), Ok(()), "the order of extensions stays");
    assert_eq!(finish_with("n,a=u,n=u,r=c", same), Ok(()));
    let with_header = |header: &'static str| {
        move |_: String, _: &str, whole: &str| {
            format!("c={},r={whole}", message::encoded(header.as_bytes()))
        }
    };
    assert_eq!(finish_with("n,a=u,n=u,r=c", with_header("n,,")), Ok(()), "as some clients do");
    for header in ["y,,", "n,a=v,", "p=tls-unique,,", ""] {
        let refused = finish_with("n,,n=u,r=c", with_header(header));
        assert_eq!(refused, Err(Refused::Header), "{header}");
    }
    let extended = |message: String, _: &str, _: &str| format!("{message},x=1");
    assert_eq!(finish_with("n,,n=u,r=c", extended), Ok(()));
}

#[test]
fn first_messages_are_taken_or_refused() {
    let good = [
        ("n,,n=alice,r=x", "alice", false),
        ("n,a=alice,n=alice,r=x", "alice", false),
        ("n,a=bob,n=alice,r=x", "alice", true),
        ("n,,n=a=2Cb=3Dc,r=x", "a,b=c", false),
        ("n,a=a=2Cb,n=a=2Cb,r=x", "a,b", false),
        ("n,,n=jürgen,r=x", "jürgen", false),
        ("n,,n=a,r=!~,ext=a=b", "a", false),
    ];
    for (message, user, another) in good {
        let first = ClientFirst::parse(message.as_bytes()).unwrap();
        assert_eq!((first.user(), first.wants_another_user()), (user, another), "{message}");
        assert!(!first.is_token());
    }
    let is_token = |message: &str| ClientFirst::parse(message.as_bytes()).unwrap().is_token();
    assert!(is_token("n,,n=a,r=x,tokenauth=true") && is_token("n,,n=a,r=x,tokenauth=TRUE"));
    assert!(!is_token("n,,n=a,r=x,tokenauth=false"));
    let bad = [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=a",
        "n,,r=x",
        "n,,r=x,n=a",
        "n,,n=,r=x",
        "n,,n=a,r=",
        "y,,n=a,r=x",
        "p=tls-unique,,n=a,r=x",
        "q,,n=a,r=x",
        "n,b=a,n=a,r=x",
        "n,a=,n=a,r=x",
        "n,,m=x,n=a,r=x",
        "n,,n=a=2c,r=x",
        "n,,n=a=,r=x",
        "n,,n=a=2,r=x",
        "n,,n=a,r=x y",
        "n,,n=a,r=x,",
        "n,,n=a,r=x,e",
        "n,,n=a,r=x,1=b",
        "n,,n=a,r=x,e=",
        "n,,n=a\0,r=x",
        "n,,n=a,r=ü",
    ];
    for message in bad {
        assert!(ClientFirst::parse(message.as_bytes()).is_err(), "{message:?}");
    }
    assert!(ClientFirst::parse(b"n,,n=\xff,r=x").is_err());
}

#[test]
fn a_client_takes_no_bad_server() {
    let answer = |challenge: &str| {
        let nonce = "cl".to_owned();
        let mut client = Client::with_nonce(Mechanism::Sha256, "u", "p", nonce);
        client.answer(challenge.as_bytes()).map(|_| client)
    };
    let error = |challenge| answer(challenge).map(|_| ()).unwrap_err();
    assert_eq!(error("r=other,s=c2FsdA==,i=4096"), ClientError::Nonce);
    assert_eq!(error("r=cl,s=c2FsdA==,i=4096"), ClientError::Nonce, "none of the server");
    assert_eq!(error("r=clx,s=c2FsdA==,i=1"), ClientError::Iterations(1));
    assert_eq!(error("r=clx,s=c2FsdA==,i=1000001"), ClientError::Iterations(1_000_001));
    for malformed in ["", "r=clx", "r=clx,s=%,i=4096", "r=clx,s=c2FsdA==,i=+1", "e=x"] {
        assert!(matches!(error(malformed), ClientError::Malformed(_)), "{malformed}");
    }
    let finish = |last: &str| answer("r=clx,s=c2FsdA==,i=4096").unwrap().finish(last.as_bytes());
    assert_eq!(finish("e=other-error"), Err(ClientError::Refused("other-error".to_owned())));
    assert_eq!(finish("v=AAAA"), Err(ClientError::Signature));
    assert!(finish("v=").is_err() && finish("x").is_err());
    let early = Client::new(Mechanism::Sha256, "u", "p", &[0; 24]);
    assert_eq!(early.finish(b"v=AAAA"), Err(ClientError::Unexpected));
}

#[test]
fn no_secret_is_printed() {
    let password = "correct horse";
    let both = credential(Mechanism::Sha256, "old").rotated(password.as_bytes());
    let client = Client::new(Mechanism::Sha256, "u", password, &[9; 24]);
    let first = ClientFirst::parse(&client.first()).unwrap();
    let secrets = [&both.keys().stored_key, &both.keys().server_key];
    let printed = format!(
        "{both:?} {:?} {client:?} {first:?} {:?} {:?}",
        both.keys(),
        Server::begin(first.clone(), both.clone(), &[7; 24]),
        Upsertion {
            user: "u".to_owned(),
            mechanism: 1,
            iterations: 4096,
            salt: Vec::new(),
            salted_password: Secret::new(password.as_bytes().to_vec()),
        },
    );
    assert!(!printed.contains(password), "{printed}");
    for secret in secrets {
        let bytes = secret.expose();
        assert!(!printed.contains(&hex(bytes)) && !printed.contains(&format!("{bytes:?}")));
        assert!(!printed.contains(&message::encoded(bytes)));
    }
    assert!(both.keys().stored_key.is(secrets[0].expose()));
    assert!(!secrets[0].is(&secrets[0].expose()[1..]) && !secrets[0].is(b""));
}

#[test]
fn a_request_alters_users_as_kafkas_does() {
    let mut stored = Stored::new();
    let of = |mechanism| BTreeMap::from([(mechanism, credential(mechanism, "p"))]);
    stored.insert("old".to_owned(), of(Mechanism::Sha256));
    let deletion = |user: &str, mechanism| Deletion { user: user.to_owned(), mechanism };
    let upsertion = |user: &str, mechanism, iterations| Upsertion {
        user: user.to_owned(),
        mechanism,
        iterations,
        salt: b"salt".to_vec(),
        salted_password: Secret::new(vec![1; 32]),
    };
    let outcome = |deletions: &[Deletion], upsertions: &[Upsertion], user: &str| {
        let mut outcomes = alter(&stored, deletions, upsertions);
        let outcome = outcomes.remove(user).unwrap();
        outcome.map(|altered| matches!(altered, Altered::Upserted(_)))
    };
    let cases = [
        (vec![deletion("old", 1)], vec![], "old", Ok(false)),
        (vec![deletion("old", 2)], vec![], "old", Err(AlterError::NotFound)),
        (vec![deletion("new", 1)], vec![], "new", Err(AlterError::NotFound)),
        (vec![deletion("old", 0)], vec![], "old", Err(AlterError::UnknownMechanism)),
        (vec![deletion("", 1)], vec![], "", Err(AlterError::EmptyUser)),
        (vec![], vec![upsertion("new", 1, 4096)], "new", Ok(true)),
        (vec![], vec![upsertion("new", 3, 4096)], "new", Err(AlterError::UnknownMechanism)),
        (vec![], vec![upsertion("", 3, 0)], "", Err(AlterError::EmptyUser)),
        (
            vec![],
            vec![upsertion("new", 1, 4095)],
            "new",
            Err(AlterError::Unacceptable(BadCredential::TooFewIterations)),
        ),
        (
            vec![],
            vec![upsertion("new", 1, -1)],
            "new",
            Err(AlterError::Unacceptable(BadCredential::TooFewIterations)),
        ),
        (
            vec![],
            vec![upsertion("new", 1, 16_385)],
            "new",
            Err(AlterError::Unacceptable(BadCredential::TooManyIterations)),
        ),
        (
            vec![],
            vec![upsertion("new", 2, 4096)],
            "new",
            Err(AlterError::Unacceptable(BadCredential::KeyLength)),
        ),
        (vec![deletion("old", 1)], vec![upsertion("old", 1, 4096)], "old", Err(AlterError::Twice)),
        (
            vec![],
            vec![upsertion("new", 1, 4096), upsertion("new", 1, 8192)],
            "new",
            Err(AlterError::Twice),
        ),
        (
            vec![deletion("old", 2)],
            vec![upsertion("old", 1, 4096)],
            "old",
            Err(AlterError::NotFound),
        ),
    ];
    for (deletions, upsertions, user, expected) in cases {
        assert_eq!(
            outcome(&deletions, &upsertions, user),
            expected,
            "{deletions:?} {upsertions:?}"
        );
    }
    // What is wrong with one user does not stop the others.
    let both = alter(&stored, &[deletion("x", 1)], &[upsertion("new", 1, 4096)]);
    assert_eq!(both["x"], Err(AlterError::NotFound));
    assert!(both["new"].is_ok());
}

#[test]
fn a_request_describes_users_as_kafkas_does() {
    let of = |mechanism| BTreeMap::from([(mechanism, credential(mechanism, "p"))]);
    let stored = Stored::from([
        ("a".to_owned(), of(Mechanism::Sha256)),
        ("b".to_owned(), of(Mechanism::Sha512)),
    ]);
    let names = |users: &[&str]| users.iter().map(|user| (*user).to_owned()).collect::<Vec<_>>();
    let a = Ok(vec![(Mechanism::Sha256, 4096)]);
    let b = Ok(vec![(Mechanism::Sha512, 4096)]);
    let all = BTreeMap::from([("a".to_owned(), a.clone()), ("b".to_owned(), b)]);
    assert_eq!(describe(&stored, None), all);
    assert_eq!(describe(&stored, Some(&[])), all);
    let some = describe(&stored, Some(&names(&["a", "x", "b", "b"])));
    assert_eq!(some["a"], a);
    assert_eq!(some["x"], Err(DescribeError::NotFound("x".to_owned())));
    assert_eq!(some["b"], Err(DescribeError::Twice("b".to_owned())));
}

#[test]
fn names_and_codes_are_kafkas() {
    for (mechanism, code, name) in
        [(Mechanism::Sha256, 1, "SCRAM-SHA-256"), (Mechanism::Sha512, 2, "SCRAM-SHA-512")]
    {
        assert_eq!((mechanism.code(), mechanism.name()), (code, name));
        assert_eq!(Mechanism::from_code(code), Some(mechanism));
        assert_eq!(Mechanism::from_name(name), Some(mechanism));
    }
    assert_eq!((Mechanism::from_code(0), Mechanism::from_code(3)), (None, None));
    assert_eq!(Mechanism::from_name("scram-sha-256"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any user and any two passwords: the right one logs in, and no other.
    #[test]
    fn only_the_password_logs_in(
        user in "[^\0]{1,12}",
        password in ".{0,16}",
        other in ".{0,16}",
        mechanism in proptest::sample::select(&Mechanism::ALL[..]),
    ) {
        let stored = credential(mechanism, &password);
        let verdict = |password: &str| log_in(stored.clone(), &user, password).map(|a| a.user);
        prop_assert_eq!(verdict(&password), Ok(user.clone()));
        if other != password {
            prop_assert_eq!(verdict(&other), Err(Refused::Proof));
        }
    }
}

proptest! {
    #[test]
    fn an_escaped_name_is_the_same_name(user in "[^\0]{1,12}", nonce in "[!-+\\--~]{1,20}") {
        let message = format!("n,,n={},r={nonce}", escaped(&user));
        let first = ClientFirst::parse(message.as_bytes()).unwrap();
        prop_assert_eq!((first.user(), &first.nonce), (&*user, &nonce));
        prop_assert_eq!(format!("{}{}", first.header, first.bare), message);
    }

    /// Any bytes are a message or an error, to the server and to the client.
    #[test]
    fn any_bytes_are_answered_or_refused(
        first in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "n,[a=]{0,2}[a-z]{0,2},(n=|r=|,|=|[a-z]){0,8}".prop_map(String::into_bytes),
        ],
        last in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "(c=biws|,|r=|p=|x=1|=|[a-zA-Z0-9+/]){0,8}".prop_map(String::into_bytes),
        ],
    ) {
        let _ = ClientFirst::parse(&first);
        let known = ClientFirst::parse(b"n,,n=u,r=x").unwrap();
        let nobody = Credential::of_nobody(Mechanism::Sha256, &Secret::new(vec![1]), "u");
        let (server, _) = Server::begin(known, nobody, &[0; 24]);
        prop_assert!(server.finish(&last).is_err());
        let mut client = Client::new(Mechanism::Sha256, "u", "p", &[0; 24]);
        prop_assert!(client.answer(&first).is_err());
        prop_assert!(client.finish(&last).is_err());
    }
}
