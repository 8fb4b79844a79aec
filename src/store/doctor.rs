//! Consistency checks of a whole store, the check of its file, and an online backup. Nothing here
//! changes the ledger.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use uuid::Uuid;

use crate::domain::action::hidden;
use crate::domain::agent::{Agent, reason_words};
use crate::domain::alert::AlertAgent;
use crate::domain::duplicates;
use crate::domain::fleet::SEE_DOCTOR;
use crate::domain::formats::{self, AlertMappings};
use crate::domain::settlement::ANSWER_TIMEOUT;
use crate::store::configured::{agents, policies};
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::resync::REJECTS_FOR;
use crate::store::ledger::story::{self, escape};
use crate::store::ledger::{alerts, checkpoints};
use crate::store::seals::known::SealBreach;

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
    LOST_UNDO = "SELECT effects.id FROM effects JOIN agents ON agents.id = effects.agent_id AND revoked_at IS NULL
        WHERE desired = 'absent' AND actual IN ('in_force', 'drifted') AND next_revert_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM commands WHERE commands.effect_id = effects.id AND op = 'revert'
                AND state IN ('queued', 'delivered', 'acknowledged')) LIMIT $1";
    WAITS_FOR_NOTHING = "SELECT id FROM responses WHERE state = 'active' AND one_shot = TRUE
        AND NOT EXISTS (SELECT 1 FROM waves WHERE waves.response_id = responses.id)
        AND NOT EXISTS (SELECT 1 FROM commands WHERE commands.response_id = responses.id
            AND state IN ('queued', 'delivered', 'acknowledged')) LIMIT $1";
    OWED_TO_REVOKED = "SELECT commands.id FROM commands JOIN agents ON agents.id = commands.agent_id
        WHERE commands.state IN ('queued', 'delivered') AND revoked_at IS NOT NULL LIMIT $1";
    NOT_SENT = "SELECT waves.response_id AS id FROM waves WHERE due_at <= $2 LIMIT $1";
    NOT_RETRIED = "SELECT id FROM effects WHERE desired = 'absent' AND next_revert_at <= $2 LIMIT $1";
    STILL_BLOCKED = "SELECT commands.id FROM commands JOIN effects ON effects.id = commands.effect_id
        WHERE op = 'revert' AND state IN ('queued', 'delivered') AND commands.created_at <= $2 AND actual <> 'absent'
        LIMIT $1";
    CANNOT_LIFT = "SELECT id FROM effects WHERE desired = 'absent' AND failed_reverts > 0 LIMIT $1";
    REJECTING = "SELECT id FROM agents WHERE rejected_at > $2 AND revoked_at IS NULL LIMIT $1";
    AMBIGUOUS = "SELECT detail, MAX(alert_id) AS alert_id FROM responses
        WHERE state = 'spared' AND reason = 'agent_ambiguous' AND created_at > $2 GROUP BY detail LIMIT $1";
    CLONED = "SELECT id FROM agents WHERE incident IS NOT NULL AND revoked_at IS NULL LIMIT $1";
    RESPONSE = "SELECT COALESCE(policy, requested_by) AS whose, CAST('' AS TEXT) AS agent_id, action,
            COALESCE(target_kind, '') AS target_kind, COALESCE(target_value, '') AS target_value,
            CAST('' AS TEXT) AS reason
        FROM responses WHERE id = $1";
    EFFECT = "SELECT COALESCE(agents.name, effects.agent_id) AS whose, effects.agent_id, effects.action,
            effects.target_kind, effects.target_value, COALESCE((
                SELECT results.message FROM commands JOIN results ON results.command_id = commands.id
                WHERE commands.effect_id = effects.id AND commands.op = 'revert' ORDER BY commands.seq DESC LIMIT 1
            ), '') AS reason
        FROM effects LEFT JOIN agents ON agents.id = effects.agent_id WHERE effects.id = $1";
    COMMAND = "SELECT COALESCE(agents.name, commands.agent_id) AS whose, commands.agent_id,
            commands.op || ' ' || commands.action AS action, commands.target_kind, commands.target_value,
            commands.detail AS reason
        FROM commands LEFT JOIN agents ON agents.id = commands.agent_id WHERE commands.id = $1";
    AGENT = "SELECT name AS whose, id AS agent_id, CAST('' AS TEXT) AS action, CAST('' AS TEXT) AS target_kind,
            CAST('' AS TEXT) AS target_value, COALESCE(incident, '') AS reason
        FROM agents WHERE id = $1";
    REJECTS = "SELECT name AS whose, id AS agent_id, CAST('' AS TEXT) AS action, CAST('' AS TEXT) AS target_kind,
            CAST('' AS TEXT) AS target_value, COALESCE(rejected_reason, '') AS reason
        FROM agents WHERE id = $1";
}

