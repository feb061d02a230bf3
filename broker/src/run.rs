//! The life of a broker: what starts and stops, in order.
//!
//! 1. The health pages answer first (`health`).
//! 2. The log directory is locked and checked for its owner, and its catalogue is read. After a
//!    crash, several threads recover all logs, each from its recovery point. The pages show the
//!    progress in logs and bytes, and a recovery without progress is unhealthy.
//! 3. The broker registers and applies the first image. If no controller accepts the registration
//!    within a second, this is the last image of the previous run (`controller_client::kept`).
//! 4. Only then does it accept connections. Until then clients wait in the listeners' backlog.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};
use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_telemetry::listen::listen;
use weir_telemetry::logs;
use weir_telemetry::pages;
use weir_tls::Identities;

use crate::api::{CachedSettings, FetchSessions, FollowerSessions, LargeRequests, Services};
use crate::auth::{Authorizer, Brokers, Principal};
use crate::budget::{AnswerMemory, RequestMemory};
use crate::config::{Args, Config, StraysArgs};
use crate::controller_client::{self, Controller, Identity, Session, Tables};
use crate::coordinator::{Coordinator, Memory};
use crate::files::{self, FileBounds};
use crate::group::GroupMemory;
use crate::health::{self, Health};
use crate::memory::{self, MemoryBounds};
use crate::metadata::Metadata;
use crate::metrics::Metrics;
use crate::net::{self, Bound, Server};
use crate::peer_addresses::PeerAddresses;
use crate::replica::{FetcherContext, Fetchers, Maintenance, MaintenanceSettings, Replicas};
use crate::transaction_io::TransactionIo;
use weir_log::{self as log, Disk, LogDir, LogDirObserver, LogDirOptions};

/// How long a controlled shutdown may take before the broker stops without one.
const CONTROLLED_SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// Keeps the heap out of huge pages; must be the first action of the process. The allocator's arena
/// is mostly empty, and would take some 12 MB at idle instead of 2. A failure only makes it larger.
pub fn keep_the_heap_small() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Runs a broker until a signal stops it (SIGTERM, SIGINT) or it cannot continue. Logs the reason
/// of a failure.
pub fn run(args: Args) -> ExitCode {
    let log_format = args.log_format;
    let result = logs::init(log_format).and_then(|()| {
        let limit = memory::process_bytes_max();
        let files = files::raise();
        let config = Config::new(args, MemoryBounds::of(limit), FileBounds::of(files))?;
        info!(
            memory_mib = limit.map(|bytes| bytes >> 20),
            request_memory_mib = config.request_memory_bytes_max >> 20,
            answer_memory_mib = config.answer_memory_bytes_max >> 20,
            connections_max = config.connections_max,
            segments_open_max = config.segments_open_max,
            "what the process may take"
        );
        // Connections have their own threads. This one serves the controller's stream, metrics and
        // administration.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start the scheduler")?;
        runtime.block_on(serve(config))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the broker stops");
            ExitCode::FAILURE
        }
    }
}

/// Lists the logs that were set aside, or removes them. Prints errors to standard error.
pub fn strays(args: &StraysArgs) -> ExitCode {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that its reader has seen enough.
    let mut tell = |stray: &log::Stray| drop(writeln!(out, "{stray}"));
    let result = if args.remove {
        log::remove_strays(&args.data, tell)
    } else {
        log::strays(&args.data).map(|strays| strays.iter().for_each(&mut tell))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "weir-broker: {}: {error}", args.data.display()));
            ExitCode::FAILURE
        }
    }
}

