//! One-time codes of a person: a secret is shown once, and needed for logins from the first code
//! that confirms it.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;

use super::Engine;
use super::lockouts::Attempt;
use super::login::LoginOrigin;
use super::refusal::{Refusal, UseCase};
use crate::domain::actor::Actor;
use crate::domain::totp::{TOTP_SECRET_LENGTH, matching_step, uri};
use crate::store::configured::users::{self, UserSecrets};
use crate::store::ledger::audit::LedgerTx;
use crate::views::auth::NewTotp;

impl Engine {
    /// Makes a secret for the user `name`. It is not needed until it is confirmed.
    ///
    /// # Errors
    /// If one-time codes are needed already.
    pub async fn offer_totp(self: &Arc<Self>, name: &str) -> UseCase<NewTotp> {
        let mut secret = [0; TOTP_SECRET_LENGTH];
        getrandom::fill(&mut secret).map_err(|error| Refusal::System(error.to_string()))?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let sealed = self.ledger_key.seal(&purpose(name), &secret);
        let sealed = sealed.map_err(|error| Refusal::System(error.to_string()))?;
        if !users::offer_totp(&mut ledger, name, &sealed).await? {
            let why = "one-time codes are needed already: remove them with a code first";
            return Err(Refusal::Conflict(why.to_owned()));
        }
        self.commit_and_refresh(ledger).await?;
        let secret = BASE32_NOPAD.encode(&secret);
        Ok(NewTotp { otpauth_uri: uri(name, &secret), secret })
    }

    /// Confirms the secret by a code: logins need one from now on.
    ///
    /// # Errors
    /// A wrong code, or no secret to confirm.
    pub async fn confirm_totp(self: &Arc<Self>, name: &str, code: &str) -> UseCase<()> {
        let now = self.clock.now();
        let offered = self.secrets_of(name).await?.totp_offered;
        let offered =
            offered.ok_or_else(|| Refusal::Conflict("there is no secret to confirm: ask for one first".into()))?;
        let step = matching_step(&self.open_totp(name, &offered)?, code, now).ok_or_else(wrong_code)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let by = Actor::User(name.to_owned());
        if !users::confirm_totp(&mut ledger, name, (&offered, step), &by, now).await? {
            return Err(Refusal::Conflict("another secret was asked for meanwhile".to_owned()));
        }
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Ends the need of one-time codes, with one more of them.
    ///
    /// # Errors
    /// A wrong or used code, or none are needed.
    pub async fn remove_totp(self: &Arc<Self>, name: &str, code: &str, origin: LoginOrigin) -> UseCase<()> {
        let now = self.clock.now();
        // A stolen session must not try all codes.
        let LoginOrigin { network, .. } = origin;
        let attempt = Attempt { name: format!("{name}, removal"), exists: true, network, is_known: true };
        if self.lockouts.is_locked(&attempt, now) {
            return Err(wrong_code());
        }
        let secret = self.secrets_of(name).await?.totp_secret;
        let secret = secret.ok_or_else(|| Refusal::Conflict("no one-time codes are needed".to_owned()))?;
        let Some(step) = matching_step(&self.open_totp(name, &secret)?, code, now) else {
            self.lockouts.fail(&attempt, now);
            return Err(wrong_code());
        };
        let mut ledger = LedgerTx::begin(&self.db).await?;
        if !users::use_step(&mut ledger, name, step).await? {
            return Err(wrong_code());
        }
        users::remove_totp(&mut ledger, name, &Actor::User(name.to_owned()), now).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// The secret of one-time codes of the user `name`, as it is stored: sealed, or in clear by a version from
    /// before there was a ledger key.
    ///
    /// # Errors
    /// If another ledger key sealed it.
    pub(super) fn open_totp(&self, name: &str, stored: &[u8]) -> UseCase<Vec<u8>> {
        if stored.len() == TOTP_SECRET_LENGTH {
            return Ok(stored.to_vec());
        }
        let foreign =
            |error| Refusal::System(format!("the one-time codes of {name}: {error}; an administrator can remove them"));
        self.ledger_key.open(&purpose(name), stored).map_err(foreign)
    }

    async fn secrets_of(&self, name: &str) -> UseCase<UserSecrets> {
        let secrets = users::secrets(&self.db, name).await?;
        secrets.ok_or_else(|| Refusal::NotFound(format!("there is no user called {name:?}")))
    }
}

fn purpose(name: &str) -> String {
    format!("one-time codes of {name}")
}

fn wrong_code() -> Refusal {
    Refusal::fault("/code", "is not the code of now, or was used before; wait for the next one")
}
