//! Webhooks: where events are sent, and which. URL and secrets are stored only as the ledger key sealed them.

use riposte_protocol::time::Timestamp;

use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::WEBHOOKS;
use crate::views::columns::{JsonText, Millis};

statements! {
    ALL = "SELECT name, version, document, place, url, secret, previous_secret, previous_until, created_at, created_by,
            changed_at, changed_by, agreed_by, seal
        FROM webhooks ORDER BY name";
    NAMED = "SELECT name, version FROM webhooks WHERE name = $1";
    COUNT = "SELECT COUNT(*) AS count FROM webhooks";
    INSERT = "INSERT INTO webhooks (name, version, document, place, url, secret, created_at, created_by, changed_at, changed_by)
        VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $6, $7)";
    START = "INSERT INTO webhook_states (webhook, mark, failures, is_failing, delivered, missed)
        VALUES ($1, COALESCE((SELECT events FROM audit_head WHERE id = 1), 0), 0, FALSE, 0, 0)";
    /// What happened while it was disabled is not sent later.
    RESUME = "UPDATE webhook_states SET mark = COALESCE((SELECT events FROM audit_head WHERE id = 1), 0) WHERE webhook = $1";
    UPDATE = "UPDATE webhooks SET version = version + 1, document = $2, place = $3, url = $4, changed_at = $5, changed_by = $6,
            agreed_by = $7
        WHERE name = $1";
    AGREE = "UPDATE webhooks SET version = version + 1, agreed_by = $2 WHERE name = $1";
    REPLACE_SECRET = "UPDATE webhooks SET secret = $2, previous_secret = secret, previous_until = $3, changed_at = $4, changed_by = $5
        WHERE name = $1";
    DELETE = "DELETE FROM webhooks WHERE name = $1";
    DROP_STATE = "DELETE FROM webhook_states WHERE webhook = $1";
    DROP_MESSAGES = "DELETE FROM webhook_messages WHERE webhook = $1";
}

/// A webhook as it is stored.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StoredWebhook {
    /// Unique name.
    pub name: String,
    /// Version, from 1.
    pub version: i64,
    /// Its settings.
    pub document: JsonText,
    /// Scheme and host of the URL.
    pub place: String,
    /// The URL, sealed.
    pub url: Vec<u8>,
    /// The secret, sealed.
    pub secret: Vec<u8>,
    /// The secret before it, sealed.
    pub previous_secret: Option<Vec<u8>>,
    /// Until when that one signs too.
    pub previous_until: Option<Millis>,
    /// Time of creation.
    pub created_at: Millis,
    /// Principal that created it.
    pub created_by: String,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Principal that changed it last.
    pub changed_by: String,
    /// User who agreed to decide by links in its messages.
    pub agreed_by: Option<String>,
}

