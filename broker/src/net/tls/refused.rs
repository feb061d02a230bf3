//! Why a connection does not get through its handshake, in a few words for metrics and in a
//! sentence for the log.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a connection ends before it has a client.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(in crate::net) struct Refused {
    /// One of [`Refused::REASONS`].
    pub(in crate::net) reason: &'static str,
    why: String,
}

impl Refused {
    /// The client went away, which is no fault of it: probes of a port do.
    pub(in crate::net) const CLOSED: &'static str = "closed";

    /// All reasons.
    pub(in crate::net) const REASONS: [&'static str; 9] = [
        Self::CLOSED,
        "plaintext",
        "slow",
        "busy",
        "no_certificate",
        "bad_certificate",
        "no_principal",
        "refused_by_client",
        "protocol",
    ];

    fn new(reason: &'static str, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    /// The client closed the connection, or it broke.
    pub(super) fn closed() -> Self {
        Self::new(Self::CLOSED, "the client closed the connection during the handshake")
    }

    /// The client does not begin as TLS does.
    pub(super) fn plaintext() -> Self {
        Self::new(
            "plaintext",
            "the client does not speak TLS, and this listener does: is security.protocol missing at the client?",
        )
    }

    /// The handshake took too long.
    pub(super) fn slow() -> Self {
        Self::new("slow", "the handshake took too long")
    }

    /// There was no place for too long.
    pub(super) fn busy() -> Self {
        Self::new("busy", "too many other handshakes were under way for too long")
    }

    /// Others came later to the door for nodes, and nobody says who it is.
    pub(in crate::net) fn crowded_out() -> Self {
        Self::new("busy", "too many others came that have not shown a certificate either")
    }

    /// A certificate that TLS accepts, but from which no principal comes.
    pub(super) fn no_principal(why: impl Into<String>) -> Self {
        Self::new("no_principal", why)
    }

    /// A ticket of a certificate that has expired meanwhile.
    pub(super) fn expired() -> Self {
        Self::new("bad_certificate", "the client's certificate has expired since it got its ticket")
    }

    /// The reason of an error of the stream.
    pub(super) fn by(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match tls {
            Some(error) => Self::by_tls(error),
            None => Self::new(
                Self::CLOSED,
                format!("the connection broke during the handshake: {error}"),
            ),
        }
    }

    fn by_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::new(
                "no_certificate",
                "the client shows no certificate, and this listener requires one",
            ),
            Error::InvalidCertificate(certificate) => {
                Self::new("bad_certificate", said_of(certificate))
            }
            Error::AlertReceived(
                AlertDescription::CloseNotify | AlertDescription::UserCanceled,
            ) => Self::closed(),
            Error::AlertReceived(alert) => Self::new(
                "refused_by_client",
                format!(
                    "the client ends the handshake: {alert:?}; does it trust the CA of this listener's certificate, and is the host that it connects to in the certificate?"
                ),
            ),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::plaintext(),
            other => Self::new("protocol", other.to_string()),
        }
    }
}

fn said_of(error: &CertificateError) -> String {
    let what = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet"
        }
        CertificateError::UnknownIssuer => "is of no CA that this listener knows",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for clients: its extended key usage lacks clientAuth"
        }
        other => return format!("the client's certificate is refused: {other}"),
    };
    format!("the client's certificate {what}")
}

#[cfg(test)]
mod tests {
    use rustls::PeerIncompatible;

    use super::*;

    #[test]
    fn each_reason_is_one_that_the_metrics_have() {
        let of = |error: Error| Refused::by(&io::Error::new(io::ErrorKind::InvalidData, error));
        let cases = [
            (of(Error::NoCertificatesPresented), "no_certificate", "shows no certificate"),
            (
                of(CertificateError::Expired.into()),
                "bad_certificate",
                "the client's certificate has expired",
            ),
            (of(CertificateError::UnknownIssuer.into()), "bad_certificate", "of no CA"),
            (of(CertificateError::BadSignature.into()), "bad_certificate", "is refused"),
            (
                of(Error::AlertReceived(AlertDescription::UnknownCA)),
                "refused_by_client",
                "UnknownCA",
            ),
            (of(Error::AlertReceived(AlertDescription::CloseNotify)), "closed", "closed"),
            (
                of(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                "plaintext",
                "does not speak TLS",
            ),
            (
                of(PeerIncompatible::NoCipherSuitesInCommon.into()),
                "protocol",
                "NoCipherSuitesInCommon",
            ),
            (Refused::by(&io::ErrorKind::ConnectionReset.into()), "closed", "broke"),
            (Refused::closed(), "closed", "closed"),
            (Refused::slow(), "slow", "too long"),
            (Refused::busy(), "busy", "other handshakes"),
            (Refused::no_principal("x"), "no_principal", "x"),
            (Refused::expired(), "bad_certificate", "ticket"),
        ];
        for (refused, reason, part) in cases {
            assert_eq!(refused.reason, reason);
            assert!(Refused::REASONS.contains(&reason));
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
}
