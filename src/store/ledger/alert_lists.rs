//! Lists of alerts, newest first, by every filter that the API has. No filter reads the alerts that it leaves out: alerts are
//! found by their kind (level, rule, and whether they are astray) and their agent, and by their time of receipt, with which an id
//! begins. The kinds that a filter takes are looked up first, by one step along an index for each.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::alerts::{ASTRAY_AFTER, AlertRow};
use crate::domain::id::bound_at;
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, binds, statements};

/// The columns of a listed alert.
macro_rules! listed {
    () => {
        "alerts.id, alerts.pipeline, alerts.time, alerts.rule_id, alerts.rule_level, alerts.raw"
    };
}

/// The millisecond of an alert's receipt, as the indexes have it.
macro_rules! millisecond {
    () => {
        "substr(alerts.id, 1, 13)"
    };
}

/// That an alert is of one of the `kinds`.
macro_rules! is_of_kind {
    () => {
        "alerts.rule_level = kinds.rule_level AND alerts.rule_id = kinds.rule_id AND alerts.is_astray = kinds.is_astray"
    };
}

/// What a list of alerts that are astray takes: `$1` the id before which to read, `$2` and `$3` the times, then rule, level, agent.
macro_rules! is_asked {
    ($time:literal) => {
        concat!(
            "alerts.is_astray = TRUE AND alerts.id < $1 AND ",
            $time,
            " >= $2 AND ",
            $time,
            " < $3 AND ($4 IS NULL OR alerts.rule_id = $4) AND ($5 IS NULL OR alerts.rule_level >= $5)
                AND ($6 IS NULL OR alerts.agent_id = $6)"
        )
    };
}

