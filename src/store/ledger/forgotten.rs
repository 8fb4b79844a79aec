//! People who are forgotten: a pseudonym takes the place of the name, and texts of the audit log that can name them
//! are removed. The log stays a chain, since its hashes cover commitments
//! (`docs/decisions/0046-people-can-be-forgotten.md`).
//!
//! Each batch is one transaction with a bounded number of rows. The last one renames the user, so that a manager
//! that is killed in between goes on where it was.

use std::collections::BTreeSet;

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use super::responses;
use super::retention;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent, commitment};
use crate::domain::forgotten::{entries_of, list_of};
use crate::store::configured::caches::Cache;
use crate::store::database::columns::id;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::seals::sets::{ANSWERS, IDENTITIES, KEYS, POLICY_VERSIONS, RESPONSES, SESSIONS, SealedSet, USERS};
use crate::views::audit::AuditRow;

statements! {
    BY = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, salt, commitment FROM audit
        WHERE actor = $1 AND salt IS NOT NULL ORDER BY seq LIMIT $2";
    ABOUT = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, salt, commitment FROM audit
        WHERE noun_id = $1 AND noun = 'user' AND salt IS NOT NULL ORDER BY seq LIMIT $2";
    LAST_BY = "SELECT seq FROM audit WHERE actor = $1 AND salt IS NOT NULL ORDER BY seq DESC LIMIT 1";
    REMOVE = "UPDATE audit SET actor = $2, noun_id = $3, detail = '', salt = NULL, commitment = $4 WHERE seq = $1";
    RESPONSES_OF = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            answer_by, on_silence, duration_millis, waves, one_shot, seal
        FROM responses WHERE requested_by = $1 AND policy IS NULL LIMIT $2";
    REQUESTED = "UPDATE responses SET requested_by = $2 WHERE id = $1";
    BROKE_GLASS = "UPDATE responses SET break_glass = $3 WHERE id = $1 AND break_glass = $2";
    ANSWERS_OF = "SELECT response_id, principal, answer, seal FROM answers WHERE principal = $1 ORDER BY at LIMIT $2";
    ANSWERED = "UPDATE answers SET principal = $4, seal = $5 WHERE response_id = $1 AND principal = $2 AND answer = $3";
    VERSIONS_OF = "SELECT name, version, document, changed_by, seal FROM policy_versions WHERE changed_by = $1 LIMIT $2";
    CHANGED = "UPDATE policy_versions SET changed_by = $3, seal = $4 WHERE name = $1 AND version = $2";
    LEFT = "SELECT (SELECT COUNT(*) FROM responses WHERE requested_by = $1 AND policy IS NULL)
            + (SELECT COUNT(*) FROM answers WHERE principal = $1)
            + (SELECT COUNT(*) FROM policy_versions WHERE changed_by = $1) AS count";
    KEYS_OF = "SELECT id AS name FROM api_keys WHERE user_name = $1";
    RENAME_KEY = "UPDATE api_keys SET user_name = $2, name = $2, last_used_from = NULL WHERE id = $1";
    SESSIONS_OF = "SELECT id AS name FROM sessions WHERE user_name = $1";
    DROP_SESSION = "DELETE FROM sessions WHERE id = $1";
    IDENTITIES_OF = "SELECT issuer || ' ' || subject AS name FROM identities WHERE user_name = $1";
    DROP_IDENTITY = "DELETE FROM identities WHERE issuer || ' ' || subject = $1";
    BEGIN = "UPDATE users SET pseudonym = $2 WHERE name = $1 AND pseudonym IS NULL";
    PSEUDONYM = "SELECT pseudonym AS name FROM users WHERE name = $1 AND pseudonym IS NOT NULL";
    UNFINISHED = "SELECT name FROM users WHERE pseudonym IS NOT NULL ORDER BY name";
    RENAME = "UPDATE users SET name = $2, pseudonym = NULL, former_name = $3, password = '', totp_secret = NULL,
            totp_offered = NULL, last_login_from = NULL, known_networks = '[]'
        WHERE name = $1";
    FORMER = "SELECT name FROM users WHERE former_name = $1";
    CREATED_KEYS = "UPDATE api_keys SET created_by = $2 WHERE created_by = $1";
    CREATED_USERS = "UPDATE users SET created_by = $2 WHERE created_by = $1";
    CREATED_TOKENS = "UPDATE enrollment_tokens SET created_by = $2 WHERE created_by = $1";
    CREATED_PROTECTED = "UPDATE protected_entries SET created_by = $2 WHERE created_by = $1";
    CREATED_IDENTITIES = "UPDATE identities SET created_by = $2 WHERE created_by = $1";
    CREATED_HOLDS = "UPDATE legal_holds SET created_by = $2 WHERE created_by = $1";
    CREATED_WEBHOOKS = "UPDATE webhooks SET created_by = $2 WHERE created_by = $1";
    CHANGED_WEBHOOKS = "UPDATE webhooks SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_FREEZES = "UPDATE freezes SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_BREAKERS = "UPDATE breakers SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_AGENT_BREAKERS = "UPDATE agent_breakers SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_SECRETS = "UPDATE secrets SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_ACTIONS = "UPDATE actions SET updated_by = $2 WHERE updated_by = $1";
    CHANGED_FEEDS = "UPDATE feeds SET updated_by = $2 WHERE updated_by = $1";
    MADE_STATEMENTS = "UPDATE key_statements SET made_by = $2 WHERE made_by = $1";
}

