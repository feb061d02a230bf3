//! Certificates for tests: CAs, and what they issue, good and bad.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;

const DAY: i64 = 24 * 3600;

/// A CA.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

/// From when and until when, in seconds from now.
#[derive(Clone, Copy)]
pub(crate) struct Valid(pub(crate) i64, pub(crate) i64);

impl Valid {
    pub(crate) const NOW: Self = Self(-DAY, DAY);
    pub(crate) const EXPIRED: Self = Self(-2 * DAY, -DAY);
    pub(crate) const LATER: Self = Self(DAY, 2 * DAY);
}

fn params(name: &str, hosts: &[&str], valid: Valid) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Test");
    params.distinguished_name.push(DnType::CommonName, name);
    let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let at = |seconds: i64| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now + seconds).unwrap())
    };
    (params.not_before, params.not_after) = (at(valid.0), at(valid.1));
    params
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, &[], Valid::NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// A certificate of a broker.
    pub(crate) fn server(&self, name: &str, hosts: &[&str], valid: Valid) -> Issued {
        let mut params = params(name, hosts, valid);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A certificate of a client.
    pub(crate) fn client(&self, name: &str, valid: Valid) -> Issued {
        let mut params = params(name, &[], valid);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    /// What a client that trusts this CA speaks.
    pub(crate) fn trusted(&self, own: Option<&Issued>) -> TlsConnector {
        self.trusted_in(own, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// The same, in these versions of TLS only.
    pub(crate) fn trusted_in(
        &self,
        own: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => config.with_client_auth_cert(own.chain(), own.private_key()).unwrap(),
        };
        TlsConnector::from(Arc::new(config))
    }

    /// The first bytes of a handshake.
    pub(crate) fn client_hello(&self) -> Vec<u8> {
        let config = Arc::clone(self.trusted(None).config());
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut bytes = Vec::new();
        rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut bytes).unwrap();
        bytes
    }
}

impl Issued {
    /// A certificate of a client that no CA has issued.
    pub(crate) fn self_signed(name: &str) -> Self {
        let mut params = params(name, &[], Valid::NOW);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// Writes it into a listener's folder, as a broker reads it.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("tls.crt"), self.certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), self.key.serialize_pem()).unwrap();
    }
}
