//! PURE but for random numbers: the CA of a cluster's nodes, and how another one takes its place.
//!
//! That takes three steps, and the next one waits until every broker has taken the one before:
//! all nodes trust both CAs ([`Step::Trust`]); all have certificates of the newest one
//! ([`Step::Issue`]); the former one is dropped. A CA whose key is lost is replaced in the same
//! way: what it has issued stays until all trust the newest.
//!
//! Invariant: a node trusts, at every moment, the CAs of all certificates that others may show.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use k8s_openapi::ByteString;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use weir_security::principal::{Fingerprint, Principal};
use weir_tls::Shown;

use crate::authority::{Authority, Holder, Pair, is_usable};
use crate::listener::{CERTIFICATE, KEY};

/// The keys of the former CA in the Secret, of the step, and of the request that was carried out
/// last.
const FORMER: [&str; 2] = ["former.crt", "former.key"];
const STEP: &str = "step";
const REQUEST: &str = "request";

/// What a Secret holds.
type Data = BTreeMap<String, ByteString>;

/// How far another CA has taken the place of the former one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All nodes are to trust both. The former one issues, if its key is not lost.
    Trust,
    /// All nodes are to show certificates of the newest.
    Issue,
}

impl Step {
    const ALL: [Self; 2] = [Self::Trust, Self::Issue];

    /// Its name, in the Secret and in the status.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trust => "Trust",
            Self::Issue => "Issue",
        }
    }
}

/// The CA of a cluster's nodes, and the former one as long as nodes trust it.
#[derive(Debug)]
pub(crate) struct NodeCas {
    domain: String,
    newest: Authority,
    former: Option<Former>,
    /// The request that was carried out last, or is.
    request: String,
}

#[derive(Debug)]
struct Former {
    /// One or more, in PEM.
    certificates: String,
    /// `None`: its key is lost.
    authority: Option<Authority>,
    step: Step,
}

/// The brokers whose certificates are kept.
#[derive(Clone, Debug)]
pub(crate) struct Brokers {
    /// Those below this number have some.
    pub(crate) replicas: i32,
    /// Those that are registered; `None` if that is not known.
    pub(crate) registered: Option<BTreeSet<i32>>,
}

/// An exchange of the CA that waits for brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) step: Step,
    pub(crate) brokers: BTreeSet<i32>,
}

