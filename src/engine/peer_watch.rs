//! The tasks between this manager and the others on the same database: sending hints (`peers.rs`),
//! listening for theirs, and the look at the ledger that is the guarantee behind the hints.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::time::Instant;

use super::Engine;
use super::peers::{Hints, Outgoing};
use crate::store::configured::changes;
use crate::store::database::hints::{self, Hint};
use crate::store::database::{Result, presence};
use crate::store::ledger::queue;

/// Least time between two notices. The first hint is sent at once; those that come meanwhile are collected.
const COLLECT: Duration = Duration::from_millis(5);
/// Least and longest time between two looks at the ledger.
const LOOK_MILLIS: std::ops::Range<u64> = 1000..2000;
/// Time limit of a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between two looks at the own lease.
const LEASE_EVERY: Duration = Duration::from_millis(500);
/// Name of the look.
const STAGE: &str = "peers";
/// Delay before a lost connection for hints is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Sends hints, if managers give any, and writes which connections have ended, until the engine stops.
pub(super) async fn tell(engine: &Engine, pool: PgPool, Hints(mut outgoing): Hints, gives_hints: bool) {
    let stop = engine.tasks.finishing().clone();
    loop {
        let first = tokio::select! {
            first = outgoing.recv() => first,
            () = stop.cancelled() => return,
        };
        let Some(first) = first else { return };
        let (mut wake, mut look, mut closes, mut gone) = (BTreeSet::new(), false, Vec::new(), Vec::new());
        for hint in std::iter::once(first).chain(std::iter::from_fn(|| outgoing.try_recv().ok())) {
            match hint {
                Outgoing::Wake(agents) => wake.extend(agents),
                Outgoing::Look => look = true,
                Outgoing::Close { node, agent, number, run } => closes.push((node, agent, number, run)),
                Outgoing::Left(agent, number) => gone.push((agent, number)),
            }
        }
        let node = engine.lease.node();
        let told: Result<()> = async {
            if !gives_hints {
                closes.clear();
            } else if look {
                hints::look(&pool, node).await?;
            } else if !wake.is_empty() {
                hints::wake(&pool, node, &wake.into_iter().collect::<Vec<_>>()).await?;
            }
            for (node, agent, number, run) in closes {
                hints::close(&pool, &node, agent, number, run).await?;
            }
            if gone.is_empty() { Ok(()) } else { presence::left(&pool, node, &gone).await }
        }
        .await;
        if let Err(error) = told {
            tracing::debug!("a hint to other managers was lost: {}", error.in_words());
        }
        tokio::time::sleep(COLLECT).await;
    }
}

/// Listens for hints, and looks at the ledger, until the engine stops.
pub(super) async fn run(engine: &Arc<Engine>, pool: PgPool, hears_hints: bool) {
    let stop = engine.tasks.stopping().clone();
    engine.health.expect(STAGE, Duration::from_millis(LOOK_MILLIS.end), engine.clock.now());
    let mut ear =
        Ear { pool, node: engine.lease.node().to_owned(), listener: None, again_at: Instant::now(), is_told: false };
    let mut mark = 0;
    let mut look_at = Instant::now();
    while !stop.is_cancelled() {
        let hint = tokio::select! {
            hint = ear.hear(), if hears_hints => hint,
            () = engine.lease.lapsed() => Some(Hint::Look),
            () = tokio::time::sleep_until(look_at) => Some(Hint::Look),
            () = stop.cancelled() => return,
        };
        match hint {
            Some(Hint::Wake(agents)) => engine.hub.wake(&agents),
            Some(Hint::Close(agent, number, run)) => engine.hub.supersede(agent, number, run),
            Some(Hint::Look) => {
                let begun = engine.clock.now();
                let looked = tokio::time::timeout(LOOK_TIMEOUT, look(engine, &mut mark)).await;
                let fault = match looked {
                    Ok(looked) => looked.err().map(|error| error.in_words()),
                    Err(_) => Some("the database does not answer".to_owned()),
                };
                if let Some(fault) = &fault {
                    tracing::warn!("what other managers have changed could not be read, retrying: {fault}");
                }
                engine.health.report(STAGE, (begun, engine.clock.now()), fault);
                look_at = Instant::now() + jitter();
            }
            None => {}
        }
    }
}

