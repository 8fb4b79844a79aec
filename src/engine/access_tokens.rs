//! Access tokens: signed at a login, verified at each request. Verified tokens are remembered, so
//! that a signature is checked once. A token alone allows nothing: the session and the user are
//! looked up in memory at each request (`api/front/auth.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use riposte_protocol::key::{KeyError, SigningKey};
use riposte_protocol::time::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::refusal::{Refusal, UseCase};
use crate::domain::access_token::{AccessClaims, AccessKeys, AccessTokenError, ISSUER, KeyClaims, LIFETIME};
use crate::domain::id::new_id;

/// Maximum number of remembered tokens. Beyond it, the expired ones are forgotten, and if that is
/// not enough, all.
const REMEMBERED: usize = 10_000;

/// The keys of access tokens, and the tokens that were verified.
#[derive(Debug)]
pub struct AccessTokens {
    families: ArcSwap<Families>,
    verified: Mutex<HashMap<[u8; 32], Arc<AccessClaims>>>,
}

/// The keys that follow from one signing key.
#[derive(Clone, Debug)]
struct Family {
    root: SigningKey,
    keys: Arc<AccessKeys>,
}

impl Family {
    fn derive(root: SigningKey, now: Timestamp) -> Result<Self, KeyError> {
        Ok(Self { keys: Arc::new(AccessKeys::derive(&root, now)?), root })
    }
}

/// The keys that sign and verify, and those of a signing key that comes or has gone.
#[derive(Debug)]
struct Families {
    current: Family,
    /// Of the next signing key, so that other programs know its keys before they sign; and of the
    /// one before, whose last tokens are still valid.
    others: Vec<Family>,
}

impl AccessTokens {
    /// Derives the keys from the manager's signing key, and those of the `next` during a rotation.
    ///
    /// # Errors
    /// If the library fails.
    pub fn new(root: SigningKey, next: Option<SigningKey>, now: Timestamp) -> Result<Self, KeyError> {
        let others = next.map(|next| Family::derive(next, now)).transpose()?.into_iter().collect();
        let families = ArcSwap::from_pointee(Families { current: Family::derive(root, now)?, others });
        Ok(Self { families, verified: Mutex::default() })
    }

    /// Follows a change of the signing keys. The keys of one that signs no longer verify until the
    /// next change or start; its tokens expire long before.
    pub(super) fn follow(&self, root: &SigningKey, next: Option<&SigningKey>, now: Timestamp) {
        let before = self.families.load_full();
        let known = std::iter::once(&before.current).chain(&before.others);
        let same = |root: &SigningKey| {
            let found = known.clone().find(|family| family.root.verifying_key() == root.verifying_key());
            found.cloned().map_or_else(|| Family::derive(root.clone(), now), Ok)
        };
        let (Ok(current), Ok(next)) = (same(root), next.map(same).transpose()) else {
            tracing::error!("the keys of access tokens stay those of the old signing key until the next start");
            return;
        };
        let mut others: Vec<Family> = next.into_iter().collect();
        if before.current.root.verifying_key() != root.verifying_key() {
            others.push(before.current.clone());
        }
        self.families.store(Arc::new(Families { current, others }));
    }

    /// The keys of a signing key that comes or has gone: they verify, and do not sign.
    pub fn other_keys(&self) -> Vec<Arc<AccessKeys>> {
        self.families.load().others.iter().map(|family| Arc::clone(&family.keys)).collect()
    }

    /// The keys at `now`.
    pub fn keys(&self, now: Timestamp) -> Arc<AccessKeys> {
        let families = self.families.load();
        let keys = Arc::clone(&families.current.keys);
        if keys.are_current(now) {
            return keys;
        }
        // A new period, which happens once in 30 days. The old keys go on if the library fails.
        let Ok(current) = Family::derive(families.current.root.clone(), now) else { return keys };
        let others = families.others.iter().filter_map(|family| Family::derive(family.root.clone(), now).ok());
        let next = Arc::clone(&current.keys);
        self.families.store(Arc::new(Families { current, others: others.collect() }));
        next
    }

    /// Issues the access token of a session, which ends at `until` at the latest. Returns it with
    /// its validity in seconds.
    ///
    /// # Errors
    /// If the library cannot sign.
    pub fn issue(
        &self,
        user: &str,
        rights: &str,
        session: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> UseCase<(String, u64)> {
        let exp = now.plus(LIFETIME).min(until).as_secs();
        let claims = AccessClaims {
            iss: ISSUER.into(),
            aud: ISSUER.into(),
            sub: user.into(),
            jti: new_id(now),
            sid: session,
            iat: now.as_secs(),
            exp,
            scope: rights.to_owned(),
        };
        let token = self.keys(now).sign(&claims).map_err(|error| Refusal::System(error.to_string()))?;
        Ok((token, u64::try_from(exp - now.as_secs()).unwrap_or_default()))
    }

    /// Issues a token that stands for the API key `id`, in its present generation, until `until` at the latest.
    ///
    /// # Errors
    /// If the library cannot sign.
    pub(super) fn issue_for_key(
        &self,
        id: &str,
        generation: i64,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> UseCase<String> {
        let exp = now.plus(LIFETIME);
        let claims = KeyClaims {
            iss: ISSUER.into(),
            aud: ISSUER.into(),
            sub: id.into(),
            jti: new_id(now),
            generation,
            iat: now.as_secs(),
            exp: until.map_or(exp, |until| exp.min(until)).as_secs(),
        };
        self.keys(now).sign_for_key(&claims).map_err(|error| Refusal::System(error.to_string()))
    }

    /// Verifies a token that stands for an API key.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub(super) fn verify_for_key(&self, token: &str, now: Timestamp) -> Result<KeyClaims, AccessTokenError> {
        self.keys(now).verify_for_key(token, now).or_else(|error| {
            let families = self.families.load();
            let mut verified = families.others.iter().filter_map(|family| family.keys.verify_for_key(token, now).ok());
            verified.next().ok_or(error)
        })
    }

    /// Verifies a token and returns its claims.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<AccessClaims>, AccessTokenError> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).map(Arc::clone);
        if let Some(claims) = known {
            return if claims.exp > now.as_secs() { Ok(claims) } else { Err(AccessTokenError::Expired) };
        }
        let claims = self.keys(now).verify(token, now);
        let of_others = |error| {
            let others = self.families.load();
            let mut verified = others.others.iter().filter_map(|family| family.keys.verify(token, now).ok());
            verified.next().ok_or(error)
        };
        let claims = Arc::new(claims.or_else(of_others)?);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.retain(|_, claims| claims.exp > now.as_secs());
            if verified.len() >= REMEMBERED {
                verified.clear();
            }
        }
        verified.insert(hash, Arc::clone(&claims));
        Ok(claims)
    }
}
