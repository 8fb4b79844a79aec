//! Changes of secrets by people.

use std::sync::Arc;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use super::secret_values::purpose;
use crate::domain::fault::Fault;
use crate::domain::principal::Principal;
use crate::domain::secret_reference::{is_secret_name, references};
use crate::store::configured::secrets;
use crate::store::ledger::audit::LedgerTx;
use crate::views::secrets::SetSecret;

/// Maximum length of a value, in characters.
const MAX_VALUE: usize = 4096;

impl Engine {
    /// Sets a secret.
    ///
    /// # Errors
    /// Faults of what is asked.
    pub async fn set_secret(self: &Arc<Self>, name: &str, asked: SetSecret, by: &Principal) -> UseCase<()> {
        let SetSecret { value, actions } = asked;
        let mut faults = Vec::new();
        if !is_secret_name(name) {
            faults.push(Fault::at(
                "",
                "a secret's name is 1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or a digit",
            ));
        }
        if value.is_empty() || value.chars().count() > MAX_VALUE || value.chars().any(char::is_control) {
            faults.push(Fault::at("/value", format!("must be one line of 1 to {MAX_VALUE} characters")));
        }
        if actions.is_empty() {
            faults.push(Fault::at("/actions", "must name the actions that may receive it"));
        }
        let known = self.actions.load();
        let unknown = actions.iter().enumerate().filter(|(_, action)| known.find(action).is_none());
        faults.extend(unknown.map(|(index, _)| Fault::at(format!("/actions/{index}"), "is not a known action")));
        if !faults.is_empty() {
            return Err(Refusal::Invalid(faults));
        }
        let sealed = self.ledger_key.seal(&purpose(name), value.as_bytes());
        let sealed = sealed.map_err(|error| Refusal::System(error.to_string()))?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        secrets::set(&mut ledger, name, &actions, sealed, &by.at(), self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// If there is none, or a policy refers to it.
    pub async fn delete_secret(self: &Arc<Self>, name: &str, by: &Principal) -> UseCase<()> {
        let users = self.users_of_secret(name);
        if !users.is_empty() {
            let users = users.join(", ");
            return Err(Refusal::Conflict(format!("these policies refer to the secret {name:?}: {users}")));
        }
        let mut ledger = LedgerTx::begin(&self.db).await?;
        secrets::delete(&mut ledger, name, &by.at(), self.clock.now()).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// The policies whose arguments refer to the secret `name`.
    pub fn users_of_secret(&self, name: &str) -> Vec<String> {
        let policies = self.policies.load();
        let refers = |arguments: &[String]| references(arguments).any(|own| own == name);
        let users = policies.policies().iter().filter(|versioned| refers(&versioned.policy.respond.arguments));
        users.map(|versioned| versioned.policy.name.clone()).collect()
    }
}
