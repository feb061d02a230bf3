//! Listeners and connections: accepts sockets, hands frames to `api`, and sends replies.
//!
//! Connections are spread over threads, each with its own scheduler. A request is read, handled and
//! answered on one core; no work stealing moves it. The work of a partition for it runs on the same
//! thread (`replica`).
//!
//! Invariants; docs/memory.md has the numbers
//! - Replies leave in the order of the requests.
//! - A connection holds a bounded number of requests and bytes. Beyond that its socket is not read.
//! - A frame has room in the budget for requests, decoding included, before its body is read. A
//!   frame that waits for room holds none.
//! - An answer has room in the budget for answers before it is encoded. A connection that does not
//!   take its answer is closed while others wait.
//! - A request that takes long runs on a thread of its own (`api::large`). No other connection
//!   waits for it.
//! - Over TLS a connection has a client only once its handshake is done (`tls`).
//! - Who has not shown that it is a node of the cluster takes no place of a node (`seats`).

mod answers;
mod buffers;
mod closed;
mod connection;
mod farewell;
mod input;
mod login;
mod output;
mod seats;
mod tls;
mod transport;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, debug, debug_span, error, info, warn};
use weir_protocol::address;
use weir_telemetry::complaints::Complaints;
use weir_telemetry::listen::listen;
use weir_tls::Identities;

use self::closed::Closed;
use self::connection::Accepted;
use self::login::{Logins, Validity, log_in};
use self::seats::{Entry, Seat, Seats};
use self::tls::{Certificates, Greeted, Refused, Secured, greet, keep_current};
use self::transport::Transport;
use crate::api::{Caller, Listener, Services};
use crate::auth::{KafkaPrincipal, Requester};
use crate::config::{ListenerConfig, ListenerSecurity};
use crate::metrics::Metrics;

/// The most accepted connections that wait for their thread.
const HANDOVER_MAX: usize = 1024;

/// The most extra threads of each connection thread. They wait for the disk when data to send is
/// not in the page cache.
const COLD_READS_MAX: usize = 16;

/// How long current requests may take to end when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub struct Bound {
    /// Its configuration.
    pub config: ListenerConfig,
    /// Its actual address. The port is known even if the configuration leaves it open.
    pub address: SocketAddr,
    socket: std::net::TcpListener,
    secured: Option<Secured>,
}

/// Binds a listener. `identities` is what this broker shows on the internal one.
///
/// # Errors
/// When the address is not local or the port is in use, or the files of its TLS cannot be used; the
/// message names them.
pub async fn bind(
    config: &ListenerConfig,
    identities: Option<&Arc<Identities>>,
) -> anyhow::Result<Bound> {
    let secured = match &config.security {
        ListenerSecurity::Plain => None,
        ListenerSecurity::Tls(tls) => {
            Some(Secured::Clients(Arc::new(Certificates::load(&config.name, tls)?)))
        }
        ListenerSecurity::Nodes => {
            let identities = identities.context("this broker has no identity")?;
            Some(Secured::Nodes(Arc::clone(identities)))
        }
    };
    let (host, port) = &config.bind;
    let what = || format!("listen on {}://{}", config.name, address::join(host, *port));
    let address = tokio::net::lookup_host((host.as_str(), *port))
        .await
        .with_context(what)?
        .next()
        .with_context(what)?;
    let socket = listen(address).with_context(what)?;
    let address = socket.local_addr().with_context(what)?;
    Ok(Bound { config: config.clone(), address, socket, secured })
}

/// The threads that serve connections, and the tasks that accept them.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    acceptors: tokio::task::JoinSet<()>,
}

/// The state that acceptors and threads share.
#[derive(Clone, Debug)]
struct Shared {
    services: Arc<Services>,
    logins: Arc<Logins>,
    /// How many connections there were.
    accepted: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
}

/// A listener that accepts connections.
#[derive(Debug)]
struct Accepting {
    listener: Arc<Listener>,
    secured: Option<Secured>,
    /// The SASL mechanisms by which clients log in; without any they do not.
    sasl: Arc<[String]>,
    seats: Arc<Seats>,
    complaints: Complaints,
}

