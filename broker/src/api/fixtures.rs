//! A small cluster for the tests of the APIs.
//!
//! Brokers 0 (alive), 1 (alive, on PLAINTEXT only), 2 (fenced); the others are on PLAINTEXT and
//! OTHER. Topic `a` has three partitions: the first is whole, the second has a fenced replica, the
//! third no leader. Topic `b` is led by broker 1, topic `__consumer_offsets` is internal.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;
use weir_protocol::api::ApiKey;
use weir_protocol::controller as rpc;
use weir_protocol::messages::ApiMessage;
use weir_protocol::types::ControllerEpoch;

use super::{Caller, Listener, RequestContext};
use crate::auth::{Authorizer, Brokers, KafkaPrincipal, Requester};
use crate::metadata::MetadataImage;

pub(super) const A: Uuid = Uuid::from_u128(0xa);
pub(super) const B: Uuid = Uuid::from_u128(0xb);

pub(super) fn everyone() -> Authorizer {
    Authorizer::unconfigured(Brokers::Anybody)
}

/// Of a cluster whose brokers have certificates.
pub(super) fn certified() -> Authorizer {
    Authorizer::unconfigured(Brokers::Certified(Arc::default()))
}

pub(super) fn nobody() -> Authorizer {
    Authorizer::of_nobody(Brokers::Anybody)
}

/// A request in `version` that arrived on PLAINTEXT.
pub(super) fn request(version: i16) -> RequestContext {
    request_on("PLAINTEXT", version)
}

pub(super) fn request_on(listener: &str, version: i16) -> RequestContext {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let caller = Caller {
        connection: 1,
        listener: Arc::new(Listener { name: listener.to_owned() }),
        requester: Requester::new(KafkaPrincipal::anonymous().into(), peer.ip()),
        peer,
        next_is_here: Default::default(),
        has_asked_for_topics: Default::default(),
    };
    RequestContext {
        caller: Arc::new(caller),
        api: ApiKey::Metadata,
        correlation_id: 0,
        client_id: None,
        version,
        room: Default::default(),
    }
}

pub(super) fn image() -> MetadataImage {
    let update = rpc::MetadataUpdate {
        version: 7,
        full: true,
        brokers: vec![
            broker(0, &["PLAINTEXT", "OTHER"], false),
            broker(1, &["PLAINTEXT"], false),
            broker(2, &["PLAINTEXT", "OTHER"], true),
        ],
        topics: vec![
            topic(
                A,
                "a",
                vec![
                    partition(0, 0, &[0, 1], &[0, 1]),
                    partition(1, 0, &[0, 2], &[0]),
                    partition(2, -1, &[2], &[]),
                ],
            ),
            topic(B, "b", vec![partition(0, 1, &[1], &[1])]),
            topic(Uuid::from_u128(0xc), "__consumer_offsets", vec![partition(0, 0, &[0], &[0])]),
        ],
        ..Default::default()
    };
    MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0
}

fn broker(id: i32, listeners: &[&str], fenced: bool) -> rpc::Broker {
    let endpoint = |listener: &&str| rpc::Endpoint {
        listener: (*listener).to_owned(),
        host: format!("{}{id}", listener.to_lowercase()),
        port: 9092,
        ..Default::default()
    };
    rpc::Broker {
        id,
        epoch: 1,
        endpoints: listeners.iter().map(endpoint).collect(),
        rack: format!("r{id}"),
        fenced,
        ..Default::default()
    }
}

fn topic(id: Uuid, name: &str, partitions: Vec<rpc::Partition>) -> rpc::Topic {
    rpc::Topic {
        id: id.as_bytes().to_vec(),
        name: name.to_owned(),
        internal: name.starts_with("__"),
        configs: None,
        partitions,
    }
}

fn partition(index: i32, leader: i32, replicas: &[i32], isr: &[i32]) -> rpc::Partition {
    rpc::Partition {
        index,
        replicas: replicas.to_vec(),
        leader,
        leader_epoch: 5,
        partition_epoch: 9,
        isr: isr.to_vec(),
        ..Default::default()
    }
}

/// Fails unless the response can be encoded in `version` and decoded again. A response with a field
/// that its version cannot carry would end the connection.
pub(super) fn assert_encodes<M: ApiMessage>(response: &M, version: i16) {
    let mut frame = BytesMut::new();
    response
        .encode(&mut frame, version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    M::decode(&mut Bytes::from(frame), version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
}
