//! Queries for commands and their results, for the API and for delivery. `store/ledger/holds.rs`
//! creates and ends commands.

use std::collections::HashMap;

use riposte_protocol::command::Op;
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::command::CommandState;
use crate::store::database::columns::{id, target_kind};
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::store::seals::known::{Look, Purpose};
use crate::store::seals::sets::COMMANDS;
use crate::store::seals::value::WithSeal;
use crate::views::columns::{JsonText, Millis};
use crate::views::commands::{CommandRow, ResultRow};
use crate::views::words::UnknownWord;

statements! {
    ONE = "SELECT id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments, until,
            state, detail, created_at, expires_at, deliveries, delivered_at, acknowledged_at, finished_at
        FROM commands WHERE id = $1";
    PAGE = "SELECT id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value, arguments, until,
            state, detail, created_at, expires_at, deliveries, delivered_at, acknowledged_at, finished_at
        FROM commands
        WHERE id < $1 AND ($2 IS NULL OR agent_id = $2) AND ($3 IS NULL OR state = $3)
            AND ($4 IS NULL OR effect_id = $4) AND ($5 IS NULL OR response_id = $5)
        ORDER BY id DESC LIMIT $6";
    RESULT = "SELECT command_id, outcome, exit_code, output, verified, message, started_at, finished_at, received_at,
            observed, evidence
        FROM results WHERE command_id = $1";
    RESULTS_OF_RESPONSE = "SELECT results.command_id, results.outcome, results.exit_code, results.output,
            results.verified, results.message, results.started_at, results.finished_at, results.received_at,
            results.observed, results.evidence
        FROM results JOIN commands ON commands.id = results.command_id
        WHERE commands.response_id = $1 ORDER BY results.command_id LIMIT $2";
    COUNTS = "SELECT state, COUNT(*) AS count FROM commands WHERE state IN ('queued', 'delivered') GROUP BY state";
    /// The oldest pending commands of each agent, in sending order. Each rank is limited to what one
    /// agent may have in flight, so blocked commands (for example during a freeze) do not delay another
    /// rank. Commands of one effect share a rank, which keeps them in the order of their numbers. The
    /// last rank holds no revert.
    OWED = "WITH edges AS MATERIALIZED (
        SELECT asked.column1 AS agent_id, ranks.column1 AS rank, (
            SELECT seq FROM commands WHERE commands.agent_id = asked.column1 AND commands.rank = ranks.column1
                AND state IN ('queued', 'delivered') AND ($1 = FALSE OR op = 'revert') ORDER BY seq LIMIT 1 OFFSET 255) AS edge
       
        FROM (VALUES {1}) AS asked CROSS JOIN (VALUES (0), (1), (2)) AS ranks
        WHERE $1 = FALSE OR ranks.column1 < 2)
    SELECT commands.id, commands.agent_id, commands.seq, effect_id, response_id, op, commands.action, commands.target_kind,
        commands.target_value, commands.arguments, commands.until, commands.created_at, expires_at, lease_until,
        commands.rank, commands.seal, responses.policy, responses.alert_id
    FROM edges JOIN commands ON commands.agent_id = edges.agent_id AND commands.rank = edges.rank
        AND commands.state IN ('queued', 'delivered') AND ($1 = FALSE OR op = 'revert')
        AND seq <= COALESCE(edge, 9223372036854775807)
    LEFT JOIN responses ON responses.id = commands.response_id
    ORDER BY commands.agent_id, commands.rank, commands.seq";
}

/// The command of that id.
pub async fn find(db: &Db, command: Uuid) -> Result<Option<CommandRow>> {
    Ok(shown(db.optional(ONE, binds![command]).await?)?.into_iter().next())
}

/// Filter of a command list.
#[derive(Clone, Debug, Default)]
pub struct CommandFilter {
    /// Receiving agent.
    pub agent: Option<Uuid>,
    /// State.
    pub state: Option<CommandState>,
    /// Effect.
    pub effect: Option<Uuid>,
    /// Response that requested the command.
    pub response: Option<Uuid>,
}

/// A page of commands, newest first, older than `before`.
pub async fn list(db: &Db, filter: CommandFilter, before: Option<Uuid>, limit: i64) -> Result<Vec<CommandRow>> {
    let CommandFilter { agent, state, effect, response } = filter;
    shown(
        db.all::<CommandRow>(PAGE, binds![before.unwrap_or(Uuid::max()), agent, state, effect, response, limit])
            .await?,
    )
}

/// Commands as views show them: without secrets that their arguments hold in clear.
fn shown(rows: impl IntoIterator<Item = CommandRow>) -> Result<Vec<CommandRow>> {
    let hide = |mut row: CommandRow| {
        row.arguments.hide_arguments(&row.action)?;
        Ok(row)
    };
    rows.into_iter().map(hide).collect()
}

/// The result of a command, if there is one.
pub async fn result(db: &Db, command: Uuid) -> Result<Option<ResultRow>> {
    db.optional(RESULT, binds![command]).await
}

/// The results of a response's commands, at most `limit`.
pub async fn results_of_response(db: &Db, response: Uuid, limit: i64) -> Result<Vec<ResultRow>> {
    db.all(RESULTS_OF_RESPONSE, binds![response, limit]).await
}

