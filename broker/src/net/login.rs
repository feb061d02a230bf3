//! The login of a connection on a listener with SASL, before its first request.
//!
//! Invariants
//! - Nothing is read beyond the frame of the login that is due, so what a client sends behind its
//!   last token waits until the token is verified.
//! - A login has one attempt, [`LOGIN_MAX`] and [`FRAME_BYTES_MAX`]. A frame that is not small
//!   takes room of the memory for requests.
//! - A password is computed on other threads than those of connections, and only
//!   [`PASSWORDS_AT_ONCE`] at a time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;
use uuid::Uuid;
use weir_protocol::frame;
use weir_security::principal::Principal;
use weir_security::sasl::{Config, Connection, Context, Expects, Mechanisms as _, Now, Output};
use weir_security::scram::Stored;

use super::closed::Closed;
use super::farewell::farewell;
use super::transport::Transport;
use crate::api::{Caller, LoginFrame, Services, encode_login};
use crate::budget;
use crate::sasl::{Grounds, Offered, PLAIN};

/// The longest time for a login. Apache Kafka has no bound but `connections.max.idle.ms`.
const LOGIN_MAX: Duration = Duration::from_secs(30);

/// The longest frame of a login: tokens of OAuth may have some ten thousand bytes. Apache Kafka
/// takes 512 KiB by default (`sasl.server.max.receive.size`), for tickets of Kerberos.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The longest frame that takes no room.
const SMALL_FRAME_BYTES: usize = 4 * 1024;

/// How long a failed login waits for its answer (`connection.failed.authentication.delay.ms`).
const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// How many passwords are computed at the same time. Each takes a processor for some milliseconds.
const PASSWORDS_AT_ONCE: usize = 2;

/// The turns at computing a password.
static PASSWORDS: Semaphore = Semaphore::const_new(PASSWORDS_AT_ONCE);

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
}

impl Validity {
    /// Returns once the user or the password is no longer good.
    pub(super) async fn ended(&mut self) {
        if let Some(grounds) = &self.grounds {
            grounds.are_gone(&mut self.users).await;
        }
    }
}

/// Carries out the login of a client by one of these mechanisms.
///
/// # Errors
/// Why the connection ends. The client has been told, as far as there is an answer.
pub(super) async fn log_in(
    services: &Arc<Services>,
    caller: &Caller,
    names: &Arc<[String]>,
    stream: &mut Transport,
) -> Result<LoggedIn, Closed> {
    let users = services.metadata.users();
    let offered = Offered::now(names, &services.metadata);
    let mut login = Login {
        services,
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
        validity: Validity { grounds, users },
    })
}

struct Login<'a> {
    services: &'a Arc<Services>,
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
            let (frame, asked) = match self.connection.expects() {
                Expects::Login { frame_bytes_max } => {
                    let (services, caller) = (self.services, self.caller);
                    let reading = read_frame(services, caller, stream, frame_bytes_max);
                    let frame = reading.await?;
                    LoginFrame::request(frame)
                }
                Expects::Token { frame_bytes_max } => {
                    let (services, caller) = (self.services, self.caller);
                    let frame = read_frame(services, caller, stream, frame_bytes_max).await?;
                    (LoginFrame::Token(frame.freeze()), None)
                }
                Expects::Request => return Ok(()),
                Expects::Nothing => return Err(Closed::Login("it is over".to_owned())),
            };
            if let LoginFrame::Handshake { mechanism, .. } = &frame {
                self.mechanism.clone_from(mechanism);
            }
            let (answer, failure) = match self.step(frame).await? {
                Output::Answer(reply) => (Some(reply), None),
                Output::Fail { answer, reason } => {
                    tokio::time::sleep(FAILURE_DELAY).await;
                    (answer, Some(reason))
                }
                Output::Close(reason) => (None, Some(reason.to_owned())),
                // No mechanism here has keys, and no request goes on before the login.
                Output::BringKeys | Output::Request(_) => {
                    (None, Some("it cannot go on".to_owned()))
                }
            };
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
        // The semaphore is never closed. The turn ends with the computation, though the client may
        // be gone by then.
        let turn = PASSWORDS.acquire().await;
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

/// Reads one frame, without its length.
async fn read_frame(
    services: &Services,
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
    let _room = match length {
        0..=SMALL_FRAME_BYTES => None,
        _ => Some(services.request_memory.room(budget::charge(length, false), false).await),
    };
    let mut frame = BytesMut::with_capacity(length);
    read_exactly(stream, &mut frame, length).await?;
    services.metrics.received_bytes(4 + length as u64);
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
