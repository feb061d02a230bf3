//! The operator on Kubernetes: it holds the lease or waits for it, and while it leads it is the controller of every `KafkaCluster` in its namespaces.
//!
//! `lease` says who leads; `clusters` watches what there is and gives each cluster a `keeper`, one task that hosts the cluster's controller, builds its objects and writes its
//! status; `topics` brings the users' `Topic`s to the controllers; `groups` looks after `ConsumerGroup`s. Decisions about partitions are made by [`crate::controller`] alone.

pub mod args;
mod clusters;
mod groups;
mod http;
mod keeper;
mod lease;
mod objects;
mod sites;
mod topics;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tracing::{error, info};
use weir_crds::PartitionSummary;

use self::args::{Args, LogFormat, Scope};
use self::lease::Election;
use self::sites::Sites;
use crate::rpc::{ControllerRpc, Controllers};
use crate::store::kube::LeaseCheck;

/// How long a connection to the API server may take to come up.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// What every part of the operator needs.
#[derive(Clone)]
struct Context {
    client: Client,
    scope: Scope,
    broker_image: String,
    controller_address: String,
    /// Where events come from: this replica.
    reporter: String,
    controllers: Controllers,
    figures: Arc<Figures>,
    /// The ConsumerGroups that the watch knows of.
    groups: Arc<groups::Shelf>,
    /// Whether this term goes on.
    leads: LeaseCheck,
}

/// What `/metrics` shows.
#[derive(Debug, Default)]
struct Figures {
    leader: AtomicU64,
    clusters: AtomicU64,
    reconciles: AtomicU64,
    reconcile_errors: AtomicU64,
    writes: AtomicU64,
    /// By namespace and name of the cluster.
    partitions: Mutex<BTreeMap<(String, String), PartitionSummary>>,
}

impl Figures {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn partitions(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), PartitionSummary>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the operator until it is told to stop (SIGTERM, SIGINT); says on standard error why it cannot go on.
pub fn run(args: Args) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("start the scheduler").and_then(|runtime| runtime.block_on(serve(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the operator stops");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut config = Config::infer().await.context("find the Kubernetes API")?;
    config.connect_timeout = Some(CONNECT_MAX);
    let client = Client::try_from(config).context("make a client of the Kubernetes API")?;
    let figures = Arc::new(Figures::default());
    let pages = TcpListener::bind(args.http_listen)
        .await
        .with_context(|| format!("listen on {}", args.http_listen))?;
    let _pages = tokio::spawn(http::serve(pages, Arc::clone(&figures)));
    let sites = Arc::new(Sites::default());
    let controllers = Controllers::with_dresser(sites::dresser(client.clone(), Arc::clone(&sites)));
    let listener = TcpListener::bind(args.grpc_listen)
        .await
        .with_context(|| format!("listen on {}", args.grpc_listen))?;
    info!(grpc = %args.grpc_listen, http = %args.http_listen, scope = ?args.scope(), "the operator serves");
    // Who does not lead has no controllers, and says so to brokers at once: they try the next address.
    let mut server = tokio::spawn(
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .add_service(ControllerRpc::service(controllers.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let mut election = Election::start(client.clone(), &args.namespace, &args.lease_name, &args.name);
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(told_to_stop);
    loop {
        let term = *election.leads.borrow_and_update();
        figures.leader.store(u64::from(term.is_some()), Ordering::Relaxed);
        let leading = match term {
            Some(term) => {
                let context = Context {
                    client: client.clone(),
                    scope: args.scope(),
                    broker_image: args.broker_image.clone(),
                    controller_address: args.controller_address.clone(),
                    reporter: args.name.clone(),
                    controllers: controllers.clone(),
                    figures: Arc::clone(&figures),
                    groups: Arc::default(),
                    leads: election.check(term),
                };
                clusters::look_after_all(context, Arc::clone(&sites)).boxed()
            }
            None => std::future::pending().boxed(),
        };
        tokio::select! {
            never = leading => match never {},
            _ = election.leads.changed() => {}
            served = &mut server => {
                served.context("the server of the controller RPC")?.context("serve the controller RPC")?;
                anyhow::bail!("the server of the controller RPC ended");
            }
            () = &mut told_to_stop => break,
        }
        // What was hosted has ended with `leading`: its tasks belong to it.
        controllers.clear();
    }
    controllers.clear();
    election.stop().await;
    info!("stopped");
    Ok(())
}
