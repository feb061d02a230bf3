//! ACLs compiled for decisions: by principal, type of resource and pattern.
//!
//! A decision looks up two principals, the sender and `User:*`. For each it looks at the name
//! itself, at `*`, and at the prefixes of the name. So its cost depends on the logarithm of the
//! number of ACLs, and on how many of the sender's own prefixes nest.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use super::kinds::{Operation, PatternType, Permission, ResourceType};
use super::rule::{Acl, WILDCARD};
use crate::principal::KafkaPrincipal;

/// A set of operations, one bit for each code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Operations(u32);

impl Operations {
    const fn of(operations: &[Operation]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < operations.len() {
            bits |= 1 << operations[at].code();
            at += 1;
        }
        Self(bits)
    }

    /// The operations that an ACL must have one of to permit `operation`. Some imply to see the
    /// resource, or its configuration.
    pub(super) fn that_allow(operation: Operation) -> Self {
        use Operation::*;
        match operation {
            Describe => const { Self::of(&[Describe, Read, Write, Delete, Alter, All]) },
            DescribeConfigs => const { Self::of(&[DescribeConfigs, AlterConfigs, All]) },
            other => Self::that_deny(other),
        }
    }

    /// The operations that an ACL must have one of to refuse `operation`: nothing is implied.
    pub(super) fn that_deny(operation: Operation) -> Self {
        Self::of(&[operation, Operation::All])
    }

    fn insert(&mut self, operation: Operation) {
        self.0 |= Self::of(&[operation]).0;
    }

    /// One operation that is in both sets.
    fn common(self, other: Self) -> Option<Operation> {
        let is_common = |operation: &Operation| self.0 & other.0 & (1 << operation.code()) != 0;
        Operation::ALL.iter().copied().find(is_common)
    }
}

/// What the ACLs of one principal and one pattern say about one host.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    allow: Operations,
    deny: Operations,
}

/// What the ACLs of one principal and one pattern say, by host.
#[derive(Debug, Default)]
struct Hosts {
    any: Said,
    by_host: BTreeMap<Box<str>, Said>,
}

impl Hosts {
    fn add(&mut self, acl: &Acl) {
        let said = match &*acl.host {
            WILDCARD => &mut self.any,
            host => self.by_host.entry(host.into()).or_default(),
        };
        match acl.permission {
            Permission::Allow => said.allow.insert(acl.operation),
            Permission::Deny => said.deny.insert(acl.operation),
        }
    }

    /// What applies to a host, and whether that is said of any host.
    fn of(&self, host: &str) -> impl Iterator<Item = (bool, Said)> {
        let own = self.by_host.get(host).map(|said| (false, *said));
        iter::once((true, self.any)).chain(own)
    }

    fn has(&self, permission: Permission, host: &str, wanted: Operations) -> bool {
        self.of(host).any(|(_, said)| said.by(permission).common(wanted).is_some())
    }
}

impl Said {
    fn by(self, permission: Permission) -> Operations {
        match permission {
            Permission::Allow => self.allow,
            Permission::Deny => self.deny,
        }
    }
}

/// Texts that mean all names which begin with them, sorted.
#[derive(Debug)]
struct Prefixes<T> {
    entries: Vec<Prefix<T>>,
}

#[derive(Debug)]
struct Prefix<T> {
    text: Box<str>,
    /// The longest other entry that is a prefix of this one.
    parent: Option<usize>,
    value: T,
}

impl<T> Prefixes<T> {
    fn new(sorted: BTreeMap<Box<str>, T>) -> Self {
        let mut entries: Vec<Prefix<T>> = Vec::with_capacity(sorted.len());
        let mut around: Vec<usize> = Vec::new();
        for (text, value) in sorted {
            while around.last().is_some_and(|&outer| !text.starts_with(&*entries[outer].text)) {
                around.pop();
            }
            let parent = around.last().copied();
            around.push(entries.len());
            entries.push(Prefix { text, parent, value });
        }
        Self { entries }
    }

