//! Backtest: what a draft policy would have done over the stored alerts, before it is enabled.
//! Every alert is decided as at intake, with today's agents and protected entries. Thresholds,
//! limits and cooldowns follow the alerts' own times, because alerts ingested within an hour may
//! span a month. Nothing is written.
//!
//! Memory does not grow with the number of alerts: they are read page by page, and counters are
//! bounded by windows and hashes.

pub mod guardrails;

use std::sync::Arc;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use super::decide::{Ages, Circumstances, decide};
use crate::domain::formats;
use crate::domain::index::{PolicyIndex, VersionedPolicy};
use crate::domain::policy::Policy;
use crate::store::database::columns::id;
use crate::store::database::{Result, StoreError};
use crate::store::ledger::alerts::{self, AlertRow};
use crate::views::backtest::BacktestReport;
use guardrails::{GuardrailReplay, Judged};

/// Alerts per page: enough to keep both cores busy, few enough to hold in memory.
const PAGE: i64 = 2000;

/// The policy to test, and its range of alerts.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The draft policy.
    pub policy: Arc<Policy>,
    /// Earliest event time, inclusive.
    pub since: Option<Timestamp>,
    /// Latest event time, exclusive.
    pub until: Option<Timestamp>,
    /// Number of examples to return.
    pub samples: usize,
}

/// Runs `draft` over the stored alerts; `progress` receives the scanned and the total number.
///
/// # Errors
/// If the store cannot be read.
pub async fn backtest(engine: &Arc<Engine>, draft: Draft, progress: impl Fn(u64, u64)) -> Result<BacktestReport> {
    let Draft { policy, since, until, samples } = draft;
    let total = alerts::count_between(&engine.db, since, until).await?;
    let index =
        Arc::new(PolicyIndex::compile(vec![Arc::new(VersionedPolicy { policy: Arc::clone(&policy), version: 0 })]));
    let mut replay = GuardrailReplay::new(&policy, samples);
    let (mut after, mut scanned) = (Uuid::nil(), 0_u64);
    let mut pages = std::collections::VecDeque::new();
    loop {
        let page = alerts::scan(&engine.db, after, since, until, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = id(&last.id)?;
        scanned += page.len() as u64;
        let (engine, index) = (Arc::clone(engine), Arc::clone(&index));
        pages.push_back(tokio::task::spawn_blocking(move || judge(&engine, &index, page)));
        // Reads the next page while this one is decided; more than two pages would only use memory.
        if pages.len() > 2
            && let Some(judged) = pages.pop_front()
        {
            replay.take(joined(judged.await)?);
            progress(scanned, total);
        }
    }
    for judged in pages {
        replay.take(joined(judged.await)?);
    }
    progress(total, total);
    Ok(replay.report(total))
}

fn joined(judged: std::result::Result<Result<Vec<Judged>>, tokio::task::JoinError>) -> Result<Vec<Judged>> {
    judged.map_err(|error| StoreError::Corrupt(format!("a page of alerts could not be decided: {error}")))?
}

fn judge(engine: &Engine, index: &PolicyIndex, page: Vec<AlertRow>) -> Result<Vec<Judged>> {
    let (actions, fleet) = (engine.actions.load(), engine.fleet.load());
    let (protected, now) = (engine.protected.load(), engine.clock.now());
    let circumstances = Circumstances {
        policies: index,
        actions: &actions,
        fleet: &fleet,
        protected: &protected,
        now,
        ages: Ages::NotJudged,
        trace: None,
    };
    let mut judged = Vec::new();
    for row in page {
        if !index.could_match(&row.rule_id, u8::try_from(row.rule_level).unwrap_or(0)) {
            continue;
        }
        let raw = row.text()?;
        // A newer version may refuse a stored alert, or its mapping may be gone; it then matches no policy.
        let Ok(alert) = formats::parse(&raw, &engine.mappings, Some(&row.pipeline)) else { continue };
        let alert_id = id(&row.id)?;
        let alert = alert.received(alerts::received(&alert_id));
        let Some(response) = decide(alert_id, &alert, &raw, circumstances).responses.pop() else { continue };
        judged.push(Judged { alert_id, time: row.time.into(), rule_id: row.rule_id, response });
    }
    Ok(judged)
}
