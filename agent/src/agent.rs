//! What the parts of a running agent share: its memory, its clock, its actions, its rules, and the bells that wake
//! the others. A bell is only a hint; whoever wakes looks into the book.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use riposte_protocol::message::Capability;
use riposte_protocol::target::Target;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::actions::{self, Action};
use crate::clock::Clock;
use crate::journal::{Book, JournalError, Ledger, Record};
use crate::local_policy::LocalPolicy;
use crate::runner::Runner;
use crate::surroundings::Surroundings;
use crate::tasks::Tasks;

/// The lane of commands whose action this agent does not know: it only ever refuses.
pub const UNKNOWN_DOMAIN: &str = "unknown";

/// The journal cannot be written, and why: what was to be written has not happened, and must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's journal cannot be written, so nothing new is executed: {0}")]
pub struct Unwritable(pub String);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The time.
    pub clock: Clock,
    /// The tasks, and the order to stop.
    pub tasks: Tasks,
    /// Starts the programs of actions.
    pub runner: Runner,
    /// The host's own rules. An agent that observes brings nothing into force; what is in force from before is still
    /// lifted.
    pub policy: LocalPolicy,
    /// What must never be touched here.
    pub surroundings: Surroundings,
    /// Rung when there is something to tell the manager: a result in the outbox, or news of an effect.
    pub outbox: Notify,
    /// Rung when the journal could not be written, for whoever mends it.
    pub journal_broke: Notify,
    actions: &'static [&'static dyn Action],
    book: Mutex<Book>,
    lanes: BTreeMap<&'static str, Notify>,
    /// Effects of which the manager does not know the latest. In memory only: every conversation begins by telling all.
    news: Mutex<BTreeSet<Uuid>>,
    /// Commands in the journal whose refusal is not. A crash now would have them executed after all, so nobody is told
    /// of the refusal before it is on disk.
    untold: Mutex<HashSet<Uuid>>,
}

impl Agent {
    /// An agent with this memory, these actions and these rules; nothing runs yet.
    pub fn new(
        book: Book,
        actions: &'static [&'static dyn Action],
        clock: Clock,
        runner: Runner,
        policy: LocalPolicy,
        surroundings: Surroundings,
    ) -> Self {
        let domains = actions.iter().map(|action| action.lock_domain()).chain([UNKNOWN_DOMAIN]);
        let lanes = domains.map(|domain| (domain, Notify::new())).collect();
        Self {
            clock,
            tasks: Tasks::new(),
            runner,
            policy,
            surroundings,
            outbox: Notify::new(),
            journal_broke: Notify::new(),
            actions,
            book: Mutex::new(book),
            lanes,
            news: Mutex::default(),
            untold: Mutex::default(),
        }
    }

    /// The actions, available or not.
    pub fn actions(&self) -> &'static [&'static dyn Action] {
        self.actions
    }

    /// The action of that name.
    pub fn action(&self, name: &str) -> Option<&'static dyn Action> {
        actions::find(self.actions, name)
    }

    /// What this agent can and may do, as the manager is told.
    pub fn capabilities(&self) -> Vec<Capability> {
        let mut capabilities = actions::capabilities(self.actions, self.policy.observe);
        let unwritable = self.unwritable().map(|reason| Unwritable(reason).to_string());
        for capability in &mut capabilities {
            if let Some(reason) = self.policy.forbids(&capability.action).or_else(|| unwritable.clone()) {
                (capability.available, capability.reason) = (false, Some(reason));
            }
        }
        capabilities
    }

    /// Why this target must not be touched, if so. Lifting is always allowed: it only ever restores.
    pub fn protects(&self, target: &Target) -> Option<String> {
        let always = || target.always_protected().map(str::to_owned);
        always().or_else(|| self.surroundings.protect(target)).or_else(|| self.policy.protects(target))
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

    /// Has the manager told of this effect, if there is a conversation.
    pub fn tell_of(&self, effect: Uuid) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(effect);
        self.outbox.notify_one();
    }

    /// The effects that the manager has to be told of; they are told now.
    pub fn take_news(&self) -> BTreeSet<Uuid> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the result of this command kept from the manager until the journal is whole again.
    pub fn hold_back(&self, command: Uuid) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).insert(command);
    }

    /// Looks into the ledger for what to tell the manager, without the results of these commands.
    pub fn tell<T>(&self, look: impl FnOnce(&Ledger, &HashSet<Uuid>) -> T) -> T {
        let book = self.book();
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if book.broken().is_none() {
            untold.clear();
        }
        look(book.ledger(), &untold)
    }

    /// Looks into the ledger.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(self.book().ledger())
    }

    /// Why the journal cannot be written, if so.
    pub fn unwritable(&self) -> Option<String> {
        self.book().broken().map(str::to_owned)
    }

    /// Writes what `decide` adds, as one batch, and gives its answer once that is on disk.
    ///
    /// # Errors
    /// When it is not on disk. Nothing has changed then, and the caller must do nothing on the answer's word.
    pub fn write<T>(&self, decide: impl FnOnce(&mut Book) -> T) -> Result<T, Unwritable> {
        let mut book = self.book();
        if let Some(reason) = book.broken() {
            return Err(Unwritable(reason.into()));
        }
        let answer = decide(&mut book);
        let committed = book.commit();
        self.look_after(&book, committed);
        match book.broken() {
            None => Ok(answer),
            Some(reason) => Err(Unwritable(reason.into())),
        }
    }

    /// Writes these records as one batch.
    ///
    /// # Errors
    /// As [`Agent::write`].
    pub fn record(&self, records: impl IntoIterator<Item = Record>) -> Result<(), Unwritable> {
        self.write(|book| records.into_iter().for_each(|record| book.add(record)))
    }

    /// Takes note of records that are true whether they can be written or not; see [`Book::note`].
    pub fn note(&self, records: impl IntoIterator<Item = Record>) {
        self.note_what(|_| records.into_iter().collect());
    }

    /// As [`Agent::note`], of what `decide` finds.
    pub fn note_what(&self, decide: impl FnOnce(&Ledger) -> Vec<Record>) {
        let mut book = self.book();
        let was_broken = book.broken().is_some();
        let records = decide(book.ledger());
        let noted = book.note(records);
        if noted.is_err() || !was_broken {
            self.look_after(&book, noted);
        }
    }

    /// Tries to make the journal whole again; gives whether it is.
    pub fn mend_journal(&self) -> bool {
        let mut book = self.book();
        book.mend();
        let is_whole = book.broken().is_none();
        if is_whole {
            self.outbox.notify_one();
        }
        is_whole
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(&self, book: &Book, written: Result<(), JournalError>) {
        match (written, book.broken()) {
            (Err(error), _) => {
                let reason = crate::telemetry::chain(&error);
                tracing::error!(reason, "the journal can be neither written nor read: stopping");
                self.tasks.fail(reason);
            }
            (Ok(()), Some(reason)) => {
                tracing::error!(
                    reason,
                    "the journal cannot be written: nothing new is executed until it can; what is due is still lifted"
                );
                self.journal_broke.notify_one();
            }
            (Ok(()), None) => {}
        }
    }
}
