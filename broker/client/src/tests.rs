use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use weir_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    Message as _, ResponseHeader,
};
use weir_protocol::types::BrokerId;
use weir_security::principal::Principal;
use weir_tls::testing::Ca;
use weir_tls::{Identities, accept};

use crate::stream::connect_to_any;
use crate::{
    Address, ClientError, Connection, ConnectionSettings, Pool, PoolSettings, Repeat, connect,
};

/// Longer than anything that these tests wait for, unless they wait for the bound itself.
const LONG: Duration = Duration::from_secs(30);

/// A bound that a test waits for.
const SHORT: Duration = Duration::from_millis(50);

const SETTINGS: ConnectionSettings = ConnectionSettings {
    client_id: "test",
    connect_max: LONG,
    send_max: LONG,
    response_bytes_max: 8 << 20,
};

/// The version of FindCoordinator that the tests send.
const VERSION: i16 = 4;

/// A broker that answers only what the test has it answer.
struct Broker {
    listener: TcpListener,
}

impl Broker {
    async fn start() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap() }
    }

    fn address(&self) -> Address {
        Address::new("127.0.0.1", self.listener.local_addr().unwrap().port())
    }

    /// The next connection, with the client's end of it.
    async fn connected(&self) -> (Connection, TcpStream) {
        let address = self.address();
        let (client, accepted) =
            tokio::join!(Connection::open(&address, None, SETTINGS), self.listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }
}

/// Reads a request, and returns its correlation id.
async fn request(stream: &mut TcpStream) -> i32 {
    let length = stream.read_u32().await.unwrap();
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.unwrap();
    i32::from_be_bytes(frame[4..8].try_into().unwrap())
}

/// The frame of a response that names a coordinator.
fn response(correlation_id: i32, node_id: i32) -> BytesMut {
    let mut body = BytesMut::new();
    ResponseHeader { correlation_id, ..Default::default() }.encode(&mut body, 1).unwrap();
    let coordinator = weir_protocol::messages::find_coordinator_response::Coordinator {
        node_id,
        ..Default::default()
    };
    let answer = FindCoordinatorResponse { coordinators: vec![coordinator], ..Default::default() };
    answer.encode(&mut body, VERSION).unwrap();
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap());
    frame.put_slice(&body);
    frame
}

fn question() -> FindCoordinatorRequest {
    FindCoordinatorRequest { coordinator_keys: vec!["group".to_owned()], ..Default::default() }
}

fn coordinator(response: &FindCoordinatorResponse) -> i32 {
    response.coordinators[0].node_id
}