type Handover = (std::net::TcpStream, Caller, Entry, Arc<Accepting>);

impl Server {
    /// Starts to accept connections on `listeners`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(services: &Arc<Services>, listeners: Vec<Bound>) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let shared = Shared {
            services: Arc::clone(services),
            logins: Arc::new(Logins::new()),
            accepted: Arc::default(),
            stop: stopped,
        };
        let mut threads = Vec::new();
        let mut inboxes = Vec::new();
        for index in 0..services.config.threads {
            let (inbox, accepted) = mpsc::channel(HANDOVER_MAX);
            let shared = shared.clone();
            let run = move || run_thread(&shared, accepted);
            threads.push(
                std::thread::Builder::new()
                    .name(format!("connections-{index}"))
                    .spawn(run)
                    .context("start a thread for connections")?,
            );
            inboxes.push(inbox);
        }
        let mut acceptors = tokio::task::JoinSet::new();
        let metrics = &services.metrics;
        let secured = listeners.iter().filter_map(|bound| bound.secured.clone());
        acceptors.spawn(keep_current(secured.collect(), Arc::clone(metrics)));
        let connections_max = services.config.connections_max;
        let of_clients = Arc::new(Seats::of_clients(connections_max));
        let of_nodes = Arc::new(Seats::of_nodes(connections_max));
        for bound in listeners {
            let name = bound.config.name.clone();
            info!(listener = name, address = %bound.address, "listening");
            if let Some(secured) = &bound.secured {
                metrics.tls().serves(&name, secured.not_after(), &Refused::REASONS);
            }
            if !bound.config.sasl.is_empty() {
                metrics.sasl().serves(&name, &bound.config.sasl);
            }
            let seats = match &bound.secured {
                Some(Secured::Nodes(_)) => Arc::clone(&of_nodes),
                _ => Arc::clone(&of_clients),
            };
            let socket = TcpListener::from_std(bound.socket).context("watch a listener")?;
            let accepting = Accepting {
                listener: Arc::new(Listener { name }),
                secured: bound.secured,
                sasl: bound.config.sasl.into(),
                seats,
                complaints: Complaints::default(),
            };
            acceptors.spawn(accept(shared.clone(), socket, Arc::new(accepting), inboxes.clone()));
        }
        Ok(Self { stop, threads, acceptors })
    }

    /// Stops accepting, lets current requests end, and closes the connections.
    pub async fn stop(mut self) {
        self.acceptors.shutdown().await;
        self.stop.send_replace(true);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(std::thread::JoinHandle::join).filter(Result::is_err).count()
        });
        if let Ok(panicked @ 1..) = joined.await {
            warn!(panicked, "threads for connections ended in a panic: their connections were cut");
        }
    }
}

