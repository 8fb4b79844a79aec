//! The hub: which agents are connected to this node, and how to wake them. A wake-up is only a hint
//! to read the store; a lost one costs time, never a command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use riposte_protocol::time::Timestamp;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::presence::Presence;
use crate::domain::runs::AgentRuns;

/// Connections of agents; cheap to share.
#[derive(Debug, Default)]
pub struct Hub {
    places: Mutex<HashMap<Uuid, Place>>,
    heard: Mutex<Heard>,
}

/// Last contacts of agents.
#[derive(Debug, Default)]
struct Heard {
    /// Since the last flush.
    now: HashMap<Uuid, Timestamp>,
    /// Of the last flush, which may not be in the store yet.
    before: HashMap<Uuid, Timestamp>,
}

#[derive(Debug, Default)]
struct Place {
    /// Counts wake-ups. A counter, because a plain notification would be lost while the connection
    /// is busy.
    nudges: watch::Sender<u64>,
    /// Ends the agent's current stream when a newer one replaces it.
    stream: Option<(u64, CancellationToken)>,
    streams_so_far: u64,
    /// Number of the agent's open polls.
    polls: u32,
    /// Start or end of its last poll.
    polled_at: Option<Timestamp>,
    /// The inbound lock, held by the stream whose messages are processed.
    inbound: Arc<tokio::sync::Mutex<()>>,
    /// The last runs of the agent.
    runs: AgentRuns,
    /// The number of its newest connection, where managers share a database, unless another of them has a newer one.
    number: Option<i64>,
    /// The run whose first report was processed.
    reported_run: Option<Uuid>,
    /// The key that a poll told the agent to replace.
    told_key: Option<String>,
}

/// An agent's stream while it is connected.
#[derive(Debug)]
pub struct StreamHandle {
    hub: Arc<Hub>,
    agent: Uuid,
    number: u64,
    /// Changes when the agent may have new commands.
    pub nudges: watch::Receiver<u64>,
    /// Cancelled when a newer stream of the agent takes over: the older one is usually half dead.
    pub replaced: CancellationToken,
    /// Its number among all connections of the agent, where managers share a database.
    pub registered: Option<i64>,
    inbound: Arc<tokio::sync::Mutex<()>>,
}

impl StreamHandle {
    /// Waits until no older stream of the agent holds the inbound lock. The holder processes the
    /// agent's messages, so no older message can follow a newer one.
    pub async fn lock_inbound(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.inbound).lock_owned().await
    }
}

impl Hub {
    /// Registers a new stream of the agent, and ends the former one.
    pub fn open_stream(self: &Arc<Self>, agent: Uuid) -> StreamHandle {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(agent).or_default();
        place.streams_so_far += 1;
        let (number, replaced) = (place.streams_so_far, CancellationToken::new());
        if let Some((_, older)) = place.stream.replace((number, replaced.clone())) {
            older.cancel();
        }
        let (nudges, inbound) = (place.nudges.subscribe(), Arc::clone(&place.inbound));
        StreamHandle { hub: Arc::clone(self), agent, number, nudges, replaced, registered: None, inbound }
    }

