//! The packed text of a shard and of the registry: a versioned first line, then a line for each
//! partition or broker. A retained topic also has a line with its resource, because it outlives a
//! deletion that no controller saw. So has a topic whose resource is in another namespace than the
//! cluster's: the line names that resource. A version that does not know of other namespaces
//! retains such a topic.
//!
//! It is one string instead of structured fields, because an API server walks every field of an
//! object on each write. A person can still read it. A reader refuses, with its line, whatever
//! [`write_shard`] and [`write_registry`] would not write exactly so. The exception are parts of a
//! retained topic that only another version of Weir knows: they are left out. Never touches a file.
//!
//! ```text
//! weir-partitions 3
//! 5c5e8a1e-... 0 r=0,1,2 a=2 d= i=0,1 e= l=0 le=3 pe=7 k= u=0
//! retain 5c5e8a1e-... {"namespace":"payments","name":"orders","spec":{...}}
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;
use weir_crds::Topic;
use weir_protocol::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId,
};

use super::lenient::topic_spec;
use crate::controller::state::{Broker, Endpoint, Features, Partition};

const SHARD_HEADER: &str = "weir-partitions 3";
/// The header of the format without retained topics.
const SHARD_HEADER_BEFORE: &str = "weir-partitions 2";
/// The start of a retained topic's line.
const RETAIN: &str = "retain ";
const REGISTRY_HEADER: &str = "weir-registry 2";
/// The last line of every text; it shows that the text is complete.
pub(super) const END: &str = "end";

/// A line that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The counters and the brokers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The cluster's id in the Kafka protocol.
    pub cluster_id: String,
    /// The epoch of the controller that wrote this.
    pub controller_epoch: ControllerEpoch,
    /// The epoch that the next registration gets.
    pub next_broker_epoch: BrokerEpoch,
    /// The first producer id that is not handed out.
    pub next_producer_id: i64,
    /// The finalised features.
    pub features: Features,
    /// The registered brokers.
    pub brokers: Vec<Broker>,
}

/// The contents of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shard {
    /// The partitions of each topic, in order and without gaps.
    pub partitions: BTreeMap<TopicId, Vec<Partition>>,
    /// The resources of topics that are retained, or are in another namespace than the cluster's,
    /// with name and spec only. A resource without a namespace is in the cluster's.
    pub kept: BTreeMap<TopicId, Topic>,
}

/// A resource that is kept with its partitions.
#[derive(Deserialize, Serialize)]
struct Retained<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
    spec: Value,
}