async fn accept(
    shared: Shared,
    socket: TcpListener,
    accepting: Arc<Accepting>,
    inboxes: Vec<mpsc::Sender<Handover>>,
) {
    let listener = &accepting.listener;
    for inbox in inboxes.iter().cycle() {
        let (stream, peer) = loop {
            match socket.accept().await {
                Ok(accepted) => break accepted,
                // The process has no file descriptor left, or the client has gone. Neither is a
                // reason to stop, and the first is a reason to wait.
                Err(error) => {
                    warn!(listener = %listener.name, %error, "cannot accept a connection; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        let Some(entry) = accepting.seats.enter(peer.ip()) else {
            shared.services.metrics.connection_refused();
            continue;
        };
        // An IPv4 client of a dual-stack socket has its IPv4 address, as in Java.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let caller = Caller {
            connection: shared.accepted.fetch_add(1, Ordering::Relaxed) + 1,
            listener: Arc::clone(listener),
            requester: Requester::new(KafkaPrincipal::anonymous().into(), peer.ip()),
            peer,
            next_is_here: Default::default(),
            has_asked_for_topics: Default::default(),
        };
        if let Ok(stream) = stream.into_std() {
            // A thread that has ended takes none: the broker stops.
            let _ = inbox.send((stream, caller, entry, Arc::clone(&accepting))).await;
        }
    }
}

fn run_thread(shared: &Shared, mut accepted: mpsc::Receiver<Handover>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(COLD_READS_MAX)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            // Without its threads a broker serves nothing, so the process exits.
            error!(%error, "cannot start a scheduler for connections: the broker ends");
            std::process::exit(1);
        }
    };
    runtime.block_on(async {
        let mut connections = tokio::task::JoinSet::new();
        let mut stop = shared.stop.clone();
        loop {
            tokio::select! {
                Some(handover) = accepted.recv() => {
                    connections.spawn(run_connection(shared.clone(), handover));
                }
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        error!(%error, "the task of a connection ended in a panic");
                    }
                }
                _ = stop.wait_for(|&stop| stop) => break,
            }
        }
        // The connections see the stop themselves, after their current requests.
        let _ = tokio::time::timeout(DRAIN_MAX, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
    });
}

async fn run_connection(shared: Shared, (stream, mut caller, entry, accepting): Handover) {
    let metrics = &shared.services.metrics;
    metrics.connection_opened();
    let Caller { connection, peer, .. } = caller;
    let span = debug_span!("connection", connection, %peer);
    let opening = open(&shared, &accepting, &mut caller, (stream, entry)).instrument(span.clone());
    let opened = AssertUnwindSafe(opening).catch_unwind().await;
    let caller = Arc::new(caller);
    // The panic itself is logged where it happens, without the connection.
    let closed = match opened {
        Ok(Ok(Opened { stream, validity, _seat, _counted })) => {
            let accepted = Accepted {
                services: Arc::clone(&shared.services),
                caller: Arc::clone(&caller),
                validity,
                stop: shared.stop.clone(),
            };
            let served = connection::serve(accepted, stream).instrument(span);
            AssertUnwindSafe(served).catch_unwind().await
        }
        Ok(Err(closed)) => Ok(closed),
        Err(panic) => Err(panic),
    };
    metrics.connection_closed();
    match closed {
        Ok(closed) => tell_of_end(metrics, &accepting, &caller, closed),
        Err(_) => {
            let what = "a connection ended in a panic: it is closed, and others go on";
            caller.span().in_scope(|| error!("{what}"));
        }
    }
}

/// A connection whose client is known.
struct Opened {
    stream: Transport,
    validity: Option<Validity>,
    _seat: Seat,
    _counted: Option<Counted>,
}

/// Makes the transport of a connection. TLS and SASL say who the client is.
async fn open(
    shared: &Shared,
    accepting: &Accepting,
    caller: &mut Caller,
    connection: (std::net::TcpStream, Entry),
) -> Result<Opened, Closed> {
    let mut opened = secure(shared, accepting, caller, connection).await?;
    if accepting.sasl.is_empty() {
        return Ok(opened);
    }
    let (services, listener) = (&shared.services, Arc::clone(&caller.listener));
    let mut stop = shared.stop.clone();
    let logged_in = tokio::select! {
        logged_in = log_in(services, &shared.logins, caller, &accepting.sasl, &mut opened.stream) => logged_in?,
        _ = stop.wait_for(|&stop| stop) => return Err(Closed::Stopping),
    };
    login::tell(&listener.name, &logged_in);
    services.metrics.sasl().logged_in(&listener.name, &logged_in.mechanism);
    caller.requester.principal = logged_in.principal;
    opened.validity = Some(logged_in.validity);
    Ok(opened)
}

