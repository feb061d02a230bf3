//! PURE but for random numbers: the CAs of a cluster, and the certificates that they issue: one CA
//! for the brokers' listeners, and one for the nodes among themselves.
//!
//! Keys are ECDSA P-256 in PKCS#8, which every client reads. The CA's key stays when its
//! certificate is renewed, so that what it has issued stays good.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use weir_security::principal::{Certificate, Principal, Validity, node_uri};
use weir_security::secret::Secret;

const DAY: i64 = 24 * 3600;

/// How long the certificate of a CA is valid.
const AUTHORITY_VALID: i64 = 10 * 365 * DAY;

/// How long a certificate that it issues is valid.
const ISSUED_VALID: i64 = 365 * DAY;

/// How far clocks of clients may be behind.
const CLOCKS_DIFFER: i64 = 3600;

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: Secret,
}

/// The names of listeners' certificates: DNS names and IP addresses as text.
pub(crate) type Hosts = BTreeSet<String>;

/// Whose certificate it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holder<'a> {
    /// A listener's, which clients reach by these names.
    Listener(&'a Hosts),
    /// A node's of this domain.
    Node(&'a str, &'a Principal),
}

impl Holder<'_> {
    /// Whether a certificate names this holder and nobody else.
    fn is_named_by(self, certificate: &Certificate) -> bool {
        match self {
            Self::Listener(hosts) => {
                let named: BTreeSet<&String> = certificate.hosts.iter().collect();
                named.into_iter().eq(hosts) && certificate.uris.is_empty()
            }
            Self::Node(domain, node) => {
                certificate.hosts.is_empty() && certificate.uris.iter().eq(&node_uri(domain, node))
            }
        }
    }
}

/// A CA that can issue certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    cluster: String,
    pair: Pair,
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    /// A new CA for a cluster.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn new(cluster: &str, now: i64) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make the CA's key")?;
        Self::of(cluster, key, now)
    }

    /// The CA that was made before. Its certificate is renewed when two thirds of its time have
    /// passed.
    ///
    /// # Errors
    /// When the key is none, or the certificate is that of another.
    pub(crate) fn load(cluster: &str, pair: Pair, now: i64) -> anyhow::Result<Self> {
        let key = std::str::from_utf8(pair.key.expose()).context("the CA's key is no text")?;
        let key = KeyPair::from_pem(key).context("the CA's key")?;
        let certificate = parse(&pair.certificate).context("the CA's certificate")?;
        let own = params(cluster, certificate.validity)?.key_identifier(&key);
        anyhow::ensure!(certificate.key_id == own, "the CA's certificate is that of another key");
        if is_due(certificate.validity, now) {
            return Self::of(cluster, key, now);
        }
        Ok(Self { cluster: cluster.to_owned(), pair, certificate, key })
    }

    fn of(cluster: &str, key: KeyPair, now: i64) -> anyhow::Result<Self> {
        let validity =
            Validity { not_before: now - CLOCKS_DIFFER, not_after: now + AUTHORITY_VALID };
        let made = params(cluster, validity)?.self_signed(&key);
        let certificate = made.context("make the CA's certificate")?.pem();
        let pair = Pair { key: key.serialize_pem().into_bytes().into(), certificate };
        let certificate = parse(&pair.certificate)?;
        Ok(Self { cluster: cluster.to_owned(), pair, certificate, key })
    }

    /// Its certificate and key, to be kept.
    pub(crate) fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Issues a certificate with a key of its own.
    ///
    /// # Errors
    /// When a host is no name that a certificate can hold.
    pub(crate) fn issue(&self, holder: Holder<'_>, now: i64) -> anyhow::Result<Pair> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")?;
        let mut uses = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (mut wanted, of_whom) = match holder {
            Holder::Listener(hosts) => {
                let names: Vec<String> = hosts.iter().cloned().collect();
                let wanted = CertificateParams::new(names).context("the names of a certificate")?;
                (wanted, "brokers".to_owned())
            }
            Holder::Node(domain, node) => {
                let mut wanted = CertificateParams::default();
                let uri = node_uri(domain, node).context("a client is no node")?;
                let uri = uri.try_into().context("the name of a node")?;
                wanted.subject_alt_names.push(SanType::URI(uri));
                uses.push(ExtendedKeyUsagePurpose::ClientAuth);
                (wanted, node.to_string())
            }
        };
        let validity = Validity {
            not_before: now - CLOCKS_DIFFER,
            // A certificate is of no use once that of its CA has expired.
            not_after: (now + ISSUED_VALID).min(self.certificate.validity.not_after),
        };
        set_validity(&mut wanted, validity);
        wanted.distinguished_name = name(&format!("{} {of_whom}", self.cluster));
        wanted.serial_number = Some(serial());
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = uses;
        wanted.use_authority_key_identifier_extension = true;
        // With this a certificate names its own key, too.
        wanted.is_ca = IsCa::ExplicitNoCa;
        let own = params(&self.cluster, self.certificate.validity)?;
        let issuer = Issuer::from_params(&own, &self.key);
        let certificate = wanted.signed_by(&key, &issuer).context("issue a certificate")?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem().into_bytes().into() })
    }

    /// Whether this CA has issued the certificate for exactly this holder and this key, and less
    /// than two thirds of its time have passed. Files are written one after the other, so a crash
    /// may leave a key beside the certificate of the one before.
    pub(crate) fn is_good(&self, issued: &Pair, holder: Holder<'_>, now: i64) -> bool {
        let Ok(certificate) = parse(&issued.certificate) else { return false };
        certificate.authority_key_id == self.certificate.key_id
            && !is_due(certificate.validity, now)
            && is_usable(issued, holder, now)
    }
}

