//! The shell's order of events, with a clock that the test sets.

use std::time::Duration;

use weir_protocol::messages::CreateTopicsRequest;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::types::ControllerEpoch;

use super::*;
use crate::controller::AdminRequest;
use crate::controller::state::Endpoint;
use crate::store::file::FileStore;

/// A broker's stream.
const STREAM: StreamId = StreamId(7);

/// A shell whose clock shows `now`; broker 0 registered at 0 and is ready.
async fn shell(
    root: &std::path::Path,
    now: Timestamp,
) -> (ControllerRuntime<FileStore>, mpsc::Receiver<Result<rpc::ControllerMessage, Status>>) {
    let mut store = FileStore::open(root).unwrap();
    let resource = serde_json::json!({"metadata": {"name": "test"}, "spec": {}, "apiVersion": "weir.dev/v1alpha1", "kind": "KafkaCluster"});
    store.create("id".to_owned(), serde_json::from_value(resource).unwrap()).unwrap();
    let clock = Clock::start();
    let (state, sessions) = take_over_from(&mut store, &clock, Timestamp(0)).await.unwrap();
    let (calls, _) = mpsc::channel(1);
    let mut shell = ControllerRuntime {
        publish: watch::Sender::new(state.clone()),
        store,
        state,
        sessions,
        streams: BTreeMap::new(),
        balanced_at: clock.now(),
        excused_at: None,
        excused_until: Timestamp(0),
        clock,
        calls: calls.downgrade(),
        door: Arc::new(Door::new(clock)),
        counted: Counted::default(),
    };
    let (out, told) = mpsc::channel(STREAM_MESSAGES_MAX);
    shell.batch(vec![Command::Open(registration(), STREAM, out)], Timestamp(0)).await.unwrap();
    let heartbeat = heartbeat(&shell);
    shell.batch(vec![heartbeat], Timestamp(0)).await.unwrap();
    assert!(shell.state.is_usable(BrokerId(0)));
    // From here on, this much time has passed.
    shell.clock.started -= Duration::from_millis(now.0);
    (shell, told)
}

fn registration() -> Registration {
    Registration {
        broker: BrokerId(0),
        cluster_id: "id".to_owned(),
        incarnation: uuid::Uuid::from_u128(1),
        log_dir: uuid::Uuid::from_u128(2),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
            security_protocol: "PLAINTEXT".to_owned(),
        }],
        rack: None,
        previous_epoch: None,
        clean: true,
        controller_epoch: ControllerEpoch(0),
        leader_epochs: Vec::new(),
        is_certified: false,
    }
}

fn heartbeat(shell: &ControllerRuntime<FileStore>) -> Command {
    let heartbeat = Heartbeat {
        broker: BrokerId(0),
        epoch: shell.state.brokers[&BrokerId(0)].epoch,
        applied_version: shell.state.version,
        ready: true,
        wants_shutdown: false,
        log_dir_failed: false,
    };
    Command::Heartbeat(heartbeat, STREAM)
}

/// A minute passes between the controller's wake-up and the end of its decisions.
#[tokio::test]
async fn nobody_is_fenced_for_a_decision_that_takes_long() {
    let root = tempfile::tempdir().unwrap();
    let (mut shell, _told) = shell(root.path(), Timestamp(60_000)).await;
    shell.batch(Vec::new(), Timestamp(100)).await.unwrap();
    assert!(shell.state.is_usable(BrokerId(0)), "its time was not up when the controller woke");
    shell.batch(Vec::new(), Timestamp(60_000)).await.unwrap();
    assert!(!shell.state.is_usable(BrokerId(0)), "it was silent for a minute");
}

/// The mailbox is full of other callers' calls, and the broker's heartbeat waits behind them.
#[tokio::test]
async fn who_waits_at_the_door_is_alive() {
    let root = tempfile::tempdir().unwrap();
    let (mut shell, _told) = shell(root.path(), Timestamp(60_000)).await;
    shell.door = Arc::new(Door::new(shell.clock));
    shell.door.note(BrokerId(0), STREAM);
    shell.batch(Vec::new(), Timestamp(60_000)).await.unwrap();
    assert!(shell.state.is_usable(BrokerId(0)));
    // A replaced stream does not count.
    shell.clock.started -= Duration::from_millis(60_000);
    shell.door.note(BrokerId(0), StreamId(STREAM.0 + 1));
    shell.batch(Vec::new(), Timestamp(120_000)).await.unwrap();
    assert!(!shell.state.is_usable(BrokerId(0)));
}

