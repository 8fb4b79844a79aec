//! Intake: the first stage of the flow. Alerts are parsed, decided and passed to the group commit.
//! The caller gets a response once all of it is durable (promise 1).

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use riposte_protocol::time::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::Engine;
use super::decide::{Ages, Circumstances, Decided, decide};
pub use super::rules::Rules;
use crate::domain::alert::Alert;
use crate::domain::fault::Fault;
use crate::domain::formats::{self, AlertMappings};
use crate::domain::id::new_id;
use crate::domain::pipeline::{self, Bound, Recurring};
use crate::domain::principal::Principal;
use crate::domain::response::{NewResponse, Verdict};
use crate::domain::scope::Scopes;
use crate::store::database::codec::Encoder;
use crate::store::database::{Result, StoreError};
use crate::store::ledger::alerts::NewAlert;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::trace_queue::{Traced, TracedIntake};
use crate::store::writer::{Accepted, IdempotentOutcome, IntakeJob};
use crate::telemetry::{ByOutcome, ByState};

/// How often alerts are decided again whose configuration is changed while they are on their way. An import changes it
/// a hundred times within a second.
const DECISIONS: usize = 100;

thread_local! {
    /// A reused context: creating one costs more than compressing an alert.
    static ENCODER: RefCell<Encoder> = RefCell::default();
}

/// The stored form of an alert's bytes.
pub(super) fn encode(raw: &[u8]) -> Vec<u8> {
    ENCODER.with_borrow_mut(|encoder| encoder.encode(raw))
}

/// Outcome of one request with alerts.
#[derive(Debug, Default)]
pub struct Receipt {
    /// Number of alerts stored for the first time.
    pub accepted: usize,
    /// Number of duplicates.
    pub duplicates: usize,
    /// Number of duplicates that differ from the stored alert.
    pub conflicting: usize,
    /// Invalid alerts by position, with their faults.
    pub rejected: Vec<(usize, Vec<Fault>)>,
    /// Responses to the accepted alerts.
    pub responses: Vec<Uuid>,
}

/// The context for parsing alerts.
struct Reading<'a> {
    mappings: &'a AlertMappings,
    recurring: &'a Recurring,
    bound: Option<Bound<'a>>,
    /// For which alerts the sender may speak.
    scopes: &'a Scopes,
}

