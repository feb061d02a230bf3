//! A client that sends single requests in any version. It checks the order of the responses, and
//! that they have no bytes left over.
//!
//! It sends what `weir-client` would not. It shares only the messages with it, so that a fault of
//! that client cannot hide one of the broker.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weir_protocol::api::ApiKey;
use weir_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use weir_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use weir_protocol::messages::fetch_response::PartitionData;
use weir_protocol::messages::metadata_request::MetadataRequestTopic;
use weir_protocol::messages::metadata_response::MetadataResponsePartition;
use weir_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use weir_protocol::messages::produce_response::PartitionProduceResponse;
use weir_protocol::messages::{
    DeleteRecordsRequest, FetchRequest, Message, MetadataRequest, ProduceRequest, Request,
    RequestHeader, ResponseHeader,
};

use super::soon;

/// Versions that still identify topics by name.
pub(crate) const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

/// The bytes of a connection: those of its socket, or those within TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    address: SocketAddr,
    /// The socket below TLS.
    below: Option<std::net::TcpStream>,
    sent: i32,
    received: i32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let address = stream.local_addr().unwrap();
        Self { stream: Box::new(stream), address, below: None, sent: 0, received: 0 }
    }

    /// As [`Client::connect`], over TLS with a broker of this name.
    pub(crate) async fn connect_tls(
        address: SocketAddr,
        connector: &TlsConnector,
        name: &str,
    ) -> std::io::Result<Self> {
        Self::over_tls(TcpStream::connect(address).await?, connector, name).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn over_tls(
        stream: TcpStream,
        connector: &TlsConnector,
        name: &str,
    ) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let address = stream.local_addr()?;
        let below = Some(rustix::io::dup(&stream)?.into());
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let stream = Box::new(connector.connect(name, stream).await?);
        Ok(Self { stream, address, below, sent: 0, received: 0 })
    }

    /// Sends bytes as they are, below TLS.
    pub(crate) fn write_below_tls(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(self.below.as_mut().unwrap(), bytes).unwrap();
    }

    /// Returns how the connection breaks.
    pub(crate) async fn broken(&mut self) -> std::io::Error {
        soon("the end of the connection", self.stream.read_u8()).await.unwrap_err()
    }

    /// Its own address, which the broker sees as its peer.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has sent: the correlation id of the next.
    pub(crate) fn sent(&self) -> i32 {
        self.sent
    }

    /// Sends a request and does not wait for its response.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.try_send(version, request).await.unwrap();
    }

    async fn try_send<R: Request>(&mut self, version: i16, request: &R) -> std::io::Result<()> {
        let api = ApiKey::from_key(R::API_KEY).unwrap();
        let header = RequestHeader {
            request_api_key: api.key(),
            request_api_version: version,
            correlation_id: self.sent,
            client_id: Some("process-test".to_owned()),
        };
        let mut frame = BytesMut::new();
        header.encode(&mut frame, api.request_header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        self.write(&frame).await
    }

    /// Sends a frame with its length in front. If it has a correlation id, that must be the number
    /// of requests sent before.
    pub(crate) async fn send_raw(&mut self, frame: &[u8]) {
        self.write(frame).await.unwrap();
    }

    async fn write(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.sent += 1;
        let mut framed = BytesMut::new();
        framed.put_u32(u32::try_from(frame.len()).unwrap());
        framed.put_slice(frame);
        self.stream.write_all(&framed).await
    }

    /// The response to the oldest unanswered request; `None` when the broker closes the connection.
    pub(crate) async fn try_receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let frame = soon("a response", self.frame()).await?;
        let api = ApiKey::from_key(R::API_KEY).unwrap();
        let mut body = frame;
        let header =
            ResponseHeader::decode(&mut body, api.response_header_version(version)).unwrap();
        assert_eq!(
            header.correlation_id, self.received,
            "responses come in the order of the requests"
        );
        self.received += 1;
        let response = R::Response::decode(&mut body, version)
            .unwrap_or_else(|error| panic!("{api} v{version}: {error}"));
        assert!(body.is_empty(), "{api} v{version}: {} bytes are left over", body.len());
        Some(response)
    }

    async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_u32().await.ok()?;
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.freeze())
    }

    pub(crate) async fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        match self.try_receive::<R>(version).await {
            Some(response) => response,
            None => panic!("the broker closed the connection instead of answering {}", R::NAME),
        }
    }

    /// Sends a request and awaits its response.
    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        self.receive::<R>(version).await
    }

    /// Skips a response that the broker does not send.
    pub(crate) fn no_response(&mut self) {
        self.received += 1;
    }

    /// Returns once the broker has closed the connection.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(soon("the end of the connection", self.frame()).await, None);
    }

    /// Produces one batch and awaits the result.
    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) -> PartitionProduceResponse {
        self.send_produce(topic, partition, acks, records).await;
        self.receive_produce().await
    }

    pub(crate) async fn send_produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) {
        self.send(PRODUCE_VERSION, &produce_to(topic, partition, acks, records)).await;
    }

    /// As [`Client::send_produce`]; false if the broker has closed the connection.
    pub(crate) async fn try_send_produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) -> bool {
        let request = produce_to(topic, partition, acks, records);
        self.try_send(PRODUCE_VERSION, &request).await.is_ok()
    }

    pub(crate) async fn receive_produce(&mut self) -> PartitionProduceResponse {
        let mut response = self.receive::<ProduceRequest>(PRODUCE_VERSION).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// As [`Client::receive_produce`]; `None` if the broker has closed the connection.
    pub(crate) async fn try_receive_produce(&mut self) -> Option<PartitionProduceResponse> {
        let mut response = self.try_receive::<ProduceRequest>(PRODUCE_VERSION).await?;
        Some(response.responses.remove(0).partition_responses.remove(0))
    }

    /// Fetches from one partition, without a session and without waiting.
    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> PartitionData {
        let mut response = self.call(FETCH_VERSION, &fetch_from(topic, partition, offset)).await;
        assert_eq!(response.error_code, 0);
        response.responses.remove(0).partitions.remove(0)
    }

    /// Waits until the broker's metadata of a topic's first partition fulfils the condition.
    pub(crate) async fn knows(
        &mut self,
        topic: &str,
        is_so: impl Fn(&MetadataResponsePartition) -> bool,
    ) {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(topic.to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        };
        soon("the broker knows", async {
            while !is_so(&self.call(12, &request).await.topics[0].partitions[0]) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Deletes records, and returns the error and the low watermark.
    pub(crate) async fn delete_records(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> (i16, i64) {
        let request = DeleteRecordsRequest {
            timeout_ms: 30_000,
            topics: vec![DeleteRecordsTopic {
                name: topic.to_owned(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition,
                    offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut response = self.call(2, &request).await;
        let result = response.topics.remove(0).partitions.remove(0);
        (result.error_code, result.low_watermark)
    }

    /// All records of a partition.
    pub(crate) async fn read_all(&mut self, topic: &str, partition: i32) -> Vec<(i64, String)> {
        self.read_from(topic, partition, 0).await
    }

    /// All records of a partition from an offset on.
    pub(crate) async fn read_from(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Vec<(i64, String)> {
        let mut found: Vec<(i64, String)> = Vec::new();
        loop {
            let next = found.last().map_or(offset, |(offset, _)| offset + 1);
            let data = self.fetch(topic, partition, next).await;
            assert_eq!(data.error_code, 0, "{data:?}");
            let records = super::offsets_and_values(&data.records.unwrap_or_default());
            // A fetch returns whole batches, which may begin before the requested offset.
            found.extend(records.into_iter().filter(|(offset, _)| *offset >= next));
            if found.last().map_or(offset, |(offset, _)| offset + 1) == next {
                return found;
            }
        }
    }
}

/// A Produce request for one partition.
pub(crate) fn produce_to(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData { index: partition, records: Some(records) }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A Fetch request for one partition, without a session and without waiting.
pub(crate) fn fetch_from(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_bytes: 64 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 16 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