/// What is stored of a webhook that is created or changed.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Its settings, as JSON.
    pub document: String,
    /// Scheme and host of the URL.
    pub place: String,
    /// The URL, sealed.
    pub url: Vec<u8>,
    /// User who agreed to decide by links in its messages, and to whom it is the same as before.
    pub agreed_by: Option<String>,
    /// What changes, in words.
    pub detail: String,
    /// Who changes it.
    pub by: &'a Actor,
    /// When.
    pub now: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Named {
    version: i64,
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// All webhooks, by name.
pub async fn all(db: &Db) -> Result<Vec<StoredWebhook>> {
    db.sealed_set(&WEBHOOKS, ALL, Purpose::Force).await
}

/// How many there are.
pub async fn count(ledger: &mut LedgerTx) -> Result<i64> {
    Ok(ledger.tx.optional::<Count>(COUNT, vec![]).await?.map_or(0, |row| row.count))
}

/// Creates a webhook, which is sent what happens from now on.
///
/// # Errors
/// [`StoreError::Duplicate`] if the name is taken.
pub async fn create(ledger: &mut LedgerTx, name: &str, new: NewWebhook<'_>, secret: Vec<u8>) -> Result<()> {
    let NewWebhook { document, place, url, detail, by, now, .. } = new;
    if ledger.tx.optional::<Named>(NAMED, binds![name]).await?.is_some() {
        return Err(StoreError::Duplicate);
    }
    ledger.reseals(&WEBHOOKS, name).await?;
    ledger.tx.execute(INSERT, binds![name, document, place, url, secret, now, by]).await?;
    ledger.tx.execute(START, binds![name]).await?;
    record(ledger, AuditEvent::WebhookCreated, name, detail, by, now);
    Ok(())
}

/// Replaces what a webhook is, whose version is `expected` if that is given. With `resumes` it goes on from now.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Conflict`] at another version.
pub async fn update(
    ledger: &mut LedgerTx,
    name: &str,
    new: NewWebhook<'_>,
    expected: Option<i64>,
    resumes: bool,
) -> Result<()> {
    let NewWebhook { document, place, url, agreed_by, detail, by, now } = new;
    check_version(ledger, name, expected).await?;
    ledger.reseals(&WEBHOOKS, name).await?;
    ledger.tx.execute(UPDATE, binds![name, document, place, url, now, by, agreed_by]).await?;
    if resumes {
        ledger.tx.execute(RESUME, binds![name]).await?;
    }
    record(ledger, AuditEvent::WebhookUpdated, name, detail, by, now);
    Ok(())
}

/// Disables a webhook whose receiver is gone, at the version that was called.
///
/// # Errors
/// As [`update`].
pub async fn disable(
    ledger: &mut LedgerTx,
    webhook: &StoredWebhook,
    document: String,
    detail: String,
    now: Timestamp,
) -> Result<()> {
    let (name, by) = (webhook.name.as_str(), Actor::Riposte);
    check_version(ledger, name, Some(webhook.version)).await?;
    ledger.reseals(&WEBHOOKS, name).await?;
    let (place, url) = (webhook.place.as_str(), webhook.url.clone());
    ledger.tx.execute(UPDATE, binds![name, document, place, url, now, &by, webhook.agreed_by.clone()]).await?;
    record(ledger, AuditEvent::WebhookDisabled, name, detail, &by, now);
    Ok(())
}

/// Records that `user` agrees to decide by links in messages of a webhook, which is at `version`.
///
/// # Errors
/// As [`update`].
pub async fn agree(
    ledger: &mut LedgerTx,
    (name, version): (&str, i64),
    user: &str,
    detail: String,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    check_version(ledger, name, Some(version)).await?;
    ledger.reseals(&WEBHOOKS, name).await?;
    ledger.tx.execute(AGREE, binds![name, user]).await?;
    record(ledger, AuditEvent::WebhookAgreed, name, detail, by, now);
    Ok(())
}

/// Replaces the secret of a webhook; the one before signs too until `previous_until`.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn replace_secret(
    ledger: &mut LedgerTx,
    name: &str,
    secret: Vec<u8>,
    previous_until: Timestamp,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    check_version(ledger, name, None).await?;
    ledger.reseals(&WEBHOOKS, name).await?;
    ledger.tx.execute(REPLACE_SECRET, binds![name, secret, previous_until, now, by]).await?;
    let detail = format!("the one before signs until {previous_until}");
    record(ledger, AuditEvent::WebhookSecretReplaced, name, detail, by, now);
    Ok(())
}

/// Deletes a webhook with what it has not taken.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(ledger: &mut LedgerTx, name: &str, by: &Actor, now: Timestamp) -> Result<()> {
    check_version(ledger, name, None).await?;
    ledger.reseals(&WEBHOOKS, name).await?;
    for statement in [DELETE, DROP_STATE, DROP_MESSAGES] {
        ledger.tx.execute(statement, binds![name]).await?;
    }
    record(ledger, AuditEvent::WebhookDeleted, name, String::new(), by, now);
    Ok(())
}

async fn check_version(ledger: &mut LedgerTx, name: &str, expected: Option<i64>) -> Result<()> {
    match ledger.tx.optional::<Named>(NAMED, binds![name]).await? {
        None => Err(StoreError::NotFound),
        Some(named) if expected.is_some_and(|expected| expected != named.version) => Err(StoreError::Conflict),
        Some(_) => Ok(()),
    }
}

fn record(ledger: &mut LedgerTx, event: AuditEvent, name: &str, detail: String, by: &Actor, now: Timestamp) {
    let (noun_id, actor) = (name.to_owned(), by.clone());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
