//! Identities: which user a subject of an OpenID provider is.

use riposte_protocol::time::Timestamp;

use super::users::record;
use crate::domain::actor::Actor;
use crate::domain::audit::AuditEvent;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::sets::IDENTITIES;
use crate::views::oidc::IdentityRow;

statements! {
    OF_USER = "SELECT issuer, subject, user_name, role_from_groups, created_at, created_by FROM identities
        WHERE user_name = $1 ORDER BY issuer";
    ONE = "SELECT issuer, subject, user_name, role_from_groups, created_at, created_by, seal FROM identities
        WHERE issuer = $1 AND subject = $2";
    ROLE_SOURCE = "SELECT issuer, subject, user_name, role_from_groups, created_at, created_by, seal FROM identities
        WHERE user_name = $1 AND role_from_groups = TRUE";
    OF_ISSUER = "SELECT issuer, subject, user_name, role_from_groups, created_at, created_by FROM identities
        WHERE issuer = $1 AND user_name = $2";
    INSERT = "INSERT INTO identities (issuer, subject, user_name, role_from_groups, created_at, created_by)
        VALUES ($1, $2, $3, $4, $5, $6)";
    DELETE = "DELETE FROM identities WHERE issuer = $1 AND user_name = $2";
}

/// The identities of a user.
pub async fn of_user(db: &Db, name: &str) -> Result<Vec<IdentityRow>> {
    db.all(OF_USER, binds![name]).await
}

/// The identity of a subject, as this transaction sees it.
pub async fn find(ledger: &mut LedgerTx, issuer: &str, subject: &str) -> Result<Option<IdentityRow>> {
    Ok(ledger.sealed(&IDENTITIES.rows, ONE, binds![issuer, subject]).await?.pop())
}

/// The issuer whose groups set the role of `name`, if one does.
pub async fn role_source(ledger: &mut LedgerTx, name: &str) -> Result<Option<String>> {
    let rows: Vec<IdentityRow> = ledger.sealed(&IDENTITIES.rows, ROLE_SOURCE, binds![name]).await?;
    Ok(rows.into_iter().next().map(|row| row.issuer))
}

/// Makes `subject` an identity of the user `name`.
///
/// # Errors
/// [`StoreError::Duplicate`] if the subject is a user's, or the user has another subject there.
pub async fn link(
    ledger: &mut LedgerTx,
    (issuer, subject): (&str, &str),
    name: &str,
    role_from_groups: bool,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.reseals(&IDENTITIES, &format!("{issuer} {subject}")).await?;
    ledger.tx.execute(INSERT, binds![issuer, subject, name, role_from_groups, now, by]).await?;
    let role = if role_from_groups { ", with the role of the groups there" } else { "" };
    record(ledger, AuditEvent::UserLinked, name, format!("to {subject} at {issuer}{role}"), by, now);
    Ok(())
}

/// Ends that the user `name` has an identity there.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none.
pub async fn unlink(ledger: &mut LedgerTx, issuer: &str, name: &str, by: &Actor, now: Timestamp) -> Result<()> {
    let linked: Vec<IdentityRow> = ledger.tx.all(OF_ISSUER, binds![issuer, name]).await?;
    for IdentityRow { issuer, subject, .. } in linked {
        ledger.reseals(&IDENTITIES, &format!("{issuer} {subject}")).await?;
    }
    if ledger.tx.execute(DELETE, binds![issuer, name]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, AuditEvent::UserUnlinked, name, format!("from {issuer}"), by, now);
    Ok(())
}
