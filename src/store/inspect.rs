//! Looking at a store as a whole: whether what it holds agrees with itself, whether its file is whole, and a copy of it
//! while it is written. Nothing here changes anything.

use std::path::Path;
use std::str::FromStr as _;

use riposte_protocol::time::Timestamp;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::audit;
use super::db::{Db, Result, StoreError, binds, statements};
use super::settle::ANSWER_TIMEOUT;

statements! {
    HOLDS_NOTHING = "SELECT id FROM responses WHERE state = 'active'
        AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.response_id = responses.id AND released_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM waves WHERE waves.response_id = responses.id) AND agents <> '[]' LIMIT $1";
    STILL_HOLDS = "SELECT responses.id FROM responses JOIN holds ON holds.response_id = responses.id
        WHERE responses.state <> 'active' AND holds.released_at IS NULL LIMIT $1";
    NOT_HELD = "SELECT id FROM effects WHERE desired = 'in_force'
        AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.effect_id = effects.id AND released_at IS NULL) LIMIT $1";
    HELD_UNWANTED = "SELECT effects.id FROM effects JOIN holds ON holds.effect_id = effects.id
        JOIN responses ON responses.id = holds.response_id
        WHERE effects.desired = 'absent' AND holds.released_at IS NULL AND responses.one_shot = FALSE LIMIT $1";
    WRONG_END = "SELECT id FROM effects WHERE desired = 'in_force' AND COALESCE(until, 9223372036854775807) <> (
        SELECT MAX(COALESCE(until, 9223372036854775807)) FROM holds
        WHERE holds.effect_id = effects.id AND released_at IS NULL) LIMIT $1";
    NUMBERED_AHEAD = "SELECT commands.id FROM commands JOIN agents ON agents.id = commands.agent_id
        WHERE commands.seq > agents.last_seq LIMIT $1";
    NOT_EXPIRED = "SELECT id FROM commands WHERE state IN ('queued', 'delivered') AND expires_at <= $2
        AND (lease_until IS NULL OR lease_until <= $2) LIMIT $1";
    NOT_TIMED_OUT = "SELECT id FROM commands WHERE state = 'acknowledged' AND acknowledged_at <= $2 LIMIT $1";
    NOT_ENDED = "SELECT id FROM responses WHERE state = 'active' AND until <= $2 LIMIT $1";
    NOT_CLOSED = "SELECT id FROM responses WHERE (state = 'awaiting_approval' AND answer_by <= $2)
        OR (state = 'active' AND confirm_by <= $2) LIMIT $1";
    NO_RESULT = "SELECT id FROM commands WHERE state IN ('succeeded', 'failed', 'refused')
        AND NOT EXISTS (SELECT 1 FROM results WHERE results.command_id = commands.id) LIMIT $1";
    STRAY_RESULT = "SELECT results.command_id AS id FROM results JOIN commands ON commands.id = results.command_id
        WHERE commands.state IN ('queued', 'delivered', 'acknowledged') LIMIT $1";
    LOST_ALERT = "SELECT id FROM responses WHERE state IN ('active', 'awaiting_approval') AND alert_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.id = responses.alert_id) LIMIT $1";
    CANNOT_LIFT = "SELECT id FROM effects WHERE desired = 'absent' AND failed_reverts > 0 LIMIT $1";
    CLONED = "SELECT id FROM agents WHERE incident IS NOT NULL AND revoked_at IS NULL LIMIT $1";
}

/// Examples of one finding.
const EXAMPLES: i64 = 20;
/// How late a deadline's owner may be before it counts as one that nobody keeps.
const LATE: std::time::Duration = std::time::Duration::from_mins(2);

/// Something that should not be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `violation`: the ledger contradicts itself, or a deadline has no owner. `incident`: it is right, and somebody has to act.
    pub level: &'static str,
    /// What, in one sentence.
    pub what: &'static str,
    /// Where, the first twenty.
    pub examples: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

/// Everything that is not as it should be; empty means healthy.
///
/// # Errors
/// If the store cannot be read.
pub async fn examine(db: &Db, now: Timestamp) -> Result<Vec<Finding>> {
    let late = now.minus(LATE);
    let unanswered = late.minus(ANSWER_TIMEOUT);
    let rules: [(&str, &str, &str, Option<Timestamp>); 15] = [
        ("violation", "an active response holds nothing and has no wave to come", HOLDS_NOTHING, None),
        ("violation", "a response that is over still holds an effect", STILL_HOLDS, None),
        ("violation", "an effect is wanted in force and no response holds it", NOT_HELD, None),
        ("violation", "an effect is held and not wanted in force", HELD_UNWANTED, None),
        ("violation", "an effect does not end when its longest hold does", WRONG_END, None),
        ("violation", "a command has a number that its agent has not come to", NUMBERED_AHEAD, None),
        ("violation", "a command is owed long after it expired", NOT_EXPIRED, Some(late)),
        (
            "violation",
            "a command was acknowledged long ago and neither answered nor given up",
            NOT_TIMED_OUT,
            Some(unanswered),
        ),
        ("violation", "a response is active long after its end", NOT_ENDED, Some(late)),
        ("violation", "a response waits for people long after it should", NOT_CLOSED, Some(late)),
        ("violation", "a command has ended by a result that is not there", NO_RESULT, None),
        ("violation", "a result is there for a command that is still under way", STRAY_RESULT, None),
        ("violation", "a live response refers to an alert that is gone", LOST_ALERT, None),
        ("incident", "an effect cannot be lifted; it is tried again and again", CANNOT_LIFT, None),
        ("incident", "two hosts speak with one agent's identity", CLONED, None),
    ];
    let mut findings = Vec::new();
    for (level, what, sql, at) in rules {
        let binds = at.map_or_else(|| binds![EXAMPLES], |at| binds![EXAMPLES, at]);
        let rows: Vec<Id> = db.all(sql, binds).await?;
        if !rows.is_empty() {
            findings.push(Finding { level, what, examples: rows.into_iter().map(|row| row.id).collect() });
        }
    }
    let proof = audit::verify(db).await?;
    if let Some(at) = proof.broken_at {
        let what = "the audit log was edited, or is not whole";
        findings.push(Finding { level: "violation", what, examples: vec![format!("entry {at}")] });
    }
    if let Some(damage) = db.damage().await? {
        let what = "the database file is damaged; restore a backup";
        findings.push(Finding { level: "violation", what, examples: vec![damage] });
    }
    Ok(findings)
}

/// Copies the SQLite file `from` to `to`, whole and consistent, while others write it.
///
/// # Errors
/// If it cannot be read, or `to` is there already or cannot be written.
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut connection = open(from).await?;
    let to = to.to_str().ok_or_else(|| StoreError::Address("the path of the copy is not UTF-8".into()))?;
    sqlx::query("VACUUM INTO $1").bind(to).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// What is wrong with the SQLite file at `path`; `None` if it is whole.
///
/// # Errors
/// If it cannot be opened.
pub async fn damage(path: &Path) -> Result<Option<String>> {
    let mut connection = open(path).await?;
    let said: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok((said != "ok").then_some(said))
}

async fn open(path: &Path) -> Result<SqliteConnection> {
    let url = format!("sqlite:{}", path.display());
    Ok(SqliteConnectOptions::from_str(&url)?.read_only(true).connect().await?)
}
