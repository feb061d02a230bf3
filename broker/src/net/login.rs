//! The login of a connection on a listener with SASL, before its first request.
//!
//! Invariants
//! - Nothing is read beyond the frame of the login that is due, so what a client sends behind its
//!   last token waits until the token is verified.
//! - A login has one attempt, [`LOGIN_MAX`] and [`FRAME_BYTES_MAX`]. Only [`LARGE_AT_ONCE`] frames
//!   that are not small are read at a time, so nobody who has not logged in takes the memory for
//!   requests.
//! - A password is computed on other threads than those of connections, only
//!   [`PASSWORDS_AT_ONCE`] at a time, and one of each address.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;
use uuid::Uuid;
use weir_protocol::frame;
use weir_security::principal::Principal;
use weir_security::sasl::{
    Config, Connection, Context, Expects, Mechanisms as _, Now, Output, Reply,
};
use weir_security::scram::Stored;

use super::closed::Closed;
use super::farewell::farewell;
use super::transport::Transport;
use crate::api::{Caller, LoginFrame, Services, encode_login};
use crate::budget::{Turn, Turns};
use crate::sasl::{Grounds, Offered, PLAIN};

/// The longest time for a login. Apache Kafka has no bound but `connections.max.idle.ms`.
const LOGIN_MAX: Duration = Duration::from_secs(30);

/// The longest frame of a login: tokens of OAuth may have some ten thousand bytes. Apache Kafka
/// takes 512 KiB by default (`sasl.server.max.receive.size`), for tickets of Kerberos.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The longest frame that waits for none.
const SMALL_FRAME_BYTES: usize = 4 * 1024;

/// How many larger frames are read at the same time.
const LARGE_AT_ONCE: usize = 64;

/// How long a failed login waits for its answer (`connection.failed.authentication.delay.ms`).
const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// How many passwords are computed at the same time. Each takes a processor for some milliseconds.
const PASSWORDS_AT_ONCE: usize = 2;

/// What the logins of all listeners share.
#[derive(Debug)]
pub(super) struct Logins {
    /// The turns of addresses at computing a password.
    turns: Turns,
    passwords: Arc<Semaphore>,
    large: Semaphore,
}

impl Logins {
    /// Nobody logs in yet.
    pub(super) fn new() -> Self {
        Self {
            turns: Turns::new(1),
            passwords: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            large: Semaphore::new(LARGE_AT_ONCE),
        }
    }

    /// Waits for the turn at computing a password. The semaphore is never closed.
    async fn password(&self, peer: IpAddr) -> (Turn, Option<OwnedSemaphorePermit>) {
        let turn = self.turns.turn(peer).await;
        (turn, Arc::clone(&self.passwords).acquire_owned().await.ok())
    }
}

/// A client that has logged in.
#[derive(Debug)]
pub(super) struct LoggedIn {
    /// The user.
    pub(super) principal: Principal,
    /// The mechanism.
    pub(super) mechanism: String,
    /// How long the login is good.
    pub(super) validity: Validity,
}

/// How long a login is good.
#[derive(Debug)]
pub(super) struct Validity {
    grounds: Option<Grounds>,
    users: watch::Receiver<Arc<Stored>>,
    /// Whether the users of the receiver's value were looked at.
    is_checked: bool,
}

impl Validity {
    /// Returns once the user or the password is no longer good. While no user changes it costs next
    /// to nothing to begin to wait again.
    pub(super) async fn ended(&mut self) {
        let Some(grounds) = &self.grounds else { return };
        // The sender lives as long as the broker.
        while !self.is_checked || self.users.changed().await.is_ok() {
            self.is_checked = true;
            if !grounds.still_hold(&self.users.borrow_and_update()) {
                self.is_checked = false;
                return;
            }
        }
    }
}

/// Carries out the login of a client by one of these mechanisms.
///
/// # Errors
/// Why the connection ends. The client has been told, as far as there is an answer.
pub(super) async fn log_in(
    services: &Arc<Services>,
    logins: &Logins,
    caller: &Caller,
    names: &Arc<[String]>,
    stream: &mut Transport,
) -> Result<LoggedIn, Closed> {
    let users = services.metadata.users();
    let offered = Offered::now(names, &services.metadata);
    let mut login = Login {
        services,
        logins,
        caller,
        began: Instant::now(),
        connection: Connection::new(Config {
            frame_bytes_max: FRAME_BYTES_MAX,
            ..Config::default()
        }),
        offered: offered.clone(),
        mechanism: String::new(),
    };
    match timeout(LOGIN_MAX, login.run(stream)).await {
        Ok(Ok(())) => {}
        Ok(Err(closed)) => return Err(closed),
        Err(_) => return Err(Closed::Login("it took too long".to_owned())),
    }
    let Some(user) = login.connection.user() else {
        return Err(Closed::Login("it ended without a user".to_owned()));
    };
    let grounds = offered.grounds(&login.mechanism, user.name());
    Ok(LoggedIn {
        principal: user.clone().into(),
        mechanism: login.mechanism,
        validity: Validity { grounds, users, is_checked: false },
    })
}

