//! The start of the engine: reads the caches, then starts the stages that run by themselves.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Semaphore;

use super::access_tokens::AccessTokens;
use super::agent_tokens::AgentTokens;
use super::announcements::Announcements;
use super::checkpoint_webhook::CheckpointWebhook;
use super::clocks::Clocks;
use super::conditions::Conditions;
use super::deliveries::Deliveries;
use super::denials::DenialLog;
use super::epochs::Epochs;
use super::failed_logins::FailedLoginLog;
use super::feed::Feed;
use super::health::Health;
use super::hub::Hub;
use super::key_uses::KeyUses;
use super::last_look::LastLook;
use super::lockouts::Lockouts;
use super::owed_batch::OwedReader;
use super::passwords::Passwords;
use super::peers::{Hints, Peers};
use super::pull_feeds::kept::PullFeeds;
use super::state::ManagerKeys;
use super::told_presence::PresenceNews;
use super::undo_timer::UndoTimer;
use super::{Engine, EngineSettings, checkpoints, feed_reader, peer_watch, readiness, sweep, undo, webhooks};
use crate::clock::Clock;
use crate::config::CheckpointPlaces;
use crate::domain::action::hidden::remedy;
use crate::domain::approval_link::ApprovalLinks;
use crate::shutdown::Tasks;
use crate::store::configured::changes;
use crate::store::database::nodes::Lease;
use crate::store::database::{Db, Result, StoreError};
use crate::store::seals::whole;
use crate::store::writer::Writer;
use crate::telemetry::Metrics;

/// Concurrent comparisons of agents' reports.
const COMPARING: usize = 2;
/// Concurrent backtests: each uses a full core.
const BACKTESTING: usize = 1;

