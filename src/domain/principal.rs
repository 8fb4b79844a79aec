//! Principals, roles and rights. A role is a set of rights; an endpoint requires a right, never a
//! role.

use std::fmt;

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    /// Manage users and all API keys.
    Administer,
    /// Manage one's own personal keys.
    OwnKeys,
    /// Ask which principal one is, and end one's own session.
    Identify,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Ingest,
        Self::Respond,
        Self::WritePolicies,
        Self::ManageAgents,
        Self::Administer,
        Self::OwnKeys,
        Self::Identify,
    ];

    /// Name in the API and in the scope of an access token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Respond => "respond",
            Self::WritePolicies => "write_policies",
            Self::ManageAgents => "manage_agents",
            Self::Administer => "administer",
            Self::OwnKeys => "own_keys",
            Self::Identify => "identify",
        }
    }
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
            Right::Identify => true,
            Right::Read | Right::OwnKeys => !matches!(self, Self::Ingest),
            Right::Ingest => matches!(self, Self::Ingest | Self::Engineer | Self::Admin),
            Right::Respond => matches!(self, Self::Analyst | Self::Engineer | Self::Admin),
            Right::WritePolicies | Right::ManageAgents => matches!(self, Self::Engineer | Self::Admin),
            Right::Administer => matches!(self, Self::Admin),
        }
    }

    /// The names of the role's rights.
    pub fn rights(self) -> Vec<String> {
        Right::ALL.into_iter().filter(|right| self.may(*right)).map(|right| right.as_str().to_owned()).collect()
    }

    /// Whether this role has no right that `other` lacks.
    pub fn is_at_most(self, other: Self) -> bool {
        Right::ALL.into_iter().all(|right| !self.may(right) || other.may(right))
    }
}

/// The credentials of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// An API key, by its public id.
    Key(String),
    /// An access token, by its session.
    Session(Uuid),
}

impl fmt::Display for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(formatter, "key {id}"),
            Self::Session(id) => write!(formatter, "session {id}"),
        }
    }
}

/// An authenticated person or service key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The principal in the audit log.
    pub actor: Actor,
    /// Role, which decides the rights.
    pub role: Role,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// The credentials that it was authenticated by.
    pub via: Credentials,
    /// Until when these are valid; `None`: until revoked.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// The name of the person; `None` for a service key.
    pub fn person(&self) -> Option<&str> {
        match &self.actor {
            Actor::User(name) => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingest_key_can_only_ingest_alerts() {
        for right in
            [Right::Read, Right::Respond, Right::WritePolicies, Right::ManageAgents, Right::Administer, Right::OwnKeys]
        {
            assert!(!Role::Ingest.may(right), "{right:?}");
        }
        assert!(Role::Analyst.is_at_most(Role::Engineer) && !Role::Ingest.is_at_most(Role::Analyst));
        assert_eq!(Role::Ingest.rights(), ["ingest", "identify"]);
        assert!(Role::Ingest.may(Right::Ingest) && !Role::Analyst.may(Right::Ingest));
    }
}
