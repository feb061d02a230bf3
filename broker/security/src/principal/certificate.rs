//! What a client's certificate says of its holder. Whether the certificate is good is for TLS to
//! find out before.

use super::Principal;
use super::der::{BOOLEAN, BadDer, OCTET_STRING, OID, Reader, SEQUENCE};
use super::dn::rfc2253;

/// The names in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as Java's `X500Principal.getName` writes it.
    pub subject: String,
    /// The URIs among the alternative names.
    pub uris: Vec<String>,
}

/// The most alternative names that are looked at.
const URIS_MAX: usize = 100;

const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const URI: u8 = 0x86;

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(der: &[u8]) -> Result<Self, BadDer> {
        let certificate = Reader(der).expect(SEQUENCE)?;
        let mut signed = Reader(Reader(certificate.content).expect(SEQUENCE)?.content);
        signed.optional(VERSION)?;
        // The serial number, the algorithm, the issuer and the validity.
        for _ in 0..4 {
            signed.next()?;
        }
        let subject = rfc2253(signed.expect(SEQUENCE)?.whole)?;
        let mut uris = Vec::new();
        while !signed.is_empty() {
            let value = signed.next()?;
            if value.tag == EXTENSIONS {
                uris = alternative_uris(value.content)?;
            }
        }
        Ok(Self { subject, uris })
    }

    /// The node of the cluster that holds the certificate: one of `cluster`'s URIs, and only one.
    pub fn node(&self, cluster: &str) -> Option<Principal> {
        let mut own = self.uris.iter().filter(|uri| uri.starts_with(SCHEME));
        match (own.next(), own.next()) {
            (Some(uri), None) => node_of(uri, cluster),
            _ => None,
        }
    }
}

fn alternative_uris(extensions: &[u8]) -> Result<Vec<String>, BadDer> {
    let mut extensions = Reader(Reader(extensions).expect(SEQUENCE)?.content);
    let mut uris = Vec::new();
    while !extensions.is_empty() {
        let mut extension = Reader(extensions.expect(SEQUENCE)?.content);
        let is_names = extension.expect(OID)?.content == SUBJECT_ALT_NAME;
        extension.optional(BOOLEAN)?;
        let value = extension.expect(OCTET_STRING)?;
        if !is_names {
            continue;
        }
        let mut names = Reader(Reader(value.content).expect(SEQUENCE)?.content);
        while !names.is_empty() {
            let name = names.next()?;
            if name.tag == URI {
                let uri = std::str::from_utf8(name.content);
                uris.push(uri.map_err(|_| BadDer("a URI that is no text"))?.to_owned());
            }
            if uris.len() > URIS_MAX {
                return Err(BadDer("too many URIs"));
            }
        }
    }
    Ok(uris)
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
