//! Who asks, and what they may do. Roles are sets of rights; an endpoint asks for a right, never for a role.

use serde::{Deserialize, Serialize};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// See everything but secrets.
    Read,
    /// Hand in alerts.
    Ingest,
    /// Make and lift responses by hand, cancel commands.
    Respond,
    /// Write policies.
    WritePolicies,
    /// Enrol, label and revoke agents.
    ManageAgents,
    /// Make and revoke API keys; read the audit log's proof.
    Administer,
}

/// A role: a fixed set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees.
    Viewer,
    /// Sees and responds.
    Analyst,
    /// Also writes policies and manages agents.
    Engineer,
    /// Everything.
    Admin,
    /// Hands in alerts and nothing else: for pipelines.
    Ingest,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Analyst, Self::Engineer, Self::Admin, Self::Ingest];

    /// The word used in the API and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Engineer => "engineer",
            Self::Admin => "admin",
            Self::Ingest => "ingest",
        }
    }

    /// The role that `word` names.
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
    /// How the audit log names them: `key:ID`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The pipeline that they speak for, if their key is bound to one.
    pub pipeline: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_can_only_hand_in_alerts() {
        for right in [Right::Read, Right::Respond, Right::WritePolicies, Right::ManageAgents, Right::Administer] {
            assert!(!Role::Ingest.may(right), "{right:?}");
        }
        assert!(Role::Ingest.may(Right::Ingest) && !Role::Analyst.may(Right::Ingest));
    }
}
