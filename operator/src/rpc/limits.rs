//! How much a caller may send to the controller, before anybody knows what it is.
//!
//! A message is in memory as a whole before it is decoded. So who has shown no certificate, where
//! brokers have them, sends little.

use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::caller::Caller;
use super::directory::Controllers;

/// The most bytes of a broker's message. A forwarded request is the largest one, and Kafka's own
/// limit of a request is 100 MiB.
pub(super) const MESSAGE_BYTES_MAX: usize = 101 << 20;

/// The most bytes of a message without a certificate: a registration with some 100,000 partitions.
pub(super) const STRANGERS_MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The most requests of a connection that are under way. More wait.
const REQUESTS_MAX: u32 = 32;

/// How often a connection is checked.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A server with the limits of a connection.
pub fn limited_server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .max_concurrent_streams(REQUESTS_MAX)
}

/// A service with one limit of a message for nodes, and another for strangers.
#[derive(Clone, Debug)]
pub struct LimitedByCaller<S> {
    controllers: Controllers,
    of_nodes: S,
    of_strangers: S,
}

impl<S> LimitedByCaller<S> {
    pub(super) fn new(controllers: Controllers, of_nodes: S, of_strangers: S) -> Self {
        Self { controllers, of_nodes, of_strangers }
    }

    fn is_stranger(&self, request: &http::Request<Body>) -> bool {
        match request.extensions().get::<Caller>() {
            Some(Caller::Node(..)) => false,
            Some(Caller::Anybody) | None => self.controllers.have_certificates(),
        }
    }
}

impl<S: NamedService> NamedService for LimitedByCaller<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for LimitedByCaller<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self.of_nodes.poll_ready(cx) {
            Poll::Ready(Ok(())) => self.of_strangers.poll_ready(cx),
            waits => waits,
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if self.is_stranger(&request) {
            self.of_strangers.call(request)
        } else {
            self.of_nodes.call(request)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tonic::Code;
    use weir_protocol::controller::ForwardRequest;
    use weir_protocol::controller::controller_client::ControllerClient;

    use super::*;
    use crate::rpc::{Connections, ControllerRpc, Desk, Strangers};

    /// The answer to a message of 5 MiB without a certificate.
    async fn answer(controllers: Controllers) -> Code {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(listener, controllers.clone(), Strangers::All);
        let server = limited_server()
            .add_service(ControllerRpc::service(controllers))
            .serve_with_incoming(connections);
        let server = tokio::spawn(server);
        let mut client = ControllerClient::connect(format!("http://{address}")).await.unwrap();
        let request = ForwardRequest { request: vec![0; 5 << 20], ..Default::default() };
        let answered = client.forward(request).await;
        server.abort();
        answered.unwrap_err().code()
    }

    #[tokio::test]
    async fn who_has_no_certificate_sends_little_where_brokers_have_some() {
        let with = Controllers::default();
        with.put_desk("c".to_owned(), Desk::default(), Some("c".to_owned()));
        assert_eq!(answer(with).await, Code::OutOfRange);
        let without = Controllers::default();
        without.put_desk("c".to_owned(), Desk::default(), None);
        assert_eq!(answer(without).await, Code::Unavailable, "there is no such cluster");
    }
}
