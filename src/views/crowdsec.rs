//! `/crowdsec`: the bodies of `CrowdSec`'s API for bouncers, as its clients read them.

use serde::{Deserialize, Serialize};

/// A decision: an address that is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CrowdsecDecision {
    /// A number that follows from the value.
    pub id: i64,
    /// Always `riposte`.
    pub origin: String,
    /// `riposte/POLICY`, or `riposte/by-hand`.
    pub scenario: String,
    /// `Ip`, or `Range` for a network.
    pub scope: String,
    /// Always `ban`.
    pub r#type: String,
    /// The address or network.
    pub value: String,
    /// What is left, such as `3h59m58s`; negative for one that is deleted.
    pub duration: String,
}

/// What has changed since the last request with the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CrowdsecStream {
    /// Decisions that are new or changed; null if there are none.
    pub new: Option<Vec<CrowdsecDecision>>,
    /// Decisions that are over, and those that `new` replaces; null if there are none.
    pub deleted: Option<Vec<CrowdsecDecision>>,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CrowdsecError {
    /// What happened, and what to do.
    pub message: String,
}
