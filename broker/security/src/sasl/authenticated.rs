//! The proof that somebody has logged in.

use crate::principal::{KafkaPrincipal, Principal};

/// A sender that is known: handlers ask for it, so none is reached without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    principal: Principal,
}

impl Authenticated {
    /// The sender on a listener without authentication.
    pub fn anonymous() -> Self {
        Self { principal: Principal::anonymous() }
    }

    /// The holder of a certificate that TLS has verified.
    pub fn by_certificate(principal: Principal) -> Self {
        Self { principal }
    }

    /// The user of a login that succeeded.
    pub(super) fn by_login(user: KafkaPrincipal) -> Self {
        Self { principal: user.into() }
    }

    /// The sender.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}
