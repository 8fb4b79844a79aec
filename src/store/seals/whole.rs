//! Seals a ledger as a whole: at its first start with seals, and when an administrator accepts what another
//! program has changed.

use riposte_protocol::time::Timestamp;

use super::known::{Purpose, SealBreach};
use super::read::{SET_STATE, STATE, StateRow};
use super::sets::{ANSWERS, COMMANDS, EFFECTS, LEGAL_HOLDS, POLICY_VERSIONS, RESPONSES, SETS, SealedTable};
use super::value::SealedRow;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::ledger_key::LedgerKey;
use crate::domain::seal::{SealKey, SealState, SealedValue};
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::retention;

statements! {
    LAST = "SELECT CAST(COALESCE(MAX(seq), 0) AS BIGINT) AS seq FROM audit WHERE noun = $1 AND verb = $2";
    WAS_SEALED = "SELECT seq FROM audit WHERE noun = $1 AND noun_id = $2 ORDER BY seq DESC LIMIT 1";
    OPEN_COMMANDS = "SELECT id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments, until,
            created_at, expires_at, seal
        FROM commands WHERE state IN ('queued', 'delivered')";
    SEAL_COMMAND = "UPDATE commands SET seal = $1 WHERE id = $2";
    WANTED_EFFECTS = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, until, seal FROM effects
        WHERE desired = 'in_force'";
    SEAL_EFFECT = "UPDATE effects SET seal = $1 WHERE id = $2";
    OPEN_RESPONSES = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by,
            quorum, answer_by, on_silence, duration_millis, waves, one_shot, seal
        FROM responses WHERE state IN ('awaiting_approval', 'active')";
    SEAL_RESPONSE = "UPDATE responses SET seal = $1 WHERE id = $2";
    OPEN_ANSWERS = "SELECT answers.response_id, answers.principal, answers.answer, answers.seal
        FROM answers JOIN responses ON responses.id = answers.response_id WHERE responses.state = 'awaiting_approval'";
    SEAL_ANSWER = "UPDATE answers SET seal = $1 WHERE response_id = $2 AND principal = $3";
    VERSIONS = "SELECT name, version, document, changed_by, seal FROM policy_versions";
    SEAL_VERSION = "UPDATE policy_versions SET seal = $1 WHERE name = $2 AND version = $3";
}

/// Tables whose rows are sealed one by one, with how they are read and sealed.
static TABLES: [(&SealedTable, &str, &str); 5] = [
    (&COMMANDS, OPEN_COMMANDS, SEAL_COMMAND),
    (&EFFECTS, WANTED_EFFECTS, SEAL_EFFECT),
    (&RESPONSES, OPEN_RESPONSES, SEAL_RESPONSE),
    (&ANSWERS, OPEN_ANSWERS, SEAL_ANSWER),
    (&POLICY_VERSIONS, VERSIONS, SEAL_VERSION),
];
/// What the sealing of all rows is about, in the audit log.
const SEALS: &str = "seals";

#[derive(sqlx::FromRow)]
struct Seq {
    seq: i64,
}

/// Gives the key of the seals to the database. A ledger that was never sealed is sealed as it is; so is one
/// whose changes by other programs an administrator accepts, for the reason `accept`.
///
/// # Errors
/// If the store cannot be read or written.
pub async fn arm(db: &Db, key: &LedgerKey, accept: Option<&str>, now: Timestamp) -> Result<()> {
    let key = || SealKey::new(key).map_err(|error| StoreError::Corrupt(error.to_string()));
    let is_new = !was_sealed(db).await?;
    if !is_new && accept.is_none() {
        db.seals().arm(key()?);
        return fits_log(db, &key()?).await;
    }
    let mut ledger = LedgerTx::begin(db).await?;
    // The entry that says so is the next one.
    let seq = ledger.last_seq() + 1;
    let (rows, version) = seal_all(&mut ledger, &key()?, seq).await?;
    let (event, detail) = match accept {
        Some(why) if !is_new => (AuditEvent::LedgerAccepted, format!("{rows} rows as they are, {why}")),
        _ => (AuditEvent::LedgerSealed, format!("{rows} rows")),
    };
    if event == AuditEvent::LedgerAccepted {
        tracing::warn!("the ledger was sealed as it is ({rows} rows), {}", accept.unwrap_or_default());
    }
    ledger.record(AuditEntry { at: now, actor: Actor::Riposte, event, noun_id: SEALS.to_owned(), detail });
    ledger.commit().await?;
    db.seals().arm(key()?);
    db.seals().forget(version);
    Ok(())
}

