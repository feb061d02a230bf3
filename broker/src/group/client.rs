//! The client of a group request.

/// The client of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// The client id.
    pub(crate) id: String,
    /// The client's address as `/address`, in Kafka's notation.
    pub(crate) host: String,
    /// The version of the request.
    pub(crate) version: i16,
}