    /// Records that a run of the agent speaks. Returns whether two hosts provably share its identity.
    pub fn speaks(&self, agent: Uuid, run: Uuid) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(agent).or_default().runs.speaks(run)
    }

    /// Whether the newest connection of the agent is here, by this run if it says one.
    pub fn is_newest(&self, agent: Uuid, run: Option<Uuid>) -> bool {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |place: &Place| place.number.is_some() && run.is_none_or(|run| place.runs.is_last(run));
        places.get(&agent).is_some_and(is_known)
    }

    /// The newest connection of the agent is here and has this number; the database knows these runs of it.
    pub fn registered(&self, agent: Uuid, number: i64, runs: AgentRuns) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(agent).or_default();
        if place.number.is_none_or(|known| known < number) {
            place.number = Some(number);
            if runs != AgentRuns::default() {
                place.runs = runs;
            }
        }
    }

    /// The last runs of the agent.
    pub fn runs_of(&self, agent: Uuid) -> AgentRuns {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&agent).map(|place| place.runs.clone()).unwrap_or_default()
    }

    /// The agent has a connection elsewhere, of this number and by this run if it says one: an older stream here ends. The
    /// same run that polls here and there is one agent behind a load balancer.
    pub fn supersede(&self, agent: Uuid, number: i64, run: Option<Uuid>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.get_mut(&agent) else { return };
        let is_same_run = run.is_some_and(|run| place.runs.is_last(run));
        if place.number.is_none_or(|known| known >= number) || (is_same_run && place.stream.is_none()) {
            return;
        }
        place.number = None;
        if let Some((_, stream)) = &place.stream {
            stream.cancel();
        }
    }

    /// Whether this run has not sent a report yet.
    pub fn reports_first(&self, agent: Uuid, run: Uuid) -> bool {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&agent).and_then(|place| place.reported_run) != Some(run)
    }

    /// Records that a report of this run was processed.
    pub fn reported(&self, agent: Uuid, run: Uuid) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(agent).or_default().reported_run = Some(run);
    }

    /// Whether no poll has told the agent yet to replace that key; from now on one has.
    pub fn tells_first(&self, agent: Uuid, key: String) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let told = &mut places.entry(agent).or_default().told_key;
        if told.as_ref() == Some(&key) {
            return false;
        }
        *told = Some(key);
        true
    }

    /// The wake-up counter for a polling agent.
    pub fn nudges_of(&self, agent: Uuid) -> watch::Receiver<u64> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(agent).or_default().nudges.subscribe()
    }

    /// Wakes the connections of `agents`.
    pub fn wake(&self, agents: &[Uuid]) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for place in agents.iter().filter_map(|agent| places.get(agent)) {
            place.nudges.send_modify(|count| *count += 1);
        }
    }

    /// Wakes all connections.
    pub fn wake_all(&self) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.values().for_each(|place| place.nudges.send_modify(|count| *count += 1));
    }

    /// A poll of the agent begins at `now`; it has ended when what is returned is dropped or told so.
    pub fn poll(self: &Arc<Self>, agent: Uuid, now: Timestamp) -> Poll {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(agent).or_default();
        place.polls += 1;
        place.polled_at = Some(now);
        Poll { hub: Arc::clone(self), agent }
    }

    /// The agent's presence at `now`, as seen from this node.
    pub fn presence(&self, agent: Uuid, now: Timestamp) -> Presence {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places
            .get(&agent)
            .map_or(Presence::Away, |place| Presence::of(place.stream.is_some(), place.polls, place.polled_at, now))
    }

    /// Closes the streams of these agents, and wakes their polls.
    pub fn disconnect(&self, is_meant: impl Fn(Uuid) -> bool) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, place) in places.iter().filter(|(agent, _)| is_meant(**agent)) {
            if let Some((_, stream)) = &place.stream {
                stream.cancel();
            }
            place.nudges.send_modify(|count| *count += 1);
        }
    }

    /// Records a contact.
    pub fn heard(&self, agent: Uuid, at: Timestamp) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).now.insert(agent, at);
    }

    /// Last contact, if it is not in the store yet.
    pub fn last_heard(&self, agent: Uuid) -> Option<Timestamp> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.now.get(&agent).or_else(|| heard.before.get(&agent)).copied()
    }

    /// Takes the contacts since the last call, for one batched write.
    pub fn take_heard(&self) -> Vec<(Uuid, Timestamp)> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.before = std::mem::take(&mut heard.now);
        heard.before.iter().map(|(agent, at)| (*agent, *at)).collect()
    }
}

/// An agent's poll while it is open.
#[derive(Debug)]
pub struct Poll {
    hub: Arc<Hub>,
    agent: Uuid,
}

