//! The lists of feeds, and which consumer was given which revision of them. What is in force is read from the
//! effects; a list is what was made of it, so that a restart loses no removal.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::Until;
use crate::domain::feed::BlockedTarget;
use crate::domain::feed_list::{FeedEntry, FeedList, ListChange};
use crate::store::database::{Db, Result, binds, statements};
use crate::store::seals::sets::EFFECTS;
use crate::views::columns::{JsonText, Millis};

statements! {
    /// What holds an address on agents that are not revoked, where it is in force or being applied: the same rule as
    /// that of an outcome (`outcomes.rs`), in force or pending. The columns of an effect's seal are all there.
    BLOCKED = "SELECT effects.id, effects.agent_id, effects.action, effects.target_kind, effects.target_value, effects.arguments,
            effects.desired, effects.until, effects.seal, holds.until AS hold_until, responses.policy
        FROM effects
        JOIN agents ON agents.id = effects.agent_id
        JOIN holds ON holds.effect_id = effects.id AND holds.released_at IS NULL
        JOIN responses ON responses.id = holds.response_id
        WHERE effects.desired = 'in_force' AND effects.target_kind = 'ip' AND agents.revoked_at IS NULL
            AND (effects.actual = 'in_force'
                OR (effects.actual = 'unknown' AND (effects.last_apply IS NULL OR effects.last_apply = 'unverified'))
                OR EXISTS (SELECT 1 FROM commands WHERE commands.effect_id = effects.id AND commands.op = 'apply'
                    AND commands.state IN ('queued', 'delivered', 'acknowledged')))";
    STANDS_AT = "SELECT seq, events FROM audit_head WHERE id = 1";
    BEGIN = "INSERT INTO feed_lists (feed, revision, event, floor, over_since) VALUES ($1, 0, 0, 0, NULL)";
    LIST = "SELECT revision, event, floor, over_since FROM feed_lists WHERE feed = $1";
    ENTRIES = "SELECT value, policy, until, revision, changed_at, first_at, is_listed FROM feed_entries WHERE feed = $1";
    MOVE = "UPDATE feed_lists SET revision = $3, event = $4, floor = $5 WHERE feed = $1 AND revision = $2";
    PUT = "INSERT INTO feed_entries (feed, value, policy, until, revision, changed_at, first_at, is_listed) VALUES {8}
        ON CONFLICT (feed, value) DO UPDATE SET policy = excluded.policy, until = excluded.until, revision = excluded.revision,
            changed_at = excluded.changed_at, first_at = excluded.first_at, is_listed = excluded.is_listed";
    FORGET_SOME = "DELETE FROM feed_entries WHERE feed = $1 AND value IN (VALUES {1})";
    OVER = "UPDATE feed_lists SET over_since = $2 WHERE feed = $1 AND over_since IS NULL";
    WITHIN = "UPDATE feed_lists SET over_since = NULL WHERE feed = $1 AND over_since IS NOT NULL";
    FORGET_LIST = "DELETE FROM feed_lists WHERE feed = $1";
    FORGET_ENTRIES = "DELETE FROM feed_entries WHERE feed = $1";
    FORGET_CONSUMERS = "DELETE FROM feed_consumers WHERE feed = $1";
    CONSUMERS = "SELECT feed, consumer, first_at, last_at, address, revision, before, event, silent_since, metrics, metrics_at
        FROM feed_consumers WHERE feed = $1 ORDER BY consumer";
    ALL_CONSUMERS = "SELECT feed, consumer, first_at, last_at, address, revision, before, event, silent_since, metrics, metrics_at
        FROM feed_consumers";
    TOO_LONG = "SELECT feed, over_since IS NOT NULL AS is_too_long FROM feed_lists";
    CONSUMER = "SELECT feed, consumer, first_at, last_at, address, revision, before, event, silent_since, metrics, metrics_at
        FROM feed_consumers WHERE feed = $1 AND consumer = $2";
    /// A fetch that another manager has written meanwhile is not replaced by an earlier one. One of a feed that was
    /// deleted meanwhile is dropped.
    FETCHED = "INSERT INTO feed_consumers (feed, consumer, first_at, last_at, address, revision, before, event)
        SELECT v.column1, v.column2, CAST(v.column3 AS BIGINT), CAST(v.column4 AS BIGINT), v.column5, CAST(v.column6 AS BIGINT),
            CAST(v.column7 AS BIGINT), CAST(v.column8 AS BIGINT)
        FROM (VALUES {8}) AS v JOIN feed_lists ON feed_lists.feed = v.column1 WHERE TRUE
        ON CONFLICT (feed, consumer) DO UPDATE SET last_at = excluded.last_at, address = excluded.address,
            first_at = CASE WHEN feed_consumers.first_at = 0 THEN excluded.first_at ELSE feed_consumers.first_at END,
            revision = excluded.revision, before = excluded.before, event = excluded.event
        WHERE excluded.last_at >= feed_consumers.last_at";
    SILENT = "UPDATE feed_consumers SET silent_since = $3 WHERE feed = $1 AND consumer = $2 AND silent_since IS NULL";
    BACK = "UPDATE feed_consumers SET silent_since = NULL WHERE feed = $1 AND consumer = $2 AND silent_since IS NOT NULL";
    METRICS = "INSERT INTO feed_consumers (feed, consumer, first_at, last_at, address, revision, before, event, metrics, metrics_at)
        VALUES ($1, $2, 0, 0, $4, 0, 0, 0, $5, $3)
        ON CONFLICT (feed, consumer) DO UPDATE SET metrics = excluded.metrics, metrics_at = excluded.metrics_at";
}

