mod model;

use proptest::prelude::*;

use self::model::Model;
use super::*;
use crate::principal::{KafkaPrincipal, Principal};
use crate::scram::{self, Client, Credential};
use crate::secret::Secret;

/// A mechanism that does what its token says: `go`, `key`, `bad`, `secret`, or `USER@EXPIRY`.
#[derive(Debug)]
struct Obedient;

impl Mechanism for Obedient {
    fn step(&mut self, token: &[u8], _: &Context) -> Step {
        match std::str::from_utf8(token).unwrap() {
            "go" => Step::Challenge(b"on".to_vec()),
            "key" => Step::UnknownKey,
            "bad" => Step::Failed(Failure::told("told")),
            "secret" => Step::Failed(Failure::untold("untold")),
            user => {
                let (user, expiry) = user.split_once('@').unwrap();
                Step::Done(Login {
                    token: b"done".to_vec(),
                    user: KafkaPrincipal::user(user),
                    expires_at_ms: expiry.parse().ok(),
                })
            }
        }
    }
}

struct Listener(Vec<String>);

impl Listener {
    fn new() -> Self {
        Self(["A", "B", "PLAIN", "SCRAM-SHA-256"].map(str::to_owned).to_vec())
    }
}

const PASSWORD: &str = "pencil";

fn credential(user: &str) -> Credential {
    let mechanism = scram::Mechanism::Sha256;
    match user {
        "alice" => {
            Credential::of_password(mechanism, PASSWORD.as_bytes(), b"salt".to_vec(), 4096).unwrap()
        }
        _ => Credential::of_nobody(mechanism, &Secret::new(b"cluster".to_vec()), user),
    }
}

impl Mechanisms for Listener {
    fn names(&self) -> &[String] {
        &self.0
    }

    fn start(&self, name: &str) -> Option<Box<dyn Mechanism>> {
        match name {
            "A" | "B" => Some(Box::new(Obedient)),
            "PLAIN" => {
                Some(Box::new(Plain::new(|user, password| credential(user).is_password(password))))
            }
            "SCRAM-SHA-256" => Some(Box::new(Scram::new(credential))),
            _ => None,
        }
    }
}

fn at(now_ms: u64) -> Context {
    let wall_ms = 1_000_000 + i64::try_from(now_ms).unwrap();
    Context { now: Now { monotonic_ms: now_ms, wall_ms }, random: [7; 24] }
}

fn with_sessions_of(reauthentication_max_ms: u64) -> Connection {
    Connection::new(Config { reauthentication_max_ms, ..Config::default() })
}

fn play(connection: &mut Connection, now_ms: u64, input: Input<'_>) -> Output {
    connection.input(input, &Listener::new(), &at(now_ms))
}

fn handshake(mechanism: &str) -> Input<'_> {
    Input::Handshake { version: 1, mechanism }
}

fn authenticate(token: &str) -> Input<'_> {
    Input::Authenticate { token: token.as_bytes() }
}

fn answered(token: &str, session_lifetime_ms: u64) -> Output {
    Output::Answer(Reply::Authenticate { token: token.into(), session_lifetime_ms })
}

fn failed(told: &str) -> Option<Reply> {
    Some(Reply::Failed(told.to_owned()))
}

fn reply(output: Output) -> Option<Reply> {
    match output {
        Output::Fail { answer, .. } => answer,
        other => panic!("no failure: {other:?}"),
    }
}

fn is_close(output: &Output) -> bool {
    matches!(output, Output::Close(_))
}

fn by(user: &str) -> Output {
    Output::Request(Authenticated::by_login(KafkaPrincipal::user(user)))
}

