//! What the sweep does about people and keys: failed logins and denied requests go into the audit log, last uses of
//! keys into the store, and keys that expire soon into the log.

use std::sync::Arc;

use riposte_protocol::time::Timestamp;

use super::Engine;
use super::denials::Denials;
use super::failed_logins::FailedLogins;
use super::key_uses::expires_soon;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::StoreError;
use crate::store::configured::keys::StoredKey;
use crate::store::configured::users;
use crate::store::ledger::audit::LedgerTx;

/// Stands in the audit log for a name that no user has.
const UNKNOWN: &str = "(unknown)";

/// Records failed logins that are due; all of them at the end.
pub(super) async fn record_failed_logins(engine: &Arc<Engine>, is_end: bool) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let due = engine.failed_logins.take(now, is_end);
    if due.is_empty() {
        return Ok(());
    }
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    for FailedLogins { user, address, count, is_locked } in due {
        let user = user.as_deref().unwrap_or(UNKNOWN);
        let address = address.map_or_else(|| "several addresses".to_owned(), |address| address.to_string());
        let record = |ledger: &mut LedgerTx, event, detail| {
            users::record(ledger, event, user, detail, &Actor::Riposte, now);
        };
        record(&mut ledger, AuditEvent::UserFailedLogin, format!("{count} times from {address}"));
        if is_locked && user != UNKNOWN {
            record(&mut ledger, AuditEvent::UserLockedOut, format!("after failed logins from {address}"));
        }
    }
    ledger.commit().await
}

/// Records denied requests that are due; all of them at the end.
pub(super) async fn record_denials(engine: &Arc<Engine>, is_end: bool) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let due = engine.denials.take(now, is_end);
    if due.is_empty() {
        return Ok(());
    }
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    for Denials { actor, operation, address, count } in due {
        let address = address.map_or_else(|| "several addresses".to_owned(), |address| address.to_string());
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let (event, detail) = (AuditEvent::RequestDenied, format!("{times} from {address}"));
        ledger.record(AuditEntry { at: now, actor, event, noun_id: operation, detail });
    }
    ledger.commit().await
}

/// Writes the last uses of keys, and warns of keys that expire soon.
pub(super) async fn look_after_keys(engine: &Engine) -> Result<(), StoreError> {
    let uses = engine.key_uses.take();
    if !uses.is_empty() {
        engine.writer.keys_used(uses).await?;
    }
    let now = engine.clock.now();
    for (id, StoredKey { key, .. }) in engine.keys.load().iter() {
        let Some(at) = key.expires_at.map(Timestamp::from).filter(|_| key.revoked_at.is_none()) else { continue };
        if expires_soon(Some(at), now) && engine.key_uses.warns(id, now) {
            let (name, user) = (&key.name, key.user.as_deref());
            tracing::warn!(id, name, user, "the API key {name} ({id}) expires at {at}: replace it before");
        }
    }
    Ok(())
}
