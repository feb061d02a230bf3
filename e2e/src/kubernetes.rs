//! A Kubernetes cluster with Weir installed (`e2e/up`), driven by kubectl as a user would.
//! `KUBECONFIG` selects the cluster. Each test has its own namespace, which enforces the Pod
//! Security profile `restricted` and is deleted afterwards.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::wire::{Body, Connection};

/// The limit of a wait. A machine with two processors runs three nodes, the brokers and the
/// clients.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The operator's namespace.
pub const OPERATOR_NAMESPACE: &str = "weir-system";

/// An internal listener, and one that clients outside Kubernetes can reach.
pub const LISTENERS: &str = "  listeners:\n  - {name: plain, port: 9092, type: Internal}\n  - {name: external, port: 9094, type: NodePort}\n";

/// Runs kubectl and returns its standard output.
///
/// # Errors
/// When it fails; the message is its output.
pub fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments, "")
}

/// The directory with the tools of `e2e/up` and the values for the images that it built.
#[must_use]
pub fn state() -> PathBuf {
    std::env::var_os("WEIR_KUBERNETES")
        .map_or_else(|| crate::workspace().join("target/e2e-kubernetes"), PathBuf::from)
}

/// Runs helm, from `e2e/up` or the machine, and returns its standard output.
///
/// # Errors
/// When it fails; the message is its output.
pub fn helm(arguments: &[&str]) -> Result<String> {
    let built = state().join("bin/helm");
    let program = if built.is_file() { built.to_string_lossy() } else { "helm".into() };
    run(&program, arguments, "")
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// When it cannot be run or fails; the message is its output.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    ensure!(std::env::var_os("KUBECONFIG").is_some(), "KUBECONFIG is not set; e2e/up prints it");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes()).with_context(|| format!("write to {program}"))?;
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{program} {}: {}\n{out}{err}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until `look` returns a value.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match look() {
            Ok(Some(found)) => return found,
            Ok(None) => String::new(),
            Err(e) => format!(": {e:#}"),
        };
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}{last}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// A test's own namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Creates it.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub fn create(stem: &str) -> Result<Self> {
        let name = crate::cluster::unique(stem);
        let yaml = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{pod-security.kubernetes.io/enforce: restricted, weir-e2e: test}}\n"
        );
        run("kubectl", &["create", "-f", "-"], &yaml)?;
        Ok(Self { name })
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Errors
    /// When it fails; the message is its output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.with_input(arguments, "")
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        run("kubectl", &all, input)
    }

    /// `kubectl apply`.
    ///
    /// # Errors
    /// When the API server refuses an object; the message has the reason.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.with_input(&["apply", "-f", "-"], yaml)
    }

    /// The API server's reason for refusing this.
    ///
    /// # Panics
    /// When the API server accepts it.
    #[must_use]
    pub fn refused(&self, yaml: &str) -> String {
        match self.with_input(&["apply", "--server-side", "--validate=strict", "-f", "-"], yaml) {
            Ok(_) => panic!("the API server took:\n{yaml}"),
            Err(e) => format!("{e:#}"),
        }
    }

    /// Applies a merge patch.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn patch(&self, object: &str, patch: &str) -> Result<String> {
        self.kubectl(&["patch", object, "--type=merge", "--patch", patch])
    }

    /// Turns off the deletion protection of a cluster or topic.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn unprotect(&self, object: &str) -> Result<String> {
        self.patch(object, r#"{"spec": {"deletionProtection": false}}"#)
    }

    /// Turns off the deletion protection of all PartitionTables.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn unprotect_tables(&self) -> Result<String> {
        self.kubectl(&[
            "annotate",
            "partitiontables",
            "--all",
            "weir.dev/deletion-protection=false",
        ])
    }

    /// An object such as `topic/orders`, if it exists.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub fn object(&self, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", name, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).context("read kubectl's JSON").map(Some)
    }

    /// All objects of a kind, with these labels if any are given.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub fn list(&self, kind: &str, labels: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", kind, "-l", labels, "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&text).context("read kubectl's JSON")?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// A condition of an object, if it is about the newest generation.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub fn condition(&self, object: &str, kind: &str) -> Result<Option<Condition>> {
        let Some(object) = self.object(object)? else { return Ok(None) };
        Ok(condition(&object, kind))
    }

    /// Waits until a condition of an object's newest generation has this status, and returns it.
    #[must_use]
    pub fn awaits(&self, object: &str, kind: &str, status: &str) -> Condition {
        let mut last = None;
        let what = format!("{object} is {kind}={status}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.condition(object, kind) {
                Ok(Some(condition)) if condition.status == status => return condition,
                Ok(condition) => last = condition.or(last),
                Err(e) => eprintln!("{e:#}"),
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; it is {last:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until an object is Ready.
    pub fn ready(&self, object: &str) {
        let _ = self.awaits(object, "Ready", "True");
    }

    /// Creates a cluster with an external listener, waits until it is Ready, and returns the
    /// bootstrap address for clients on this machine.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn kafka(&self, name: &str, brokers: u32, more: &str) -> Result<String> {
        self.apply(&kafka_cluster(name, brokers, more))?;
        self.ready(&format!("kafkacluster/{name}"));
        Ok(self.bootstrap(name))
    }

    /// The bootstrap address of a cluster for clients outside: the port in its status, on every
    /// node. With all nodes, a client can start while one of them is gone.
    #[must_use]
    pub fn bootstrap(&self, cluster: &str) -> String {
        let said = eventually(&format!("{cluster} says where its external listener is"), || {
            let object =
                self.object(&format!("kafkacluster/{cluster}"))?.context("no such cluster")?;
            let listeners = object["status"]["listeners"].as_array().cloned().unwrap_or_default();
            let external = listeners.iter().find(|l| l["name"] == "external");
            Ok(external
                .and_then(|l| l["bootstrap"].as_str())
                .filter(|b| !b.is_empty())
                .map(str::to_owned))
        });
        let path = "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}";
        let nodes = kubectl(&["get", "nodes", "-o", path]).unwrap_or_default();
        // The node in the status comes first, which tests that it works.
        let (host, port) =
            said.split(',').next().and_then(|first| first.rsplit_once(':')).unwrap_or((&said, ""));
        let text =
            |node: &str| if node.contains(':') { format!("[{node}]") } else { node.to_owned() };
        let others = nodes
            .split_whitespace()
            .map(text)
            .filter(|node| node != host)
            .map(|node| format!("{node}:{port}"));
        let all: Vec<_> = std::iter::once(format!("{host}:{port}")).chain(others).collect();
        // Each node opens a new port at its own pace. 18 is ApiVersions.
        eventually("the port is open on every node", || {
            let open = |address: &String| {
                Connection::open(address).and_then(|mut c| c.call(18, 0, &Body::default()))
            };
            Ok(all.iter().all(|address| open(address).is_ok()).then_some(()))
        });
        all.join(",")
    }

    /// Waits for a warning event about this object.
    pub fn warned(&self, object: &str, of: &str) {
        let (kind, name) = object.split_once('/').unwrap_or((object, ""));
        let about = |event: &Value| {
            let (regarding, text) = (&event["involvedObject"], |name: &str| {
                event[name].as_str().unwrap_or_default().to_owned()
            });
            let is_it = regarding["kind"].as_str().is_some_and(|of| of.eq_ignore_ascii_case(kind))
                && regarding["name"] == name;
            is_it && text("type") == "Warning" && text("message").contains(of)
        };
        eventually(&format!("an event warns of {object}: {of}"), || {
            let events = self.list("events", "")?;
            Ok(events.iter().any(about).then_some(()))
        });
    }

    /// Waits until a cluster's status counts all replicas of every partition in sync. The status
    /// may be a moment old; [`crate::load::Load::whole`] asks the brokers too.
    pub fn whole(&self, cluster: &str) {
        eventually(&format!("{cluster} is whole"), || {
            let object =
                self.object(&format!("kafkacluster/{cluster}"))?.context("no such cluster")?;
            let partitions = &object["status"]["partitions"];
            let count = |name: &str| partitions[name].as_i64().unwrap_or(-1);
            let ready = condition(&object, "Ready").is_some_and(|c| c.status == "True");
            Ok((ready && count("underReplicated") == 0 && count("offline") == 0).then_some(()))
        });
    }

    /// The id of a partition's leader, from the cluster's Metadata.
    #[must_use]
    pub fn leader(&self, bootstrap: &str, topic: &str, partition: i32) -> i32 {
        eventually(&format!("{topic}-{partition} has a leader"), || {
            let printed =
                crate::tools::kcat(bootstrap, &["-L", "-J", "-t", topic], b"")?.success()?;
            let metadata: Value = serde_json::from_str(&printed).context("read kcat's JSON")?;
            let partitions =
                metadata["topics"][0]["partitions"].as_array().cloned().unwrap_or_default();
            let found = partitions
                .iter()
                .find(|p| p["partition"] == partition)
                .and_then(|p| p["leader"].as_i64());
            Ok(found.and_then(|id| i32::try_from(id).ok()).filter(|id| *id >= 0))
        })
    }

    /// The uids of a cluster's pods, without those being deleted.
    ///
    /// # Errors
    /// When Kubernetes does not answer.
    pub fn pods(&self, cluster: &str) -> Result<BTreeSet<String>> {
        let pods = self.list("pods", &format!("weir.dev/cluster={cluster}"))?;
        let staying = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(staying.filter_map(|pod| Some(pod["metadata"]["uid"].as_str()?.to_owned())).collect())
    }

    /// The uid of an existing object.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn uid(&self, name: &str) -> Result<String> {
        let object = self.object(name)?.with_context(|| format!("no {name}"))?;
        Ok(object["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }

    /// The node that a pod runs on.
    ///
    /// # Errors
    /// When the pod does not exist or has no node.
    pub fn node_of(&self, pod: &str) -> Result<String> {
        let pod = self.object(&format!("pod/{pod}"))?.with_context(|| format!("no pod {pod}"))?;
        Ok(pod["spec"]["nodeName"].as_str().context("no node yet")?.to_owned())
    }

    /// The state to print when a test has failed.
    fn describe(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &["get", "kafkaclusters,topics,pods,pvc,statefulsets,pdb", "-o", "wide"][..],
            &["get", "kafkaclusters", "-o", "jsonpath={range .items[*]}{.status}{\"\\n\"}{end}"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "-l", "app.kubernetes.io/managed-by=weir-operator", "--tail=40", "--prefix"],
        ] {
            text += &self.kubectl(arguments).unwrap_or_else(|e| format!("{e:#}\n"));
        }
        let operator = [
            "-n",
            OPERATOR_NAMESPACE,
            "logs",
            "-l",
            "app.kubernetes.io/name=weir-operator",
            "--tail=100",
            "--prefix",
        ];
        text + &kubectl(&operator).unwrap_or_else(|e| format!("{e:#}\n"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
        if let Err(e) =
            kubectl(&["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"])
        {
            eprintln!("{e:#}");
        }
    }
}

/// The number of restarts of the operators' containers. They must never end by themselves, whatever
/// a resource says.
///
/// # Errors
/// When Kubernetes does not answer.
pub fn operator_restarts() -> Result<i64> {
    let labels = "app.kubernetes.io/name=weir-operator";
    let path = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    let counts = kubectl(&["-n", OPERATOR_NAMESPACE, "get", "pods", "-l", labels, "-o", path])?;
    counts.split_whitespace().map(|count| count.parse::<i64>().context("count restarts")).sum()
}

/// A cordoned node: it accepts no new pods until this is dropped.
#[derive(Debug)]
pub struct Cordoned(String);

impl Cordoned {
    /// Cordons a node.
    ///
    /// # Errors
    /// When the node does not exist.
    pub fn node(name: &str) -> Result<Self> {
        kubectl(&["cordon", name])?;
        Ok(Self(name.to_owned()))
    }
}

impl Drop for Cordoned {
    fn drop(&mut self) {
        if let Err(e) = kubectl(&["uncordon", &self.0]) {
            eprintln!("{e:#}");
        }
    }
}

/// A condition of an object, unless it is about an older generation.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    let seen = found["observedGeneration"].as_i64();
    if seen.is_some() && seen != object["metadata"]["generation"].as_i64() {
        return None;
    }
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
}

/// A cluster with an internal and an external listener, without deletion protection. `more` is
/// added to its spec, indented by two.
#[must_use]
pub fn kafka_cluster(name: &str, brokers: u32, more: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: {name}}}\nspec:\n  deletionProtection: false\n  brokers:\n    replicas: {brokers}\n    storage: {{size: 1Gi, onDelete: Delete}}\n{LISTENERS}{more}"
    )
}

/// A topic without deletion protection. `more` is added to its spec, indented by two.
#[must_use]
pub fn topic(name: &str, cluster: &str, partitions: u32, replicas: u32, more: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: {name}}}\nspec:\n  deletionProtection: false\n  clusterRef: {{name: {cluster}}}\n  partitions: {partitions}\n  replicas: {replicas}\n{more}"
    )
}