async fn serve(mut config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let own = Principal::Broker(config.id.0);
    let identities = match &config.identity {
        Some(folder) => {
            let loaded = Identities::load(folder, &own)?;
            if let Err(doubt) = loaded.check() {
                let error = format!("{doubt:#}");
                warn!(error, "the identity of this broker is of no use until its files change");
            }
            Some(Arc::new(loaded))
        }
        None => None,
    };
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        listeners.push(net::bind(listener, identities.as_ref()).await?);
    }
    let door = listen(config.http)
        .and_then(TcpListener::from_std)
        .with_context(|| format!("listen on {} for metrics", config.http))?;
    info!(address = %door.local_addr()?, "metrics and health");
    let health = Health::new(&config.data);
    let _pages = tokio::spawn(pages::serve(door, health::probes(&health)));
    let (log_dir, was_heard) = if controller_client::is_recovering(&config.cluster_id) {
        let told_to_stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let Some((log_dir, tables)) =
            recover(&config, identities.as_ref(), &health, told_to_stop).await?
        else {
            return Ok(());
        };
        config.cluster_id = tables.cluster_id;
        (log_dir, tables.was_heard)
    } else {
        (open_log_dir(&config, config.cluster_id.clone(), &health).await?, false)
    };
    let identity = identity(&config, &listeners, &log_dir, was_heard);
    let broker = Arc::new(services(config, identities.as_ref(), log_dir)?);
    broker.replicas.shared().traffic.bound(broker.config.metrics_topics_max);
    broker.replicas.log_dir().observe(Observer(Arc::downgrade(&broker)));
    health.opened(&broker);
    let mut session = tokio::spawn(session(&broker, identity).run());
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(told_to_stop);
    // Without metadata no request can be answered. Clients wait in the listeners' backlog.
    tokio::select! {
        () = broker.metadata.wait_for(1) => {}
        ended = &mut session => return Err(why(ended)),
        () = &mut told_to_stop => return stop(&broker, None).await,
    }
    let serving = Serving {
        server: Server::start(&broker, listeners)?,
        fetchers: Fetchers::start(fetcher_context(&broker, identities.as_ref()))
            .context("start the fetchers' thread")?,
        maintenance: start_maintenance(&broker).context("start the maintenance thread")?,
    };
    let mut isrs = tokio::spawn(keep_isrs(Arc::clone(&broker)));
    let mut coordinators =
        coordinate(Arc::clone(&broker)).context("start the coordinators' thread")?;
    tokio::select! {
        ended = &mut session => Err(why(ended)),
        ended = &mut isrs => Err(ended.err().map_or_else(|| anyhow::anyhow!("the ISRs are not looked after any more"), Into::into)),
        _ = &mut coordinators => Err(anyhow::anyhow!("the coordinators are not looked after any more")),
        () = &mut told_to_stop => stop(&broker, Some(serving)).await,
    }
}

/// Builds the parts of the broker from the bottom up.
fn services(
    config: Config,
    identities: Option<&Arc<Identities>>,
    log_dir: LogDir,
) -> anyhow::Result<Services> {
    let id = config.id;
    let controller = Controller::new(
        &config.controller,
        config.controller_file.as_deref(),
        &config.cluster_id,
        id.0,
        identities.map(Arc::clone),
    )?;
    let (metadata, replicas, controller, metrics) = (
        Arc::new(Metadata::new()),
        Arc::new(Replicas::new(id, log_dir)),
        Arc::new(controller),
        Arc::new(Metrics::new()),
    );
    let kept = &config.memory;
    let of_groups = GroupMemory::new(kept.group_members, kept.committed_offsets);
    let of_ids = Memory::with_transactions("transactional ids", kept.transactional_ids);
    let (same, logs) = (&metadata, &replicas);
    let groups = Arc::new(Coordinator::new(id, Arc::clone(same), Arc::clone(logs), of_groups));
    let transactions = Arc::new(Coordinator::new(id, Arc::clone(same), Arc::clone(logs), of_ids));
    let peers = peer_addresses(&config, &metadata, identities);
    let brokers = match identities {
        Some(_) => Brokers::Certified(Arc::clone(&metadata)),
        None => Brokers::Anybody,
    };
    let coordinators = (&groups, &transactions);
    let transaction_io =
        TransactionIo::new((id, peers), &metadata, &replicas, &controller, coordinators, &metrics);
    Ok(Services {
        transaction_io: Arc::new(transaction_io),
        metadata,
        controller,
        replicas,
        groups,
        transactions,
        authorizer: Authorizer::unconfigured(brokers),
        fetch_sessions: FetchSessions::new(config.memory.fetch_sessions),
        follower_sessions: FollowerSessions::default(),
        settings: CachedSettings::default(),
        large_requests: LargeRequests::start().context("start the thread for large requests")?,
        request_memory: RequestMemory::new(config.request_memory_bytes_max),
        answer_memory: AnswerMemory::new(config.answer_memory_bytes_max),
        metrics,
        config,
    })
}

