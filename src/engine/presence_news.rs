//! The events `agent.connected` and `agent.away`. One manager compares who is connected, to it or to
//! another one, with what the feed says, and writes what differs, so agents that come back after a restart of the manager cost
//! nothing, and one that comes and goes between two looks is not told of.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use super::Engine;
use crate::domain::event::EventType;
use crate::domain::presence::{POLL_GRACE, Presence};
use crate::store::StoreError;
use crate::store::ledger::events::{LooseEvent, connected};

/// Time after the start for which no agent is said to be away: all of them connect anew.
const START_GRACE: Duration = POLL_GRACE;
/// Events per look, so that a fleet that connects does not delay alerts.
const AT_ONCE: usize = 2000;

/// Writes who has come and who has gone since the last look.
pub(super) async fn tell(engine: &Engine) -> Result<(), StoreError> {
    let mut told = engine.presence_news.0.lock().await;
    let said = match &mut *told {
        Some(said) => said,
        none => none.insert(connected(&engine.db).await?.into_iter().collect()),
    };
    let now = engine.clock.now();
    let mut present: BTreeSet<Uuid> = engine.hub.present(now);
    let elsewhere = engine.elsewhere().await?;
    present.extend(elsewhere.iter().filter(|(_, presence)| **presence != Presence::Away).map(|(agent, _)| *agent));
    let fleet = engine.fleet.load();
    // A revoked agent is gone for good, which has an event of its own.
    said.retain(|agent| fleet.get(*agent).is_some());
    let came = present.difference(said).filter(|agent| fleet.get(**agent).is_some());
    let mut news: Vec<(Uuid, EventType)> = came.map(|agent| (*agent, EventType::AgentConnected)).collect();
    if now >= engine.started_at.plus(START_GRACE) {
        news.extend(said.difference(&present).map(|agent| (*agent, EventType::AgentAway)));
    }
    news.truncate(AT_ONCE);
    if news.is_empty() {
        return Ok(());
    }
    let event = |(agent, kind): &(Uuid, EventType)| LooseEvent {
        kind: *kind,
        noun: "agent",
        noun_id: agent.to_string(),
        actor: "riposte".to_owned(),
        detail: String::new(),
    };
    engine.writer.tell(news.iter().map(event).collect()).await?;
    for (agent, kind) in news {
        if kind == EventType::AgentConnected {
            said.insert(agent);
        } else {
            said.remove(&agent);
        }
    }
    Ok(())
}
