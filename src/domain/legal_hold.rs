//! Legal holds: what no retention may remove, until an administrator releases it.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

/// What a legal hold covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covers {
    /// One response.
    Response(Uuid),
    /// Every response of a policy.
    Policy(String),
    /// Every response that acts, or was meant to act, on an agent.
    Agent(Uuid),
    /// Every response to a target, in canonical form.
    Target(String),
    /// Everything within a time.
    Time {
        /// Beginning, inclusive; absent: from the first alert on.
        since: Option<Timestamp>,
        /// End, exclusive; absent: whatever comes.
        until: Option<Timestamp>,
    },
}

impl Covers {
    /// All kinds.
    pub const KINDS: [&'static str; 5] = ["response", "policy", "agent", "target", "time"];

    /// Name of the kind in the API and the database.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Response(_) => "response",
            Self::Policy(_) => "policy",
            Self::Agent(_) => "agent",
            Self::Target(_) => "target",
            Self::Time { .. } => "time",
        }
    }

    /// The id, name or target; empty for a range of times.
    pub fn value(&self) -> String {
        match self {
            Self::Response(id) | Self::Agent(id) => id.to_string(),
            Self::Policy(text) | Self::Target(text) => text.clone(),
            Self::Time { .. } => String::new(),
        }
    }

    /// The range of times, from 0 to the largest number if it has no bounds.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        let (since, until) = if let Self::Time { since, until } = self { (*since, *until) } else { (None, None) };
        (since.unwrap_or(Timestamp::from_millis(0)), until.unwrap_or(Timestamp::from_millis(i64::MAX)))
    }
}

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegalHold {
    /// UUIDv7.
    pub id: Uuid,
    /// Name, such as the number of the case; unique.
    pub name: String,
    /// Why.
    pub reason: String,
    /// What it covers.
    pub covers: Covers,
}
