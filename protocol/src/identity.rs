//! How an agent proves its identity: a short-lived token that it signs with the key it made at
//! enrolment. The manager keeps only public keys, so data stolen from the manager cannot be used to
//! pose as an agent.

use std::time::Duration;

use crate::key::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::MANAGER;
use crate::jws::{self, JwsError, Unverified};
use crate::time::{Timestamp, difference};

/// Longest lifetime of an agent token: long enough for a poll, short enough to be worthless in a
/// log.
pub const MAX_LIFETIME: Duration = Duration::from_mins(5);
/// Allowed difference of the two clocks.
pub const LEEWAY: Duration = Duration::from_mins(1);

/// The claims of an agent token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentToken {
    /// The agent's id.
    pub iss: Uuid,
    /// The agent's id again.
    pub sub: Uuid,
    /// Always [`MANAGER`].
    pub aud: String,
    /// Issued at, in seconds since the epoch.
    pub iat: i64,
    /// Expires at, in seconds since the epoch; at most [`MAX_LIFETIME`] after `iat`.
    pub exp: i64,
    /// A fresh id for each token.
    pub jti: String,
}

/// Why an agent token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is not valid.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// `iss`, `sub` or `aud` have other values than required.
    #[error("the token's claims do not name this agent and this manager")]
    Claims,
    /// It has expired, or is not valid yet: it was issued this many seconds ahead of the checking
    /// clock; behind it, if negative.
    #[error("the token is dated {} the manager's clock: the two clocks differ", difference(.0.saturating_mul(1000)))]
    Time(i64),
    /// Its lifetime exceeds [`MAX_LIFETIME`].
    #[error("the token would live longer than 5 minutes")]
    Lifetime,
}

/// Makes a token that is valid for `lifetime` (at most [`MAX_LIFETIME`]) from `now`.
///
/// # Errors
/// [`JwsError::Malformed`] if the claims cannot be written as JSON.
pub fn issue(key: &SigningKey, agent: Uuid, jti: Uuid, now: Timestamp, lifetime: Duration) -> Result<String, JwsError> {
    let claims = AgentToken {
        iss: agent,
        sub: agent,
        aud: MANAGER.into(),
        iat: now.as_secs(),
        exp: now.plus(lifetime.min(MAX_LIFETIME)).as_secs(),
        jti: jti.to_string(),
    };
    jws::sign(key, "JWT", &agent.to_string(), &claims)
}

/// The agent that a token claims to be from, before verification: only to find the key to verify it
/// with.
///
/// # Errors
/// If the token cannot be read.
pub fn claimed_agent(token: &str) -> Result<Uuid, TokenError> {
    let claims: AgentToken = Unverified::parse(token, "JWT", true)?.peek()?;
    Ok(claims.iss)
}

/// Verifies a token with the key of the agent that it claims to be from.
///
/// # Errors
/// The first reason not to accept it.
pub fn check(token: &str, key: &VerifyingKey, agent: Uuid, now: Timestamp) -> Result<AgentToken, TokenError> {
    let claims: AgentToken = Unverified::parse(token, "JWT", true)?.verify(key)?;
    if claims.iss != agent || claims.sub != agent || claims.aud != MANAGER {
        return Err(TokenError::Claims);
    }
    let lifetime = i64::try_from(MAX_LIFETIME.as_secs()).unwrap_or(i64::MAX);
    if claims.exp.saturating_sub(claims.iat) > lifetime {
        return Err(TokenError::Lifetime);
    }
    if now.minus(LEEWAY).as_secs() > claims.exp || now.plus(LEEWAY).as_secs() < claims.iat {
        return Err(TokenError::Time(claims.iat.saturating_sub(now.as_secs())));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn check_claims(change: impl FnOnce(&mut AgentToken)) -> Result<AgentToken, TokenError> {
        let agent = Uuid::from_u128(1);
        let now = NOW.as_secs();
        let mut claims =
            AgentToken { iss: agent, sub: agent, aud: MANAGER.into(), iat: now, exp: now + 300, jti: "x".into() };
        change(&mut claims);
        let token = jws::sign(&key(1), "JWT", "", &claims).unwrap();
        check(&token, &key(1).verifying_key(), agent, NOW)
    }

    #[test]
    fn a_fresh_token_of_the_agent_is_accepted() {
        let agent = Uuid::from_u128(1);
        let token = issue(&key(1), agent, Uuid::from_u128(5), NOW, Duration::from_secs(9999)).unwrap();
        assert_eq!(claimed_agent(&token), Ok(agent));
        let claims = check(&token, &key(1).verifying_key(), agent, NOW).unwrap();
        assert_eq!(claims.exp - claims.iat, 300);
        assert_eq!(check(&token, &key(2).verifying_key(), agent, NOW), Err(JwsError::Signature.into()));
    }

    #[test]
    fn every_claim_is_checked() {
        let now = NOW.as_secs();
        assert!(check_claims(|_| ()).is_ok());
        assert_eq!(check_claims(|c| c.iss = Uuid::from_u128(2)), Err(TokenError::Claims));
        assert_eq!(check_claims(|c| c.sub = Uuid::from_u128(2)), Err(TokenError::Claims));
        assert_eq!(check_claims(|c| c.aud = "other".into()), Err(TokenError::Claims));
        assert_eq!(check_claims(|c| c.exp += 1), Err(TokenError::Lifetime));
        assert_eq!(check_claims(|c| (c.iat, c.exp) = (now - 361, now - 61)), Err(TokenError::Time(-361)));
        assert!(check_claims(|c| (c.iat, c.exp) = (now - 360, now - 60)).is_ok());
        assert_eq!(check_claims(|c| (c.iat, c.exp) = (now + 61, now + 300)), Err(TokenError::Time(61)));
    }
}
