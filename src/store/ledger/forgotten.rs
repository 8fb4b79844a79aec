//! People who are forgotten: a pseudonym takes the place of the name, and texts of the audit log that can name them
//! are removed. The log stays a chain, since its hashes cover commitments
//! (`docs/decisions/0046-people-can-be-forgotten.md`).
//!
//! Each batch is one transaction with a bounded number of rows of one kind, and looks again whether it may. The last
//! one renames the user, so that a manager that is killed in between goes on where it was.

use riposte_protocol::time::Timestamp;

use super::audit::LedgerTx;
use super::responses;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::forgotten::ForgettingKey;
use crate::store::configured::caches::Cache;
use crate::store::configured::{legal_holds, users};
use crate::store::database::columns::id;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::store::seals::sets::{ANSWERS, IDENTITIES, KEYS, POLICY_VERSIONS, RESPONSES, SESSIONS, SealedSet, USERS};
use crate::views::audit::AuditRow;

statements! {
    BY = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, commitments FROM audit
        WHERE actor = $1 AND commitments IS NOT NULL ORDER BY seq LIMIT $2";
    ABOUT = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, commitments FROM audit
        WHERE noun = 'user' AND noun_id = $1 AND commitments IS NOT NULL ORDER BY seq LIMIT $2";
    REMOVE = "UPDATE audit SET actor = v.column2, noun_id = v.column3, detail = '', commitments = v.column4
        FROM (VALUES {4}) AS v WHERE audit.seq = CAST(v.column1 AS BIGINT)";
    ORDERED = "SELECT noun_id AS name FROM audit WHERE noun = 'user' AND noun_id = $1 AND verb = 'forgetting' LIMIT 1";
    WAITING = "SELECT responses.id AS name FROM answers JOIN responses ON responses.id = answers.response_id
        WHERE answers.principal = $1 AND responses.state = 'awaiting_approval' LIMIT 1";
    RESPONSES_OF = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            answer_by, on_silence, duration_millis, waves, one_shot, seal
        FROM responses WHERE requested_by = $1 AND policy IS NULL LIMIT $2";
    REQUESTED = "UPDATE responses SET requested_by = $3, break_glass = CASE WHEN break_glass = $2 THEN $3 ELSE break_glass END
        WHERE id = $1";
    ANSWERS_OF = "SELECT response_id, principal, answer, seal FROM answers WHERE principal = $1 ORDER BY at LIMIT $2";
    ANSWERED = "UPDATE answers SET principal = $4 WHERE response_id = $1 AND principal = $2 AND answer = $3";
    ANSWER_SEALED = "UPDATE answers SET seal = $4 WHERE response_id = $1 AND principal = $2 AND answer = $3";
    BROKE_GLASS = "UPDATE responses SET break_glass = $3 WHERE id = $1 AND break_glass = $2";
    VERSIONS_OF = "SELECT name, version, document, changed_by, seal FROM policy_versions WHERE changed_by = $1 LIMIT $2";
    CHANGED = "UPDATE policy_versions SET changed_by = $3 WHERE name = $1 AND version = $2";
    VERSION_SEALED = "UPDATE policy_versions SET seal = $3 WHERE name = $1 AND version = $2";
    KEYS_OF = "SELECT id AS name FROM api_keys WHERE user_name = $1";
    RENAME_KEY = "UPDATE api_keys SET user_name = $2, name = $2, last_used_from = NULL WHERE id = $1";
    SESSIONS_OF = "SELECT id AS name FROM sessions WHERE user_name = $1";
    DROP_SESSION = "DELETE FROM sessions WHERE id = $1";
    IDENTITIES_OF = "SELECT issuer, subject FROM identities WHERE user_name = $1";
    RENAME_IDENTITY = "UPDATE identities SET subject = $3, user_name = $4 WHERE issuer = $1 AND subject = $2";
    RENAME = "UPDATE users SET name = $2, password = '', totp_secret = NULL, totp_offered = NULL, last_login_from = NULL,
            known_networks = '[]'
        WHERE name = $1";
    CREATED_KEYS = "UPDATE api_keys SET created_by = $2 WHERE created_by = $1";
    CREATED_USERS = "UPDATE users SET created_by = $2 WHERE created_by = $1";
    CREATED_TOKENS = "UPDATE enrollment_tokens SET created_by = $2 WHERE created_by = $1";
    CREATED_PROTECTED = "UPDATE protected_entries SET created_by = $2 WHERE created_by = $1";
    CREATED_IDENTITIES = "UPDATE identities SET created_by = $2 WHERE created_by = $1";
    CREATED_WEBHOOKS = "UPDATE webhooks SET created_by = $2 WHERE created_by = $1";
    CHANGED_WEBHOOKS = "UPDATE webhooks SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_FREEZES = "UPDATE freezes SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_BREAKERS = "UPDATE breakers SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_AGENT_BREAKERS = "UPDATE agent_breakers SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_SECRETS = "UPDATE secrets SET changed_by = $2 WHERE changed_by = $1";
    CHANGED_ACTIONS = "UPDATE actions SET updated_by = $2 WHERE updated_by = $1";
    CHANGED_FEEDS = "UPDATE feeds SET updated_by = $2 WHERE updated_by = $1";
    MADE_STATEMENTS = "UPDATE key_statements SET made_by = $2 WHERE made_by = $1";
    REPORTED = "UPDATE forwarders SET principal = $2 WHERE principal = $1";
    RULES = "UPDATE openc2_rules SET principal = $2 WHERE principal = $1";
}

