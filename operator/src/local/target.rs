//! The process that a command names.

/// One of the cluster's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The controller.
    Controller,
    /// A broker, by id.
    Broker(i32),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "controller" => Ok(Self::Controller),
            id => id
                .parse()
                .ok()
                .filter(|id| *id >= 0)
                .map(Self::Broker)
                .ok_or_else(|| "neither a broker's id nor \"controller\"".to_owned()),
        }
    }
}