    /// The entries that are prefixes of a name, the longest first.
    fn of<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Prefix<T>> {
        // Every prefix of the name is a prefix of the last entry before the name, too.
        let before = self.entries.partition_point(|entry| &*entry.text <= name);
        let mut at = before.checked_sub(1);
        if let Some(last) = at {
            let letters = self.entries[last].text.bytes().zip(name.bytes());
            let common = letters.take_while(|(a, b)| a == b).count();
            while at.is_some_and(|entry| self.entries[entry].text.len() > common) {
                at = at.and_then(|entry| self.entries[entry].parent);
            }
        }
        let entry = |at: usize| &self.entries[at];
        iter::successors(at.map(entry), move |prefix| prefix.parent.map(entry))
    }
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

/// The patterns of one type of resource.
#[derive(Debug)]
struct Patterns<T> {
    literal: BTreeMap<Box<str>, T>,
    any: Option<T>,
    prefixed: Prefixes<T>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { literal: BTreeMap::new(), any: None, prefixed: Prefixes::default() }
    }
}

impl<T> Patterns<T> {
    /// The patterns that apply to a name.
    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (PatternType, &'a str, &'a T)> {
        let literal = self.literal.get_key_value(name);
        let literal = literal.map(|(name, value)| (PatternType::Literal, &**name, value));
        let any = self.any.as_ref().map(|value| (PatternType::Literal, WILDCARD, value));
        let prefixes = self.prefixed.of(name);
        let prefixed = prefixes.map(|p| (PatternType::Prefixed, &*p.text, &p.value));
        literal.into_iter().chain(any).chain(prefixed)
    }
}

/// The patterns of each type of resource while they are collected.
#[derive(Debug, Default)]
struct Collected<T>(BTreeMap<ResourceType, Drawer<T>>);

#[derive(Debug, Default)]
struct Drawer<T> {
    literal: BTreeMap<Box<str>, T>,
    prefixed: BTreeMap<Box<str>, T>,
}

impl<T: Default> Collected<T> {
    fn at(&mut self, acl: &Acl) -> &mut T {
        let drawer = self
            .0
            .entry(acl.resource_type)
            .or_insert_with(|| Drawer { literal: BTreeMap::new(), prefixed: BTreeMap::new() });
        let patterns = match acl.pattern_type {
            PatternType::Literal => &mut drawer.literal,
            PatternType::Prefixed => &mut drawer.prefixed,
        };
        patterns.entry(acl.name.as_str().into()).or_default()
    }

    fn compile(self) -> Table<T> {
        let patterns = |mut drawer: Drawer<T>| Patterns {
            any: drawer.literal.remove(WILDCARD),
            literal: drawer.literal,
            prefixed: Prefixes::new(drawer.prefixed),
        };
        self.0.into_iter().map(|(kind, drawer)| (kind, patterns(drawer))).collect()
    }
}

type Table<T> = BTreeMap<ResourceType, Patterns<T>>;

/// The ACL that decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'a> {
    pub(super) permission: Permission,
    pub(super) pattern_type: PatternType,
    pub(super) name: &'a str,
    /// Whether it is an ACL of `User:*`.
    pub(super) of_everyone: bool,
    /// Whether it is an ACL for any host.
    pub(super) of_any_host: bool,
    pub(super) operation: Operation,
}

/// A set of ACLs, compiled.
#[derive(Debug)]
pub(super) struct Index {
    everyone: Table<Hosts>,
    principals: BTreeMap<KafkaPrincipal, Table<Hosts>>,
    /// The patterns of all principals.
    named: Table<()>,
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) principal: &'a KafkaPrincipal,
    pub(super) host: &'a str,
}

impl Index {
    pub(super) fn new(acls: &BTreeSet<Acl>) -> Self {
        let mut everyone = Collected::<Hosts>(BTreeMap::new());
        let mut principals: BTreeMap<&KafkaPrincipal, Collected<Hosts>> = BTreeMap::new();
        let mut named = Collected::<()>(BTreeMap::new());
        let wildcard = KafkaPrincipal::wildcard();
        for acl in acls {
            named.at(acl);
            let collected = match acl.principal == wildcard {
                true => &mut everyone,
                false => {
                    principals.entry(&acl.principal).or_insert_with(|| Collected(BTreeMap::new()))
                }
            };
            collected.at(acl).add(acl);
        }
        let compiled = |(principal, collected): (&KafkaPrincipal, Collected<Hosts>)| {
            (principal.clone(), collected.compile())
        };
        Self {
            everyone: everyone.compile(),
            principals: principals.into_iter().map(compiled).collect(),
            named: named.compile(),
        }
    }

