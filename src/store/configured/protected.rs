//! Protected entries, and the holds that conflict with them.

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::Until;
use crate::domain::protected::{Covered, ProtectedEntry, ProtectedSet};
use crate::domain::response::Hold;
use crate::store::database::columns::{id, json};
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::PROTECTED;
use crate::views::protected::ProtectedRow;
use crate::views::words::UnknownWord;

statements! {
    ALL = "SELECT id, kind, value, policies, reason, expires_at, created_at, created_by, seal FROM protected_entries ORDER BY id";
    PAGE = "SELECT id, kind, value, policies, reason, expires_at, created_at, created_by FROM protected_entries
        WHERE id > $1 ORDER BY id LIMIT $2";
    ONE = "SELECT id, kind, value, policies, reason, expires_at, created_at, created_by FROM protected_entries WHERE id = $1";
    INSERT = "INSERT INTO protected_entries (id, kind, value, policies, reason, expires_at, created_at, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    DELETE = "DELETE FROM protected_entries WHERE id = $1";
    HELD = "SELECT holds.response_id, holds.effect_id, effects.agent_id, effects.target_kind, effects.target_value,
            responses.policy
        FROM holds JOIN effects ON effects.id = holds.effect_id JOIN responses ON responses.id = holds.response_id
        WHERE holds.released_at IS NULL AND (holds.response_id > $1 OR (holds.response_id = $1 AND holds.effect_id > $2))
        ORDER BY holds.response_id, holds.effect_id LIMIT $3";
}

/// Holds read per query.
const BATCH: i64 = 1000;

impl TryFrom<ProtectedRow> for ProtectedEntry {
    type Error = StoreError;

    fn try_from(row: ProtectedRow) -> Result<Self> {
        let corrupt = || StoreError::Corrupt(format!("protected entry {}", row.id));
        let covered = match row.kind.as_str() {
            "ip" => Covered::network(&row.value).map_err(|_| corrupt())?,
            "user" => Covered::user(&row.value).map_err(|_| corrupt())?,
            "file" => Covered::file(&row.value).map_err(|_| corrupt())?,
            "process" => Covered::process(&row.value).map_err(|_| corrupt())?,
            "host" => Covered::Host(id(&row.value)?),
            "agent" => Covered::Agent(id(&row.value)?),
            word => {
                let (table, column, word) = ("protected_entries", "kind", word.to_owned());
                return Err(UnknownWord { table, column, word }.into());
            }
        };
        let until = Until::from(row.expires_at.map(Timestamp::from));
        Ok(Self { id: id(&row.id)?, covered, policies: row.policies.read()?, until, reason: row.reason })
    }
}

/// All entries.
pub async fn all(db: &Db) -> Result<Vec<ProtectedEntry>> {
    db.sealed_set::<ProtectedRow>(&PROTECTED, ALL, Purpose::Look)
        .await?
        .into_iter()
        .map(ProtectedEntry::try_from)
        .collect()
}

/// As [`all`], for the caller that puts them into force.
pub async fn all_for_force(db: &Db) -> Result<Vec<ProtectedEntry>> {
    db.sealed_set::<ProtectedRow>(&PROTECTED, ALL, Purpose::Force)
        .await?
        .into_iter()
        .map(ProtectedEntry::try_from)
        .collect()
}

/// A page of entries, oldest first, after `after`.
pub async fn list(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<ProtectedRow>> {
    db.all(PAGE, binds![after.unwrap_or(Uuid::nil()), limit]).await
}

/// The entry of that id.
pub async fn find(db: &Db, entry: Uuid) -> Result<Option<ProtectedRow>> {
    db.optional(ONE, binds![entry]).await
}

/// Creates an entry.
pub async fn create(ledger: &mut LedgerTx, entry: &ProtectedEntry, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Protected);
    let ProtectedEntry { id, covered, policies, until, reason } = entry;
    let (kind, value, policies) = (covered.kind(), covered.value(), json(policies)?);
    let detail = format!("{kind} {value}, policies {policies}: {reason}");
    let binds = binds![*id, kind, value, policies, reason.as_str(), until.instant(), now, by];
    ledger.reseals(&PROTECTED, &id.to_string()).await?;
    ledger.tx.execute(INSERT, binds).await?;
    let (event, noun_id) = (AuditEvent::ProtectedCreated, id.to_string());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}

/// Deletes an entry.
///
/// # Errors
/// [`StoreError::NotFound`] if it does not exist.
pub async fn delete(ledger: &mut LedgerTx, entry: Uuid, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Protected);
    ledger.reseals(&PROTECTED, &entry.to_string()).await?;
    if ledger.tx.execute(DELETE, binds![entry]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let (event, noun_id, detail) = (AuditEvent::ProtectedDeleted, entry.to_string(), String::new());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    response_id: String,
    effect_id: String,
    agent_id: String,
    target_kind: String,
    target_value: String,
    policy: Option<String>,
}

/// Every hold on a target in `set`; memory is bounded apart from the result.
pub async fn against(db: &Db, set: &ProtectedSet, now: Timestamp) -> Result<Vec<Hold>> {
    let (mut found, mut last) = (Vec::new(), (Uuid::nil().to_string(), Uuid::nil().to_string()));
    loop {
        let rows: Vec<HeldRow> = db.all(HELD, binds![last.0.as_str(), last.1.as_str(), BATCH]).await?;
        let Some(end) = rows.last() else { return Ok(found) };
        last = (end.response_id.clone(), end.effect_id.clone());
        for row in rows {
            let policy = row.policy.as_deref();
            // A kind that is unreadable must not keep other holds from being lifted; the agent counts all the same.
            let kind = TargetKind::parse(&row.target_kind);
            let target = kind.and_then(|kind| Target::named(kind, &row.target_value).ok());
            let stopped = set.agent(id(&row.agent_id)?, kind.unwrap_or(TargetKind::None), policy, now).is_some()
                || target.is_some_and(|target| set.target(&target, policy, now).is_some());
            if stopped {
                found.push(Hold { response_id: id(&row.response_id)?, effect_id: id(&row.effect_id)? });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn finding_conflicting_holds_does_not_read_released_ones() {
        let plan = plan(HELD).await;
        assert!(plan.iter().any(|step| step.contains("holds_live (response_id>?)")), "{plan:?}");
        assert!(plan.iter().all(|step| step.starts_with("SEARCH ")), "{plan:?}");
    }
}
