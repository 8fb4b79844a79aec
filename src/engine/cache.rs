//! The caches of what is stored: policies, actions, agents, keys, what is protected, the freeze. A change is committed and its
//! caches are refreshed here as one, also when the client that asked for it disconnects.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Engine;
use super::secret_values::SecretValues;
use crate::domain::action::Catalogue;
use crate::domain::fault::Fault;
use crate::domain::fleet::Fleet;
use crate::domain::index::{PolicyIndex, VersionedPolicy};
use crate::domain::policy::Policy;
use crate::domain::protected::{ProtectedEntry, ProtectedSet};
use crate::domain::response::{EndReason, Hold, ResponseEnd};
use crate::store::configured::caches::Cache;
use crate::store::configured::{actions, agents, freeze, keys, policies, protected, secrets, sessions, users};
use crate::store::database::{Result, StoreError};
use crate::store::ledger::audit::LedgerTx;

/// How long a change may take: a database that never answers holds up no other change for longer.
const COMMIT_TIMEOUT: Duration = Duration::from_mins(1);

impl Engine {
    /// Commits a change and refreshes the caches that it made stale.
    ///
    /// # Errors
    /// As [`Engine::commit_refresh_then`].
    pub async fn commit_and_refresh(self: &Arc<Self>, ledger: LedgerTx) -> Result<()> {
        self.commit_refresh_then(ledger, |_| async { Ok(()) }).await
    }

    /// Commits a change, refreshes the caches that it made stale, waits until the other managers have done so too, then lets
    /// `then` do what follows. A client that disconnects in
    /// between, or whose time is over, stops none of it: a freeze, a protected entry, a revoked key counts once it is committed.
    /// If the store fails in between, the sweep refreshes all caches when it can.
    ///
    /// # Errors
    /// If it cannot be committed, or the store cannot be read after that.
    pub async fn commit_refresh_then<T, F, Then>(self: &Arc<Self>, ledger: LedgerTx, then: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Self>) -> Then + Send + 'static,
        Then: Future<Output = Result<T>> + Send,
    {
        let engine = Arc::clone(self);
        let (done, outcome) = oneshot::channel();
        self.tasks.spawn_short(async move {
            let committed = async {
                let stale = ledger.stale().clone();
                let epoch = ledger.commit_change().await?;
                let refreshed = engine.refresh_each(stale).await;
                // What cannot be read will not be readable at the next attempt: alerts do not wait for it.
                if let Some(epoch) = epoch.filter(|_| !refreshed.as_ref().is_err_and(|error| !error.is_corruption())) {
                    engine.agree(epoch).await?;
                }
                refreshed?;
                then(Arc::clone(&engine)).await
            };
            let committed = tokio::time::timeout(COMMIT_TIMEOUT, committed).await.unwrap_or(Err(StoreError::Busy));
            // A commit whose answer was lost may have happened.
            if committed.is_err() {
                engine.mark_stale();
            }
            // The client may have gone.
            let _ = done.send(committed);
        });
        outcome.await.unwrap_or_else(|_| {
            // Only a panic drops the sender.
            self.mark_stale();
            Err(StoreError::Busy)
        })
    }

    /// Refreshes one cache from the store.
    ///
    /// # Errors
    /// If the store cannot be read, or holds what this program does not understand.
    pub async fn refresh(&self, cache: Cache) -> Result<()> {
        match cache {
            Cache::Actions => self.refresh_actions().await,
            Cache::Policies => self.refresh_policies().await,
            Cache::Agent(agent) => self.refresh_agent(agent).await,
            Cache::Fleet => self.refresh_fleet().await,
            Cache::Protected => self.refresh_protected().await,
            Cache::Freeze => self.refresh_freeze().await,
            Cache::SigningKeys => self.refresh_signing_keys().await,
            Cache::Secrets => self.refresh_secrets().await,
            Cache::Feeds => self.refresh_feeds().await,
            Cache::Keys => self.refresh_keys().await,
            Cache::Users => self.refresh_users().await,
            Cache::Session(session) => self.refresh_session_cache(session).await,
            Cache::Sessions => self.refresh_sessions().await,
        }
    }

    /// Refreshes these caches; one that cannot be refreshed holds up no other.
    ///
    /// # Errors
    /// As [`Engine::refresh`].
    pub(super) async fn refresh_each(
        &self,
        caches: impl IntoIterator<Item = Cache, IntoIter: Send> + Send,
    ) -> Result<()> {
        let mut outcome: Result<()> = Ok(());
        for cache in caches {
            let refreshed = self.refresh(cache).await;
            // A fault that may pass counts more than one that stays.
            if refreshed.is_err() && outcome.as_ref().err().is_none_or(StoreError::is_corruption) {
                outcome = refreshed;
            }
        }
        outcome
    }