/// The columns with the principal that no seal covers, of what people configure.
const COLUMNS: [&str; 15] = [
    CREATED_KEYS,
    CREATED_USERS,
    CREATED_TOKENS,
    CREATED_PROTECTED,
    CREATED_IDENTITIES,
    CREATED_HOLDS,
    CREATED_WEBHOOKS,
    CHANGED_WEBHOOKS,
    CHANGED_FREEZES,
    CHANGED_BREAKERS,
    CHANGED_AGENT_BREAKERS,
    CHANGED_SECRETS,
    CHANGED_ACTIONS,
    CHANGED_FEEDS,
    MADE_STATEMENTS,
];

#[derive(sqlx::FromRow)]
struct Named {
    name: String,
}

#[derive(sqlx::FromRow)]
struct Seq {
    seq: i64,
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

#[derive(sqlx::FromRow)]
struct Requested {
    id: String,
}

#[derive(sqlx::FromRow)]
struct Answered {
    response_id: String,
    answer: String,
}

#[derive(sqlx::FromRow)]
struct Changed {
    name: String,
    version: i64,
    document: String,
}

/// A person who is being forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgetting {
    /// The name.
    pub name: String,
    /// What takes its place.
    pub pseudonym: String,
}

impl Forgetting {
    fn actors(&self) -> (Actor, Actor) {
        (Actor::User(self.name.clone()), Actor::User(self.pseudonym.clone()))
    }
}

/// The people who are being forgotten.
pub async fn unfinished(db: &Db) -> Result<Vec<String>> {
    let rows: Vec<Named> = db.all(UNFINISHED, vec![]).await?;
    Ok(rows.into_iter().map(|row| row.name).collect())
}

/// Whether a person had this name who was forgotten; `former` is its keyed hash.
pub async fn is_former(ledger: &mut LedgerTx, former: &[u8]) -> Result<bool> {
    Ok(ledger.tx.optional::<Named>(FORMER, binds![former.to_vec()]).await?.is_some())
}