impl Engine {
    /// Loads the caches and starts the stages.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(
        db: Db,
        clock: Clock,
        keys: ManagerKeys,
        settings: EngineSettings,
        lease: Arc<Lease>,
        tasks: Tasks,
    ) -> Result<Arc<Self>> {
        let ManagerKeys { signer, ledger_key, accepts } = keys;
        // Before anything is read that grants power.
        Box::pin(whole::arm(&db, &ledger_key, accepts, clock.now())).await?;
        Box::pin(whole::examine(&db)).await?;
        let EngineSettings { rules, retention, providers, egress, agent_key_max_age, .. } = settings;
        let feed = Feed::new(&settings.public_url);
        let (places, webhook, peer_hints) = (settings.checkpoints, settings.checkpoint_webhook, settings.peer_hints);
        let access_tokens = AccessTokens::new(signer.root(), signer.next_root(), clock.now())
            .map_err(|_| StoreError::Corrupt("no key follows from the signing key".into()))?;
        let hub = Arc::new(Hub::default());
        let (peers, hints) = Peers::new(lease.peers().is_some());
        let peers = Arc::new(peers);
        let wake = {
            let (hub, peers) = (Arc::clone(&hub), Arc::clone(&peers));
            Arc::new(move |agents: &[uuid::Uuid]| {
                hub.wake(agents);
                peers.wake(agents);
            })
        };
        let finish = tasks.finishing().clone();
        let (writer, write) = Writer::start(db.clone(), clock.clone(), wake, finish);
        if db.blocks() {
            tasks.spawn_aside("writer", write);
        } else {
            tasks.spawn("writer", write);
        }
        let (owed_reader, read) = OwedReader::start(db.clone(), tasks.finishing().clone());
        tasks.spawn("owed", read);
        let approval_links = ApprovalLinks::new(&ledger_key)
            .map_err(|_| StoreError::Corrupt("no key follows from the ledger key".into()))?;
        let (responses_ended, time_to_contain) = (db.ended().0.clone(), db.time_to_contain().rows.clone());
        let metrics = Metrics { responses_ended, time_to_contain, ..Metrics::default() };
        let engine = Arc::new(Self {
            public_url: settings.public_url,
            approval_links,
            db,
            writer,
            owed_reader,
            started_at: clock.now(),
            clock,
            hub,
            announcements: Announcements::default(),
            clocks: Clocks::default(),
            metrics,
            actions: ArcSwap::default(),
            policies: ArcSwap::default(),
            fleet: ArcSwap::default(),
            protected: ArcSwap::default(),
            frozen: AtomicBool::new(false),
            secrets: ArcSwap::default(),
            pull_feeds: PullFeeds::default(),
            ledger_key,
            keys: ArcSwap::default(),
            users: ArcSwap::default(),
            sessions: RwLock::default(),
            access_tokens,
            agent_tokens: AgentTokens::default(),
            passwords: Passwords::default(),
            providers,
            egress,
            lockouts: Lockouts::default(),
            failed_logins: FailedLoginLog::default(),
            denials: DenialLog::default(),
            key_uses: KeyUses::default(),
            signer,
            log_beginning: ArcSwapOption::empty(),
            undo: UndoTimer::default(),
            mappings: rules.mappings.clone(),
            rules,
            pipelines: ArcSwap::default(),
            conditions: Conditions::default(),
            retention,
            agent_key_max_age,
            feed,
            presence_news: PresenceNews::default(),
            tasks: tasks.clone(),
            health: Health::default(),
            lease,
            epochs: Epochs::default(),
            peers,
            deliveries: Deliveries::default(),
            duties: ArcSwap::default(),
            elsewhere: LastLook::default(),
            readiness: LastLook::default(),
            backtests: Arc::new(Semaphore::new(BACKTESTING)),
            comparing: Semaphore::new(COMPARING),
            reloading: tokio::sync::Mutex::default(),
            stale: AtomicBool::new(false),
        });
        // Before the configuration is read: what is changed meanwhile is read again.
        engine.epochs.reach(changes::stands_at(&engine.db).await?.epoch);
        Box::pin(engine.refresh_all()).await?;
        Box::pin(engine.serve()).await?;
        engine.warn_of_what_stands().await?;
        engine.meet_peers(hints, peer_hints);
        engine.start_stages(places, webhook);
        Ok(engine)
    }

    /// Starts the stages that run by themselves.
    fn start_stages(self: &Arc<Self>, places: CheckpointPlaces, webhook: Option<CheckpointWebhook>) {
        let stage = Arc::clone(self);
        self.tasks.spawn("undo", async move { undo::run(&stage).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("tidy", async move { sweep::tidy(&stage).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("readiness", async move { readiness::watch(&stage).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("checkpoint", async move { checkpoints::run(&stage, places, webhook).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("feed", async move { feed_reader::run(&stage).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("webhooks", async move { webhooks::run(&stage).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("sweep", async move { sweep::run(&stage).await });
    }

    /// Starts what concerns the other managers on the database, if there can be any.
    fn meet_peers(self: &Arc<Self>, hints: Option<Hints>, peer_hints: bool) {
        let (Some(pool), Some(hints)) = (self.lease.peers().cloned(), hints) else { return };
        let (stage, tell) = (Arc::clone(self), pool.clone());
        self.tasks.spawn("hints", async move { peer_watch::tell(&stage, tell, hints, peer_hints).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("peers", async move { peer_watch::run(&stage, pool, peer_hints).await });
        let stage = Arc::clone(self);
        self.tasks.spawn("lease", async move { peer_watch::send_agents_on(&stage).await });
    }

    /// Says what is likely to surprise people in what is stored.
    async fn warn_of_what_stands(&self) -> Result<()> {
        let agents = crate::store::configured::agents::all(&self.db).await?;
        for found in crate::domain::duplicates::of(&agents) {
            tracing::warn!("alerts may not find their agent: {found}");
        }
        for found in self.policies.load().policies().iter().filter(|found| found.policy.has_secret_in_clear()) {
            tracing::warn!("{}", remedy(&found.policy.name));
        }
        Ok(())
    }
}