/// The columns with the principal that no seal covers, of what people configure.
const COLUMNS: [&str; 16] = [
    CREATED_KEYS,
    CREATED_USERS,
    CREATED_TOKENS,
    CREATED_PROTECTED,
    CREATED_IDENTITIES,
    CREATED_WEBHOOKS,
    CHANGED_WEBHOOKS,
    CHANGED_FREEZES,
    CHANGED_BREAKERS,
    CHANGED_AGENT_BREAKERS,
    CHANGED_SECRETS,
    CHANGED_ACTIONS,
    CHANGED_FEEDS,
    MADE_STATEMENTS,
    REPORTED,
    RULES,
];

/// Where actor, id and detail are among the commitments of an entry.
const ACTOR: usize = 0;
const NOUN_ID: usize = 1;
const DETAIL: usize = 2;

#[derive(sqlx::FromRow)]
struct Named {
    name: String,
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

#[derive(sqlx::FromRow)]
struct Subject {
    issuer: String,
    subject: String,
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
    /// The person of this name.
    pub fn of(name: &str, key: &ForgettingKey) -> Self {
        Self { name: name.to_owned(), pseudonym: key.pseudonym(name) }
    }

    fn actors(&self) -> (Actor, Actor) {
        (Actor::User(self.name.clone()), Actor::User(self.pseudonym.clone()))
    }
}

/// Why a person is not forgotten, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no such person, or another request was faster.
    Unknown,
    /// The person is not deleted, or since too short a time: managers may still write what they remember.
    NotDeleted,
    /// A legal hold is in force.
    Held,
    /// A decision of the person counts for a response that waits for approval.
    Counts,
}

/// Begins a transaction in which something of the person may be forgotten; the obstacle if it may not. The row of the
/// user is checked by its seal: only this manager's word that the person is deleted counts.
pub async fn begin(db: &Db, who: &Forgetting, before: Timestamp) -> Result<std::result::Result<LedgerTx, Obstacle>> {
    let mut ledger = LedgerTx::begin(db).await?;
    ledger.reseals(&USERS, &who.name).await?;
    let Some(user) = users::find_in(&mut ledger, &who.name).await? else { return Ok(Err(Obstacle::Unknown)) };
    if user.deleted_at.is_none_or(|at| Timestamp::from(at) > before) {
        return Ok(Err(Obstacle::NotDeleted));
    }
    if !legal_holds::ids_in(&mut ledger).await?.is_empty() {
        return Ok(Err(Obstacle::Held));
    }
    let (person, _) = who.actors();
    if ledger.tx.optional::<Named>(WAITING, binds![&person]).await?.is_some() {
        return Ok(Err(Obstacle::Counts));
    }
    Ok(Ok(ledger))
}

/// Whether an administrator has ordered to forget the person.
pub async fn is_ordered(db: &Db, who: &Forgetting) -> Result<bool> {
    Ok(db.optional::<Named>(ORDERED, binds![who.pseudonym.as_str()]).await?.is_some())
}

/// Records the order, unless there is one already.
pub async fn order(ledger: &mut LedgerTx, who: &Forgetting, by: &Actor, now: Timestamp) -> Result<()> {
    if ledger.tx.optional::<Named>(ORDERED, binds![who.pseudonym.as_str()]).await?.is_none() {
        let (event, noun_id) = (AuditEvent::UserForgetting, who.pseudonym.clone());
        ledger.record(AuditEntry { at: now, actor: by.clone(), event, noun_id, detail: String::new() });
    }
    Ok(())
}

