//! The engine layer: one file per stage of the flow. [`intake`] parses alerts and has them decided
//! ([`decide`]) and committed; the [`hub`] knows the connections, [`deliver`] the pending commands;
//! [`undo`] ends expired responses, and the [`sweep`] owns every other deadline.
//!
//! The store is the only durable state. Policies, agents and keys are cached as immutable snapshots
//! that are replaced on change.

mod actions;
pub mod agents;
pub mod backtest;
mod cache;
pub mod capabilities;
pub mod clocks;
pub mod conditions;
pub mod decide;
pub mod deliver;
pub mod health;
pub mod hub;
pub mod idempotency;
mod import;
pub mod intake;
pub mod keys;
pub mod owed_batch;
mod own_ids;
mod policies;
pub mod policy_tests;
mod protected;
pub mod readiness;
pub mod refusal;
pub mod respond;
pub mod sweep;
pub mod undo;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use riposte_protocol::time::Timestamp;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::domain::action::Catalogue;
use crate::domain::fleet::Fleet;
use crate::domain::formats::ObservableMappings;
use crate::domain::index::PolicyIndex;
use crate::domain::protected::ProtectedSet;
use crate::shutdown::Tasks;
use crate::store::configured::keys::StoredKey;
use crate::store::database::nodes::Lease;
use crate::store::database::{Db, Result};
use crate::store::writer::Writer;
use crate::telemetry::Metrics;
use deliver::Signer;
use hub::Hub;
use owed_batch::OwedReader;
use undo::Undo;

/// Concurrent comparisons of agents' reports.
const COMPARING: usize = 2;

/// The state that stages and handlers share.
#[derive(Debug)]
pub struct Engine {
    /// The database.
    pub db: Db,
    /// The group commit.
    pub writer: Writer,
    /// Batched queries for pending commands.
    pub owed_reader: OwedReader,
    /// The clock.
    pub clock: Clock,
    /// When this manager started.
    pub started_at: Timestamp,
    /// Who is connected.
    pub hub: Arc<Hub>,
    /// Rate limit for announced capabilities.
    pub announcements: capabilities::Announcements,
    /// Clock skew of agents.
    pub clocks: clocks::Clocks,
    /// Metrics.
    pub metrics: Metrics,
    /// Cache: actions.
    pub actions: ArcSwap<Catalogue>,
    /// Cache: compiled policies.
    pub policies: ArcSwap<PolicyIndex>,
    /// Cache: agents.
    pub fleet: ArcSwap<Fleet>,
    /// Cache: protected entries.
    pub protected: ArcSwap<ProtectedSet>,
    /// Cache: the freeze.
    pub frozen: AtomicBool,
    /// Cache: API keys by id.
    pub keys: ArcSwap<HashMap<String, StoredKey>>,
    /// The manager's signing keys.
    pub signer: Signer,
    /// Wake-ups of the undo stage.
    pub undo: Undo,
    /// Site-specific fields that hold observables.
    pub mappings: ObservableMappings,
    /// Configuration of the intake.
    pub rules: intake::Rules,
    /// Creation time of each pipeline's first key.
    pub pipelines: ArcSwap<HashMap<String, Timestamp>>,
    /// Failed conditions.
    pub conditions: conditions::Conditions,
    /// Retention of alerts; `None`: without limit.
    pub alert_retention: Option<Duration>,
    /// Tracker of all tasks.
    pub tasks: Tasks,
    /// Health of the stages.
    pub health: health::Health,
    /// This manager's lease on the ledger.
    pub lease: Arc<Lease>,
    /// Cached result of the readiness check.
    pub readiness: readiness::LastLook,
    /// Permits for backtests.
    pub backtests: Arc<Semaphore>,
    /// Permits for comparing agents' reports. After a restart all agents report at once, and
    /// deadlines need the same few read connections.
    pub comparing: Semaphore,
    /// Held while a cache is refreshed, so that an older read never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
    /// Whether a change may have been committed that the caches do not show; then the sweep refreshes them, until it can.
    stale: AtomicBool,
}

impl Engine {
    /// Loads the caches and starts the stages.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(
        db: Db,
        clock: Clock,
        signer: Signer,
        rules: intake::Rules,
        alert_retention: Option<Duration>,
        lease: Arc<Lease>,
        tasks: Tasks,
    ) -> Result<Arc<Self>> {
        let hub = Arc::new(Hub::default());
        let wake = {
            let hub = Arc::clone(&hub);
            Arc::new(move |agents: &[uuid::Uuid]| hub.wake(agents))
        };
        let finish = tasks.finishing().clone();
        let (writer, write) = Writer::start(db.clone(), clock.clone(), wake, finish);
        tasks.spawn("writer", write);
        let (owed_reader, read) = OwedReader::start(db.clone(), tasks.finishing().clone());
        tasks.spawn("owed", read);
        let metrics = Metrics { responses_ended: db.ended().0.clone(), ..Metrics::default() };
        let engine = Arc::new(Self {
            db,
            writer,
            owed_reader,
            started_at: clock.now(),
            clock,
            hub,
            announcements: capabilities::Announcements::default(),
            clocks: clocks::Clocks::default(),
            metrics,
            actions: ArcSwap::default(),
            policies: ArcSwap::default(),
            fleet: ArcSwap::default(),
            protected: ArcSwap::default(),
            frozen: AtomicBool::new(false),
            keys: ArcSwap::default(),
            signer,
            undo: Undo::default(),
            mappings: rules.mappings.clone(),
            rules,
            pipelines: ArcSwap::default(),
            conditions: conditions::Conditions::default(),
            alert_retention,
            tasks: tasks.clone(),
            health: health::Health::default(),
            lease,
            readiness: readiness::LastLook::default(),
            backtests: Arc::new(Semaphore::new(backtest::AT_ONCE)),
            comparing: Semaphore::new(COMPARING),
            reloading: tokio::sync::Mutex::default(),
            stale: AtomicBool::new(false),
        });
        engine.refresh_all().await?;
        let agents = crate::store::configured::agents::all(&engine.db).await?;
        for found in crate::domain::duplicates::of(&agents) {
            tracing::warn!("alerts may not find their agent: {found}");
        }
        let stage = Arc::clone(&engine);
        tasks.spawn("undo", async move { undo::run(&stage).await });
        let stage = Arc::clone(&engine);
        tasks.spawn("tidy", async move { sweep::tidy(&stage).await });
        let stage = Arc::clone(&engine);
        tasks.spawn("readiness", async move { readiness::watch(&stage).await });
        let stage = Arc::clone(&engine);
        tasks.spawn("sweep", async move { sweep::run(&stage).await });
        Ok(engine)
    }
}
