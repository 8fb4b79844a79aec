//! What has just been committed and belongs into traces: a bounded queue from the commits to the stage
//! that exports spans. Nothing waits for it: a full queue drops, and counts what it drops. Without an
//! exporter nothing is put in.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use riposte_protocol::time::Timestamp;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::domain::audit::{AuditEntry, AuditEvent};

/// Items in the queue. One is about a hundred bytes.
const CAPACITY: usize = 16_384;

/// Something that belongs into a trace.
#[derive(Clone, Debug)]
pub enum Traced {
    /// Alerts of one request that got responses.
    Intake(TracedIntake),
    /// A change of a response or a command: what, its id, when.
    Change(AuditEvent, Uuid, Timestamp),
}

/// The intake of one request.
#[derive(Clone, Debug)]
pub struct TracedIntake {
    /// The alerts that got responses.
    pub alerts: Vec<Uuid>,
    /// `traceparent` of the request.
    pub trace: Option<String>,
    /// When it was received, in nanoseconds since the epoch.
    pub received: u64,
    /// When it was decided.
    pub decided: u64,
    /// When it was durable.
    pub committed: u64,
}

/// The end of the queue at which commits put in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TraceQueue(Arc<OnceLock<(mpsc::Sender<Traced>, Counter)>>);

impl TraceQueue {
    /// Opens the queue for an exporter. `dropped` counts what has no room. `None` if it is open already.
    pub fn open(&self, dropped: Counter) -> Option<mpsc::Receiver<Traced>> {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        self.0.set((sender, dropped)).ok().map(|()| receiver)
    }

    /// Whether there is an exporter.
    pub fn is_open(&self) -> bool {
        self.0.get().is_some()
    }

    /// Puts something in, if there is an exporter and room.
    pub fn put(&self, traced: Traced) {
        if let Some((sender, dropped)) = self.0.get()
            && sender.try_send(traced).is_err()
        {
            dropped.inc();
        }
    }

    /// The change that an entry is, if it belongs into a trace and there is an exporter.
    pub(super) fn change(&self, entry: &AuditEntry) -> Option<Traced> {
        let id = self.is_open().then(|| entry.noun_id.parse().ok())?;
        belongs(entry.event).then(|| id.map(|id| Traced::Change(entry.event, id, entry.at)))?
    }
}

/// Whether a change begins or ends a span.
const fn belongs(event: AuditEvent) -> bool {
    matches!(
        event,
        AuditEvent::ResponseCreated
            | AuditEvent::ResponseObserved
            | AuditEvent::ResponseSpared
            | AuditEvent::ResponseActivated
            | AuditEvent::ResponseBreakGlass
            | AuditEvent::ResponseRejected
            | AuditEvent::ResponseLapsed
            | AuditEvent::ResponseEnded
            | AuditEvent::CommandSucceeded
            | AuditEvent::CommandFailed
            | AuditEvent::CommandTimedOut
            | AuditEvent::CommandRefused
            | AuditEvent::CommandExpired
            | AuditEvent::CommandCancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::actor::Actor;

    fn entry(event: AuditEvent) -> AuditEntry {
        let noun_id = Uuid::from_u128(7).to_string();
        AuditEntry { at: Timestamp::from_millis(1), actor: Actor::Riposte, event, noun_id, detail: String::new() }
    }

    #[test]
    fn nothing_is_put_in_before_there_is_an_exporter() {
        let queue = TraceQueue::default();
        assert!(queue.change(&entry(AuditEvent::ResponseEnded)).is_none());
        let mut receiver = queue.open(Counter::default()).unwrap();
        assert!(queue.open(Counter::default()).is_none(), "one exporter");
        queue.put(queue.change(&entry(AuditEvent::ResponseEnded)).unwrap());
        assert!(queue.change(&entry(AuditEvent::PolicyCreated)).is_none());
        let Traced::Change(event, id, _) = receiver.try_recv().unwrap() else { panic!("no change") };
        assert_eq!((event, id), (AuditEvent::ResponseEnded, Uuid::from_u128(7)));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, dropped) = (TraceQueue::default(), Counter::default());
        let mut receiver = queue.open(dropped.clone()).unwrap();
        for _ in 0..CAPACITY + 3 {
            queue.put(Traced::Change(AuditEvent::ResponseEnded, Uuid::nil(), Timestamp::from_millis(0)));
        }
        assert_eq!(dropped.get(), 3);
        receiver.try_recv().unwrap();
        queue.put(Traced::Change(AuditEvent::ResponseEnded, Uuid::nil(), Timestamp::from_millis(0)));
        assert_eq!(dropped.get(), 3);
    }
}