struct Login<'a> {
    services: &'a Arc<Services>,
    logins: &'a Logins,
    caller: &'a Caller,
    began: Instant,
    connection: Connection,
    offered: Offered,
    /// The mechanism that the client has asked for last.
    mechanism: String,
}

impl Login<'_> {
    async fn run(&mut self, stream: &mut Transport) -> Result<(), Closed> {
        loop {
            let (bytes_max, is_request) = match self.connection.expects() {
                Expects::Login { frame_bytes_max } => (frame_bytes_max, true),
                Expects::Token { frame_bytes_max } => (frame_bytes_max, false),
                Expects::Request => return Ok(()),
                Expects::Nothing => return Err(Closed::Login("it is over".to_owned())),
            };
            let (logins, caller) = (self.logins, self.caller);
            let frame = read_frame(logins, caller, stream, bytes_max).await?;
            self.services.metrics.received_bytes(4 + frame.len() as u64);
            let (frame, asked) = match is_request {
                true => LoginFrame::request(frame),
                false => (LoginFrame::Token(frame.freeze()), None),
            };
            if let LoginFrame::Handshake { mechanism, .. } = &frame {
                self.mechanism.clone_from(mechanism);
            }
            let came = Instant::now();
            let (answer, failure) = match self.step(frame).await? {
                Output::Answer(reply) => match self.is_revoked() {
                    false => (Some(reply), None),
                    true => (refusal(&reply), Some("the user or the password is gone".to_owned())),
                },
                Output::Fail { answer, reason } => (answer, Some(reason)),
                Output::Close(reason) => (None, Some(reason.to_owned())),
                // No mechanism here has keys, and no request goes on before the login.
                Output::BringKeys | Output::Request(_) => {
                    (None, Some("it cannot go on".to_owned()))
                }
            };
            if failure.is_some() {
                // From the moment on when the frame came: how long a password takes to compute says
                // who has which credential.
                tokio::time::sleep_until(came + FAILURE_DELAY).await;
            }
            if let Some(reply) = answer {
                let names = self.offered.names();
                let bytes = encode_login(reply, asked, names, &self.services.metadata.load())
                    .map_err(|error| Closed::Login(error.to_string()))?;
                if let Some(bytes) = bytes {
                    stream.send_all(&bytes).await?;
                    self.services.metrics.sent_bytes(bytes.len() as u64);
                }
            }
            if let Some(reason) = failure {
                farewell(stream.socket()).await;
                return Err(Closed::Login(reason));
            }
        }
    }

    /// Whether the client has just logged in on grounds that are gone meanwhile: all of a login
    /// goes by the users of its beginning.
    fn is_revoked(&self) -> bool {
        let Some(user) = self.connection.user() else { return false };
        let grounds = self.offered.grounds(&self.mechanism, user.name());
        let users = &self.services.metadata.load().scram_credentials;
        !grounds.is_some_and(|grounds| grounds.still_hold(users))
    }

    /// Hands a frame to the state machine, on another thread if that computes a password.
    async fn step(&mut self, frame: LoginFrame) -> Result<Output, Closed> {
        let context = self.context();
        let is_token = matches!(frame, LoginFrame::Authenticate(_) | LoginFrame::Token(_));
        if !(is_token && self.mechanism == PLAIN) {
            return Ok(self.connection.input(frame.input(), &self.offered, &context));
        }
        let offered = self.offered.clone();
        let mut connection =
            std::mem::replace(&mut self.connection, Connection::new(Config::default()));
        // The turn ends with the computation, though the client may be gone by then.
        let turn = self.logins.password(self.caller.peer.ip()).await;
        let computed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let output = connection.input(frame.input(), &offered, &context);
            (connection, output)
        });
        let (connection, output) = computed.await.map_err(|_| Closed::Stopping)?;
        self.connection = connection;
        Ok(output)
    }

    fn context(&self) -> Context {
        let mut random = [0; 24];
        let [one, other] = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes);
        random.iter_mut().zip(one.into_iter().chain(other)).for_each(|(to, from)| *to = from);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = |time: Duration| time.as_millis();
        Context {
            now: Now {
                monotonic_ms: u64::try_from(millis(self.began.elapsed())).unwrap_or(u64::MAX),
                wall_ms: i64::try_from(since_1970.map_or(0, millis)).unwrap_or(i64::MAX),
            },
            random,
        }
    }
}

