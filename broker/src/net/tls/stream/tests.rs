//! Records that a good client does not send. Its keys seal them here.

use std::sync::Arc;

use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    RootCertStore, ServerConfig, SupportedCipherSuite,
};
use tokio::io::AsyncWriteExt;

use super::super::super::transport::Transport;
use super::*;

/// A client's end of a connection after the handshake.
struct Peer {
    socket: TcpStream,
    encrypter: Box<dyn rustls::crypto::cipher::MessageEncrypter>,
    number: u64,
}

impl Peer {
    fn sealed(&mut self, typ: ContentType, bytes: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(bytes),
        };
        let record = self.encrypter.encrypt(message, self.number).unwrap();
        self.number += 1;
        record.encode()
    }
}

async fn connected() -> (Peer, TlsStream) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &*wire).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &*wire;
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        wire.clear();
    }
    let Some(SupportedCipherSuite::Tls13(suite)) = client.negotiated_cipher_suite() else {
        panic!("TLS 1.3 is spoken");
    };
    #[allow(deprecated)]
    let (number, secrets) = client.dangerous_extract_secrets().unwrap().tx;
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
    else {
        panic!("a known cipher");
    };
    let encrypter = suite.aead_alg.encrypter(key, iv);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (socket, (accepted, _)) =
        tokio::try_join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept())
            .unwrap();
    (Peer { socket, encrypter, number }, TlsStream::new(accepted, server))
}

async fn arrived(stream: &TlsStream, bytes: usize) {
    while rustix::io::ioctl_fionread(stream.socket()).unwrap() < bytes as u64 {
        tokio::task::yield_now().await;
    }
}

/// Each costs as much to open as one with bytes. rustls allows 32 of them in a row.
#[tokio::test]
async fn records_without_bytes_end_the_connection() {
    let (mut peer, mut stream) = connected().await;
    let mut records = Vec::new();
    for _ in 0..100 {
        records.extend(peer.sealed(ContentType::ApplicationData, &[]));
    }
    peer.socket.write_all(&records).await.unwrap();
    arrived(&stream, records.len()).await;
    let mut target = BytesMut::new();
    let error = stream.try_read_buf(&mut (&mut target).limit(100)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn who_always_has_bytes_gives_others_their_turn() {
    let (mut peer, stream) = connected().await;
    let (plain, mut sender) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (sender, (plain, _)) = tokio::try_join!(connecting, listener.accept()).unwrap();
        (plain, sender)
    };
    sender.write_all(b"x").await.unwrap();
    let record = peer.sealed(ContentType::ApplicationData, b"x");
    peer.socket.write_all(&record).await.unwrap();
    for transport in [Transport::Tls(Box::new(stream)), Transport::Plain(plain)] {
        let other = tokio::spawn(async {});
        let mut turns = 0;
        while !other.is_finished() {
            transport.readable().await.unwrap();
            turns += 1;
            assert!(turns < 10_000, "{transport:?} keeps its thread");
        }
    }
}

#[tokio::test]
async fn the_end_is_seen_behind_the_last_bytes() {
    let (mut peer, mut stream) = connected().await;
    let mut records = peer.sealed(ContentType::ApplicationData, b"last");
    records.extend(peer.sealed(ContentType::Alert, &[1, 0]));
    // More than rustls looks at together.
    records.extend([0; 12_000]);
    peer.socket.write_all(&records).await.unwrap();
    arrived(&stream, records.len()).await;
    let mut read = Vec::new();
    for room in [2, 100, 100] {
        let mut target = BytesMut::new();
        stream.readable().await.unwrap();
        stream.try_read_buf(&mut (&mut target).limit(room)).unwrap();
        read.push(target);
    }
    assert_eq!(read, ["la", "st", ""]);
    assert_eq!(stream.fill().unwrap(), 0, "nothing behind the end is opened");
}
