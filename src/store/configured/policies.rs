//! Policies and all their versions.

use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::policy::Policy;
use crate::store::database::columns::json;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::{POLICIES, POLICY_VERSIONS};
use crate::views::columns::{JsonText, Millis};
use crate::views::policies::PolicyVersionRow;

statements! {
    ALL = "SELECT name, version, document, created_at, updated_at, seal FROM policies ORDER BY name";
    ONE = "SELECT name, version, document, created_at, updated_at FROM policies WHERE name = $1";
    PAGE = "SELECT name, version, document, created_at, updated_at FROM policies
        WHERE name > $1 ORDER BY name LIMIT $2";
    LAST_VERSION = "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) AS version FROM policy_versions WHERE name = $1";
    INSERT = "INSERT INTO policies (name, version, document, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)";
    UPDATE = "UPDATE policies SET version = $3, document = $4, updated_at = $5 WHERE name = $1 AND version = $2";
    DELETE = "DELETE FROM policies WHERE name = $1 AND version = $2";
    INSERT_VERSION = "INSERT INTO policy_versions (name, version, document, changed_at, changed_by, seal)
        VALUES ($1, $2, $3, $4, $5, $6)";
    VERSION = "SELECT version, document, changed_at, changed_by FROM policy_versions WHERE name = $1 AND version = $2";
    VERSIONS = "SELECT version, document, changed_at, changed_by FROM policy_versions
        WHERE name = $1 AND version < $2 ORDER BY version DESC LIMIT $3";
}

/// A policy at its current version.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PolicyRow {
    /// Unique name.
    pub name: String,
    /// Current version, from 1.
    pub version: i64,
    /// The policy's JSON document.
    pub document: JsonText,
    /// Creation time.
    pub created_at: Millis,
    /// Time of the last change.
    pub updated_at: Millis,
}

#[derive(sqlx::FromRow)]
struct Version {
    version: i64,
}

/// All policies, by name.
pub async fn all(db: &Db) -> Result<Vec<PolicyRow>> {
    db.sealed_set(&POLICIES, ALL, Purpose::Force).await
}

/// The policies that use `action`, as this transaction sees them.
pub async fn users(ledger: &mut LedgerTx, action: &str) -> Result<Vec<(String, Value)>> {
    let rows: Vec<PolicyRow> = ledger.tx.all(ALL, vec![]).await?;
    let documents = rows.into_iter().map(|row| Ok((row.name, row.document.read::<Value>()?)));
    let documents: Vec<_> = documents.collect::<Result<_>>()?;
    Ok(documents.into_iter().filter(|(_, document)| document["respond"]["action"] == action).collect())
}

/// The policy called `name`.
pub async fn find(db: &Db, name: &str) -> Result<Option<PolicyRow>> {
    db.optional(ONE, binds![name]).await
}

/// A page of policies, by name, after `after`.
pub async fn list(db: &Db, after: &str, limit: i64) -> Result<Vec<PolicyRow>> {
    db.all(PAGE, binds![after, limit]).await
}

/// A page of a policy's versions, newest first, older than `before`.
pub async fn versions(db: &Db, name: &str, before: Option<i64>, limit: i64) -> Result<Vec<PolicyVersionRow>> {
    db.all(VERSIONS, binds![name, before.unwrap_or(i64::MAX), limit]).await
}

/// One version of a policy.
pub async fn version(db: &Db, name: &str, version: i64) -> Result<Option<PolicyVersionRow>> {
    db.optional(VERSION, binds![name, version]).await
}

/// Creates a policy and returns its version: 1, or one more than its last before deletion.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn create(ledger: &mut LedgerTx, policy: &Policy, by: &Actor, now: Timestamp) -> Result<i64> {
    ledger.makes_stale(Cache::Policies);
    ledger.reseals(&POLICIES, &policy.name).await?;
    let last: Option<Version> = ledger.tx.optional(LAST_VERSION, binds![policy.name.as_str()]).await?;
    let version = last.map_or(0, |last| last.version) + 1;
    let document = json(policy)?;
    ledger.tx.execute(INSERT, binds![policy.name.as_str(), version, document.as_str(), now]).await?;
    keep_version(ledger, &policy.name, version, Some(document), by, now).await?;
    record(ledger, AuditEvent::PolicyCreated, &policy.name, version, by, now);
    Ok(version)
}

/// Replaces a policy whose version is `expected`, and returns the new version.
///
/// # Errors
/// [`StoreError::Conflict`] at another version, [`StoreError::NotFound`] if it does not exist.
pub async fn update(ledger: &mut LedgerTx, policy: &Policy, expected: i64, by: &Actor, now: Timestamp) -> Result<i64> {
    ledger.makes_stale(Cache::Policies);
    ledger.reseals(&POLICIES, &policy.name).await?;
    let (document, version) = (json(policy)?, expected + 1);
    let binds = binds![policy.name.as_str(), expected, version, document.as_str(), now];
    if ledger.tx.execute(UPDATE, binds).await? == 0 {
        return Err(missing_or_changed(ledger, &policy.name).await?);
    }
    keep_version(ledger, &policy.name, version, Some(document), by, now).await?;
    record(ledger, AuditEvent::PolicyUpdated, &policy.name, version, by, now);
    Ok(version)
}

/// Deletes a policy whose version is `expected`.
///
/// # Errors
/// As [`update`].
pub async fn delete(ledger: &mut LedgerTx, name: &str, expected: i64, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Policies);
    ledger.reseals(&POLICIES, name).await?;
    if ledger.tx.execute(DELETE, binds![name, expected]).await? == 0 {
        return Err(missing_or_changed(ledger, name).await?);
    }
    keep_version(ledger, name, expected + 1, None, by, now).await?;
    record(ledger, AuditEvent::PolicyDeleted, name, expected + 1, by, now);
    Ok(())
}

async fn missing_or_changed(ledger: &mut LedgerTx, name: &str) -> Result<StoreError> {
    let there: Option<PolicyRow> = ledger.tx.optional(ONE, binds![name]).await?;
    Ok(if there.is_some() { StoreError::Conflict } else { StoreError::NotFound })
}

async fn keep_version(
    ledger: &mut LedgerTx,
    name: &str,
    version: i64,
    document: Option<String>,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    let mut binds = binds![name, version, document, by];
    binds.push(ledger.seal_of(&POLICY_VERSIONS, &binds.iter().collect::<Vec<_>>()));
    binds.insert(3, now.into());
    ledger.tx.execute(INSERT_VERSION, binds).await?;
    Ok(())
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, name: &str, version: i64, by: &Actor, now: Timestamp) {
    let detail = format!("version {version}");
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id: name.into(), detail });
}