/// The text of a shard. `home` is the cluster's namespace, which the text omits.
pub fn write_shard<'a>(
    partitions: impl Iterator<Item = (TopicId, i32, &'a Partition)>,
    kept: impl Iterator<Item = (TopicId, &'a Topic)>,
    home: &str,
) -> String {
    let mut text = format!("{SHARD_HEADER}\n");
    for (topic, index, partition) in partitions {
        let Partition {
            replicas,
            isr,
            elr,
            adding,
            removing,
            leader,
            leader_epoch,
            partition_epoch,
            last_known_leader,
            recovering,
        } = partition;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} {index} r={} a={} d={} i={} e={} l={} le={leader_epoch} pe={partition_epoch} k={} u={}",
            topic.0,
            Ids(replicas),
            Ids(adding),
            Ids(removing),
            Ids(isr),
            Ids(elr),
            Ids(leader.as_slice()),
            Ids(last_known_leader.as_slice()),
            u8::from(*recovering),
        );
    }
    for (id, topic) in kept {
        let namespace = topic.metadata.namespace.as_deref().filter(|namespace| *namespace != home);
        let resource = Retained {
            namespace: namespace.map(Into::into),
            name: topic.metadata.name.as_deref().unwrap_or_default().into(),
            // Serialising names and settings cannot fail either.
            spec: serde_json::to_value(&topic.spec).unwrap_or_default(),
        };
        let json = serde_json::to_string(&resource).unwrap_or_default();
        let _ = writeln!(text, "{RETAIN}{} {json}", id.0);
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// Parses the text of a shard.
///
/// # Errors
/// The first invalid line.
pub fn read_shard(text: &str) -> Result<Shard, BadLine> {
    let mut shard = Shard::default();
    let header =
        if text.starts_with(SHARD_HEADER_BEFORE) { SHARD_HEADER_BEFORE } else { SHARD_HEADER };
    for (line, content) in lines(text, header)? {
        let bad = |reason: String| BadLine { line, reason };
        if let Some(content) = content.strip_prefix(RETAIN) {
            let (id, topic) = read_retained(content).map_err(bad)?;
            if shard.kept.insert(id, topic).is_some() {
                return Err(bad(format!("{} is retained twice", id.0)));
            }
            continue;
        }
        let (topic, index, partition) = read_partition(content).map_err(bad)?;
        let partitions = shard.partitions.entry(topic).or_default();
        if usize::try_from(index) != Ok(partitions.len()) {
            return Err(bad(format!(
                "partition {index} of {} does not follow its predecessor",
                topic.0
            )));
        }
        partitions.push(partition);
    }
    Ok(shard)
}

/// The text of the registry.
pub fn write_registry(registry: &Registry) -> String {
    let Registry {
        cluster_id,
        controller_epoch,
        next_broker_epoch,
        next_producer_id,
        features,
        brokers,
    } = registry;
    let mut text = format!(
        "{REGISTRY_HEADER}\ncluster id={cluster_id} ce={controller_epoch} be={next_broker_epoch} pid={next_producer_id}\n"
    );
    let _ = write!(text, "features e={}", features.epoch);
    for (name, level) in &features.levels {
        let _ = write!(text, " {}={level}", escape(name));
    }
    text.push('\n');
    for broker in brokers {
        let Broker { id, epoch, incarnation, log_dir, endpoints, rack, fenced, shutting_down } =
            broker;
        let _ = write!(
            text,
            "broker {id} be={epoch} inc={incarnation} dir={log_dir} fenced={fenced} down={shutting_down} rack={}",
            escape(rack.as_deref().unwrap_or_default())
        );
        for Endpoint { listener, host, port, security_protocol } in endpoints {
            let _ = write!(
                text,
                " {},{},{port},{}",
                escape(listener),
                escape(host),
                escape(security_protocol)
            );
        }
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// Parses the text of the registry.
///
/// # Errors
/// The first invalid line.
pub fn read_registry(text: &str) -> Result<Registry, BadLine> {
    let mut lines = lines(text, REGISTRY_HEADER)?.into_iter();
    let (line, content) = lines.next().ok_or_else(|| BadLine {
        line: 2,
        reason: "the line of the cluster is missing".to_owned(),
    })?;
    let mut registry = read_cluster(content).map_err(|reason| BadLine { line, reason })?;
    let (line, content) = lines.next().ok_or_else(|| BadLine {
        line: 3,
        reason: "the line of the features is missing".to_owned(),
    })?;
    registry.features = read_features(content).map_err(|reason| BadLine { line, reason })?;
    for (line, content) in lines {
        let broker = read_broker(content).map_err(|reason| BadLine { line, reason })?;
        if registry.brokers.iter().any(|other| other.id == broker.id) {
            return Err(BadLine { line, reason: format!("broker {} is there twice", broker.id) });
        }
        registry.brokers.push(broker);
    }
    Ok(registry)
}

/// The lines between the header and the end, with their numbers.
pub(super) fn lines<'a>(text: &'a str, header: &str) -> Result<Vec<(usize, &'a str)>, BadLine> {
    let mut lines: Vec<(usize, &str)> = (1..).zip(text.split('\n')).collect();
    match lines.first() {
        Some((_, first)) if *first == header => {}
        Some((_, first)) => {
            let kind = |line: &str| line.split(' ').next().map(str::to_owned);
            let why = if kind(first) == kind(header) {
                ", the format of this version of Weir"
            } else {
                ""
            };
            return Err(BadLine {
                line: 1,
                reason: format!(
                    "{:?} is not {header:?}{why}",
                    first.chars().take(60).collect::<String>()
                ),
            });
        }
        None => {
            return Err(BadLine { line: 1, reason: "the file is empty".to_owned() });
        }
    }
    let count = lines.len();
    let last = (lines.pop(), lines.pop());
    if !matches!(last, (Some((_, "")), Some((_, END)))) {
        return Err(BadLine {
            line: count,
            reason: format!("the text does not end in {END:?}: it was cut off"),
        });
    }
    lines.remove(0);
    Ok(lines)
}

fn read_retained(line: &str) -> Result<(TopicId, Topic), String> {
    let (id, json) = line.split_once(' ').ok_or("the resource is missing")?;
    let Retained { namespace, name, spec } =
        serde_json::from_str(json).map_err(|error| format!("no resource of a topic: {error}"))?;
    let id = TopicId(parse(Some(id), "the topic's id")?);
    let (spec, left_out) =
        topic_spec(&spec).ok_or("no resource of a topic: its spec names no cluster")?;
    if !left_out.is_empty() {
        warn!(topic = %name, left_out = left_out.join(", "), "a topic was kept by another version, and is read without what this one cannot read");
    }
    let mut topic = Topic::new(&name, spec);
    topic.metadata.namespace = namespace.map(Cow::into_owned);
    Ok((id, topic))
}

fn read_partition(line: &str) -> Result<(TopicId, i32, Partition), String> {
    let mut words = line.split(' ');
    let topic = TopicId(parse(words.next(), "the topic's id")?);
    let index = parse(words.next(), "the partition's index")?;
    let partition = Partition {
        replicas: ids(field(&mut words, "r")?)?,
        adding: ids(field(&mut words, "a")?)?,
        removing: ids(field(&mut words, "d")?)?,
        isr: ids(field(&mut words, "i")?)?,
        elr: ids(field(&mut words, "e")?)?,
        leader: one(field(&mut words, "l")?)?,
        leader_epoch: LeaderEpoch(count(field(&mut words, "le")?, "le")?),
        partition_epoch: PartitionEpoch(count(field(&mut words, "pe")?, "pe")?),
        last_known_leader: one(field(&mut words, "k")?)?,
        recovering: flag(field(&mut words, "u")?, "u")?,
    };
    nothing_left(words)?;
    partition.check()?;
    Ok((topic, index, partition))
}

fn read_cluster(line: &str) -> Result<Registry, String> {
    let mut words = line.split(' ');
    if words.next() != Some("cluster") {
        return Err("the line of the cluster is missing".to_owned());
    }
    let registry = Registry {
        cluster_id: field(&mut words, "id")?.to_owned(),
        controller_epoch: ControllerEpoch(count(field(&mut words, "ce")?, "ce")?),
        next_broker_epoch: BrokerEpoch(count(field(&mut words, "be")?, "be")?),
        next_producer_id: count(field(&mut words, "pid")?, "pid")?,
        features: Features::default(),
        brokers: Vec::new(),
    };
    nothing_left(words)?;
    Ok(registry)
}

fn read_features(line: &str) -> Result<Features, String> {
    let mut words = line.split(' ');
    if words.next() != Some("features") {
        return Err("the line of the features is missing".to_owned());
    }
    let mut features =
        Features { epoch: count(field(&mut words, "e")?, "e")?, levels: BTreeMap::new() };
    for word in words {
        let (name, level) =
            word.split_once('=').ok_or_else(|| format!("{word:?} is no feature"))?;
        let level = count(level, "a feature's level")?;
        if features.levels.insert(unescape(name)?, level).is_some() {
            return Err(format!("the feature {name} is there twice"));
        }
    }
    Ok(features)
}

fn read_broker(line: &str) -> Result<Broker, String> {
    let mut words = line.split(' ');
    if words.next() != Some("broker") {
        return Err("the line is not a broker's".to_owned());
    }
    let mut broker = Broker {
        id: BrokerId(count(words.next().unwrap_or_default(), "the broker's id")?),
        epoch: BrokerEpoch(count(field(&mut words, "be")?, "be")?),
        incarnation: parse::<Uuid>(Some(field(&mut words, "inc")?), "inc")?,
        log_dir: parse::<Uuid>(Some(field(&mut words, "dir")?), "dir")?,
        fenced: parse(Some(field(&mut words, "fenced")?), "fenced")?,
        shutting_down: parse(Some(field(&mut words, "down")?), "down")?,
        rack: Some(unescape(field(&mut words, "rack")?)?).filter(|rack| !rack.is_empty()),
        endpoints: Vec::new(),
    };
    for word in words {
        let parts: Vec<&str> = word.split(',').collect();
        let [listener, host, port, protocol] = parts.as_slice() else {
            return Err(format!("{word:?} is no endpoint"));
        };
        broker.endpoints.push(Endpoint {
            listener: unescape(listener)?,
            host: unescape(host)?,
            port: parse(Some(port), "a port")?,
            security_protocol: unescape(protocol)?,
        });
    }
    Ok(broker)
}

fn field<'a>(words: &mut impl Iterator<Item = &'a str>, name: &str) -> Result<&'a str, String> {
    let word = words.next().ok_or_else(|| format!("{name}= is missing"))?;
    word.strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('='))
        .ok_or_else(|| format!("{word:?} stands where {name}= belongs"))
}

