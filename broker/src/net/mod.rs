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

mod answers;
mod buffers;
mod closed;
mod complaints;
mod connection;
mod input;
mod output;
mod tls;
mod transport;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, debug, debug_span, error, info, warn};
use weir_protocol::address;
use weir_telemetry::listen::listen;
use weir_tls::Identities;

use self::closed::Closed;
use self::complaints::Complaints;
use self::connection::Accepted;
use self::tls::{Certificates, Greeted, Places, Refused, Secured, greet, keep_current};
use self::transport::Transport;
use crate::api::{Caller, Listener, Services};
use crate::auth::KafkaPrincipal;
use crate::config::{ListenerConfig, ListenerSecurity};
use crate::metrics::Metrics;

/// The most accepted connections that wait for their thread.
const HANDOVER_MAX: usize = 1024;

/// The most extra threads of each connection thread. They wait for the disk when data to send is
/// not in the page cache.
const COLD_READS_MAX: usize = 16;

/// The part of the most connections that nodes of the cluster may have besides, and how many at
/// least: a broker keeps one for each partition leader, and some for transactions.
const NODES_SHARE: usize = 8;
const NODES_MIN: usize = 64;

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
    /// How many connections there were.
    accepted: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
}

/// A listener that accepts connections.
#[derive(Debug)]
struct Accepting {
    listener: Arc<Listener>,
    secured: Option<Secured>,
    limits: Limits,
    complaints: Complaints,
}

/// What connections share: those of clients on all listeners, and apart from them those of nodes,
/// so that no client keeps a follower from its leader.
#[derive(Clone, Debug)]
struct Limits {
    connections: Arc<AtomicUsize>,
    connections_max: usize,
    /// For the handshakes.
    places: Arc<Places>,
}

impl Limits {
    fn of(connections_max: usize) -> Self {
        Self { connections: Arc::default(), connections_max, places: Arc::new(Places::new()) }
    }
}

type Handover = (std::net::TcpStream, Caller, Arc<Accepting>);

impl Server {
    /// Starts to accept connections on `listeners`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(services: &Arc<Services>, listeners: Vec<Bound>) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let shared =
            Shared { services: Arc::clone(services), accepted: Arc::default(), stop: stopped };
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
        let of_clients = Limits::of(connections_max);
        let of_nodes = Limits::of((connections_max / NODES_SHARE).max(NODES_MIN));
        for bound in listeners {
            let name = bound.config.name.clone();
            info!(listener = name, address = %bound.address, "listening");
            if let Some(secured) = &bound.secured {
                metrics.tls().serves(&name, secured.not_after(), &Refused::REASONS);
            }
            let limits = match &bound.secured {
                Some(Secured::Nodes(_)) => of_nodes.clone(),
                _ => of_clients.clone(),
            };
            let socket = TcpListener::from_std(bound.socket).context("watch a listener")?;
            let accepting = Accepting {
                listener: Arc::new(Listener { name }),
                secured: bound.secured,
                limits,
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
        let Limits { connections, connections_max, .. } = &accepting.limits;
        if connections.fetch_add(1, Ordering::Relaxed) >= *connections_max {
            connections.fetch_sub(1, Ordering::Relaxed);
            shared.services.metrics.connection_refused();
            continue;
        }
        let caller = Caller {
            connection: shared.accepted.fetch_add(1, Ordering::Relaxed) + 1,
            listener: Arc::clone(listener),
            principal: KafkaPrincipal::anonymous().into(),
            // An IPv4 client of a dual-stack socket has its IPv4 address, as in Java.
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            next_is_here: Default::default(),
            has_asked_for_topics: Default::default(),
        };
        let handed = match stream.into_std() {
            Ok(stream) => inbox.send((stream, caller, Arc::clone(&accepting))).await.is_ok(),
            Err(_) => false,
        };
        if !handed {
            connections.fetch_sub(1, Ordering::Relaxed);
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

async fn run_connection(shared: Shared, (stream, mut caller, accepting): Handover) {
    let metrics = &shared.services.metrics;
    metrics.connection_opened();
    let Caller { connection, peer, .. } = caller;
    let span = debug_span!("connection", connection, %peer);
    let opening = open(&shared, &accepting, &mut caller, stream).instrument(span.clone());
    let opened = AssertUnwindSafe(opening).catch_unwind().await;
    let caller = Arc::new(caller);
    // The panic itself is logged where it happens, without the connection.
    let closed = match opened {
        Ok(Ok((stream, _counted))) => {
            let accepted = Accepted {
                services: Arc::clone(&shared.services),
                caller: Arc::clone(&caller),
                stop: shared.stop.clone(),
            };
            let served = connection::serve(accepted, stream).instrument(span);
            AssertUnwindSafe(served).catch_unwind().await
        }
        Ok(Err(closed)) => Ok(closed),
        Err(panic) => Err(panic),
    };
    accepting.limits.connections.fetch_sub(1, Ordering::Relaxed);
    metrics.connection_closed();
    match closed {
        Ok(closed) => tell_of_end(metrics, &accepting, &caller, closed),
        Err(_) => {
            let what = "a connection ended in a panic: it is closed, and others go on";
            caller.span().in_scope(|| error!("{what}"));
        }
    }
}

/// Makes the transport of a connection. Over TLS it says who the client is.
async fn open(
    shared: &Shared,
    accepting: &Accepting,
    caller: &mut Caller,
    stream: std::net::TcpStream,
) -> Result<(Transport, Option<Counted>), Closed> {
    let socket = TcpStream::from_std(stream)?;
    socket.set_nodelay(true)?;
    let Some(secured) = &accepting.secured else {
        return Ok((Transport::Plain(socket), None));
    };
    let mut stop = shared.stop.clone();
    let Greeted { stream, principal, protocol, resumed } = tokio::select! {
        greeted = greet(secured, &accepting.limits.places, socket, caller.peer.ip()) => greeted?,
        _ = stop.wait_for(|&stop| stop) => return Err(Closed::Stopping),
    };
    let listener = &caller.listener.name;
    debug!(listener, %principal, protocol, resumed, "a client got through its handshake");
    let metrics = &shared.services.metrics;
    metrics.tls().greeted(listener, protocol, resumed);
    let counted =
        Counted { metrics: Arc::clone(metrics), listener: Arc::clone(&caller.listener), protocol };
    caller.principal = principal;
    Ok((Transport::Tls(Box::new(stream)), Some(counted)))
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
            caller.span().in_scope(|| match due {
                Some(left_out) => {
                    info!(reason, error = %refused, left_out, "refused a connection in its handshake");
                }
                None => debug!(reason, error = %refused, "refused a connection before its client"),
            });
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
