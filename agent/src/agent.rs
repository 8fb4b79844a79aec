//! What the parts of a running agent share: its memory, its clock, its actions, and the bells that wake the others.
//! A bell is only a hint; whoever wakes looks into the book.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::actions::{self, Action};
use crate::clock::Clock;
use crate::journal::{Book, Ledger, Record};
use crate::runner::Runner;
use crate::tasks::Tasks;

/// The lane of commands whose action this agent does not know: it only ever refuses.
pub const UNKNOWN_DOMAIN: &str = "unknown";

/// The journal cannot be written: the agent is stopping, and nothing may be done any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct Unwritable;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The time.
    pub clock: Clock,
    /// The tasks, and the order to stop.
    pub tasks: Tasks,
    /// Starts the programs of actions.
    pub runner: Runner,
    /// Brings nothing into force and says what it would have done; what is in force from before is still lifted.
    pub observe: bool,
    /// Rung when a result has come into the outbox.
    pub outbox: Notify,
    actions: &'static [&'static dyn Action],
    book: Mutex<Book>,
    lanes: HashMap<&'static str, Notify>,
}

impl Agent {
    /// An agent with this memory and these actions; nothing runs yet.
    pub fn new(
        book: Book,
        actions: &'static [&'static dyn Action],
        clock: Clock,
        runner: Runner,
        observe: bool,
    ) -> Self {
        let domains = actions.iter().map(|action| action.lock_domain()).chain([UNKNOWN_DOMAIN]);
        let lanes = domains.map(|domain| (domain, Notify::new())).collect();
        let (tasks, outbox) = (Tasks::new(), Notify::new());
        Self { clock, tasks, runner, observe, outbox, actions, book: Mutex::new(book), lanes }
    }

    /// The actions, available or not.
    pub fn actions(&self) -> &'static [&'static dyn Action] {
        self.actions
    }

    /// The action of that name.
    pub fn action(&self, name: &str) -> Option<&'static dyn Action> {
        actions::find(self.actions, name)
    }

    /// The lock domains, one lane each.
    pub fn domains(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.lanes.keys().copied()
    }

    /// The lane that an action's commands and undos go through.
    pub fn domain_of(&self, action: &str) -> &'static str {
        self.action(action).map_or(UNKNOWN_DOMAIN, Action::lock_domain)
    }

    /// Waits until somebody rings for this lane.
    pub async fn wait_for_work(&self, domain: &'static str) {
        if let Some(bell) = self.lanes.get(domain) {
            bell.notified().await;
        }
    }

    /// Rings for every lane.
    pub fn wake_lanes(&self) {
        self.lanes.values().for_each(Notify::notify_one);
    }

    /// Looks into the ledger.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(self.book.lock().unwrap_or_else(PoisonError::into_inner).ledger())
    }

    /// Writes what `decide` adds, as one batch, and gives its answer once that is on disk.
    ///
    /// # Errors
    /// When it is not on disk. The agent is stopping then, and the caller must do nothing on the answer's word.
    pub fn write<T>(&self, decide: impl FnOnce(&mut Book) -> T) -> Result<T, Unwritable> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if book.is_broken() {
            return Err(Unwritable);
        }
        let answer = decide(&mut book);
        match book.commit() {
            Ok(()) => Ok(answer),
            Err(error) => {
                let reason = crate::telemetry::chain(&error);
                tracing::error!(reason, "the journal cannot be written: stopping, nothing more is executed");
                self.tasks.fail(reason);
                Err(Unwritable)
            }
        }
    }

    /// Writes these records as one batch.
    ///
    /// # Errors
    /// As [`Agent::write`].
    pub fn record(&self, records: impl IntoIterator<Item = Record>) -> Result<(), Unwritable> {
        self.write(|book| records.into_iter().for_each(|record| book.add(record)))
    }
}
