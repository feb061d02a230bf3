//! The controller process of a local cluster: the controller core with a store of files, the
//! brokers' RPC, and the service for the command line.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use weir_crds::KafkaCluster;
use weir_protocol::types::TopicId;
use weir_security::principal::Principal;
use weir_telemetry::logs::{self, LogFormat};
use weir_tls::{Identities, Look};

use super::groups::LocalGroups;
use super::server::LocalServer;
use super::{nodes, recovery};
use crate::admission;
use crate::groups::{runner, schedule::Pace};
use crate::kafka::Client;
use crate::rpc::{Connections, ControllerRpc, Controllers, Desk, Strangers, limited_server};
use crate::shell::Controller;
use crate::store::file::FileStore;

/// How often the files of the identity are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The name of a cluster without an applied resource.
const DEFAULT_NAME: &str = "local";

/// The command line of the controller's process; `weir local` builds it.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// The directory of the store.
    #[arg(long)]
    data: PathBuf,
    /// The brokers of a cluster that is made now.
    #[arg(long)]
    brokers: i32,
    /// The directory of the controller's identity.
    #[arg(long)]
    identity: PathBuf,
    /// The KafkaCluster, as JSON, of a cluster that is made now.
    #[arg(long)]
    cluster: Option<String>,
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When the store cannot be used, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    logs::init(LogFormat::Text)?;
    std::fs::create_dir_all(&args.data)
        .with_context(|| format!("create {}", args.data.display()))?;
    let mut store = FileStore::open(&args.data)?;
    let port_file = args.data.join("port");
    let desk = Desk::default();
    let identities = Arc::new(Identities::load(&args.identity, &Principal::Controller)?);
    if let Err(doubt) = identities.check() {
        let error = format!("{doubt:#}");
        warn!(error, "the controller's identity is of no use until its files change");
    }
    if store.is_empty() {
        let resource = first_resource(&args)?;
        if resource.spec.recover_from.is_some() && recovery::has_volumes(&args.data) {
            let listener = bind(&port_file).await?;
            recovery::recover(&mut store, resource, listener, &identities, &desk).await?;
        } else {
            // Kafka's cluster ids have the form of its topic ids.
            store.create(TopicId::random().to_string(), resource)?;
        }
    }
    let (controller, mut shell) = Controller::start(store).await?;
    let listener = bind(&port_file).await?;
    info!(port = listener.local_addr()?.port(), "the controller serves");
    let controllers = Controllers::one(controller.clone(), nodes::DOMAIN);
    // Some brokers may not know yet that a state exists again.
    let domain = nodes::domain(&controller.committed().borrow().cluster.resource);
    controllers.put_desk(recovery::name(), desk, domain);
    controllers.put_identities(nodes::DOMAIN.to_owned(), Arc::clone(&identities));
    let groups = Arc::new(LocalGroups::open(&args.data, controller.committed())?);
    let asking = Client::new(controller.committed(), Some(Arc::clone(&identities)));
    let keeping = runner::keep(Arc::clone(&groups), asking, Pace::LOCAL);
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = limited_server()
        .add_service(ControllerRpc::service(controllers.clone()))
        .add_service(LocalServer::service(controller, groups))
        .serve_with_incoming(Connections::new(listener, controllers, Strangers::All));
    // Streams of brokers never end by themselves; they end with this process.
    tokio::select! {
        served = server => served.context("serve"),
        never = keeping => match never {},
        never = keep_current(&identities) => match never {},
        ended = &mut shell => ended.context("the controller")?.context("the store"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Looks at the files of the identity, which the command line renews.
async fn keep_current(identities: &Identities) -> Infallible {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match identities.look() {
            Look::Same => {}
            Look::Changed => info!("takes over a changed identity"),
            Look::Bad(error) => warn!(
                error = format!("{error:#}"),
                "cannot use the changed identity; the last good one stays in use"
            ),
        }
    }
}

/// Binds the earlier port, so that brokers find a restarted controller. The first time it takes a
/// free one and stores it.
async fn bind(port_file: &Path) -> anyhow::Result<TcpListener> {
    let port: u16 = match std::fs::read_to_string(port_file) {
        Ok(text) => {
            text.trim().parse().with_context(|| format!("{} holds no port", port_file.display()))?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(|| format!("read {}", port_file.display())),
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("listen on 127.0.0.1:{port}"))?;
    let port = listener.local_addr()?.port();
    std::fs::write(port_file, format!("{port}\n"))
        .with_context(|| format!("write {}", port_file.display()))?;
    Ok(listener)
}

fn first_resource(args: &Args) -> anyhow::Result<KafkaCluster> {
    let object = match &args.cluster {
        Some(text) => serde_json::from_str(text).context("read the KafkaCluster")?,
        None => serde_json::json!({
            "apiVersion": weir_crds::API_VERSION,
            "kind": "KafkaCluster",
            "metadata": {"name": DEFAULT_NAME},
            "spec": {"brokers": {"replicas": args.brokers}, "config": fitting(args.brokers)},
        }),
    };
    let (kind, name) =
        admission::identify(&object).map_err(|violation| anyhow::anyhow!("{violation}"))?;
    match admission::admit(kind, &object, None) {
        Ok(admitted) => parse_cluster(admitted),
        Err(violations) => bail!("{}", super::server::refusal(kind, &name, &violations)),
    }
}

/// The default settings of topics: as many replicas as the cluster's size allows, at most three.
/// With three brokers, acknowledged records survive the loss of one.
fn fitting(brokers: i32) -> Value {
    match brokers {
        ..=1 => serde_json::json!({}),
        2 => serde_json::json!({"default.replication.factor": 2}),
        3.. => serde_json::json!({"default.replication.factor": 3, "min.insync.replicas": 2}),
    }
}

fn parse_cluster(admitted: Value) -> anyhow::Result<KafkaCluster> {
    let mut cluster: KafkaCluster =
        serde_json::from_value(admitted).context("read the KafkaCluster")?;
    cluster
        .metadata
        .namespace
        .get_or_insert_with(|| crate::controller::DEFAULT_NAMESPACE.to_owned());
    cluster.metadata.generation = Some(1);
    cluster.metadata.uid = Some(TopicId::random().0.to_string());
    Ok(cluster)
}
