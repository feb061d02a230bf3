//! Drives a real client in a child process: one JSON request per line in, one JSON reply per line
//! out.
//!
//! A driver is a small program in the client's own language (`e2e/clients/`). It contains no
//! expectations. The assertions are here in Rust, so that one list of scenarios applies to every
//! client. Requests are `{"op": ..., ...}`. Replies are `{"ok": ...}` or
//! `{"error": {"code", "message"}}` with Kafka's error code, -1 if the client gives none.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::replicas;
use crate::record::Record;

/// No operation takes longer. A driver that is silent for this long hangs.
const REPLY_TIMEOUT: Duration = Duration::from_secs(150);

/// The clients that have a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `org.apache.kafka:kafka-clients`.
    Java,
    /// franz-go, in Go.
    Franz,
    /// kafkajs, in JavaScript.
    KafkaJs,
    /// librdkafka, in C, used through confluent-kafka.
    Librdkafka,
    /// kafka-python, in pure Python.
    KafkaPython,
}

/// All clients.
pub const CLIENTS: [Client; 5] =
    [Client::Java, Client::Franz, Client::KafkaJs, Client::Librdkafka, Client::KafkaPython];

impl Client {
    /// Whether the client has an operation; the scenarios skip what a client cannot do.
    #[must_use]
    pub fn can(self, op: &str) -> bool {
        match op {
            // kafkajs keeps headers in an object, by name.
            "repeated_header" | "alter_configs" | "max_timestamp" => self != Self::KafkaJs,
            "null_header" => !matches!(self, Self::KafkaJs | Self::KafkaPython),
            // kafka-python refuses a record without a key and a value.
            "null_record" => self != Self::KafkaPython,
            "describe_log_dirs" => !matches!(self, Self::KafkaJs | Self::Librdkafka),
            // kafkajs has no `group.instance.id`.
            "static_member" => self != Self::KafkaJs,
            "replace_configs" => self == Self::KafkaJs,
            _ => true,
        }
    }

    fn command(self, bootstrap: &str) -> Command {
        let clients = crate::clients();
        let sources = crate::workspace().join("e2e/clients");
        let run = |program: std::path::PathBuf, script: Option<&str>| {
            let mut command = Command::new(program);
            command.args(script.map(|script| sources.join(script)));
            command
        };
        let python = || clients.join("python/bin/python");
        let mut command = match self {
            Self::Java => {
                let [classes, jars] = ["java/classes", "java/libs/*"].map(|it| clients.join(it));
                let mut command = crate::tools::java();
                command.args(["-Xmx1G", "-cp"]);
                command.arg(format!("{}:{}", classes.display(), jars.display()));
                command.arg("dev.weir.e2e.Driver");
                command
            }
            Self::Franz => run(clients.join("franz-go"), None),
            Self::KafkaJs => run("node".into(), Some("node/driver.js")),
            Self::Librdkafka => run(python(), Some("python/librdkafka.py")),
            Self::KafkaPython => run(python(), Some("python/pure.py")),
        };
        command.arg(bootstrap);
        if self == Self::KafkaJs {
            command.arg(clients.join("node/package.json"));
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The position at which reading begins.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// The log start offset.
    Beginning,
    /// The log end offset.
    End,
    /// This offset.
    Offset(i64),
}

/// An error of Kafka or the client, not of the test's machinery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kafka's error code; -1 if the client gives none.
    pub code: i64,
    /// The client's message.
    pub message: String,
}

/// A produce request; unset fields have the client's defaults.
#[derive(Debug, Clone, Default)]
pub struct Produce {
    fields: serde_json::Map<String, Value>,
}

impl Produce {
    /// A request with these records.
    #[must_use]
    pub fn records(topic: &str, records: &[Record]) -> Self {
        Self::default().set("topic", topic).set("records", json!(records))
    }

    /// A request for `count` records of `size` bytes. Value i is i in ten digits, padded with `x`;
    /// its key is `k` and i modulo `keys`.
    #[must_use]
    pub fn generated(topic: &str, count: usize, size: usize, keys: usize) -> Self {
        Self::default()
            .set("topic", topic)
            .set("generate", json!({"count": count, "size": size, "keys": keys}))
    }