    /// A change may have been committed that is not in force: the sweep's next round sees to it.
    pub fn mark_stale(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Returns and clears the stale flag; the caller must refresh the caches.
    pub fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::SeqCst)
    }

    /// Refreshes every cache; one that cannot be refreshed holds up no other.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn refresh_all(&self) -> Result<()> {
        let plain = [Cache::Actions, Cache::Policies, Cache::Fleet, Cache::Protected, Cache::Freeze, Cache::Keys];
        let rest = [Cache::SigningKeys, Cache::Secrets, Cache::Feeds, Cache::Users, Cache::Sessions];
        self.refresh_each(plain.into_iter().chain(rest)).await
    }

    /// Refreshes the freeze, and wakes all agents after a thaw.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_freeze(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let frozen = freeze::find_for_force(&self.db).await?.is_some_and(|row| row.frozen);
        if self.frozen.swap(frozen, Ordering::SeqCst) && !frozen {
            self.hub.wake_all();
        }
        Ok(())
    }

    async fn refresh_secrets(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let rows = secrets::all(&self.db).await?;
        self.secrets.store(Arc::new(SecretValues::open(rows, &self.ledger_key)?));
        Ok(())
    }

    /// Refreshes the actions that people added.
    ///
    /// # Errors
    /// If the store cannot be read, or holds an action that this program does not understand.
    async fn refresh_actions(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let rows = actions::all(&self.db).await?;
        let custom = rows.iter().map(actions::ActionRow::action).collect::<Result<_>>()?;
        self.actions.store(Arc::new(Catalogue::with(custom)));
        Ok(())
    }

    /// Refreshes the policies: compiles those that are stored.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a policy that this program does not understand.
    async fn refresh_policies(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let mut versioned = Vec::new();
        for row in policies::all(&self.db).await? {
            let policy = Policy::parse_stored(&row.document.read()?, &self.actions.load())
                .map_err(|faults| StoreError::Corrupt(format!("policy {}: {faults:?}", row.name)))?;
            versioned.push(Arc::new(VersionedPolicy { policy: Arc::new(policy), version: row.version }));
        }
        for versioned in &versioned {
            for fault in versioned.policy.dead_conditions() {
                let (name, Fault { pointer, detail }) = (&versioned.policy.name, fault);
                tracing::warn!(policy = name, "policy {name}: the condition at {pointer} never holds: {detail}");
            }
        }
        let index = PolicyIndex::compile(versioned);
        let is_known = |name: &str| index.policies().iter().any(|versioned| versioned.policy.name == name);
        self.conditions.retain(is_known, &self.metrics);
        self.policies.store(Arc::new(index));
        Ok(())
    }

    /// Refreshes all agents; the streams of those that were revoked or whose key was replaced end.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_fleet(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let agents = agents::all(&self.db).await?;
        self.db.names().set_agents(agents.iter().map(|agent| (agent.id, agent.name.clone())).collect());
        let fleet = Arc::new(Fleet::new(agents));
        let before = self.fleet.swap(Arc::clone(&fleet));
        self.hub.disconnect(|agent| fleet.is_revoked(agent) || is_rekeyed(&before, &fleet, agent));
        Ok(())
    }

    /// Refreshes one agent after enrolment or a change of capabilities. Reloading all agents each
    /// time would make the enrolment of a fleet quadratic.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_agent(&self, agent: Uuid) -> Result<()> {
        let _alone = self.reloading.lock().await;
        if let Some(row) = agents::find_sealed(&self.db, agent).await?
            && row.revoked_at.is_none()
        {
            self.db.names().add_agent(agent, row.name.clone());
            let fleet = Arc::new(self.fleet.load().with(row.try_into()?));
            let before = self.fleet.swap(Arc::clone(&fleet));
            if is_rekeyed(&before, &fleet, agent) {
                self.hub.disconnect(|other| other == agent);
            }
        }
        Ok(())
    }

    /// Refreshes what is protected.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_protected(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        self.protected.store(Arc::new(ProtectedSet::new(protected::all_for_force(&self.db).await?)));
        Ok(())
    }

    /// Lifts every effect that conflicts with `entries`; returns the ended holds.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn lift_protected(&self, entries: Vec<ProtectedEntry>) -> Result<Vec<Hold>> {
        let holds = protected::against(&self.db, &ProtectedSet::new(entries), self.clock.now()).await?;
        if !holds.is_empty() {
            let why = ResponseEnd::by_riposte(EndReason::Protected, "its target or agent has become protected");
            self.writer.release_holds(holds.clone(), why).await?;
        }
        Ok(holds)
    }

    /// Refreshes all API keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_keys(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let rows = keys::all(&self.db).await?;
        self.db.names().set_keys(rows.iter().map(|row| (row.key.id.clone(), row.key.name.clone())).collect());
        let mut since: HashMap<String, Timestamp> = HashMap::new();
        for row in &rows {
            let Some(pipeline) = &row.key.pipeline else { continue };
            let made = Timestamp::from(row.key.created_at);
            since.entry(pipeline.clone()).and_modify(|first| *first = made.min(*first)).or_insert(made);
        }
        self.pipelines.store(Arc::new(since));
        self.keys.store(Arc::new(rows.into_iter().map(|row| (row.key.id.clone(), row)).collect()));
        Ok(())
    }

    /// Refreshes all people.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_users(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let rows = users::all(&self.db).await?;
        self.users.store(Arc::new(rows.into_iter().map(|row| (row.user.name.clone(), row)).collect()));
        Ok(())
    }

    /// Refreshes one session. Reading all of them at each login would cost more with each login.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_session_cache(&self, session: Uuid) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let live = sessions::find_live(&self.db, session).await?;
        let mut known = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        match live {
            Some(live) => drop(known.insert(session, live)),
            None => drop(known.remove(&session)),
        }
        Ok(())
    }

    /// Refreshes all sessions.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn refresh_sessions(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let live = sessions::live(&self.db, self.clock.now()).await?;
        *self.sessions.write().unwrap_or_else(PoisonError::into_inner) = live.into_iter().collect();
        Ok(())
    }
}

/// Whether the agent has another key than before: its connections were opened with the old one.
fn is_rekeyed(before: &Fleet, now: &Fleet, agent: Uuid) -> bool {
    let keys = (before.get(agent), now.get(agent));
    matches!(keys, (Some(before), Some(now)) if before.key.public != now.key.public)
}
