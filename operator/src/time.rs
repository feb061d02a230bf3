//! The wall clock. Decisions take the time as an argument; only the code around them calls this.

use std::time::SystemTime;

#[cfg(feature = "kubernetes")]
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

fn timestamp() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// Now, in whole seconds, as Kubernetes writes the times of objects and conditions.
pub(crate) fn now() -> Time {
    Time(Timestamp::from_second(timestamp().as_second()).unwrap_or_default())
}

/// Now, in microseconds, as in Leases.
#[cfg(feature = "kubernetes")]
pub(crate) fn now_micro() -> MicroTime {
    MicroTime(timestamp())
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    timestamp().as_millisecond()
}
