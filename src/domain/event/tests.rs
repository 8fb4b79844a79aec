//! Types of events, and what an entry of the audit log is.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Programs filter by these texts: a changed one is another event to them.
#[test]
fn every_type_of_an_entry_is_known_and_every_type_has_an_origin() {
    let texts: BTreeSet<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(texts.len(), EventType::ALL.len());
    // What no entry of the audit log is.
    let mut origins: BTreeSet<EventType> = [EventType::EffectActive, EventType::AgentConnected, EventType::AgentAway]
        .into_iter()
        .chain([EventType::NodeStarted, EventType::NodeStopped])
        .chain([EventType::WebhookFailing, EventType::WebhookRecovered])
        .chain([EventType::WebhookGaveUp, EventType::WebhookMissed])
        .chain([EventType::IncidentForwarderSilent, EventType::IncidentForwarderBack])
        .collect();
    for entry in AuditEvent::ALL {
        origins.extend(EventType::of(*entry));
    }
    assert_eq!(origins, EventType::ALL.iter().copied().collect());
    let silent: Vec<String> = AuditEvent::ALL
        .iter()
        .filter(|entry| EventType::of(**entry).is_empty())
        .map(|entry| entry.noun().to_owned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(silent, ["agent", "command"]);
}

#[test]
fn the_texts_of_types_stay() {
    let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in EventType::ALL {
        let (family, verb) = kind.as_str().split_once('.').unwrap();
        families.entry(family).or_default().push(verb);
        assert!(kind.meaning().ends_with('.'), "{}", kind.meaning());
    }
    let lines: Vec<String> = families.iter().map(|(family, verbs)| format!("{family}: {}", verbs.join(", "))).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    agent: enrolled, connected, away, revoked, cloned
    approval: requested, answered
    audit: agent_took_over, agent_labelled, agent_key_ordered, agent_key_rotated, enrollment_token_created, enrollment_token_deleted, api_key_created, api_key_revoked, api_key_logged_out, user_created, user_changed, user_disabled, user_enabled, user_deleted, user_forgetting, user_texts_removed, user_forgotten, user_logged_in, user_logged_out, user_failed_login, user_locked_out, user_password_changed, user_password_reset, user_totp_added, user_totp_removed, user_token_reused, user_linked, user_unlinked, action_created, action_updated, action_deleted, request_denied, legal_hold_placed, legal_hold_released, retention_removed, secret_set, secret_deleted, webhook_created, webhook_updated, webhook_secret_replaced, webhook_disabled, webhook_replayed, webhook_deleted, webhook_agreed, forwarder_deleted, ledger_sealed, signing_key_adopted, signing_key_rotation_started, signing_key_rotation_cancelled, signing_key_recovery_set, signing_key_revoked
    breaker: opened, reset
    command: failed, refused, expired
    effect: active, lifted, failing, drifted, repaired, lost
    feed: created, updated, deleted
    freeze: on, off
    incident: key_copied, orders_rejected, orders_accepted, strangers, unliftable, host_restored, ledger_behind, ledger_breached, alerts_late, forwarder_silent, forwarder_back, feed_too_long, feed_served, feed_not_fetched, feed_fetched, ledger_accepted
    node: started, stopped
    policy: created, updated, deleted
    protected: created, deleted
    response: created, submitted, observed, spared, approved, rejected, break_glass, lapsed, activated, confirmed, continued, stopped, filed, ended
    webhook: failing, recovered, gave_up, missed
    ");
}

#[test]
fn a_pattern_is_a_type_or_a_family_that_exists() {
    let family = TypePattern::parse("response.*").unwrap();
    assert!(family.matches("response.ended") && !family.matches("effect.lifted"));
    assert_eq!(TypePattern::parse("riposte.response.*"), Ok(family));
    assert_eq!(TypePattern::parse(" effect.lifted "), Ok(TypePattern::One(EventType::EffectLifted)));
    assert!(!TypePattern::One(EventType::EffectLost).matches("effect.lost2"));
    assert!(TypePattern::parse("*").unwrap().matches("audit.user_created"));
    for unknown in ["", "response", "response*", "respons.*", "response.gone", ".*", "response.c*"] {
        assert!(TypePattern::parse(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn without_the_audit_log_every_other_type_is_there() {
    let patterns = EventType::without_audit();
    for kind in EventType::ALL.iter().map(|kind| kind.as_str()) {
        assert_eq!(patterns.iter().any(|pattern| pattern.matches(kind)), !kind.starts_with("audit."), "{kind}");
    }
}
