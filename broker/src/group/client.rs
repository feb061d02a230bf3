//! Who asks a group coordinator.

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// What the client calls itself.
    pub(crate) id: String,
    /// Where it is: `/address`, as Kafka writes it.
    pub(crate) host: String,
    /// The version of the request.
    pub(crate) version: i16,
}
