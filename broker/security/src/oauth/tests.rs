use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::oauth::token::signed_payload;
use crate::sasl::{Context, Failure, Login, Mechanism, Now, OAuthBearer, Step};

/// A key set, and a token by each algorithm, which Java 17 has signed.
const OF_JAVA: &str = include_str!("tests/java.tokens");

/// Within the life of those tokens.
const NOW_MS: i64 = 1_700_000_100_000;

fn keys() -> KeySet {
    KeySet::parse(OF_JAVA.lines().next().unwrap()).unwrap()
}

fn token_of(algorithm: Algorithm) -> &'static str {
    let lines = OF_JAVA.lines().skip(1).filter_map(|line| line.split_once('\t'));
    let mut tokens = lines.filter(|(name, _)| *name == algorithm.name());
    tokens.next().unwrap().1
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn for_weir() -> Expectations {
    Expectations {
        issuer: Some("https://issuer".to_owned()),
        audiences: ["weir".to_owned()].into(),
        ..Expectations::default()
    }
}

#[test]
fn tokens_of_each_algorithm_are_verified() {
    for algorithm in Algorithm::ALL {
        let token = token_of(algorithm);
        let good = verify(token, &keys(), &for_weir(), NOW_MS);
        let verified = Verified {
            subject: "system:serviceaccount:shop:orders".to_owned(),
            scope: ["a b".to_owned()].into(),
            expires_at_ms: 1_700_003_600_000,
        };
        assert_eq!(good.as_ref(), Ok(&verified), "{algorithm:?}");
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        // Each bit of the signature counts, and each of what is signed.
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let forged = [
            format!("{signed}.{}", encoded(&bytes)),
            format!("{signed}."),
            format!("{signed}.{}", encoded(&bytes[..last])),
            token.replace("\n", "").replacen("LCJzdWIiOi", "LCJzdWIiOj", 1),
        ];
        for forged in forged.iter().filter(|forged| *forged != token) {
            let refused = verify(forged, &keys(), &for_weir(), NOW_MS);
            assert_eq!(refused, Err(BadToken::Signature), "{algorithm:?} {forged}");
        }
        let mut others: BTreeSet<Algorithm> = Algorithm::ALL.into();
        others.remove(&algorithm);
        let others = Expectations { algorithms: others, ..for_weir() };
        assert_eq!(verify(token, &keys(), &others, NOW_MS), Err(BadToken::Algorithm));
    }
}

