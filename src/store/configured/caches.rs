//! Which of the engine's caches a transaction makes stale. The functions that change a row record it in the transaction, so
//! that its commit can refresh exactly these, and no use case has to remember them.

use uuid::Uuid;

/// A cache of the engine, in the order in which caches are refreshed: policies are read with the actions as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cache {
    /// Actions that people added.
    Actions,
    /// Policies.
    Policies,
    /// One agent that is new or says something else of itself. Reading all of them for each would make the enrolment of a
    /// fleet quadratic.
    Agent(Uuid),
    /// All agents.
    Fleet,
    /// Protected entries.
    Protected,
    /// Whether commands are held back.
    Freeze,
    /// The signing key, and the statements about it.
    SigningKeys,
    /// Secrets.
    Secrets,
    /// Feeds.
    Feeds,
    /// API keys.
    Keys,
    /// People.
    Users,
    /// One session that has begun or ended.
    Session(Uuid),
    /// All sessions.
    Sessions,
}

impl Cache {
    /// Whether alerts are decided by what is in it. One agent that is new or says something else of itself is not among
    /// these: each enrolment would have all alerts decided again that are on their way.
    pub const fn decides(self) -> bool {
        matches!(self, Self::Actions | Self::Policies | Self::Fleet | Self::Protected)
    }

    /// As it is stored: a word, and the id of the one row, if it is about one.
    pub(in crate::store) fn stored(self) -> (&'static str, String) {
        match self {
            Self::Actions => ("actions", String::new()),
            Self::Policies => ("policies", String::new()),
            Self::Agent(agent) => ("agent", agent.to_string()),
            Self::Fleet => ("fleet", String::new()),
            Self::Protected => ("protected", String::new()),
            Self::Freeze => ("freeze", String::new()),
            Self::SigningKeys => ("signing_keys", String::new()),
            Self::Secrets => ("secrets", String::new()),
            Self::Feeds => ("feeds", String::new()),
            Self::Keys => ("keys", String::new()),
            Self::Users => ("users", String::new()),
            Self::Session(session) => ("session", session.to_string()),
            Self::Sessions => ("sessions", String::new()),
        }
    }

    /// The cache that is stored so; `None` if this version has no such one.
    pub(in crate::store) fn parse(word: &str, item: &str) -> Option<Self> {
        Some(match word {
            "actions" => Self::Actions,
            "policies" => Self::Policies,
            "agent" => Self::Agent(item.parse().ok()?),
            "fleet" => Self::Fleet,
            "protected" => Self::Protected,
            "freeze" => Self::Freeze,
            "signing_keys" => Self::SigningKeys,
            "secrets" => Self::Secrets,
            "feeds" => Self::Feeds,
            "keys" => Self::Keys,
            "users" => Self::Users,
            "session" => Self::Session(item.parse().ok()?),
            "sessions" => Self::Sessions,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_is_read_as_it_is_stored() {
        let id = Uuid::from_u128(7);
        let plain =
            [Cache::Actions, Cache::Policies, Cache::Fleet, Cache::Protected, Cache::Freeze, Cache::SigningKeys];
        let rest = [Cache::Secrets, Cache::Feeds, Cache::Keys, Cache::Users, Cache::Sessions];
        let single = [Cache::Agent(id), Cache::Session(id)];
        for cache in plain.into_iter().chain(rest).chain(single) {
            let (word, item) = cache.stored();
            assert_eq!(Cache::parse(word, &item), Some(cache));
        }
        assert_eq!((Cache::parse("moods", ""), Cache::parse("agent", "x")), (None, None));
    }
}