/// Begins to forget the deleted user `name`, whose place `pseudonym` takes; if it has begun already, with the pseudonym
/// of then.
///
/// # Errors
/// [`StoreError::Conflict`] if an entry of the person is under a legal hold.
pub async fn begin(ledger: &mut LedgerTx, name: &str, pseudonym: &str, by: &Actor, now: Timestamp) -> Result<Forgetting> {
    let person = Actor::User(name.to_owned());
    if let Some(Seq { seq }) = ledger.tx.optional(LAST_BY, binds![&person]).await?
        && retention::held_in(ledger, 0, seq).await?.is_some()
    {
        return Err(StoreError::Conflict);
    }
    let begun: Option<Named> = ledger.tx.optional(PSEUDONYM, binds![name]).await?;
    let pseudonym = match begun {
        Some(row) => row.name,
        None => {
            ledger.tx.execute(BEGIN, binds![name, pseudonym]).await?;
            let (event, noun_id) = (AuditEvent::UserForgetting, pseudonym.to_owned());
            ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail: String::new() });
            pseudonym.to_owned()
        }
    };
    Ok(Forgetting { name: name.to_owned(), pseudonym })
}

/// Removes the texts of at most `limit` entries by or about the person, and records which. Returns how many.
pub async fn remove_texts(ledger: &mut LedgerTx, who: &Forgetting, limit: i64, now: Timestamp) -> Result<usize> {
    let (person, pseudonym) = who.actors();
    let mut rows: Vec<AuditRow> = ledger.tx.all(BY, binds![&person, limit]).await?;
    if rows.is_empty() {
        rows = ledger.tx.all(ABOUT, binds![who.name.as_str(), limit]).await?;
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let (person, pseudonym) = (person.to_string(), pseudonym.to_string());
    for AuditRow { seq, actor, noun, noun_id, detail, salt, .. } in &rows {
        let salt = salt.as_deref().ok_or_else(|| StoreError::Corrupt(format!("the salt of audit entry {seq}")))?;
        let committed = commitment(salt, [actor, noun_id, detail]);
        let actor = if *actor == person { &pseudonym } else { actor };
        let noun_id = if noun == "user" && *noun_id == who.name { &who.pseudonym } else { noun_id };
        ledger.tx.execute(REMOVE, binds![*seq, actor.as_str(), noun_id.as_str(), committed]).await?;
    }
    let (actor, event, noun_id) = (Actor::Riposte, AuditEvent::UserTextsRemoved, who.pseudonym.clone());
    let detail = list_of(rows.iter().map(|row| row.seq));
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
    Ok(rows.len())
}

/// Puts the pseudonym into at most `limit` rows of each kind of which there are many. Returns how many rows it changed.
///
/// # Errors
/// [`StoreError::Sealed`] if another program has changed one that is left.
pub async fn replace_names(ledger: &mut LedgerTx, who: &Forgetting, limit: i64) -> Result<usize> {
    let (person, pseudonym) = who.actors();
    let requested: Vec<Requested> = ledger.sealed(&RESPONSES, RESPONSES_OF, binds![&person, limit]).await?;
    for Requested { id: response } in &requested {
        ledger.tx.execute(REQUESTED, binds![response.as_str(), &pseudonym]).await?;
        ledger.tx.execute(BROKE_GLASS, binds![response.as_str(), &person, &pseudonym]).await?;
        responses::seal(ledger, id(response)?).await?;
    }
    let answered: Vec<Answered> = ledger.sealed(&ANSWERS, ANSWERS_OF, binds![&person, limit]).await?;
    for Answered { response_id, answer } in &answered {
        let sealed = binds![response_id.as_str(), &pseudonym, answer.as_str()];
        let seal = ledger.seal_of(&ANSWERS, &sealed.iter().collect::<Vec<_>>());
        let mut binds = binds![response_id.as_str(), &person, answer.as_str(), &pseudonym];
        binds.push(seal);
        ledger.tx.execute(ANSWERED, binds).await?;
        ledger.tx.execute(BROKE_GLASS, binds![response_id.as_str(), &person, &pseudonym]).await?;
    }
    let changed: Vec<Changed> = ledger.sealed(&POLICY_VERSIONS, VERSIONS_OF, binds![&person, limit]).await?;
    for Changed { name, version, document } in &changed {
        let sealed = binds![name.as_str(), *version, document.as_str(), &pseudonym];
        let seal = ledger.seal_of(&POLICY_VERSIONS, &sealed.iter().collect::<Vec<_>>());
        let mut binds = binds![name.as_str(), *version, &pseudonym];
        binds.push(seal);
        ledger.tx.execute(CHANGED, binds).await?;
    }
    let count = requested.len() + answered.len() + changed.len();
    let left: Option<Count> = ledger.tx.optional(LEFT, binds![&person]).await?;
    match left {
        Some(Count { count: left }) if count == 0 && left > 0 => {
            let what = "responses, decisions or versions of policies that name the person were changed by another program";
            Err(StoreError::Sealed(what.to_owned()))
        }
        _ => Ok(count),
    }
}

/// Ends it: the user, its keys and what it configured have the pseudonym. `former` is the keyed hash of the name.
pub async fn finish(ledger: &mut LedgerTx, who: &Forgetting, former: &[u8], by: &Actor, now: Timestamp) -> Result<()> {
    let (person, pseudonym) = who.actors();
    for cache in [Cache::Users, Cache::Keys, Cache::Sessions, Cache::Actions, Cache::Policies, Cache::Protected] {
        ledger.makes_stale(cache);
    }
    for key in rows_of(ledger, &KEYS, KEYS_OF, &who.name).await? {
        ledger.tx.execute(RENAME_KEY, binds![key, who.pseudonym.as_str()]).await?;
    }
    for (set, of, drop) in [(&SESSIONS, SESSIONS_OF, DROP_SESSION), (&IDENTITIES, IDENTITIES_OF, DROP_IDENTITY)] {
        for row in rows_of(ledger, set, of, &who.name).await? {
            ledger.tx.execute(drop, binds![row]).await?;
        }
    }
    for column in COLUMNS {
        ledger.tx.execute(column, binds![&person, &pseudonym]).await?;
    }
    ledger.reseals(&USERS, &who.name).await?;
    ledger.reseals(&USERS, &who.pseudonym).await?;
    ledger.tx.execute(RENAME, binds![who.name.as_str(), who.pseudonym.as_str(), former.to_vec()]).await?;
    let (event, noun_id) = (AuditEvent::UserForgotten, who.pseudonym.clone());
    ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail: String::new() });
    Ok(())
}

