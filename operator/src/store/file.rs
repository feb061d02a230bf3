//! The state in one directory, for local mode.
//!
//! Resources are in `kafkaclusters/` and `topics/` as `kubectl` would show them: one JSON object in
//! a file named after its `metadata.name`. Partitions are in `partitions-00` to `partitions-15`,
//! counters and brokers in `registry`, as packed text. SCRAM credentials are in `credentials`,
//! which nobody else may read. A write replaces a whole file: it writes a new file beside the old
//! one, or in `writing/`, flushes it, renames it and flushes the directory. A lock keeps out a
//! second controller. The store refuses damaged content with file and line; it repairs and guesses
//! nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::types::TopicId;

use super::Store;
use super::credentials::{read_credentials, write_credentials};
use super::error::StoreError;
use super::packed::{BadLine, Shard, read_registry, read_shard};
use super::parts::{Parts, registry_text, shard_text};
use super::touched::Touched;
use crate::controller::state::{Change, Cluster, SHARDS, State, Topic};
use crate::controller::{Key, Kind, TOPIC_ID_ANNOTATION};

/// The largest file that is read, above the size of a shard in the largest cluster.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The file of the SCRAM credentials.
const CREDENTIALS: &str = "credentials";

/// The name of a file until it is complete, where the store writes one file at a time.
const HALF_WRITTEN: &str = ".new";

/// The folder of topics' files until they are complete, one for each thread.
const WRITING: &str = "writing";

/// How many threads write topics at most, and how many topics are worth another one.
const WRITERS_MAX: usize = 64;
const TOPICS_OF_WRITER_MIN: usize = 8;

/// The store of one directory. It holds the lock until it is dropped.
#[derive(Debug)]
pub struct FileStore {
    root: PathBuf,
    _lock: File,
}

