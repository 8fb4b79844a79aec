//! What an import of a Wazuh configuration comes to: custom actions, policies and protected entries, stored all together or not
//! at all.

use std::sync::Arc;

use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::Engine;
use super::policies::require_right;
use super::refusal::{Refusal, UseCase};
use crate::domain::action::{Action, Catalogue};
use crate::domain::effect::Until;
use crate::domain::id::new_id;
use crate::domain::policy::Policy;
use crate::domain::principal::Principal;
use crate::domain::protected::{Covered, ProtectedEntry};
use crate::store::StoreError;
use crate::store::configured::{actions, policies, protected};
use crate::store::ledger::audit::LedgerTx;

impl Engine {
    /// Stores documents of custom actions, policies and protected entries together. An action or a protected entry that is
    /// there already, the same, is left alone.
    ///
    /// # Errors
    /// Faults of a document, or a name that is taken; then nothing is stored.
    pub async fn import(
        self: &Arc<Self>,
        action_documents: &[Value],
        policy_documents: &[Value],
        entry_documents: &[Value],
        by: &Principal,
    ) -> UseCase<()> {
        let now = self.clock.now();
        let known = self.actions.load();
        let mut custom: Vec<Action> = known.iter().filter(|a| a.script.is_some()).map(|a| (**a).clone()).collect();
        let mut new = Vec::new();
        for document in action_documents {
            let action = Action::parse(document).map_err(Refusal::Invalid)?;
            // The same command imported again is the same action.
            if !custom.contains(&action) {
                self.check_receiver(&action, by)?;
                new.push((action.name.clone(), document));
                custom.push(action);
            }
        }
        let catalogue = Catalogue::with(custom);
        let policies = policy_documents.iter().map(|document| Policy::parse(document, &catalogue));
        let policies = policies.collect::<Result<Vec<_>, _>>().map_err(Refusal::Invalid)?;
        let entries = entry_documents.iter().map(|document| entry(document, now)).collect::<UseCase<Vec<_>>>()?;

        let (mut ledger, by) = (LedgerTx::begin(&self.db).await?, &by.at());
        for (name, document) in new {
            let created = actions::create(&mut ledger, &name, document, by, now).await;
            created.map_err(|error| taken(error, "an action", &name))?;
        }
        for policy in &policies {
            let created = policies::create(&mut ledger, policy, by, now).await;
            created.map_err(|error| taken(error, "a policy", &policy.name))?;
            require_right(&mut ledger, policy).await?;
        }
        let known = protected::all(&self.db).await?;
        let mut added = Vec::new();
        for entry in entries {
            let is_same = |old: &ProtectedEntry| {
                old.covered == entry.covered && old.policies.is_empty() && old.until == Until::Never
            };
            if !known.iter().any(is_same) {
                protected::create(&mut ledger, &entry, by, now).await?;
                added.push(entry);
            }
        }
        let lift = |engine: Arc<Self>| async move { engine.lift_protected(added).await };
        self.commit_refresh_then(ledger, lift).await?;
        Ok(())
    }
}

fn taken(error: StoreError, what: &str, name: &str) -> Refusal {
    match error {
        StoreError::Duplicate => Refusal::Conflict(format!("{what} named {name} exists already; nothing was imported")),
        other => other.into(),
    }
}

fn entry(document: &Value, now: Timestamp) -> UseCase<ProtectedEntry> {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let covered = Covered::network(text("value")).map_err(|error| Refusal::System(error.to_string()))?;
    let (id, policies, reason) = (new_id(now), Vec::new(), text("reason").to_owned());
    Ok(ProtectedEntry { id, covered, policies, until: Until::Never, reason })
}
