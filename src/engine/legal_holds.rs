//! Legal holds: an administrator says what no retention may remove.

use std::sync::Arc;

use uuid::Uuid;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use crate::domain::actor::Actor;
use crate::domain::audit::reason_fault;
use crate::domain::canonical;
use crate::domain::fault::Fault;
use crate::domain::id::new_id;
use crate::domain::legal_hold::{Covers, LegalHold};
use crate::domain::policy;
use crate::store::configured::{agents, legal_holds};
use crate::store::database::columns;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::responses;
use crate::views::legal_holds::{CreateLegalHold, LegalHoldRow};

/// Maximum length of a name, in characters.
const MAX_NAME: usize = 128;

impl Engine {
    /// Creates a legal hold, once for each idempotency key.
    ///
    /// # Errors
    /// Faults of what is asked, or a hold of the same name.
    pub async fn hold(
        self: &Arc<Self>,
        asked: CreateLegalHold,
        once: Option<Once>,
        by: &Actor,
    ) -> UseCase<LegalHoldRow> {
        let request = IdempotentRequest::find(&self.db, once).await?;
        if let Some(id) = request.answered() {
            let row = legal_holds::find(&self.db, columns::id(id)?).await?;
            return row.ok_or_else(|| Refusal::NotFound("the hold was created, and released since".to_owned()));
        }
        let (hold, now) = (self.read_hold(asked).await?, self.clock.now());
        let mut ledger = LedgerTx::begin(&self.db).await?;
        if !legal_holds::create(&mut ledger, &hold, by, now).await? {
            return Err(Refusal::Conflict(format!("another legal hold is called {:?}", hold.name)));
        }
        request.keep(&mut ledger, 201, &hold.id.to_string(), now).await?;
        ledger.commit().await?;
        let row = legal_holds::find(&self.db, hold.id).await?;
        row.ok_or_else(|| Refusal::NotFound("the hold was released at once".to_owned()))
    }

    /// Releases a legal hold.
    ///
    /// # Errors
    /// If there is no such hold.
    pub async fn release_hold(self: &Arc<Self>, hold: Uuid, by: &Actor) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        legal_holds::release(&mut ledger, hold, by, self.clock.now()).await?;
        Ok(ledger.commit().await?)
    }

    async fn read_hold(&self, asked: CreateLegalHold) -> UseCase<LegalHold> {
        let mut faults = Vec::new();
        let name = asked.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            faults.push(Fault::at("/name", format!("must be one line of 1 to {MAX_NAME} characters")));
        }
        faults.extend(reason_fault(&asked.reason));
        let covers = self.covers(&asked).await?.map_err(|fault| faults.push(fault));
        match covers {
            Ok(covers) if faults.is_empty() => {
                Ok(LegalHold { id: new_id(self.clock.now()), name, reason: asked.reason, covers })
            }
            _ => Err(Refusal::Invalid(faults)),
        }
    }

    /// What a hold covers. What does not exist is a fault: a hold with a slip in it would protect nothing.
    async fn covers(&self, asked: &CreateLegalHold) -> UseCase<Result<Covers, Fault>> {
        let CreateLegalHold { kind, value, since, until, .. } = asked;
        let value = value.as_deref().map(str::trim).unwrap_or_default();
        if kind == "time" {
            return Ok(match (since, until) {
                _ if !value.is_empty() => Err(Fault::at("/value", "must be absent for a range of times")),
                (None, None) => Err(Fault::at("/since", "a range of times needs since, until or both")),
                (Some(since), Some(until)) if since >= until => Err(Fault::at("/until", "must be after since")),
                _ => Ok(Covers::Time { since: *since, until: *until }),
            });
        }
        if since.is_some() || until.is_some() {
            let at = if since.is_some() { "/since" } else { "/until" };
            return Ok(Err(Fault::at(at, "is only for the kind time")));
        }
        let found = match kind.as_str() {
            "response" => match value.parse() {
                Ok(id) => responses::find(&self.db, id).await?.map(|_| Covers::Response(id)),
                Err(_) => None,
            },
            "policy" => {
                let name = canonical::name(value);
                let is_known = policy::is_name(&name)
                    && (self.policies.load().policies().iter().any(|known| known.policy.name == name)
                        || legal_holds::has_responses(&self.db, &name).await?);
                is_known.then_some(Covers::Policy(name))
            }
            "agent" => match self.fleet.load().called(value).map(|agent| agent.id) {
                Some(id) => Some(Covers::Agent(id)),
                // A revoked one.
                None => match value.parse() {
                    Ok(id) => agents::find(&self.db, id).await?.map(|_| Covers::Agent(id)),
                    Err(_) => None,
                },
            },
            "target" => {
                let target = canonical::target(value);
                (!target.is_empty() && !target.contains('\0')).then_some(Covers::Target(target))
            }
            _ => return Ok(Err(Fault::at("/kind", format!("must be one of {}", Covers::KINDS.join(", "))))),
        };
        Ok(found.ok_or_else(|| match kind.as_str() {
            "target" => Fault::at("/value", "must be a target"),
            kind => Fault::at("/value", format!("there is no such {kind}")),
        }))
    }
}
