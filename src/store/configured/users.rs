//! People: their names, roles, passwords and one-time codes. A row is never deleted, so that a name
//! is never given to another person. Sessions are in [`super::sessions`].

use riposte_protocol::time::Timestamp;

use super::caches::Cache;
use super::scope;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::principal::Role;
use crate::domain::scope::Scope;
use crate::store::database::columns::json;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::USERS;
use crate::views::columns::{JsonText, Millis};
use crate::views::users::UserRow;

statements! {
    ALL = "SELECT name, role, version, must_change_password, totp_secret IS NOT NULL AS has_totp, created_at, created_by,
            changed_at, disabled_at, deleted_at, last_login_at, last_login_from, known_networks, scope, password, totp_secret, seal
        FROM users ORDER BY name";
    PAGE = "SELECT name, role, version, must_change_password, totp_secret IS NOT NULL AS has_totp, created_at, created_by,
            changed_at, disabled_at, deleted_at, last_login_at, last_login_from, scope
        FROM users WHERE name > $1 ORDER BY name LIMIT $2";
    ONE = "SELECT name, role, version, must_change_password, totp_secret IS NOT NULL AS has_totp, created_at, created_by,
            changed_at, disabled_at, deleted_at, last_login_at, last_login_from, scope, password, totp_secret, seal
        FROM users WHERE name = $1";
    SECRETS = "SELECT password, must_change_password, totp_secret, totp_offered, disabled_at, name, role, version, deleted_at, scope, seal
        FROM users WHERE name = $1";
    INSERT = "INSERT INTO users (name, role, version, password, must_change_password, created_at, created_by, changed_at,
            known_networks, scope)
        VALUES ($1, $2, 1, $3, $4, $5, $6, $5, '[]', $7)";
    CHANGE = "UPDATE users SET role = $3, disabled_at = $4, changed_at = $5, scope = $6, version = version + 1
        WHERE name = $1 AND version = $2 AND deleted_at IS NULL";
    DELETE = "UPDATE users SET disabled_at = COALESCE(disabled_at, $2), deleted_at = $2, changed_at = $2, version = version + 1
        WHERE name = $1 AND deleted_at IS NULL";
    CHANGE_PASSWORD = "UPDATE users SET password = $3, must_change_password = FALSE
        WHERE name = $1 AND password = $2 AND disabled_at IS NULL";
    RESET_PASSWORD = "UPDATE users SET password = $2, must_change_password = TRUE, changed_at = $3, version = version + 1
        WHERE name = $1 AND deleted_at IS NULL";
    LOG_IN = "UPDATE users SET last_login_at = $3, last_login_from = $4, known_networks = $5
        WHERE name = $1 AND password = $2 AND must_change_password = FALSE AND disabled_at IS NULL";
    LOG_IN_BY_PROVIDER = "UPDATE users SET last_login_at = $2, last_login_from = $3, known_networks = $4
        WHERE name = $1 AND disabled_at IS NULL";
    SET_ROLE = "UPDATE users SET role = $2, changed_at = $3, version = version + 1 WHERE name = $1 AND deleted_at IS NULL";
    USE_STEP = "UPDATE users SET totp_step = $2 WHERE name = $1 AND (totp_step IS NULL OR totp_step < $2)";
    OFFER_TOTP = "UPDATE users SET totp_offered = $2 WHERE name = $1 AND totp_secret IS NULL";
    CONFIRM_TOTP = "UPDATE users SET totp_secret = totp_offered, totp_offered = NULL, totp_step = $3
        WHERE name = $1 AND totp_offered = $2 AND totp_secret IS NULL";
    REMOVE_TOTP = "UPDATE users SET totp_secret = NULL, totp_offered = NULL WHERE name = $1 AND totp_secret IS NOT NULL";
}

fn limited(scope: Option<&str>) -> String {
    scope.map_or_else(String::new, |scope| format!(", scope {scope}"))
}

/// A person as the manager keeps it in memory.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StoredUser {
    /// The person.
    #[sqlx(flatten)]
    pub user: UserRow,
    /// The networks of the last logins, newest first, as JSON.
    known_networks: JsonText,
}

impl StoredUser {
    /// The networks of the last logins, newest first.
    pub fn known_networks(&self) -> Vec<String> {
        self.known_networks.read().unwrap_or_default()
    }
}

