//! A local cluster as a whole: its processes, in the order of their dependencies, and the
//! connection to its controller.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use weir_security::principal::Principal;

use super::broker_probe::broker_answers;
use super::manifests::{Manifest, declared_brokers, set_brokers};
use super::nodes;
use super::process::Process;
use super::shape::{Shape, loopback};
use super::status::{BrokerStatus, ControllerStatus, PartitionsStatus, Status};
use super::target::Target;

/// The default number of brokers: it can lose one and go on.
const DEFAULT_BROKERS: i32 = 3;

/// The default port.
const DEFAULT_PORT: u16 = 9092;

/// The most time for the controller's first answer after its start.
const CONTROLLER_START_MAX: Duration = Duration::from_secs(30);

/// The most time for a clean stop of a process.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The most time for a broker that starts without a controller to serve: it may have to recover its
/// logs.
const GOES_ON_MAX: Duration = Duration::from_secs(60);

/// The interval of checks during a start.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// A local cluster.
#[derive(Clone, Debug)]
pub(crate) struct LocalCluster {
    pub(super) data: PathBuf,
    pub(super) shape: Shape,
}

impl LocalCluster {
    /// The cluster in `data`, or a new one there. Values come from the command line, else from the
    /// resources, else from the earlier run, else from the defaults.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn prepare(
        data: &Path,
        brokers: Option<i32>,
        (host, port): (Option<IpAddr>, Option<u16>),
        resources: &[Manifest],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("create {}", data.display()))?;
        // The processes have another working directory.
        let data = data.canonicalize().with_context(|| format!("find {}", data.display()))?;
        let before = Shape::read(&data)?;
        let brokers = brokers
            .or(declared_brokers(resources))
            .or(before.as_ref().map(|shape| shape.brokers))
            .unwrap_or(DEFAULT_BROKERS);
        let port = port.or(before.as_ref().map(|shape| shape.port)).unwrap_or(DEFAULT_PORT);
        let host = host.or(before.as_ref().map(|shape| shape.host)).unwrap_or(loopback());
        let (cluster_id, secured) =
            before.map(|shape| (shape.cluster_id, shape.secured)).unwrap_or_default();
        let shape = Shape { brokers, port, host, cluster_id, secured };
        Ok(Self { data, shape })
    }

    /// The existing cluster in `data`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(data: &Path) -> anyhow::Result<Self> {
        let found = data
            .canonicalize()
            .ok()
            .map(|data| Shape::read(&data).map(|shape| (data, shape)))
            .transpose()?;
        match found {
            Some((data, Some(shape))) => Ok(Self { data, shape }),
            _ => bail!(
                "there is no cluster in {}; `weir local up --data {0}` makes one",
                data.display()
            ),
        }
    }

    pub(super) fn controller(&self) -> Process {
        Process::new(&self.data, "controller")
    }

    pub(super) fn broker(&self, id: i32) -> anyhow::Result<Process> {
        anyhow::ensure!(
            (0..self.shape.brokers).contains(&id),
            "there is no broker {id}: ids are 0 to {}",
            self.shape.brokers - 1
        );
        Ok(Process::new(&self.data, &format!("broker-{id}")))
    }

    pub(super) fn brokers(&self) -> std::ops::Range<i32> {
        0..self.shape.brokers
    }

    fn port(&self, id: i32) -> anyhow::Result<u16> {
        let port = i32::from(self.shape.port) + id;
        u16::try_from(port).with_context(|| {
            format!("broker {id} would listen on port {port}: take a lower --port")
        })
    }

    fn address(&self, id: i32) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.shape.host, self.port(id)?))
    }

    /// Starts all processes that do not run, applies `resources`, and prints the brokers'
    /// addresses. Unless `detach` is set, it waits for a signal and then stops the cluster.
    ///
    /// # Errors
    /// When something does not start: then it stops what it started.
    pub(crate) async fn up(&self, resources: Vec<Manifest>, detach: bool) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.controller().pid().is_none(),
            "the cluster in {} runs already; see `weir local status`",
            self.data.display()
        );
        self.remember_shape()?;
        // A signal during the start stops the cluster as well.
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
            // The error to report is the one of the start.
            let _ = self.down().await;
            return Err(error);
        }
        let addresses: Vec<_> = self
            .brokers()
            .map(|id| Ok(self.address(id)?.to_string()))
            .collect::<anyhow::Result<_>>()?;
        super::output::line(&format!("bootstrap: {}", addresses.join(",")));
        for (listener, addresses) in self.bootstraps()? {
            super::output::line(&format!("bootstrap of {listener}: {addresses}"));
        }
        if detach {
            return Ok(());
        }
        told_to_stop.await;
        self.down().await
    }

    fn remember_shape(&self) -> anyhow::Result<()> {
        self.shape.remember(&self.data)
    }

    /// Stores the cluster's id for a start without a controller.
    pub(super) fn remember_cluster_id(&self, cluster_id: &str) -> anyhow::Result<()> {
        // The file's current contents count: another command may have changed the number of
        // brokers.
        let shape = Shape::read(&self.data)?.unwrap_or_else(|| self.shape.clone());
        if shape.cluster_id.as_deref() == Some(cluster_id) {
            return Ok(());
        }
        let cluster_id = Some(cluster_id.to_owned());
        Shape { cluster_id, ..shape }.remember(&self.data)
    }

    async fn start_all(&self, mut resources: Vec<Manifest>) -> anyhow::Result<()> {
        // The number of brokers on the command line goes into the resource too.
        for manifest in
            resources.iter_mut().filter(|manifest| manifest.text("/kind") == "KafkaCluster")
        {
            set_brokers(&mut manifest.resource, self.shape.brokers);
        }
        // A new cluster is created from its resource.
        let cluster = resources
            .iter()
            .find(|manifest| manifest.text("/kind") == "KafkaCluster")
            .map(|manifest| &manifest.resource);
        let is_new = !self.data.join("controller").exists();
        self.start_controller(cluster).await?;
        let recovered = self.recover().await?;
        if !resources.is_empty() {
            let mut applied = self.apply(&resources_of(resources)).await?;
            // The controller was started with the resource, so it reports no change.
            for cluster in
                applied.iter_mut().filter(|resource| is_new && resource.kind == "KafkaCluster")
            {
                cluster.action = "created".to_owned();
            }
            super::output::applied(&applied);
        }
        self.agree_on_brokers().await?;
        if !recovered {
            return self.start_brokers(self.brokers()).await;
        }
        // They run already, and register once they learn that a state exists.
        for id in self.brokers() {
            self.broker_ready(id, Some(-1)).await?;
        }
        Ok(())
    }

    /// Writes the current number of brokers into the resource of an existing cluster.
    async fn agree_on_brokers(&self) -> anyhow::Result<()> {
        for mut resource in self.get("KafkaCluster", None).await? {
            self.remember_listeners(&resource)?;
            let declared = resource.pointer("/spec/brokers/replicas").and_then(Value::as_i64);
            if declared != Some(self.shape.brokers.into()) {
                set_brokers(&mut resource, self.shape.brokers);
                self.apply(&[resource]).await?;
            }
        }
        Ok(())
    }

    /// Starts brokers concurrently, and waits until all serve.
    async fn start_brokers(&self, ids: std::ops::Range<i32>) -> anyhow::Result<()> {
        let mut launched = Vec::new();
        for id in ids {
            launched.push((id, self.launch_broker(id).await?));
        }
        for (id, epoch_before) in launched {
            self.broker_ready(id, epoch_before).await?;
        }
        Ok(())
    }

    async fn start_controller(&self, cluster: Option<&Value>) -> anyhow::Result<()> {
        let controller = self.controller();
        let brokers = self.shape.brokers.to_string();
        let data = self.data.join("controller").display().to_string();
        let mut args = vec![
            "local-controller".to_owned(),
            "--data".to_owned(),
            data,
            "--brokers".to_owned(),
            brokers,
            "--identity".to_owned(),
            nodes::folder(&self.data).display().to_string(),
        ];
        nodes::prepare(&self.data, &Principal::Controller, Timestamp::now().as_second())?;
        if let Some(cluster) = cluster {
            args.extend(["--cluster".to_owned(), cluster.to_string()]);
        }
        controller.start(&args)?;
        let answers = async {
            while self.ask_status().await.is_err() {
                anyhow::ensure!(
                    controller.pid().is_some(),
                    "the controller did not come up; {}",
                    controller.log_tail()
                );
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(CONTROLLER_START_MAX, answers)
            .await
            .with_context(|| format!("the controller does not answer; {}", controller.log_tail()))?
    }

    /// Starts a broker's process. Returns the epoch of its earlier process, `-1` if there was none,
    /// and `None` if no controller answers; then the broker goes on with its last metadata.
    pub(super) async fn launch_broker(&self, id: i32) -> anyhow::Result<Option<i64>> {
        let status = self.ask_status().await;
        let (cluster_id, epoch) = match status {
            Ok(status) => {
                if status.recovering.is_empty() {
                    self.remember_cluster_id(&status.cluster_id)?;
                }
                let before = status.brokers.iter().find(|broker| broker.id == id);
                (status.cluster_id, Some(before.map_or(-1, |broker| broker.epoch)))
            }
            Err(error) => {
                let remembered = Shape::read(&self.data)?.and_then(|shape| shape.cluster_id);
                let has_run = self.data.join(format!("broker-{id}")).exists();
                let remembered = remembered.filter(|_| has_run);
                let cluster_id = remembered
                    .ok_or(error)
                    .context("the controller must run first; `weir local start controller`")?;
                (cluster_id, None)
            }
        };
        let mut args = vec![
            ("--id", id.to_string()),
            ("--cluster-id", cluster_id),
            ("--data", self.data.join(format!("broker-{id}")).display().to_string()),
            ("--listener", format!("PLAINTEXT://{}", self.address(id)?)),
            ("--controller", self.controller_address()?),
            ("--http", "127.0.0.1:0".to_owned()),
        ];
        args.extend(self.tls_of(id)?);
        let args: Vec<_> = std::iter::once("broker".to_owned())
            .chain(args.into_iter().map(|(flag, value)| format!("{flag}={value}")))
            .collect();
        self.broker(id)?.start(&args)?;
        Ok(epoch)
    }

    /// Waits until the new process serves, as long as it lives, however long its recovery takes.
    pub(super) async fn broker_ready(
        &self,
        id: i32,
        epoch_before: Option<i64>,
    ) -> anyhow::Result<()> {
        let broker = self.broker(id)?;
        let Some(epoch_before) = epoch_before else {
            return self.broker_goes_on(id, &broker).await;
        };
        loop {
            let pid = broker.pid();
            // The controller's answer may still be about the earlier process, which has a lower
            // epoch.
            let serves = |broker: &super::rpc::BrokerStatus| {
                broker.id == id && broker.ready && broker.epoch > epoch_before
            };
            let ready =
                self.ask_status().await.is_ok_and(|status| status.brokers.iter().any(serves));
            // The controller counts on a broker before its listeners accept connections, so clients
            // may not reach it yet.
            let serves = ready && broker_answers(self.address(id)?).await;
            if serves && pid.is_some() {
                return Ok(());
            }
            anyhow::ensure!(pid.is_some(), "broker {id} did not come up; {}", broker.log_tail());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a broker that was started without a controller answers requests. It goes on with
    /// the metadata of its last process, if that is usable.
    async fn broker_goes_on(&self, id: i32, broker: &Process) -> anyhow::Result<()> {
        let address = self.address(id)?;
        let started = tokio::time::Instant::now();
        while !broker_answers(address).await {
            anyhow::ensure!(
                broker.pid().is_some(),
                "broker {id} did not come up; {}",
                broker.log_tail()
            );
            anyhow::ensure!(
                started.elapsed() < GOES_ON_MAX,
                "broker {id} runs and waits for the controller; `weir local start controller`; {}",
                broker.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts one process, and waits until it serves.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(&self, target: Target) -> anyhow::Result<()> {
        match target {
            Target::Controller => self.start_controller(None).await,
            Target::Broker(id) => {
                let epoch_before = self.launch_broker(id).await?;
                self.broker_ready(id, epoch_before).await
            }
        }
    }

    fn process(&self, target: Target) -> anyhow::Result<Process> {
        match target {
            Target::Controller => Ok(self.controller()),
            Target::Broker(id) => self.broker(id),
        }
    }

    /// Stops one process cleanly, and waits for its end.
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

    /// Stops all processes: the brokers concurrently, then the controller, which brokers need for a
    /// clean stop.
    ///
    /// # Errors
    /// When a process does not end.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        let brokers: Vec<_> =
            self.brokers().map(|id| self.broker(id)).collect::<anyhow::Result<_>>()?;
        // A frozen process does not stop, and a frozen controller lets no broker stop.
        for process in brokers.iter().chain([&self.controller()]) {
            process.signal(Signal::CONT)?;
        }
        for broker in &brokers {
            broker.signal(Signal::TERM)?;
        }
        for broker in &brokers {
            broker.ended(STOP_MAX).await?;
        }
        self.controller().signal(Signal::TERM)?;
        self.controller().ended(STOP_MAX).await
    }

    pub(super) fn controller_address(&self) -> anyhow::Result<String> {
        let file = self.data.join("controller").join("port");
        let port =
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let port: u16 =
            port.trim().parse().with_context(|| format!("{} holds no port", file.display()))?;
        Ok(format!("127.0.0.1:{port}"))
    }

    /// Creates or changes resources, and starts the brokers that the cluster has now.
    ///
    /// # Errors
    /// When a resource is invalid, or a new broker does not start.
    pub(crate) async fn apply_and_follow(mut self, manifests: Vec<Manifest>) -> anyhow::Result<()> {
        let declared = declared_brokers(&manifests);
        super::output::applied(&self.apply(&resources_of(manifests)).await?);
        for cluster in self.get("KafkaCluster", None).await? {
            if self.remember_listeners(&cluster)? {
                super::output::line(
                    "the listeners with TLS or SASL have changed: each broker serves them from its next start on (`weir local stop ID`, `weir local start ID`)",
                );
            }
        }
        let before = self.shape.brokers;
        if let Some(brokers) = declared.filter(|brokers| *brokers != before) {
            self.shape.brokers = brokers;
            self.remember_shape()?;
            self.start_brokers(before..brokers).await?;
        }
        Ok(())
    }

    /// The state of the processes and the partitions.
    pub(crate) async fn status(&self) -> Status {
        let told = self.ask_status().await.ok();
        let broker = |id: i32| {
            let pid = self.broker(id).ok().and_then(|process| process.pid());
            let said =
                told.as_ref().map(|status| status.brokers.iter().find(|broker| broker.id == id));
            let state = match (pid, said) {
                (None, _) => "stopped",
                (Some(_), None) => "unknown",
                (Some(_), Some(Some(broker))) if broker.ready => "ready",
                (Some(_), Some(Some(broker))) if broker.stopping => "stopping",
                (Some(_), Some(Some(broker))) if broker.fenced => "fenced",
                (Some(_), Some(_)) => "starting",
            };
            BrokerStatus { id, pid, port: self.port(id).unwrap_or_default(), state }
        };
        Status {
            controller: ControllerStatus { pid: self.controller().pid() },
            brokers: self.brokers().map(broker).collect(),
            partitions: told.as_ref().map(|status| PartitionsStatus {
                total: status.partitions,
                under_replicated: status.under_replicated,
                offline: status.offline,
            }),
        }
    }
}

fn resources_of(manifests: Vec<Manifest>) -> Vec<Value> {
    manifests.into_iter().map(|manifest| manifest.resource).collect()
}