/// Whether the ledger was ever sealed. Its audit log says so too, and a log that was cut is found by its
/// checkpoints.
async fn was_sealed(db: &Db) -> Result<bool> {
    if db.optional::<StateRow>(STATE, vec![]).await?.is_some() {
        return Ok(true);
    }
    let sealed: Option<Seq> = db.optional(WAS_SEALED, binds![AuditEvent::LedgerSealed.noun(), SEALS]).await?;
    // Retention may have removed that entry. Only a version that seals removes entries.
    let first = retention::first_entry(db).await?;
    Ok(sealed.is_some_and(|row| row.seq > 0) || first.is_some_and(|first| first > 1))
}

/// What other programs have changed in the ledger that `db` looks at; nothing if it was never sealed.
///
/// # Errors
/// If the store cannot be read.
pub async fn inspect(db: &Db, key: &LedgerKey) -> Result<Vec<SealBreach>> {
    if !was_sealed(db).await? {
        return Ok(Vec::new());
    }
    db.seals().arm(SealKey::new(key).map_err(|error| StoreError::Corrupt(error.to_string()))?);
    fits_log(db, &SealKey::new(key).map_err(|error| StoreError::Corrupt(error.to_string()))?).await?;
    examine(db).await?;
    for (table, read, _) in TABLES {
        db.sealed::<SealedRow>(table, read, vec![]).await?;
    }
    Ok(db.seals().breaches())
}

/// Notes a record of the seals that is older than the last change that the audit log has.
async fn fits_log(db: &Db, key: &SealKey) -> Result<()> {
    let look = db.seals().look(Purpose::Look);
    let stored: Option<StateRow> = db.optional(STATE, vec![]).await?;
    let sealed = stored.as_ref().map(|row| row.state.as_slice());
    let Some(state) = db.seals().state(key, sealed, look) else { return Ok(()) };
    for event in AuditEvent::ALL.iter().filter(|event| event.changes_sealed_row()) {
        let last: Option<Seq> = db.optional(LAST, binds![event.noun(), event.verb()]).await?;
        if last.is_some_and(|last| last.seq > state.seq) {
            db.seals().outdated(state.version + 1);
            return Ok(());
        }
    }
    Ok(())
}

/// Looks at the legal holds, before something is removed by its age.
///
/// # Errors
/// If the store cannot be read.
pub async fn examine_legal_holds(db: &Db) -> Result<()> {
    db.sealed_set::<SealedRow>(&LEGAL_HOLDS, LEGAL_HOLDS.all, Purpose::Look).await?;
    Ok(())
}

/// Looks at every sealed row of every set, and notes what is wrong.
///
/// # Errors
/// If the store cannot be read.
pub async fn examine(db: &Db) -> Result<()> {
    for set in SETS {
        db.sealed_set::<SealedRow>(set, set.all, Purpose::Look).await?;
    }
    Ok(())
}

/// Seals every row. Returns their number, and the version of the new state.
async fn seal_all(ledger: &mut LedgerTx, key: &SealKey, seq: i64) -> Result<(usize, i64)> {
    let (mut state, mut sealed) = (SealState { seq, ..SealState::default() }, 0);
    if let Some(StateRow { state: before }) = ledger.tx.optional(STATE, vec![]).await? {
        // One that another key closed is over: agents and keys are new then.
        state.version = key.open(&before).map_or(0, |before| before.version);
    }
    state.version += 1;
    for set in SETS {
        let digest = state.sets.entry(set.rows.table.to_owned()).or_default();
        for row in ledger.tx.all::<SealedRow>(set.all, vec![]).await? {
            let Some(seal) = row.right_seal(key, &set.rows) else { continue };
            digest.add(key, &seal);
            ledger.tx.execute(set.write, binds![row.name(&set.rows), seal]).await?;
            sealed += 1;
        }
    }
    for (table, read, write) in TABLES {
        for row in ledger.tx.all::<SealedRow>(read, vec![]).await? {
            let Some(seal) = row.right_seal(key, table) else { continue };
            let name = table.id.iter().map(|column| match row.value(column) {
                Some(SealedValue::Int(number)) => Bind::from(*number),
                Some(SealedValue::Text(text)) => Bind::from(text.as_str()),
                _ => Bind::from(None::<i64>),
            });
            let binds = std::iter::once(Bind::from(seal)).chain(name).collect();
            ledger.tx.execute(write, binds).await?;
            sealed += 1;
        }
    }
    let closed = key.close(&state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    ledger.tx.execute(SET_STATE, binds![closed]).await?;
    Ok((sealed, state.version))
}