#[test]
fn a_login_with_requests() {
    let mut connection = with_sessions_of(0);
    let versions = |result| Output::Answer(Reply::ApiVersions(result));
    let unsupported = Err(Refusal::Version);
    assert_eq!(connection.expects(), Expects::Login { frame_bytes_max: 524_288 });
    let asked = play(&mut connection, 0, Input::ApiVersions(unsupported));
    assert_eq!(asked, versions(unsupported), "it does not use up the one");
    let software = Err(Refusal::Software);
    assert_eq!(play(&mut connection, 0, Input::ApiVersions(software)), versions(software));
    assert_eq!(play(&mut connection, 0, Input::ApiVersions(Ok(()))), versions(Ok(())));
    assert_eq!(play(&mut connection, 0, handshake("A")), Output::Answer(Reply::Handshake));
    assert_eq!(connection.user(), None);
    assert_eq!(play(&mut connection, 0, authenticate("go")), answered("on", 0));
    assert_eq!(play(&mut connection, 0, authenticate("alice@")), answered("done", 0));
    assert_eq!(connection.expects(), Expects::Request);
    assert_eq!(connection.user(), Some(&KafkaPrincipal::user("alice")));
    for now_ms in [0, 1, u64::MAX / 4] {
        assert_eq!(play(&mut connection, now_ms, Input::Other), by("alice"), "no end");
        assert_eq!(play(&mut connection, now_ms, Input::ApiVersions(Ok(()))), by("alice"));
    }
    let refused = play(&mut connection, 0, handshake("A"));
    assert_eq!(refused, Output::Answer(Reply::HandshakeRefused), "no session to renew");
    let refused = play(&mut connection, 0, authenticate("bob@"));
    assert_eq!(refused, Output::Answer(Reply::AuthenticateRefused));
    assert_eq!(play(&mut connection, 0, Input::Other), by("alice"), "the connection stays");
}

#[test]
fn a_login_with_raw_tokens() {
    let raw = |token: &'static str| Input::Token(token.as_bytes());
    let mut connection = with_sessions_of(0);
    let begun = play(&mut connection, 0, Input::Handshake { version: 0, mechanism: "PLAIN" });
    assert_eq!(begun, Output::Answer(Reply::Handshake));
    assert_eq!(connection.expects(), Expects::Token { frame_bytes_max: 524_288 });
    let done = play(&mut connection, 0, raw("\0alice\0pencil"));
    assert_eq!(done, Output::Answer(Reply::Token(Vec::new())), "a frame of length 0");
    assert_eq!(play(&mut connection, 0, Input::Other), by("alice"));

    let mut connection = with_sessions_of(0);
    play(&mut connection, 0, Input::Handshake { version: 0, mechanism: "PLAIN" });
    assert_eq!(reply(play(&mut connection, 0, raw("\0alice\0pencils"))), None, "no byte");
    assert_eq!(connection.expects(), Expects::Nothing);
}