impl Poll {
    /// Ends the poll at `now`: its agent counts as present for a while.
    pub fn answered(self, now: Timestamp) {
        let mut places = self.hub.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(&self.agent) {
            place.polled_at = Some(now);
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let mut places = self.hub.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(&self.agent) {
            place.polls = place.polls.saturating_sub(1);
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        let mut places = self.hub.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(&self.agent)
            && place.stream.as_ref().is_some_and(|(number, _)| *number == self.number)
        {
            place.stream = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_newer_connection_elsewhere_ends_an_older_stream_here() {
        let (hub, agent) = (Arc::new(Hub::default()), Uuid::from_u128(1));
        let [run, other] = [Uuid::from_u128(10), Uuid::from_u128(11)];
        let handle = hub.open_stream(agent);
        hub.registered(agent, 7, AgentRuns::default());
        hub.speaks(agent, run);
        assert!(hub.is_newest(agent, Some(run)) && !hub.is_newest(agent, Some(other)));
        hub.supersede(agent, 7, Some(other));
        assert!(!handle.replaced.is_cancelled(), "a hint that came late");
        hub.supersede(agent, 8, Some(run));
        assert!(handle.replaced.is_cancelled() && !hub.is_newest(agent, Some(run)));
        hub.registered(agent, 9, AgentRuns::default());
        drop(handle);
        hub.supersede(agent, 10, Some(run));
        assert!(hub.is_newest(agent, Some(run)), "one run that polls here and there is one agent");
        hub.supersede(agent, 10, Some(other));
        assert!(!hub.is_newest(agent, Some(run)));
    }

    #[test]
    fn a_report_counts_once_it_was_processed() {
        let (hub, agent, run) = (Hub::default(), Uuid::from_u128(1), Uuid::from_u128(10));
        assert!(hub.reports_first(agent, run) && hub.reports_first(agent, run), "the first one may have failed");
        hub.reported(agent, run);
        assert!(!hub.reports_first(agent, run));
        assert!(hub.reports_first(agent, Uuid::from_u128(11)), "after a restart it may hold something else");
    }

    #[test]
    fn a_newer_stream_takes_the_place_of_the_older_one() {
        let (hub, agent, at) = (Arc::new(Hub::default()), Uuid::from_u128(1), Timestamp::from_millis(0));
        let older = hub.open_stream(agent);
        let newer = hub.open_stream(agent);
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        drop(older);
        assert!(
            hub.presence(agent, at) == Presence::Streaming,
            "the older one's end must not take the newer one's place away"
        );
        drop(newer);
        assert_eq!(hub.presence(agent, at), Presence::Away);
    }

    #[test]
    fn a_polling_agent_is_present_until_its_grace_ends() {
        let (hub, agent, at) = (Arc::new(Hub::default()), Uuid::from_u128(1), Timestamp::from_millis);
        assert_eq!(hub.presence(agent, at(0)), Presence::Away);
        let poll = hub.poll(agent, at(0));
        assert_eq!(hub.presence(agent, at(90_000)), Presence::Polling, "it waits");
        poll.answered(at(90_000));
        assert_eq!(hub.presence(agent, at(149_999)), Presence::Polling, "between two polls");
        assert_eq!(hub.presence(agent, at(150_000)), Presence::Away);
        drop(hub.poll(agent, at(200_000)));
        assert_eq!(hub.presence(agent, at(259_999)), Presence::Polling, "one that broke off was heard when it began");
        let handle = hub.open_stream(agent);
        assert_eq!(hub.presence(agent, at(300_000)), Presence::Streaming);
        drop(handle);
        assert_eq!(hub.presence(agent, at(300_000)), Presence::Away);
    }

    #[tokio::test]
    async fn messages_of_one_stream_are_processed_at_a_time() {
        let (hub, agent) = (Arc::new(Hub::default()), Uuid::from_u128(1));
        let [oldest, older, newest] = [(); 3].map(|()| hub.open_stream(agent));
        let speaks = oldest.lock_inbound().await;
        let mut waits = Box::pin(newest.lock_inbound());
        assert!((&mut waits).now_or_never().is_none(), "the oldest is still at it");
        drop(older);
        assert!((&mut waits).now_or_never().is_none(), "a stream between the two must not release the lock");
        drop(speaks);
        assert!((&mut waits).now_or_never().is_some());
        let other = hub.open_stream(Uuid::from_u128(2));
        assert!(other.lock_inbound().now_or_never().is_some());
    }
}
