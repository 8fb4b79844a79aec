//! The audit log: every change of state, with its actor and reason. Each entry's hash covers the
//! previous one, so an edit breaks the chain from there on (promise 12).

use super::fault::Fault;
use riposte_protocol::time::Timestamp;
use sha2::{Digest, Sha256};

/// The predecessor hash of the first entry.
pub const GENESIS: [u8; 32] = [0; 32];

/// An entry without a position in the chain yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Time of the change.
    pub at: Timestamp,
    /// Actor: `key:ID`, `agent:ID`, `policy:NAME` or `riposte` itself.
    pub actor: String,
    /// Action in the past tense: `created`, `lifted`, `acknowledged` …
    pub verb: &'static str,
    /// Kind of the object: `response`, `command`, `policy` …
    pub noun: &'static str,
    /// Id of the object.
    pub noun_id: String,
    /// Reason or further detail, for people.
    pub detail: String,
}

/// The hash of entry `seq` after `previous`. Every part is hashed with its length, so different
/// entries never have equal input.
pub fn hash(previous: &[u8; 32], seq: i64, entry: &EntryRef) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(seq.to_be_bytes());
    hasher.update(entry.at.as_millis().to_be_bytes());
    for part in [entry.actor, entry.verb, entry.noun, entry.noun_id, entry.detail] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

/// The hashed parts of an entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// Time of the change.
    pub at: Timestamp,
    /// Actor.
    pub actor: &'a str,
    /// Action.
    pub verb: &'a str,
    /// Kind of the object.
    pub noun: &'a str,
    /// Id of the object.
    pub noun_id: &'a str,
    /// Reason or further detail.
    pub detail: &'a str,
}

impl AuditEntry {
    /// The hashed parts.
    pub fn as_ref(&self) -> EntryRef<'_> {
        let Self { at, actor, verb, noun, noun_id, detail } = self;
        EntryRef { at: *at, actor, verb, noun, noun_id, detail }
    }
}

/// The longest reason that a person may give, in characters.
const MAX_REASON: usize = 2000;

/// What is wrong with a reason that a person gave, if anything.
pub fn reason_fault(text: &str) -> Option<Fault> {
    let good = !text.trim().is_empty() && text.chars().count() <= MAX_REASON && !text.contains('\0');
    (!good).then(|| Fault::at("/reason", format!("must say why, in 1 to {MAX_REASON} characters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_edit_changes_the_hash() {
        let entry = AuditEntry {
            at: Timestamp::from_millis(1),
            actor: "key:a".into(),
            verb: "created",
            noun: "policy",
            noun_id: "p".into(),
            detail: "d".into(),
        };
        let base = hash(&GENESIS, 1, &entry.as_ref());
        assert_ne!(base, hash(&GENESIS, 2, &entry.as_ref()));
        assert_ne!(base, hash(&[1; 32], 1, &entry.as_ref()));
        let moved = AuditEntry { actor: "key:".into(), ..entry.clone() };
        let shifted = AuditEntry { actor: "key:ac".into(), verb: "reated", ..entry };
        assert_ne!(base, hash(&GENESIS, 1, &moved.as_ref()));
        assert_ne!(base, hash(&GENESIS, 1, &shifted.as_ref()));
    }
}
