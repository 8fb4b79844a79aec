//! How far each webhook has come in the feed, and the messages that it has not taken. A mark is moved together with what was
//! not taken before it, so that a manager that is killed in between sends a message twice and never not at all.

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use super::events::LooseEvent;
use super::story::About;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::duties::{self, Fence};
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::views::columns::Millis;
use crate::views::webhooks::WebhookMessage;

/// Messages given up that are kept for a webhook.
const MOST_DEAD: i64 = 10_000;
/// Messages of a page that are sent again by hand.
const REPLAYED_AT_ONCE: i64 = 1000;

statements! {
    STATES = "SELECT webhook, mark, failures, is_failing, delivered, missed, delivered_at, failed_at, fault,
            (SELECT COUNT(*) FROM webhook_messages WHERE webhook_messages.webhook = webhook_states.webhook
                AND next_at IS NOT NULL) AS waiting,
            (SELECT COUNT(*) FROM webhook_messages WHERE webhook_messages.webhook = webhook_states.webhook
                AND next_at IS NULL) AS dead
        FROM webhook_states ORDER BY webhook";
    DUE = "SELECT seq, at, type, body, tries FROM webhook_messages
        WHERE webhook = $1 AND next_at <= $2 ORDER BY next_at, seq LIMIT $3";
    PAGE = "SELECT seq, at, type, tries, next_at, fault FROM webhook_messages
        WHERE webhook = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    MOVE = "UPDATE webhook_states SET mark = $2, failures = $3, is_failing = $4, delivered = delivered + $5, missed = missed + $6,
            delivered_at = COALESCE($7, delivered_at), failed_at = COALESCE($8, failed_at), fault = COALESCE($9, fault)
        WHERE webhook = $1 AND mark = $10";
    KEEP = "INSERT INTO webhook_messages (webhook, seq, at, type, body, tries, next_at, fault) VALUES {8}
        ON CONFLICT (webhook, seq) DO UPDATE SET tries = excluded.tries, next_at = excluded.next_at, fault = excluded.fault";
    TAKEN = "DELETE FROM webhook_messages WHERE webhook = $1 AND seq IN (
        SELECT CAST(column1 AS BIGINT) FROM (VALUES {1}) AS v)";
    /// A receiver that is back gets what waits at once.
    HASTEN = "UPDATE webhook_messages SET next_at = $2 WHERE webhook = $1 AND next_at > $2";
    TRIM = "DELETE FROM webhook_messages WHERE webhook = $1 AND next_at IS NULL AND seq <= (
        SELECT MAX(seq) FROM (SELECT seq FROM webhook_messages WHERE webhook = $1 AND next_at IS NULL
            ORDER BY seq DESC LIMIT 1000 OFFSET $2) AS old)";
    REPLAY = "UPDATE webhook_messages SET next_at = $2, tries = 0 WHERE webhook = $1 AND next_at IS NULL AND seq IN (
        SELECT CAST(column1 AS BIGINT) FROM (VALUES {1}) AS v)";
    DEAD = "SELECT seq FROM webhook_messages WHERE webhook = $1 AND next_at IS NULL AND seq > $2 ORDER BY seq LIMIT $3";
}

/// How far a webhook has come.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct WebhookState {
    /// Name of the webhook.
    pub webhook: String,
    /// Number of the last event that was looked at.
    pub mark: i64,
    /// Failed requests since the last one that succeeded.
    pub failures: i64,
    /// Whether that was announced.
    pub is_failing: bool,
    /// Messages taken, ever.
    pub delivered: i64,
    /// Events that were removed before they could be sent, ever.
    pub missed: i64,
    /// When a message was taken last.
    pub delivered_at: Option<Millis>,
    /// When a message was not taken last.
    pub failed_at: Option<Millis>,
    /// Why.
    pub fault: Option<String>,
    /// Messages that are tried again.
    pub waiting: i64,
    /// Messages given up.
    pub dead: i64,
}

/// A message that was not taken, and is due.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DueMessage {
    /// Number of the event.
    pub seq: i64,
    /// Time of the event.
    pub at: Millis,
    /// Type of the event.
    pub r#type: String,
    /// The body.
    pub body: String,
    /// How often it was sent.
    pub tries: i64,
}

/// A message that was not taken this time.
#[derive(Clone, Debug)]
pub struct FailedMessage {
    /// What was sent.
    pub message: DueMessage,
    /// When to send it again; `None`: it is given up.
    pub next_at: Option<Timestamp>,
    /// Why it was not taken.
    pub fault: String,
}