/// Closes the streams of this manager when it has lost its lease and there are others: its agents go on there.
pub(super) async fn send_agents_on(engine: &Engine) {
    let stop = engine.tasks.stopping().clone();
    let mut was_held = true;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LEASE_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let is_held = engine.lease.is_held();
        if was_held && !is_held && engine.peers.others.load(Ordering::Relaxed) > 0 {
            tracing::warn!("this manager has no lease any more: its agents are sent on to the others");
            engine.hub.disconnect(|_| true);
        }
        was_held = is_held;
    }
}

fn jitter() -> Duration {
    let mut random = [0; 8];
    // Without random numbers all look in the same rhythm, which is no harm.
    let random = getrandom::fill(&mut random).map_or(0, |()| u64::from_le_bytes(random));
    Duration::from_millis(LOOK_MILLIS.start + random % (LOOK_MILLIS.end - LOOK_MILLIS.start))
}

/// Puts into force what was changed, and wakes the agents that have new commands.
async fn look(engine: &Arc<Engine>, mark: &mut i64) -> Result<()> {
    let stands = changes::stands_at(&engine.db).await?;
    if engine.lease.is_behind() {
        engine.serve().await?;
        engine.hub.wake_all();
    } else {
        if stands.epoch > engine.epochs.applied() {
            engine.catch_up().await?;
        }
        // What could not be said before.
        engine.lease.publish(engine.epochs.applied()).await?;
    }
    if stands.seq > *mark {
        if *mark > 0 {
            engine.hub.wake(&queue::queued_after(&engine.db, *mark).await?);
            engine.undo.look_again();
        }
        *mark = stands.seq;
    }
    let nodes = engine.lease.nodes().await?;
    let others = nodes.iter().filter(|node| node.lease_millis > 0 && node.id != engine.lease.node()).count();
    engine.peers.others.store(i64::try_from(others).unwrap_or(i64::MAX), Ordering::Relaxed);
    let duties = engine.lease.claim().await?;
    let before = engine.duties.swap(Arc::new(duties.clone()));
    if before.own != duties.own {
        // What the owner before had planned is not known here.
        engine.undo.look_again();
        let names: Vec<&str> = duties.own.keys().map(|duty| duty.as_str()).collect();
        tracing::info!(
            "this manager has the duties: {}",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        );
    }
    let clock = engine.lease.clock_off();
    let clock = clock.map(|off| format!("this host's clock is {} s apart from the database's", off.as_secs()));
    engine.health.warn("clock of the database", clock.as_deref());
    Ok(())
}

/// The connection on which hints arrive.
struct Ear {
    pool: PgPool,
    node: String,
    listener: Option<PgListener>,
    again_at: Instant,
    /// Whether the log has that there are no hints.
    is_told: bool,
}

impl Ear {
    /// The next hint; after a lost connection, one to look.
    async fn hear(&mut self) -> Option<Hint> {
        let Some(listener) = &mut self.listener else {
            tokio::time::sleep_until(self.again_at).await;
            self.again_at = Instant::now() + LISTEN_AGAIN;
            match hints::listen(&self.pool, &self.node).await {
                Ok(listener) => {
                    self.is_told = false;
                    self.listener = Some(listener);
                }
                Err(error) if !self.is_told => {
                    self.is_told = true;
                    let why = error.in_words();
                    tracing::warn!("other managers cannot give hints ({why}); this one looks every one or two seconds");
                }
                Err(_) => {}
            }
            return None;
        };
        match listener.recv().await {
            Ok(notification) => Some(Hint::parse(notification.payload())),
            Err(_) => {
                self.listener = None;
                Some(Hint::Look)
            }
        }
    }
}