/// Maximum number of examples per finding.
const EXAMPLES: i64 = 20;
/// How late a deadline's owner may be before the deadline counts as missed.
const LATE: Duration = Duration::from_mins(2);
/// How far back alerts are compared with labels.
const RECENT: Duration = Duration::from_hours(7 * 24);
/// How long a revert may be pending before it is reported as an incident.
const OUTLASTS: Duration = Duration::from_hours(1);

/// A failed check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `violation`: the ledger contradicts itself, or a deadline has no owner. `incident`: the
    /// ledger is consistent, and an operator must act.
    pub level: &'static str,
    /// What is wrong, in one sentence.
    pub what: &'static str,
    /// Meaning and remedy.
    pub help: &'static str,
    /// The first twenty: each by name, with the command that fixes it if there is one.
    pub examples: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

#[derive(sqlx::FromRow)]
struct Ambiguous {
    detail: String,
    alert_id: Option<String>,
}

/// What an id is called.
#[derive(sqlx::FromRow)]
struct Named {
    whose: String,
    agent_id: String,
    action: String,
    target_kind: String,
    target_value: String,
    reason: String,
}

/// What the ids are of that a rule finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Noun {
    Response,
    Effect,
    Command,
    Agent,
    /// An agent that rejects orders.
    Rejecter,
}

impl Noun {
    const fn of(self) -> (&'static str, &'static str) {
        match self {
            Self::Response => ("response", RESPONSE),
            Self::Effect => ("effect", EFFECT),
            Self::Command => ("command", COMMAND),
            Self::Agent => ("agent", AGENT),
            Self::Rejecter => ("agent", REJECTS),
        }
    }

    /// What is found, by name: `web-01: firewall-drop ip 203.0.113.7 (effect ID): REASON; MEND`. In `mend`, `{id}`, `{whose}` and
    /// `{agent_id}` stand for what was found.
    async fn example(self, db: &Db, id: &str, mend: &str) -> Result<String> {
        let (word, sql) = self.of();
        let Some(named) = db.optional::<Named>(sql, binds![id]).await? else { return Ok(format!("{word} {id}")) };
        let Named { whose, agent_id, action, target_kind, target_value, reason } = named;
        let aimed = story::target(&target_kind, &target_value).map_or_else(String::new, |target| format!(" {target}"));
        let what = if action.is_empty() { String::new() } else { format!(": {action}{aimed}") };
        let why = if self == Self::Rejecter { reason_words(&reason).to_owned() } else { escape(&reason) };
        let why = if why.is_empty() { why } else { format!(": {why}") };
        let mend = mend.replace("{id}", id).replace("{whose}", &whose).replace("{agent_id}", &agent_id);
        let mend = if mend.is_empty() { mend } else { format!("; {mend}") };
        Ok(format!("{}{} ({word} {id}){why}{mend}", escape(&whose), escape(&what)))
    }
}

/// Runs all checks; an empty result means healthy.
///
/// # Errors
/// If the store cannot be read.
pub async fn examine(db: &Db, now: Timestamp) -> Result<Vec<Finding>> {
    let late = now.minus(LATE);
    let mut findings = Vec::new();
    for Rule { level, what, help, sql, at, noun, mend } in rules(late, now) {
        let binds = at.map_or_else(|| binds![EXAMPLES], |at| binds![EXAMPLES, at]);
        let rows: Vec<Id> = db.all(sql, binds).await?;
        let mut examples = Vec::with_capacity(rows.len());
        for Id { id } in rows {
            examples.push(noun.example(db, &id, mend).await?);
        }
        if !examples.is_empty() {
            findings.push(Finding { level, what, help, examples });
        }
    }
    let fleet = agents::all(db).await?;
    findings.extend(contradictions(db, &fleet, now).await?);
    let duplicates = duplicates::of(&fleet);
    if !duplicates.is_empty() {
        let what = "agents share a Wazuh id";
        let help = "An alert without a name, or with a name that fits both, acts on neither of them.";
        findings.push(Finding { level: "incident", what, help, examples: duplicates });
    }
    let mut exposed = Vec::new();
    for row in policies::all(db).await? {
        if hidden::hide_in_policy(&mut row.document.read()?) {
            exposed.push(hidden::remedy(&row.name));
        }
    }
    if !exposed.is_empty() {
        let what = "policies hold the address of a webhook in clear";
        let help = "Accounts that may change policies read it, and so does a copy of the ledger or a backup. No other account is shown it.";
        findings.push(Finding { level: "incident", what, help, examples: exposed });
    }
    let proof = checkpoints::prove_chain(db, |_, _| ()).await?;
    if let Some(at) = proof.broken_at {
        let what = "the audit log was edited, or is incomplete";
        let help = "Entries before it are intact. Check who had write access to the database; a backup has the original entries.";
        findings.push(Finding { level: "violation", what, help, examples: vec![format!("entry {at}")] });
    }
    if let Some(damage) = db.damage().await? {
        let what = "the database file is damaged";
        let help = "Stop the manager, keep a copy of the file, and restore a backup.";
        findings.push(Finding { level: "violation", what, help, examples: vec![damage] });
    }
    Ok(findings)
}

