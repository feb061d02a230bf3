//! The log of a partition whose topic is deleted and created anew, or moves away and comes back.

use std::path::Path;
use std::sync::mpsc::channel;

use uuid::Uuid;
use weir_protocol::batch::BatchHeader;
use weir_protocol::controller as rpc;
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{ControllerEpoch, LeaderEpoch, PartitionEpoch};
use weir_settings::broker_key;

use super::*;
use weir_log::{AppendError, Disk, Identity, LogDirOptions, Origin, Prepared};

const OWN: BrokerId = BrokerId(0);

/// Not an expectation of speed: the bound only turns a hang into a failure.
const LOST: Duration = Duration::from_secs(60);

fn open(root: &Path) -> LogDir {
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let options = LogDirOptions { open_files_max: 10, recovery_threads: 1 };
    LogDir::open(Arc::new(Disk), root, &identity, options).unwrap()
}

fn id(topic: u128) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(topic)), index: 0 }
}

fn topic(number: u128) -> TopicImage {
    let partition = PartitionImage {
        replicas: [OWN].into(),
        isr: [OWN].into(),
        elr: [].into(),
        leader: Some(OWN),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        adding: [].into(),
        removing: [].into(),
        recovering: false,
    };
    TopicImage {
        id: id(number).topic,
        name: "orders".into(),
        internal: false,
        configs: Arc::default(),
        partitions: vec![partition],
    }
}

fn append(partition: &Arc<Partition>) -> Result<i64, AppendError> {
    let (answer, answered) = channel();
    partition.spawn_on_writer(move |writer| {
        let mut builder = BatchBuilder::new(0);
        builder.append(0, 1_000, None, Some(b"v"), []);
        let bytes = builder.build(0).unwrap();
        let append = Prepared {
            headers: vec![BatchHeader::parse(&bytes).unwrap()],
            bytes,
            origin: Origin::Client(None),
        };
        let result = writer.append_as_leader(&mut [append], LeaderEpoch(0), 1_000).remove(0);
        answer.send(result.map(|info| info.first_offset)).unwrap();
    });
    answered.recv().unwrap()
}

/// Once with a new topic of the same name, once with the same partition that has moved away and
/// comes back.
#[test]
fn what_is_made_anew_waits_for_the_writer_of_what_is_deleted() {
    for next in [2, 1] {
        let root = tempfile::tempdir().unwrap();
        let replicas = Replicas::new(OWN, open(root.path()));
        let image = MetadataImage::default();
        replicas.apply_topic(&image, &topic(1), Fate::Deleted);
        let old = replicas.get(id(1)).unwrap();
        assert_eq!([append(&old), append(&old), append(&old)], [Ok(0), Ok(1), Ok(2)]);
        let ((at_work, begun), (go_on, goes_on)) = (channel(), channel());
        let busy = Arc::clone(&old);
        let worker = std::thread::spawn(move || {
            busy.spawn_on_writer(move |writer| {
                at_work.send(()).unwrap();
                goes_on.recv().unwrap();
                writer.roll(1_000).unwrap();
            });
        });
        begun.recv().unwrap();
        replicas.give_up(&topic(1), Fate::Deleted);
        assert!(replicas.leaving.wait_until_done(LOST));
        // DeleteRecords and compaction can arrive this late.
        old.spawn_on_writer(|_| panic!("what comes behind the deletion is not done"));
        replicas.apply_topic(&image, &topic(next), Fate::Deleted);
        let new = replicas.get(id(next)).unwrap();
        assert_eq!(append(&new), Err(AppendError::Nameless));
        go_on.send(()).unwrap();
        worker.join().unwrap();
        assert_eq!([append(&new), append(&new)], [Ok(0), Ok(1)]);
        assert_eq!(replicas.log_dir().failure(), None);
        drop((replicas, old, new));
        let dir = open(root.path());
        let again = dir.open_log(id(next), &"orders".into(), Arc::default()).unwrap();
        assert_eq!(again.reader().log_end_offset(), 2);
    }
}

fn told(version: u64, full: bool, replicas: &[(u8, i32)]) -> rpc::MetadataUpdate {
    let topic = |(id, replica): &(u8, i32)| rpc::Topic {
        id: vec![*id; 16],
        name: format!("topic-{id}"),
        partitions: vec![rpc::Partition {
            replicas: vec![*replica],
            isr: vec![*replica],
            leader: *replica,
            ..Default::default()
        }],
        ..Default::default()
    };
    rpc::MetadataUpdate {
        version,
        full,
        topics: replicas.iter().map(topic).collect(),
        ..Default::default()
    }
}

/// A restored controller: its state is older than the broker's, or it has placed the partitions
/// anew. The broker either resumed the previous run, or got its whole image from the controller
/// before.
#[test]
fn what_a_new_controller_does_not_know_of_is_set_aside() {
    for goes_on in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let replicas = Replicas::new(OWN, open(root.path()));
        let ending = |suffix: &str| {
            assert!(replicas.leaving.wait_until_done(LOST));
            let entries = std::fs::read_dir(root.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap());
            entries.filter(|name| name.ends_with(suffix)).count()
        };
        let none = MetadataImage::default();
        let (known, touched) = none
            .after(ControllerEpoch(1), &told(9, true, &[(1, 0), (2, 0), (3, 0), (4, 0)]))
            .unwrap();
        match goes_on {
            true => replicas.resume(&known),
            false => replicas.apply(&none, &known, &touched),
        }
        for partition in replicas.all() {
            append(&partition).unwrap();
        }
        // One topic is unknown, and another one is on another broker.
        let (restored, touched) =
            known.after(ControllerEpoch(2), &told(4, true, &[(1, 0), (2, 7), (4, 0)])).unwrap();
        replicas.apply(&known, &restored, &touched);
        assert_eq!((replicas.count().0, ending("-stray"), ending("-delete")), (2, 2, 0));
        // A controller may remove what it has assigned itself: by a change, or by a full image in a
        // new session.
        let removal = rpc::MetadataUpdate {
            version: 5,
            removed_topics: vec![vec![4; 16]],
            ..Default::default()
        };
        let (without, touched) = restored.after(ControllerEpoch(2), &removal).unwrap();
        replicas.apply(&restored, &without, &touched);
        assert_eq!((replicas.count().0, ending("-stray"), ending("-delete")), (1, 2, 1));
        let (empty, touched) =
            without.after(ControllerEpoch(2), &told(6, true, &[(2, 7)])).unwrap();
        replicas.apply(&without, &empty, &touched);
        assert_eq!((replicas.count().0, ending("-stray"), ending("-delete")), (0, 2, 2));
    }
}