/// Whether a certificate is for exactly this holder and this key, and is valid. Which CA has issued
/// it, only others can tell.
pub(crate) fn is_usable(pair: &Pair, holder: Holder<'_>, now: i64) -> bool {
    let Ok(certificate) = parse(&pair.certificate) else { return false };
    let is_its_key =
        |key: KeyPair| CertificateParams::default().key_identifier(&key) == certificate.key_id;
    holder.is_named_by(&certificate)
        && certificate.validity.contains(now)
        && std::str::from_utf8(pair.key.expose())
            .is_ok_and(|key| KeyPair::from_pem(key).is_ok_and(is_its_key))
}

/// A name as certificates hold it: an address in its shortest form, a DNS name in lower case.
pub(crate) fn host(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.to_ascii_lowercase(),
    }
}

/// When a certificate is valid.
pub(crate) fn validity(pem: &str) -> Option<Validity> {
    Some(parse(pem).ok()?.validity)
}

/// Whether two thirds of the time have passed.
fn is_due(validity: Validity, now: i64) -> bool {
    let Validity { not_before, not_after } = validity;
    now < not_before || now >= not_before + (not_after - not_before) / 3 * 2
}

fn parse(pem: &str) -> anyhow::Result<Certificate> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow::anyhow!("no certificate in PEM: {error}"))?;
    Ok(Certificate::parse(&der)?)
}

fn params(cluster: &str, validity: Validity) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    set_validity(&mut params, validity);
    params.distinguished_name = name(&format!("Weir CA of {cluster}"));
    params.serial_number = Some(serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let at = |seconds: i64| {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        date_time_ymd(1970, 1, 1) + since
    };
    (params.not_before, params.not_after) = (at(validity.not_before), at(validity.not_after));
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Weir");
    name.push(DnType::CommonName, common);
    name
}

/// A number that no other certificate of the CA has.
fn serial() -> SerialNumber {
    SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes())
}

#[cfg(test)]
mod tests {
    use weir_tls::Identity;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn end_of(pem: &str) -> Option<i64> {
        validity(pem).map(|validity| validity.not_after)
    }

    fn hosts(names: &[&str]) -> Hosts {
        names.iter().map(|name| host(name)).collect()
    }

