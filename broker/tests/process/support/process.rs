//! The broker process: its command line, its log, its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{CLUSTER, soon};

/// SIGXFSZ ends a process that exceeds its file size limit. When the process ignores it, the write
/// fails instead.
const SIGXFSZ: &str = "25";

/// The command line of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) id: i32,
    pub(crate) cluster_id: String,
    pub(crate) data: PathBuf,
    pub(crate) controller: SocketAddr,
    pub(crate) rack: String,
    /// What is logged (`WEIR_LOG`).
    pub(crate) log: String,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
}

impl Launch {
    pub(crate) fn new(data: &Path, controller: SocketAddr) -> Self {
        Self {
            id: 0,
            cluster_id: CLUSTER.to_owned(),
            data: data.to_owned(),
            controller,
            rack: String::new(),
            log: "info,weir_broker=debug".to_owned(),
            arguments: Vec::new(),
        }
    }

    fn command(&self) -> Command {
        // A process inherits the signals that its shell ignores.
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("trap '' {SIGXFSZ}; exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_weir-broker"))
            .args(["--id", &self.id.to_string(), "--cluster-id", &self.cluster_id])
            .arg("--data")
            .arg(&self.data)
            .args(["--listener", "PLAINTEXT://127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--controller", &self.controller.to_string()])
            .args(["--rack", &self.rack])
            .args(["--threads", "2", "--log-format", "json"])
            .args(&self.arguments)
            .env("WEIR_LOG", &self.log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// A broker that runs or has ended.
pub(crate) struct BrokerProcess {
    child: Child,
    log: watch::Receiver<Vec<Value>>,
    kafka: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl BrokerProcess {
    /// Starts a broker and waits until it serves.
    pub(crate) async fn start(launch: &Launch) -> Self {
        let mut broker = Self::spawn(launch);
        broker.find_pages().await;
        broker.kafka = Some(address(&broker.wait_for_line("listening").await));
        broker
    }

    /// Reads the address of the pages from the log.
    pub(crate) async fn find_pages(&mut self) {
        self.http = Some(address(&self.wait_for_line("metrics and health").await));
    }

    /// Starts a broker that may fail to start.
    pub(crate) fn spawn(launch: &Launch) -> Self {
        let mut child = launch.command().spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let parsed = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sender.send_modify(|log: &mut Vec<Value>| log.push(parsed));
            }
        });
        Self { child, log, kafka: None, http: None }
    }

    /// Waits for the first line with this message.
    pub(crate) async fn wait_for_line(&mut self, message: &str) -> Value {
        let has = |line: &&Value| line["message"] == message;
        let found =
            match soon(message, self.log.wait_for(|log| log.iter().any(|line| has(&line)))).await {
                Ok(log) => log.iter().find(has).cloned(),
                Err(_) => None,
            };
        found.unwrap_or_else(|| {
            panic!("the broker ended without saying {message:?}: {:#?}", self.log.borrow())
        })
    }

    /// Where a listener listens.
    pub(crate) async fn listener(&self, name: &str) -> SocketAddr {
        let is_it = |line: &&Value| line["message"] == "listening" && line["listener"] == name;
        let mut log = self.log.clone();
        let found = soon(name, log.wait_for(|log| log.iter().any(|line| is_it(&line)))).await;
        address(found.unwrap().iter().find(is_it).unwrap())
    }

    /// Its whole log, as text.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().iter().map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn kafka(&self) -> SocketAddr {
        self.kafka.unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
        if signal == Signal::STOP {
            // Its threads stop one after the other. This returns once none works any more.
            let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(self.pid()), stopped).unwrap();
        }
    }

    /// Waits for the end of the process and of its log.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = soon("the end of the process", self.child.wait()).await.unwrap();
        let _ = soon("the end of the log", self.log.wait_for(|_| false)).await.map(drop);
        status
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert!(!self.ended().await.success());
    }

    /// Waits until `/readyz` succeeds, which needs an answered heartbeat.
    pub(crate) async fn ready(&self) {
        soon("ready", async { while self.page("/readyz").await.0 != 200 {} }).await;
    }

    /// A page over HTTP: its status and its body.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(self.http.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: broker\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        soon(path, stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

impl Drop for BrokerProcess {
    /// A failed test prints the log.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn address(line: &Value) -> SocketAddr {
    line["address"].as_str().unwrap().parse().unwrap()
}
