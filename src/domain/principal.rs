//! Principals, roles and rights. A role is a set of rights; an endpoint requires a right, never a
//! role.

use serde::{Deserialize, Serialize};

use super::actor::Actor;

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Read everything except secrets.
    Read,
    /// Ingest alerts.
    Ingest,
    /// Create and lift manual responses, cancel commands.
    Respond,
    /// Change policies.
    WritePolicies,
    /// Enrol, label and revoke agents.
    ManageAgents,
    /// Create and revoke API keys; verify the audit log.
    Administer,
}

/// A role: a fixed set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and responds.
    Analyst,
    /// Also changes policies and manages agents.
    Engineer,
    /// Has all rights.
    Admin,
    /// Ingests alerts only: for pipelines.
    Ingest,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Analyst, Self::Engineer, Self::Admin, Self::Ingest];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Engineer => "engineer",
            Self::Admin => "admin",
            Self::Ingest => "ingest",
        }
    }

    /// Parses a role's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// Whether the role has `right`.
    pub const fn may(self, right: Right) -> bool {
        match right {
            Right::Read => !matches!(self, Self::Ingest),
            Right::Ingest => matches!(self, Self::Ingest | Self::Engineer | Self::Admin),
            Right::Respond => matches!(self, Self::Analyst | Self::Engineer | Self::Admin),
            Right::WritePolicies | Right::ManageAgents => matches!(self, Self::Engineer | Self::Admin),
            Right::Administer => matches!(self, Self::Admin),
        }
    }
}

/// An authenticated API key or user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The principal in the audit log.
    pub actor: Actor,
    /// Role, which decides the rights.
    pub role: Role,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingest_key_can_only_ingest_alerts() {
        for right in [Right::Read, Right::Respond, Right::WritePolicies, Right::ManageAgents, Right::Administer] {
            assert!(!Role::Ingest.may(right), "{right:?}");
        }
        assert!(Role::Ingest.may(Right::Ingest) && !Role::Analyst.may(Right::Ingest));
    }
}
