//! The identity of a process, as it is now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use weir_security::principal::Principal;
use weir_security::secret::Secret;

use crate::files::{FileContent, read};
use crate::identity::Identity;

/// The server's end of a connection from a node.
pub type TlsServer = tokio_rustls::server::TlsStream<TcpStream>;

/// The file with the CAs of the cluster.
const CAS: &str = "ca.crt";

/// The current identity of a process. New connections take it; others keep theirs.
#[derive(Debug)]
pub struct Identities {
    current: ArcSwapOption<Identity>,
    files: Option<Mutex<Files>>,
}

/// Where the identity comes from.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    /// The domain of the first identity: a node does not change its cluster.
    domain: String,
    node: Principal,
    found: FileContent,
    /// What the files hold if others of the cluster do not believe it yet.
    doubtful: Option<Identity>,
}

/// What a look at the files has found.
#[derive(Debug)]
pub enum Look {
    /// The same as before.
    Same,
    /// Another identity, which is in use from now on.
    Changed,
    /// Something that cannot be used, told once.
    Bad(anyhow::Error),
}

impl Identities {
    /// None yet; [`Self::set`] gives one.
    pub fn none() -> Self {
        Self { current: ArcSwapOption::empty(), files: None }
    }

    /// An identity that is not in files.
    pub fn new(identity: Identity) -> Self {
        Self { current: ArcSwapOption::from_pointee(identity), files: None }
    }

    /// Reads the identity of a node: in `folder` its certificate and key, `broker-3.crt` and
    /// `broker-3.key` or `controller.crt` and `controller.key`, and the CAs of the cluster in
    /// `ca.crt`. An identity that other nodes do not believe is one too, see [`Self::check`].
    ///
    /// # Errors
    /// When a file is missing or cannot be used, or is that of another node.
    pub fn load(folder: &Path, node: &Principal) -> anyhow::Result<Self> {
        let found = FileContent::default();
        let mut files = Files {
            folder: folder.to_owned(),
            domain: String::new(),
            node: node.clone(),
            found,
            doubtful: None,
        };
        let what = || format!("the identity in {}", folder.display());
        let identity = files.read_new().context("nothing was read").flatten().with_context(what)?;
        identity.domain().clone_into(&mut files.domain);
        Ok(Self { files: Some(Mutex::new(files)), ..Self::new(identity) })
    }

    /// Whether other nodes believe the current identity now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> anyhow::Result<()> {
        self.current()?.check()
    }

    /// The identity of new connections.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn current(&self) -> io::Result<Arc<Identity>> {
        let none = || io::Error::other("this process has no certificate of the cluster yet");
        self.current.load_full().ok_or_else(none)
    }

    /// Exchanges the identity.
    pub fn set(&self, identity: Identity) {
        self.current.store(Some(Arc::new(identity)));
    }

    /// Looks at the files, and takes over what has changed, once other nodes believe it.
    pub fn look(&self) -> Look {
        let Some(files) = &self.files else { return Look::Same };
        match files.lock().look() {
            None => Look::Same,
            Some(Ok(identity)) => {
                self.set(identity);
                Look::Changed
            }
            Some(Err(error)) => Look::Bad(error),
        }
    }
}

impl Files {
    /// The identity in the files that is to be taken over, or what is wrong with them; `None` if
    /// that is known.
    fn look(&mut self) -> Option<anyhow::Result<Identity>> {
        let Some(found) = self.read_new() else {
            // What is not valid yet becomes so without a change.
            let waits = self.doubtful.take_if(|identity| identity.check().is_ok());
            return waits.map(Ok);
        };
        self.doubtful = None;
        Some(found.and_then(|identity| {
            let domain = identity.domain();
            ensure!(
                domain == self.domain,
                "it is of {domain:?}, and this one of {:?}",
                self.domain
            );
            match identity.check() {
                Ok(()) => Ok(identity),
                Err(doubt) => {
                    self.doubtful = Some(identity);
                    Err(doubt)
                }
            }
        }))
    }

    /// The identity in the files, or what is wrong with them; `None` if it is as before.
    fn read_new(&mut self) -> Option<anyhow::Result<Identity>> {
        let name = match self.node {
            Principal::Broker(id) => format!("broker-{id}"),
            _ => "controller".to_owned(),
        };
        match self.read(&name) {
            Err(error) => self.found.is_new(format!("{error:#}")).then_some(Err(error)),
            Ok((chain, key, cas)) => {
                let is_new = self.found.is_new((&chain, key.expose(), &cas));
                is_new.then(|| self.identity(&chain, &key, &cas).with_context(|| name))
            }
        }
    }

    fn read(&self, name: &str) -> anyhow::Result<(Vec<u8>, Secret, Vec<u8>)> {
        let chain = read(&self.folder, &format!("{name}.crt"))?;
        let key = read(&self.folder, &format!("{name}.key"))?.into();
        Ok((chain, key, read(&self.folder, CAS)?))
    }

    fn identity(&self, chain: &[u8], key: &Secret, cas: &[u8]) -> anyhow::Result<Identity> {
        let identity = Identity::new(chain, key, cas)?;
        ensure!(*identity.node() == self.node, "it is that of {}", identity.node());
        Ok(identity)
    }
}

/// Makes a connection from a node secure, as its server. `find` has the identity of this process in
/// the cluster whose domain the peer asks for. Returns that, and the node.
///
/// # Errors
/// When this process has no identity there, the handshake fails, or the peer is no node of the
/// cluster.
pub async fn accept(
    stream: TcpStream,
    find: impl FnOnce(&str) -> Option<Arc<Identities>>,
) -> io::Result<(TlsServer, Arc<Identity>, Principal)> {
    let began = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let domain = began.client_hello().server_name().unwrap_or_default().to_owned();
    let unknown = || io::Error::other(format!("there is no cluster {domain:?} here"));
    let identity = find(&domain).ok_or_else(unknown)?.current()?;
    let stream = began.into_stream(identity.server()).await?;
    let node = identity.peer(stream.get_ref().1.peer_certificates())?;
    Ok((stream, identity, node))
}
