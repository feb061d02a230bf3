//! The kinds of conditions that several files name.

pub(super) const ROLLED_BACK: &str = "StateRolledBack";
pub(super) const DRAIN_BLOCKED: &str = "DrainBlocked";
pub(super) const CERTIFICATES_VALID: &str = "CertificatesValid";
pub(super) const RECOVERING: &str = "Recovering";