/// The finding of rows that another program has changed; none without any.
pub fn of_breaches(breaches: &[SealBreach]) -> Option<Finding> {
    let what = "another program has changed rows that grant power";
    let help = "A row that was inserted or changed is not used. While one is missing, or a protected entry is not what it was, nothing new is \
                delivered; while a key or a person may be back that was revoked, only pipelines are served. Find out who can write to the \
                database. Then restore a backup, or, if all stands as it should, start once with `riposte serve --accept-ledger-changes`.";
    let examples: Vec<String> = breaches.iter().take(20).map(SealBreach::describe).collect();
    (!examples.is_empty()).then_some(Finding { level: "violation", what, help, examples })
}

struct Rule {
    level: &'static str,
    what: &'static str,
    help: &'static str,
    sql: &'static str,
    at: Option<Timestamp>,
    noun: Noun,
    /// What mends one of them.
    mend: &'static str,
}

/// The rules to check. Deadlines before `late` should have been handled already.
#[expect(clippy::too_many_lines, reason = "a table")]
fn rules(late: Timestamp, now: Timestamp) -> Vec<Rule> {
    const OWNER: &str = "A deadline has passed and was not handled. See `/readyz?verbose` and the log. While the manager is down this is normal; it handles the deadline at its next start.";
    const LIFT: &str = "`POST /v1/responses/{id}/lift`";
    const RELEASE: &str = "on {whose}: `riposte-agent release`";
    const REVOKE: &str = "`DELETE /v1/agents/{agent_id}` revokes it";
    let violation = |what, help, sql, noun, mend| Rule { level: "violation", what, help, sql, at: None, noun, mend };
    let overdue =
        |what, at, sql, noun| Rule { level: "violation", what, help: OWNER, sql, at: Some(at), noun, mend: "" };
    let incident = |what, help, sql, at, noun, mend| Rule { level: "incident", what, help, sql, at, noun, mend };
    vec![
        violation(
            "an active response holds no effect and has no pending wave",
            "It should have ended. Nothing is in force because of it; lift it by hand, and report it.",
            HOLDS_NOTHING,
            Noun::Response,
            LIFT,
        ),
        violation(
            "an active one-shot response has no pending command",
            "All its commands are final. Lift it by hand, and report it.",
            WAITS_FOR_NOTHING,
            Noun::Response,
            LIFT,
        ),
        violation(
            "an ended response still holds an effect",
            "The effect may stay in force too long. `riposte-agent release` on the host lifts it, and everything else that the host holds. Report it.",
            STILL_HOLDS,
            Noun::Response,
            "",
        ),
        violation(
            "an effect is wanted, and no response holds it",
            "The manager will never lift it; the agent does at its end. `riposte-agent release` on the host lifts it, and everything else that the host holds. Report it.",
            NOT_HELD,
            Noun::Effect,
            RELEASE,
        ),
        violation(
            "an effect is held, and not wanted",
            "A response relies on a block that is being lifted. Create it again by hand, and report it.",
            HELD_UNWANTED,
            Noun::Effect,
            "",
        ),
        violation(
            "an effect does not end when its longest hold does",
            "It is lifted too soon, or too late. Lift the responses that hold it, create them again, and report it.",
            WRONG_END,
            Noun::Effect,
            "",
        ),
        violation(
            "an unwanted effect is in force and no command is on its way to lift it",
            "An undo was lost. `riposte-agent release` on the host lifts it, and everything else that the host holds. Report it.",
            LOST_UNDO,
            Noun::Effect,
            RELEASE,
        ),
        violation(
            "a command's number exceeds its agent's sequence",
            "A later command could get the same number and be taken for a repetition. Restore a backup, and report it.",
            NUMBERED_AHEAD,
            Noun::Command,
            "",
        ),
        violation(
            "a command is pending for a revoked agent",
            "It will never be fetched, so it does no harm. Report it.",
            OWED_TO_REVOKED,
            Noun::Command,
            "",
        ),
        overdue("a command is pending long after its expiry", late, NOT_EXPIRED, Noun::Command),
        overdue(
            "a command was acknowledged long ago, and has neither a result nor a timeout",
            late.minus(ANSWER_TIMEOUT),
            NOT_TIMED_OUT,
            Noun::Command,
        ),
        overdue("a response is active long after its end", late, NOT_ENDED, Noun::Response),
        overdue("a response waits for approval long after its deadline", late, NOT_CLOSED, Noun::Response),
        overdue("a wave of a response is long overdue", late, NOT_SENT, Noun::Response),
        overdue("the retry of a failed revert is long overdue", late, NOT_RETRIED, Noun::Effect),
        violation(
            "a command has ended by a result that is missing",
            "The result is lost here; the agent's log has it. Report it.",
            NO_RESULT,
            Noun::Command,
            "",
        ),
        violation(
            "a result exists for a command that is not final",
            "The command may be sent again; the agent does not execute it twice. Report it.",
            STRAY_RESULT,
            Noun::Command,
            "",
        ),
        violation(
            "an open response refers to a deleted alert",
            "It is still undone on time; its reason is only in the audit log. Report it.",
            LOST_ALERT,
            Noun::Response,
            "",
        ),
        incident(
            "an effect cannot be lifted; the agent keeps trying",
            "Fix the cause: the agent keeps trying, and lifts the effect within a minute. Or lift it by hand; the agent \
             then finds nothing left.",
            CANNOT_LIFT,
            None,
            Noun::Effect,
            "on {whose}: `riposte-agent status`",
        ),
        incident(
            "a block outlasts its end: its agent has not fetched the revert for an hour",
            "The agent lifts it by its own clock if it runs. Check whether the host is up and reaches the manager; if it is gone for good, revoke the agent.",
            STILL_BLOCKED,
            Some(now.minus(OUTLASTS)),
            Noun::Command,
            "if {whose} is gone for good: `DELETE /v1/agents/{agent_id}`",
        ),
        incident(
            "an agent rejects this manager's commands: none is carried out there",
            "Usually it trusts another signing key: put the right signing.key back, or revoke the agent and enrol it again.",
            REJECTING,
            Some(now.minus(REJECTS_FOR)),
            Noun::Rejecter,
            REVOKE,
        ),
        incident(
            "two hosts use one agent's identity",
            "A host was cloned with its agent's key. Revoke the agent and enrol each host anew.",
            CLONED,
            None,
            Noun::Agent,
            REVOKE,
        ),
    ]
}

