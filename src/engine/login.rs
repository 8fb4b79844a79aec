//! Logins: a password, and a one-time code where it is needed, become a session. An attempt that
//! fails costs the same time and gets the same words, whether the user exists, is disabled, or is
//! locked after too many failures.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use super::lockouts::Attempt;
use super::refusal::{Refusal, UseCase};
use super::secrets::{hash_secret, new_secret};
use crate::domain::id::new_id;
use crate::domain::principal::rights;
use crate::domain::refresh_token::{IDLE, LONGEST_SESSION, format_refresh, parse_refresh};
use crate::domain::scope::Scopes;
use crate::domain::totp::matching_step;
use crate::domain::user::{is_user_name, password_fault};
use crate::store::configured::sessions::{self, Refreshed};
use crate::store::configured::users::{self, StoredUser, UserSecrets};
use crate::store::ledger::audit::LedgerTx;

/// Networks of a user's last logins that are remembered.
const KNOWN_NETWORKS: usize = 16;

/// What a person proves the identity with.
pub struct Login {
    /// Login name.
    pub username: String,
    /// Password.
    pub password: String,
    /// One-time code, if one is given.
    pub totp: Option<String>,
}

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug)]
pub struct LoginOrigin {
    /// Client address.
    pub address: IpAddr,
    /// The network that counts as one address.
    pub network: IpAddr,
}

/// The tokens of a session.
pub struct Tokens {
    /// Access token.
    pub access: String,
    /// Its validity, in seconds.
    pub expires_in: u64,
    /// Refresh token.
    pub refresh: String,
    /// Until when the refresh token is valid.
    pub refresh_expires_at: Timestamp,
    /// The user's rights, separated by spaces.
    pub rights: String,
    /// The user's name.
    pub user: String,
}

/// A verified attempt.
struct Proof {
    attempt: Attempt,
    stored: UserSecrets,
    /// The time step of the one-time code, which is used up with the login.
    step: Option<i64>,
}

impl Engine {
    /// Begins a session.
    ///
    /// # Errors
    /// [`Refusal::Credentials`], [`Refusal::TotpRequired`] or [`Refusal::PasswordChangeRequired`];
    /// [`Refusal::TooMany`] if the address has failed too often.
    pub async fn log_in(self: &Arc<Self>, login: Login, origin: LoginOrigin) -> UseCase<Tokens> {
        self.log_in_for(login, origin, LONGEST_SESSION).await
    }

    /// Begins a session that ends after `lifetime`, however often it is refreshed.
    ///
    /// # Errors
    /// As [`Engine::log_in`].
    pub async fn log_in_for(
        self: &Arc<Self>,
        login: Login,
        origin: LoginOrigin,
        lifetime: Duration,
    ) -> UseCase<Tokens> {
        let name = login.username.clone();
        let Proof { attempt, stored, step } = self.prove(login, origin).await?;
        if stored.must_change_password {
            return Err(Refusal::PasswordChangeRequired);
        }
        let (now, secret, address) = (self.clock.now(), new_secret()?, origin.address.to_string());
        let session = new_id(now);
        let networks = self.networks_with(&name, origin.network);
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let is_first_use = self.use_step(&mut ledger, &name, step).await?;
        if !is_first_use || !users::log_in(&mut ledger, &name, &stored.password, (&address, &networks), now).await? {
            return Err(self.failed(&attempt, origin));
        }
        let times = (now, now.plus(lifetime));
        let hash = hash_secret(&secret);
        let until = sessions::begin(&mut ledger, session, (&name, None), &hash, &address, times).await?;
        self.commit_and_refresh(ledger).await?;
        self.lockouts.succeed(&attempt);
        self.tokens(&name, session, &secret, until, now)
    }

    /// Continues a session with its refresh token.
    ///
    /// # Errors
    /// [`Refusal::Credentials`] if the token is not valid, [`Refusal::Conflict`] if another command
    /// has just used it.
    pub async fn refresh_session(self: &Arc<Self>, token: &str, origin: LoginOrigin) -> UseCase<Tokens> {
        let ended = || Refusal::Credentials("the refresh token is not valid, or the session has ended: log in again");
        let (session, secret) = parse_refresh(token).ok_or_else(ended)?;
        let (now, next, address) = (self.clock.now(), new_secret()?, origin.address.to_string());
        let hashes = (hash_secret(secret), hash_secret(&next));
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let refreshed = sessions::refresh(&mut ledger, session, (&hashes.0, &hashes.1), &address, now).await?;
        self.commit_and_refresh(ledger).await?;
        match refreshed {
            Refreshed::Continued(user, until) => self.tokens(&user, session, &next, until, now),
            Refreshed::Parallel => {
                let why =
                    "already refreshed: another command has just used this refresh token; use the tokens that it got";
                Err(Refusal::Conflict(why.to_owned()))
            }
            Refreshed::Reused => {
                tracing::warn!(%session, address, "a refresh token was used twice: session {session} has ended");
                Err(ended())
            }
            Refreshed::Unknown => Err(ended()),
        }
    }

