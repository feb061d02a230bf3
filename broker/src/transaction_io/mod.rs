//! The requests of transactions to other brokers. A partition's leader asks the coordinator whether
//! a transaction is open ([`mod@verify`]). The coordinator has the leaders of a transaction's
//! partitions write its end ([`markers`]). A transaction that timed out, and whose producer has
//! used up its epochs, waits for another producer id ([`timeouts`]).
//!
//! Called by `api` and by the task that writes markers. Decides nothing: the coordinator's machine
//! and the logs do.

mod markers;
mod parts;
mod peers;
mod timeouts;
mod verify;

pub(crate) use self::parts::TransactionIo;
