//! The operator on Kubernetes: it holds the Lease or waits for it. While it leads, it is the
//! controller of every `KafkaCluster` in its namespaces.
//!
//! `lease` elects the leader. `clusters` watches the resources and gives each cluster a `keeper`:
//! one task that hosts the cluster's controller (`host`), builds its objects and writes its status.
//! `topics` brings the users' `Topic`s to the controllers, and `groups` reconciles
//! `ConsumerGroup`s. Only [`crate::controller`] decides about partitions.
//!
//! A keeper is a task that lives as long as its cluster's resource, not a function that kube's
//! `Controller` calls: docs/adr/0055-watchers-instead-of-kubes-controller.md says why. `watch`
//! turns watch events into changes.
//!
//! Invariants
//! - The Lease avoids two leaders; the epoch in every table makes a second one harmless.
//! - The pod template is a function of the spec, with the user's patch, which applies as a whole or
//!   not at all (`objects::patch`).
//! - The ConfigMap holds the controller's address and the cluster's id. A running broker reads the
//!   address again before each attempt to reach the controller.
//! - The image stays the one at the cluster's creation, until a user sets another.
//! - There are no finalizers. The operator never reads a status back, except for the resets of a
//!   `ConsumerGroup`.
//! - A name proves nothing. An object belongs to the cluster if its `ownerReferences` have the
//!   cluster's uid as the controller, from its creation on (`store::kube::ours`). The operator
//!   writes and deletes no other object.
//! - Each write names the uid and the version that the operator read. It creates a missing object
//!   instead of applying it, so an object that somebody else created first stays theirs.

mod annotations;
pub mod args;
mod clusters;
mod context;
mod events;
mod groups;
mod host;
mod hosted_clusters;
mod keeper;
mod lease;
mod metrics;
mod namespaces;
mod objects;
mod offered;
mod sizes;
mod topics;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use weir_telemetry::listen::listen;
use weir_telemetry::logs;
use weir_telemetry::pages::{self, Probes};

use self::args::Args;
use self::context::Context;
use self::hosted_clusters::HostedClusters;
use self::lease::Election;
use self::metrics::Metrics;
use crate::rpc::{Connections, ControllerRpc, Controllers, Strangers, limited_server};

/// The most time to connect to the API server.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The operator's user agent at the API server. For a write without a field manager, the API server
/// takes the part before the slash; without a user agent, `unknown`.
const USER_AGENT: &str = concat!("weir-operator/", env!("CARGO_PKG_VERSION"));

fn client_of(mut config: Config) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECT_MAX);
    config.headers.push(("user-agent".parse()?, USER_AGENT.parse()?));
    Ok(Client::try_from(config)?)
}

/// Runs the operator until SIGTERM or SIGINT; prints an error that ends it on standard error.
pub fn run(args: Args) -> ExitCode {
    let result = logs::init(args.log_format).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the scheduler")?;
        runtime.block_on(serve(args))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the operator stops");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let config = Config::infer().await.context("find the Kubernetes API")?;
    let client = client_of(config).context("make a client of the Kubernetes API")?;
    let figures = Arc::new(Metrics::default());
    let door = listen(args.http_listen)
        .and_then(TcpListener::from_std)
        .with_context(|| format!("listen on {}", args.http_listen))?;
    let shown = Arc::clone(&figures);
    let probes = Probes {
        metrics: Box::new(move || shown.text()),
        // A standby replica is ready too: it answers brokers, if only that it does not lead.
        not_ready: Box::new(Vec::new),
        stuck: Box::new(Vec::new),
        from_disk: None,
    };
    let _pages = tokio::spawn(pages::serve(door, probes));
    let sites = Arc::new(HostedClusters::default());
    let controllers =
        Controllers::with_dresser(hosted_clusters::enricher(client.clone(), Arc::clone(&sites)));
    let listener = listen(args.grpc_listen)
        .and_then(TcpListener::from_std)
        .with_context(|| format!("listen on {}", args.grpc_listen))?;
    info!(grpc = %args.grpc_listen, http = %args.http_listen, scope = ?args.scope(), "the operator serves");
    // A replica that does not lead has no controllers, and says so to brokers at once: they try the
    // next address.
    let mut server = tokio::spawn(
        limited_server()
            .add_service(ControllerRpc::service(controllers.clone()))
            .serve_with_incoming(Connections::new(
                listener,
                controllers.clone(),
                Strangers::Brokers,
            )),
    );
    let mut election = Election::start(
        client.clone(),
        &args.namespace,
        &args.lease_name,
        &args.name,
        args.deployment.as_deref(),
    );
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
                    monitoring: args.monitoring(),
                    reporter: args.name.clone(),
                    controllers: controllers.clone(),
                    figures: Arc::clone(&figures),
                    groups: Arc::default(),
                    namespaces: Arc::default(),
                    leads: election.check(term),
                };
                clusters::run(context, Arc::clone(&sites)).boxed()
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
        // The hosted controllers have ended with `leading`, which owns their tasks.
        controllers.clear();
    }
    controllers.clear();
    election.stop().await;
    info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::store::kube::FIELD_MANAGER;

    #[tokio::test]
    async fn who_wrote_a_field_has_a_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut head, mut bytes) = (String::new(), [0; 4096]);
            while !head.contains("\r\n\r\n") {
                let count = stream.read(&mut bytes).await.unwrap();
                assert!(count > 0, "{head}");
                head += std::str::from_utf8(&bytes[..count]).unwrap();
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
            head
        });
        let client = client_of(Config::new(url)).unwrap();
        client.apiserver_version().await.unwrap();
        let head = asked.await.unwrap();
        // As the API server computes it (`prefixFromUserAgent` in its handlers).
        let agent = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("user-agent: ").map(str::to_owned)
        });
        assert_eq!(agent.unwrap_or_default().split('/').next(), Some(FIELD_MANAGER), "{head}");
    }
}
