//! What spans are made of: the responses and commands that have changed, read from the ledger. Off the
//! way of every commit.

use riposte_protocol::command::Op;
use uuid::Uuid;

use crate::domain::command::CommandState;
use crate::domain::response::ResponseState;
use crate::store::database::{Db, Result, binds, statements};
use crate::views::words::StoredWord;

statements! {
    RESPONSES = "SELECT id, alert_id, policy, action, target_kind, state, reason, trace, created_at FROM responses
        WHERE id IN (VALUES {1})";
    COMMANDS = "SELECT commands.id, commands.agent_id, commands.seq, commands.op, commands.action, commands.state,
            commands.deliveries, commands.created_at, commands.delivered_at, commands.acknowledged_at,
            commands.finished_at, responses.id AS response_id, responses.alert_id, responses.policy, responses.trace,
            results.verified, results.finished_at - results.started_at AS ran_millis
        FROM commands JOIN responses ON responses.id = commands.response_id
        LEFT JOIN results ON results.command_id = commands.id
        WHERE commands.id IN (VALUES {1})";
}

/// A response.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct TracedResponse {
    /// Its id.
    pub id: String,
    /// The alert; none: by hand.
    pub alert_id: Option<String>,
    /// The policy; none: by hand.
    pub policy: Option<String>,
    /// The action.
    pub action: String,
    /// Kind of the target. Its value stays in the ledger.
    pub target_kind: Option<String>,
    /// Its state by now.
    pub state: ResponseState,
    /// Why it was spared, or why it ended.
    pub reason: Option<String>,
    /// `traceparent` of the request.
    pub trace: Option<String>,
    /// When it was decided, in milliseconds.
    pub created_at: i64,
}

/// A command, with its response.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct TracedCommand {
    /// Its id.
    pub id: String,
    /// The agent.
    pub agent_id: String,
    /// Its number.
    pub seq: i64,
    /// Apply or revert.
    #[sqlx(try_from = "StoredWord<Op>")]
    pub op: Op,
    /// The action.
    pub action: String,
    /// Its state.
    pub state: CommandState,
    /// How often it was sent.
    pub deliveries: i64,
    /// When it was queued, in milliseconds.
    pub created_at: i64,
    /// When it was first sent.
    pub delivered_at: Option<i64>,
    /// When the agent acknowledged it.
    pub acknowledged_at: Option<i64>,
    /// When its end was committed.
    pub finished_at: Option<i64>,
    /// The response.
    pub response_id: String,
    /// The response's alert.
    pub alert_id: Option<String>,
    /// The response's policy.
    pub policy: Option<String>,
    /// The response's `traceparent`.
    pub trace: Option<String>,
    /// Whether the agent saw the effect.
    pub verified: Option<bool>,
    /// How long it ran by the agent's clock, in milliseconds.
    pub ran_millis: Option<i64>,
}

/// These responses, in any order.
pub async fn responses(db: &Db, ids: impl Iterator<Item = Uuid>) -> Result<Vec<TracedResponse>> {
    db.each_row(RESPONSES, ids.map(|id| binds![id]).collect(), vec![]).await
}

/// These commands, in any order; those of effects that the ledger does not know are left out.
pub async fn commands(db: &Db, ids: impl Iterator<Item = Uuid>) -> Result<Vec<TracedCommand>> {
    db.each_row(COMMANDS, ids.map(|id| binds![id]).collect(), vec![]).await
}