/// A stop of the whole cluster does this: the leaders of each stopping broker move to others, which
/// learn of it while they stop themselves.
#[test]
fn what_is_told_while_the_logs_are_closed_opens_none_in_their_place() {
    let root = tempfile::tempdir().unwrap();
    let replicas = Arc::new(Replicas::new(OWN, open(root.path())));
    let told = |version| told(version, true, &[(1, 0), (2, 0)]);
    let none = MetadataImage::default();
    let (known, touched) = none.after(ControllerEpoch(1), &told(1)).unwrap();
    replicas.apply(&none, &known, &touched);
    let partitions = replicas.all();
    partitions.iter().for_each(|partition| assert_eq!(append(partition), Ok(0)));
    let ((at_work, begun), (go_on, goes_on)) = (channel(), channel());
    let busy = Arc::clone(&partitions[0]);
    let worker = std::thread::spawn(move || {
        busy.spawn_on_writer(move |_| {
            at_work.send(()).unwrap();
            goes_on.recv().unwrap();
        });
    });
    begun.recv().unwrap();
    let closing = Arc::clone(&replicas);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let closing = std::thread::spawn(move || runtime.block_on(closing.close()));
    while replicas.count().0 > 0 {
        std::thread::yield_now();
    }
    let (next, touched) = known.after(ControllerEpoch(1), &told(2)).unwrap();
    replicas.apply(&known, &next, &touched);
    // A leader with an empty log would have its followers cut theirs.
    assert_eq!(replicas.count().0, 0, "nothing is opened");
    go_on.send(()).unwrap();
    worker.join().unwrap();
    closing.join().unwrap().unwrap();
    drop((replicas, partitions));
    let dir = open(root.path());
    assert!(dir.left().orderly);
    for topic in [1, 2] {
        let id = TopicPartition { topic: TopicId(Uuid::from_bytes([topic; 16])), index: 0 };
        let log = dir.open_log(id, &format!("topic-{topic}").into(), Arc::default()).unwrap();
        assert_eq!(log.reader().log_end_offset(), 1, "topic-{topic}");
    }
}

/// The controller client must not wait for a flush of another log, however many partitions go.
#[test]
fn who_gives_up_a_topic_waits_for_no_flush() {
    let root = tempfile::tempdir().unwrap();
    let replicas = Replicas::new(OWN, open(root.path()));
    replicas.apply_topic(&MetadataImage::default(), &topic(1), Fate::Deleted);
    let old = replicas.get(id(1)).unwrap();
    append(&old).unwrap();
    let turn = replicas.log_dir().hold_flushes();
    replicas.give_up(&topic(1), Fate::Deleted);
    assert!(old.is_retired() && replicas.get(id(1)).is_none());
    drop(turn);
    assert!(replicas.leaving.wait_until_done(LOST));
    assert!(old.log().is_deleted());
}

/// `LogConfig::default` is for tests, and for settings that make no sense: it repeats the tables.
#[test]
fn a_log_without_settings_goes_by_the_defaults_of_the_tables() {
    let default = |key: &&str| {
        let of_topic = topic_key(key).and_then(|known| known.default);
        let of_broker = || broker_key(key).and_then(|known| known.default);
        let value = of_topic.or_else(of_broker).unwrap_or_else(|| panic!("{key}"));
        ((*key).to_owned(), value.to_owned())
    };
    let defaults: BTreeMap<_, _> = LogConfig::KEYS.iter().map(default).collect();
    assert_eq!(LogConfig::parse(&defaults), (LogConfig::default(), Vec::new()));
}

/// A topic whose settings were taken goes by them, however they are written.
#[test]
fn a_log_understands_every_setting_that_is_taken() {
    let bounds = [i64::MIN, -99, -2, -1, 0, 1, 9, 99, 20_000_000, i64::from(i32::MAX), i64::MAX];
    let numbers = bounds.iter().flat_map(|it| [it.to_string(), format!(" +{it} ")]);
    let words = [
        "",
        "TRUE",
        " false",
        "1e-1",
        "0.5",
        "delete",
        "compact , delete",
        "producer",
        "zstd",
        "uncompressed",
        "gzip",
        "snappy",
        "lz4",
        "CreateTime",
        "LogAppendTime",
        "group",
        "none",
        "full",
        "header",
    ];
    let texts: Vec<String> = numbers.chain(words.map(str::to_owned)).collect();
    let mut taken = 0;
    for key in LogConfig::KEYS {
        let Some(setting) = topic_key(key) else { continue };
        for text in texts.iter().filter(|text| setting.parse(text).is_ok()) {
            let set = log_settings(|it| (it == key).then_some(Cow::Borrowed(text.as_str())));
            let (_, invalid) = LogConfig::parse(&set);
            assert!(invalid.is_empty(), "{key}={text}: {invalid:?}");
            taken += 1;
        }
    }
    assert!(taken > 100, "{taken}");
}