/// How far the ledger is: it is as it was while both numbers stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct LedgerMark {
    /// Number of the last entry of the audit log.
    pub seq: i64,
    /// Number of the last event.
    pub events: i64,
}

#[derive(sqlx::FromRow)]
struct BlockedRow {
    agent_id: String,
    action: String,
    target_value: String,
    until: Option<Millis>,
    hold_until: Option<Millis>,
    policy: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ListRow {
    revision: i64,
    event: i64,
    floor: i64,
    over_since: Option<Millis>,
}

#[derive(sqlx::FromRow)]
struct LengthRow {
    feed: String,
    is_too_long: bool,
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    value: String,
    policy: Option<String>,
    until: Option<Millis>,
    revision: i64,
    changed_at: Millis,
    first_at: Millis,
    is_listed: bool,
}

/// A list as it is stored.
#[derive(Clone, Debug, Default)]
pub struct StoredList {
    /// The list.
    pub list: FeedList,
    /// Number of the last event that its last change takes into account.
    pub event: i64,
    /// Since when there is more to list than the feed may hold.
    pub over_since: Option<Timestamp>,
}

/// What is known of a consumer of a feed.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ConsumerRow {
    /// The feed.
    pub feed: String,
    /// Name of its keys.
    pub consumer: String,
    /// Time of the first fetch; the beginning of time before it.
    pub first_at: Millis,
    /// Time of the last fetch.
    pub last_at: Millis,
    /// Client address of the last fetch.
    pub address: String,
    /// Revision of the list that it was last given.
    pub revision: i64,
    /// Revision that it had been given before that.
    pub before: i64,
    /// Number of the last event that the list takes into account.
    pub event: i64,
    /// Since when it is an incident that it does not fetch.
    pub silent_since: Option<Millis>,
    /// What it last said of itself.
    pub metrics: Option<JsonText>,
    /// When it said so.
    pub metrics_at: Option<Millis>,
}

/// Where the ledger stands.
pub async fn stands_at(db: &Db) -> Result<LedgerMark> {
    Ok(db.optional(STANDS_AT, vec![]).await?.unwrap_or_default())
}

/// Every block of an address that is in force or being applied. An effect that another program has changed is not
/// among them.
pub async fn blocked(db: &Db) -> Result<Vec<BlockedTarget>> {
    let rows: Vec<BlockedRow> = db.sealed(&EFFECTS, BLOCKED, vec![]).await?;
    let target = |row: BlockedRow| {
        let until = |at: Option<Millis>| Until::from(at.map(Timestamp::from));
        let agent: Uuid = crate::store::database::columns::id(&row.agent_id)?;
        // Holds have no seal of their own: none lasts longer than its effect.
        let until = until(row.hold_until).min(until(row.until));
        Ok(BlockedTarget { agent, action: row.action, value: row.target_value, until, policy: row.policy })
    };
    rows.into_iter().map(target).collect()
}

/// Begins the list of a new feed.
pub(in crate::store) async fn begin(ledger: &mut LedgerTx, feed: &str) -> Result<()> {
    ledger.tx.execute(BEGIN, binds![feed]).await.map(drop)
}

/// Forgets the list and the consumers of a feed.
pub(in crate::store) async fn forget(ledger: &mut LedgerTx, feed: &str) -> Result<()> {
    for statement in [FORGET_LIST, FORGET_ENTRIES, FORGET_CONSUMERS] {
        ledger.tx.execute(statement, binds![feed]).await?;
    }
    Ok(())
}

/// The list of a feed; `None` without such a feed.
pub async fn find(db: &Db, feed: &str) -> Result<Option<StoredList>> {
    let mut snapshot = db.snapshot().await?;
    let Some(row) = snapshot.optional::<ListRow>(LIST, binds![feed]).await? else { return Ok(None) };
    let rows: Vec<EntryRow> = snapshot.all(ENTRIES, binds![feed]).await?;
    let entries = rows.into_iter().map(|row| {
        let until = Until::from(row.until.map(Timestamp::from));
        let EntryRow { value, policy, revision, changed_at, first_at, is_listed, .. } = row;
        let (changed_at, first_at) = (changed_at.into(), first_at.into());
        (value, FeedEntry { until, policy, revision, changed_at, first_at, is_listed })
    });
    let list = FeedList { revision: row.revision, floor: row.floor, entries: entries.collect() };
    Ok(Some(StoredList { list, event: row.event, over_since: row.over_since.map(Timestamp::from) }))
}