/// The controller has a new address, and the broker does not know it yet.
#[tokio::test]
async fn who_does_not_know_yet_where_the_controller_is_is_not_fenced() {
    let root = tempfile::tempdir().unwrap();
    let (mut shell, _told) = shell(root.path(), Timestamp(0)).await;
    (shell.excused_until, shell.clock) = (Timestamp(180_000), Clock::start());
    shell.read_anew().await.unwrap();
    assert_eq!(shell.sessions.unheard(), [BrokerId(0)]);
    shell.batch(Vec::new(), Timestamp(179_999)).await.unwrap();
    assert!(shell.state.is_usable(BrokerId(0)));
    shell.batch(Vec::new(), Timestamp(180_000)).await.unwrap();
    assert!(!shell.state.is_usable(BrokerId(0)), "it did not come");
    assert_eq!(shell.sessions.unheard(), []);
}

/// Clients' requests take seconds to decide. A heartbeat that arrives with them is answered first,
/// and the remaining requests wait behind the next heartbeats.
#[tokio::test]
async fn a_heartbeat_does_not_wait_for_all_that_clients_ask_for() {
    const REQUESTS: usize = 200;
    let root = tempfile::tempdir().unwrap();
    let (mut shell, mut told) = shell(root.path(), Timestamp(0)).await;
    let topic = |number: usize| CreatableTopic {
        name: format!("topic-{number}"),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: (0..2_000).map(topic).collect(),
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let epoch = shell.state.brokers[&BrokerId(0)].epoch;
    let mut answers = Vec::new();
    let asks = (0..REQUESTS).map(|_| {
        let (tell, answer) = oneshot::channel();
        answers.push(answer);
        let request = AdminRequest::CreateTopics(request.clone());
        let event = Event::Admin { broker: BrokerId(0), epoch, request };
        Command::Ask(event, tell)
    });
    let mut calls: Vec<_> = asks.collect();
    calls.push(heartbeat(&shell));
    while told.try_recv().is_ok() {}
    let left = shell.batch(calls, Timestamp(0)).await.unwrap();
    assert!(!left.is_empty() && left.len() < REQUESTS, "{} are left", left.len());
    let heard = told.try_recv().unwrap().unwrap().message;
    assert!(
        matches!(heard, Some(rpc::controller_message::Message::HeartbeatReply(_))),
        "{heard:?}"
    );
    assert_eq!(
        answers.iter_mut().filter_map(|answer| answer.try_recv().ok()).count(),
        REQUESTS - left.len()
    );
}

/// As on a full disk, until somebody frees space.
#[tokio::test]
async fn a_file_system_that_refuses_is_tried_again_until_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (root, away) = (folder.path().join("state"), folder.path().join("away"));
    std::fs::create_dir(&root).unwrap();
    let (mut shell, _told) = shell(&root, Timestamp(0)).await;
    let epoch = shell.state.cluster.controller_epoch;
    std::fs::rename(&root, &away).unwrap();
    let mut reads = Box::pin(shell.read_anew());
    assert!(
        tokio::time::timeout(Duration::from_millis(400), &mut reads).await.is_err(),
        "it is tried again"
    );
    std::fs::rename(&away, &root).unwrap();
    reads.await.unwrap();
    assert!(shell.state.cluster.controller_epoch > epoch);
    assert!(shell.state.brokers.contains_key(&BrokerId(0)), "with all that was committed");
}

#[tokio::test]
async fn unclean_elections_are_counted_once_they_are_committed() {
    let root = tempfile::tempdir().unwrap();
    let (mut shell, _told) = shell(root.path(), Timestamp(0)).await;
    let topic = weir_protocol::types::TopicId(uuid::Uuid::from_u128(7));
    let before = shell.state.clone();
    let elections = [0, 1].map(|index| Change::UncleanElection(topic, index));
    assert!(matches!(shell.commit(&before, &elections).await.unwrap(), Committed::Done));
    assert_eq!(shell.counted.unclean_elections(), 2);
}

/// Who came while the broker was known as one without a certificate does not keep it out.
#[tokio::test]
async fn who_has_a_certificate_ends_the_session_of_who_has_none() {
    let root = tempfile::tempdir().unwrap();
    let (mut shell, mut told) = shell(root.path(), Timestamp(0)).await;
    while told.try_recv().is_ok() {}
    let own = |incarnation, is_certified| Registration {
        incarnation: uuid::Uuid::from_u128(incarnation),
        is_certified,
        ..registration()
    };
    let mut open = async |registration, stream| {
        let (out, told) = mpsc::channel(STREAM_MESSAGES_MAX);
        let opening = Command::Open(registration, StreamId(stream), out);
        shell.batch(vec![opening], Timestamp(0)).await.unwrap();
        (shell.sessions.belongs_to(BrokerId(0), StreamId(stream)), told)
    };
    assert!(!open(own(5, false), 8).await.0, "the first session lives");
    let (is_open, _told) = open(own(6, true), 9).await;
    assert!(is_open);
    assert!(matches!(told.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    assert!(!open(own(5, false), 10).await.0);
    assert!(!open(own(7, true), 11).await.0, "this one has a certificate, too");
}