/// What a login is compared with. It has no `Debug`, so that no log line can hold it.
#[derive(sqlx::FromRow)]
pub struct UserSecrets {
    /// Hash of the password, a PHC text.
    pub password: String,
    /// Whether the password is a temporary one.
    pub must_change_password: bool,
    /// Secret of the one-time codes, if they are needed.
    pub totp_secret: Option<Vec<u8>>,
    /// A secret that was shown and not confirmed yet.
    pub totp_offered: Option<Vec<u8>>,
    /// Since when the user is disabled.
    pub disabled_at: Option<Millis>,
}

/// All users, including deleted ones.
pub async fn all(db: &Db) -> Result<Vec<StoredUser>> {
    db.sealed_set(&USERS, ALL, Purpose::Force).await
}

/// A page of users, by name, after `after`.
pub async fn list(db: &Db, after: &str, limit: i64) -> Result<Vec<UserRow>> {
    db.all(PAGE, binds![after, limit]).await
}

/// The user called `name`.
pub async fn find(db: &Db, name: &str) -> Result<Option<UserRow>> {
    db.optional(ONE, binds![name]).await
}

/// What a login of `name` is compared with.
pub async fn secrets(db: &Db, name: &str) -> Result<Option<UserSecrets>> {
    Ok(db.sealed(&USERS.rows, SECRETS, binds![name]).await?.pop())
}

/// Creates a user.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name was ever given.
pub async fn create(
    ledger: &mut LedgerTx,
    name: &str,
    (role, scope): (Role, &Scope),
    (password, is_temporary): (&str, bool),
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    let stored = scope::stored(scope)?;
    let detail = format!("role {}{}", role.as_str(), limited(stored.as_deref()));
    ledger.tx.execute(INSERT, binds![name, role, password, is_temporary, now, by, stored]).await?;
    record(ledger, AuditEvent::UserCreated, name, detail, by, now);
    Ok(())
}

/// A change of a user; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// The role.
    pub role: Option<Role>,
    /// Whether the user is disabled.
    pub is_disabled: Option<bool>,
    /// What the user may do at most.
    pub scope: Option<Scope>,
}

/// Changes the role or the scope of a user at version `expected`, or whether it is disabled.
///
/// # Errors
/// [`StoreError::Conflict`] at another version, [`StoreError::NotFound`] if the user does not exist
/// or is deleted.
pub async fn change(
    ledger: &mut LedgerTx,
    name: &str,
    expected: i64,
    change: UserChange,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    let before: Option<UserRow> = ledger.tx.optional(ONE, binds![name]).await?;
    let before = before.filter(|user| user.deleted_at.is_none()).ok_or(StoreError::NotFound)?;
    let UserChange { role, is_disabled, scope } = change;
    let disabled_at = match is_disabled {
        Some(true) => Some(before.disabled_at.map_or(now, Timestamp::from)),
        Some(false) => None,
        None => before.disabled_at.map(Timestamp::from),
    };
    let after = role.unwrap_or(before.role);
    let scope = scope.unwrap_or_else(|| before.scope.clone());
    let stored = scope::stored(&scope)?;
    if ledger.tx.execute(CHANGE, binds![name, expected, after, disabled_at, now, stored.clone()]).await? == 0 {
        return Err(StoreError::Conflict);
    }
    if scope != before.scope {
        let detail = format!("scope {}", stored.as_deref().unwrap_or("none"));
        record(ledger, AuditEvent::UserChanged, name, detail, by, now);
    }
    if after != before.role {
        let detail = format!("role {} instead of {}", after.as_str(), before.role.as_str());
        record(ledger, AuditEvent::UserChanged, name, detail, by, now);
    }
    match (before.disabled_at.is_some(), disabled_at.is_some()) {
        (false, true) => record(ledger, AuditEvent::UserDisabled, name, String::new(), by, now),
        (true, false) => record(ledger, AuditEvent::UserEnabled, name, String::new(), by, now),
        _ => {}
    }
    Ok(())
}

/// Disables a user for ever.
///
/// # Errors
/// [`StoreError::NotFound`] if the user does not exist or is deleted.
pub async fn delete(ledger: &mut LedgerTx, name: &str, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    if ledger.tx.execute(DELETE, binds![name, now]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, AuditEvent::UserDeleted, name, String::new(), by, now);
    Ok(())
}

