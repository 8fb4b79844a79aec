//! Access tokens of people's sessions, and tokens that stand for an API key: JWS with EdDSA
//! (`protocol/src/jws.rs`), each of a `typ` of its own, so that no agent's token or command can pass
//! for one. Their keys follow from the manager's signing key and the number of the period, so nothing
//! is stored and every manager of a ledger has the same ones
//! (`docs/decisions/0024-access-token-keys-are-derived.md`).

use std::time::Duration;

use riposte_protocol::jws::{self, JwsError, Unverified};
use riposte_protocol::key::{KeyError, SigningKey, VerifyingKey};
use riposte_protocol::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `typ` of an access token (RFC 9068).
pub const TYP: &str = "at+jwt";
/// `typ` of a token that stands for an API key (`docs/decisions/0037-wazuhs-api-drop-in.md`).
pub const KEY_TYP: &str = "riposte-key+jwt";
/// `iss` and `aud` of every access token.
pub const ISSUER: &str = "riposte";
/// Lifetime of an access token: so long a stolen one is worth something.
pub const LIFETIME: Duration = Duration::from_mins(15);
/// Period of a key. A token lives in two periods at most, so the current and the previous key verify.
const PERIOD_SECS: i64 = 30 * 86_400;
/// Largest access token, in bytes.
const MAX_TOKEN: usize = 4096;
/// How far a token's `iat` may be ahead, in seconds: managers of one ledger have clocks of their own.
const LEEWAY_SECS: i64 = 60;

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    /// Always [`ISSUER`].
    pub iss: String,
    /// Always [`ISSUER`].
    pub aud: String,
    /// The user's name.
    pub sub: String,
    /// A fresh id for each token.
    pub jti: Uuid,
    /// The session.
    pub sid: Uuid,
    /// Issued at, in seconds since the epoch.
    pub iat: i64,
    /// Expires at, in seconds since the epoch.
    pub exp: i64,
    /// Rights at the time of issue, for programs that read the token. The manager goes by the role
    /// of now.
    pub scope: String,
}

/// The claims of a token that stands for an API key. The key itself is looked up at each request, so
/// the token is worth nothing once the key is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyClaims {
    /// Always [`ISSUER`].
    pub iss: String,
    /// Always [`ISSUER`].
    pub aud: String,
    /// The public id of the key.
    pub sub: String,
    /// A fresh id for each token.
    pub jti: Uuid,
    /// The key's generation of tokens; each logout begins the next one.
    pub generation: i64,
    /// Issued at, in seconds since the epoch.
    pub iat: i64,
    /// Expires at, in seconds since the epoch.
    pub exp: i64,
}

/// Claims that every kind of token has.
trait Dated {
    fn issuer_and_audience(&self) -> [&str; 2];
    fn iat_and_exp(&self) -> [i64; 2];
}

impl Dated for AccessClaims {
    fn issuer_and_audience(&self) -> [&str; 2] {
        [&self.iss, &self.aud]
    }

    fn iat_and_exp(&self) -> [i64; 2] {
        [self.iat, self.exp]
    }
}

impl Dated for KeyClaims {
    fn issuer_and_audience(&self) -> [&str; 2] {
        [&self.iss, &self.aud]
    }

    fn iat_and_exp(&self) -> [i64; 2] {
        [self.iat, self.exp]
    }
}

/// Why an access token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// The token is not valid.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// A claim has another value than required.
    #[error("the access token is not for this manager")]
    Claims,
    /// It has expired.
    #[error("the access token has expired: refresh it, or log in again")]
    Expired,
}

/// A key of one period.
#[derive(Debug)]
pub struct PeriodKey {
    /// Id in the header of a token, and in the key set.
    pub kid: String,
    key: SigningKey,
}

impl PeriodKey {
    fn derive(root: &SigningKey, period: i64) -> Result<Self, KeyError> {
        let key = root.derive(&format!("riposte access token, period {period}"))?;
        Ok(Self { kid: key.verifying_key().kid(), key })
    }

    /// The public half.
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }
}

/// The keys of the previous, the current and the next period.
#[derive(Debug)]
pub struct AccessKeys {
    period: i64,
    keys: [PeriodKey; 3],
}

/// The number of the period that contains `now`.
pub fn period(now: Timestamp) -> i64 {
    now.as_secs().div_euclid(PERIOD_SECS)
}

impl AccessKeys {
    /// Derives the keys of the period of `now`.
    ///
    /// # Errors
    /// If the library fails.
    pub fn derive(root: &SigningKey, now: Timestamp) -> Result<Self, KeyError> {
        let period = period(now);
        let key = |period| PeriodKey::derive(root, period);
        Ok(Self { period, keys: [key(period - 1)?, key(period)?, key(period + 1)?] })
    }

    /// Whether these are the keys at `now`.
    pub fn are_current(&self, now: Timestamp) -> bool {
        self.period == period(now)
    }

    /// The keys: previous, current, next.
    pub const fn all(&self) -> &[PeriodKey; 3] {
        &self.keys
    }

    /// Signs claims with the current key.
    ///
    /// # Errors
    /// As [`jws::sign`].
    pub fn sign(&self, claims: &AccessClaims) -> Result<String, JwsError> {
        self.sign_as(TYP, claims)
    }

    /// Signs the claims of a token that stands for an API key.
    ///
    /// # Errors
    /// As [`jws::sign`].
    pub fn sign_for_key(&self, claims: &KeyClaims) -> Result<String, JwsError> {
        self.sign_as(KEY_TYP, claims)
    }

    fn sign_as(&self, typ: &str, claims: &impl Serialize) -> Result<String, JwsError> {
        let [_, current, _] = &self.keys;
        jws::sign(&current.key, typ, &current.kid, claims)
    }