    /// Ends a session. After a login at an OpenID provider it returns where the person ends the
    /// session there, if the provider has such a place.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn log_out(self: &Arc<Self>, user: &str, session: Uuid) -> UseCase<Option<String>> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let issuer = sessions::end(&mut ledger, session, user, self.clock.now()).await?;
        self.commit_and_refresh(ledger).await?;
        match issuer.and_then(|issuer| self.providers.of_issuer(&issuer)) {
            Some(provider) => Ok(provider.end_session_url().await),
            None => Ok(None),
        }
    }

    /// Changes one's own password, also a temporary one. All sessions end.
    ///
    /// # Errors
    /// As [`Engine::log_in`], and faults of the new password.
    pub async fn change_password(self: &Arc<Self>, login: Login, new: String, origin: LoginOrigin) -> UseCase<()> {
        let name = login.username.clone();
        if new == login.password {
            return Err(Refusal::fault("/new_password", "must be another password than the current one"));
        }
        if let Some(fault) = password_fault("/new_password", &new, &name) {
            return Err(Refusal::Invalid(vec![fault]));
        }
        let Proof { attempt, stored, step } = self.prove(login, origin).await?;
        let hash = self.passwords.hash(new).await?;
        let (now, address) = (self.clock.now(), origin.address.to_string());
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let is_first_use = self.use_step(&mut ledger, &name, step).await?;
        let passwords = (stored.password.as_str(), hash.as_str());
        if !is_first_use || !users::change_password(&mut ledger, &name, passwords, &address, now).await? {
            return Err(self.failed(&attempt, origin));
        }
        sessions::end_all(&mut ledger, &name, now).await?;
        self.commit_and_refresh(ledger).await?;
        self.lockouts.succeed(&attempt);
        Ok(())
    }

    /// Verifies a password and a one-time code. Nothing is changed, so the code is not used up yet.
    async fn prove(&self, login: Login, origin: LoginOrigin) -> UseCase<Proof> {
        let now = self.clock.now();
        if let Some(wait) = self.lockouts.address(origin.network, now) {
            let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return Err(Refusal::TooMany("too many failed logins from this address", secs));
        }
        let Login { username, password, totp } = login;
        let user = self.users.load().get(&username).cloned();
        let is_known = user.as_ref().is_some_and(|user| is_known(user, origin.network));
        let attempt = Attempt { name: limited(&username), exists: user.is_some(), network: origin.network, is_known };
        // The same reads and the same hash for a user who does not exist, is disabled or locked.
        let stored = users::secrets(&self.db, &username).await?;
        let is_locked = self.lockouts.is_locked(&attempt, now);
        let stored = stored.filter(|stored| stored.disabled_at.is_none() && !is_locked);
        let is_right = self.passwords.verify(password, stored.as_ref().map(|stored| stored.password.clone())).await?;
        // Others that ran at the same time may have locked the user meanwhile: no burst gets more guesses.
        let is_right = is_right && !self.lockouts.is_locked(&attempt, self.clock.now());
        let Some(stored) = stored.filter(|_| is_right) else { return Err(self.failed(&attempt, origin)) };
        let Some(secret) = &stored.totp_secret else { return Ok(Proof { attempt, stored, step: None }) };
        let Some(code) = totp.filter(|code| !code.trim().is_empty()) else { return Err(Refusal::TotpRequired) };
        match matching_step(&self.open_totp(&attempt.name, secret)?, &code, self.clock.now()) {
            Some(step) => Ok(Proof { attempt, stored, step: Some(step) }),
            None => Err(self.failed(&attempt, origin)),
        }
    }

    /// Uses up the code of a time step; false if it was used before.
    async fn use_step(&self, ledger: &mut LedgerTx, name: &str, step: Option<i64>) -> UseCase<bool> {
        match step {
            Some(step) => Ok(users::use_step(ledger, name, step).await?),
            None => Ok(true),
        }
    }

    /// Counts a failed attempt and returns the one refusal for all of them.
    fn failed(&self, attempt: &Attempt, origin: LoginOrigin) -> Refusal {
        self.metrics.unauthenticated.inc();
        let is_locked = self.lockouts.fail(attempt, self.clock.now());
        // The name of a deleted user is not written down again: the person may be about to be forgotten.
        let users = self.users.load();
        let named = users.get(&attempt.name).filter(|stored| stored.user.deleted_at.is_none());
        self.failed_logins.note(named.map(|stored| stored.user.name.as_str()), origin.address, is_locked);
        Refusal::Credentials(
            "the name, the password or the one-time code is wrong, the user is disabled, or too many logins have \
             failed: then wait up to 15 minutes",
        )
    }

    /// The networks of the user's last logins, with this one first.
    pub(super) fn networks_with(&self, name: &str, network: IpAddr) -> Vec<String> {
        let mut networks = vec![network.to_string()];
        let users = self.users.load();
        let known = users.get(name).map(StoredUser::known_networks).unwrap_or_default();
        networks.extend(known.into_iter().filter(|known| *known != network.to_string()));
        networks.truncate(KNOWN_NETWORKS);
        networks
    }

    /// The tokens of a session that has begun or continues.
    pub(super) fn tokens(
        &self,
        user: &str,
        session: Uuid,
        secret: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> UseCase<Tokens> {
        let users = self.users.load();
        let own = users.get(user).map(|user| &user.user);
        let own = own.ok_or_else(|| Refusal::System(format!("user {user} is not in memory")))?;
        let rights = rights(own.role, &Scopes::of([own.scope.clone()])).join(" ");
        let (access, expires_in) = self.access_tokens.issue(user, &rights, session, until, now)?;
        let (refresh, refresh_expires_at) = (format_refresh(session, secret), now.plus(IDLE).min(until));
        Ok(Tokens { access, expires_in, refresh, refresh_expires_at, rights, user: user.to_owned() })
    }
}

fn is_known(user: &StoredUser, network: IpAddr) -> bool {
    user.known_networks().contains(&network.to_string())
}

/// The name as a counter has it. A text that cannot be a name is short there, because a request may
/// hold many.
fn limited(name: &str) -> String {
    if is_user_name(name) { name.to_owned() } else { name.chars().take(64).collect() }
}
