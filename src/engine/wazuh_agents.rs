//! Who is who in Wazuh: an agent says at its enrolment which agent of Wazuh its host is, and is believed when the list of a Wazuh
//! manager agrees. Otherwise the claim waits for a person, who labels the agent.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use crate::domain::actor::Actor;
use crate::domain::host_name::is_same_host;
use crate::domain::labels::{WAZUH_ID, WAZUH_MANAGER, WAZUH_NAME};
use crate::domain::wazuh_claim::{ClaimVerdict, judge};
use crate::store::StoreError;
use crate::store::configured::wazuh_agents::{self, WaitingClaim};

impl Engine {
    /// Replaces the list of a Wazuh manager, and judges the claims that wait. Returns how many are believed now.
    ///
    /// # Errors
    /// If the ledger cannot be read or written.
    pub async fn list_wazuh_agents(self: &Arc<Self>, manager: &str, agents: &[(String, String)]) -> UseCase<usize> {
        wazuh_agents::replace(&self.db, manager, agents).await?;
        let mut believed = 0;
        for claim in wazuh_agents::claims(&self.db).await? {
            believed += usize::from(self.settle(&claim).await?);
        }
        Ok(believed)
    }

    /// Notes what a new agent says of itself, and believes it if it can.
    ///
    /// # Errors
    /// If the ledger cannot be read or written.
    pub(super) async fn claim_wazuh_agent(self: &Arc<Self>, agent: Uuid, number: String, name: String) -> UseCase<()> {
        wazuh_agents::claim(&self.db, agent, &number, &name).await?;
        let claim = WaitingClaim { agent_id: agent.to_string(), number, name, doubt: None };
        self.settle(&claim).await.map(drop)
    }

    /// What agents that are not believed say of themselves, by their ids.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn waiting_claims(&self) -> Result<HashMap<String, WaitingClaim>, StoreError> {
        Ok(wazuh_agents::claims(&self.db).await?.into_iter().map(|claim| (claim.agent_id.clone(), claim)).collect())
    }

    async fn settle(self: &Arc<Self>, claim: &WaitingClaim) -> UseCase<bool> {
        let WaitingClaim { agent_id, number, name, .. } = claim;
        let agent = agent_id.parse().ok().and_then(|id| self.fleet.load().get(id).cloned());
        // Revoked, or labelled by a person.
        let Some(agent) = agent.filter(|agent| agent.wazuh_id().is_none()) else {
            wazuh_agents::settle(&self.db, agent_id, None).await?;
            return Ok(false);
        };
        let (listed, managers) = wazuh_agents::listed(&self.db, number).await?;
        let manager = match judge(number, name, &listed, managers) {
            ClaimVerdict::Unknown => return Ok(false),
            ClaimVerdict::Contradicts(why) => return self.doubt(claim, &why).await,
            ClaimVerdict::Agrees { manager } => manager,
        };
        let mut labels = Map::from_iter([(WAZUH_ID.to_owned(), Value::from(number.as_str()))]);
        if !is_same_host(name, &agent.name) {
            labels.insert(WAZUH_NAME.to_owned(), name.as_str().into());
        }
        if let Some(manager) = manager {
            labels.insert(WAZUH_MANAGER.to_owned(), manager.into());
        }
        match self.change_labels(agent.id, labels, None, &Actor::Riposte).await {
            Ok(()) => {}
            Err(Refusal::Conflict(why)) => return self.doubt(claim, &why).await,
            Err(other) => return Err(other),
        }
        wazuh_agents::settle(&self.db, agent_id, None).await?;
        Ok(true)
    }

    async fn doubt(&self, claim: &WaitingClaim, why: &str) -> UseCase<bool> {
        if claim.doubt.as_deref() != Some(why) {
            tracing::warn!(agent = claim.agent_id, "the agent's identity in Wazuh waits for a person: {why}");
            wazuh_agents::settle(&self.db, &claim.agent_id, Some(why)).await?;
        }
        Ok(false)
    }
}