/// What became of a turn of a webhook.
#[derive(Debug, Default)]
pub struct WebhookTurn {
    /// Its mark at the beginning of the turn.
    pub from: i64,
    /// Number of the last event that was looked at.
    pub mark: i64,
    /// Failed requests since the last one that succeeded.
    pub failures: i64,
    /// Whether the webhook is announced as failing from now on.
    pub is_failing: bool,
    /// Numbers of the messages that were taken, whether kept before or not.
    pub taken: Vec<i64>,
    /// Numbers of messages that are no news any more.
    pub over: Vec<i64>,
    /// Messages that were not taken.
    pub failed: Vec<FailedMessage>,
    /// Events that were removed before they could be sent.
    pub missed: i64,
    /// Why the last message was not taken.
    pub fault: Option<String>,
    /// Whether the receiver is back.
    pub is_back: bool,
    /// What people should know of it.
    pub news: Vec<LooseEvent>,
}

#[derive(sqlx::FromRow)]
struct Seq {
    seq: i64,
}

/// The states of all webhooks.
pub async fn states(db: &Db) -> Result<Vec<WebhookState>> {
    db.all(STATES, vec![]).await
}

/// Messages that are due at `now`, at most `limit`.
pub async fn due(db: &Db, webhook: &str, now: Timestamp, limit: i64) -> Result<Vec<DueMessage>> {
    db.all(DUE, binds![webhook, now, limit]).await
}

/// A page of messages that were not taken, by number, after `after`.
pub async fn list(db: &Db, webhook: &str, after: i64, limit: i64) -> Result<Vec<WebhookMessage>> {
    db.all(PAGE, binds![webhook, after, limit]).await
}

/// Writes what became of a turn. Without effect if the webhook was deleted meanwhile, or its mark was moved by another.
///
/// # Errors
/// [`StoreError::LeaseLost`] if another manager has the duty now.
pub async fn record(db: &Db, webhook: &str, turn: WebhookTurn, fence: Option<&Fence>, now: Timestamp) -> Result<()> {
    let WebhookTurn { from, mark, failures, is_failing, taken, over, failed, missed, fault, is_back, news } = turn;
    let mut ledger = LedgerTx::begin_without_head(db).await?;
    if !news.is_empty() {
        ledger.lock_head().await?;
    }
    duties::check(&mut ledger.tx, fence).await?;
    let tx = &mut ledger.tx;
    let delivered = i64::try_from(taken.len()).unwrap_or(i64::MAX);
    let at = |happened: bool| happened.then_some(now);
    let (good, bad) = (at(!taken.is_empty()), at(fault.is_some()));
    let moved = binds![webhook, mark, failures, is_failing, delivered, missed, good, bad, fault, from];
    if tx.execute(MOVE, moved).await? == 0 {
        return Ok(());
    }
    let taken: Vec<Vec<Bind>> = taken.into_iter().chain(over).map(|seq| binds![seq]).collect();
    tx.execute_rows(TAKEN, taken, binds![webhook]).await?;
    let is_dead = failed.iter().any(|failed| failed.next_at.is_none());
    let kept = failed.into_iter().map(|FailedMessage { message, next_at, fault }| {
        let DueMessage { seq, at, r#type, body, tries } = message;
        binds![webhook, seq, Timestamp::from(at), r#type, body, tries + 1, next_at, fault]
    });
    tx.execute_rows(KEEP, kept.collect(), vec![]).await?;
    if is_back {
        tx.execute(HASTEN, binds![webhook, now]).await?;
    }
    if is_dead {
        tx.execute(TRIM, binds![webhook, MOST_DEAD]).await?;
    }
    for event in &news {
        ledger.tell(event, &About::default(), now);
    }
    ledger.commit().await
}

/// Sends messages again that were given up: those of these events, or all. Returns their number.
pub async fn replay(
    ledger: &mut LedgerTx,
    webhook: &str,
    events: Option<&[i64]>,
    by: &Actor,
    now: Timestamp,
) -> Result<u64> {
    let mut count = 0;
    match events {
        Some(events) => {
            let rows = events.iter().map(|seq| binds![*seq]).collect();
            count = ledger.tx.execute_rows(REPLAY, rows, binds![webhook, now]).await?;
        }
        None => {
            let mut after = -1;
            loop {
                let page: Vec<Seq> = ledger.tx.all(DEAD, binds![webhook, after, REPLAYED_AT_ONCE]).await?;
                let Some(last) = page.last() else { break };
                after = last.seq;
                let rows = page.iter().map(|row| binds![row.seq]).collect();
                count += ledger.tx.execute_rows(REPLAY, rows, binds![webhook, now]).await?;
            }
        }
    }
    if count > 0 {
        let (noun_id, event) = (webhook.to_owned(), AuditEvent::WebhookReplayed);
        let detail = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
        ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    }
    Ok(count)
}

/// An error that says another manager sends now.
pub const fn is_elsewhere(error: &StoreError) -> bool {
    matches!(error, StoreError::LeaseLost)
}