    /// Sets an option: `acks` ("0", "1", "all"), `compression`, `idempotent`, `linger_ms`,
    /// `timeout_ms`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// A client's process.
#[derive(Debug)]
pub struct Driver {
    /// The client.
    pub client: Client,
    child: Child,
    requests: ChildStdin,
    replies: Receiver<String>,
}

impl Driver {
    /// Starts the client's program.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn start(client: Client, bootstrap: &str) -> Result<Self> {
        let mut command = client.command(bootstrap);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| {
            format!("start {client:?} ({command:?}); e2e/install installs the clients")
        })?;
        let requests = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let (tx, replies) = sync_channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { client, child, requests, replies })
    }

    /// Performs one operation.
    ///
    /// # Panics
    /// When the driver ends or hangs.
    ///
    /// # Errors
    /// The error of Kafka or the client.
    pub fn call(&mut self, request: &Value) -> Result<Value, Failure> {
        self.try_call(request)
            .unwrap_or_else(|e| panic!("{:?} {}: {e:#}", self.client, request["op"]))
    }

    /// Performs one operation of a driver that may be killed meanwhile; then it returns `None`.
    pub fn call_if_alive(&mut self, request: &Value) -> Option<Result<Value, Failure>> {
        self.try_call(request).ok()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn try_call(&mut self, request: &Value) -> Result<Result<Value, Failure>> {
        writeln!(self.requests, "{request}").context("write the request")?;
        self.requests.flush().context("write the request")?;
        let line = self.replies.recv_timeout(REPLY_TIMEOUT).context("no reply")?;
        let mut reply: Value =
            serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        let error = &reply["error"];
        if error.is_object() {
            let message = error["message"].as_str().unwrap_or_default().to_owned();
            return Ok(Err(Failure { code: error["code"].as_i64().unwrap_or(-1), message }));
        }
        Ok(Ok(reply["ok"].take()))
    }

    /// Produces, and returns partition and offset of each record (-1 with `acks=0`).
    ///
    /// # Errors
    /// The first record's error.
    pub fn produce(&mut self, request: Produce) -> Result<Vec<(i32, i64)>, Failure> {
        let mut fields = request.fields;
        fields.insert("op".to_owned(), "produce".into());
        let reply = self.call(&Value::Object(fields))?;
        Ok(read(&reply["offsets"]))
    }

    /// Reads `count` records of some partitions, without a group; fewer if they do not arrive in
    /// time.
    ///
    /// # Errors
    /// The consumer's error.
    pub fn consume(
        &mut self,
        topic: &str,
        partitions: &[i32],
        from: From,
        count: usize,
    ) -> Result<Vec<Record>, Failure> {
        let from = match from {
            From::Beginning => json!("beginning"),
            From::End => json!("end"),
            From::Offset(offset) => json!(offset),
        };
        let reply = self.call(&json!({"op": "consume", "topic": topic, "partitions": partitions, "from": from, "count": count}))?;
        Ok(read(&reply))
    }

    /// Creates a topic with this many partitions, and [`replicas`].
    ///
    /// # Errors
    /// The admin client's error.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &Value,
    ) -> Result<(), Failure> {
        self.create_replicated_topic(topic, partitions, replicas(), configs)
    }

    /// Creates a topic with this many partitions and replicas.
    ///
    /// # Errors
    /// The admin client's error.
    pub fn create_replicated_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        configs: &Value,
    ) -> Result<(), Failure> {
        self.call(&json!({"op": "create_topic", "topic": topic, "partitions": partitions, "replicas": replicas, "configs": configs}))
            .map(drop)
    }

    /// Offset and timestamp for "earliest", "latest", "max_timestamp" or a time in milliseconds.
    ///
    /// # Errors
    /// The admin client's error.
    pub fn list_offset(
        &mut self,
        topic: &str,
        partition: i32,
        at: impl Into<Value>,
    ) -> Result<(i64, i64), Failure> {
        let reply = self.call(
            &json!({"op": "list_offsets", "topic": topic, "partition": partition, "at": at.into()}),
        )?;
        Ok((reply["offset"].as_i64().unwrap_or(-1), reply["timestamp"].as_i64().unwrap_or(-1)))
    }
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_else(|e| {
        panic!("a driver answered {}: {e}", value.to_string().chars().take(400).collect::<String>())
    })
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The driver holds no state worth keeping.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
