//! Queries for responses. `store/ledger/holds.rs` writes them.

use std::collections::BTreeSet;

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::filing::Filing;
use crate::domain::response::ResponseState;
use crate::domain::tlp::Tlp;
use crate::store::database::columns;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::seals::sets::RESPONSES;
use crate::views::columns::JsonText;
use crate::views::responses::ResponseRow;

/// Whether a response that has ended came to nothing: the outcome `failed` of [`crate::domain::outcome::of_response`], in SQL.
macro_rules! ended_in_vain {
    () => {
        "CASE
        WHEN responses.one_shot = TRUE THEN CASE WHEN EXISTS (
            SELECT 1 FROM commands LEFT JOIN results ON results.command_id = commands.id
            WHERE commands.response_id = responses.id AND commands.state = 'succeeded'
                AND (results.observed IS NULL OR results.observed = FALSE)) THEN FALSE ELSE TRUE END
        WHEN responses.reason = 'failed' THEN TRUE
        WHEN EXISTS (
            SELECT 1 FROM holds WHERE holds.response_id = responses.id
                AND COALESCE(holds.left_as, 'in_force') IN ('in_force', 'withdrawn')) THEN FALSE
        ELSE TRUE END"
    };
}
pub(in crate::store) use ended_in_vain;

statements! {
    ONE = "SELECT id, alert_id, policy, policy_version, action, target_kind, target_value, arguments, agents, until,
            state, reason, detail, requested_by, note, trace, created_at, ended_at, quorum, answer_by, confirm_by, one_shot, break_glass,
            case_ref, tlp, mitre
        FROM responses WHERE id = $1";
    PAGE = "SELECT id, alert_id, policy, policy_version, action, target_kind, target_value, arguments, agents, until,
            state, reason, detail, requested_by, note, trace, created_at, ended_at, quorum, answer_by, confirm_by, one_shot, break_glass,
            case_ref, tlp, mitre
        FROM responses
        WHERE id < $1 AND ($2 IS NULL OR state = $2) AND ($3 IS NULL OR policy = $3)
            AND ($4 IS NULL OR alert_id = $4) AND ($5 IS NULL OR target_value = $5) AND ($6 IS NULL OR action = $6)
            AND ($7 IS NULL OR case_ref = $7)
        ORDER BY id DESC LIMIT $8";
    OF_TARGET = "SELECT id, alert_id, policy, policy_version, action, target_kind, target_value, arguments, agents, until,
            state, reason, detail, requested_by, note, trace, created_at, ended_at, quorum, answer_by, confirm_by, one_shot, break_glass,
            case_ref, tlp, mitre
        FROM responses WHERE target_value = $1 AND target_kind = $2 ORDER BY id DESC LIMIT $3";
    SEALED = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            answer_by, on_silence, duration_millis, waves, one_shot, seal
        FROM responses WHERE id = $1";
    SEAL = "UPDATE responses SET seal = $2 WHERE id = $1";
    DUE = "SELECT id FROM responses WHERE state = 'active' AND until <= $1 ORDER BY until LIMIT $2";
    TO_LIFT = "SELECT responses.id FROM responses LEFT JOIN alerts ON alerts.id = responses.alert_id
        WHERE responses.state = 'active' AND responses.id > $1 AND ($2 IS NULL OR policy = $2)
            AND ($3 IS NULL OR alert_id = $3) AND ($4 IS NULL OR alerts.rule_id = $4)
            AND ($5 IS NULL OR target_value = $5) AND ($6 IS NULL OR target_kind = $6)
            AND ($7 IS NULL OR created_at >= $7) AND ($8 IS NULL OR created_at < $8)
        ORDER BY responses.id LIMIT $9";
    NAMED = "SELECT responses.id FROM (VALUES {1}) AS v JOIN responses ON responses.id = v.column1
        LEFT JOIN alerts ON alerts.id = responses.alert_id
        WHERE responses.state = 'active' AND ($1 IS NULL OR policy = $1)
            AND ($2 IS NULL OR alert_id = $2) AND ($3 IS NULL OR alerts.rule_id = $3)
            AND ($4 IS NULL OR target_value = $4) AND ($5 IS NULL OR target_kind = $5)
            AND ($6 IS NULL OR created_at >= $6) AND ($7 IS NULL OR created_at < $7)";
    COUNTS = concat!("SELECT state, reason, in_vain, COUNT(*) AS count FROM (
            SELECT state, COALESCE(reason, '') AS reason, CASE WHEN state <> 'ended' THEN FALSE ELSE ", ended_in_vain!(), " END AS in_vain
            FROM responses WHERE policy = $1 AND created_at >= $2) AS judged
        GROUP BY state, reason, in_vain");
    TARGETS = "SELECT COUNT(DISTINCT target_value) AS count FROM responses
        WHERE policy = $1 AND created_at >= $2 AND state IN ('active', 'ended', 'awaiting_approval', 'observed')";
    COUNTS_BY_AGENTS = concat!("SELECT state, reason, in_vain, agents, COUNT(*) AS count FROM (
            SELECT state, COALESCE(reason, '') AS reason, agents, CASE WHEN state <> 'ended' THEN FALSE ELSE ", ended_in_vain!(), " END AS in_vain
            FROM responses WHERE policy = $1 AND created_at >= $2) AS judged
        GROUP BY state, reason, in_vain, agents");
    TARGETS_BY_AGENTS = "SELECT DISTINCT target_value, agents FROM responses
        WHERE policy = $1 AND created_at >= $2 AND state IN ('active', 'ended', 'awaiting_approval', 'observed')";
    OF_RULE = "SELECT responses.id FROM responses JOIN alerts ON alerts.id = responses.alert_id
        WHERE alerts.rule_id = $1 AND responses.id IN (SELECT newest.id FROM responses AS newest ORDER BY newest.id DESC LIMIT $2)
        LIMIT 1";
    FILE = "UPDATE responses SET case_ref = $2, tlp = $3 WHERE id = $1";
    NEXT_DUE = "SELECT MIN(until) AS at FROM responses WHERE state = 'active' AND until IS NOT NULL";
}