/// Changes the list of a feed, which must be at revision `from`. Returns whether it was.
pub(in crate::store) async fn change(
    ledger: &mut LedgerTx,
    feed: &str,
    from: i64,
    change: &ListChange,
    event: i64,
) -> Result<bool> {
    let ListChange { revision, floor, put, forgotten } = change;
    if ledger.tx.execute(MOVE, binds![feed, from, *revision, event, *floor]).await? == 0 {
        return Ok(false);
    }
    let row = |(value, entry): &(String, FeedEntry)| {
        let FeedEntry { until, policy, revision, changed_at, first_at, is_listed } = entry;
        let (value, policy, until) = (value.as_str(), policy.as_deref(), until.instant());
        binds![feed, value, policy, until, *revision, *changed_at, *first_at, *is_listed]
    };
    ledger.tx.execute_rows(PUT, put.iter().map(row).collect(), vec![]).await?;
    let values = forgotten.iter().map(|value| binds![value.as_str()]).collect();
    ledger.tx.execute_rows(FORGET_SOME, values, binds![feed]).await?;
    Ok(true)
}

/// Records that a feed has more to list than it may hold, or that it has not any more: once each.
pub async fn note_length(
    ledger: &mut LedgerTx,
    feed: &str,
    is_over: bool,
    detail: String,
    now: Timestamp,
) -> Result<()> {
    let changed = if is_over {
        ledger.tx.execute(OVER, binds![feed, now]).await?
    } else {
        ledger.tx.execute(WITHIN, binds![feed]).await?
    };
    if changed > 0 {
        let event = if is_over { AuditEvent::FeedTooLong } else { AuditEvent::FeedServed };
        record(ledger, event, feed, detail, now);
    }
    Ok(())
}

/// What is known of the consumers of all feeds.
pub async fn all_consumers(db: &Db) -> Result<Vec<ConsumerRow>> {
    db.all(ALL_CONSUMERS, vec![]).await
}

/// The feeds, and whether there is more to list than each may hold.
pub async fn too_long(db: &Db) -> Result<Vec<(String, bool)>> {
    let rows: Vec<LengthRow> = db.all(TOO_LONG, vec![]).await?;
    Ok(rows.into_iter().map(|row| (row.feed, row.is_too_long)).collect())
}

/// The consumers of a feed that have fetched it, by name.
pub async fn consumers(db: &Db, feed: &str) -> Result<Vec<ConsumerRow>> {
    db.all(CONSUMERS, binds![feed]).await
}

/// What is known of one consumer.
pub async fn consumer(db: &Db, feed: &str, consumer: &str) -> Result<Option<ConsumerRow>> {
    db.optional(CONSUMER, binds![feed, consumer]).await
}

/// Records fetches.
pub(in crate::store) async fn fetched(ledger: &mut LedgerTx, fetches: Vec<ConsumerRow>) -> Result<usize> {
    let count = fetches.len();
    let rows = fetches.into_iter().map(|fetch| {
        let ConsumerRow { feed, consumer, address, revision, before, event, .. } = fetch;
        let (first_at, last_at) = (Timestamp::from(fetch.first_at), Timestamp::from(fetch.last_at));
        binds![feed, consumer, first_at, last_at, address, revision, before, event]
    });
    ledger.tx.execute_rows(FETCHED, rows.collect(), vec![]).await?;
    Ok(count)
}

/// Records that a consumer does not fetch what it must be told, or fetches again: once each.
pub async fn note_silence(
    ledger: &mut LedgerTx,
    (feed, consumer): (&str, &str),
    is_silent: bool,
    detail: String,
    now: Timestamp,
) -> Result<()> {
    let changed = if is_silent {
        ledger.tx.execute(SILENT, binds![feed, consumer, now]).await?
    } else {
        ledger.tx.execute(BACK, binds![feed, consumer]).await?
    };
    if changed > 0 {
        let event = if is_silent { AuditEvent::FeedNotFetched } else { AuditEvent::FeedFetched };
        record(ledger, event, feed, detail, now);
    }
    Ok(())
}

/// Keeps what a consumer says of itself, in place of what it said before.
pub(in crate::store) async fn keep_metrics(
    ledger: &mut LedgerTx,
    feed: &str,
    consumer: &str,
    address: &str,
    metrics: &str,
    now: Timestamp,
) -> Result<()> {
    ledger.tx.execute(METRICS, binds![feed, consumer, now, address, metrics]).await.map(drop)
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, feed: &str, detail: String, now: Timestamp) {
    let (actor, noun_id) = (Actor::Riposte, feed.to_owned());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn what_is_over_is_not_read_for_a_feed() {
        let plan = plan(BLOCKED).await;
        assert!(!plan.iter().any(|step| step == "SCAN effects" || step.starts_with("SCAN holds")), "{plan:?}");
        assert!(!plan.iter().any(|step| step == "SCAN responses" || step == "SCAN commands"), "{plan:?}");
    }
}
