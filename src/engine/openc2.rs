//! Rule numbers: what OpenC2 calls a response that is answered.

use uuid::Uuid;

use super::Engine;
use super::refusal::UseCase;
use crate::domain::principal::Principal;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::openc2;

impl Engine {
    /// The rule number of a response to a command. A repetition gets the same one.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub async fn rule_number(&self, response: Uuid, command: Option<&str>, by: &Principal) -> UseCase<i64> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let number = openc2::number(&mut ledger, &by.actor, command, response).await?;
        ledger.commit().await?;
        Ok(number)
    }
}