fn parse<T: FromStr>(word: Option<&str>, what: &str) -> Result<T, String> {
    let word = word.unwrap_or_default();
    word.parse().map_err(|_| format!("{word:?} is not {what}"))
}

/// Parses a number that must not be negative.
fn count<T: FromStr + PartialOrd + Default>(word: &str, what: &str) -> Result<T, String> {
    let number = parse::<T>(Some(word), what)?;
    if number < T::default() { Err(format!("{what} is negative")) } else { Ok(number) }
}

fn flag(word: &str, what: &str) -> Result<bool, String> {
    match word {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{what} is neither 0 nor 1")),
    }
}

fn ids(word: &str) -> Result<Vec<BrokerId>, String> {
    word.split(',')
        .filter(|id| !id.is_empty())
        .map(|id| count(id, "a broker's id").map(BrokerId))
        .collect()
}

fn one(word: &str) -> Result<Option<BrokerId>, String> {
    if word.is_empty() {
        Ok(None)
    } else {
        count(word, "a broker's id").map(|id| Some(BrokerId(id)))
    }
}

fn nothing_left<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<(), String> {
    words.next().map_or(Ok(()), |word| Err(format!("{word:?} is one word too many")))
}

/// Broker ids separated by commas.
struct Ids<'a>(&'a [BrokerId]);

impl std::fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, id) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{id}")?;
        }
        Ok(())
    }
}

/// Escapes free text, such as rack and host names: every other character becomes `%` and
/// six hexadecimal digits.
fn escape(text: &str) -> String {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '/');
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if plain(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "%{:06x}", u32::from(c));
        }
    }
    escaped
}

fn unescape(text: &str) -> Result<String, String> {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) =
            part.split_at_checked(6).ok_or_else(|| format!("{text:?} has a broken escape"))?;
        let c = u32::from_str_radix(code, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(|| format!("{text:?} has a broken escape"))?;
        plain.push(c);
        plain.push_str(rest);
    }
    Ok(plain)
}