    /// The patterns of the asker and of everyone for a type of resource.
    fn tables(
        &self,
        asker: Asker<'_>,
        kind: ResourceType,
    ) -> impl Iterator<Item = (bool, &Patterns<Hosts>)> {
        let own = self.principals.get(asker.principal).and_then(|table| table.get(&kind));
        let everyone = self.everyone.get(&kind).map(|patterns| (true, patterns));
        everyone.into_iter().chain(own.map(|patterns| (false, patterns)))
    }

    /// The ACL that decides: one that refuses, or else one that permits.
    pub(super) fn decide<'a>(
        &'a self,
        asker: Asker<'_>,
        operation: Operation,
        kind: ResourceType,
        name: &'a str,
    ) -> Option<Hit<'a>> {
        let (allowing, denying) =
            (Operations::that_allow(operation), Operations::that_deny(operation));
        let mut allow = None;
        for (of_everyone, patterns) in self.tables(asker, kind) {
            for (pattern_type, name, hosts) in patterns.of(name) {
                for (of_any_host, said) in hosts.of(asker.host) {
                    let hit = |permission, operation| Hit {
                        permission,
                        pattern_type,
                        name,
                        of_everyone,
                        of_any_host,
                        operation,
                    };
                    if let Some(operation) = said.deny.common(denying) {
                        return Some(hit(Permission::Deny, operation));
                    }
                    if let Some(operation) = said.allow.common(allowing) {
                        allow = allow.or(Some(hit(Permission::Allow, operation)));
                    }
                }
            }
        }
        allow
    }

    /// Whether there is any ACL of any principal for a resource.
    pub(super) fn names(&self, kind: ResourceType, name: &str) -> bool {
        self.named.get(&kind).is_some_and(|patterns| patterns.of(name).next().is_some())
    }

    /// `Authorizer.authorizeByResourceType`, behind its question about one name: whether an ACL
    /// permits the operation on a pattern that no other ACL refuses as a whole. Nothing is implied
    /// here.
    pub(super) fn allows_some(
        &self,
        asker: Asker<'_>,
        operation: Operation,
        kind: ResourceType,
    ) -> bool {
        let wanted = Operations::that_deny(operation);
        let has = |permission, hosts: &Hosts| hosts.has(permission, asker.host, wanted);
        let tables: Vec<&Patterns<Hosts>> =
            self.tables(asker, kind).map(|(_, patterns)| patterns).collect();
        let any = |permission| {
            tables.iter().filter_map(|t| t.any.as_ref()).any(|hosts| has(permission, hosts))
        };
        if any(Permission::Deny) {
            return false;
        }
        if any(Permission::Allow) {
            return true;
        }
        let is_denied = |name: &str, whole_names: bool| {
            tables.iter().any(|patterns| {
                let literal = patterns.literal.get(name).filter(|_| whole_names);
                let prefixed = patterns.prefixed.of(name).map(|prefix| &prefix.value);
                literal.into_iter().chain(prefixed).any(|hosts| has(Permission::Deny, hosts))
            })
        };
        tables.iter().any(|patterns| {
            let allows = |hosts| has(Permission::Allow, hosts);
            let mut literal = patterns.literal.iter().filter(|(_, hosts)| allows(hosts));
            let mut prefixed = patterns.prefixed.entries.iter().filter(|p| allows(&p.value));
            literal.any(|(name, _)| !is_denied(name, true))
                || prefixed.any(|prefix| !is_denied(&prefix.text, false))
        })
    }

    /// How many patterns a decision looks at.
    #[cfg(test)]
    pub(super) fn patterns_looked_at(
        &self,
        asker: Asker<'_>,
        kind: ResourceType,
        name: &str,
    ) -> usize {
        self.tables(asker, kind).map(|(_, patterns)| patterns.of(name).count()).sum()
    }
}