/// Replaces a password whose hash is `before`. Returns whether it still was.
pub async fn change_password(
    ledger: &mut LedgerTx,
    name: &str,
    (before, after): (&str, &str),
    address: &str,
    now: Timestamp,
) -> Result<bool> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    if ledger.tx.execute(CHANGE_PASSWORD, binds![name, before, after]).await? == 0 {
        return Ok(false);
    }
    let by = Actor::User(name.to_owned());
    record(ledger, AuditEvent::UserPasswordChanged, name, format!("from {address}"), &by, now);
    Ok(true)
}

/// Sets a temporary password.
///
/// # Errors
/// [`StoreError::NotFound`] if the user does not exist or is deleted.
pub async fn reset_password(
    ledger: &mut LedgerTx,
    name: &str,
    password: &str,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    if ledger.tx.execute(RESET_PASSWORD, binds![name, password, now]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, AuditEvent::UserPasswordReset, name, String::new(), by, now);
    Ok(())
}

/// Records a login of a user whose password has the hash `password`. Returns whether it still has,
/// and the user is enabled.
pub async fn log_in(
    ledger: &mut LedgerTx,
    name: &str,
    password: &str,
    (address, networks): (&str, &[String]),
    now: Timestamp,
) -> Result<bool> {
    ledger.makes_stale(Cache::Users);
    Ok(ledger.tx.execute(LOG_IN, binds![name, password, now, address, json(&networks)?]).await? > 0)
}

/// Records a login that an OpenID provider has proven. Returns whether the user is enabled.
pub async fn log_in_by_provider(
    ledger: &mut LedgerTx,
    name: &str,
    (address, networks): (&str, &[String]),
    now: Timestamp,
) -> Result<bool> {
    ledger.makes_stale(Cache::Users);
    Ok(ledger.tx.execute(LOG_IN_BY_PROVIDER, binds![name, now, address, json(&networks)?]).await? > 0)
}

/// The user called `name`, as this transaction sees it.
pub async fn find_in(ledger: &mut LedgerTx, name: &str) -> Result<Option<UserRow>> {
    Ok(ledger.sealed(&USERS.rows, ONE, binds![name]).await?.pop())
}

/// Sets the role that the groups at an OpenID provider say; `provider` is its name.
pub async fn follow_groups(
    ledger: &mut LedgerTx,
    user: &UserRow,
    role: Role,
    provider: &str,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, &user.name).await?;
    ledger.tx.execute(SET_ROLE, binds![user.name.as_str(), role, now]).await?;
    let detail = format!("role {} instead of {}, by the groups at {provider}", role.as_str(), user.role.as_str());
    record(ledger, AuditEvent::UserChanged, &user.name, detail, &Actor::Riposte, now);
    Ok(())
}

/// Uses the code of a time step. Returns false if that code, or a later one, was used before.
pub async fn use_step(ledger: &mut LedgerTx, name: &str, step: i64) -> Result<bool> {
    Ok(ledger.tx.execute(USE_STEP, binds![name, step]).await? > 0)
}

/// Keeps a secret until its first code confirms it. Returns false if codes are needed already.
pub async fn offer_totp(ledger: &mut LedgerTx, name: &str, secret: &[u8]) -> Result<bool> {
    Ok(ledger.tx.execute(OFFER_TOTP, binds![name, secret.to_vec()]).await? > 0)
}

/// Makes the kept secret the one whose codes are needed, with `step` as the first used one. Returns
/// false if another one is kept.
pub async fn confirm_totp(
    ledger: &mut LedgerTx,
    name: &str,
    (secret, step): (&[u8], i64),
    by: &Actor,
    now: Timestamp,
) -> Result<bool> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    if ledger.tx.execute(CONFIRM_TOTP, binds![name, secret.to_vec(), step]).await? == 0 {
        return Ok(false);
    }
    record(ledger, AuditEvent::UserTotpAdded, name, String::new(), by, now);
    Ok(true)
}

/// Ends the need of one-time codes. Returns false if there was none.
pub async fn remove_totp(ledger: &mut LedgerTx, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
    ledger.makes_stale(Cache::Users);
    ledger.reseals(&USERS, name).await?;
    if ledger.tx.execute(REMOVE_TOTP, binds![name]).await? == 0 {
        return Ok(false);
    }
    record(ledger, AuditEvent::UserTotpRemoved, name, String::new(), by, now);
    Ok(true)
}

/// Records something about a user that changes no row.
pub fn record(ledger: &mut LedgerTx, event: AuditEvent, name: &str, detail: String, by: &Actor, now: Timestamp) {
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id: name.to_owned(), detail });
}