impl Engine {
    /// Stores `raws`, the bytes of one alert each. Their memory `permit` is held until the
    /// commit. An alert that is outside the sender's scope is rejected.
    ///
    /// # Errors
    /// If the ledger cannot be written; then nothing is stored.
    pub async fn accept(
        &self,
        raws: Vec<&[u8]>,
        sender: &Principal,
        once: Option<Once>,
        trace: Option<&str>,
        permit: OwnedSemaphorePermit,
    ) -> Result<IdempotentOutcome<Receipt>> {
        let (permit, mut needed) = (Arc::new(permit), 0);
        for _ in 0..DECISIONS {
            let epoch = self.epochs.applied();
            let watch = self.db.traces().is_open().then(|| Stopwatch::start(self.clock.now()));
            let (alerts, mut receipt) = self.decide_all(&raws, sender, trace);
            // Nothing to store: respond without a transaction.
            if alerts.is_empty() && once.is_none() {
                self.keep_rejected(&raws, &receipt.rejected, sender).await?;
                self.count("rejected", receipt.rejected.len());
                return Ok(IdempotentOutcome::Done(receipt));
            }
            let soonest = alerts.iter().flat_map(|(_, responses)| responses).filter_map(ends_at).min();
            let answered = watch.map(|watch| (watch.lap(), answered(&alerts)));
            let job = IntakeJob { alerts, epoch, permit: Some(Arc::clone(&permit)), once: once.clone() };
            let accepted = match self.writer.intake(job).await {
                Ok(IdempotentOutcome::Done(accepted)) => accepted,
                Ok(IdempotentOutcome::KeyReused) => return Ok(IdempotentOutcome::KeyReused),
                Err(StoreError::Outdated(change)) => {
                    self.epochs.reached(change).await?;
                    needed = change;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(soonest) = soonest {
                self.undo.expect(soonest);
            }
            if let Some((watch, answered)) = answered {
                self.trace_intake(&watch, answered, &accepted.new, trace);
            }
            self.account(&mut receipt, accepted);
            self.keep_rejected(&raws, &receipt.rejected, sender).await?;
            return Ok(IdempotentOutcome::Done(receipt));
        }
        Err(StoreError::Outdated(needed))
    }

    /// Passes on what the spans of an intake are made of: those of the new alerts that got responses.
    fn trace_intake(&self, watch: &Stopwatch, answered: Vec<Option<Uuid>>, new: &[bool], trace: Option<&str>) {
        let alerts: Vec<Uuid> =
            answered.into_iter().zip(new).filter_map(|(alert, is_new)| alert.filter(|_| *is_new)).collect();
        if alerts.is_empty() {
            return;
        }
        let (received, decided, committed) = watch.times();
        let trace = trace.map(str::to_owned);
        self.db.traces().put(Traced::Intake(TracedIntake { alerts, trace, received, decided, committed }));
    }

    /// Counts what became of the alerts of a request.
    fn account(&self, receipt: &mut Receipt, accepted: Accepted) {
        receipt.accepted = accepted.new.iter().filter(|new| **new).count();
        receipt.duplicates = accepted.new.len() - receipt.accepted;
        receipt.conflicting = accepted.conflicting;
        receipt.responses = accepted.responses;
        self.count("rejected", receipt.rejected.len());
        self.count("accepted", receipt.accepted);
        self.count("duplicate", receipt.duplicates);
        self.metrics.alerts_conflicting.inc_by(receipt.conflicting as u64);
        for (state, count) in accepted.states {
            self.metrics.responses.get_or_create(&ByState { state }).inc_by(count);
        }
    }

    /// Reads and decides alerts, by the configuration as it is in force here.
    fn decide_all(
        &self,
        raws: &[&[u8]],
        sender: &Principal,
        trace: Option<&str>,
    ) -> (Vec<(NewAlert, Vec<NewResponse>)>, Receipt) {
        let now = self.clock.now();
        let (policies, actions) = (self.policies.load(), self.actions.load());
        let (fleet, protected) = (self.fleet.load(), self.protected.load());
        let circumstances = Circumstances {
            policies: &policies,
            actions: &actions,
            fleet: &fleet,
            protected: &protected,
            now,
            ages: Ages::Judged { received: now, max_age: self.rules.max_age },
            trace,
        };
        let since = self.pipelines.load();
        let bound =
            sender.pipeline.as_deref().map(|name| Bound { name, since: since.get(name).copied().unwrap_or(now) });
        let reading =
            Reading { mappings: &self.mappings, recurring: &self.rules.recurring, bound, scopes: &sender.scopes };
        let mut receipt = Receipt::default();
        let mut alerts = Vec::with_capacity(raws.len());
        for (index, raw) in raws.iter().enumerate() {
            match read(raw, &reading, circumstances) {
                Ok((alert, Decided { responses, failed })) => {
                    for (versioned, failure) in failed {
                        self.conditions.note(&versioned.policy.name, &failure, now, &self.metrics);
                    }
                    alerts.push((alert, responses));
                }
                Err(faults) => receipt.rejected.push((index, faults)),
            }
        }
        (alerts, receipt)
    }

    fn count(&self, outcome: &'static str, by: usize) {
        if by > 0 {
            self.metrics.alerts.get_or_create(&ByOutcome { outcome }).inc_by(by as u64);
        }
    }
}

fn read<'a>(
    raw: &[u8],
    reading: &Reading,
    circumstances: Circumstances<'a>,
) -> std::result::Result<(NewAlert, Decided<'a>), Vec<Fault>> {
    let (text, alert) = formats::read(raw, reading.mappings, reading.bound.map(|bound| bound.name))?;
    reading.scopes.check_alert(&alert, circumstances.fleet)?;
    let alert = alert.received(circumstances.now);
    let key = pipeline::key(&alert, reading.bound, reading.recurring);
    let id = new_id(circumstances.now);
    let decided = decide(id, &alert, &text, circumstances);
    let stored = encode(raw);
    let is_late = is_late(&alert, circumstances.ages);
    Ok((NewAlert { id, alert, key, stored, is_late }, decided))
}

/// Whether no policy without a `max_age` of its own answers an alert of that age.
fn is_late(alert: &Alert, ages: Ages) -> bool {
    let Ages::Judged { received, max_age } = ages else { return false };
    alert.rule.level > 0 && alert.time < received && max_age.staleness(alert.time, received).is_some()
}

/// By position, the ids of the alerts that got responses.
fn answered(alerts: &[(NewAlert, Vec<NewResponse>)]) -> Vec<Option<Uuid>> {
    alerts.iter().map(|(alert, responses)| (!responses.is_empty()).then_some(alert.id)).collect()
}

/// Times of an intake, finer than the clock's milliseconds.
struct Stopwatch {
    received: Timestamp,
    started: Instant,
    decided: Duration,
}

impl Stopwatch {
    fn start(received: Timestamp) -> Self {
        Self { received, started: Instant::now(), decided: Duration::ZERO }
    }

    /// All is decided.
    fn lap(self) -> Self {
        Self { decided: self.started.elapsed(), ..self }
    }

    /// When it was received, decided, and durable (now), in nanoseconds since the epoch.
    fn times(&self) -> (u64, u64, u64) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let received = u64::try_from(self.received.as_millis()).unwrap_or(0).saturating_mul(1_000_000);
        let at = |since: Duration| received.saturating_add(nanos(since));
        (received, at(self.decided), at(self.started.elapsed()))
    }
}

fn ends_at(response: &NewResponse) -> Option<Timestamp> {
    response.until.instant().filter(|_| response.verdict == Verdict::Act)
}
