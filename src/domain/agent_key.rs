//! An agent's own key: the present one, the one before, and whether the agent is to make another.

use std::time::Duration;

use riposte_protocol::key::VerifyingKey;
use riposte_protocol::key_change::OLD_TOKEN_GRACE;
use riposte_protocol::time::Timestamp;

/// The key of an agent. Only the present one is accepted.
#[derive(Clone, Copy, Debug)]
pub struct AgentKey {
    /// Ed25519 public key that verifies the agent's tokens.
    pub public: VerifyingKey,
    /// The key that it replaced, if it is not the first.
    pub previous: Option<VerifyingKey>,
    /// When it became the agent's key.
    pub since: Timestamp,
    /// An operator asked for another one.
    pub is_ordered: bool,
}

impl AgentKey {
    /// The key of the enrolment.
    pub const fn first(public: VerifyingKey, since: Timestamp) -> Self {
        Self { public, previous: None, since, is_ordered: false }
    }

    /// Whether the agent is to replace it: by an order, or because it is older than `max_age`.
    pub fn is_due(&self, max_age: Option<Duration>, now: Timestamp) -> bool {
        self.is_ordered || max_age.is_some_and(|max_age| now.since(self.since) > max_age)
    }

    /// Whether use of the previous key in a token of that time shows a copy of it: the agent itself
    /// had dropped it by then.
    pub fn shows_copy(&self, issued: Timestamp) -> bool {
        issued > self.since.plus(OLD_TOKEN_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_key_is_due_by_order_or_by_age() {
        let since = Timestamp::from_millis(1_795_514_400_000);
        let public = riposte_protocol::key::SigningKey::from_seed(&[7; 32]).unwrap().verifying_key();
        let key = AgentKey::first(public, since);
        assert!(!key.is_due(None, since.plus(1000 * HOUR)));
        assert!(!key.is_due(Some(HOUR), since.plus(HOUR)));
        assert!(key.is_due(Some(HOUR), since.plus(HOUR + Duration::from_millis(1))));
        assert!(AgentKey { is_ordered: true, ..key }.is_due(None, since));
        assert!(!key.shows_copy(since.plus(OLD_TOKEN_GRACE)));
        assert!(key.shows_copy(since.plus(OLD_TOKEN_GRACE + Duration::from_millis(1))));
    }
}
