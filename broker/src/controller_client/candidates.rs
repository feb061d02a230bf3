//! The addresses behind the controller's name, one of which is the leader.
//!
//! The replicas of an operator stand by behind a headless service. A replica that does not lead
//! says so at once. So trying them in turn finds a new leader faster than any readiness probe could
//! announce it. The session turns to the next address; all other requests use the session's
//! address.
//!
//! The name itself may change while the broker runs, when an operator is installed elsewhere and
//! takes the cluster over. That operator writes its name into a file, which is read before each
//! attempt.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::{Service, service_fn};
use tracing::{debug, info, warn};
use weir_protocol::address;
use weir_protocol::controller::CLUSTER_HEADER;
use weir_protocol::controller::controller_client::ControllerClient;
use weir_security::principal::Principal;
use weir_tls::{Identities, Identity, TlsClient};

/// How long a connection may take to open.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How often an idle connection is probed.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A client of one controller that names the cluster in every request.
pub(super) type Client = ControllerClient<InterceptedService<Channel, NameCluster>>;

/// The largest message: an answer may contain the metadata of the whole cluster.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How long reading the file, or looking up the name, may take before the last result is used.
const LOOK_UP_MAX: Duration = Duration::from_millis(500);

/// Adds the cluster to every request, because one operator is the controller of many.
#[derive(Clone, Debug)]
pub(super) struct NameCluster(MetadataValue<Ascii>);

impl Interceptor for NameCluster {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER_HEADER, self.0.clone());
        Ok(request)
    }
}

/// The addresses behind the controller's name.
#[derive(Debug)]
pub(super) struct Candidates {
    /// The file that contains the name, if the name may change.
    file: Option<PathBuf>,
    cluster: NameCluster,
    identities: Option<Arc<Identities>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    name: String,
    /// The content of the file when it was last read.
    read: Option<String>,
    /// The last addresses found, sorted, so that turns follow one order.
    addresses: Vec<SocketAddr>,
    /// Counts the turns to the next address.
    turn: usize,
    /// The address of `client`.
    target: Option<SocketAddr>,
    client: Client,
    /// A client of the same address with a connection of its own.
    forwards: Client,
}

impl Candidates {
    /// Creates the candidates behind `name` (`host:port`), or behind the name in `file` when it is
    /// read.
    ///
    /// # Errors
    /// When the name or the cluster's id is invalid.
    pub(super) fn new(
        name: &str,
        file: Option<&Path>,
        cluster_id: &str,
        identities: Option<Arc<Identities>>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            address::split(name).is_some(),
            "--controller {name}: must be HOST:PORT, with an IPv6 address in brackets"
        );
        let endpoint =
            endpoint_of(name).map_err(|error| anyhow::anyhow!("--controller {name}: {error}"))?;
        let cluster = cluster_id.parse().map_err(|_| {
            anyhow::anyhow!("--cluster-id {cluster_id:?}: is not of letters and digits")
        })?;
        let cluster = NameCluster(cluster);
        let state = State {
            name: name.to_owned(),
            read: None,
            addresses: Vec::new(),
            turn: 0,
            target: None,
            client: client(endpoint.clone(), &cluster, identities.as_ref()),
            forwards: client(endpoint, &cluster, identities.as_ref()),
        };
        Ok(Self { file: file.map(Path::to_owned), cluster, identities, state: Mutex::new(state) })
    }

    /// What this broker shows to other nodes; `None` without certificates.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identities.as_ref()?.current().ok()
    }

    /// Returns the client of the current candidate.
    pub(super) fn client(&self) -> Client {
        self.state.lock().client.clone()
    }

    /// Returns the client of that candidate for forwarded requests. Their answers may fill a
    /// connection for seconds, and a heartbeat's answer must not wait behind them.
    pub(super) fn forwards(&self) -> Client {
        self.state.lock().forwards.clone()
    }

    /// Selects the next candidate for the next [`Self::resolve`], with a new connection even if it
    /// is the only one.
    pub(super) fn turn_to_next(&self) {
        let mut state = self.state.lock();
        state.turn = state.turn.wrapping_add(1);
        state.target = None;
    }

    /// Reads the name again if it may change, looks it up, and connects to the current candidate.
    /// If the name cannot be read or looked up, the last result is used.
    pub(super) async fn resolve(&self) {
        if let Some(file) = &self.file {
            self.read(file).await;
        }
        let name = self.state.lock().name.clone();
        match tokio::time::timeout(LOOK_UP_MAX, tokio::net::lookup_host(&name)).await {
            Ok(Ok(found)) => {
                let mut found: Vec<SocketAddr> = found.collect();
                found.sort_unstable();
                found.dedup();
                if !found.is_empty() {
                    self.state.lock().addresses = found;
                }
            }
            Ok(Err(error)) => debug!(name, %error, "look up the controller"),
            Err(_) => debug!(name, "looking up the controller takes long"),
        }
        let mut state = self.state.lock();
        let Some(address) = pick(&state.addresses, state.turn) else { return };
        if state.target != Some(address)
            && let Ok(endpoint) = endpoint_of(&address.to_string())
        {
            state.target = Some(address);
            let identities = self.identities.as_ref();
            state.client = client(endpoint.clone(), &self.cluster, identities);
            state.forwards = client(endpoint, &self.cluster, identities);
        }
    }

    async fn read(&self, file: &Path) {
        let read = match tokio::time::timeout(LOOK_UP_MAX, tokio::fs::read_to_string(file)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                return debug!(file = %file.display(), %error, "read where the controller is");
            }
            Err(_) => {
                return debug!(file = %file.display(), "reading where the controller is takes long");
            }
        };
        let mut state = self.state.lock();
        if state.read.as_ref() == Some(&read) {
            return;
        }
        let name = read.trim().to_owned();
        state.read = Some(read);
        if name == state.name {
            return;
        }
        // The same form as on the command line: a host with its port.
        if address::split(&name).is_none() || endpoint_of(&name).is_err() {
            warn!(file = %file.display(), found = name, goes_on_with = state.name, "where the controller is must be HOST:PORT, with an IPv6 address in brackets; this broker goes on with what it knows");
            return;
        }
        info!(before = state.name, now = name, "the controller is elsewhere");
        state.name = name;
        // The addresses of the former name are not the controller.
        state.addresses.clear();
        state.target = None;
    }
}