/// Seals a response as it is now. It was checked before this transaction changed it.
pub(in crate::store) async fn seal(ledger: &mut LedgerTx, response: Uuid) -> Result<()> {
    ledger.seal_again(&RESPONSES, SEALED, SEAL, &response.to_string()).await
}

/// Number of a policy's responses with one state and reason.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StateCount {
    /// State.
    pub state: ResponseState,
    /// Reason; empty if there is none.
    pub reason: String,
    /// Whether they have ended and came to nothing.
    pub in_vain: bool,
    /// How many.
    pub count: i64,
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// Counts a policy's responses since an instant, by state and reason.
pub async fn counts(db: &Db, policy: &str, since: Timestamp) -> Result<Vec<StateCount>> {
    db.all(COUNTS, binds![policy, since]).await
}

/// As [`StateCount`], of responses with the same agents.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AgentsCount {
    /// The number and what it counts.
    #[sqlx(flatten)]
    pub count: StateCount,
    /// Ids of the agents, as JSON.
    pub agents: JsonText,
}

/// A target of a response with its agents.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct TargetAgents {
    /// Target in canonical form.
    pub target_value: Option<String>,
    /// Ids of the agents, as JSON.
    pub agents: JsonText,
}

/// Counts a policy's responses since an instant, by state, reason and agents.
pub async fn counts_by_agents(db: &Db, policy: &str, since: Timestamp) -> Result<Vec<AgentsCount>> {
    db.all(COUNTS_BY_AGENTS, binds![policy, since]).await
}

/// The distinct targets of a policy since an instant, with the agents.
pub async fn targets_by_agents(db: &Db, policy: &str, since: Timestamp) -> Result<Vec<TargetAgents>> {
    db.all(TARGETS_BY_AGENTS, binds![policy, since]).await
}

/// Number of distinct targets of a policy since an instant, including spared ones.
pub async fn targets(db: &Db, policy: &str, since: Timestamp) -> Result<i64> {
    Ok(db.optional::<Count>(TARGETS, binds![policy, since]).await?.map_or(0, |row| row.count))
}

#[cfg(test)]
impl ResponseRow {
    /// An active response on these agents, for tests.
    pub(super) fn for_tests(id: Uuid, agents: &str) -> Self {
        use crate::views::columns::{JsonText, Millis};

        Self {
            id: id.to_string(),
            alert_id: None,
            policy: None,
            policy_version: None,
            action: "a".into(),
            target_kind: None,
            target_value: None,
            arguments: JsonText::from("[]"),
            agents: JsonText::from(agents),
            until: None,
            state: ResponseState::Active,
            reason: None,
            detail: String::new(),
            requested_by: String::new(),
            note: String::new(),
            trace: None,
            created_at: Millis::from(Timestamp::from_millis(0)),
            ended_at: None,
            quorum: None,
            answer_by: None,
            confirm_by: None,
            one_shot: false,
            break_glass: None,
            case_ref: None,
            tlp: None,
            mitre: None,
        }
    }
}

/// The response of that id.
pub async fn find(db: &Db, response: Uuid) -> Result<Option<ResponseRow>> {
    Ok(shown(db.optional(ONE, binds![response]).await?)?.into_iter().next())
}

/// Filter of a response list.
#[derive(Clone, Debug, Default)]
pub struct ResponseFilter {
    /// State.
    pub state: Option<ResponseState>,
    /// Policy that decided.
    pub policy: Option<String>,
    /// Alert that caused it.
    pub alert: Option<Uuid>,
    /// Target in canonical form.
    pub target: Option<String>,
    /// Name of the action.
    pub action: Option<String>,
    /// Case.
    pub case: Option<String>,
}