/// Receives a response, and gives up the wait again and again.
async fn receive(client: &mut Connection) -> FindCoordinatorResponse {
    let mut body = loop {
        tokio::select! {
            body = client.receive(LONG) => break body.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    FindCoordinatorResponse::decode(&mut body, VERSION).unwrap()
}

#[tokio::test]
async fn a_wait_for_a_response_can_be_given_up() {
    let broker = Broker::start().await;
    let (mut client, mut server) = broker.connected().await;
    client.send(VERSION, &question()).await.unwrap();
    client.send(VERSION, &question()).await.unwrap();
    assert_eq!(client.awaited(), 2);
    let serving = async {
        let (first, second) = (request(&mut server).await, request(&mut server).await);
        for piece in [response(first, 7), response(second, 8)].concat().chunks(5) {
            server.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let receiving = async {
        assert_eq!(coordinator(&receive(&mut client).await), 7);
        assert_eq!(coordinator(&receive(&mut client).await), 8);
    };
    tokio::join!(serving, receiving);
    assert_eq!(client.awaited(), 0);
}

#[tokio::test]
async fn a_wait_that_is_given_up_and_taken_up_again_keeps_its_bound() {
    let broker = Broker::start().await;
    let (mut client, _server) = broker.connected().await;
    client.send(VERSION, &question()).await.unwrap();
    let waiting = async {
        loop {
            tokio::select! {
                received = client.receive(SHORT) => break received,
                // Less than the bound, so a wait that began anew would never end.
                () = tokio::time::sleep(SHORT / 5) => {}
            }
        }
    };
    assert!(matches!(waiting.await, Err(ClientError::NoAnswer(SHORT))));
}

#[tokio::test]
async fn every_wait_for_a_silent_broker_ends() {
    let broker = Broker::start().await;
    let (mut client, _server) = broker.connected().await;
    let answer = client.call(VERSION, &question(), SHORT).await;
    assert!(matches!(answer, Err(ClientError::NoAnswer(SHORT))), "{answer:?}");

    // This broker does not read either.
    let settings = ConnectionSettings { send_max: SHORT, ..SETTINGS };
    let mut client = Connection::open(&broker.address(), None, settings).await.unwrap();
    let large = FindCoordinatorRequest {
        coordinator_keys: vec!["x".repeat(30_000); 1_000],
        ..Default::default()
    };
    let sent = client.send(VERSION, &large).await;
    assert!(matches!(sent, Err(ClientError::NotSent(SHORT))), "{sent:?}");
}

#[tokio::test]
async fn a_response_to_another_request_ends_the_connection() {
    let broker = Broker::start().await;
    let (mut client, mut server) = broker.connected().await;
    let serving = async {
        let id = request(&mut server).await;
        server.write_all(&response(id + 1, 7)).await.unwrap();
    };
    let question = question();
    let (answer, ()) = tokio::join!(client.call(VERSION, &question, LONG), serving);
    assert!(matches!(answer, Err(ClientError::Unexpected)), "{answer:?}");

    let (mut client, mut server) = broker.connected().await;
    server.write_all(&response(0, 7)).await.unwrap();
    let unasked = client.receive(LONG).await;
    assert!(matches!(unasked, Err(ClientError::Unexpected)), "{unasked:?}");
}

#[tokio::test]
async fn a_length_takes_no_memory_before_its_bytes_are_there() {
    let broker = Broker::start().await;
    let (mut client, mut server) = broker.connected().await;
    client.send(VERSION, &question()).await.unwrap();
    server.write_u32(8 << 20).await.unwrap();
    server.write_all(&[0; 100]).await.unwrap();
    drop(server);
    let answer = client.receive(LONG).await;
    assert!(answer.as_ref().is_err_and(ClientError::is_broken), "{answer:?}");
    assert!(client.input.capacity() < 2 << 20, "{}", client.input.capacity());

    for length in [(8 << 20) + 1, u32::MAX] {
        let (mut client, mut server) = broker.connected().await;
        client.send(VERSION, &question()).await.unwrap();
        server.write_u32(length).await.unwrap();
        let answer = client.receive(LONG).await;
        let limit = SETTINGS.response_bytes_max;
        assert!(
            matches!(answer, Err(ClientError::TooLong { length: said, limit: known }) if (said, known) == (length as usize, limit)),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_large_response_arrives_whole() {
    let broker = Broker::start().await;
    let (mut client, mut server) = broker.connected().await;
    for round in 0..3 {
        client.send(VERSION, &question()).await.unwrap();
        let serving = async {
            let id = request(&mut server).await;
            let large = vec![round; 5 << 20];
            server.write_u32(u32::try_from(large.len()).unwrap() + 5).await.unwrap();
            server.write_i32(id).await.unwrap();
            server.write_u8(0).await.unwrap();
            server.write_all(&large).await.unwrap();
        };
        let (body, ()) = tokio::join!(client.receive(LONG), serving);
        let body = body.unwrap();
        assert_eq!(body.len(), 5 << 20);
        assert!(body.iter().all(|byte| *byte == round));
    }
}

#[tokio::test]
async fn where_nobody_listens_is_told_from_where_nobody_answers() {
    let broker = Broker::start().await;
    let address = broker.address();
    connect(&address, LONG).await.unwrap();
    drop(broker);
    let refused = connect(&address, LONG).await.unwrap_err();
    assert!(refused.is_refused(), "{refused}");
    assert!(refused.to_string().contains(&address.to_string()), "{refused}");
    let unknown = connect(&Address::new("no such host", 1), LONG).await.unwrap_err();
    assert!(!unknown.is_refused(), "{unknown}");
}

/// A listener whose queue is full: the kernel answers no more attempts to connect.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(4 * SHORT, TcpStream::connect(address)).await {
        queued.push(stream);
    }
    (listener, queued)
}

#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let (silent, _queued) = full().await;
    let silent = silent.local_addr().unwrap();
    let listening = Broker::start().await.listener;
    let open = listening.local_addr().unwrap();
    let within = || Instant::now() + 10 * SHORT;
    let stream = connect_to_any(&[silent, open], within()).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), open);

    // A process may listen behind the first address, so this is not a refusal.
    drop(listening);
    for addresses in [[silent, open], [open, silent]] {
        let error = connect_to_any(&addresses, within()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}

/// A pool of one connection to each broker.
fn pool() -> Pool {
    Pool::new(
        PoolSettings { connection: SETTINGS, answer_max: LONG, connections_max: 1, idle_max: 1 },
        None,
    )
}

/// Answers one request of a call, on a connection that may be there already.
async fn answer(broker: &Broker, kept: &mut Option<TcpStream>, node_id: i32) {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => broker.listener.accept().await.unwrap().0,
    };
    let id = request(&mut stream).await;
    stream.write_all(&response(id, node_id)).await.unwrap();
    *kept = Some(stream);
}

#[tokio::test]
async fn a_request_goes_over_the_connection_of_the_last_one() {
    let (broker, pool) = (Broker::start().await, pool());
    let (address, mut kept) = (broker.address(), None);
    for node_id in 7..10 {
        let question = question();
        let call = pool.call(BrokerId(1), &address, VERSION, &question, Repeat::Never);
        let (said, ()) = tokio::join!(call, answer(&broker, &mut kept, node_id));
        assert_eq!(coordinator(&said.unwrap()), node_id);
    }
}

#[tokio::test]
async fn a_request_is_repeated_only_where_it_may_be() {
    for repeat in [Repeat::IfBroken, Repeat::Never] {
        let (broker, pool) = (Broker::start().await, pool());
        let (address, question, mut kept) = (broker.address(), question(), None);
        let call = || pool.call(BrokerId(1), &address, VERSION, &question, repeat);
        let (said, ()) = tokio::join!(call(), answer(&broker, &mut kept, 7));
        said.unwrap();
        // The broker closes the idle connection.
        kept = None;
        match repeat {
            Repeat::IfBroken => {
                let (said, ()) = tokio::join!(call(), answer(&broker, &mut kept, 8));
                assert_eq!(coordinator(&said.unwrap()), 8);
            }
            Repeat::Never => {
                let said = call().await;
                assert!(said.as_ref().is_err_and(ClientError::is_broken), "{said:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_request_without_an_answer_is_not_repeated() {
    let broker = Broker::start().await;
    let pool = Pool::new(
        PoolSettings {
            connection: SETTINGS,
            answer_max: 4 * SHORT,
            connections_max: 1,
            idle_max: 1,
        },
        None,
    );
    let (address, question, mut kept) = (broker.address(), question(), None);
    let call = || pool.call(BrokerId(1), &address, VERSION, &question, Repeat::IfBroken);
    let (said, ()) = tokio::join!(call(), answer(&broker, &mut kept, 7));
    said.unwrap();
    let said = call().await;
    assert!(matches!(said, Err(ClientError::NoAnswer(_))), "{said:?}");
}

#[tokio::test]
async fn a_broker_that_has_moved_is_asked_where_it_is() {
    let (before, after, pool) = (Broker::start().await, Broker::start().await, pool());
    for (broker, node_id) in [(&before, 7), (&after, 8)] {
        let (address, question) = (broker.address(), question());
        let call = pool.call(BrokerId(1), &address, VERSION, &question, Repeat::Never);
        let mut kept = None;
        let (said, ()) = tokio::join!(call, answer(broker, &mut kept, node_id));
        assert_eq!(coordinator(&said.unwrap()), node_id);
    }
}

#[tokio::test]
async fn a_request_waits_for_a_connection_and_not_for_ever() {
    let broker = Broker::start().await;
    let (address, question) = (broker.address(), question());
    let pool = pool();
    let call = || pool.call(BrokerId(1), &address, VERSION, &question, Repeat::Never);
    let mut kept = None;
    let (first, second, ()) = tokio::join!(call(), call(), async {
        answer(&broker, &mut kept, 7).await;
        answer(&broker, &mut kept, 8).await;
    });
    assert_eq!([first, second].map(|said| coordinator(&said.unwrap())), [7, 8]);

    let settings =
        PoolSettings { connection: SETTINGS, answer_max: LONG, connections_max: 1, idle_max: 1 };
    let pool = Pool::new(PoolSettings { answer_max: SHORT, ..settings }, None);
    let others = pool.peer(BrokerId(1), &address);
    let _place = others.places.acquire().await.unwrap();
    let said = pool.call(BrokerId(1), &address, VERSION, &question, Repeat::Never).await;
    assert!(matches!(said, Err(ClientError::Busy(SHORT))), "{said:?}");
}

#[tokio::test]
async fn a_node_is_asked_over_tls_and_nobody_else_in_its_place() {
    let ca = Ca::new();
    let of = |id| Arc::new(Identities::new(ca.identity("c", &Principal::Broker(id), &[&ca])));
    let (asking, asked) = (of(1), of(2));
    let broker = Broker::start().await;
    let answering = async {
        for _ in 0..3 {
            let stream = broker.listener.accept().await.unwrap().0;
            let accepted = accept(stream, |_| Some(Arc::clone(&asked))).await;
            let Ok((mut stream, _, node)) = accepted else { continue };
            assert_eq!(node, Principal::Broker(1));
            let mut bytes = vec![0; 4096];
            // The length, the key and the version, and the correlation id.
            let Ok(read @ 12..) = stream.read(&mut bytes).await else { continue };
            assert_eq!(bytes[..4], u32::try_from(read - 4).unwrap().to_be_bytes());
            let id: [u8; 4] = bytes[8..12].try_into().unwrap();
            let mut answer = BytesMut::new();
            ApiVersionsResponse::default().encode(&mut answer, 0).unwrap();
            let length = u32::try_from(answer.len() + 4).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &id, &answer].concat()).await.unwrap();
            stream.flush().await.unwrap();
        }
    };
    let Address { host, port, .. } = broker.address();
    let node = |id| Address::of_node(host.clone(), port, Principal::Broker(id));
    let asking = async {
        let settings = PoolSettings {
            connection: SETTINGS,
            answer_max: LONG,
            connections_max: 1,
            idle_max: 1,
        };
        let pool = Pool::new(settings, Some(asking));
        let request = ApiVersionsRequest::default();
        pool.call(BrokerId(2), &node(2), 0, &request, Repeat::Never).await.unwrap();
        let another = pool.call(BrokerId(3), &node(3), 0, &request, Repeat::Never).await;
        let another = another.unwrap_err().to_string();
        assert!(another.ends_with("it is broker 2, not broker 3"), "{another}");
        let stranger = Connection::open(&node(2), None, SETTINGS).await.unwrap_err();
        assert!(stranger.to_string().ends_with("no certificate of the cluster"), "{stranger}");
    };
    tokio::join!(answering, asking);
}
