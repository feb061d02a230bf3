//! What transactions ask of other brokers: a partition's leader asks the coordinator whether a
//! transaction is open ([`verify()`]), and the coordinator has the leaders of a transaction's
//! partitions write its end ([`markers`]); one that took too long and whose producer's epochs are
//! used up waits for another producer id ([`timeouts`]).
//!
//! Called by `api` and by the markers' own task. Decides nothing: the coordinator's machine and the
//! logs do.

mod markers;
mod parts;
mod peers;
mod timeouts;
mod verify;

pub(crate) use self::parts::TransactionIo;