/// Where the other brokers are. Without identities brokers meet on the first listener.
fn peer_addresses(
    config: &Config,
    metadata: &Arc<Metadata>,
    identities: Option<&Arc<Identities>>,
) -> PeerAddresses {
    let first = config.listeners.first().map_or("", |first| &first.name);
    PeerAddresses::new(metadata, first, identities)
}

fn session(services: &Services, identity: Identity) -> Session {
    let Services { controller, metadata, replicas, .. } = services;
    Session::new(Arc::clone(controller), Arc::clone(metadata), Arc::clone(replicas), identity)
}

fn fetcher_context(services: &Services, identities: Option<&Arc<Identities>>) -> FetcherContext {
    let standing = services.controller.standing();
    FetcherContext {
        id: services.config.id,
        peers: peer_addresses(&services.config, &services.metadata, identities),
        metadata: Arc::clone(&services.metadata),
        replicas: Arc::clone(&services.replicas),
        broker_epoch: Box::new(move || standing.borrow().broker_epoch.unwrap_or(-1)),
    }
}

fn start_maintenance(services: &Arc<Services>) -> std::io::Result<Maintenance> {
    let services = Arc::clone(services);
    Maintenance::start(Arc::clone(&services.replicas), move || {
        let settings = services.settings();
        MaintenanceSettings {
            retention_check_interval: settings.retention_check_interval,
            cleaner_backoff: settings.cleaner_backoff,
            cleaner_dedupe_bytes: settings.cleaner_dedupe_bytes,
        }
    })
}

/// The parts that run while the broker serves.
struct Serving {
    server: Server,
    fetchers: Fetchers,
    maintenance: Maintenance,
}

/// Runs the group and transaction coordinators, and the writes of transaction markers, on a thread
/// of their own. Their decisions may take long, and the controller's stream, and with it this
/// broker's leaderships, must not wait for them. The returned receiver completes if that thread
/// ends.
fn coordinate(
    services: Arc<Services>,
) -> std::io::Result<oneshot::Receiver<std::convert::Infallible>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (alive, ended) = oneshot::channel();
    std::thread::Builder::new().name("coordinators".into()).spawn(move || {
        let _alive = alive;
        runtime.block_on(keep_coordinating(services));
    })?;
    Ok(ended)
}

async fn keep_coordinating(services: Arc<Services>) {
    tokio::join!(
        Arc::clone(&services.groups).run(),
        Arc::clone(&services.transactions).run(),
        Arc::clone(&services.transaction_io).run(),
    );
}

/// Finds followers that lag or have caught up, and proposes the resulting ISRs to the controller.
async fn keep_isrs(services: Arc<Services>) {
    let Services { controller, metadata, replicas, .. } = &*services;
    let proposing = controller_client::keep_proposing(controller, metadata, replicas);
    tokio::join!(replicas.keep_checking(), proposing);
}

fn why(
    ended: Result<
        Result<std::convert::Infallible, crate::controller_client::Fatal>,
        tokio::task::JoinError,
    >,
) -> anyhow::Error {
    match ended {
        Ok(Ok(never)) => match never {},
        Ok(Err(fatal)) => fatal.into(),
        Err(panicked) => panicked.into(),
    }
}

/// Stops in order: leadership first, then requests, then the log.
async fn stop(services: &Arc<Services>, serving: Option<Serving>) -> anyhow::Result<()> {
    info!("stopping");
    let mut standing = services.controller.standing();
    if standing.borrow().connected {
        services.controller.request_shutdown();
        // Without a controller, nothing can grant the shutdown or move the leaders.
        let granted = standing.wait_for(|standing| standing.may_shut_down || !standing.connected);
        if tokio::time::timeout(CONTROLLED_SHUTDOWN_MAX, granted).await.is_err() {
            warn!(
                "the controller did not grant a controlled shutdown in time; stopping without one"
            );
        }
    }
    // Waiting group members are told to look for another coordinator, so that no request stays open
    // for minutes.
    services.groups.end();
    services.transactions.end();
    if let Some(serving) = serving {
        serving.server.stop().await;
        serving.fetchers.stop().await;
        serving.maintenance.stop().await;
    }
    services.replicas.close().await.context("leave the log directory in order")?;
    info!("stopped");
    Ok(())
}

