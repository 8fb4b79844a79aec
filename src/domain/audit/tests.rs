//! Tests of the words of events and of the hash of an entry.

use std::collections::BTreeSet;

use super::*;
use crate::domain::commitments::RANDOM_BYTES;

#[test]
fn any_edit_changes_the_hash() {
    let entry = EntryRef {
        at: Timestamp::from_millis(1),
        actor: "key:a",
        verb: "created",
        noun: "policy",
        noun_id: "p",
        detail: "d",
        commitments: None,
    };
    let base = hash(&GENESIS, 1, &entry);
    assert_ne!(base, hash(&GENESIS, 2, &entry));
    assert_ne!(base, hash(&[1; 32], 1, &entry));
    assert_ne!(base, hash(&GENESIS, 1, &EntryRef { actor: "key:", ..entry }));
    assert_ne!(base, hash(&GENESIS, 1, &EntryRef { actor: "key:ac", verb: "reated", ..entry }));
    let typed = AuditEntry {
        at: entry.at,
        actor: Actor::Key("a".into()),
        event: AuditEvent::PolicyCreated,
        noun_id: "p".into(),
        detail: "d".into(),
    };
    assert_eq!(typed.hash(&GENESIS, 1, None), base, "as its stored texts");
}

#[test]
fn an_entry_about_a_person_keeps_its_hash_when_its_texts_are_removed() {
    let (whole, at) = (Commitments::new([7; RANDOM_BYTES]), Timestamp::from_millis(1));
    let (actor, noun_id, detail) = ("user:alice", "web-01", "seen");
    let entry = EntryRef { at, actor, verb: "created", noun: "response", noun_id, detail, commitments: Some(whole) };
    let base = hash(&GENESIS, 1, &entry);
    let mut removed = whole;
    removed.remove(0, actor);
    removed.remove(2, detail);
    for changed in [
        EntryRef { actor: "user:bob", ..entry },
        EntryRef { verb: "ended", ..entry },
        EntryRef { noun: "policy", ..entry },
        EntryRef { noun_id: "web-02", ..entry },
        EntryRef { detail: "", ..entry },
        EntryRef { commitments: Some(Commitments::new([8; RANDOM_BYTES])), ..entry },
        EntryRef { commitments: None, ..entry },
        EntryRef { noun_id: "web-02", commitments: Some(removed), ..entry },
        EntryRef { verb: "ended", commitments: Some(removed), ..entry },
    ] {
        assert_ne!(hash(&GENESIS, 1, &changed), base, "{changed:?}");
    }
    let removed = EntryRef { actor: "user:forgotten-1", detail: "", commitments: Some(removed), ..entry };
    assert_eq!((hash(&GENESIS, 1, &removed), leaf(1, &removed)), (base, leaf(1, &entry)));

    let named =
        |actor, event| AuditEntry { at, actor, event, noun_id: "x".into(), detail: String::new() }.names_person();
    let there = Actor::At(Box::new(Actor::Key("a".into())), [192, 0, 2, 1].into());
    for (actor, event, is_named) in [
        (Actor::User("alice".into()), AuditEvent::ResponseCreated, true),
        (there, AuditEvent::KeyCreated, true),
        (Actor::Riposte, AuditEvent::UserFailedLogin, true),
        (Actor::Riposte, AuditEvent::UserTextsRemoved, false),
        (Actor::Policy("drop".into()), AuditEvent::ResponseCreated, false),
        (Actor::Key("a".into()), AuditEvent::ResponseCreated, false),
    ] {
        assert_eq!(named(actor, event), is_named, "{event:?}");
    }
}

/// Stored entries and API clients have these words: a changed one is another event to them.
#[test]
fn the_words_of_events_stay() {
    let mut verbs: Vec<(&str, Vec<&str>)> = Vec::new();
    for event in AuditEvent::ALL {
        match verbs.last_mut() {
            Some((noun, verbs)) if *noun == event.noun() => verbs.push(event.verb()),
            _ => verbs.push((event.noun(), vec![event.verb()])),
        }
    }
    let lines: Vec<String> = verbs.iter().map(|(noun, verbs)| format!("{noun}: {}", verbs.join(", "))).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    response: created, submitted, observed, spared, approved, rejected, break_glass, lapsed, activated, confirmed, continued, stopped, filed, ended
    command: queued, acknowledged, succeeded, failed, timed_out, refused, expired, cancelled
    effect: lifted, failing, repaired, drifted, lost
    agent: enrolled, took over, labelled, announced capabilities, announced its version, revoked, ordered to rotate its key, rotated its key, key copied, advanced, restored, cloned, rejected orders, accepted orders again, holds strangers, holds what cannot be lifted
    enrollment_token: created, deleted
    api_key: created, revoked, logged out
    user: created, changed, disabled, enabled, deleted, forgetting, removed texts, forgotten, logged in, logged out, failed to log in, locked out, changed the password, got a temporary password, added one-time codes, removed one-time codes, reused a refresh token, linked, unlinked
    policy: created, updated, deleted, stopped, reset
    action: created, updated, deleted
    protected: created, deleted
    manager: frozen, thawed
    ledger: sealed, accepted, breached
    pipeline: late
    request: denied
    legal_hold: placed, released
    retention: removed
    secret: set, deleted
    webhook: created, updated, secret_replaced, disabled, replayed, deleted, agreed
    forwarder: deleted
    feed: created, updated, deleted, too long, served again, not fetched, fetched again
    signing_key: adopted, rotation_started, rotation_cancelled, recovery_key_set, revoked
    ");
    for event in AuditEvent::ALL {
        assert_eq!(AuditEvent::parse(event.noun(), event.verb()), Some(*event));
    }
    assert_eq!(AuditEvent::parse("response", "queued"), None);
    let words: BTreeSet<(&str, &str)> = AuditEvent::ALL.iter().map(|event| (event.noun(), event.verb())).collect();
    assert_eq!(words.len(), AuditEvent::ALL.len());
}