impl FileStore {
    /// Opens a directory with a state, or a new one.
    ///
    /// # Errors
    /// When another controller holds the lock, or the directory cannot be opened.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        create_dir(&root.join("kafkaclusters"))?;
        create_dir(&root.join("topics"))?;
        create_dir(&root.join(WRITING))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(|source| StoreError::Io {
            action: "create",
            path,
            source,
        })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(root.to_owned())),
            Err(errno) => {
                Err(StoreError::Io { action: "lock", path: root.to_owned(), source: errno.into() })
            }
        }
    }

    /// Whether no cluster was ever created here.
    pub fn is_empty(&self) -> bool {
        !self.root.join("registry").exists()
    }

    /// Creates a cluster.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn create(&mut self, id: String, resource: KafkaCluster) -> Result<(), StoreError> {
        let state = State::new(Cluster::new(id, resource));
        // The registry comes last: its presence makes the directory a cluster's.
        self.write(
            &state,
            &Touched { cluster_resource: true, registry: true, ..Touched::default() },
        )
    }

    /// Creates a cluster from a recovered state. Writes all of it, the registry last.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn recover(&mut self, state: &State) -> Result<(), StoreError> {
        let touched = Touched {
            cluster_resource: true,
            topics: state.topics.keys().copied().collect(),
            shards: (0..SHARDS).collect(),
            credentials: true,
            registry: true,
        };
        self.write(state, &touched)
    }

    /// The topics with a resource here; it works without a registry or partitions.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn topics(&self) -> Result<Vec<weir_crds::Topic>, StoreError> {
        files_in(&self.folder(Kind::Topic))?.iter().map(|path| read_resource(path)).collect()
    }

    /// The changes that make the SCRAM credentials, if their file is here; it works without a
    /// registry.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn credentials(&self) -> Result<Option<Vec<Change>>, StoreError> {
        let path = self.root.join(CREDENTIALS);
        match read(&path) {
            Ok(text) => read_credentials(&text).map(Some).map_err(|bad| damaged(&path, bad)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_all(&self) -> Result<State, StoreError> {
        let path = self.root.join("registry");
        let registry = read_registry(&read(&path)?).map_err(|bad| damaged(&path, bad))?;
        let folder = self.folder(Kind::KafkaCluster);
        let resource = match files_in(&folder)?.first() {
            Some(path) => read_resource::<KafkaCluster>(path)?,
            None => {
                return Err(StoreError::Damaged {
                    path: folder,
                    line: 1,
                    reason: "the KafkaCluster is missing".to_owned(),
                });
            }
        };
        let mut topics = Vec::new();
        for path in files_in(&self.folder(Kind::Topic))? {
            let mut topic = read_resource::<weir_crds::Topic>(&path)?;
            // In local mode a cluster has one namespace, whatever earlier versions wrote.
            topic.metadata.namespace.clone_from(&resource.metadata.namespace);
            topics.push((topic_id(&path, &topic)?, topic));
        }
        let mut shards = Shard::default();
        for shard in 0..SHARDS {
            let path = self.shard_path(shard);
            match read(&path) {
                Ok(text) => shards.extend(read_shard(&text).map_err(|bad| damaged(&path, bad))?),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        check_unique(&self.folder(Kind::Topic), &topics)?;
        let credentials = self.credentials()?.unwrap_or_default();
        Ok(Parts { registry, resource, topics, shards, credentials }.assemble())
    }

    fn write(&self, state: &State, touched: &Touched) -> Result<(), StoreError> {
        if touched.cluster_resource {
            let folder = self.folder(Kind::KafkaCluster);
            write_resource(&folder, state.cluster.name(), &*state.cluster.resource)?;
            sync_dir(&folder)?;
        }
        if !touched.topics.is_empty() {
            let topics: Vec<_> =
                touched.topics.iter().filter_map(|id| state.topics.get(id)).collect();
            self.write_topics(&topics)?;
            sync_dir(&self.folder(Kind::Topic))?;
        }
        for shard in &touched.shards {
            replace(&self.shard_path(*shard), shard_text(state, *shard).as_bytes())?;
        }
        if touched.credentials {
            let path = self.root.join(CREDENTIALS);
            replace_secret(&path, write_credentials(&state.credentials).as_bytes())?;
        }
        if touched.registry {
            replace(&self.root.join("registry"), registry_text(state).as_bytes())?;
        }
        if !touched.shards.is_empty() || touched.credentials || touched.registry {
            sync_dir(&self.root)?;
        }
        Ok(())
    }

    /// Writes the resources of topics, many of them at a time: a file system flushes in one go what
    /// several threads wait for. One after the other, thousands of topics would take so long that
    /// brokers lose their controller.
    fn write_topics(&self, topics: &[&Arc<Topic>]) -> Result<(), StoreError> {
        let folder = self.folder(Kind::Topic);
        let write = |(thread, topics): (usize, &[&Arc<Topic>])| {
            let beside = self.root.join(WRITING).join(thread.to_string());
            topics.iter().try_for_each(|topic| {
                let path = folder.join(&topic.key.name);
                replace_by(&beside, &path, text_of(&path, &topic.resource)?.as_bytes())
            })
        };
        let parts = topics.chunks(topics.len().div_ceil(WRITERS_MAX).max(TOPICS_OF_WRITER_MIN));
        std::thread::scope(|scope| {
            let begin = |part| {
                std::thread::Builder::new()
                    .spawn_scoped(scope, move || write(part))
                    .map_err(io("start a thread for", &folder))
            };
            let threads: Vec<_> = parts.enumerate().map(begin).collect();
            // All are awaited: none may write once this commit has failed.
            let written: Vec<_> = threads
                .into_iter()
                .map(|thread| thread?.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect();
            written.into_iter().collect()
        })
    }

    /// Removes the resources of deleted topics, unless another topic has taken the name.
    fn remove(&self, state: &State, removed: &[Key]) -> Result<(), StoreError> {
        for key in removed.iter().filter(|key| state.topic_by_resource(key).is_none()) {
            let path = self.folder(Kind::Topic).join(&key.name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The folder of a kind. Kubernetes names are safe file names: no slash, no leading dot, at
    /// most 253 bytes.
    fn folder(&self, kind: Kind) -> PathBuf {
        self.root.join(match kind {
            Kind::KafkaCluster => "kafkaclusters",
            Kind::Topic => "topics",
        })
    }

    fn shard_path(&self, shard: u8) -> PathBuf {
        self.root.join(format!("partitions-{shard:02}"))
    }
}

impl Store for FileStore {
    async fn load(&mut self) -> Result<State, StoreError> {
        self.read_all()
    }

    /// Blocks the task. The controller of local mode must not answer before the commit, and has
    /// nothing else to do.
    async fn commit(&mut self, state: &State, changes: &[Change]) -> Result<(), StoreError> {
        let removed: Vec<Key> = changes
            .iter()
            .filter_map(|change| match change {
                Change::RemoveTopic(_, key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        self.remove(state, &removed)?;
        self.write(state, &Touched::by(changes))
    }
}

/// The files of a folder in the order of their names, without an incomplete one left by a crash.
pub(crate) fn files_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if path.file_name().is_some_and(|name| name != HALF_WRITTEN) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes a resource to the file of its name. The caller flushes the directory.
pub(crate) fn write_resource(
    folder: &Path,
    name: &str,
    resource: &impl serde::Serialize,
) -> Result<(), StoreError> {
    let path = folder.join(name);
    replace(&path, text_of(&path, resource)?.as_bytes())
}

fn text_of(path: &Path, resource: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string_pretty(resource).map_err(|error| StoreError::Io {
        action: "encode",
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Reads a file that [`write_resource`] wrote.
pub(crate) fn read_resource<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    serde_json::from_str(&read(path)?).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        line: error.line(),
        reason: error.to_string(),
    })
}

fn topic_id(path: &Path, topic: &weir_crds::Topic) -> Result<TopicId, StoreError> {
    let id = topic
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(TOPIC_ID_ANNOTATION))
        .and_then(|id| Uuid::parse_str(id).ok());
    let reason = || format!("the annotation {TOPIC_ID_ANNOTATION} is missing or is no UUID");
    id.map(TopicId).ok_or_else(|| StoreError::Damaged {
        path: path.to_owned(),
        line: 1,
        reason: reason(),
    })
}

/// Refuses two files with one topic id or one topic name. The store never wrote such a state.
fn check_unique(folder: &Path, topics: &[(TopicId, weir_crds::Topic)]) -> Result<(), StoreError> {
    let mut ids = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (id, topic) in topics {
        let resource = topic.metadata.name.as_deref().unwrap_or_default();
        let other =
            ids.insert(*id, resource).or_else(|| names.insert(topic.topic_name(), resource));
        if let Some(other) = other {
            let reason =
                format!("the topics {other:?} and {resource:?} have one id or one topicName");
            return Err(StoreError::Damaged { path: folder.join(resource), line: 1, reason });
        }
    }
    Ok(())
}

fn damaged(path: &Path, bad: BadLine) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), line: bad.line, reason: bad.reason }
}

fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

/// Creates a directory if it does not exist.
pub(crate) fn create_dir(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(io("create", path))
}

fn read(path: &Path) -> Result<String, StoreError> {
    let mut text = String::new();
    let file = File::open(path).map_err(io("open", path))?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(io("read", path))?;
    Ok(text)
}

/// Replaces a file atomically: after a crash it is the old one or the new one. The caller flushes
/// the directory.
fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    replace_by(&path.with_file_name(HALF_WRITTEN), path, content)
}

/// Replaces a file that only the owner of the process may read.
fn replace_secret(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let beside = path.with_file_name(HALF_WRITTEN);
    // One that a crash has left may be readable for others.
    match fs::remove_file(&beside) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(io("remove", &beside)(source));
        }
        _ => {}
    }
    let file = File::options().write(true).create_new(true).mode(0o600).open(&beside);
    write_and_rename(file.map_err(io("create", &beside))?, &beside, path, content)
}

/// Does the same by way of the file `beside`, of which nobody else makes use.
fn replace_by(beside: &Path, path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let file = File::create(beside).map_err(io("create", beside))?;
    write_and_rename(file, beside, path, content)
}

fn write_and_rename(
    mut file: File,
    beside: &Path,
    path: &Path,
    content: &[u8],
) -> Result<(), StoreError> {
    file.write_all(content).map_err(io("write", beside))?;
    file.sync_data().map_err(io("flush", beside))?;
    fs::rename(beside, path).map_err(io("rename", beside))
}

/// Flushes a directory, so that its entries are durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io("flush", path))
}
