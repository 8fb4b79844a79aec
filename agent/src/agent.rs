//! What the parts of a running agent share: its memory, its clock, its actions, and the bells that wake the others.
//! A bell is only a hint; whoever wakes looks into the book.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use riposte_protocol::command::Script;
use riposte_protocol::message::Capability;
use tokio::sync::Notify;

use crate::actions::{self, Action, Host};
use crate::clock::Clock;
use crate::journal::{Book, Ledger, Record};
use crate::scripts;
use crate::tasks::Tasks;

/// The lane of commands whose action this agent does not know: it only ever refuses.
pub const UNKNOWN_DOMAIN: &str = "unknown";

/// What must not run at once; known beforehand, but for custom programs.
pub type Domain = Cow<'static, str>;

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
    /// What actions know of this host, and how they start programs.
    pub host: Host,
    /// Brings nothing into force and says what it would have done; what is in force from before is still lifted.
    pub observe: bool,
    /// Rung when a result has come into the outbox.
    pub outbox: Notify,
    actions: &'static [&'static dyn Action],
    book: Mutex<Book>,
    lanes: Mutex<HashMap<Domain, Arc<Notify>>>,
    /// Rung when something has come that may need a lane of its own.
    new_lane: Notify,
}

impl Agent {
    /// An agent with this memory and these actions; nothing runs yet.
    pub fn new(book: Book, actions: &'static [&'static dyn Action], clock: Clock, host: Host, observe: bool) -> Self {
        let (tasks, outbox, lanes, new_lane) = (Tasks::new(), Notify::new(), Mutex::default(), Notify::new());
        Self { clock, tasks, host, observe, outbox, actions, book: Mutex::new(book), lanes, new_lane }
    }

    /// The actions, available or not.
    pub fn actions(&self) -> &'static [&'static dyn Action] {
        self.actions
    }

    /// The action of that name.
    pub fn action(&self, name: &str) -> Option<&'static dyn Action> {
        actions::find(self.actions, name)
    }

    /// What this agent can do here, as the manager is told.
    pub fn capabilities(&self) -> Vec<Capability> {
        actions::capabilities(self.actions, &self.host, self.observe)
    }

    /// The lanes that are needed and not open yet, with their bells; they are open from now on. A custom program's lane
    /// is opened when it is first named, and stays: there are only ever as many as the manager names programs.
    pub fn open_lanes(&self) -> Vec<(Domain, Arc<Notify>)> {
        let known = self.actions.iter().map(|action| action.lock_domain()).chain([UNKNOWN_DOMAIN]).map(Cow::Borrowed);
        let named: Vec<Domain> = self.read(|ledger| {
            let pending = ledger.pending().filter_map(|pending| pending.command.script.as_ref());
            let held = ledger.held().filter_map(|held| held.script.as_ref());
            pending.chain(held).map(scripts::domain).collect()
        });
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = Vec::new();
        for domain in known.chain(named) {
            if !lanes.contains_key(&domain) {
                let bell = Arc::new(Notify::new());
                lanes.insert(domain.clone(), Arc::clone(&bell));
                opened.push((domain, bell));
            }
        }
        opened
    }

    /// The lane that an action's commands and undos go through.
    pub fn domain_of(&self, action: &str, script: Option<&Script>) -> Domain {
        match script {
            Some(script) => scripts::domain(script),
            None => Cow::Borrowed(self.action(action).map_or(UNKNOWN_DOMAIN, Action::lock_domain)),
        }
    }

    /// Waits until something has come that may need a lane of its own.
    pub async fn wait_for_lanes(&self) {
        self.new_lane.notified().await;
    }

    /// Rings for every lane.
    pub fn wake_lanes(&self) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.values().for_each(|bell| bell.notify_one());
        self.new_lane.notify_one();
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
