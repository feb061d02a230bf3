//! PURE: who calls the controller, and whom it believes.

use tonic::Status;
use weir_security::principal::Principal;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody over plain TCP.
    Anybody,
    /// A node of the cluster with this domain.
    Node(String, Principal),
}

impl Caller {
    /// Checks that this is the broker `id` of the cluster with this domain. Without a domain
    /// anybody is believed, and with one somebody whose broker is of a version before.
    pub(super) fn check(
        &self,
        domain: Option<&str>,
        id: i32,
        is_of_a_version_before: impl FnOnce() -> bool,
    ) -> Result<(), Status> {
        match self {
            Self::Node(own, Principal::Broker(broker))
                if *broker == id && domain.is_none_or(|domain| own == domain) =>
            {
                Ok(())
            }
            Self::Node(_, node) => Err(Status::permission_denied(format!(
                "the certificate is that of {node} and not of broker {id} of this cluster"
            ))),
            Self::Anybody if domain.is_none() || is_of_a_version_before() => Ok(()),
            Self::Anybody => {
                Err(Status::permission_denied("brokers of this cluster have certificates"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_who_its_certificate_says() {
        let node = |domain: &str, node| Caller::Node(domain.to_owned(), node);
        let one = node("c", Principal::Broker(1));
        let is =
            |caller: &Caller, domain, id, before: bool| caller.check(domain, id, || before).is_ok();
        assert!(is(&one, Some("c"), 1, false) && is(&one, None, 1, false));
        assert!(!is(&one, Some("c"), 2, true), "another broker");
        assert!(!is(&one, Some("d"), 1, true), "of another cluster");
        assert!(!is(&node("c", Principal::Controller), Some("c"), 1, true));
        assert!(!is(&Caller::Anybody, Some("c"), 1, false));
        assert!(is(&Caller::Anybody, Some("c"), 1, true), "of a version before");
        assert!(is(&Caller::Anybody, None, 1, false), "without certificates");
    }
}
