use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_security::principal::Principal;
use weir_tls::Identities;
use weir_tls::testing::Ca;

use super::*;
use crate::rpc::Desk;

const HALF: &[u8] = b"PRI * HTT";

struct World {
    ca: Ca,
    connections: Connections,
    address: SocketAddr,
}

async fn world(strangers: Strangers) -> World {
    let ca = Ca::new();
    let controllers = Controllers::default();
    let own = Identities::new(ca.identity("c", &Principal::Controller, &[&ca]));
    controllers.put_identities("c".to_owned(), Arc::new(own));
    controllers.put_desk("c".to_owned(), Desk::default(), Some("c".to_owned()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    World { ca, connections: Connections::new(listener, controllers, strangers), address }
}

impl World {
    /// The callers of the next connections, while `connecting` goes on.
    async fn callers<T>(
        &mut self,
        number: usize,
        connecting: impl Future<Output = T>,
    ) -> (T, Vec<Caller>) {
        let accepting = async {
            let mut callers = Vec::new();
            while callers.len() < number {
                callers.push(self.connections.next().await.unwrap().unwrap().connect_info());
            }
            callers
        };
        tokio::join!(connecting, accepting)
    }
}

async fn open(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

async fn broker(ca: &Ca, address: SocketAddr) -> weir_tls::TlsClient {
    let broker = ca.identity("c", &Principal::Broker(1), &[ca]);
    let stream = TcpStream::connect(address).await.unwrap();
    broker.connect(stream, &Principal::Controller).await.unwrap()
}

fn node() -> Caller {
    Caller::Node("c".to_owned(), Principal::Broker(1))
}

#[tokio::test]
async fn callers_are_known_and_silent_ones_hold_nobody_up() {
    let mut world = world(Strangers::All).await;
    let address = world.address;
    let silent = TcpStream::connect(address).await.unwrap();
    let ca = std::mem::take(&mut world.ca);
    let connecting = async {
        let plain = open(address, PREFACE).await;
        let stranger = TcpStream::connect(address).await.unwrap();
        let other = Ca::new().identity("c", &Principal::Broker(1), &[&ca]);
        // The client hears of it with its first read.
        let _ = other.connect(stranger, &Principal::Controller).await;
        (plain, broker(&ca, address).await)
    };
    let (_kept, callers) = world.callers(2, connecting).await;
    assert_eq!(callers, [Caller::Anybody, node()]);
    drop(world);
    assert!(TcpListener::bind(address).await.is_ok(), "the port is free at once");
    drop(silent);
}

/// What a connection without TLS comes to: the bytes until its end.
async fn end_of(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn who_may_be_no_broker_is_closed_without_an_answer() {
    let mut world = world(Strangers::Brokers).await;
    let address = world.address;
    let ca = std::mem::take(&mut world.ca);
    let connecting = async {
        for first in [PREFACE, b"P", b"GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(end_of(open(address, first).await).await, b"");
        }
        broker(&ca, address).await
    };
    assert_eq!(world.callers(1, connecting).await.1, [node()], "nobody else got through");
}

#[tokio::test]
async fn what_is_not_http_ends_and_half_a_word_waits() {
    let mut world = world(Strangers::All).await;
    let address = world.address;
    let connecting = async {
        let mut half = open(address, HALF).await;
        assert_eq!(end_of(open(address, b"POST / HTTP/1.1\r\n\r\n").await).await, b"");
        let rest = PREFACE.get(HALF.len()..).unwrap();
        half.write_all(rest).await.unwrap();
        half
    };
    assert_eq!(world.callers(1, connecting).await.1, [Caller::Anybody]);
}

#[tokio::test]
async fn the_silent_ones_of_an_address_lose_their_places_to_who_speaks() {
    let mut world = world(Strangers::Brokers).await;
    let address = world.address;
    let ca = std::mem::take(&mut world.ca);
    let connecting = async {
        let mut silent = Vec::new();
        for _ in 0..=ADDRESS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(end_of(silent.remove(0)).await, b"", "the oldest is closed");
        // The others are still there when a broker comes.
        (silent, broker(&ca, address).await)
    };
    assert_eq!(world.callers(1, connecting).await.1, [node()]);
    assert!(world.connections.handshakes.len() <= ADDRESS_MAX);
}
