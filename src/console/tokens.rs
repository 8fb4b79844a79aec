//! Tokens of forms, and the refresh of a session that several requests of one browser share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::{OnceCell, oneshot};
use uuid::Uuid;

use super::client::{ApiClient, Trouble};
use crate::domain::ledger_key::{LEDGER_KEY_BYTES, LedgerKey, LedgerKeyError};
use crate::engine::secrets::hash_secret;
use crate::shutdown::Tasks;
use crate::views::auth::{AskToken, IssuedToken};

/// What the key of form tokens is derived for.
const PURPOSE: &str = "console forms";
/// How long the answer to a refresh is kept for requests of the same browser that ran at the same
/// time.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// Makes and checks the tokens of forms.
pub(super) struct FormTokens(hmac::Key);

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

/// A refresh that was begun, and its tokens once they are there.
type Refreshed = (Instant, Arc<OnceCell<Arc<IssuedToken>>>);

/// Refreshes that were begun a moment ago, by the hash of the token that is used up. A browser sends several requests
/// at once, and a refresh token is valid once.
#[derive(Default)]
pub(super) struct Refreshes(Mutex<HashMap<Vec<u8>, Refreshed>>);

impl Refreshes {
    /// The tokens after `refresh`.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn next(
        &self,
        tasks: &Tasks,
        api: &ApiClient,
        refresh: &str,
    ) -> Result<Arc<IssuedToken>, Trouble> {
        let cell = {
            let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            begun.retain(|_, (at, _)| at.elapsed() < KEPT_FOR);
            let (_, cell) = begun.entry(hash_secret(refresh)).or_insert_with(|| (Instant::now(), Arc::default()));
            Arc::clone(cell)
        };
        let tokens = cell.get_or_try_init(|| async {
            let asked = AskToken { refresh_token: Some(refresh.to_owned()), ..AskToken::default() };
            let api = api.clone();
            // A browser that goes away must not lose the only answer: the token is used up.
            let (tell, told) = oneshot::channel();
            tasks.spawn_short(async move {
                let _ = tell.send(api.post::<IssuedToken>("/v1/auth/token", &asked).await);
            });
            let tokens = told.await.map_err(|_| Trouble::Broken("the manager stops".to_owned()))?;
            tokens.map(Arc::new)
        });
        tokens.await.map(Arc::clone)
    }
}