impl NodeCas {
    /// The first CA of a cluster, or the one after a CA whose key is lost; `trusted` are the
    /// certificates that its brokers have been given.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn new(
        (of_whom, domain): (&str, &str),
        trusted: Option<String>,
        request: &str,
        now: i64,
    ) -> anyhow::Result<Self> {
        let former = trusted.filter(|pem| !fingerprints(pem).is_empty());
        Ok(Self {
            domain: domain.to_owned(),
            newest: Authority::new(of_whom, now)?,
            former: former.map(|certificates| Former {
                certificates,
                authority: None,
                step: Step::Trust,
            }),
            request: request.to_owned(),
        })
    }

    /// The CA in a Secret; `None` if there is none in it.
    ///
    /// # Errors
    /// When what it holds is no CA.
    pub(crate) fn load(
        (of_whom, domain): (&str, &str),
        kept: &Data,
        now: i64,
    ) -> anyhow::Result<Option<Self>> {
        let text = |key: &str| -> anyhow::Result<Option<String>> {
            let bytes = kept.get(key).map(|bytes| bytes.0.clone());
            bytes.map(String::from_utf8).transpose().with_context(|| format!("{key} is no text"))
        };
        let pair = |[certificate, key]: [&str; 2]| -> anyhow::Result<Option<Pair>> {
            let key = kept.get(key).map(|key| key.0.clone().into());
            Ok(text(certificate)?.zip(key).map(|(certificate, key)| Pair { certificate, key }))
        };
        let Some(newest) = pair([CERTIFICATE, KEY])? else { return Ok(None) };
        let newest = Authority::load(of_whom, newest, now)?;
        let former = match text(FORMER[0])? {
            None => None,
            Some(certificates) => {
                let name = text(STEP)?.unwrap_or_default();
                let step = Step::ALL.into_iter().find(|step| step.name() == name);
                let step = step.with_context(|| format!("{STEP}: there is no step {name:?}"))?;
                let authority = pair(FORMER)?;
                let authority = authority.map(|pair| Authority::load(of_whom, pair, now));
                let authority = authority.transpose().context("the former CA")?;
                Some(Former { certificates, authority, step })
            }
        };
        let (domain, request) = (domain.to_owned(), text(REQUEST)?.unwrap_or_default());
        Ok(Some(Self { domain, newest, former, request }))
    }

    /// What the Secret is to hold.
    pub(crate) fn kept(&self) -> Data {
        let own = self.newest.pair();
        let mut kept = Data::new();
        let mut keep = |key: &str, bytes: &[u8]| {
            kept.insert(key.to_owned(), ByteString(bytes.to_vec()));
        };
        keep(CERTIFICATE, own.certificate.as_bytes());
        keep(KEY, own.key.expose());
        if let Some(former) = &self.former {
            keep(FORMER[0], former.certificates.as_bytes());
            keep(STEP, former.step.name().as_bytes());
            if let Some(authority) = &former.authority {
                keep(FORMER[1], authority.pair().key.expose());
            }
        }
        if !self.request.is_empty() {
            keep(REQUEST, self.request.as_bytes());
        }
        kept
    }

    /// Begins to exchange the CA if this is a new request, and no exchange is under way.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn request(
        &mut self,
        of_whom: &str,
        request: &str,
        now: i64,
    ) -> anyhow::Result<bool> {
        if request.is_empty() || request == self.request || self.former.is_some() {
            return Ok(false);
        }
        let former = std::mem::replace(&mut self.newest, Authority::new(of_whom, now)?);
        self.former = Some(Former {
            certificates: former.pair().certificate.clone(),
            authority: Some(former),
            step: Step::Trust,
        });
        request.clone_into(&mut self.request);
        Ok(true)
    }

    /// Takes the next step of an exchange if the brokers have taken the one before, and makes what
    /// is missing or due among the certificates that are `issued`. Returns whom the exchange waits
    /// for.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn settle(
        &mut self,
        brokers: &Brokers,
        shown: &BTreeMap<i32, Shown>,
        issued: &mut BTreeMap<i32, Pair>,
        now: i64,
    ) -> anyhow::Result<Option<Waits>> {
        let mut left = BTreeSet::new();
        if let Some(registered) = &brokers.registered {
            let there = registered.range(..brokers.replicas).copied();
            left = self.advance(there.collect(), shown, issued, now);
        }
        // Those of brokers that are to go stay as long as they are good.
        issued.retain(|id, pair| self.is_good(*id, pair, now));
        for id in 0..brokers.replicas {
            if let Entry::Vacant(missing) = issued.entry(id) {
                let holder = Principal::Broker(id);
                missing.insert(self.issuer().issue(Holder::Node(&self.domain, &holder), now)?);
            }
        }
        Ok(self.step().map(|step| Waits { step, brokers: left }))
    }

    /// Takes the next step if all of these brokers have taken the one before: they show what is
    /// `issued`. Returns those that have not.
    fn advance(
        &mut self,
        mut brokers: BTreeSet<i32>,
        shown: &BTreeMap<i32, Shown>,
        issued: &BTreeMap<i32, Pair>,
        now: i64,
    ) -> BTreeSet<i32> {
        let Some(step) = self.step() else { return BTreeSet::new() };
        let newest = fingerprints(&self.newest.pair().certificate);
        let has_taken = |id: &i32| {
            let Some(shown) = shown.get(id) else { return false };
            match step {
                Step::Trust => newest.iter().all(|ca| shown.cas.contains(ca)),
                Step::Issue => issued.get(id).is_some_and(|pair| {
                    fingerprints(&pair.certificate).first() == Some(&shown.own)
                        && self.is_good(*id, pair, now)
                }),
            }
        };
        brokers.retain(|id| !has_taken(id));
        if brokers.is_empty() {
            match (&mut self.former, step) {
                (Some(former), Step::Trust) => former.step = Step::Issue,
                (former, _) => *former = None,
            }
        }
        brokers
    }

    /// How far the exchange is; `None` if there is none.
    pub(crate) fn step(&self) -> Option<Step> {
        self.former.as_ref().map(|former| former.step)
    }

    /// The CA that issues certificates now.
    pub(crate) fn issuer(&self) -> &Authority {
        match &self.former {
            Some(Former { step: Step::Trust, authority: Some(former), .. }) => former,
            _ => &self.newest,
        }
    }

    /// Whether a broker keeps this certificate.
    fn is_good(&self, broker: i32, pair: &Pair, now: i64) -> bool {
        let broker = Principal::Broker(broker);
        let holder = Holder::Node(&self.domain, &broker);
        match &self.former {
            Some(Former { step: Step::Trust, authority: None, .. }) => is_usable(pair, holder, now),
            _ => self.issuer().is_good(pair, holder, now),
        }
    }

    /// The certificates of the CAs that nodes trust.
    pub(crate) fn trusted(&self) -> String {
        let newest = &self.newest.pair().certificate;
        let former = self.former.as_ref().map_or("", |former| &former.certificates);
        format!("{newest}{former}")
    }

    /// The newest CA.
    pub(crate) fn newest(&self) -> &Pair {
        self.newest.pair()
    }
}

/// The certificates in PEM, by their fingerprints.
fn fingerprints(pem: &str) -> Vec<Fingerprint> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    all.map(|der| Fingerprint::of(&der)).collect()
}

#[cfg(test)]
mod tests;
