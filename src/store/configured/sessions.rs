//! Sessions of people: begun by a login, continued by refresh tokens of which only hashes are
//! stored, ended by a logout, a new password, or a refresh token that comes twice.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::caches::Cache;
use super::users;
use crate::domain::actor::Actor;
use crate::domain::audit::AuditEvent;
use crate::domain::refresh_token::{IDLE, PARALLEL};
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::sets::SESSIONS;
use crate::views::columns::Millis;

statements! {
    LIVE = "SELECT id, user_name, hash, expires_at, ended_at, seal FROM sessions WHERE ended_at IS NULL AND expires_at > $1";
    ONE_LIVE = "SELECT id, user_name, hash, expires_at, ended_at, seal FROM sessions WHERE id = $1 AND ended_at IS NULL";
    ONE = "SELECT sessions.id, user_name, hash, used_at, expires_at, ended_at, disabled_at, sessions.seal FROM sessions
        INNER JOIN users ON users.name = sessions.user_name WHERE sessions.id = $1";
    INSERT = "INSERT INTO sessions (id, user_name, hash, created_at, used_at, expires_at, address, issuer)
        VALUES ($1, $2, $3, $4, $4, $5, $6, $7)";
    ISSUER = "SELECT issuer FROM sessions WHERE id = $1";
    ROTATE = "UPDATE sessions SET hash = $2, used_at = $3 WHERE id = $1";
    KEEP_USED = "INSERT INTO used_refresh_tokens (hash, session_id, used_at) VALUES ($1, $2, $3)";
    FIND_USED = "SELECT used_at FROM used_refresh_tokens WHERE hash = $1 AND session_id = $2";
    END = "UPDATE sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL";
    END_ALL = "UPDATE sessions SET ended_at = $2 WHERE user_name = $1 AND ended_at IS NULL";
    FORGET_USED = "DELETE FROM used_refresh_tokens
        WHERE session_id IN (SELECT id FROM sessions WHERE expires_at < $1)";
    OF_USER = "SELECT id FROM sessions WHERE user_name = $1 AND ended_at IS NULL";
    EXPIRED = "SELECT id FROM sessions WHERE expires_at < $1";
    FORGET = "DELETE FROM sessions WHERE expires_at < $1";
}

#[derive(sqlx::FromRow)]
struct LiveRow {
    id: String,
    user_name: String,
    expires_at: Millis,
}

/// A session that has not ended, as the manager keeps it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// The user's name.
    pub user: String,
    /// When it ends, however often it is refreshed.
    pub expires_at: Timestamp,
}

impl LiveRow {
    fn session(self) -> Result<(Uuid, LiveSession)> {
        Ok((id(&self.id)?, LiveSession { user: self.user_name, expires_at: self.expires_at.into() }))
    }
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    user_name: String,
    hash: Vec<u8>,
    used_at: Millis,
    expires_at: Millis,
    ended_at: Option<Millis>,
    disabled_at: Option<Millis>,
}

#[derive(sqlx::FromRow)]
struct IdRow {
    id: String,
}

#[derive(sqlx::FromRow)]
struct UsedRow {
    used_at: Millis,
}

#[derive(sqlx::FromRow)]
struct IssuerRow {
    issuer: Option<String>,
}

/// All sessions that have not ended at `now`.
pub async fn live(db: &Db, now: Timestamp) -> Result<Vec<(Uuid, LiveSession)>> {
    let rows: Vec<LiveRow> = db.sealed(&SESSIONS.rows, LIVE, binds![now]).await?;
    rows.into_iter().map(LiveRow::session).collect()
}

/// One session, if it has not ended.
pub async fn find_live(db: &Db, session: Uuid) -> Result<Option<LiveSession>> {
    let row: Option<LiveRow> = db.sealed(&SESSIONS.rows, ONE_LIVE, binds![session]).await?.pop();
    Ok(row.map(LiveRow::session).transpose()?.map(|(_, session)| session))
}

/// Begins a session of `user` that ends at `expires_at` at the latest, and returns that; `issuer` is the
/// OpenID provider that proved the login.
pub async fn begin(
    ledger: &mut LedgerTx,
    session: Uuid,
    (user, issuer): (&str, Option<&str>),
    hash: &[u8],
    address: &str,
    (now, expires_at): (Timestamp, Timestamp),
) -> Result<Timestamp> {
    ledger.makes_stale(Cache::Session(session));
    ledger.reseals(&SESSIONS, &session.to_string()).await?;
    ledger.tx.execute(INSERT, binds![session, user, hash.to_vec(), now, expires_at, address, issuer]).await?;
    let by = issuer.map(|issuer| format!(", by {issuer}")).unwrap_or_default();
    let detail = format!("session {session} from {address}{by}");
    users::record(ledger, AuditEvent::UserLoggedIn, user, detail, &Actor::User(user.to_owned()), now);
    Ok(expires_at)
}

