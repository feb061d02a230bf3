//! A local cluster as a whole: its processes, in the order in which they depend on each other, and the controller that it is asked through.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Channel;

use super::command::Target;
use super::manifests::Manifest;
use super::process::Process;
use super::rpc::local_client::LocalClient;
use super::rpc::{Applied, ApplyRequest, DeleteRequest, GetRequest, StatusRequest, StatusResponse};

/// Where a cluster listens when nobody says otherwise.
const DEFAULT_PORT: u16 = 9092;

/// How long the controller may take to answer after its start.
const CONTROLLER_START_MAX: Duration = Duration::from_secs(30);

/// How long a process may take to stop in order.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How often a start is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What of a cluster its processes are started with, kept in its data directory.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Shape {
    brokers: i32,
    port: u16,
}

/// A local cluster.
#[derive(Clone, Debug)]
pub(crate) struct LocalCluster {
    data: PathBuf,
    shape: Shape,
}

/// What `weir local status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The controller.
    pub(crate) controller: ControllerStatus,
    /// The brokers, by id.
    pub(crate) brokers: Vec<BrokerStatus>,
    /// The partitions; not known while the controller is down.
    pub(crate) partitions: Option<PartitionsStatus>,
}

/// The controller's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ControllerStatus {
    /// Its pid, if it runs.
    pub(crate) pid: Option<i32>,
}

/// A broker's process, and what the controller says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BrokerStatus {
    /// Its id.
    pub(crate) id: i32,
    /// Its pid, if it runs.
    pub(crate) pid: Option<i32>,
    /// Where it listens on the loopback interface.
    pub(crate) port: u16,
    /// `ready`, `starting`, `fenced`, `stopped`, or `unknown` while the controller is down.
    pub(crate) state: &'static str,
}

/// The partitions of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionsStatus {
    /// All of them.
    pub(crate) total: u32,
    /// Those with fewer replicas in sync than they have.
    pub(crate) under_replicated: u32,
    /// Those without a leader.
    pub(crate) offline: u32,
}

