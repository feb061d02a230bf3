//! Quotas: how much a user, a client id or an address may do.
//!
//! The controller keeps [`Quotas`], and changes them by [`alter()`]. A broker looks up the
//! [`Limit`] of a request, counts against it in a [`Limiter`], and is told how long to throttle the
//! client. The arithmetic is that of Apache Kafka's `ClientQuotaManager`, so the times are the
//! same.

mod alter;
mod bucket;
mod connections;
mod describe;
mod entity;
mod limit;
mod limiter;
mod rate;

#[cfg(test)]
mod tests;

pub use alter::{Alteration, EntityPart, Op, QuotaError, alter};
pub use bucket::{Mutations, TokenBucket};
pub use connections::{Arrival, ConnectionRates};
pub use describe::{Component, DescribeError, Filter, Match, describe};
pub use entity::{BadEntity, Entity, Key, Name, Quotas};
pub use limit::{Bucket, Limit, Limits};
pub use limiter::{Limiter, percentage};
pub use rate::{Rate, Windows};
