//! Intake: the first stage of the flow. Alerts come in as they were sent, are read, decided and handed to the group
//! commit; the caller hears back when all of it is durable (promise 1).

use std::cell::RefCell;

use riposte_protocol::time::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::Engine;
use super::decide::{Circumstances, decide};
use crate::domain::fault::Fault;
use crate::domain::id::new_id;
use crate::domain::response::{NewResponse, Verdict};
use crate::domain::shapes::{self, Sources};
use crate::store::alerts::NewAlert;
use crate::store::codec::Encoder;
use crate::store::db::Result;
use crate::store::idempotency::Once;
use crate::store::writer::{Intake, Outcome};
use crate::telemetry::{ByOutcome, ByState};

thread_local! {
    /// Making a compression context costs more than compressing one alert with it.
    static ENCODER: RefCell<Encoder> = RefCell::default();
}

/// What became of the alerts of one request.
#[derive(Debug, Default)]
pub struct Receipt {
    /// How many are stored now that were not before.
    pub accepted: usize,
    /// How many had been stored before.
    pub duplicates: usize,
    /// Which are no alerts, by position, and why.
    pub rejected: Vec<(usize, Vec<Fault>)>,
    /// The responses of the accepted ones.
    pub responses: Vec<Uuid>,
}

impl Engine {
    /// Takes in `raws`, each either the text of one alert or why there is none at that position. They hold their `place` in
    /// memory until they are committed.
    ///
    /// # Errors
    /// If the ledger cannot be written; then nothing is stored.
    pub async fn accept(
        &self,
        raws: Vec<std::result::Result<&str, Fault>>,
        once: Option<Once>,
        trace: Option<&str>,
        place: OwnedSemaphorePermit,
    ) -> Result<Outcome<Receipt>> {
        let now = self.clock.now();
        let (policies, actions) = (self.policies.load(), self.actions.load());
        let (fleet, protected) = (self.fleet.load(), self.protected.load());
        let circumstances =
            Circumstances { policies: &policies, actions: &actions, fleet: &fleet, protected: &protected, now, trace };
        let mut receipt = Receipt::default();
        let mut alerts = Vec::with_capacity(raws.len());
        for (index, raw) in raws.into_iter().enumerate() {
            match raw.map_err(|fault| vec![fault]).and_then(|raw| read(raw, &self.sources, circumstances)) {
                Ok(alert) => alerts.push(alert),
                Err(faults) => receipt.rejected.push((index, faults)),
            }
        }
        drop((policies, actions, fleet, protected));
        self.count("rejected", receipt.rejected.len());
        // Nothing to store and nothing to remember: an answer that needs no transaction.
        if alerts.is_empty() && once.is_none() {
            return Ok(Outcome::Done(receipt));
        }
        let soonest = alerts.iter().flat_map(|(_, responses)| responses).filter_map(ends_at).min();
        let accepted = match self.writer.intake(Intake { alerts, place: Some(place), once }).await? {
            Outcome::Done(accepted) => accepted,
            Outcome::KeyReused => return Ok(Outcome::KeyReused),
        };
        if let Some(soonest) = soonest {
            self.undo.expect(soonest);
        }
        receipt.accepted = accepted.new.iter().filter(|new| **new).count();
        receipt.duplicates = accepted.new.len() - receipt.accepted;
        receipt.responses = accepted.responses;
        self.count("accepted", receipt.accepted);
        self.count("duplicate", receipt.duplicates);
        for (state, count) in accepted.states {
            self.metrics.responses.get_or_create(&ByState { state }).inc_by(count);
        }
        Ok(Outcome::Done(receipt))
    }

    fn count(&self, outcome: &'static str, by: usize) {
        if by > 0 {
            self.metrics.alerts.get_or_create(&ByOutcome { outcome }).inc_by(by as u64);
        }
    }
}

fn read(
    raw: &str,
    sources: &Sources,
    circumstances: Circumstances,
) -> std::result::Result<(NewAlert, Vec<NewResponse>), Vec<Fault>> {
    let alert = shapes::parse(raw, sources)?;
    let id = new_id(circumstances.now);
    let responses = decide(id, &alert, raw, circumstances);
    let stored = ENCODER.with_borrow_mut(|encoder| encoder.encode(raw.as_bytes()));
    Ok((NewAlert { id, alert, stored }, responses))
}

fn ends_at(response: &NewResponse) -> Option<Timestamp> {
    response.until.instant().filter(|_| response.verdict == Verdict::Act)
}
