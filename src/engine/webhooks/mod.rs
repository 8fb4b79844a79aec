//! Webhooks: sends the events of the feed to receivers elsewhere, as `CloudEvents` with a Standard Webhooks signature. One of the
//! managers that share a ledger has this duty. Each webhook has its own mark in the feed, and turns of its own: a receiver
//! that is slow or away holds up no other, and nothing of the ledger.
//!
//! What a receiver does not take is kept and tried again (`domain/redelivery.rs`); when much of it waits, the mark stays where
//! it is, and the events wait in the feed. [`receiver`] calls one webhook, [`message`] says what of an event goes out, and
//! [`settings`] is what people set up.

mod chat;
mod mail;
mod message;
pub(crate) mod news;
pub(crate) mod notice;
mod receiver;
mod settings;
mod syslog;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::store::StoreError;
use crate::store::configured::webhooks;
use crate::store::database::duties::{Claim, Duty};
use crate::store::ledger::webhook_messages;
use receiver::Receiver;

/// Name of the stage.
const STAGE: &str = "webhooks";
/// Interval between two looks at the feed and at what is due.
const EVERY: Duration = Duration::from_millis(500);

/// The shortest and the longest wait after a turn of which the ledger could not be told: its messages are sent again.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(5)];

/// The webhooks that a turn of this manager is busy with, and those that wait after turns that failed.
#[derive(Debug, Default)]
struct Turns {
    busy: BTreeSet<String>,
    resting: BTreeMap<String, (u32, Instant)>,
}

/// A turn that is under way; its end is that of this value.
#[derive(Debug)]
struct Entered {
    turns: Arc<Mutex<Turns>>,
    name: String,
}

impl Entered {
    /// `None` if the webhook is in a turn, or rests.
    fn begin(turns: &Arc<Mutex<Turns>>, name: &str) -> Option<Self> {
        let mut all = turns.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = all.resting.get(name).is_some_and(|(_, until)| *until > Instant::now());
        let is_free = !rests && all.busy.insert(name.to_owned());
        is_free.then(|| Self { turns: Arc::clone(turns), name: name.to_owned() })
    }

    /// Notes how it went. Each failure makes the next wait twice as long.
    fn note(&self, has_failed: bool) {
        let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = all.resting.remove(&self.name).map_or(0, |(failed, _)| failed);
        if has_failed {
            let rest = RESTS[0].saturating_mul(2_u32.saturating_pow(failed)).min(RESTS[1]);
            all.resting.insert(self.name.clone(), (failed.saturating_add(1), Instant::now() + rest));
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).busy.remove(&self.name);
    }
}

/// Runs until the engine stops.
pub(super) async fn run(engine: &Arc<Engine>) {
    let stop = engine.tasks.stopping().clone();
    engine.health.expect(STAGE, EVERY, engine.clock.now());
    let (turns, mut receivers) = (Arc::default(), BTreeMap::new());
    while !stop.is_cancelled() {
        let begun = engine.clock.now();
        let fault = round(engine, &turns, &mut receivers).await.err().map(|error| error.in_words());
        if let Some(error) = &fault {
            tracing::warn!("webhooks could not be looked after, retrying: {error}");
        }
        engine.health.report(STAGE, (begun, engine.clock.now()), fault);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Begins a turn of each webhook that has something to send and is in no turn.
async fn round(
    engine: &Arc<Engine>,
    turns: &Arc<Mutex<Turns>>,
    receivers: &mut BTreeMap<String, Arc<Receiver>>,
) -> Result<(), StoreError> {
    let Some(claim) = engine.duties.load().own.get(&Duty::Webhooks).cloned() else {
        receivers.clear();
        return Ok(());
    };
    let stored = webhooks::all(&engine.db).await?;
    receivers.retain(|name, _| stored.iter().any(|webhook| webhook.name == *name));
    if stored.is_empty() {
        return Ok(());
    }
    let last = engine.event_bounds().await?.last;
    let now = engine.clock.now();
    // A state that was read before the end of a turn would begin it again.
    let mut free: BTreeMap<&str, Entered> = stored
        .iter()
        .filter_map(|webhook| Some((webhook.name.as_str(), Entered::begin(turns, &webhook.name)?)))
        .collect();
    for state in webhook_messages::states(&engine.db).await? {
        let Some(webhook) = stored.iter().find(|webhook| webhook.name == state.webhook) else { continue };
        let Some(entered) = free.remove(webhook.name.as_str()) else { continue };
        let is_right = |known: &&Arc<Receiver>| known.is_of(webhook, now) && known.may_be_used(engine);
        let known = receivers.get(&webhook.name).filter(is_right);
        let receiver = match known {
            Some(known) => Arc::clone(known),
            None => match Receiver::open(engine, webhook, now) {
                Ok(receiver) => {
                    let receiver = Arc::new(receiver);
                    receivers.insert(webhook.name.clone(), Arc::clone(&receiver));
                    receiver
                }
                Err(why) => {
                    receivers.remove(&webhook.name);
                    match turn::cannot_be_used(engine, webhook, state, &claim, why).await {
                        Err(error) if !webhook_messages::is_elsewhere(&error) => return Err(error),
                        _ => continue,
                    }
                }
            },
        };
        let is_idle = state.mark == last && state.waiting == 0;
        if receiver.is_disabled() || is_idle {
            continue;
        }
        start(engine, receiver, state, claim.clone(), entered);
    }
    Ok(())
}

fn start(
    engine: &Arc<Engine>,
    receiver: Arc<Receiver>,
    state: webhook_messages::WebhookState,
    claim: Claim,
    entered: Entered,
) {
    let engine = Arc::clone(engine);
    let tasks = engine.tasks.clone();
    tasks.spawn_short(async move {
        let name = state.webhook.clone();
        let done = turn::take(&engine, &receiver, state, &claim).await;
        entered.note(done.is_err());
        match done {
            Ok(()) => {}
            Err(error) if webhook_messages::is_elsewhere(&error) => {
                tracing::debug!(webhook = name, "another manager looks after webhooks now");
            }
            Err(error) => tracing::warn!(webhook = name, "a turn of the webhook {name} failed, retrying: {error}"),
        }
    });
}