/// Carries out the handshake of TLS, if the listener has it.
async fn secure(
    shared: &Shared,
    accepting: &Accepting,
    caller: &mut Caller,
    (stream, mut entry): (std::net::TcpStream, Entry),
) -> Result<Opened, Closed> {
    let socket = TcpStream::from_std(stream)?;
    socket.set_nodelay(true)?;
    let Some(secured) = &accepting.secured else {
        let _seat = accepting.seats.sit(entry)?;
        let stream = Transport::Plain(socket);
        return Ok(Opened { stream, validity: None, _seat, _counted: None });
    };
    let mut stop = shared.stop.clone();
    let Greeted { stream, principal, protocol, resumed } = tokio::select! {
        greeted = greet(secured, accepting.seats.handshakes(), socket, caller.peer.ip()) => greeted?,
        () = entry.crowded_out() => return Err(Refused::crowded_out().into()),
        _ = stop.wait_for(|&stop| stop) => return Err(Closed::Stopping),
    };
    let _seat = accepting.seats.sit(entry)?;
    let listener = &caller.listener.name;
    debug!(listener, %principal, protocol, resumed, "a client got through its handshake");
    let metrics = &shared.services.metrics;
    metrics.tls().greeted(listener, protocol, resumed);
    let counted =
        Counted { metrics: Arc::clone(metrics), listener: Arc::clone(&caller.listener), protocol };
    caller.requester.principal = principal;
    let stream = Transport::Tls(Box::new(stream));
    Ok(Opened { stream, validity: None, _seat, _counted: Some(counted) })
}

/// Counts a connection with TLS as long as it is open.
struct Counted {
    metrics: Arc<Metrics>,
    listener: Arc<Listener>,
    protocol: &'static str,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.tls().closed(&self.listener.name, self.protocol);
    }
}

/// Counts why a connection ended, and logs what is not the client's to decide.
fn tell_of_end(metrics: &Metrics, accepting: &Accepting, caller: &Caller, closed: Closed) {
    let listener = &caller.listener.name;
    match closed {
        Closed::BadRequest(reason, request) => {
            metrics.bad_request();
            request.in_scope(|| {
                info!(
                    listener,
                    reason, "closed a connection over a request that cannot be answered"
                );
            });
        }
        Closed::Handshake(refused) => {
            let reason = refused.reason;
            metrics.tls().failed(listener, reason);
            let is_told = reason != Refused::CLOSED;
            let due = is_told.then(|| accepting.complaints.are_due(reason)).flatten();
            let is_for_nodes = matches!(accepting.secured, Some(Secured::Nodes(_)));
            caller.span().in_scope(|| match due {
                Some(left_out) if is_for_nodes => {
                    warn!(listener, reason, error = %refused, left_out, "refused a connection to the listener for brokers and the operator: a client belongs elsewhere, and a broker's own log says more");
                }
                Some(left_out) => {
                    info!(listener, reason, error = %refused, left_out, "refused a connection in its handshake");
                }
                None => debug!(reason, error = %refused, "refused a connection before its client"),
            });
        }
        Closed::Login(_) => {
            metrics.sasl().failed(listener);
            if let Some(left_out) = accepting.complaints.are_due("login") {
                caller.span().in_scope(|| info!(error = %closed, left_out, "closed a connection"));
            }
        }
        Closed::Revoked => {
            let principal = &caller.requester.principal;
            caller.span().in_scope(|| info!(%principal, reason = %closed, "closed a connection"));
        }
        Closed::Full => {
            metrics.connection_refused();
            if let Some(left_out) = accepting.complaints.are_due("full") {
                let error = Closed::Full;
                caller.span().in_scope(|| info!(%error, left_out, "closed a connection"));
            }
        }
        Closed::TlsOnPlain => {
            metrics.bad_request();
            if let Some(left_out) = accepting.complaints.are_due("tls") {
                let error = Closed::TlsOnPlain;
                caller.span().in_scope(|| info!(%error, left_out, "closed a connection"));
            }
        }
        // Not only the client's fault: this broker has too little memory for all of them.
        reason @ (Closed::Slow | Closed::Unread | Closed::NoRoom) => {
            caller.span().in_scope(|| info!(%reason, "closed a connection"));
        }
        reason => caller.span().in_scope(|| debug!(%reason, "connection closed")),
    }
}
