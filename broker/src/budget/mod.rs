//! How much memory requests and answers may take, all together: who needs more waits in turn.

mod answers;
mod requests;
mod room;

pub use self::answers::AnswerMemory;
pub(crate) use self::answers::SMALL_BYTES_MAX;
pub use self::requests::RequestMemory;
pub(crate) use self::requests::charge;
pub(crate) use self::room::Allowance;
pub use self::room::Room;
