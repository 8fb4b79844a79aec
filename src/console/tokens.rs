//! Tokens of forms, and the refresh of a session that several requests of one browser share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::client::{ApiClient, Trouble};
use crate::domain::ledger_key::{LEDGER_KEY_BYTES, LedgerKey, LedgerKeyError};
use crate::engine::secrets::hash_secret;
use crate::views::auth::{AskToken, IssuedToken};

/// What the key of form tokens is derived for.
const PURPOSE: &str = "console forms";
/// How long the answer to a refresh is kept for requests of the same browser that ran at the same
/// time.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// Makes and checks the tokens of forms.
pub(crate) struct FormTokens(hmac::Key);

impl FormTokens {
    /// Tokens under this ledger key: every manager of a ledger accepts them.
    ///
    /// # Errors
    /// If the library refuses.
    pub(super) fn new(key: &LedgerKey) -> Result<Self, LedgerKeyError> {
        let bytes: [u8; LEDGER_KEY_BYTES] = key.derive(PURPOSE)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    pub(super) fn token(&self, session: Uuid) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, session.as_bytes()).as_ref())
    }

    pub(super) fn is_right(&self, session: Uuid, token: &str) -> bool {
        let sent = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        hmac::verify(&self.0, session.as_bytes(), &sent).is_ok()
    }
}

/// The tokens after a refresh, and when it was.
type Refreshed = (Instant, Arc<IssuedToken>);

/// Answers to refreshes, by the hash of the token that was used up. A browser sends several requests
/// at once, and a refresh token is valid once.
#[derive(Default)]
pub(crate) struct Refreshes(Mutex<HashMap<Vec<u8>, Refreshed>>);

impl Refreshes {
    /// The tokens after `refresh`.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn next(&self, api: &ApiClient, refresh: &str) -> Result<Arc<IssuedToken>, Trouble> {
        let mut kept = self.0.lock().await;
        kept.retain(|_, (at, _)| at.elapsed() < KEPT_FOR);
        let hash = hash_secret(refresh);
        if let Some((_, tokens)) = kept.get(&hash) {
            return Ok(Arc::clone(tokens));
        }
        let asked = AskToken { refresh_token: Some(refresh.to_owned()), ..AskToken::default() };
        let tokens: Arc<IssuedToken> = Arc::new(api.post("/v1/auth/token", &asked).await?);
        kept.insert(hash, (Instant::now(), Arc::clone(&tokens)));
        Ok(tokens)
    }
}
