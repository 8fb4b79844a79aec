//! What the parts of a running agent share: its journal, its clock, its actions, its local policy,
//! and the notifications that wake its tasks. A notification is only a hint; the task that wakes
//! reads the journal.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riposte_protocol::command::Script;
use riposte_protocol::message::Capability;
use riposte_protocol::target::Target;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::actions::{self, Action, Domain, Host};
use crate::clock::Clock;
use crate::conventions;
use crate::journal::{Journal, JournalError, JournalState, Record};
use crate::local_policy::LocalPolicy;
use crate::scripts;
use crate::self_protection::SelfProtection;
use crate::tasks::Tasks;

/// The lane of commands whose action this agent does not know: it only ever refuses.
pub const UNKNOWN_DOMAIN: &str = "unknown";

/// The journal cannot be written, and why. What was to be written has not happened, and must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's journal cannot be written, so nothing new is executed: {0}")]
pub struct Unwritable(pub String);

/// What each action and custom program can and may do on this host, as reported to the manager.
pub fn capabilities(actions: &'static [&'static dyn Action], host: &Host, policy: &LocalPolicy) -> Vec<Capability> {
    let mut capabilities = actions::capabilities(actions, host, policy.observe);
    for capability in &mut capabilities {
        let forbidden = match capability.action.strip_prefix(conventions::PREFIX) {
            // The manager's names for the program are not known here.
            Some(program) => policy.forbids_program(program),
            None => policy.forbids(&capability.action, None),
        };
        if forbidden.is_some() {
            (capability.available, capability.reason) = (false, forbidden);
        }
    }
    capabilities
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The clock.
    pub clock: Clock,
    /// The tasks, and the token that stops them.
    pub tasks: Tasks,
    /// What actions know of this host, and how they start programs.
    pub host: Host,
    /// The host's own rules. With `observe`, the agent brings nothing into force; effects that are
    /// already in force are still lifted.
    pub policy: LocalPolicy,
    /// Targets that must never be touched here.
    pub self_protection: SelfProtection,
    /// Notified when there is something to report to the manager: a result in the outbox, or a
    /// change of an effect.
    pub outbox: Notify,
    /// Notified when the journal could not be written; wakes the task that repairs it.
    pub journal_broke: Notify,
    actions: &'static [&'static dyn Action],
    journal: Mutex<Journal>,
    lanes: Mutex<BTreeMap<Domain, Arc<Notify>>>,
    /// Notified when a command has arrived that may need a new lane.
    new_lane: Notify,
    /// Effects whose latest state the manager does not know. In memory only: every connection
    /// begins with a full report.
    news: Mutex<BTreeSet<Uuid>>,
    /// Commands whose refusal is not in the journal yet. After a crash they would be executed, so a
    /// refusal is reported only once it is on disk.
    untold: Mutex<HashSet<Uuid>>,
}