/// The newest alerts of some kinds: `$1` the id before which to read, `$2` its millisecond, `$3` the first millisecond, `$4` the
/// number of alerts, `$5` that number less one. Each kind alone shows how far back a page can reach at most (`newest`); then all of
/// them do (`page`), by the index alone; and only then are rows read. Of the millisecond `$2` an unknown part is left, so it
/// does not count.
macro_rules! page_of_kinds {
    ($of_agent:literal) => {
        concat!(
            "WITH kinds AS MATERIALIZED (SELECT CAST(v.column1 AS BIGINT) AS rule_level, v.column2 AS rule_id,
                CAST(v.column3 AS BOOLEAN) AS is_astray FROM (VALUES {3}) AS v),
            newest AS MATERIALIZED (SELECT MAX(edges.edge) AS edge FROM (SELECT (
                SELECT ",
            millisecond!(),
            " FROM alerts WHERE ",
            $of_agent,
            is_of_kind!(),
            " AND ",
            millisecond!(),
            " < $2
                ORDER BY ",
            millisecond!(),
            " DESC LIMIT 1 OFFSET $5) AS edge FROM kinds) AS edges),
            page AS MATERIALIZED (SELECT COALESCE((
                SELECT ",
            millisecond!(),
            " FROM kinds CROSS JOIN alerts WHERE ",
            $of_agent,
            is_of_kind!(),
            "
                    AND ",
            millisecond!(),
            " < $2
                    AND ",
            millisecond!(),
            " >= CASE WHEN newest.edge > $3 THEN newest.edge ELSE $3 END
                ORDER BY ",
            millisecond!(),
            " DESC LIMIT 1 OFFSET $5), $3) AS edge FROM newest)
            SELECT ",
            listed!(),
            " FROM page CROSS JOIN kinds CROSS JOIN alerts
            WHERE ",
            $of_agent,
            is_of_kind!(),
            " AND ",
            millisecond!(),
            " <= $2 AND ",
            millisecond!(),
            " >= page.edge
                AND alerts.id < $1
            ORDER BY alerts.id DESC LIMIT $4"
        )
    };
}

statements! {
    NEWEST = concat!("SELECT ", listed!(), " FROM alerts WHERE id < $1 ORDER BY id DESC LIMIT $2");
    /// The newest, of which a page may be full already.
    NEWEST_FROM_LEVEL = concat!("SELECT ", listed!(), " FROM (
            SELECT ", listed!(), ", alerts.is_astray FROM alerts WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3) AS alerts
        WHERE rule_level >= $4 AND ($5 = FALSE OR is_astray = FALSE) AND time >= $6 AND time < $7
        ORDER BY id DESC LIMIT $8");
    TIMED = concat!("SELECT ", listed!(), " FROM alerts
        WHERE id < $1 AND id >= $2 AND is_astray = FALSE AND time >= $3 AND time < $4 ORDER BY id DESC LIMIT $5");
    /// From the newest on, by the index alone: a sum is in no index, so that the times do not choose another one.
    ASTRAY = concat!("WITH page AS MATERIALIZED (SELECT alerts.id FROM alerts
            WHERE ", is_asked!("alerts.time + 0"), " ORDER BY alerts.id DESC LIMIT $7)
        SELECT ", listed!(), " FROM page JOIN alerts ON alerts.id = page.id ORDER BY alerts.id DESC");
    /// All of the times that are asked for, sorted.
    ASTRAY_BETWEEN = concat!("WITH found AS MATERIALIZED (SELECT alerts.id FROM alerts
            WHERE ", is_asked!("alerts.time"), "),
        page AS MATERIALIZED (SELECT id FROM found ORDER BY id DESC LIMIT $7)
        SELECT ", listed!(), " FROM page JOIN alerts ON alerts.id = page.id ORDER BY alerts.id DESC");
    OF_SOURCE = concat!("SELECT ", listed!(), " FROM alerts
        WHERE pipeline_id = $7 AND id < $1 AND ($2 IS NULL OR rule_id = $2) AND ($3 IS NULL OR rule_level >= $3)
            AND ($4 IS NULL OR agent_id = $4) AND ($5 IS NULL OR time >= $5) AND ($6 IS NULL OR time < $6)
        ORDER BY id DESC LIMIT $8");
    /// One step for each kind, however many alerts there are of it. SQLite compares a text with a column by the index only if
    /// the text is no column itself.
    KINDS = "WITH RECURSIVE walk (id) AS (
            SELECT (SELECT alerts.id FROM alerts WHERE alerts.rule_level >= $1
                ORDER BY alerts.rule_level, alerts.rule_id, alerts.is_astray LIMIT 1)
            UNION ALL
            SELECT (SELECT alerts.id FROM alerts
                WHERE (alerts.rule_level, alerts.rule_id, alerts.is_astray) > (seen.rule_level, seen.rule_id || '', seen.is_astray)
                ORDER BY alerts.rule_level, alerts.rule_id, alerts.is_astray LIMIT 1)
            FROM walk JOIN alerts AS seen ON seen.id = walk.id)
        SELECT kinds.rule_level, kinds.rule_id, kinds.is_astray FROM walk JOIN alerts AS kinds ON kinds.id = walk.id";
    /// As [`KINDS`], of one agent.
    KINDS_OF_AGENT = "WITH RECURSIVE walk (id) AS (
            SELECT (SELECT alerts.id FROM alerts WHERE alerts.agent_id = $1
                ORDER BY alerts.rule_level, alerts.rule_id, alerts.is_astray LIMIT 1)
            UNION ALL
            SELECT (SELECT alerts.id FROM alerts
                WHERE alerts.agent_id = $1
                    AND (alerts.rule_level, alerts.rule_id, alerts.is_astray) > (seen.rule_level, seen.rule_id || '', seen.is_astray)
                ORDER BY alerts.rule_level, alerts.rule_id, alerts.is_astray LIMIT 1)
            FROM walk JOIN alerts AS seen ON seen.id = walk.id)
        SELECT kinds.rule_level, kinds.rule_id, kinds.is_astray FROM walk JOIN alerts AS kinds ON kinds.id = walk.id
        WHERE ($2 IS NULL OR kinds.rule_level >= $2) AND ($3 IS NULL OR kinds.rule_id = $3)";
    LEVELS = "WITH RECURSIVE levels (rule_level) AS (
            SELECT (SELECT alerts.rule_level FROM alerts WHERE alerts.rule_level >= $1 ORDER BY alerts.rule_level LIMIT 1)
            UNION ALL
            SELECT (SELECT alerts.rule_level FROM alerts WHERE alerts.rule_level > levels.rule_level
                ORDER BY alerts.rule_level LIMIT 1)
            FROM levels WHERE levels.rule_level IS NOT NULL)
        SELECT rule_level FROM levels WHERE rule_level IS NOT NULL";
    PAGE_OF_KINDS = page_of_kinds!("");
    PAGE_OF_AGENT = page_of_kinds!("alerts.agent_id = $6 AND ");
}

/// How many of the newest alerts are read at least to fill a page by level, and how many for each one of the page. A low level is
/// that of many rules, and of most alerts.
const LOOKED_AT: (i64, i64) = (400, 8);
/// Kinds of one statement: what it finds bounds how far back the next one reads.
const KINDS_AT_ONCE: usize = 32;
/// Alerts that are read at a time, if some of them are outside of the time asked for.
const BATCH: i64 = 512;

/// Filter of an alert list.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// Id in the pipeline.
    pub source_id: Option<String>,
    /// Rule id.
    pub rule_id: Option<String>,
    /// Minimum rule level.
    pub min_level: Option<i64>,
    /// Agent id in the pipeline.
    pub agent_id: Option<String>,
    /// Earliest event time, inclusive.
    pub since: Option<Timestamp>,
    /// Latest event time, exclusive.
    pub until: Option<Timestamp>,
}

impl AlertFilter {
    const fn is_timed(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// The times that are asked for, in milliseconds.
    fn times(&self) -> (i64, i64) {
        (self.since.map_or(i64::MIN, Timestamp::as_millis), self.until.map_or(i64::MAX, Timestamp::as_millis))
    }

    /// The ids between which alerts are that are not astray.
    fn ids(&self, before: Uuid) -> (Uuid, Uuid) {
        let from = self.since.map_or(Uuid::nil(), |since| bound_at(since.minus(ASTRAY_AFTER)));
        let until = self.until.map_or(Uuid::max(), |until| bound_at(until.plus(ASTRAY_AFTER)));
        (from, before.min(until))
    }
}

#[derive(sqlx::FromRow)]
struct Level {
    rule_level: i64,
}

/// A rule at one of its levels, and whether the alerts are astray.
#[derive(sqlx::FromRow)]
struct Kind {
    rule_level: i64,
    rule_id: String,
    is_astray: bool,
}

/// A page of alerts, newest first, older than `before`.
pub async fn list(db: &Db, filter: AlertFilter, before: Option<Uuid>, limit: i64) -> Result<Vec<AlertRow>> {
    let before = before.unwrap_or(Uuid::max());
    if let Some(own_id) = filter.source_id {
        let AlertFilter { rule_id, min_level, agent_id, since, until, .. } = filter;
        return db.all(OF_SOURCE, binds![before, rule_id, min_level, agent_id, since, until, own_id, limit]).await;
    }
    let mut found = match (&filter.agent_id, &filter.rule_id, filter.min_level) {
        (None, None, None) => in_order(db, &filter, before, limit).await?,
        (None, None, Some(level)) => from_level(db, &filter, level, before, limit).await?,
        _ => by_kind(db, &filter, before, limit).await?,
    };
    if filter.is_timed() {
        found.extend(astray(db, &filter, before, limit).await?);
        found.sort_unstable_by(|one, other| other.id.cmp(&one.id));
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// Alerts of any kind and agent. With a time, those that are not astray.
async fn in_order(db: &Db, filter: &AlertFilter, before: Uuid, limit: i64) -> Result<Vec<AlertRow>> {
    if !filter.is_timed() {
        return db.all(NEWEST, binds![before, limit]).await;
    }
    let ((from, before), (since, until)) = (filter.ids(before), filter.times());
    db.all(TIMED, binds![before, from, since, until, limit]).await
}

/// Alerts from a level on, of any rule and agent: the newest ones, if that is a page already.
async fn from_level(db: &Db, filter: &AlertFilter, level: i64, before: Uuid, limit: i64) -> Result<Vec<AlertRow>> {
    let ((from, last), (since, until)) = (filter.ids(before), filter.times());
    let looked_at = LOOKED_AT.0.max(limit * LOOKED_AT.1);
    let binds = binds![last, from, looked_at, level, filter.is_timed(), since, until, limit];
    let newest: Vec<AlertRow> = db.all(NEWEST_FROM_LEVEL, binds).await?;
    let is_full = i64::try_from(newest.len()).is_ok_and(|found| found >= limit);
    if is_full { Ok(newest) } else { by_kind(db, filter, before, limit).await }
}

/// Alerts of the kinds that the filter takes. With a time, those that are not astray.
async fn by_kind(db: &Db, filter: &AlertFilter, before: Uuid, limit: i64) -> Result<Vec<AlertRow>> {
    let is_timed = filter.is_timed();
    let mut kinds = kinds(db, filter).await?;
    kinds.retain(|kind| !(is_timed && kind.is_astray));
    let ((from, mut before), (since, until)) = (filter.ids(before), filter.times());
    let batch = if is_timed { limit.max(BATCH) } else { limit };
    let mut found = Vec::new();
    while !kinds.is_empty() {
        let listed = page_of(db, &kinds, filter.agent_id.as_deref(), (from, before), batch).await?;
        let is_last = i64::try_from(listed.len()).is_ok_and(|read| read < batch);
        if let Some(last) = listed.last() {
            before = id(&last.id)?;
        }
        let is_asked = |alert: &AlertRow| (since..until).contains(&Timestamp::from(alert.time).as_millis());
        found.extend(listed.into_iter().filter(|alert| !is_timed || is_asked(alert)));
        if is_last || i64::try_from(found.len()).is_ok_and(|found| found >= limit) {
            break;
        }
    }
    Ok(found)
}

/// The kinds of alerts that the filter takes.
async fn kinds(db: &Db, filter: &AlertFilter) -> Result<Vec<Kind>> {
    let AlertFilter { rule_id, min_level, agent_id, .. } = filter;
    if let Some(agent) = agent_id {
        return db.all(KINDS_OF_AGENT, binds![agent.as_str(), *min_level, rule_id.as_deref()]).await;
    }
    let Some(rule) = rule_id else { return db.all(KINDS, binds![min_level.unwrap_or(i64::MIN)]).await };
    let levels: Vec<Level> = db.all(LEVELS, binds![min_level.unwrap_or(i64::MIN)]).await?;
    let kind = |level: &Level, is_astray| Kind { rule_level: level.rule_level, rule_id: rule.clone(), is_astray };
    Ok(levels.iter().flat_map(|level| [kind(level, false), kind(level, true)]).collect())
}

/// The newest alerts of these kinds, with ids between the two.
async fn page_of(
    db: &Db,
    kinds: &[Kind],
    agent: Option<&str>,
    (from, before): (Uuid, Uuid),
    limit: i64,
) -> Result<Vec<AlertRow>> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut listed, mut from) = (Vec::<AlertRow>::new(), millisecond(&from.to_string()));
    let statement = if agent.is_some() { PAGE_OF_AGENT } else { PAGE_OF_KINDS };
    for kinds in kinds.chunks(KINDS_AT_ONCE) {
        let rows = kinds.iter().map(|kind| binds![kind.rule_level, kind.rule_id.as_str(), kind.is_astray]).collect();
        let mut first = binds![before, millisecond(&before.to_string()), from.as_str(), limit, limit - 1];
        first.extend(agent.map(Bind::from));
        listed.extend(db.each_row::<AlertRow>(statement, rows, first).await?);
        listed.sort_unstable_by(|one, other| other.id.cmp(&one.id));
        listed.truncate(most);
        if let Some(last) = listed.last().filter(|_| listed.len() == most) {
            from = millisecond(&last.id);
        }
    }
    Ok(listed)
}

/// Alerts that are astray, by their own time.
async fn astray(db: &Db, filter: &AlertFilter, before: Uuid, limit: i64) -> Result<Vec<AlertRow>> {
    let (since, until) = filter.times();
    let AlertFilter { rule_id, min_level, agent_id, .. } = filter;
    let binds = binds![before, since, until, rule_id.as_deref(), *min_level, agent_id.as_deref(), limit];
    // Between two times are few; before one can be most of them.
    let statement = if filter.since.is_some() && filter.until.is_some() { ASTRAY_BETWEEN } else { ASTRAY };
    db.all(statement, binds).await
}

/// The first characters of an id, as the indexes have them.
fn millisecond(alert: &str) -> String {
    alert.chars().take(13).collect()
}

#[cfg(test)]
mod tests;
