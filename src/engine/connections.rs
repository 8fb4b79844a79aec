//! Connections of agents, across the managers that share a database: the newest counts, and a run
//! that comes back on whichever manager proves a copy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::Engine;
use super::peers::Elsewhere;
use crate::domain::presence::Presence;
use crate::store::StoreError;
use crate::store::database::presence::{self, Connected};

impl Engine {
    /// A client speaks as the agent, in its first message on a stream or in a poll: registers the connection where managers
    /// share a database, and checks that it is the only one. Returns the number of a stream.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn recognise(
        self: &Arc<Self>,
        agent: Uuid,
        run: Option<Uuid>,
        is_stream: bool,
    ) -> Result<Option<i64>, StoreError> {
        let number = match self.lease.peers() {
            Some(pool) if is_stream || !self.hub.is_newest(agent, run) => {
                let Connected { number, former, runs } =
                    presence::connect(pool, self.lease.node(), agent, is_stream).await?;
                self.hub.registered(agent, number, runs);
                if let Some(former) = former {
                    self.peers.close(former, agent, number, run);
                }
                Some(number)
            }
            _ => None,
        };
        let Some(run) = run else { return Ok(number) };
        let before = self.hub.runs_of(agent);
        let is_copy = self.hub.speaks(agent, run);
        let runs = self.hub.runs_of(agent);
        if let Some(pool) = self.lease.peers().filter(|_| runs != before) {
            presence::set_runs(pool, agent, &runs).await?;
        }
        if is_copy {
            self.flag_clone(agent).await?;
        }
        Ok(number)
    }

    /// The agents that talk to other managers, as of a second ago.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn elsewhere(&self) -> Result<Elsewhere, StoreError> {
        let Some(pool) = self.lease.peers().filter(|_| self.peers.others.load(Ordering::Relaxed) > 0) else {
            return Ok(Elsewhere::default());
        };
        let look = async |_| presence::elsewhere(pool, self.lease.node()).await.map(Arc::new).map_err(Arc::new);
        match &*self.elsewhere.fresh(look).await {
            Ok(found) => Ok(Arc::clone(found)),
            Err(error) => Err(StoreError::Shared(Arc::clone(error))),
        }
    }

    /// The agent's presence at `now`, on whichever manager.
    pub fn presence(&self, agent: Uuid, elsewhere: &Elsewhere, now: Timestamp) -> Presence {
        let here = self.hub.presence(agent, now);
        elsewhere.get(&agent).copied().map_or(here, |there| here.min(there))
    }
}
