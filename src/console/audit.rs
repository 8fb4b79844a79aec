//! The audit log: who did what, with a filter, and the proof that no entry was changed.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::Query;
use serde::Deserialize;

use super::format::{Moment, past};
use super::page::{PageResult, html};
use super::paths::{segment, with_query};
use super::session::Session;
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::audit::AuditEvent;
use crate::views::audit::{AuditProof, AuditRow};
use crate::views::page::Page;

const SECTION: &str = "/audit";
/// The filter of the list, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AuditQuestion {
    noun: String,
    noun_id: String,
    cursor: String,
}

/// An entry.
struct AuditLine {
    seq: i64,
    when: Moment,
    actor: String,
    verb: String,
    noun: String,
    id: String,
    /// The page of what it is about.
    path: Option<String>,
    detail: String,
    /// Whether texts were removed because a person was forgotten.
    is_forgotten: bool,
}

fn line(session: &Session, row: &AuditRow) -> AuditLine {
    let id = segment(&row.noun_id);
    let path = match row.noun.as_str() {
        "response" => Some(format!("/responses/{id}")),
        "policy" => Some(format!("/policies/{id}")),
        "agent" => Some(format!("/agents/{id}")),
        _ => None,
    };
    let name = if row.noun == "agent" { session.agent(&row.noun_id) } else { row.noun_id.clone() };
    AuditLine {
        seq: row.seq,
        when: past(row.at, session.now()),
        actor: session.actor(&row.actor),
        verb: row.verb.replace('_', " "),
        noun: row.noun.replace('_', " "),
        id: name,
        path: path.filter(|_| !row.noun_id.is_empty()),
        detail: row.detail.clone(),
        is_forgotten: row.pseudonyms().is_some(),
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    asked: AuditQuestion,
    nouns: Vec<&'static str>,
    lines: Vec<AuditLine>,
    next: Option<String>,
}

/// Kinds of object that the log has entries about.
fn nouns() -> Vec<&'static str> {
    let nouns: BTreeSet<&str> = AuditEvent::ALL.iter().map(|event| event.noun()).collect();
    nouns.into_iter().collect()
}

/// The list.
pub(super) async fn list(session: Session, Query(asked): Query<AuditQuestion>) -> PageResult {
    let given = [("noun", asked.noun.as_str()), ("noun_id", asked.noun_id.as_str())];
    let path = with_query("/v1/audit", given.into_iter().chain([("cursor", asked.cursor.as_str())]));
    let page: Page<AuditRow> = session.api.get(&path).await?;
    let next = page.next_cursor.as_deref();
    let next = next.map(|cursor| with_query("/audit", given.into_iter().chain([("cursor", cursor)])));
    let shell = session.shell("Audit log", SECTION, "").await?;
    let lines = page.items.iter().map(|row| line(&session, row)).collect();
    html(&AuditPage { shell, lines, next, nouns: nouns(), asked })
}

#[derive(Template)]
#[template(path = "audit_proof.html")]
struct ProofPage {
    shell: Shell,
    badge: Badge,
    is_intact: bool,
    why: Option<String>,
    facts: Vec<(&'static str, String)>,
    keys: Vec<(String, String)>,
}

/// Verifies the whole log.
pub(super) async fn verify(session: Session) -> PageResult {
    let proof: AuditProof = session.api.get("/v1/audit/verify").await?;
    let mut facts = vec![("Entries", proof.entries.to_string())];
    if let Some(seq) = proof.broken_at {
        facts.push(("First entry that is not as it was written", seq.to_string()));
    }
    facts.push(("Checkpoints that were compared", proof.checkpoints.to_string()));
    if proof.forgotten > 0 {
        facts.push(("Entries without texts of forgotten people", proof.forgotten.to_string()));
    }
    if let Some(begins) = &proof.begins {
        facts.push(("The log begins after entry", format!("{}, since {}", begins.after, begins.moved_at)));
    }
    let badge =
        if proof.intact { Badge::new(StateTone::Good, "intact") } else { Badge::new(StateTone::Bad, "not intact") };
    let page = ProofPage {
        shell: session.shell("Proof of the audit log", SECTION, "").await?,
        badge,
        is_intact: proof.intact,
        why: proof.why,
        facts,
        keys: proof.keys.into_iter().map(|key| (key.kid, key.public_key)).collect(),
    };
    html(&page)
}
