//! The public half of the signing key that this ledger's agents trust. A manager with another key
//! would send commands that every agent rejects, so it does not start (`src/cli/signing.rs`).

use riposte_protocol::command::ManagerKey;
use riposte_protocol::time::Timestamp;

use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::{Db, Result, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::views::columns::Millis;

statements! {
    CURRENT = "SELECT kid, public_key, adopted_at FROM signing_keys WHERE retired_at IS NULL ORDER BY adopted_at DESC LIMIT 1";
    RETIRE = "UPDATE signing_keys SET retired_at = $1 WHERE retired_at IS NULL";
    ADOPT = "INSERT INTO signing_keys (kid, public_key, adopted_at) VALUES ($1, $2, $3)
        ON CONFLICT (kid) DO UPDATE SET public_key = excluded.public_key, adopted_at = excluded.adopted_at, retired_at = NULL";
}

/// The key that signs this ledger's commands.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct KnownKey {
    /// Key id.
    pub kid: String,
    /// Ed25519 public key in base64url.
    pub public_key: String,
    /// When the ledger adopted it.
    pub adopted_at: Millis,
}

/// The ledger's key; `None` before the first start with this version.
pub async fn current(db: &Db) -> Result<Option<KnownKey>> {
    db.optional(CURRENT, vec![]).await
}

/// Makes `key` the signing key.
pub async fn adopt(ledger: &mut LedgerTx, key: &ManagerKey, why: &str, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.tx.execute(RETIRE, binds![now]).await?;
    ledger.tx.execute(ADOPT, binds![key.kid.as_str(), key.public_key.as_str(), now]).await?;
    let (event, noun_id, detail) = (AuditEvent::SigningKeyAdopted, key.kid.clone(), why.to_owned());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail });
    Ok(())
}