/// Removes the texts of at most `limit` entries by or about the person, and records which. Returns how many.
pub async fn remove_texts(
    ledger: &mut LedgerTx,
    who: &Forgetting,
    key: &ForgettingKey,
    limit: i64,
    now: Timestamp,
) -> Result<usize> {
    let (person, pseudonym) = who.actors();
    let mut rows: Vec<AuditRow> = ledger.tx.all(BY, binds![&person, limit]).await?;
    if rows.is_empty() {
        rows = ledger.tx.all(ABOUT, binds![who.name.as_str(), limit]).await?;
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let (person, pseudonym) = (person.to_string(), pseudonym.to_string());
    let mut changed = Vec::with_capacity(rows.len());
    for row in &rows {
        let AuditRow { seq, actor, noun, noun_id, detail, .. } = row;
        let corrupt = || StoreError::Corrupt(format!("the commitments of audit entry {seq}"));
        let mut stored = row.commitments().ok_or_else(corrupt)?;
        let (mut new_actor, mut new_id) = (actor.as_str(), noun_id.as_str());
        if *actor == person {
            stored.remove(ACTOR, actor);
            new_actor = &pseudonym;
        }
        if noun == "user" && *noun_id == who.name {
            stored.remove(NOUN_ID, noun_id);
            new_id = &who.pseudonym;
        }
        stored.remove(DETAIL, detail);
        changed.push(binds![*seq, new_actor, new_id, stored.to_bytes()]);
    }
    ledger.tx.execute_rows(REMOVE, changed, vec![]).await?;
    let (actor, event, noun_id) = (Actor::Riposte, AuditEvent::UserTextsRemoved, who.pseudonym.clone());
    let detail = key.list(&who.pseudonym, rows.iter().map(|row| row.seq));
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
    Ok(rows.len())
}

/// Puts the pseudonym into at most `limit` responses, decisions or versions of policies. Returns how many. A row that
/// another program has changed gets the pseudonym too, and no right seal by it.
pub async fn replace_names(ledger: &mut LedgerTx, who: &Forgetting, limit: i64) -> Result<usize> {
    let (person, pseudonym) = who.actors();
    let requested = ledger.with_rightness::<Requested>(&RESPONSES, RESPONSES_OF, binds![&person, limit]).await?;
    for (Requested { id: response }, is_right) in &requested {
        ledger.tx.execute(REQUESTED, binds![response.as_str(), &person, &pseudonym]).await?;
        if *is_right {
            responses::seal(ledger, id(response)?).await?;
        }
    }
    if !requested.is_empty() {
        return Ok(requested.len());
    }
    let answered = ledger.with_rightness::<Answered>(&ANSWERS, ANSWERS_OF, binds![&person, limit]).await?;
    for (Answered { response_id, answer }, is_right) in &answered {
        let (response, answer) = (response_id.as_str(), answer.as_str());
        ledger.tx.execute(ANSWERED, binds![response, &person, answer, &pseudonym]).await?;
        ledger.tx.execute(BROKE_GLASS, binds![response, &person, &pseudonym]).await?;
        if *is_right {
            let mut binds = binds![response, &pseudonym, answer];
            binds.push(ledger.seal_of(&ANSWERS, &binds.iter().collect::<Vec<_>>()));
            ledger.tx.execute(ANSWER_SEALED, binds).await?;
        }
    }
    if !answered.is_empty() {
        return Ok(answered.len());
    }
    let changed = ledger.with_rightness::<Changed>(&POLICY_VERSIONS, VERSIONS_OF, binds![&person, limit]).await?;
    for (Changed { name, version, document }, is_right) in &changed {
        ledger.tx.execute(CHANGED, binds![name.as_str(), *version, &pseudonym]).await?;
        if *is_right {
            let sealed = binds![name.as_str(), *version, document.as_str(), &pseudonym];
            let mut binds = binds![name.as_str(), *version];
            binds.push(ledger.seal_of(&POLICY_VERSIONS, &sealed.iter().collect::<Vec<_>>()));
            ledger.tx.execute(VERSION_SEALED, binds).await?;
        }
    }
    Ok(changed.len())
}

/// Ends it: the user, its keys and what it configured have the pseudonym, and its sessions are gone. A subject at an
/// OpenID provider is known by a hash, so that the person is refused there too.
pub async fn finish(
    ledger: &mut LedgerTx,
    who: &Forgetting,
    key: &ForgettingKey,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    let (person, pseudonym) = who.actors();
    for cache in [Cache::Users, Cache::Keys, Cache::Sessions, Cache::Actions, Cache::Protected] {
        ledger.makes_stale(cache);
    }
    for id in rows_of(ledger, &KEYS, KEYS_OF, &who.name).await? {
        ledger.tx.execute(RENAME_KEY, binds![id, who.pseudonym.as_str()]).await?;
    }
    for id in rows_of(ledger, &SESSIONS, SESSIONS_OF, &who.name).await? {
        ledger.tx.execute(DROP_SESSION, binds![id]).await?;
    }
    let subjects: Vec<Subject> = ledger.tx.all(IDENTITIES_OF, binds![who.name.as_str()]).await?;
    for Subject { issuer, subject } in &subjects {
        let former = key.former_subject(issuer, subject);
        ledger.reseals(&IDENTITIES, &format!("{issuer} {subject}")).await?;
        ledger.reseals(&IDENTITIES, &format!("{issuer} {former}")).await?;
        let binds = binds![issuer.as_str(), subject.as_str(), former, who.pseudonym.as_str()];
        ledger.tx.execute(RENAME_IDENTITY, binds).await?;
    }
    for column in COLUMNS {
        ledger.tx.execute(column, binds![&person, &pseudonym]).await?;
    }
    ledger.reseals(&USERS, &who.pseudonym).await?;
    if ledger.tx.execute(RENAME, binds![who.name.as_str(), who.pseudonym.as_str()]).await? == 0 {
        return Err(StoreError::NotFound);
    }
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