/// RFC 7515, appendix A.3, and RFC 8037, appendix A.4.
#[test]
fn the_signatures_of_the_rfcs_are_verified() {
    let joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let es256 = json!({"keys": [{"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    let ed25519 = json!({"keys": [{"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let cases = [
        (
            es256,
            format!("eyJhbGciOiJFUzI1NiJ9.{joe}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"),
            joe,
        ),
        (
            ed25519,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        ),
    ];
    for (keys, token, payload) in cases {
        let keys = KeySet::parse(&keys.to_string()).unwrap();
        let found = signed_payload(&token, &keys, &Algorithm::ALL.into());
        assert_eq!(found.map(encoded).as_deref(), Ok(payload));
    }
}

/// Signs what a test wants to say, with a key that the set knows as `own`.
struct Issuer {
    key: Ed25519KeyPair,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "own",
            "x": encoded(key.public_key())});
        let keys = KeySet::parse(&json!({"keys": [jwk]}).to_string()).unwrap();
        Self { key, keys }
    }

    fn signed(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", encoded(signature))
    }

    fn says(&self, claims: &Value, expected: &Expectations) -> Result<Verified, BadToken> {
        let token = self.signed(&json!({"alg": "EdDSA", "kid": "own"}), &claims.to_string());
        verify(&token, &self.keys, expected, NOW_MS)
    }

    fn with_header(&self, header: &Value) -> Result<Verified, BadToken> {
        let claims = json!({"sub": "a", "iat": 1_700_000_000, "exp": 1_700_003_600}).to_string();
        verify(&self.signed(header, &claims), &self.keys, &Expectations::default(), NOW_MS)
    }
}

/// The claims of a good token, with one set to another value; `null` removes it.
fn claims(name: &str, value: Value) -> Value {
    let mut claims = json!({"sub": "a", "iat": 1_700_000_000, "exp": 1_700_003_600});
    match value {
        Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
        value => claims[name] = value,
    }
    claims
}

#[test]
fn no_token_chooses_its_algorithm() {
    let issuer = Issuer::new();
    assert!(issuer.with_header(&json!({"alg": "EdDSA", "kid": "own"})).is_ok());
    assert!(issuer.with_header(&json!({"alg": "EdDSA"})).is_ok(), "the only key");
    for algorithm in ["none", "None", "HS256", "HS384", "HS512", "ES512", "eddsa", ""] {
        let refused = issuer.with_header(&json!({"alg": algorithm, "kid": "own"}));
        assert_eq!(refused, Err(BadToken::Algorithm), "{algorithm}");
    }
    assert_eq!(issuer.with_header(&json!({"kid": "own"})), Err(BadToken::Algorithm));
    // The key decides: it is for Ed25519, whatever the token says.
    for algorithm in ["RS256", "PS256", "ES256", "ES384"] {
        let refused = issuer.with_header(&json!({"alg": algorithm, "kid": "own"}));
        assert_eq!(refused, Err(BadToken::Signature), "{algorithm}");
    }
    let critical = json!({"alg": "EdDSA", "crit": ["b64"], "b64": false});
    assert!(matches!(issuer.with_header(&critical), Err(BadToken::Malformed(_))));
    let unsigned = format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded("{}"));
    let refused = verify(&unsigned, &issuer.keys, &Expectations::default(), NOW_MS);
    assert_eq!(refused, Err(BadToken::Algorithm));
    // An RSA key as a shared secret (CVE-2015-9235).
    let rsa = token_of(Algorithm::Rs256).split('.').nth(1).unwrap();
    let forged = format!("{}.{rsa}.AAAA", encoded(r#"{"alg":"HS256","kid":"rsa"}"#));
    assert_eq!(verify(&forged, &keys(), &for_weir(), NOW_MS), Err(BadToken::Algorithm));
}

#[test]
fn an_unknown_key_is_said_to_be_unknown() {
    let issuer = Issuer::new();
    let unknown = issuer.with_header(&json!({"alg": "EdDSA", "kid": "other"}));
    assert_eq!(unknown, Err(BadToken::UnknownKey("other".to_owned())));
    let number = issuer.with_header(&json!({"alg": "EdDSA", "kid": 7}));
    assert!(matches!(number, Err(BadToken::Malformed(_))));
    let none = verify(token_of(Algorithm::EdDsa), &KeySet::default(), &for_weir(), NOW_MS);
    assert_eq!(none, Err(BadToken::UnknownKey("ed".to_owned())));
}

#[test]
fn claims_have_to_be_right() {
    let issuer = Issuer::new();
    let check = |name: &str, value: Value, expected: Expectations| {
        issuer.says(&claims(name, value), &expected).map(|verified| verified.subject)
    };
    let any = Expectations::default;
    let wrong = |name: &str| Err(BadToken::Claim(name.to_owned()));
    let fine = || Ok("a".to_owned());
    assert_eq!(check("x", json!(1), any()), fine());
    for (name, value) in [
        ("exp", json!(null)),
        ("exp", json!("1700003600")),
        ("exp", json!(-1)),
        ("iat", json!(null)),
        ("iat", json!("x")),
        ("nbf", json!("x")),
        ("sub", json!(null)),
        ("sub", json!("")),
        ("sub", json!("  ")),
        ("sub", json!(7)),
        ("scope", json!("")),
        ("scope", json!(["a", "a"])),
        ("scope", json!([1])),
    ] {
        assert_eq!(check(name, value.clone(), any()), wrong(name), "{name} {value}");
    }
    assert_eq!(check("scope", json!(7), any()), fine(), "as if it were not there");
    assert_eq!(check("sub", json!(" a "), any()), fine());
    // It is 1,700,000,100 by the clock, and clocks may differ by 30 seconds.
    for (name, value, outcome) in [
        ("exp", json!(1_700_000_070), Err(BadToken::Expired)),
        ("exp", json!(1_700_000_071), fine()),
        ("exp", json!(1_700_000_071.9), fine()),
        ("nbf", json!(1_700_000_131), Err(BadToken::NotYet)),
        ("nbf", json!(1_700_000_130), fine()),
        ("iat", json!(1_700_000_131), Err(BadToken::NotYet)),
        ("iat", json!(1_700_000_130), fine()),
        ("nbf", json!(1_800_000_000), Err(BadToken::NotYet)),
    ] {
        assert_eq!(check(name, value.clone(), any()), outcome, "{name} {value}");
    }
    let strict = Expectations { clock_skew_s: 0, ..any() };
    assert_eq!(check("exp", json!(1_700_000_100), strict.clone()), Err(BadToken::Expired));
    assert_eq!(check("exp", json!(1_700_000_101), strict), fine());
    let issued = || Expectations { issuer: Some("i".to_owned()), ..any() };
    assert_eq!(check("iss", json!("i"), issued()), fine());
    for issuer in [json!("j"), json!(null), json!(["i"])] {
        assert_eq!(check("iss", issuer, issued()), Err(BadToken::Issuer));
    }
    assert_eq!(check("iss", json!("j"), any()), fine(), "no issuer is expected");
    let ours = || Expectations { audiences: ["w".to_owned(), "v".to_owned()].into(), ..any() };
    assert_eq!(check("aud", json!("w"), ours()), fine());
    assert_eq!(check("aud", json!(["x", "v"]), ours()), fine());
    for audience in [json!("x"), json!(["x"]), json!([]), json!(null), json!(7)] {
        assert_eq!(check("aud", audience, ours()), Err(BadToken::Audience));
    }
    let refused = check("aud", json!("w"), any());
    assert_eq!(refused, Err(BadToken::Audience), "for somebody, and nobody is expected");
    let named =
        Expectations { subject_claim: "email".to_owned(), scope_claim: "scp".to_owned(), ..any() };
    let mut email = claims("email", json!("a@b"));
    email["scp"] = json!(["x", "y"]);
    let verified = issuer.says(&email, &named).unwrap();
    assert_eq!(verified.subject, "a@b");
    assert_eq!(verified.scope, ["x", "y"].map(str::to_owned).into());
    assert_eq!(verified.expires_at_ms, 1_700_003_600_000);
}

#[test]
fn only_keys_for_signatures_are_taken() {
    let whole: Value = serde_json::from_str(OF_JAVA.lines().next().unwrap()).unwrap();
    let with = |at: usize, name: &str, value: Value| {
        let mut key = whole["keys"][at].clone();
        key[name] = value;
        KeySet::parse(&json!({"keys": [key]}).to_string()).unwrap()
    };
    assert_eq!(keys().len(), 4);
    for (at, name, value) in [
        (0, "use", json!("enc")),
        (0, "key_ops", json!(["sign"])),
        (0, "kty", json!("oct")),
        (0, "n", json!("%")),
        (0, "e", json!(null)),
        (1, "crv", json!("P-521")),
        (1, "crv", json!("P-384")),
        (1, "x", json!("AAAA")),
        (3, "crv", json!("X25519")),
        (2, "kty", json!(7)),
    ] {
        assert!(with(at, name, value.clone()).is_empty(), "{name} {value}");
    }
    let verify_by = |keys: &KeySet, algorithm| {
        verify(token_of(algorithm), keys, &for_weir(), NOW_MS).map(|_| ())
    };
    let only = with(0, "alg", json!("RS256"));
    assert_eq!(verify_by(&only, Algorithm::Rs256), Ok(()));
    assert_eq!(verify_by(&only, Algorithm::Ps256), Err(BadToken::Signature), "RS256 alone");
    assert_eq!(verify_by(&with(0, "key_ops", json!(["verify"])), Algorithm::Rs256), Ok(()));
    // Another key of the same id.
    let stranger = with(3, "x", json!(encoded([9; 32])));
    assert_eq!(verify_by(&stranger, Algorithm::EdDsa), Err(BadToken::Signature));
    assert!(matches!(KeySet::parse("x"), Err(BadKeys::Json(_))));
    for text in ["{}", "[]", r#"{"keys":7}"#, r#""keys""#] {
        assert_eq!(KeySet::parse(text).unwrap_err(), BadKeys::NoList, "{text}");
    }
    assert_eq!(KeySet::parse(&" ".repeat(KEYS_BYTES_MAX + 1)).unwrap_err(), BadKeys::TooLong);
    let many = format!(r#"{{"keys":[{}7]}}"#, "7,".repeat(1_000));
    assert_eq!(KeySet::parse(&many).unwrap_err(), BadKeys::NoList);
    assert!(KeySet::parse(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))).is_err());
}

#[test]
fn messages_of_clients_are_taken_or_refused() {
    let parse = |text: &str| ClientResponse::parse(text.as_bytes());
    let simple = parse("n,,\u{1}auth=Bearer a.b-c_d~e+f/g==\u{1}\u{1}").unwrap();
    assert_eq!((&*simple.token, simple.authorization_id), ("a.b-c_d~e+f/g==", None));
    let full =
        parse("n,a=u=2Cv=3D,\u{1}traceId=1 2\u{1}auth=bEARER  x\u{1}id=\t\u{1}\u{1}").unwrap();
    assert_eq!((&*full.token, full.authorization_id.as_deref()), ("x", Some("u,v=")));
    let extensions: Vec<_> = full.extensions.into_iter().collect();
    let owned = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(extensions, [owned("id", "\t"), owned("traceId", "1 2")]);
    let bad = [
        "",
        "n",
        "n,",
        "n,,",
        "n,,\u{1}",
        "n,,\u{1}\u{1}",
        "y,,\u{1}auth=Bearer x\u{1}\u{1}",
        "n,,auth=Bearer x\u{1}\u{1}",
        "n,,\u{1}auth=Bearer x",
        "n,,\u{1}auth=Bearer x\u{1}",
        "n,,\u{1}auth=Basic x\u{1}\u{1}",
        "n,,\u{1}auth=Bearer\u{1}\u{1}",
        "n,,\u{1}auth=Bearer \u{1}\u{1}",
        "n,,\u{1}auth=Bearer ==\u{1}\u{1}",
        "n,,\u{1}auth=Bearer x y\u{1}\u{1}",
        "n,,\u{1}auth=Bearer x=y\u{1}\u{1}",
        "n,,\u{1}Auth=Bearer x\u{1}\u{1}",
        "n,,\u{1}1=x\u{1}auth=Bearer x\u{1}\u{1}",
        "n,,\u{1}x=\u{1}auth=Bearer x\u{1}\u{1}",
        "n,,\u{1}x\u{1}auth=Bearer x\u{1}\u{1}",
        "n,b=u,\u{1}auth=Bearer x\u{1}\u{1}",
        "n,a=,\u{1}auth=Bearer x\u{1}\u{1}",
        "n,a=u=v,\u{1}auth=Bearer x\u{1}\u{1}",
        "n,,\u{1}auth=Bearer x\u{1}\u{1}\u{1}",
        "n,,\u{1}auth=Bearer x\u{1}é=1\u{1}\u{1}",
    ];
    for message in bad {
        assert!(parse(message).is_err(), "{message:?}");
    }
    let secret = parse("n,,\u{1}auth=Bearer s3cret\u{1}\u{1}").unwrap();
    assert!(!format!("{secret:?}").contains("s3cret"));
}

#[test]
fn the_answer_to_a_bad_token_is_json() {
    assert_eq!(error_json("invalid_token", None, None), r#"{"status":"invalid_token"}"#);
    assert_eq!(
        error_json("insufficient_scope", Some("a"), Some("https://i/\"x")),
        r#"{"status":"insufficient_scope", "scope":"a", "openid-configuration":"https://i/\"x"}"#
    );
}

fn step(login: &mut OAuthBearer, token: &[u8]) -> Step {
    let now = Now { monotonic_ms: 0, wall_ms: NOW_MS };
    login.step(token, &Context { now, random: [0; 24] })
}

#[test]
fn a_login_with_a_token() {
    let message = |authorization_id: &str| {
        let token = token_of(Algorithm::Es256);
        format!("n,{authorization_id},\u{1}auth=Bearer {token}\u{1}\u{1}")
    };
    let begin = |keys: KeySet| {
        OAuthBearer::new(move |token, now| verify(token, &keys, &for_weir(), now.wall_ms))
    };
    let subject = "system:serviceaccount:shop:orders";
    for id in [String::new(), format!("a={subject}")] {
        let Step::Done(Login { token, user, expires_at_ms }) =
            step(&mut begin(keys()), message(&id).as_bytes())
        else {
            panic!("{id}")
        };
        assert_eq!((token.len(), user.name()), (0, subject));
        assert_eq!(expires_at_ms, Some(1_700_003_600_000));
    }
    let other = step(&mut begin(keys()), message("a=root").as_bytes());
    assert!(matches!(other, Step::Failed(Failure { told: Some(_), .. })), "{other:?}");
    let malformed = step(&mut begin(keys()), b"n,,\x01auth=Basic x\x01\x01");
    assert!(matches!(malformed, Step::Failed(Failure { told: None, .. })), "{malformed:?}");

    // A bad token is answered, and whatever comes then, the login has failed.
    let json = r#"{"status":"invalid_token"}"#;
    let bad = "n,,\u{1}auth=Bearer x\u{1}\u{1}";
    for end in ["\u{1}", "\\x01", "", &message("")] {
        let mut login = begin(keys());
        let Step::Challenge(answer) = step(&mut login, bad.as_bytes()) else { panic!("{end}") };
        assert_eq!(answer, json.as_bytes());
        let Step::Failed(failure) = step(&mut login, end.as_bytes()) else { panic!("{end}") };
        assert_eq!(failure.told.as_deref(), Some(json));
    }
    // A key that is not known is asked for once.
    let mut login = begin(KeySet::default());
    assert!(matches!(step(&mut login, message("").as_bytes()), Step::UnknownKey));
    assert!(matches!(step(&mut login, message("").as_bytes()), Step::Challenge(_)));
}

#[test]
fn keys_are_fetched_seldom() {
    let mut refetch = Refetch::default();
    assert!(refetch.may("a", 0));
    assert!(!refetch.may("b", 9_999), "too soon");
    assert!(refetch.may("b", 10_000));
    assert!(!refetch.may("a", 59_999), "it was not there");
    assert!(refetch.may("a", 60_000));
    assert!(!refetch.may(&"x".repeat(1_001), 100_000));
    let fetched = (0..100_000u64).filter(|n| refetch.may(&n.to_string(), 200_000 + n)).count();
    assert_eq!(fetched, 10, "in 100 seconds, whatever ids clients invent");
}

proptest! {
    /// Any bytes are a message, a token and a key set, or errors.
    #[test]
    fn any_bytes_are_taken_or_refused(
        message in proptest::collection::vec(any::<u8>(), 0..60),
        pieces in "(n,|a=|,|\u{1}|auth=|Bearer | |=|x|é){0,12}",
        token in "[-_a-zA-Z0-9.=é]{0,60}",
        json in "[\\[\\]{}:,\"a-z0-9]{0,40}",
    ) {
        let _ = ClientResponse::parse(&message);
        let _ = ClientResponse::parse(pieces.as_bytes());
        let _ = KeySet::parse(&json);
        prop_assert!(verify(&token, &keys(), &for_weir(), NOW_MS).is_err());
    }

    /// No change of a good token is good.
    #[test]
    fn a_changed_token_is_refused(
        at in any::<prop::sample::Index>(),
        letter in "[-_a-zA-Z0-9.]",
        algorithm in proptest::sample::select(&[Algorithm::Es256, Algorithm::EdDsa][..]),
    ) {
        let token = token_of(algorithm);
        let at = at.index(token.len());
        let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
        if changed != token {
            prop_assert!(verify(&changed, &keys(), &for_weir(), NOW_MS).is_err(), "{}", changed);
        }
    }
}