#[test]
fn wrong_orders_end_the_connection() {
    let after = |inputs: &[Input<'_>], last: Input<'_>| {
        let mut connection = with_sessions_of(0);
        for input in inputs {
            let output = play(&mut connection, 0, *input);
            assert!(matches!(output, Output::Answer(_)), "{output:?}");
        }
        let output = play(&mut connection, 0, last);
        if !matches!(output, Output::Answer(_)) {
            assert_eq!(connection.expects(), Expects::Nothing, "{last:?}");
            assert!(is_close(&play(&mut connection, 0, Input::Other)));
        }
        output
    };
    let versions = Input::ApiVersions(Ok(()));
    let token = Input::Token(b"alice@");
    for first in [Input::Other, authenticate("alice@"), token, Input::Malformed] {
        assert!(is_close(&after(&[], first)), "{first:?}");
        assert!(is_close(&after(&[versions], first)), "{first:?}");
    }
    assert!(is_close(&after(&[versions], versions)), "a second one");
    let unsupported = Input::ApiVersions(Err(Refusal::Version));
    assert!(is_close(&after(&[versions], unsupported)));
    for name in ["GSSAPI", "a", "", "plain"] {
        let refused = reply(after(&[versions], handshake(name)));
        assert_eq!(refused, Some(Reply::UnknownMechanism), "{name}");
    }
    let begun = [handshake("A")];
    assert_eq!(reply(after(&begun, Input::Other)), Some(Reply::IllegalState));
    assert_eq!(reply(after(&begun, versions)), Some(Reply::IllegalState));
    assert_eq!(reply(after(&begun, handshake("A"))), Some(Reply::HandshakeRefused));
    assert!(is_close(&after(&begun, token)));
    assert!(is_close(&after(&begun, Input::Malformed)));
    assert_eq!(reply(after(&begun, authenticate("bad"))), failed("told"));
    assert_eq!(
        reply(after(&begun, authenticate("secret"))),
        failed(
            "Authentication failed during authentication due to invalid credentials with SASL \
             mechanism A"
        )
    );
    let raw = [Input::Handshake { version: 0, mechanism: "A" }];
    assert!(is_close(&after(&raw, authenticate("alice@"))));
    assert!(is_close(&after(&raw, Input::Other)));
}

#[test]
fn keys_are_brought_once() {
    let mut connection = with_sessions_of(0);
    play(&mut connection, 0, handshake("A"));
    assert_eq!(play(&mut connection, 0, authenticate("key")), Output::BringKeys);
    let again = play(&mut connection, 0, authenticate("key"));
    assert!(matches!(again, Output::Fail { .. }), "{again:?}");
    let mut connection = with_sessions_of(0);
    play(&mut connection, 0, handshake("A"));
    play(&mut connection, 0, authenticate("key"));
    assert_eq!(play(&mut connection, 0, authenticate("alice@")), answered("done", 0));
}

#[test]
fn a_session_ends_unless_it_is_renewed() {
    let mut connection = with_sessions_of(1_000);
    play(&mut connection, 0, handshake("A"));
    assert_eq!(play(&mut connection, 100, authenticate("alice@")), answered("done", 1_000));
    assert_eq!(play(&mut connection, 1_100, Input::Other), by("alice"));
    assert_eq!(play(&mut connection, 1_100, handshake("A")), Output::Answer(Reply::Handshake));
    assert_eq!(connection.user(), Some(&KafkaPrincipal::user("alice")));
    assert_eq!(play(&mut connection, 1_150, authenticate("alice@")), answered("done", 1_000));
    let soon = play(&mut connection, 1_199, handshake("A"));
    assert_eq!(soon, Output::Answer(Reply::HandshakeRefused), "too soon");
    assert_eq!(play(&mut connection, 1_199, Input::Other), by("alice"), "the connection stays");
    // A client may be late: nothing else is let through, but a login is.
    assert_eq!(play(&mut connection, 5_000, handshake("A")), Output::Answer(Reply::Handshake));
    assert_eq!(play(&mut connection, 5_000, authenticate("alice@")), answered("done", 1_000));
    assert_eq!(play(&mut connection, 6_000, Input::Other), by("alice"));
    assert!(is_close(&play(&mut connection, 6_001, Input::Other)));
}

#[test]
fn a_session_ends_with_its_credential() {
    let lifetime = |reauthentication_max_ms, expiry: &str| {
        let mut connection = with_sessions_of(reauthentication_max_ms);
        play(&mut connection, 0, handshake("A"));
        let token = format!("alice@{expiry}");
        match play(&mut connection, 0, authenticate(&token)) {
            Output::Answer(Reply::Authenticate { session_lifetime_ms, .. }) => {
                let late = play(&mut connection, session_lifetime_ms + 1, Input::Other);
                (session_lifetime_ms, is_close(&late))
            }
            other => panic!("{other:?}"),
        }
    };
    // The wall clock shows 1,000,000.
    assert_eq!(lifetime(0, ""), (0, false), "no end");
    assert_eq!(lifetime(0, "1000500"), (500, true));
    assert_eq!(lifetime(200, "1000500"), (200, true));
    assert_eq!(lifetime(900, "1000500"), (500, true));
    assert_eq!(lifetime(0, "999000"), (0, true), "a credential that has ended");
    assert_eq!(lifetime(900, "999000"), (0, true));
    assert_eq!(lifetime(0, "-9223372036854775808"), (0, true));
}

#[test]
fn a_renewal_changes_neither_user_nor_mechanism() {
    let renewed = |mechanism: &str, token: &str| {
        let mut connection = with_sessions_of(1_000);
        play(&mut connection, 0, handshake("A"));
        play(&mut connection, 0, authenticate("alice@"));
        assert_eq!(
            play(&mut connection, 500, handshake(mechanism)),
            Output::Answer(Reply::Handshake)
        );
        play(&mut connection, 500, authenticate(token))
    };
    assert_eq!(renewed("A", "alice@"), answered("done", 1_000));
    assert_eq!(
        reply(renewed("A", "bob@")),
        failed("Cannot change principals during re-authentication from User.alice: User.bob")
    );
    assert_eq!(
        reply(renewed("B", "alice@")),
        failed(
            "SASL mechanism 'B' requested by client is not supported for re-authentication of \
             mechanism 'A'"
        )
    );
    assert_eq!(
        reply(renewed("A", "secret")),
        failed(
            "Authentication failed during re-authentication due to invalid credentials with SASL \
             mechanism A"
        )
    );
}

#[test]
fn plain_takes_three_parts() {
    let log_in = |token: &str| {
        let mut connection = with_sessions_of(0);
        play(&mut connection, 0, handshake("PLAIN"));
        play(&mut connection, 0, authenticate(token))
    };
    assert_eq!(log_in("\0alice\0pencil"), answered("", 0));
    assert_eq!(log_in("alice\0alice\0pencil"), answered("", 0), "as kafka-python");
    let wrong = "Authentication failed: Invalid username or password";
    let another = "Authentication failed: Client requested an authorization id that is different \
                   from username";
    let cases = [
        ("\0alice\0pencils", wrong),
        ("\0bob\0pencil", wrong),
        ("\0Alice\0pencil", wrong),
        ("bob\0alice\0pencils", wrong),
        ("bob\0alice\0pencil", another),
        ("\0\0pencil", "Authentication failed: username not specified"),
        ("\0alice\0", "Authentication failed: password not specified"),
        ("alice\0pencil", "Invalid SASL/PLAIN response: expected 3 tokens, got 2"),
        ("", "Invalid SASL/PLAIN response: expected 3 tokens, got 1"),
        ("\0alice\0pencil\0", "Invalid SASL/PLAIN response: expected 3 tokens, got 4"),
    ];
    for (token, told) in cases {
        assert_eq!(reply(log_in(token)), failed(told), "{token:?}");
    }
}

/// A client with a user's password, from the first token to the answer to the last.
fn scram(user: &str, password: &str) -> Output {
    let mut connection = with_sessions_of(0);
    play(&mut connection, 0, handshake("SCRAM-SHA-256"));
    let mut client = Client::new(scram::Mechanism::Sha256, user, password, &[1; 24]);
    let first = Input::Authenticate { token: &client.first() };
    let Output::Answer(Reply::Authenticate { token, session_lifetime_ms: 0 }) =
        play(&mut connection, 0, first)
    else {
        panic!("every user is answered")
    };
    let last = client.answer(&token).unwrap();
    let output = play(&mut connection, 0, Input::Authenticate { token: &last });
    if let Output::Answer(Reply::Authenticate { token, .. }) = &output {
        client.finish(token).unwrap();
    }
    output
}

#[test]
fn scram_logs_in_and_tells_nothing_of_users() {
    assert!(matches!(scram("alice", PASSWORD), Output::Answer(_)));
    let general = "Authentication failed during authentication due to invalid credentials with \
                   SASL mechanism SCRAM-SHA-256";
    for (user, password) in [("alice", "pencils"), ("bob", PASSWORD), ("bob", "")] {
        assert_eq!(reply(scram(user, password)), failed(general), "{user}");
    }
    let first = |token| {
        let mut connection = with_sessions_of(0);
        play(&mut connection, 0, handshake("SCRAM-SHA-256"));
        reply(play(&mut connection, 0, authenticate(token)))
    };
    assert_eq!(first("n,,n=alice,r=x,tokenauth=true"), failed(general));
    assert_eq!(first("y,,n=alice,r=x"), failed(general));
    assert!(first("n,a=bob,n=alice,r=x").is_some_and(|r| r != Reply::Failed(general.into())));
}

#[test]
fn other_senders_are_known_without_a_login() {
    assert_eq!(Authenticated::anonymous().principal().to_string(), "User:ANONYMOUS");
    let node = Authenticated::by_certificate(Principal::Broker(3));
    assert_eq!(node.principal(), &Principal::Broker(3));
}

#[derive(Clone, Debug)]
pub(super) enum Frame {
    Versions(Result<(), Refusal>),
    Handshake(i16, &'static str),
    Authenticate(&'static str),
    Token(&'static str),
    Other,
    Malformed,
}

impl Frame {
    fn input(&self) -> Input<'static> {
        match *self {
            Self::Versions(asked) => Input::ApiVersions(asked),
            Self::Handshake(version, mechanism) => Input::Handshake { version, mechanism },
            Self::Authenticate(token) => Input::Authenticate { token: token.as_bytes() },
            Self::Token(token) => Input::Token(token.as_bytes()),
            Self::Other => Input::Other,
            Self::Malformed => Input::Malformed,
        }
    }
}

fn frames() -> impl Strategy<Value = Frame> {
    let token = || {
        proptest::sample::select(
            &["go", "key", "bad", "secret", "alice@", "alice@", "bob@", "alice@1000300"][..],
        )
    };
    prop_oneof![
        1 => Just(Frame::Versions(Ok(()))),
        1 => Just(Frame::Versions(Err(Refusal::Version))),
        6 => (0i16..2, proptest::sample::select(&["A", "A", "A", "B", "C"][..]))
            .prop_map(|(version, name)| Frame::Handshake(version, name)),
        8 => token().prop_map(Frame::Authenticate),
        4 => token().prop_map(Frame::Token),
        6 => Just(Frame::Other),
        1 => Just(Frame::Malformed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// In any order of frames, no request passes without a login that still lasts, and each frame
    /// does what the table of states says.
    #[test]
    fn no_request_passes_without_a_login(
        reauthentication_max_ms in proptest::sample::select(&[0u64, 200, 1_000][..]),
        played in proptest::collection::vec((frames(), 0u64..400), 1..24),
    ) {
        let mut connection = with_sessions_of(reauthentication_max_ms);
        let mut model = Model::new(reauthentication_max_ms);
        let mut now_ms = 0;
        for (frame, wait_ms) in played {
            now_ms += wait_ms;
            // A client that logs in at all comes far only if it keeps to the framing.
            let frame = match (connection.expects(), frame) {
                (Expects::Token { .. }, Frame::Authenticate(token)) => Frame::Token(token),
                (Expects::Login { .. }, Frame::Token(token)) => Frame::Authenticate(token),
                (_, frame) => frame,
            };
            let output = play(&mut connection, now_ms, frame.input());
            prop_assert_eq!(model.play(&frame, now_ms), model::Seen::of(&output), "{:?}", frame);
            if matches!(output, Output::Fail { .. } | Output::Close(_)) {
                prop_assert_eq!(connection.expects(), Expects::Nothing);
            }
        }
    }

    /// Any bytes as a token are answered or refused.
    #[test]
    fn any_token_is_answered_or_refused(
        mechanism in proptest::sample::select(&["PLAIN", "SCRAM-SHA-256"][..]),
        tokens in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..3),
    ) {
        let mut connection = with_sessions_of(0);
        play(&mut connection, 0, handshake(mechanism));
        for token in tokens {
            let output = play(&mut connection, 0, Input::Authenticate { token: &token });
            prop_assert!(connection.user().is_none(), "{:?}", output);
        }
    }
}
