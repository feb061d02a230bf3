//! The vocabulary of ACLs with its codes on the wire: operations, types of resources and patterns.

use std::fmt;

/// Why an ACL or a filter is refused; the wire's error is INVALID_REQUEST (42). The texts are
/// Apache Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A code that stands for no single value.
    #[error("Invalid {field} {value}")]
    Code {
        /// The field of the request.
        field: &'static str,
        /// Kafka's word for the value.
        value: &'static str,
    },
    /// An ACL of the cluster under another name.
    #[error("The only valid name for the CLUSTER resource is kafka-cluster")]
    ClusterName,
    /// A resource without a name.
    #[error("Invalid empty resource name")]
    EmptyName,
    /// A principal without a type.
    #[error(
        "Could not parse principal from `{0}` (no colon is present separating the principal type \
         from the principal name)"
    )]
    Principal(String),
    /// A filter with an unknown type of resource or pattern.
    #[error("Unknown patternFilter.")]
    PatternFilter,
    /// A filter with an unknown operation or permission.
    #[error("Unknown entryFilter.")]
    EntryFilter,
}

macro_rules! codes {
    (
        $(#[$doc:meta])* $name:ident in $field:literal
        { $($(#[$of:meta])* $variant:ident = $code:literal as $kafka:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i8)]
        pub enum $name {
            $($(#[$of])* $variant = $code,)*
        }

        impl $name {
            /// All values, by code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code on the wire.
            pub const fn code(self) -> i8 {
                self as i8
            }

            /// The value of a code; `None` for ANY, UNKNOWN and what no version knows.
            pub fn from_code(code: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.code() == code)
            }

            /// The value of a code in the creation of an ACL.
            ///
            /// # Errors
            /// When the code stands for no single value.
            pub fn of_creation(code: i8) -> Result<Self, Invalid> {
                let value = || match code {
                    1 => "ANY",
                    2 if $field == "patternType" => "MATCH",
                    _ => "UNKNOWN",
                };
                Self::from_code(code).ok_or_else(|| Invalid::Code { field: $field, value: value() })
            }
        }

        /// Kafka's name of the constant.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $kafka,)*
                })
            }
        }
    };
}

codes! {
    /// The type of a resource (`ResourceType`).
    ResourceType in "resourceType" {
        /// A topic, by name.
        Topic = 2 as "TOPIC",
        /// A group, by its id.
        Group = 3 as "GROUP",
        /// The cluster, always under the name `kafka-cluster`.
        Cluster = 4 as "CLUSTER",
        /// A transactional id.
        TransactionalId = 5 as "TRANSACTIONAL_ID",
        /// A delegation token.
        DelegationToken = 6 as "DELEGATION_TOKEN",
        /// A user, as the owner of delegation tokens.
        User = 7 as "USER",
    }
}

codes! {
    /// An operation on a resource (`AclOperation`).
    Operation in "operation" {
        /// Every operation; in ACLs only.
        All = 2 as "ALL",
        /// Read records or a group's state.
        Read = 3 as "READ",
        /// Write records.
        Write = 4 as "WRITE",
        /// Create a topic.
        Create = 5 as "CREATE",
        /// Delete a topic, a group or records.
        Delete = 6 as "DELETE",
        /// Change anything except configuration.
        Alter = 7 as "ALTER",
        /// See its existence and its state.
        Describe = 8 as "DESCRIBE",
        /// Act as a broker.
        ClusterAction = 9 as "CLUSTER_ACTION",
        /// Read configuration.
        DescribeConfigs = 10 as "DESCRIBE_CONFIGS",
        /// Change configuration.
        AlterConfigs = 11 as "ALTER_CONFIGS",
        /// Obtain a producer id without a transactional id.
        IdempotentWrite = 12 as "IDEMPOTENT_WRITE",
        /// Create delegation tokens for others.
        CreateTokens = 13 as "CREATE_TOKENS",
        /// See the delegation tokens of others.
        DescribeTokens = 14 as "DESCRIBE_TOKENS",
        /// Prepare a transaction for an outside coordinator (KIP-939).
        TwoPhaseCommit = 15 as "TWO_PHASE_COMMIT",
    }
}

codes! {
    /// How an ACL names resources (`PatternType`).
    PatternType in "patternType" {
        /// By the whole name; `*` means every name.
        Literal = 3 as "LITERAL",
        /// By the beginning of the name. Here `*` is an ordinary letter.
        Prefixed = 4 as "PREFIXED",
    }
}

codes! {
    /// What an ACL says (`AclPermissionType`).
    Permission in "permissionType" {
        /// Refuses. It prevails over every permission.
        Deny = 2 as "DENY",
        /// Permits.
        Allow = 3 as "ALLOW",
    }
}

impl ResourceType {
    /// The operations that exist for a resource of this type (`AclEntry.supportedOperations`).
    pub const fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Self::Topic => {
                &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs]
            }
            Self::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Self::Cluster => &[
                Create,
                Alter,
                Describe,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
            ],
            Self::TransactionalId => &[Write, Describe, TwoPhaseCommit],
            Self::DelegationToken => &[Describe],
            Self::User => &[CreateTokens, DescribeTokens],
        }
    }

    /// The bit set of the operations that `allows` permits, of those that exist for a resource of
    /// this type (KIP-430). A request that did not ask for it is answered `i32::MIN`.
    pub fn allowed_operations(self, allows: impl Fn(Operation) -> bool) -> i32 {
        let allowed = self.operations().iter().filter(|&&operation| allows(operation));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }

    /// Its name in log lines, as Kafka's authorizer writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topic => "Topic",
            Self::Group => "Group",
            Self::Cluster => "Cluster",
            Self::TransactionalId => "TransactionalId",
            Self::DelegationToken => "DelegationToken",
            Self::User => "User",
        }
    }
}