/// A pending command as it is stored. Its words are decoded by [`OwedCommand`], one row at a time:
/// one that cannot be decoded must not keep the others from their agents.
#[derive(sqlx::FromRow)]
struct OwedRow {
    id: String,
    agent_id: String,
    seq: i64,
    effect_id: String,
    response_id: String,
    op: String,
    action: String,
    target_kind: String,
    target_value: String,
    arguments: JsonText,
    until: Option<Millis>,
    created_at: Millis,
    expires_at: Option<Millis>,
    lease_until: Option<Millis>,
    policy: Option<String>,
    alert_id: Option<String>,
    rank: i64,
}

/// A pending command with all fields of its signed form.
#[derive(Clone, Debug)]
pub struct OwedCommand {
    /// UUIDv7.
    pub id: Uuid,
    /// Sequence number, increasing per agent.
    pub seq: u64,
    /// The effect.
    pub effect: Uuid,
    /// The response that requested it.
    pub response: Uuid,
    /// Apply or revert.
    pub op: Op,
    /// Name of the action.
    pub action: String,
    /// Target.
    pub target: Target,
    /// Arguments of the action.
    pub arguments: Vec<String>,
    /// End of the effect; absent if it is lifted by hand.
    pub until: Option<Timestamp>,
    /// Commit time.
    pub created_at: Timestamp,
    /// When it expires unless acknowledged.
    pub expires_at: Option<Timestamp>,
    /// Until when the last delivery is in flight; afterwards it is sent again.
    pub lease_until: Option<Timestamp>,
    /// Policy that requested it; absent for a person's request.
    pub policy: Option<String>,
    /// Alert that caused it; absent for a person's request.
    pub alert: Option<Uuid>,
    /// Sending order, as [`riposte_protocol::delivery::Rank::number`].
    pub rank: i64,
}

impl TryFrom<OwedRow> for OwedCommand {
    type Error = StoreError;

    fn try_from(row: OwedRow) -> Result<Self> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("command {}: {what}", row.id));
        let kind = target_kind("commands", &row.target_kind)?;
        let unknown_op = || UnknownWord { table: "commands", column: "op", word: row.op.clone() };
        Ok(Self {
            id: id(&row.id)?,
            seq: u64::try_from(row.seq).map_err(|_| corrupt("number"))?,
            effect: id(&row.effect_id)?,
            response: id(&row.response_id)?,
            op: Op::parse(&row.op).ok_or_else(unknown_op)?,
            target: Target::named(kind, &row.target_value).map_err(|_| corrupt("target"))?,
            arguments: row.arguments.read()?,
            action: row.action,
            until: row.until.map(Timestamp::from),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Timestamp::from),
            lease_until: row.lease_until.map(Timestamp::from),
            policy: row.policy,
            alert: row.alert_id.as_deref().map(id).transpose()?,
            rank: row.rank,
        })
    }
}

/// The first 256 pending commands per rank of each of `agents`, in sending order, or only reverts
/// during a freeze. A command that another program wrote or changed is not delivered. Agents without pending commands have no entry.
pub async fn owed(db: &Db, agents: Vec<Uuid>, only_reverts: bool) -> Result<HashMap<Uuid, Vec<OwedCommand>>> {
    let rows = agents.into_iter().map(|agent| binds![agent]).collect();
    let look = db.seals().look(Purpose::Look);
    let rows = db.each_row_near::<WithSeal<OwedRow>>(OWED, rows, binds![only_reverts]).await?;
    let mut owed: HashMap<Uuid, Vec<OwedCommand>> = HashMap::new();
    for (agent, command) in sound(db, rows, look) {
        owed.entry(agent).or_default().push(command);
    }
    Ok(owed)
}

/// As [`owed`] of one agent, if that can be read now without waiting; else nothing.
pub fn owed_now(db: &Db, agent: Uuid, only_reverts: bool) -> Result<Option<Vec<OwedCommand>>> {
    let look = db.seals().look(Purpose::Look);
    let rows = db.row_near_now::<WithSeal<OwedRow>>(OWED, binds![agent], &[Bind::from(only_reverts)])?;
    Ok(rows.map(|rows| sound(db, rows, look).map(|(_, command)| command).collect()))
}

/// The commands of these rows that this manager wrote as they are.
fn sound(db: &Db, rows: Vec<WithSeal<OwedRow>>, look: Look) -> impl Iterator<Item = (Uuid, OwedCommand)> {
    rows.into_iter().filter_map(move |row| {
        let row = db.seals().checked(&COMMANDS, row, look)?;
        let agent = id(&row.agent_id).ok()?;
        // A command that cannot be decoded must not block the others.
        let told = |error: &StoreError| {
            tracing::error!(%agent, "a command for agent {agent} cannot be delivered: {error}");
        };
        Some((agent, OwedCommand::try_from(row).inspect_err(told).ok()?))
    })
}

/// Number of commands in one state.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct CommandCount {
    /// State.
    pub state: CommandState,
    /// Number of commands.
    pub count: i64,
}

/// Counts pending commands, for the metrics.
pub async fn counts(db: &Db) -> Result<Vec<CommandCount>> {
    db.all(COUNTS, vec![]).await
}
