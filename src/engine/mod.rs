//! FLOOR 3: what happens. One file per stage of the flow: [`intake`] reads alerts and has them decided ([`decide`]) and
//! committed; the [`hub`] knows who is connected, [`deliver`] what each is owed; [`undo`] ends what is over, and the
//! [`sweep`] owns every other deadline.
//!
//! Nothing here is remembered that is not in the store: policies, agents and keys are kept as immutable copies that are
//! replaced when they change.

pub mod backtest;
pub mod capabilities;
pub mod clocks;
pub mod conditions;
mod copies;
pub mod decide;
pub mod deliver;
pub mod health;
pub mod hub;
pub mod intake;
pub mod owed;
mod own_ids;
pub mod readiness;
pub mod rehearsal;
pub mod rehearse;
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
use crate::domain::index::PolicyIndex;
use crate::domain::protected::ProtectedSet;
use crate::domain::shapes::Sources;
use crate::shutdown::Tasks;
use crate::store::db::{Db, Result};
use crate::store::keys::KeyRow;
use crate::store::nodes::Lease;
use crate::store::writer::Writer;
use crate::telemetry::Metrics;
use deliver::Signer;
use hub::Hub;
use owed::OwedReader;
use undo::Undo;

/// Agents whose reports are compared at the same time.
const COMPARING: usize = 2;

/// The engine: everything that stages and handlers share.
#[derive(Debug)]
pub struct Engine {
    /// What is remembered.
    pub db: Db,
    /// The way to change it.
    pub writer: Writer,
    /// The way to ask what agents are owed.
    pub owed_reader: OwedReader,
    /// The time.
    pub clock: Clock,
    /// Who is connected.
    pub hub: Arc<Hub>,
    /// What agents have said lately that they can do.
    pub announcements: capabilities::Announcements,
    /// Whose clock is off.
    pub clocks: clocks::Clocks,
    /// What is counted.
    pub metrics: Metrics,
    /// What can be asked for.
    pub actions: ArcSwap<Catalogue>,
    /// All policies, compiled.
    pub policies: ArcSwap<PolicyIndex>,
    /// All agents.
    pub fleet: ArcSwap<Fleet>,
    /// What no response may touch.
    pub protected: ArcSwap<ProtectedSet>,
    /// Whether nothing new is delivered.
    pub frozen: AtomicBool,
    /// All API keys, by id.
    pub keys: ArcSwap<HashMap<String, KeyRow>>,
    /// The manager's keys.
    pub signer: Signer,
    /// What the undo stage waits for.
    pub undo: Undo,
    /// Fields of the site's own in which observables are looked for.
    pub sources: Sources,
    /// What the configuration says of alerts that come in.
    pub rules: intake::Rules,
    /// When the first key of each pipeline was made.
    pub pipelines: ArcSwap<HashMap<String, Timestamp>>,
    /// Conditions that could not be decided.
    pub conditions: conditions::Conditions,
    /// How long alerts are kept.
    pub alert_retention: Option<Duration>,
    /// Everything that runs.
    pub tasks: Tasks,
    /// How the stages are doing.
    pub health: health::Health,
    /// This manager's hold on the ledger.
    pub lease: Arc<Lease>,
    /// What the last look found that cannot be done.
    pub readiness: readiness::LastLook,
    /// The right to run a backtest.
    pub backtests: Arc<Semaphore>,
    /// The right to compare what an agent says it holds. All agents come back at once after a restart, and deadlines need the same
    /// few reading connections.
    pub comparing: Semaphore,
    /// Held while a copy is read and swapped in, so that an older reading never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
    /// Whether a change may have been committed that the copies do not show; then the sweep takes fresh ones, until it can.
    stale: AtomicBool,
}

impl Engine {
    /// Loads what is remembered and starts the stages.
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
            sources: rules.sources.clone(),
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
        engine.reload_all().await?;
        let agents = crate::store::agents::all(&engine.db).await?;
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