    #[test]
    fn what_a_ca_issues_is_good_for_its_hosts_and_two_thirds_of_its_time() {
        let authority = Authority::new("orders", NOW).unwrap();
        let wanted = hosts(&["orders-bootstrap.shop.svc", "::1", "10.0.0.1", "*.Example.com"]);
        let issued = authority.issue(Holder::Listener(&wanted), NOW).unwrap();
        assert!(authority.is_good(&issued, Holder::Listener(&wanted), NOW));
        assert!(
            !authority.is_good(&issued, Holder::Listener(&hosts(&["::1", "10.0.0.1"])), NOW),
            "other hosts"
        );
        let life = ISSUED_VALID + CLOCKS_DIFFER;
        let due = NOW - CLOCKS_DIFFER + life / 3 * 2;
        assert!(authority.is_good(&issued, Holder::Listener(&wanted), due - 1));
        assert!(!authority.is_good(&issued, Holder::Listener(&wanted), due));
        assert!(
            !authority.is_good(&issued, Holder::Listener(&wanted), NOW - 2 * CLOCKS_DIFFER),
            "not valid yet"
        );
        let other = Authority::new("orders", NOW).unwrap();
        assert!(!other.is_good(&issued, Holder::Listener(&wanted), NOW), "of another CA");
        let broken = Pair { key: b"x".to_vec().into(), ..issued.clone() };
        assert!(!authority.is_good(&broken, Holder::Listener(&wanted), NOW));
        let next = authority.issue(Holder::Listener(&wanted), NOW).unwrap();
        let half = Pair { key: next.key, ..issued.clone() };
        assert!(
            !authority.is_good(&half, Holder::Listener(&wanted), NOW),
            "a key without its certificate"
        );
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(certificate.subject, "CN=orders brokers,O=Weir");
        assert_eq!(certificate.validity.not_after, NOW + ISSUED_VALID);
        assert!(issued.key.expose().starts_with(b"-----BEGIN PRIVATE KEY-----"), "PKCS#8");
    }

    #[test]
    fn a_ca_is_renewed_with_its_key() {
        let first = Authority::new("orders", NOW).unwrap();
        let again = Authority::load("orders", first.pair().clone(), NOW + DAY).unwrap();
        assert_eq!(again.pair(), first.pair());
        let wanted = hosts(&["a"]);
        let later = NOW + AUTHORITY_VALID / 3 * 2;
        let renewed = Authority::load("orders", first.pair().clone(), later).unwrap();
        assert_ne!(renewed.pair().certificate, first.pair().certificate);
        assert_eq!(renewed.pair().key, first.pair().key);
        let issued = first.issue(Holder::Listener(&wanted), later).unwrap();
        assert!(
            renewed.is_good(&issued, Holder::Listener(&wanted), later),
            "clients trust the CA of before"
        );
        assert_eq!(end_of(&renewed.pair().certificate), Some(later + AUTHORITY_VALID));
        let end = end_of(&first.pair().certificate).unwrap();
        let last = first.issue(Holder::Listener(&wanted), end - DAY).unwrap();
        assert_eq!(end_of(&last.certificate), Some(end), "not beyond the CA's own end");
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let (one, other) = (Authority::new("c", NOW).unwrap(), Authority::new("c", NOW).unwrap());
        let mixed =
            Pair { certificate: one.pair().certificate.clone(), key: other.pair().key.clone() };
        assert!(Authority::load("c", mixed, NOW).unwrap_err().to_string().contains("another key"));
        let none = Pair { certificate: String::new(), key: one.pair().key.clone() };
        assert!(Authority::load("c", none, NOW).is_err());
    }

    #[test]
    fn a_node_has_a_certificate_of_its_own() {
        let authority = Authority::new("nodes of orders", NOW).unwrap();
        let broker = Principal::Broker(3);
        let issued = authority.issue(Holder::Node("uid", &broker), NOW).unwrap();
        let is_of = |domain, node| authority.is_good(&issued, Holder::Node(domain, node), NOW);
        assert!(is_of("uid", &broker));
        assert!(!is_of("other", &broker) && !is_of("uid", &Principal::Broker(4)));
        assert!(!is_of("uid", &Principal::Controller));
        assert!(!authority.is_good(&issued, Holder::Listener(&Hosts::new()), NOW));
        let cas = authority.pair().certificate.as_bytes();
        let identity = Identity::new(issued.certificate.as_bytes(), &issued.key, cas).unwrap();
        assert_eq!((identity.domain(), identity.node()), ("uid", &broker));
    }
}
