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
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// The webhooks that a turn of this manager is busy with.
type Busy = Arc<Mutex<BTreeSet<String>>>;

/// Runs until the engine stops.
pub(super) async fn run(engine: &Arc<Engine>) {
    let stop = engine.tasks.stopping().clone();
    engine.health.expect(STAGE, EVERY, engine.clock.now());
    let (busy, mut receivers) = (Busy::default(), BTreeMap::new());
    while !stop.is_cancelled() {
        let begun = engine.clock.now();
        let fault = round(engine, &busy, &mut receivers).await.err().map(|error| error.in_words());
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
    busy: &Busy,
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
    for state in webhook_messages::states(&engine.db).await? {
        let Some(webhook) = stored.iter().find(|webhook| webhook.name == state.webhook) else { continue };
        let known = receivers.get(&webhook.name).filter(|known| known.is_of(webhook, now));
        let receiver = match known {
            Some(known) => Arc::clone(known),
            None => match Receiver::open(engine, webhook, now) {
                Ok(receiver) => {
                    let receiver = Arc::new(receiver);
                    receivers.insert(webhook.name.clone(), Arc::clone(&receiver));
                    receiver
                }
                Err(why) => {
                    let name = &webhook.name;
                    tracing::error!(webhook = name, "the webhook {name} cannot be used: {why}");
                    continue;
                }
            },
        };
        let is_idle = state.mark == last && state.waiting == 0;
        if receiver.is_disabled() || is_idle || !enter(busy, &webhook.name) {
            continue;
        }
        start(engine, receiver, state, claim.clone(), Arc::clone(busy));
    }
    Ok(())
}

fn start(
    engine: &Arc<Engine>,
    receiver: Arc<Receiver>,
    state: webhook_messages::WebhookState,
    claim: Claim,
    busy: Busy,
) {
    let engine = Arc::clone(engine);
    let tasks = engine.tasks.clone();
    tasks.spawn_short(async move {
        let name = state.webhook.clone();
        match turn::take(&engine, &receiver, state, &claim).await {
            Ok(()) => {}
            Err(error) if webhook_messages::is_elsewhere(&error) => {
                tracing::debug!(webhook = name, "another manager looks after webhooks now");
            }
            Err(error) => tracing::warn!(webhook = name, "a turn of the webhook {name} failed, retrying: {error}"),
        }
        busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    });
}

fn enter(busy: &Busy, name: &str) -> bool {
    busy.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned())
}