/// Takes part in the recovery of a cluster that has lost its tables. Reports the content of the
/// volume, and joins the cluster once it has tables again. Returns `None` if a signal stops it
/// before.
async fn recover(
    config: &Config,
    identities: Option<&Arc<Identities>>,
    health: &Arc<Health>,
    told_to_stop: impl Future<Output = ()>,
) -> anyhow::Result<Option<(LogDir, Tables)>> {
    let root = config.data.clone();
    let owner = tokio::task::spawn_blocking(move || log::owner_of(&Disk, &root)).await?;
    let found = match owner.context("look whose the log directory is")? {
        Some(owner) => Some(open_log_dir(config, owner.cluster_id, health).await?),
        None => None,
    };
    health.awaits_tables(true);
    let tables = tokio::select! {
        tables = controller_client::await_tables(config, identities, found.as_ref()) => tables?,
        () = told_to_stop => {
            info!("stopping");
            if let Some(log_dir) = found {
                log_dir.close(&mut []).context("leave the log directory in order")?;
            }
            return Ok(None);
        }
    };
    health.awaits_tables(false);
    let log_dir = match found.filter(|found| found.identity().cluster_id == tables.cluster_id) {
        Some(found) => found,
        None => open_log_dir(config, tables.cluster_id.clone(), health).await?,
    };
    log_dir.there_are_tables(tables.was_heard).context("note that the cluster has tables")?;
    Ok(Some((log_dir, tables)))
}

async fn open_log_dir(
    config: &Config,
    cluster_id: String,
    health: &Arc<Health>,
) -> anyhow::Result<LogDir> {
    let (root, threads) = (config.data.clone(), config.threads);
    let identity = log::Identity { cluster_id, broker_id: config.id.0 };
    let options =
        LogDirOptions { open_files_max: config.segments_open_max, recovery_threads: threads };
    let shown = Arc::clone(health);
    let open =
        move || LogDir::open_shown(Arc::new(Disk), &root, &identity, options, shown.recovery());
    let opened = tokio::select! {
        biased;
        opened = tokio::task::spawn_blocking(open) => opened?,
        never = health.keep_saying() => match never {},
    };
    opened.context("open the log directory")
}

/// With `was_heard`, the cluster's tables were built from this log directory, so it counts as
/// complete.
fn identity(config: &Config, listeners: &[Bound], log_dir: &LogDir, was_heard: bool) -> Identity {
    let endpoint = |bound: &Bound| {
        let (host, port) = &bound.config.advertised;
        rpc::Endpoint {
            listener: bound.config.name.clone(),
            host: host.clone(),
            port: u32::from(if *port == 0 { bound.address.port() } else { *port }),
            security_protocol: bound.config.security_protocol().to_owned(),
        }
    };
    let left = log_dir.left();
    Identity {
        cluster_id: config.cluster_id.clone(),
        broker_id: config.id.0,
        incarnation: Uuid::new_v4(),
        log_dir_id: log_dir.id(),
        endpoints: listeners.iter().map(endpoint).collect(),
        rack: config.rack.clone().unwrap_or_default(),
        previous_broker_epoch: left.broker_epoch,
        clean: left.whole || was_heard,
    }
}

/// The observer of the log directory.
struct Observer(std::sync::Weak<Services>);

impl LogDirObserver for Observer {
    fn flushed(&self, _logs: usize, took: Duration) {
        if let Some(broker) = self.0.upgrade() {
            broker.metrics.flushed(took);
        }
    }

    fn offline(&self, reason: &str) {
        if let Some(broker) = self.0.upgrade() {
            broker.metrics.flush_failed();
            broker.controller.report_log_dir_failure(reason.to_owned());
        }
    }
}