/// The rows of a set that belong to a person, which are about to be changed.
async fn rows_of(ledger: &mut LedgerTx, set: &'static SealedSet, of: &'static str, name: &str) -> Result<Vec<String>> {
    let rows: Vec<Named> = ledger.tx.all(of, binds![name]).await?;
    for Named { name } in &rows {
        ledger.reseals(set, name).await?;
    }
    Ok(rows.into_iter().map(|row| row.name).collect())
}

/// The entries of an audit log whose texts were removed, and those of which the log says so. They must be the same: an
/// intruder who removes the texts of others is found.
#[derive(Debug, Default)]
pub(super) struct RemovedTexts {
    found: BTreeSet<i64>,
    told: BTreeSet<i64>,
}

impl RemovedTexts {
    /// Looks at the next entry.
    pub(super) fn look(&mut self, row: &AuditRow) {
        if row.is_forgotten() {
            self.found.insert(row.seq);
        }
        let is_list = AuditEvent::parse(&row.noun, &row.verb) == Some(AuditEvent::UserTextsRemoved);
        // Only the manager itself removes them, and such a list is hashed as it is.
        if is_list && row.salt.is_none() && row.commitment.is_none() && row.actor == Actor::Riposte.to_string() {
            self.told.extend(entries_of(&row.detail).into_iter().filter(|seq| *seq < row.seq));
        }
    }

    /// The first entry whose texts are gone, and nothing says why.
    pub(super) fn unexplained(&self) -> Option<i64> {
        self.found.difference(&self.told).next().copied()
    }

    /// How many entries have no texts any more.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.found.len()).unwrap_or(i64::MAX)
    }
}