/// Outcome of a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The token was the current one: the session continues, for this user, until this instant at
    /// the latest.
    Continued(String, Timestamp),
    /// The token was used a moment ago, by a command that ran at the same time.
    Parallel,
    /// The token was used before: the session has ended.
    Reused,
    /// There is no such session, or it has ended.
    Unknown,
}

/// Continues a session by the token with the hash `used`; the next one has the hash `next`.
pub async fn refresh(
    ledger: &mut LedgerTx,
    session: Uuid,
    (used, next): (&[u8], &[u8]),
    address: &str,
    now: Timestamp,
) -> Result<Refreshed> {
    let row: Option<SessionRow> = ledger.sealed(&SESSIONS.rows, ONE, binds![session]).await?.pop();
    let is_live = |row: &SessionRow| {
        let is_idle = now.since(row.used_at.into()) >= IDLE;
        row.ended_at.is_none() && row.disabled_at.is_none() && !is_idle && Timestamp::from(row.expires_at) > now
    };
    let Some(row) = row.filter(is_live) else { return Ok(Refreshed::Unknown) };
    if row.hash == used {
        ledger.reseals(&SESSIONS, &session.to_string()).await?;
        ledger.tx.execute(ROTATE, binds![session, next.to_vec(), now]).await?;
        ledger.tx.execute(KEEP_USED, binds![used.to_vec(), session, now]).await?;
        return Ok(Refreshed::Continued(row.user_name, row.expires_at.into()));
    }
    let before: Option<UsedRow> = ledger.tx.optional(FIND_USED, binds![used.to_vec(), session]).await?;
    let Some(before) = before else { return Ok(Refreshed::Unknown) };
    if now.since(before.used_at.into()) <= PARALLEL {
        return Ok(Refreshed::Parallel);
    }
    ledger.makes_stale(Cache::Session(session));
    ledger.reseals(&SESSIONS, &session.to_string()).await?;
    ledger.tx.execute(END, binds![session, now]).await?;
    let detail = format!("session {session} has ended: a used refresh token came from {address}");
    users::record(ledger, AuditEvent::UserTokenReused, &row.user_name, detail, &Actor::Riposte, now);
    Ok(Refreshed::Reused)
}

/// Ends a session of `user`. Returns the issuer of the OpenID provider that proved the login.
pub async fn end(ledger: &mut LedgerTx, session: Uuid, user: &str, now: Timestamp) -> Result<Option<String>> {
    let row: Option<IssuerRow> = ledger.tx.optional(ISSUER, binds![session]).await?;
    ledger.makes_stale(Cache::Session(session));
    ledger.reseals(&SESSIONS, &session.to_string()).await?;
    if ledger.tx.execute(END, binds![session, now]).await? > 0 {
        let by = Actor::User(user.to_owned());
        users::record(ledger, AuditEvent::UserLoggedOut, user, format!("session {session}"), &by, now);
    }
    Ok(row.and_then(|row| row.issuer))
}

/// The sessions that `sql` names are about to be changed.
async fn reseal_all(ledger: &mut LedgerTx, sql: &'static str, binds: Vec<Bind>) -> Result<()> {
    for IdRow { id } in ledger.tx.all(sql, binds).await? {
        ledger.reseals(&SESSIONS, &id).await?;
    }
    Ok(())
}

/// Ends all sessions of `user`, as part of another change.
pub async fn end_all(ledger: &mut LedgerTx, user: &str, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Sessions);
    reseal_all(ledger, OF_USER, binds![user]).await?;
    ledger.tx.execute(END_ALL, binds![user, now]).await?;
    Ok(())
}

/// Deletes sessions that expired before `cutoff`; returns their number.
pub(in crate::store) async fn forget(ledger: &mut LedgerTx, cutoff: Timestamp) -> Result<u64> {
    reseal_all(ledger, EXPIRED, binds![cutoff]).await?;
    ledger.tx.execute(FORGET_USED, binds![cutoff]).await?;
    ledger.tx.execute(FORGET, binds![cutoff]).await
}
