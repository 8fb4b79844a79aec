//! What producers of OpenC2 call a response: the rule number that they were answered, and their id of the
//! command.

use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::store::StoreError;
use crate::store::database::columns::id;
use crate::store::database::{Db, Result, binds, statements};

statements! {
    BY_RESPONSE = "SELECT number, response_id FROM openc2_rules WHERE response_id = $1";
    BY_NUMBER = "SELECT number, response_id FROM openc2_rules WHERE number = $1";
    BY_COMMAND = "SELECT number, response_id FROM openc2_rules
        WHERE command_id IS NOT NULL AND principal = $1 AND command_id = $2";
    LAST = "SELECT number, response_id FROM openc2_rules ORDER BY number DESC LIMIT 1";
    INSERT = "INSERT INTO openc2_rules (number, principal, command_id, response_id) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    /// Ids of commands are taken again once they are forgotten.
    RELEASE = "UPDATE openc2_rules SET command_id = NULL WHERE command_id IS NOT NULL AND principal = $1 AND command_id = $2";
    pub(in crate::store) DROP = "DELETE FROM openc2_rules WHERE response_id IN (VALUES {1})";
}

#[derive(sqlx::FromRow)]
struct RuleRow {
    number: i64,
    response_id: String,
}

/// The number of a response, which it gets if it has none.
pub async fn number(ledger: &mut LedgerTx, by: &Actor, command: Option<&str>, response: Uuid) -> Result<i64> {
    if let Some(known) = ledger.tx.optional::<RuleRow>(BY_RESPONSE, binds![response]).await? {
        return Ok(known.number);
    }
    let last = ledger.tx.optional::<RuleRow>(LAST, vec![]).await?.map_or(0, |row| row.number);
    // Retention may have removed the last one. The audit log is longer by then: each response has an entry.
    let number = ledger.last_seq().max(last + 1);
    // The principal means its last command of this id.
    ledger.tx.execute(RELEASE, binds![by, command]).await?;
    if ledger.tx.execute(INSERT, binds![number, by, command, response]).await? == 0 {
        // Another manager has just given the number.
        return Err(StoreError::Busy);
    }
    Ok(number)
}

/// The response with this number.
pub async fn numbered(db: &Db, number: i64) -> Result<Option<Uuid>> {
    let row: Option<RuleRow> = db.optional(BY_NUMBER, binds![number]).await?;
    row.map(|row| id(&row.response_id)).transpose()
}

/// The response to a command of this principal.
pub async fn commanded(db: &Db, by: &Actor, command: &str) -> Result<Option<Uuid>> {
    let row: Option<RuleRow> = db.optional(BY_COMMAND, binds![by, command]).await?;
    row.map(|row| id(&row.response_id)).transpose()
}