impl Agent {
    /// Builds an agent; starts nothing.
    pub fn new(
        journal: Journal,
        actions: &'static [&'static dyn Action],
        clock: Clock,
        host: Host,
        policy: LocalPolicy,
        self_protection: SelfProtection,
    ) -> Self {
        let agent = Self {
            clock,
            tasks: Tasks::new(),
            host,
            policy,
            self_protection,
            outbox: Notify::new(),
            journal_broke: Notify::new(),
            actions,
            journal: Mutex::new(journal),
            lanes: Mutex::default(),
            new_lane: Notify::new(),
            news: Mutex::default(),
            untold: Mutex::default(),
        };
        agent.learn_time_of_orders();
        agent
    }

    /// Learns from the latest order that the manager's time is not before it.
    pub fn learn_time_of_orders(&self) {
        if let Some(iat) = self.read(JournalState::latest_order) {
            self.clock.manager().learn_order(iat, &self.clock.host());
        }
    }

    /// All actions, available or not.
    pub fn actions(&self) -> &'static [&'static dyn Action] {
        self.actions
    }

    /// Returns the action of that name.
    pub fn action(&self, name: &str) -> Option<&'static dyn Action> {
        actions::find(self.actions, name)
    }

    /// What this agent can and may do here, as reported to the manager.
    pub fn capabilities(&self) -> Vec<Capability> {
        let mut capabilities = capabilities(self.actions, &self.host, &self.policy);
        if let Some(reason) = self.unwritable() {
            let unwritable: String = Unwritable(reason).to_string().chars().take(actions::MAX_REASON_CHARS).collect();
            for capability in &mut capabilities {
                // What the host's own rules forbid stays forbidden when the journal can be written
                // again.
                let reason = capability.reason.take().filter(|_| !capability.available);
                (capability.available, capability.reason) = (false, reason.or_else(|| Some(unwritable.clone())));
            }
        }
        capabilities
    }

    /// Why this target must not be touched; `None` if it may be. Lifting is always allowed: it only
    /// ever restores.
    pub fn protects(&self, target: &Target) -> Option<String> {
        let always = || target.always_protected().map(str::to_owned);
        always().or_else(|| self.self_protection.protect(target)).or_else(|| self.policy.protects(target))
    }

    /// The same, with this host's own addresses as they are at this moment: before something new is brought into force.
    pub fn protects_now(&self, target: &Target) -> Option<String> {
        self.self_protection.look_at_own_addresses(target);
        self.protects(target)
    }

    /// Opens the lanes that are needed and not open yet; returns each with the notification that
    /// wakes it. A custom program's lane is opened when the program is first named, and stays: there
    /// are at most as many as the manager names programs.
    pub fn open_lanes(&self) -> Vec<(Domain, Arc<Notify>)> {
        let known = self.actions.iter().map(|action| action.lock_domain()).chain([UNKNOWN_DOMAIN]).map(Cow::Borrowed);
        let named: Vec<Domain> = self.read(|state| {
            let pending = state.pending().filter_map(|pending| pending.command.script.as_ref());
            let held = state.held().filter_map(|held| held.script.as_ref());
            pending.chain(held).map(scripts::domain).collect()
        });
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = Vec::new();
        for domain in known.chain(named) {
            if !lanes.contains_key(&domain) {
                let wakeup = Arc::new(Notify::new());
                lanes.insert(domain.clone(), Arc::clone(&wakeup));
                opened.push((domain, wakeup));
            }
        }
        opened
    }

    /// The lane of an action's commands and reverts.
    pub fn domain_of(&self, action: &str, script: Option<&Script>) -> Domain {
        match script {
            Some(script) => scripts::domain(script),
            None => Cow::Borrowed(self.action(action).map_or(UNKNOWN_DOMAIN, Action::lock_domain)),
        }
    }

    /// Waits until a command has arrived that may need a new lane.
    pub async fn wait_for_lanes(&self) {
        self.new_lane.notified().await;
    }

    /// Wakes every lane.
    pub fn wake_lanes(&self) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.values().for_each(|wakeup| wakeup.notify_one());
        self.new_lane.notify_one();
    }

    /// Queues a report of this effect to the manager, if there is a connection.
    pub fn tell_of(&self, effect: Uuid) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(effect);
        self.outbox.notify_one();
    }

    /// Takes the effects to report to the manager; they count as reported from now on.
    pub fn take_news(&self) -> BTreeSet<Uuid> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds the result of this command back until the journal can be written again.
    pub fn hold_back(&self, command: Uuid) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).insert(command);
    }

    /// Reads the journal for what to report to the manager. The second argument of `look` holds the
    /// commands whose results are held back.
    pub fn tell<T>(&self, look: impl FnOnce(&Journal, &HashSet<Uuid>) -> T) -> T {
        let journal = self.journal();
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.broken().is_none() {
            untold.clear();
        }
        look(&journal, &untold)
    }

    /// Reads the journal's state.
    pub fn read<T>(&self, look: impl FnOnce(&JournalState) -> T) -> T {
        look(self.journal().state())
    }

    /// Why the journal cannot be written; `None` if it can.
    pub fn unwritable(&self) -> Option<String> {
        self.journal().broken().map(str::to_owned)
    }

    /// Writes what `decide` adds as one batch, and returns its answer once the batch is on disk.
    ///
    /// # Errors
    /// When the batch is not on disk. Then nothing has changed, and the caller must not act on the
    /// answer.
    pub fn write<T>(&self, decide: impl FnOnce(&mut Journal) -> T) -> Result<T, Unwritable> {
        let mut journal = self.journal();
        if let Some(reason) = journal.broken() {
            return Err(Unwritable(reason.into()));
        }
        let answer = decide(&mut journal);
        let committed = journal.commit();
        self.look_after(&journal, committed);
        match journal.broken() {
            None => Ok(answer),
            Some(reason) => Err(Unwritable(reason.into())),
        }
    }

    /// Writes these records as one batch.
    ///
    /// # Errors
    /// As [`Agent::write`].
    pub fn record(&self, records: impl IntoIterator<Item = Record>) -> Result<(), Unwritable> {
        self.write(|journal| records.into_iter().for_each(|record| journal.add(record)))
    }

    /// Notes records that are true even if they cannot be written; see [`Journal::note`].
    pub fn note(&self, records: impl IntoIterator<Item = Record>) {
        self.note_what(|_| records.into_iter().collect());
    }

    /// As [`Agent::note`], for the records that `decide` returns.
    pub fn note_what(&self, decide: impl FnOnce(&JournalState) -> Vec<Record>) {
        let mut journal = self.journal();
        let was_broken = journal.broken().is_some();
        let records = decide(journal.state());
        let noted = journal.note(records);
        if noted.is_err() || !was_broken {
            self.look_after(&journal, noted);
        }
    }

    /// Tries to repair the journal; returns whether it can be written.
    pub fn mend_journal(&self) -> bool {
        let mut journal = self.journal();
        journal.mend();
        let is_whole = journal.broken().is_none();
        if is_whole {
            self.outbox.notify_one();
        }
        is_whole
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(&self, journal: &Journal, written: Result<(), JournalError>) {
        match (written, journal.broken()) {
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
