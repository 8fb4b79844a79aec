//! Actors: what makes a change. Each is one text in the audit log, in the columns `requested_by`,
//! `created_by` and `changed_by`, and in the API.

use std::fmt;
use std::net::IpAddr;

use uuid::Uuid;

use super::user::is_user_name;

/// What makes a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A service key, by its public id: `key:ID`.
    Key(String),
    /// A person, by the user's name, by a session or a personal key: `user:NAME`.
    User(String),
    /// An agent: `agent:ID`.
    Agent(Uuid),
    /// A policy, by its name: `policy:NAME`.
    Policy(String),
    /// The manager itself: `riposte`.
    Riposte,
    /// Another one, with the address of its request. It is the same text; the audit log adds the address to
    /// the detail (`store/ledger/audit.rs`).
    At(Box<Self>, IpAddr),
}

impl Actor {
    /// The actor without its address.
    pub fn plain(&self) -> &Self {
        match self {
            Self::At(actor, _) => actor.plain(),
            actor => actor,
        }
    }

    /// The address of the request, where it is known.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::At(_, address) => Some(*address),
            _ => None,
        }
    }

    /// Parses the text of an actor.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => (text == "riposte").then_some(Self::Riposte),
            Some(("key", id)) => Some(Self::Key(id.to_owned())),
            Some(("user", name)) if is_user_name(name) => Some(Self::User(name.to_owned())),
            Some(("agent", id)) => id.parse().ok().map(Self::Agent),
            Some(("policy", name)) => Some(Self::Policy(name.to_owned())),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(formatter, "key:{id}"),
            Self::User(name) => write!(formatter, "user:{name}"),
            Self::Agent(id) => write!(formatter, "agent:{id}"),
            Self::Policy(name) => write!(formatter, "policy:{name}"),
            Self::Riposte => formatter.write_str("riposte"),
            Self::At(actor, _) => actor.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_the_same_after_it_was_stored() {
        let table = [
            (Actor::Key("0123abcd".into()), "key:0123abcd"),
            (Actor::User("alice".into()), "user:alice"),
            (Actor::Agent(Uuid::from_u128(7)), "agent:00000000-0000-0000-0000-000000000007"),
            (Actor::Policy("drop: ssh".into()), "policy:drop: ssh"),
            (Actor::Riposte, "riposte"),
        ];
        for (actor, text) in table {
            assert_eq!(actor.to_string(), text);
            assert_eq!(Actor::parse(text), Some(actor));
        }
        let alice = Actor::User("alice".into());
        let there = Actor::At(Box::new(alice.clone()), [192, 0, 2, 1].into());
        assert_eq!((there.to_string(), there.plain(), alice.plain()), (alice.to_string(), &alice, &alice));
        assert_eq!((there.address(), alice.address()), (Some([192, 0, 2, 1].into()), None));
        for text in ["", "riposte:", "agent:7", "root", "user:", "user:A"] {
            assert_eq!(Actor::parse(text), None, "{text}");
        }
    }
}
