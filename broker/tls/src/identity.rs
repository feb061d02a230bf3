//! What a node shows to others, and whom it believes.

use std::io;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weir_security::principal::{Certificate, Fingerprint, Principal};
use weir_security::secret::Secret;

use crate::files::{certificates, private_key};
use crate::provider::provider;

/// The client's end of a connection to a node.
pub type TlsClient = tokio_rustls::client::TlsStream<TcpStream>;

/// The peer has a good certificate, and is not the node that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotThatNode {
    /// Its certificate names no node of this cluster.
    #[error("its certificate names no node of {0:?}")]
    Stranger(String),
    /// It is another node.
    #[error("it is {found}, not {expected}")]
    Another {
        /// Who it is.
        found: Principal,
        /// Who it should be.
        expected: Principal,
    },
}

impl From<NotThatNode> for io::Error {
    fn from(error: NotThatNode) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, error)
    }
}

/// What a node shows to others and whom it believes, by the fingerprints of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its own certificate.
    pub own: Fingerprint,
    /// The CAs of its cluster.
    pub cas: Vec<Fingerprint>,
}

/// A node's certificate and key, and the CAs of its cluster.
#[derive(Debug)]
pub struct Identity {
    domain: String,
    node: Principal,
    not_after: i64,
    /// Its certificate first.
    chain: Vec<CertificateDer<'static>>,
    shown: Shown,
    server_name: ServerName<'static>,
    /// Whom this node believes as a client, and as a server.
    verifiers: (Arc<NodeVerifier>, Arc<dyn ClientCertVerifier>),
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// The identity of a certificate with its key, both in PEM, in a cluster with these CAs.
    ///
    /// # Errors
    /// When one of them cannot be read, the key is that of another certificate, or the certificate
    /// names no node.
    pub fn new(chain: &[u8], key: &Secret, cas: &[u8]) -> anyhow::Result<Self> {
        let provider = provider();
        let chain = certificates(chain, "the certificate")?;
        let own = chain.first().context("the certificate")?;
        let certificate = Certificate::parse(own).context("the certificate")?;
        let (domain, node) =
            certificate.identity().context("the certificate names no node of a cluster")?;
        let server_name = ServerName::try_from(domain.clone())
            .with_context(|| format!("{domain:?} is no name of a cluster"))?;
        let mut shown = Shown { own: Fingerprint::of(own), cas: Vec::new() };
        let key = private_key(key, "the key")?;
        let own = CertifiedKey::from_der(chain.clone(), key, &provider)
            .context("the certificate and the key")?;
        let mut roots = RootCertStore::empty();
        for ca in certificates(cas, "the CAs")? {
            shown.cas.push(Fingerprint::of(&ca));
            roots.add(ca).context("the CAs")?;
        }
        ensure!(!roots.is_empty(), "the CAs: there is none");
        let (roots, own) = (Arc::new(roots), Arc::new(SingleCertAndKey::from(own)));
        let as_client = Arc::new(NodeVerifier {
            provider: Arc::clone(&provider),
            roots: Arc::clone(&roots),
            domain: domain.clone(),
        });
        let as_server = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let as_server = as_server.build().context("the CAs")?;
        let client = client_config(&provider, Arc::clone(&as_client) as _, Arc::clone(&own) as _)?;
        let server = server_config(&provider, Arc::clone(&as_server), own)?;
        Ok(Self {
            domain,
            node,
            not_after: certificate.validity.not_after,
            chain,
            shown,
            server_name,
            verifiers: (as_client, as_server),
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Whether others of the cluster, who have the same CAs, believe this node now.
    ///
    /// # Errors
    /// Why not: the certificate has expired, is not valid yet, or is of other CAs.
    pub fn check(&self) -> anyhow::Result<()> {
        let (own, rest) = self.chain.split_first().context("there is no certificate")?;
        let now = UnixTime::now();
        let (as_client, as_server) = &self.verifiers;
        let believed = as_client.verify_server_cert(own, rest, &self.server_name, &[], now);
        believed.context("other nodes do not believe its certificate")?;
        let believed = as_server.verify_client_cert(own, rest, now);
        believed.context("other nodes do not believe its certificate").map(drop)
    }

    /// The cluster's domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// This node.
    pub fn node(&self) -> &Principal {
        &self.node
    }

    /// Until when the certificate is valid, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// What this node shows to others, and whom it believes.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// How this node answers others. Whoever gets through has a certificate of the cluster's CAs;
    /// [`Self::peer`] tells which node that is.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The node that has shown these certificates in its handshake.
    ///
    /// # Errors
    /// When they name no node of this cluster.
    pub fn peer(&self, shown: Option<&[CertificateDer<'_>]>) -> Result<Principal, NotThatNode> {
        let own = shown.and_then(<[_]>::first);
        let node = own.and_then(|own| node_of(own, &self.domain));
        node.ok_or_else(|| NotThatNode::Stranger(self.domain.clone()))
    }

    /// Makes a connection to a node secure, as its client.
    ///
    /// # Errors
    /// When the handshake fails, or the peer is not `expected`.
    pub async fn connect(&self, stream: TcpStream, expected: &Principal) -> io::Result<TlsClient> {
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let stream = connector.connect(self.server_name.clone(), stream).await?;
        let found = self.peer(stream.get_ref().1.peer_certificates())?;
        if found != *expected {
            return Err(NotThatNode::Another { found, expected: expected.clone() }.into());
        }
        Ok(stream)
    }
}

/// The node of the cluster that a certificate names.
fn node_of(certificate: &CertificateDer<'_>, domain: &str) -> Option<Principal> {
    Certificate::parse(certificate).ok()?.node(domain)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    own: Arc<SingleCertAndKey>,
) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    own: Arc<dyn rustls::client::ResolvesClientCert>,
) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Believes a server that has a certificate of the cluster's CAs with the name of a node of it. The
/// name that the client asks for is only how a controller of many clusters finds this one.
#[derive(Debug)]
struct NodeVerifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    domain: String,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        node_of(end_entity, &self.domain)
            .map(|_| ServerCertVerified::assertion())
            .ok_or(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The configuration has TLS 1.3 alone.
        Err(Error::General("nodes speak TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
