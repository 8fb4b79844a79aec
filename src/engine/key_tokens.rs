//! Tokens that stand for an API key, for clients of Wazuh's API, which log in with a name and a password
//! and then send a token. A token is not stored and allows nothing by itself: its key is looked up at each
//! request. A logout begins the key's next generation of tokens
//! (`docs/decisions/0037-wazuhs-api-drop-in.md`).

use std::sync::Arc;

use riposte_protocol::jws::JwsError;
use riposte_protocol::time::Timestamp;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use crate::domain::access_token::{AccessTokenError, KeyClaims};
use crate::domain::principal::Principal;
use crate::store::configured::keys;
use crate::store::ledger::audit::LedgerTx;

impl Engine {
    /// Issues a token that stands for the valid API key `id`. It ends with the key, and after 15 minutes.
    ///
    /// # Errors
    /// If there is no such key, or the library cannot sign.
    pub fn issue_key_token(&self, id: &str) -> UseCase<String> {
        let keys = self.keys.load();
        let stored = keys.get(id).ok_or_else(|| Refusal::NotFound("the key does not exist".to_owned()))?;
        let until = stored.key.expires_at.map(Timestamp::from);
        self.access_tokens.issue_for_key(id, stored.token_generation, until, self.clock.now())
    }

    /// The claims of a token that stands for an API key which is valid now; `None` for any other kind of
    /// credentials, or why the token is not valid, in a sentence for the caller.
    pub fn key_of_token(&self, token: &str) -> Option<Result<KeyClaims, String>> {
        let now = self.clock.now();
        let claims = match self.access_tokens.verify_for_key(token, now) {
            Ok(claims) => claims,
            Err(AccessTokenError::Jws(JwsError::Malformed | JwsError::Kind)) => return None,
            Err(error) => return Some(Err(error.to_string())),
        };
        let keys = self.keys.load();
        let stored = keys.get(&claims.sub).filter(|stored| stored.is_valid(now) && !stored.key.is_webhook);
        let is_current = stored.is_some_and(|stored| stored.token_generation == claims.generation);
        let ended = || "the token has ended, or its API key is no longer valid: log in again".to_owned();
        Some(if is_current { Ok(claims) } else { Err(ended()) })
    }

    /// Ends all tokens that stand for the API key `id`.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn end_key_tokens(self: &Arc<Self>, id: &str, by: &Principal) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        keys::end_tokens(&mut ledger, id, &by.actor, self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }
}