/// [`SEE_DOCTOR`] in ledgers of earlier versions.
const SAW_DOCTOR: &str = "; `riposte doctor` says how to mend the labels";

/// Alerts whose Wazuh id and name belong to different agents here.
async fn contradictions(db: &Db, fleet: &[Agent], now: Timestamp) -> Result<Option<Finding>> {
    let rows: Vec<Ambiguous> = db.all(AMBIGUOUS, binds![EXAMPLES, now.minus(RECENT)]).await?;
    let mut examples = Vec::with_capacity(rows.len());
    for Ambiguous { detail, alert_id } in rows {
        // The log and the API refer to the doctor.
        let detail = [SEE_DOCTOR, SAW_DOCTOR].iter().find_map(|end| detail.strip_suffix(end)).unwrap_or(&detail);
        let mend = match alert_id.and_then(|id| id.parse().ok()) {
            Some(id) => named_by(db, id).await?.and_then(|agent| duplicates::mend(&agent, fleet)),
            None => None,
        };
        examples.push(mend.map_or_else(|| detail.to_owned(), |mend| format!("{detail}; {mend}")));
    }
    Ok((!examples.is_empty()).then_some(Finding {
        level: "incident",
        what: "alerts name agents differently from their enrolment; their responses were spared",
        help: "Where Wazuh calls a host by another name: `riposte agent label AGENT wazuh_name=NAME`. Where a number was given anew: `riposte agent label AGENT wazuh_id=NUMBER`, or revoke the agent that is gone.",
        examples,
    }))
}

/// The agent that an alert names, if that can still be read.
async fn named_by(db: &Db, alert: Uuid) -> Result<Option<AlertAgent>> {
    let Some(row) = alerts::find(db, alert).await? else { return Ok(None) };
    Ok(row
        .text()
        .ok()
        .and_then(|raw| formats::parse(&raw, &AlertMappings::default(), None).ok())
        .map(|alert| alert.agent))
}

/// Copies the SQLite file `from` to `to`, complete and consistent, while it is in use.
///
/// # Errors
/// If `from` cannot be read, or `to` exists or cannot be written.
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut connection = open(from).await?;
    let to = to.to_str().ok_or_else(|| StoreError::Address("the path of the copy is not UTF-8".into()))?;
    sqlx::query("VACUUM INTO $1").bind(to).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Checks the SQLite file at `path`; returns the damage found.
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
