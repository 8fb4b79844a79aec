//! Statements about the signing keys, and which one each agent has made durable. Statements are
//! signed before they come here, and never deleted.

use riposte_protocol::command::ManagerKey;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::store::database::columns::{id, json};
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::views::columns::{JsonText, Millis};

statements! {
    ALL = "SELECT number, token, signed_by, keys, recovery, revocation, made_at, made_by FROM key_statements ORDER BY number";
    ADD = "INSERT INTO key_statements (number, token, signed_by, keys, recovery, revocation, made_at, made_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    NUMBERS = "SELECT id, key_number FROM agents WHERE revoked_at IS NULL";
    SET_NUMBERS = "UPDATE agents SET key_number = CAST(v.column2 AS BIGINT)
        FROM (VALUES {2}) AS v WHERE agents.id = v.column1";
}

/// A stored statement.
#[derive(Clone, Debug)]
pub struct StoredStatement {
    /// Its number.
    pub number: u64,
    /// Compact JWS; `None` for a key that was adopted without the old one.
    pub token: Option<String>,
    /// Id of the key that signed it.
    pub signed_by: String,
    /// The keys that it names.
    pub keys: Vec<ManagerKey>,
    /// The recovery key that agents have from then on.
    pub recovery: Option<String>,
    /// The number of the revocation, if the recovery key signed it.
    pub revocation: Option<u64>,
    /// When it was made.
    pub made_at: Timestamp,
    /// Who had it made.
    pub made_by: String,
}

#[derive(sqlx::FromRow)]
struct StatementRow {
    number: i64,
    token: Option<String>,
    signed_by: String,
    keys: JsonText,
    recovery: Option<String>,
    revocation: Option<i64>,
    made_at: Millis,
    made_by: String,
}

impl TryFrom<StatementRow> for StoredStatement {
    type Error = StoreError;

    fn try_from(row: StatementRow) -> Result<Self> {
        let StatementRow { number, token, signed_by, keys, recovery, revocation, made_at, made_by } = row;
        let (number, revocation) = (number_of(number)?, revocation.map(number_of).transpose()?);
        let (keys, made_at) = (keys.read()?, made_at.into());
        Ok(Self { number, token, signed_by, keys, recovery, revocation, made_at, made_by })
    }
}

#[derive(sqlx::FromRow)]
struct NumberRow {
    id: String,
    key_number: i64,
}

fn number_of(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| StoreError::Corrupt(format!("the number {stored} of a key statement")))
}

/// All statements, in their order.
pub async fn all(db: &Db) -> Result<Vec<StoredStatement>> {
    db.all::<StatementRow>(ALL, vec![]).await?.into_iter().map(StoredStatement::try_from).collect()
}

/// Stores a statement.
pub async fn add(ledger: &mut LedgerTx, statement: &StoredStatement, by: &Actor) -> Result<()> {
    ledger.makes_stale(Cache::SigningKeys);
    let StoredStatement { number, token, signed_by, keys, recovery, revocation, made_at, .. } = statement;
    let (token, recovery, revocation) = (token.as_deref(), recovery.as_deref(), revocation.map(bound));
    let binds = binds![bound(*number), token, signed_by.as_str(), json(keys)?, recovery, revocation, *made_at, by];
    ledger.tx.execute(ADD, binds).await?;
    Ok(())
}

/// The statement that each living agent has made durable, as far as it was written.
pub async fn numbers(db: &Db) -> Result<Vec<(Uuid, u64)>> {
    let rows: Vec<NumberRow> = db.all(NUMBERS, vec![]).await?;
    rows.into_iter().map(|row| Ok((id(&row.id)?, number_of(row.key_number)?))).collect()
}

/// Writes which statement these agents have made durable.
pub async fn set_numbers(ledger: &mut LedgerTx, agents: &[(Uuid, u64)]) -> Result<()> {
    let rows: Vec<Vec<Bind>> = agents.iter().map(|(agent, number)| binds![*agent, bound(*number)]).collect();
    ledger.tx.execute_rows(SET_NUMBERS, rows, vec![]).await?;
    Ok(())
}

fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
