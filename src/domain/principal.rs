//! Principals and roles. A role is a set of rights; an endpoint requires a right, never a
//! role.

use std::fmt;
use std::net::IpAddr;

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actor::Actor;
use super::right::Right;
use super::scope::{Scope, Scopes};

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
            Right::Read | Right::PullFeeds | Right::OwnKeys => !matches!(self, Self::Ingest),
            Right::Ingest => matches!(self, Self::Ingest | Self::Engineer | Self::Admin),
            Right::Respond | Right::Approve => matches!(self, Self::Analyst | Self::Engineer | Self::Admin),
            Right::WritePolicies | Right::ManageAgents => matches!(self, Self::Engineer | Self::Admin),
            Right::Administer => matches!(self, Self::Admin),
        }
    }

    /// Whether this role has no right that `other` lacks.
    pub fn is_at_most(self, other: Self) -> bool {
        Right::ALL.into_iter().all(|right| !self.may(right) || other.may(right))
    }
}

/// The names of the rights of `role` that `scopes` leave.
pub fn rights(role: Role, scopes: &Scopes) -> Vec<String> {
    let left = Right::ALL.into_iter().filter(|right| role.may(*right) && scopes.leave(*right));
    left.map(|right| right.as_str().to_owned()).collect()
}

/// The credentials of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// An API key, by its public id.
    Key(String),
    /// An access token, by its session.
    Session(Uuid),
    /// A link in a message, by the webhook that sent it. Good for one decision.
    Link(String),
}

impl fmt::Display for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(formatter, "key {id}"),
            Self::Session(id) => write!(formatter, "session {id}"),
            Self::Link(webhook) => write!(formatter, "link of webhook {webhook}"),
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
    /// What the person and the key may do at most.
    pub scopes: Scopes,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// The credentials that it was authenticated by.
    pub via: Credentials,
    /// Until when these are valid; `None`: until revoked.
    pub expires_at: Option<Timestamp>,
    /// The address of the request, once it is known.
    pub address: Option<IpAddr>,
}

impl Principal {
    /// Whether the role has `right`, and no scope takes it away.
    pub fn may(&self, right: Right) -> bool {
        self.role.may(right) && self.scopes.leave(right)
    }

    /// The names of its rights.
    pub fn rights(&self) -> Vec<String> {
        rights(self.role, &self.scopes)
    }

    /// The actor with the address of the request, for changes of who or what has power: the audit log says
    /// from where they were made.
    pub fn at(&self) -> Actor {
        match self.address {
            Some(address) => Actor::At(Box::new(self.actor.clone()), address),
            None => self.actor.clone(),
        }
    }

    /// The feeds that it may fetch, if it is the key of a consumer of feeds, which may do nothing else.
    pub fn feeds(&self) -> Option<&[String]> {
        let bound = self.scopes.all().iter().find_map(Scope::feeds_alone);
        bound.filter(|_| self.person().is_none())
    }

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
        assert_eq!(rights(Role::Ingest, &Scopes::default()), ["ingest", "identify"]);
        assert!(Role::Ingest.may(Right::Ingest) && !Role::Analyst.may(Right::Ingest));
    }
}
