//! What a client's certificate says of its holder. Whether the certificate is good is for TLS to
//! find out before.

use std::net::IpAddr;

use super::Principal;
use super::der::{BOOLEAN, BadDer, OCTET_STRING, OID, Reader, SEQUENCE};
use super::dn::rfc2253;
use super::validity::Validity;

/// What a certificate says of its holder, and of the CA that issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as Java's `X500Principal.getName` writes it.
    pub subject: String,
    /// When it is valid.
    pub validity: Validity,
    /// The URIs among the alternative names.
    pub uris: Vec<String>,
    /// The DNS names and IP addresses among them, as text.
    pub hosts: Vec<String>,
    /// The identifier of its key; empty if it has none.
    pub key_id: Vec<u8>,
    /// The identifier of its CA's key; empty if it has none.
    pub authority_key_id: Vec<u8>,
}

/// The most URIs that a certificate may have.
const URIS_MAX: usize = 100;

/// The most DNS names and addresses: a certificate for many brokers has several of each.
const HOSTS_MAX: usize = 10_000;

const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
/// The identifier of the key within that of the CA.
const KEY_ID: u8 = 0x80;

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(der: &[u8]) -> Result<Self, BadDer> {
        let certificate = Reader(der).expect(SEQUENCE)?;
        let mut signed = Reader(Reader(certificate.content).expect(SEQUENCE)?.content);
        signed.optional(VERSION)?;
        // The serial number, the algorithm and the issuer.
        for _ in 0..3 {
            signed.next()?;
        }
        let validity = Validity::parse(signed.expect(SEQUENCE)?.content)?;
        let subject = rfc2253(signed.expect(SEQUENCE)?.whole)?;
        let mut certificate = Self {
            subject,
            validity,
            uris: Vec::new(),
            hosts: Vec::new(),
            key_id: Vec::new(),
            authority_key_id: Vec::new(),
        };
        while !signed.is_empty() {
            let value = signed.next()?;
            if value.tag == EXTENSIONS {
                certificate.take_extensions(value.content)?;
            }
        }
        Ok(certificate)
    }

    fn take_extensions(&mut self, content: &[u8]) -> Result<(), BadDer> {
        let mut extensions = Reader(Reader(content).expect(SEQUENCE)?.content);
        while !extensions.is_empty() {
            let mut extension = Reader(extensions.expect(SEQUENCE)?.content);
            let id = extension.expect(OID)?.content;
            extension.optional(BOOLEAN)?;
            let mut value = Reader(extension.expect(OCTET_STRING)?.content);
            match id {
                SUBJECT_ALT_NAME => self.take_names(value.expect(SEQUENCE)?.content)?,
                SUBJECT_KEY_ID => self.key_id = value.expect(OCTET_STRING)?.content.to_vec(),
                AUTHORITY_KEY_ID => {
                    let mut parts = Reader(value.expect(SEQUENCE)?.content);
                    if let Some(key) = parts.optional(KEY_ID)? {
                        self.authority_key_id = key.content.to_vec();
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_names(&mut self, content: &[u8]) -> Result<(), BadDer> {
        let mut names = Reader(content);
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).map_err(|_| BadDer("a name that is no text"));
            text.map(str::to_owned)
        };
        while !names.is_empty() {
            let name = names.next()?;
            match name.tag {
                URI => self.uris.push(text(name.content)?),
                DNS => self.hosts.push(text(name.content)?),
                IP_ADDRESS => self.hosts.push(address(name.content)?),
                _ => {}
            }
            if self.uris.len() > URIS_MAX || self.hosts.len() > HOSTS_MAX {
                return Err(BadDer("too many names"));
            }
        }
        Ok(())
    }

    /// The node of the cluster that holds the certificate: one of `cluster`'s URIs, and only one.
    pub fn node(&self, cluster: &str) -> Option<Principal> {
        node_of(self.node_uri()?, cluster)
    }

    /// The cluster and its node that the certificate names, and no other.
    pub fn identity(&self) -> Option<(String, Principal)> {
        let uri = self.node_uri()?;
        let (cluster, _) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        Some((cluster.to_owned(), node_of(uri, cluster)?))
    }

    /// Its only URI of a node.
    fn node_uri(&self) -> Option<&str> {
        let mut own = self.uris.iter().filter(|uri| uri.starts_with(SCHEME));
        match (own.next(), own.next()) {
            (Some(uri), None) => Some(uri),
            _ => None,
        }
    }
}

fn address(bytes: &[u8]) -> Result<String, BadDer> {
    let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => IpAddr::from(four),
        (_, Ok(sixteen)) => IpAddr::from(sixteen),
        _ => return Err(BadDer("an IP address of another length")),
    };
    Ok(address.to_string())
}

const SCHEME: &str = "weir://";

/// The URI that stands in the certificate of a node; none for a client.
pub fn node_uri(cluster: &str, node: &Principal) -> Option<String> {
    match node {
        Principal::Client(_) => None,
        Principal::Broker(id) => Some(format!("{SCHEME}{cluster}/broker/{id}")),
        Principal::Controller => Some(format!("{SCHEME}{cluster}/controller")),
    }
}

/// The node of a URI that [`node_uri`] made for this cluster.
pub fn node_of(uri: &str, cluster: &str) -> Option<Principal> {
    let path = uri.strip_prefix(SCHEME)?.strip_prefix(cluster)?.strip_prefix('/')?;
    let node = match path.strip_prefix("broker/") {
        Some(id) => Principal::Broker(id.parse().ok().filter(|id| *id >= 0)?),
        None => Principal::Controller,
    };
    // A node has one URI: no `+3`, no `03`, and nothing behind it.
    (node_uri(cluster, &node).as_deref() == Some(uri)).then_some(node)
}