impl LocalCluster {
    /// The cluster in `data`, or a new one there: what the command line says, else what the resources say, else what it was before, else the defaults.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn prepare(data: &Path, brokers: Option<i32>, port: Option<u16>, resources: &[Manifest]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("create {}", data.display()))?;
        // The processes run from anywhere, and are found again from anywhere.
        let data = data.canonicalize().with_context(|| format!("find {}", data.display()))?;
        let before = read_shape(&data)?;
        let declared = resources
            .iter()
            .filter(|manifest| manifest.text("/kind") == "KafkaCluster")
            .find_map(|manifest| manifest.resource.pointer("/spec/brokers/replicas")?.as_i64());
        let declared = declared.and_then(|brokers| i32::try_from(brokers).ok());
        let brokers = brokers.or(declared).or(before.as_ref().map(|shape| shape.brokers)).unwrap_or(1);
        let port = port.or(before.map(|shape| shape.port)).unwrap_or(DEFAULT_PORT);
        if brokers != 1 {
            bail!(
                "{brokers} brokers are asked for, and this version runs one: it does not replicate yet (--brokers 1, and spec.brokers.replicas: 1 in a KafkaCluster)"
            );
        }
        Ok(Self {
            data,
            shape: Shape { brokers, port },
        })
    }

    /// The cluster that is in `data`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(data: &Path) -> anyhow::Result<Self> {
        let found = data
            .canonicalize()
            .ok()
            .map(|data| read_shape(&data).map(|shape| (data, shape)))
            .transpose()?;
        match found {
            Some((data, Some(shape))) => Ok(Self { data, shape }),
            _ => bail!("there is no cluster in {}; `weir local up --data {0}` makes one", data.display()),
        }
    }

    fn controller(&self) -> Process {
        Process::new(&self.data, "controller")
    }

    fn broker(&self, id: i32) -> anyhow::Result<Process> {
        anyhow::ensure!(
            (0..self.shape.brokers).contains(&id),
            "there is no broker {id}: ids are 0 to {}",
            self.shape.brokers - 1
        );
        Ok(Process::new(&self.data, &format!("broker-{id}")))
    }

    fn brokers(&self) -> impl Iterator<Item = i32> {
        0..self.shape.brokers
    }

    fn port(&self, id: i32) -> anyhow::Result<u16> {
        let port = i32::from(self.shape.port) + id;
        u16::try_from(port).with_context(|| format!("broker {id} would listen on port {port}: take a lower --port"))
    }

    /// Starts all that does not run, applies `resources`, and says where the brokers are. Stays until it is told to stop, and stops the cluster then, unless it is
    /// to `detach`.
    ///
    /// # Errors
    /// When something does not come up: what was started is stopped again.
    pub(crate) async fn up(&self, resources: Vec<Manifest>, detach: bool) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.controller().pid().is_none(),
            "the cluster in {} runs already; see `weir local status`",
            self.data.display()
        );
        std::fs::write(self.data.join("cluster.json"), serde_json::to_vec(&self.shape)?).context("remember the shape of the cluster")?;
        // A stop that comes while the cluster starts ends it as well.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told_to_stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(told_to_stop);
        let started = tokio::select! {
            started = self.start_all(resources) => started,
            () = &mut told_to_stop => return self.down().await,
        };
        if let Err(error) = started {
            // The reason why it did not start is the one to tell.
            let _ = self.down().await;
            return Err(error);
        }
        let addresses: Vec<_> = self
            .brokers()
            .map(|id| Ok(format!("127.0.0.1:{}", self.port(id)?)))
            .collect::<anyhow::Result<_>>()?;
        super::output::line(&format!("bootstrap: {}", addresses.join(",")));
        if detach {
            return Ok(());
        }
        told_to_stop.await;
        self.down().await
    }

    async fn start_all(&self, resources: Vec<Manifest>) -> anyhow::Result<()> {
        // A cluster that is made now is made as its resource says.
        let cluster = resources
            .iter()
            .find(|manifest| manifest.text("/kind") == "KafkaCluster")
            .map(|manifest| &manifest.resource);
        self.start_controller(cluster).await?;
        if !resources.is_empty() {
            super::output::applied(&self.apply(resources).await?);
        }
        for id in self.brokers() {
            self.launch_broker(id).await?;
        }
        for id in self.brokers() {
            self.broker_ready(id).await?;
        }
        Ok(())
    }

    async fn start_controller(&self, cluster: Option<&Value>) -> anyhow::Result<()> {
        let controller = self.controller();
        let brokers = self.shape.brokers.to_string();
        let data = self.data.join("controller").display().to_string();
        let mut args = vec!["local-controller".to_owned(), "--data".to_owned(), data, "--brokers".to_owned(), brokers];
        if let Some(cluster) = cluster {
            args.extend(["--cluster".to_owned(), cluster.to_string()]);
        }
        controller.start(&args)?;
        let answers = async {
            while self.ask_status().await.is_err() {
                anyhow::ensure!(controller.pid().is_some(), "the controller did not come up; {}", controller.log_tail());
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(CONTROLLER_START_MAX, answers)
            .await
            .with_context(|| format!("the controller does not answer; {}", controller.log_tail()))?
    }

    async fn launch_broker(&self, id: i32) -> anyhow::Result<()> {
        let status = self
            .ask_status()
            .await
            .context("the controller must run first; `weir local start controller`")?;
        let args = [
            ("--id", id.to_string()),
            ("--cluster-id", status.cluster_id),
            ("--data", self.data.join(format!("broker-{id}")).display().to_string()),
            ("--listener", format!("PLAINTEXT://127.0.0.1:{}", self.port(id)?)),
            ("--controller", self.controller_address()?),
            ("--http", "127.0.0.1:0".to_owned()),
        ];
        let args: Vec<_> = std::iter::once("broker".to_owned())
            .chain(args.into_iter().map(|(flag, value)| format!("{flag}={value}")))
            .collect();
        self.broker(id)?.start(&args)
    }

    /// Waits until a broker serves, however long its recovery takes, as long as it lives.
    async fn broker_ready(&self, id: i32) -> anyhow::Result<()> {
        let broker = self.broker(id)?;
        loop {
            let pid = broker.pid();
            let ready = self
                .ask_status()
                .await
                .is_ok_and(|status| status.brokers.iter().any(|broker| broker.id == id && broker.ready));
            // What the controller says may still be about the process before this one: the port is this one's.
            let listens = ready && tokio::net::TcpStream::connect(("127.0.0.1", self.port(id)?)).await.is_ok();
            if listens && pid.is_some() {
                return Ok(());
            }
            anyhow::ensure!(pid.is_some(), "broker {id} did not come up; {}", broker.log_tail());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts one process, and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn start(&self, target: Target) -> anyhow::Result<()> {
        match target {
            Target::Controller => self.start_controller(None).await,
            Target::Broker(id) => {
                self.launch_broker(id).await?;
                self.broker_ready(id).await
            }
        }
    }

    fn process(&self, target: Target) -> anyhow::Result<Process> {
        match target {
            Target::Controller => Ok(self.controller()),
            Target::Broker(id) => self.broker(id),
        }
    }

    /// Stops one process in order, and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub(crate) async fn stop(&self, target: Target) -> anyhow::Result<()> {
        self.end(target, Signal::TERM).await
    }

    /// Kills one process, and waits for its end.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn kill(&self, target: Target) -> anyhow::Result<()> {
        self.end(target, Signal::KILL).await
    }

    async fn end(&self, target: Target, signal: Signal) -> anyhow::Result<()> {
        let process = self.process(target)?;
        anyhow::ensure!(process.signal(signal)?, "{} does not run", process.name());
        process.ended(STOP_MAX).await
    }

    /// Stops everything that runs: the brokers side by side, then the controller, which they need to stop in order.
    ///
    /// # Errors
    /// When a process does not end.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        let brokers: Vec<_> = self.brokers().map(|id| self.broker(id)).collect::<anyhow::Result<_>>()?;
        for broker in &brokers {
            broker.signal(Signal::TERM)?;
        }
        for broker in &brokers {
            broker.ended(STOP_MAX).await?;
        }
        self.controller().signal(Signal::TERM)?;
        self.controller().ended(STOP_MAX).await
    }

    fn controller_address(&self) -> anyhow::Result<String> {
        let file = self.data.join("controller").join("port");
        let port = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let port: u16 = port.trim().parse().with_context(|| format!("{} holds no port", file.display()))?;
        Ok(format!("127.0.0.1:{port}"))
    }

    async fn client(&self) -> anyhow::Result<LocalClient<Channel>> {
        anyhow::ensure!(
            self.controller().pid().is_some(),
            "the controller does not run; `weir local up` or `weir local start controller` starts it"
        );
        let address = self.controller_address()?;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(Duration::from_secs(2));
        let channel = endpoint.connect().await.with_context(|| format!("reach the controller at {address}"))?;
        Ok(LocalClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX))
    }

    async fn ask_status(&self) -> anyhow::Result<StatusResponse> {
        Ok(self.client().await?.status(StatusRequest {}).await.map_err(refused)?.into_inner())
    }

    /// Creates or changes resources.
    ///
    /// # Errors
    /// When one is wrong: none is taken up then, and the message names the field and the reason.
    pub(crate) async fn apply(&self, manifests: Vec<Manifest>) -> anyhow::Result<Vec<Applied>> {
        let resources = manifests.iter().map(|manifest| manifest.resource.to_string()).collect();
        let response = self.client().await?.apply(ApplyRequest { resources }).await.map_err(refused)?;
        Ok(response.into_inner().applied)
    }

    /// Deletes the resources that manifests name.
    ///
    /// # Errors
    /// At the first that cannot be deleted.
    pub(crate) async fn delete(&self, manifests: &[Manifest]) -> anyhow::Result<()> {
        let mut client = self.client().await?;
        // What was created last may need what was created first.
        for manifest in manifests.iter().rev() {
            let (kind, name) = (manifest.text("/kind"), manifest.text("/metadata/name"));
            client
                .delete(DeleteRequest {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                })
                .await
                .map_err(refused)?;
            super::output::line(&format!("{} \"{name}\" deleted", kind.to_lowercase()));
        }
        Ok(())
    }

    /// The resources of a kind, or the one with a name.
    ///
    /// # Errors
    /// When there is no such kind or resource.
    pub(crate) async fn get(&self, kind: &str, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let request = GetRequest {
            kind: kind.to_owned(),
            name: name.unwrap_or_default().to_owned(),
        };
        let response = self.client().await?.get(request).await.map_err(refused)?;
        response
            .into_inner()
            .resources
            .iter()
            .map(|resource| serde_json::from_str(resource).context("read the controller's answer"))
            .collect()
    }

    /// How the processes and the partitions are.
    pub(crate) async fn status(&self) -> Status {
        let told = self.ask_status().await.ok();
        let broker = |id: i32| {
            let pid = self.broker(id).ok().and_then(|process| process.pid());
            let said = told.as_ref().map(|status| status.brokers.iter().find(|broker| broker.id == id));
            let state = match (pid, said) {
                (None, _) => "stopped",
                (Some(_), None) => "unknown",
                (Some(_), Some(Some(broker))) if broker.ready => "ready",
                (Some(_), Some(Some(broker))) if broker.fenced => "fenced",
                (Some(_), Some(_)) => "starting",
            };
            BrokerStatus {
                id,
                pid,
                port: self.port(id).unwrap_or_default(),
                state,
            }
        };
        Status {
            controller: ControllerStatus {
                pid: self.controller().pid(),
            },
            brokers: self.brokers().map(broker).collect(),
            partitions: told.as_ref().map(|status| PartitionsStatus {
                total: status.partitions,
                under_replicated: status.under_replicated,
                offline: status.offline,
            }),
        }
    }
}

fn read_shape(data: &Path) -> anyhow::Result<Option<Shape>> {
    let file = data.join("cluster.json");
    match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("read {}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

/// What the controller said, without what only gRPC knows of it.
fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