fn endpoint_of(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))
}

/// Returns the candidate of a turn.
fn pick(addresses: &[SocketAddr], turn: usize) -> Option<SocketAddr> {
    addresses.get(turn.checked_rem(addresses.len())?).copied()
}

fn client(
    endpoint: Endpoint,
    cluster: &NameCluster,
    identities: Option<&Arc<Identities>>,
) -> Client {
    let endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let channel = match identities {
        None => endpoint.connect_lazy(),
        Some(identities) => endpoint.connect_with_connector_lazy(secured(identities)),
    };
    ControllerClient::new(InterceptedService::new(channel, cluster.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Connects to the controller of this broker's cluster, and to nobody else. The bounds of time are
/// those of the endpoint.
fn secured(
    identities: &Arc<Identities>,
) -> impl Service<Uri, Response = TokioIo<TlsClient>, Error = io::Error, Future: Send>
+ Clone
+ Send
+ 'static {
    let identities = Arc::clone(identities);
    service_fn(move |uri: Uri| {
        let identities = Arc::clone(&identities);
        async move {
            let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            identities.current()?.connect(stream, &Principal::Controller).await.map(TokioIo::new)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_turn() {
        let addresses: Vec<SocketAddr> =
            ["10.0.0.1:1", "10.0.0.2:1"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(pick(&addresses, 0), Some(addresses[0]));
        assert_eq!(pick(&addresses, 1), Some(addresses[1]));
        assert_eq!(pick(&addresses, 2), Some(addresses[0]));
        assert_eq!(pick(&[], 1), None);
    }

    #[tokio::test]
    async fn the_client_follows_the_turns() {
        let candidates = Candidates::new("127.0.0.1:1", None, "c", None).unwrap();
        assert_eq!(candidates.state.lock().target, None);
        candidates.resolve().await;
        assert_eq!(candidates.state.lock().target, Some("127.0.0.1:1".parse().unwrap()));
        candidates.state.lock().addresses.push("127.0.0.1:2".parse().unwrap());
        candidates.turn_to_next();
        // The lookup's result replaces the addresses known before.
        candidates.resolve().await;
        assert_eq!(candidates.state.lock().target, Some("127.0.0.1:1".parse().unwrap()));
        for wrong in ["no address", "h", "::1:9090"] {
            assert!(Candidates::new(wrong, None, "c", None).is_err(), "{wrong}");
        }
        assert!(Candidates::new("h:1", None, "a\nb", None).is_err());
    }

    #[tokio::test]
    async fn the_name_is_read_before_each_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("controller");
        let candidates = Candidates::new("127.0.0.1:1", Some(&file), "c", None).unwrap();
        let target = || candidates.state.lock().target.map(|target| target.port());
        // The file is missing at first. Then it exists and changes; an invalid address has no
        // effect.
        candidates.resolve().await;
        assert_eq!(target(), Some(1));
        for (text, port) in [
            ("127.0.0.1:1", 1),
            ("127.0.0.1:2\n", 2),
            ("", 2),
            ("127.0.0.1", 2),
            (":3", 2),
            ("::1:3", 2),
            ("not a host:3", 2),
            ("[::1]:4", 4),
            ("127.0.0.1:3", 3),
        ] {
            std::fs::write(&file, text).unwrap();
            candidates.resolve().await;
            assert_eq!(target(), Some(port), "{text:?}");
        }
        std::fs::remove_file(&file).unwrap();
        candidates.resolve().await;
        assert_eq!(target(), Some(3));
        // While the new name cannot be looked up, the addresses of the former one are not tried.
        std::fs::write(&file, "no-such-host.invalid:4").unwrap();
        candidates.resolve().await;
        assert_eq!((target(), candidates.state.lock().addresses.len()), (None, 0));
    }
}
