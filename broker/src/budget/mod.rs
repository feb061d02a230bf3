//! The memory that all requests, and all answers, may take together. Those that need more wait in
//! order.

mod answers;
mod requests;
mod room;
mod turns;

pub use self::answers::AnswerMemory;
pub(crate) use self::answers::{SMALL_BYTES_MAX, no_room};
pub use self::requests::RequestMemory;
pub(crate) use self::requests::charge;
pub(crate) use self::room::Allowance;
pub use self::room::Room;
pub(crate) use self::turns::{Turn, Turns};
