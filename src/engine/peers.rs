//! The way to the other managers on the same database: what they are told. The tasks that send and
//! receive are in `peer_watch.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::domain::presence::Presence;

/// Agents that talk to other managers.
pub type Elsewhere = Arc<HashMap<Uuid, Presence>>;

/// What the other managers are told.
#[derive(Debug)]
pub(super) enum Outgoing {
    Wake(Vec<Uuid>),
    Look,
    Close { node: String, agent: Uuid, number: i64, run: Option<Uuid> },
    Left(Uuid, i64),
}

/// The way to the other managers.
#[derive(Debug)]
pub struct Peers {
    /// `None` for SQLite.
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
    /// Whether there are any.
    pub(super) others: AtomicI64,
}

/// The receiving end of [`Peers`].
#[derive(Debug)]
pub(super) struct Hints(pub(super) mpsc::UnboundedReceiver<Outgoing>);

impl Peers {
    /// The way to other managers, and its other end; neither where this process is the only one.
    pub(super) fn new(is_shared: bool) -> (Self, Option<Hints>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let others = AtomicI64::new(0);
        if is_shared {
            (Self { outgoing: Some(sender), others }, Some(Hints(receiver)))
        } else {
            (Self { outgoing: None, others }, None)
        }
    }

    fn send(&self, outgoing: Outgoing) {
        if let Some(sender) = &self.outgoing {
            // Only the end of the manager closes it.
            let _ = sender.send(outgoing);
        }
    }

    /// Commands were queued for these agents.
    pub fn wake(&self, agents: &[Uuid]) {
        if self.others.load(Ordering::Relaxed) > 0 {
            self.send(Outgoing::Wake(agents.to_vec()));
        }
    }

    /// The configuration has changed.
    pub fn look(&self) {
        self.send(Outgoing::Look);
    }

    /// An agent of `node` has a newer connection here.
    pub fn close(&self, node: String, agent: Uuid, number: i64, run: Option<Uuid>) {
        self.send(Outgoing::Close { node, agent, number, run });
    }

    /// A stream of an agent, of this number, has ended here.
    pub fn left(&self, agent: Uuid, number: i64) {
        self.send(Outgoing::Left(agent, number));
    }
}