    /// Verifies a token at `now` and returns its claims. The session and the user are for the caller
    /// to check.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, AccessTokenError> {
        self.verify_as(TYP, token, now)
    }

    /// Verifies a token that stands for an API key. The key is for the caller to check.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub fn verify_for_key(&self, token: &str, now: Timestamp) -> Result<KeyClaims, AccessTokenError> {
        self.verify_as(KEY_TYP, token, now)
    }

    fn verify_as<C: Dated + DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<C, AccessTokenError> {
        if token.len() > MAX_TOKEN {
            return Err(JwsError::Malformed.into());
        }
        let unverified = Unverified::parse(token, typ, false)?;
        let [previous, current, _] = &self.keys;
        let kid = unverified.header.kid.as_deref();
        let key = [current, previous].into_iter().find(|key| kid == Some(key.kid.as_str()));
        let claims: C = unverified.verify(&key.ok_or(JwsError::UnknownKey)?.public())?;
        let lifetime = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
        let [iat, exp] = claims.iat_and_exp();
        let is_dated = iat <= now.as_secs() + LEEWAY_SECS && exp.saturating_sub(iat) <= lifetime;
        if claims.issuer_and_audience() != [ISSUER; 2] || !is_dated {
            return Err(AccessTokenError::Claims);
        }
        if exp <= now.as_secs() {
            return Err(AccessTokenError::Expired);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn root() -> SigningKey {
        SigningKey::from_seed(&[7; 32]).unwrap()
    }

    fn claims() -> AccessClaims {
        AccessClaims {
            iss: ISSUER.into(),
            aud: ISSUER.into(),
            sub: "alice".into(),
            jti: Uuid::from_u128(1),
            sid: Uuid::from_u128(2),
            iat: NOW.as_secs(),
            exp: NOW.plus(LIFETIME).as_secs(),
            scope: "read".into(),
        }
    }

    #[test]
    fn a_token_is_right_for_its_lifetime_and_across_two_periods() {
        let keys = AccessKeys::derive(&root(), NOW).unwrap();
        let token = keys.sign(&claims()).unwrap();
        assert_eq!(keys.verify(&token, NOW), Ok(claims()));
        assert_eq!(keys.verify(&token, NOW.plus(LIFETIME)), Err(AccessTokenError::Expired));
        // Another manager of the same ledger, and the next period, know the key; the one after that
        // does not.
        let days = |days: u64| AccessKeys::derive(&root(), NOW.plus(Duration::from_secs(days * 86_400))).unwrap();
        assert_eq!(days(30).verify(&token, NOW), Ok(claims()));
        assert_eq!(days(60).verify(&token, NOW), Err(JwsError::UnknownKey.into()));
        let kids = |keys: &AccessKeys| keys.all().each_ref().map(|key| key.kid.clone());
        assert_eq!(kids(&keys)[1..], kids(&days(30))[..2]);
    }

    #[test]
    fn another_kind_issuer_audience_or_lifetime_is_refused() {
        let keys = AccessKeys::derive(&root(), NOW).unwrap();
        let late = NOW.plus(LIFETIME).as_secs() + 1;
        for wrong in [
            AccessClaims { iss: "other".into(), ..claims() },
            AccessClaims { aud: "other".into(), ..claims() },
            AccessClaims { exp: late, ..claims() },
            AccessClaims { iat: late, exp: late + 1, ..claims() },
        ] {
            assert_eq!(keys.verify(&keys.sign(&wrong).unwrap(), NOW), Err(AccessTokenError::Claims), "{wrong:?}");
        }
        let [_, current, next] = keys.all();
        let of_typ = |typ: &str| jws::sign(&current.key, typ, &current.kid, &claims()).unwrap();
        for typ in ["JWT", "riposte-command+jwt", KEY_TYP] {
            assert_eq!(keys.verify(&of_typ(typ), NOW), Err(JwsError::Kind.into()));
        }
        let next = jws::sign(&next.key, TYP, &next.kid, &claims()).unwrap();
        assert_eq!(keys.verify(&next, NOW), Err(JwsError::UnknownKey.into()));
        let forged = jws::sign(&root(), TYP, &current.kid, &claims()).unwrap();
        assert_eq!(keys.verify(&forged, NOW), Err(JwsError::Signature.into()));
        let large = AccessClaims { scope: "x".repeat(MAX_TOKEN), ..claims() };
        assert_eq!(keys.verify(&keys.sign(&large).unwrap(), NOW), Err(JwsError::Malformed.into()));
    }

    #[test]
    fn a_token_of_a_key_and_one_of_a_session_do_not_pass_for_each_other() {
        let keys = AccessKeys::derive(&root(), NOW).unwrap();
        let claims = KeyClaims {
            iss: ISSUER.into(),
            aud: ISSUER.into(),
            sub: "0123456789abcdef".into(),
            jti: Uuid::from_u128(1),
            generation: 3,
            iat: NOW.as_secs(),
            exp: NOW.plus(LIFETIME).as_secs(),
        };
        let token = keys.sign_for_key(&claims).unwrap();
        assert_eq!(keys.verify_for_key(&token, NOW), Ok(claims.clone()));
        assert_eq!(keys.verify_for_key(&token, NOW.plus(LIFETIME)), Err(AccessTokenError::Expired));
        assert_eq!(keys.verify(&token, NOW), Err(JwsError::Kind.into()));
        assert_eq!(keys.verify_for_key(&keys.sign(&self::claims()).unwrap(), NOW), Err(JwsError::Kind.into()));
        let long = KeyClaims { exp: claims.exp + 1, ..claims };
        assert_eq!(keys.verify_for_key(&keys.sign_for_key(&long).unwrap(), NOW), Err(AccessTokenError::Claims));
    }
}
