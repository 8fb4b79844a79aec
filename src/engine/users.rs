//! Changes of people by administrators. Each is in force when it is answered: a disabled user's
//! sessions and keys stop at once.

use std::sync::Arc;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use super::scopes::check_admin;
use super::secrets::new_secret;
use crate::domain::actor::Actor;
use crate::domain::forgotten::PSEUDONYM_PREFIX;
use crate::domain::principal::Role;
use crate::domain::user::{is_user_name, password_fault};
use crate::store::StoreError;
use crate::store::configured::caches::Cache;
use crate::store::configured::users::UserChange;
use crate::store::configured::{identities, sessions, users};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;
use crate::views::users::{ChangeUser, CreateUser};

/// Length of a temporary password: 120 random bits.
const TEMPORARY_LENGTH: usize = 20;

impl Engine {
    /// Creates a user, once for each idempotency key. Returns the generated password; `None` if the
    /// request has one, or is repeated.
    ///
    /// # Errors
    /// Faults of what is asked, or a name that was ever given.
    pub async fn create_user(
        self: &Arc<Self>,
        asked: CreateUser,
        once: Option<Once>,
        by: &Actor,
    ) -> UseCase<Option<String>> {
        let CreateUser { name, role, password, scope } = asked;
        // The store must not hold a plain hash of a password, which could be guessed.
        let once = once.map(|once| match password {
            Some(_) => {
                let scope = scope.as_ref().map(ToString::to_string).unwrap_or_default();
                Once { fingerprint: format!("user {name} {} {scope}", role.as_str()).into_bytes(), ..once }
            }
            None => once,
        });
        let request = IdempotentRequest::find(&self.db, once).await?;
        if request.answered().is_some() {
            self.refresh(Cache::Users).await?;
            return Ok(None);
        }
        if !is_user_name(&name) {
            let why = "must be 1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or a digit";
            return Err(Refusal::fault("/name", why));
        }
        if name.starts_with(PSEUDONYM_PREFIX) {
            let why =
                format!("must not begin with {PSEUDONYM_PREFIX}: so begin the pseudonyms of people who were forgotten");
            return Err(Refusal::fault("/name", why));
        }
        check_role(Some(role))?;
        let scope = self.read_scope(scope.as_ref(), role)?.unwrap_or_default();
        if let Some(fault) = password.as_deref().and_then(|password| password_fault("/password", password, &name)) {
            return Err(Refusal::Invalid(vec![fault]));
        }
        let temporary = if password.is_none() { Some(temporary_password()?) } else { None };
        let password = password.or_else(|| temporary.clone()).unwrap_or_default();
        let given = |name: &str| {
            Refusal::Conflict(format!(
                "the name {name} was given before; a name is never given to another person, also after its deletion"
            ))
        };
        if self.was_forgotten(&name)? {
            return Err(given(&name));
        }
        let hash = self.passwords.hash(password).await?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let created = users::create(&mut ledger, &name, (role, &scope), (&hash, temporary.is_some()), by, now).await;
        created.map_err(|error| match error {
            StoreError::Duplicate => given(&name),
            other => other.into(),
        })?;
        request.keep(&mut ledger, 201, &name, now).await?;
        self.commit_and_refresh(ledger).await?;
        Ok(temporary)
    }

    /// Changes the user `name`, who must be at `version`.
    ///
    /// # Errors
    /// No such user, or another version.
    pub async fn change_user(
        self: &Arc<Self>,
        name: &str,
        version: i64,
        change: ChangeUser,
        by: &Actor,
    ) -> UseCase<()> {
        let ChangeUser { role, is_disabled, scope } = change;
        check_role(role)?;
        let users = self.users.load();
        let own = users.get(name).map(|stored| &stored.user);
        let scope = match own {
            // Without such a user, the change below says so.
            None => None,
            Some(own) => {
                let role = role.unwrap_or(own.role);
                let scope = self.read_scope(scope.as_ref(), role)?;
                check_admin(role, scope.as_ref().unwrap_or(&own.scope))?;
                scope
            }
        };
        if is_disabled == Some(true) {
            check_other(name, by)?;
        }
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        if role.is_some()
            && let Some(issuer) = identities::role_source(&mut ledger, name).await?
        {
            return Err(Refusal::Conflict(format!(
                "the role of {name} follows the groups at {issuer} and is set at each login there: change the groups, or \
                 unlink the user first (`riposte user unlink`)"
            )));
        }
        let changed = users::change(&mut ledger, name, version, UserChange { role, is_disabled, scope }, by, now).await;
        changed.map_err(|error| match error {
            StoreError::Conflict => {
                Refusal::Changed(format!("user {name} has another version than If-Match states; read it again"))
            }
            other => missing(other, name),
        })?;
        if is_disabled == Some(true) {
            sessions::end_all(&mut ledger, name, now).await?;
        }
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Disables the user `name` for ever.
    ///
    /// # Errors
    /// No such user, or the caller's own.
    pub async fn delete_user(self: &Arc<Self>, name: &str, by: &Actor) -> UseCase<()> {
        check_other(name, by)?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        users::delete(&mut ledger, name, by, now).await.map_err(|error| missing(error, name))?;
        sessions::end_all(&mut ledger, name, now).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Sets a temporary password, ends all sessions and the lock-outs of the user; with
    /// `remove_totp`, one-time codes are needed no more.
    ///
    /// # Errors
    /// No such user.
    pub async fn reset_password(self: &Arc<Self>, name: &str, remove_totp: bool, by: &Actor) -> UseCase<String> {
        let password = temporary_password()?;
        let hash = self.passwords.hash(password.clone()).await?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let reset = users::reset_password(&mut ledger, name, &hash, by, now).await;
        reset.map_err(|error| missing(error, name))?;
        if remove_totp {
            users::remove_totp(&mut ledger, name, by, now).await?;
        }
        sessions::end_all(&mut ledger, name, now).await?;
        self.commit_and_refresh(ledger).await?;
        self.lockouts.forget(name);
        Ok(password)
    }
}

fn check_role(role: Option<Role>) -> UseCase<()> {
    if role == Some(Role::Ingest) {
        return Err(Refusal::fault(
            "/role",
            "must be viewer, analyst, engineer or admin: ingest is for keys of pipelines",
        ));
    }
    Ok(())
}

/// An administrator who disables the own user would have no way back in.
fn check_other(name: &str, by: &Actor) -> UseCase<()> {
    if matches!(by.plain(), Actor::User(own) if own == name) {
        let why = "a person cannot disable or delete the own user: ask another administrator";
        return Err(Refusal::Conflict(why.to_owned()));
    }
    Ok(())
}

pub(super) fn missing(error: StoreError, name: &str) -> Refusal {
    match error {
        StoreError::NotFound => Refusal::NotFound(format!("there is no user called {name:?}, or it is deleted")),
        other => other.into(),
    }
}

fn temporary_password() -> UseCase<String> {
    let mut password = new_secret()?;
    password.truncate(TEMPORARY_LENGTH);
    Ok(password)
}
