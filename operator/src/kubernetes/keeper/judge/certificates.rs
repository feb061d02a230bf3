//! PURE: whether the certificates of the cluster are valid, and how the exchange of a CA goes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use weir_security::principal::Validity;

use super::super::observation::{CertificateFindings, Observation};
use crate::conditions::ConditionValue;
use crate::node_cas::{Step, Waits};

/// The part of a certificate's time in which it should long have been renewed. The operator renews
/// with a third left, and cert-manager does.
const LATE: i64 = 6;

/// The condition; `None` keeps the one before.
pub(super) fn certificates_valid(findings: &Observation, now: &Time) -> Option<ConditionValue> {
    let CertificateFindings { all, exchange } = findings.certificates.as_ref()?;
    let now = now.0.as_second();
    let (name, validity) = all.iter().min_by_key(|(_, validity)| validity.not_after)?;
    let end = date(validity.not_after);
    Some(if validity.not_after <= now {
        let message = format!("the certificate of {name} has expired on {end}");
        ConditionValue::fails("Expired", message)
    } else if is_late(*validity, now) {
        let message = format!(
            "the certificate of {name} ends on {end}, and nothing has renewed it: whoever issues it has to"
        );
        ConditionValue::fails("ExpiresSoon", message)
    } else if let Some(waits) = exchange {
        ConditionValue::holds("ExchangesCa", said(waits))
    } else {
        let message = format!("the first to end is that of {name}, on {end}");
        ConditionValue::holds("AsExpected", message)
    })
}

fn is_late(validity: Validity, now: i64) -> bool {
    validity.not_after - now < (validity.not_after - validity.not_before) / LATE
}

fn said(Waits { step, brokers }: &Waits) -> String {
    let what = match step {
        Step::Trust => "all brokers are to trust the new one",
        Step::Issue => "all brokers are to show certificates of the new one",
    };
    let ids: Vec<String> = brokers.iter().map(i32::to_string).collect();
    let whom = match ids.as_slice() {
        [] => String::new(),
        ids => format!(", and {} have not said so yet", ids.join(", ")),
    };
    format!("the CA of the nodes is exchanged: {what}{whom}")
}

fn date(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    at.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn judged(all: &[(&str, i64)], exchange: Option<Waits>, day: i64) -> String {
        let validity = |end: &i64| Validity { not_before: (end - 300) * DAY, not_after: end * DAY };
        let all = all.iter().map(|(name, end)| ((*name).to_owned(), validity(end))).collect();
        let certificates = Some(CertificateFindings { all, exchange });
        let findings = Observation { certificates, ..Observation::default() };
        let now = Time(Timestamp::from_second(day * DAY).unwrap());
        certificates_valid(&findings, &now).map_or_else(String::new, |judged| {
            format!("{} {}: {}", judged.status, judged.reason, judged.message)
        })
    }

    #[test]
    fn the_first_certificate_to_end_is_told() {
        let all = [("the CA", 20_900), ("listener tls", 20_500)];
        assert_eq!(
            judged(&all, None, 20_400),
            "True AsExpected: the first to end is that of listener tls, on 2026-02-16"
        );
        assert!(judged(&all, None, 20_450).starts_with("True"), "50 of 300 days are left");
        assert!(judged(&all, None, 20_451).starts_with("False ExpiresSoon: "));
        assert_eq!(
            judged(&all, None, 20_500),
            "False Expired: the certificate of listener tls has expired on 2026-02-16"
        );
        let brokers = [1, 2].into();
        let waits = Waits { step: Step::Trust, brokers };
        assert_eq!(
            judged(&all, Some(waits), 20_400),
            "True ExchangesCa: the CA of the nodes is exchanged: all brokers are to trust the new one, and 1, 2 have not said so yet"
        );
        assert_eq!(judged(&[], None, 1), "", "a pass that has seen none");
    }
}