/// A page of responses, newest first, older than `before`.
pub async fn list(db: &Db, filter: ResponseFilter, before: Option<Uuid>, limit: i64) -> Result<Vec<ResponseRow>> {
    let ResponseFilter { state, policy, alert, target, action, case } = filter;
    let binds = binds![before.unwrap_or(Uuid::max()), state, policy, alert, target, action, case, limit];
    shown(db.all::<ResponseRow>(PAGE, binds).await?)
}

/// The responses of every state to a target, newest first, at most `limit`.
pub async fn of_target(db: &Db, target: &Target, limit: i64) -> Result<Vec<ResponseRow>> {
    shown(db.all::<ResponseRow>(OF_TARGET, binds![target.value(), target.kind(), limit]).await?)
}

/// Files a response.
///
/// # Errors
/// [`StoreError::NotFound`] if it does not exist.
pub async fn file(ledger: &mut LedgerTx, response: Uuid, filing: &Filing, by: &Actor, now: Timestamp) -> Result<()> {
    let label = filing.tlp.map(Tlp::as_str);
    if ledger.tx.execute(FILE, binds![response, filing.case.clone(), label]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let (noun_id, event) = (response.to_string(), AuditEvent::ResponseFiled);
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail: filing.in_words() });
    Ok(())
}

/// Responses as views show them: without secrets that their arguments hold in clear.
fn shown(rows: impl IntoIterator<Item = ResponseRow>) -> Result<Vec<ResponseRow>> {
    let hide = |mut row: ResponseRow| {
        row.arguments.hide_arguments(&row.action)?;
        Ok(row)
    };
    rows.into_iter().map(hide).collect()
}

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

/// Ids of at most `limit` active responses that have expired at `now`.
pub async fn due(db: &Db, now: Timestamp, limit: i64) -> Result<Vec<Uuid>> {
    db.all::<Id>(DUE, binds![now, limit]).await?.iter().map(|row| columns::id(&row.id)).collect()
}

/// Filter of active responses to lift.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiftFilter {
    /// Policy that decided.
    pub policy: Option<String>,
    /// Alert that caused it.
    pub alert: Option<Uuid>,
    /// Rule of the alert.
    pub rule: Option<String>,
    /// Target.
    pub target: Option<String>,
    /// Kind of the target.
    pub target_kind: Option<TargetKind>,
    /// Earliest decision time, inclusive.
    pub since: Option<Timestamp>,
    /// Latest decision time, exclusive.
    pub until: Option<Timestamp>,
}

/// Ids of the active responses that match `filter`, in ascending order; of those among `named`, unless it is empty.
pub async fn to_lift(db: &Db, filter: &LiftFilter, named: &[Uuid]) -> Result<Vec<Uuid>> {
    const BATCH: i64 = 1000;
    if !named.is_empty() {
        let LiftFilter { policy, alert, rule, target, target_kind, since, until } = filter.clone();
        let kind = target_kind.map(TargetKind::as_str);
        let rows = named.iter().map(|id| binds![*id]).collect();
        let found: Vec<Id> = db.each_row(NAMED, rows, binds![policy, alert, rule, target, kind, since, until]).await?;
        let ids: BTreeSet<Uuid> = found.iter().map(|row| columns::id(&row.id)).collect::<Result<_>>()?;
        return Ok(ids.into_iter().collect());
    }
    let (mut found, mut last) = (Vec::new(), Uuid::nil());
    loop {
        let LiftFilter { policy, alert, rule, target, target_kind, since, until } = filter.clone();
        let kind = target_kind.map(TargetKind::as_str);
        let rows: Vec<Id> =
            db.all(TO_LIFT, binds![last, policy, alert, rule, target, kind, since, until, BATCH]).await?;
        for row in &rows {
            last = columns::id(&row.id)?;
            found.push(last);
        }
        if rows.is_empty() {
            return Ok(found);
        }
    }
}

/// How many responses are looked at for whether any is due to a rule: nothing finds them by it.
pub const NEWEST: i64 = 10_000;

/// Whether one of the [`NEWEST`] responses is due to an alert of this rule.
pub async fn has_rule(db: &Db, rule: &str) -> Result<bool> {
    Ok(db.optional::<Id>(OF_RULE, binds![rule, NEWEST]).await?.is_some())
}

#[derive(sqlx::FromRow)]
struct Instant {
    at: Option<i64>,
}

/// When the next active response expires.
pub async fn next_due(db: &Db) -> Result<Option<Timestamp>> {
    let row: Option<Instant> = db.optional(NEXT_DUE, vec![]).await?;
    Ok(row.and_then(|row| row.at).map(Timestamp::from_millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn due_responses_are_found_by_an_index_on_their_end() {
        for statement in [DUE, NEXT_DUE] {
            let plan = plan(statement).await;
            assert!(plan.iter().all(|step| step.contains("INDEX responses_due (until")), "{plan:?}");
        }
    }
}
