//! Caches of stored configuration: policies, actions, agents, keys, protected entries and the
//! freeze. Commit and refresh happen as one step, which continues even if the request that started
//! it is cancelled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use tokio::sync::oneshot;

use super::Engine;
use crate::domain::action::Catalogue;
use crate::domain::fault::Fault;
use crate::domain::fleet::Fleet;
use crate::domain::index::{PolicyIndex, VersionedPolicy};
use crate::domain::policy::Policy;
use crate::domain::protected::{Entry, ProtectedSet};
use crate::store::audit::LedgerTx;
use crate::store::db::{Result, StoreError};
use crate::store::ledger::EndReason;
use crate::store::protected::Hold;
use crate::store::{actions, agents, freeze, keys, policies, protected};

/// Time limit of a change, so that a hung database does not block later changes for longer.
const PATIENCE: Duration = Duration::from_mins(1);

impl Engine {
    /// Commits a change, then runs `follow` to refresh the caches and apply the consequences. A
    /// cancelled or timed-out request stops neither: a freeze, a protected entry or a revoked key
    /// takes effect once committed. If the store fails in between, the sweep repeats the refresh.
    ///
    /// # Errors
    /// If the commit fails, or the store cannot be read afterwards.
    pub async fn carry_through<T, F, Followed>(self: &Arc<Self>, ledger: LedgerTx, follow: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Self>) -> Followed + Send + 'static,
        Followed: Future<Output = Result<T>> + Send,
    {
        let engine = Arc::clone(self);
        let (done, outcome) = oneshot::channel();
        self.tasks.spawn_short(async move {
            let carried = async {
                ledger.commit().await?;
                follow(Arc::clone(&engine)).await
            };
            let carried = tokio::time::timeout(PATIENCE, carried).await.unwrap_or(Err(StoreError::Busy));
            // The commit may have happened although its response was lost.
            if carried.is_err() {
                engine.mark_stale();
            }
            // The request may be cancelled.
            let _ = done.send(carried);
        });
        outcome.await.unwrap_or_else(|_| {
            // Only a panic drops the sender.
            self.mark_stale();
            Err(StoreError::Busy)
        })
    }

    /// Marks the caches as possibly outdated; the sweep's next round refreshes them.
    pub fn mark_stale(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Returns and clears the stale flag; the caller must refresh the caches.
    pub fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::SeqCst)
    }

    /// Refreshes all caches; one that fails does not stop the others.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reload_all(&self) -> Result<()> {
        let outcomes = [
            self.reload_actions().await,
            self.reload_policies().await,
            self.reload_fleet().await,
            self.reload_protected().await,
            self.reload_freeze().await,
            self.reload_keys().await,
        ];
        outcomes.into_iter().collect()
    }

    /// Refreshes the freeze, and wakes all agents after a thaw.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reload_freeze(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let frozen = freeze::find(&self.db).await?.is_some_and(|row| row.frozen);
        if self.frozen.swap(frozen, Ordering::SeqCst) && !frozen {
            self.hub.wake_all();
        }
        Ok(())
    }

    /// Refreshes the custom actions.
    ///
    /// # Errors
    /// If the store cannot be read, or holds an action that this version cannot parse.
    pub async fn reload_actions(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let rows = actions::all(&self.db).await?;
        let custom = rows.iter().map(actions::ActionRow::action).collect::<Result<_>>()?;
        self.actions.store(Arc::new(Catalogue::with(custom)));
        Ok(())
    }

    /// Refreshes and compiles the policies.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a policy that this version cannot parse.
    pub async fn reload_policies(&self) -> Result<()> {
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

    /// Refreshes all agents, and closes the streams of revoked ones.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reload_fleet(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let agents = agents::all(&self.db).await?;
        self.db.names().set_agents(agents.iter().map(|agent| (agent.id, agent.name.clone())).collect());
        let fleet = Arc::new(Fleet::new(agents));
        self.fleet.store(Arc::clone(&fleet));
        self.hub.disconnect(|agent| fleet.is_revoked(agent));
        Ok(())
    }

    /// Refreshes one agent after enrolment or a change of capabilities. Reloading all agents each
    /// time would make the enrolment of a fleet quadratic.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reload_agent(&self, agent: uuid::Uuid) -> Result<()> {
        let _alone = self.reloading.lock().await;
        if let Some(row) = agents::find(&self.db, agent).await?
            && row.revoked_at.is_none()
        {
            self.db.names().add_agent(agent, row.name.clone());
            self.fleet.store(Arc::new(self.fleet.load().with(row.try_into()?)));
        }
        Ok(())
    }

    /// Refreshes the protected entries.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reload_protected(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        self.protected.store(Arc::new(ProtectedSet::new(protected::all(&self.db).await?)));
        Ok(())
    }

    /// Lifts every effect that conflicts with `entries`; returns the ended holds.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn lift_protected(&self, entries: Vec<Entry>) -> Result<Vec<Hold>> {
        let holds = protected::against(&self.db, &ProtectedSet::new(entries), self.clock.now()).await?;
        if !holds.is_empty() {
            let detail = "its target or agent has become protected".to_owned();
            let why = EndReason { word: "protected", detail, by: "riposte".into() };
            self.writer.release_holds(holds.clone(), why).await?;
        }
        Ok(holds)
    }

    /// Refreshes the API keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reload_keys(&self) -> Result<()> {
        let _alone = self.reloading.lock().await;
        let rows = keys::all(&self.db).await?;
        self.db.names().set_keys(rows.iter().map(|row| (row.id.clone(), row.name.clone())).collect());
        let mut since: HashMap<String, Timestamp> = HashMap::new();
        for row in &rows {
            let Some(pipeline) = &row.pipeline else { continue };
            let made = Timestamp::from(row.created_at);
            since.entry(pipeline.clone()).and_modify(|first| *first = made.min(*first)).or_insert(made);
        }
        self.pipelines.store(Arc::new(since));
        self.keys.store(Arc::new(rows.into_iter().map(|row| (row.id.clone(), row)).collect()));
        Ok(())
    }
}
