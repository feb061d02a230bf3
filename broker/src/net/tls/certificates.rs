//! The certificate of a listener, and the CAs of its clients: read from files, and read again when
//! those change.
//!
//! The files are read at an interval and compared by their bytes, which also sees Kubernetes
//! exchange a whole folder of links. What cannot be used leaves what was good in use. Connections
//! keep the certificate with which they began.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tracing::{info, warn};
use weir_security::principal::{Certificate, MappingRules};
use weir_security::secret::Secret;
use weir_tls::{FileContent, certificates, private_key, provider, read};

use crate::config::{ClientAuth, TlsConfig};
use crate::metrics::Metrics;

/// The chain of the listener's certificate, its own first.
const CHAIN: &str = "tls.crt";
/// Its private key: PKCS#8, PKCS#1 or SEC1.
const KEY: &str = "tls.key";
/// The CAs of clients.
const CLIENT_CAS: &str = "clients.crt";

/// What a listener shows to clients, and what it wants to see of them.
#[derive(Debug)]
pub(in crate::net) struct Certificates {
    listener: String,
    folder: PathBuf,
    client_auth: ClientAuth,
    rules: MappingRules,
    loaded: ArcSwap<Loaded>,
    /// What the last look at the files found.
    found: Mutex<FileContent>,
}

/// What the files hold.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The CAs of clients. A client of a former CA is not let in by a ticket either.
    client_cas: Vec<CertificateDer<'static>>,
    /// Until when the certificate is valid, in seconds since 1970.
    not_after: i64,
}

/// The bytes of the files.
struct Files {
    chain: Vec<u8>,
    key: Secret,
    client_cas: Option<Vec<u8>>,
}

impl Files {
    fn read(folder: &Path, client_auth: ClientAuth) -> anyhow::Result<Self> {
        let client_cas = match client_auth {
            ClientAuth::None => None,
            ClientAuth::Requested | ClientAuth::Required => Some(read(folder, CLIENT_CAS)?),
        };
        Ok(Self { chain: read(folder, CHAIN)?, key: read(folder, KEY)?.into(), client_cas })
    }

    fn is_new(&self, found: &mut FileContent) -> bool {
        found.is_new((&self.chain, self.key.expose(), &self.client_cas))
    }
}

impl Certificates {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// When a file is missing, is not what it should be, or does not fit the others; the message
    /// names it.
    pub(in crate::net) fn load(listener: &str, tls: &TlsConfig) -> anyhow::Result<Self> {
        let what = || format!("TLS of listener {listener}");
        let rules = MappingRules::parse(&tls.principal_rules).with_context(what)?;
        let files = Files::read(&tls.folder, tls.client_auth).with_context(what)?;
        let mut found = FileContent::default();
        files.is_new(&mut found);
        let loaded = Loaded::of(files, tls.client_auth, None).with_context(what)?;
        let certificates = Self {
            listener: listener.to_owned(),
            folder: tls.folder.clone(),
            client_auth: tls.client_auth,
            rules,
            loaded: ArcSwap::from_pointee(loaded),
            found: Mutex::new(found),
        };
        certificates.tell_of_use("serves TLS");
        Ok(certificates)
    }

    /// What new connections go by.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.load().config)
    }

    /// How a client's subject becomes its name.
    pub(super) fn rules(&self) -> &MappingRules {
        &self.rules
    }

    /// Until when the certificate is valid, in seconds since 1970.
    pub(in crate::net) fn not_after(&self) -> i64 {
        self.loaded.load().not_after
    }

    /// Looks at the files, and takes over what has changed.
    pub(super) fn look(&self, metrics: &Metrics) {
        let files = Files::read(&self.folder, self.client_auth);
        let mut found = self.found.lock();
        let is_new = match &files {
            Ok(files) => files.is_new(&mut found),
            Err(error) => found.is_new(format!("{error:#}")),
        };
        // What is bad is told once.
        if !is_new {
            return;
        }
        let current = self.loaded.load();
        let loaded = files.and_then(|files| Loaded::of(files, self.client_auth, Some(&current)));
        match loaded {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                metrics.tls().taken_over(&self.listener, self.not_after());
                self.tell_of_use("takes over a changed certificate; connections keep theirs");
            }
            Err(error) => {
                metrics.tls().refused(&self.listener);
                warn!(
                    listener = self.listener,
                    error = format!("{error:#}"),
                    "cannot use the changed certificate; the last good one stays in use"
                );
            }
        }
    }

    fn tell_of_use(&self, what: &'static str) {
        let loaded = self.loaded.load();
        let left = loaded.not_after - now();
        if left < 0 {
            warn!(
                listener = self.listener,
                seconds = -left,
                "the certificate has expired: clients refuse it"
            );
        }
        info!(listener = self.listener, client_auth = %self.client_auth, valid_seconds = left, "{what}");
    }
}

/// The time of day in seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Loaded {
    fn of(files: Files, client_auth: ClientAuth, before: Option<&Self>) -> anyhow::Result<Self> {
        let provider = provider();
        let chain = certificates(&files.chain, CHAIN)?;
        let own = chain.first().context(CHAIN)?;
        let not_after = Certificate::parse(own).context(CHAIN)?.validity.not_after;
        let key = private_key(&files.key, KEY)?;
        let own = CertifiedKey::from_der(chain, key, &provider)
            .with_context(|| format!("{CHAIN} and {KEY}"))?;
        let client_cas = match &files.client_cas {
            None => Vec::new(),
            Some(pem) => certificates(pem, CLIENT_CAS)?,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Requested | ClientAuth::Required => {
                let mut roots = RootCertStore::empty();
                for ca in &client_cas {
                    roots.add(ca.clone()).context(CLIENT_CAS)?;
                }
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if client_auth == ClientAuth::Requested {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build().context(CLIENT_CAS)?)
            }
        };
        // One certificate is shown whatever name the client asks for: many ask for none.
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match before.filter(|before| before.client_cas == client_cas) {
            Some(before) => Arc::clone(&before.config.ticketer),
            None => tickets()?,
        };
        Ok(Self { config: Arc::new(config), client_cas, not_after })
    }
}

fn tickets() -> anyhow::Result<Arc<dyn ProducesTickets>> {
    ring::Ticketer::new().context("a key for session tickets")
}