/// The refusal in place of the answer that lets a client in; raw tokens have none.
fn refusal(reply: &Reply) -> Option<Reply> {
    let failed = Reply::Failed("Authentication failed".to_owned());
    matches!(reply, Reply::Authenticate { .. }).then_some(failed)
}

/// Reads one frame, without its length.
async fn read_frame(
    logins: &Logins,
    caller: &Caller,
    stream: &mut Transport,
    bytes_max: usize,
) -> Result<BytesMut, Closed> {
    let mut prefix = BytesMut::with_capacity(4);
    read_exactly(stream, &mut prefix, 4).await?;
    let Some(prefix) = prefix.first_chunk::<4>() else { return Err(Closed::ByClient) };
    if matches!(prefix, [22, 3, 0..=4, _]) {
        return Err(Closed::TlsOnPlain);
    }
    // A token may be empty, and a request is not.
    let length = match u32::from_be_bytes(*prefix) {
        0 => 0,
        _ => frame::request_length(*prefix, bytes_max)
            .map_err(|error| Closed::BadRequest(error.to_string(), caller.span()))?,
    };
    // The semaphore is never closed. The whole login has a bound, and so has this wait.
    let _turn = match length {
        0..=SMALL_FRAME_BYTES => None,
        _ => logins.large.acquire().await.ok(),
    };
    let mut frame = BytesMut::with_capacity(length);
    read_exactly(stream, &mut frame, length).await?;
    Ok(frame)
}

/// Reads so many bytes in all.
async fn read_exactly(
    stream: &mut Transport,
    into: &mut BytesMut,
    length: usize,
) -> Result<(), Closed> {
    while into.len() < length {
        stream.readable().await?;
        let missing = length - into.len();
        match stream.try_read_buf(&mut (&mut *into).limit(missing)) {
            Ok(0) => return Err(Closed::ByClient),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Tells of a login, for those who look for it.
pub(super) fn tell(listener: &str, logged_in: &LoggedIn) {
    let LoggedIn { principal, mechanism, .. } = logged_in;
    debug!(listener, %principal, mechanism, "a client has logged in");
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use weir_protocol::controller as rpc;
    use weir_protocol::types::ControllerEpoch;
    use weir_security::scram::{Credential, Mechanism};

    use super::*;
    use crate::metadata::Metadata;

    /// The controller tells of a user's password; without one it is deleted.
    fn tell(metadata: &Metadata, user: &str, password: Option<&str>) {
        let text = |password: &str| {
            let password = password.as_bytes();
            let made = Credential::of_password(Mechanism::Sha256, password, vec![1], 4096);
            made.unwrap().to_text()
        };
        let credential = rpc::ScramCredential {
            user: user.to_owned(),
            mechanism: 1,
            credential: password.map(text).unwrap_or_default(),
        };
        let before = metadata.load();
        let update = rpc::MetadataUpdate {
            version: before.version + 1,
            scram_credentials: vec![credential],
            ..Default::default()
        };
        let (image, _) = before.after(ControllerEpoch(1), &update).unwrap();
        metadata.publish(image);
    }

    fn login(metadata: &Metadata) -> Validity {
        let offered = Offered::now(&Arc::from([PLAIN.to_owned()]), metadata);
        let grounds = offered.grounds(PLAIN, "a");
        Validity { grounds, users: metadata.users(), is_checked: false }
    }

    #[test]
    fn a_login_ends_with_its_password_and_not_with_anybody_elses() {
        let metadata = Metadata::new();
        tell(&metadata, "a", Some("1"));
        let mut first = login(&metadata);
        assert!(first.ended().now_or_never().is_none());
        tell(&metadata, "b", Some("1"));
        tell(&metadata, "a", Some("1"));
        for _ in 0..3 {
            assert!(first.ended().now_or_never().is_none());
        }
        tell(&metadata, "a", Some("2"));
        for _ in 0..2 {
            assert!(first.ended().now_or_never().is_some(), "it stays ended");
        }
        let mut second = login(&metadata);
        tell(&metadata, "a", None);
        assert!(second.ended().now_or_never().is_some(), "before it was ever looked at");
        assert!(login(&metadata).ended().now_or_never().is_some(), "on no grounds");
    }

    #[tokio::test]
    async fn an_address_computes_one_password_at_a_time_and_all_together_two() {
        let logins = Logins::new();
        let host = |last: u8| IpAddr::from([10, 0, 0, last]);
        let one = logins.password(host(1)).await;
        assert!(logins.password(host(1)).now_or_never().is_none());
        let two = logins.password(host(2)).now_or_never().unwrap();
        assert!(logins.password(host(3)).now_or_never().is_none());
        drop(two);
        assert!(logins.password(host(3)).now_or_never().is_some());
        drop(one);
        assert!(logins.password(host(1)).now_or_never().is_some());
    }
}
