//! A CA for nodes, for tests.

#![allow(clippy::unwrap_used)]

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use weir_security::principal::{Principal, node_uri};
use weir_security::secret::Secret;

use crate::Identity;

/// A CA for nodes.
#[derive(Debug)]
pub struct Ca {
    /// Its certificate.
    pub pem: String,
    params: CertificateParams,
    key: KeyPair,
}

impl Ca {
    /// A new CA.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, params, key }
    }

    /// A certificate, after `change`, and its key, both in PEM.
    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, Secret) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let signed = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key));
        (signed.unwrap().pem(), key.serialize_pem().into_bytes().into())
    }

    /// A certificate with these URIs, and its key.
    pub fn of(&self, uris: &[&str]) -> (String, Secret) {
        self.issue(|params| params.subject_alt_names = names(uris))
    }

    /// The certificate and the key of a node.
    pub fn node(&self, domain: &str, node: &Principal) -> (String, Secret) {
        self.of(&[&node_uri(domain, node).unwrap()])
    }

    /// The identity of a node that believes `cas`.
    pub fn identity(&self, domain: &str, node: &Principal, cas: &[&Self]) -> Identity {
        let (chain, key) = self.node(domain, node);
        Identity::new(chain.as_bytes(), &key, pems(cas).as_bytes()).unwrap()
    }
}

/// URIs as a certificate has them.
pub(crate) fn names(uris: &[&str]) -> Vec<SanType> {
    uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect()
}

/// The certificates of CAs, one after the other.
pub fn pems(cas: &[&Ca]) -> String {
    cas.iter().map(|ca| ca.pem.as_str()).collect()
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}
