//! Agent tokens that were used: each is good for one request at this manager. Memory alone: after a
//! restart, and at another manager of the ledger, a stolen token is good once more, until it expires
//! (`docs/security.md`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use riposte_protocol::identity::{AgentToken, LEEWAY};
use riposte_protocol::time::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Tokens that are remembered of one agent; one that polls once a second uses 360 in their lifetime.
const OF_ONE: usize = 512;
/// The same once [`OF_ALL`] are remembered, so that a fleet of rogue agents fills no memory.
const OF_ONE_WHEN_FULL: usize = 16;
/// Tokens of all agents, at about 40 bytes each.
const OF_ALL: usize = 1_000_000;

/// A token by a prefix of the hash of its `jti`, and the seconds in which it was issued and expires.
#[derive(Clone, Copy, Debug)]
struct Used {
    id: u128,
    issued: i64,
    expires: i64,
}

#[derive(Debug, Default)]
struct OfAgent {
    used: Vec<Used>,
    /// Tokens that were issued before this second are refused: some of them were forgotten.
    floor: i64,
}

#[derive(Debug, Default)]
struct Remembered {
    agents: HashMap<Uuid, OfAgent>,
    count: usize,
}

/// The tokens that were used at this manager.
#[derive(Debug, Default)]
pub struct AgentTokens(Mutex<Remembered>);

impl AgentTokens {
    /// Uses a verified token; returns whether it was not used before.
    pub fn take(&self, token: &AgentToken, now: Timestamp) -> bool {
        let digest: [u8; 32] = Sha256::digest(token.jti.as_bytes()).into();
        let (id, _) = digest.split_at(16);
        let id = id.iter().fold(0, |id: u128, byte| (id << 8) | u128::from(*byte));
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { agents, count } = &mut *remembered;
        let of = agents.entry(token.iss).or_default();
        if token.iat < of.floor || of.used.iter().any(|used| used.id == id) {
            return false;
        }
        let room = if *count < OF_ALL { OF_ONE } else { OF_ONE_WHEN_FULL };
        if of.used.len() >= room {
            let before = of.used.len();
            // As long as the check of tokens accepts them.
            let past = now.minus(LEEWAY).as_secs();
            of.used.retain(|used| used.expires >= past);
            if of.used.len() >= room {
                of.used.sort_unstable_by_key(|used| used.issued);
                let forgotten = of.used.len() - room / 2;
                let last = of.used.drain(..forgotten).next_back();
                // Of the same second a later one may come, so one of that second may come again.
                of.floor = last.map_or(of.floor, |last| last.issued.max(of.floor));
            }
            *count = count.saturating_sub(before - of.used.len());
        }
        of.used.push(Used { id, issued: token.iat, expires: token.exp });
        *count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);

    fn token(agent: u128, jti: usize, iat: i64) -> AgentToken {
        let (iss, jti) = (Uuid::from_u128(agent), jti.to_string());
        AgentToken { iss, sub: iss, aud: riposte_protocol::MANAGER.into(), iat, exp: iat + 300, jti }
    }

    #[test]
    fn a_token_is_good_once_for_its_agent() {
        let (tokens, now) = (AgentTokens::default(), NOW.as_secs());
        assert!(tokens.take(&token(1, 1, now), NOW));
        assert!(!tokens.take(&token(1, 1, now), NOW));
        assert!(tokens.take(&token(2, 1, now), NOW), "another agent's");
        assert!(tokens.take(&token(1, 2, now), NOW));
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_not_accepted_again() {
        let (tokens, now) = (AgentTokens::default(), NOW.as_secs());
        for nth in 0..10 * OF_ONE {
            let iat = now + i64::try_from(nth / 100).unwrap();
            assert!(tokens.take(&token(1, nth, iat), NOW), "{nth}");
            assert!(!tokens.take(&token(1, nth, iat), NOW), "{nth}");
        }
        let remembered = tokens.0.lock().unwrap();
        let of = &remembered.agents[&Uuid::from_u128(1)];
        assert!(of.used.len() <= OF_ONE && remembered.count == of.used.len());
        let floor = of.floor;
        drop(remembered);
        assert!(floor > now && !tokens.take(&token(1, 0, now), NOW), "one that was forgotten");
        assert!(!tokens.take(&token(1, 99_999, floor - 1), NOW), "it cannot be told from one that was");
        // An agent that makes them at a normal pace never gets there.
        let polls = AgentTokens::default();
        for nth in 0..10 * OF_ONE {
            let at = NOW.plus(std::time::Duration::from_secs(u64::try_from(nth).unwrap()));
            assert!(polls.take(&token(1, nth, at.as_secs()), at));
        }
        assert_eq!(polls.0.lock().unwrap().agents[&Uuid::from_u128(1)].floor, 0);
    }
}
