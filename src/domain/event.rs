//! Events of the feed: their types, and which of them an entry of the audit log is. The feed is for
//! programs that follow what happens; the audit log is the record. So an event needs no proof, is
//! kept for days only, and there are events without an entry: what a result says of an effect, and
//! which agents are connected.

use super::audit::AuditEvent;
use super::field_reader::suggest;

macro_rules! types {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Type of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventType {
            $($(#[doc = $doc])+ $name,)+
        }

        impl EventType {
            /// All types.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The text of the type, without the prefix of `CloudEvents`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it says, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

types! {
    /// A response was decided, and acts.
    ResponseCreated = "response.created",
    /// A response was decided, and waits for approval.
    ResponseSubmitted = "response.submitted",
    /// A response was decided, and is only observed.
    ResponseObserved = "response.observed",
    /// A response was decided, and a guardrail spared it.
    ResponseSpared = "response.spared",
    /// A person approved a response; it may need further approvals.
    ResponseApproved = "response.approved",
    /// A person rejected a response.
    ResponseRejected = "response.rejected",
    /// A response acts without the people whose approval it needs.
    ResponseBreakGlass = "response.break_glass",
    /// No decision on a response arrived in time.
    ResponseLapsed = "response.lapsed",
    /// A response acts after an approval, or without one in time.
    ResponseActivated = "response.activated",
    /// A person confirmed that a response stays.
    ResponseConfirmed = "response.confirmed",
    /// The next wave of a response went out.
    ResponseContinued = "response.continued",
    /// The pending waves of a response were dropped, because too many commands failed.
    ResponseStopped = "response.stopped",
    /// A response was filed under a case, or its confidentiality was set.
    ResponseFiled = "response.filed",
    /// A response holds nothing any more; the detail says why.
    ResponseEnded = "response.ended",
    /// A response waits for people; beside `response.submitted`.
    ApprovalRequested = "approval.requested",
    /// A person approved, rejected or broke the glass; beside the event of the response.
    ApprovalAnswered = "approval.answered",
    /// An effect is in force on its agent, or was extended there.
    EffectActive = "effect.active",
    /// An effect was lifted by its agent.
    EffectLifted = "effect.lifted",
    /// An effect could not be lifted; the manager keeps trying. Said once until a try succeeds.
    EffectFailing = "effect.failing",
    /// An effect was found changed or missing on its agent, also right after it was applied.
    EffectDrifted = "effect.drifted",
    /// An effect was found in force again.
    EffectRepaired = "effect.repaired",
    /// An effect is not in force any more, as its agent reports.
    EffectLost = "effect.lost",
    /// A command failed, was stopped by a time limit, or got no result in time.
    CommandFailed = "command.failed",
    /// A command was refused by its agent.
    CommandRefused = "command.refused",
    /// A command was not acknowledged in time, or was withdrawn after it was sent.
    CommandExpired = "command.expired",
    /// An agent was enrolled.
    AgentEnrolled = "agent.enrolled",
    /// An agent has a stream to this manager, or polls it.
    AgentConnected = "agent.connected",
    /// An agent has neither a stream nor a recent poll.
    AgentAway = "agent.away",
    /// An agent was revoked.
    AgentRevoked = "agent.revoked",
    /// Two hosts use the identity of an agent.
    AgentCloned = "agent.cloned",
    /// A policy was created.
    PolicyCreated = "policy.created",
    /// A policy was replaced or rolled back.
    PolicyUpdated = "policy.updated",
    /// A policy was deleted.
    PolicyDeleted = "policy.deleted",
    /// A protected entry was created.
    ProtectedCreated = "protected.created",
    /// A protected entry was deleted.
    ProtectedDeleted = "protected.deleted",
    /// A feed was created.
    FeedCreated = "feed.created",
    /// A feed was replaced.
    FeedUpdated = "feed.updated",
    /// A feed was deleted.
    FeedDeleted = "feed.deleted",
    /// Deliveries were frozen.
    FreezeOn = "freeze.on",
    /// Deliveries were resumed.
    FreezeOff = "freeze.off",
    /// The breaker of a policy opened, on one agent or as a whole.
    BreakerOpened = "breaker.opened",
    /// The breaker of a policy was reset.
    BreakerReset = "breaker.reset",
    /// An old key of an agent was used after it was replaced.
    IncidentKeyCopied = "incident.key_copied",
    /// An agent rejects the commands of this manager.
    IncidentOrdersRejected = "incident.orders_rejected",
    /// An agent executes the commands of this manager again.
    IncidentOrdersAccepted = "incident.orders_accepted",
    /// An agent holds effects that the ledger does not know.
    IncidentStrangers = "incident.strangers",
    /// An agent holds effects that no command can lift.
    IncidentUnliftable = "incident.unliftable",
    /// The host of an agent was restored from an earlier state.
    IncidentHostRestored = "incident.host_restored",
    /// The journal of an agent is ahead of the ledger, which was probably restored.
    IncidentLedgerBehind = "incident.ledger_behind",
    /// Another program has changed a row that grants power.
    IncidentLedgerBreached = "incident.ledger_breached",
    /// Alerts of a pipeline came later than `max_age`, such as after an outage.
    IncidentAlertsLate = "incident.alerts_late",
    /// A forwarder does not report any more, so its alerts do not arrive.
    IncidentForwarderSilent = "incident.forwarder_silent",
    /// A forwarder that was silent reports again.
    IncidentForwarderBack = "incident.forwarder_back",
    /// A feed has more to list than it may hold, so no consumer gets it.
    IncidentFeedTooLong = "incident.feed_too_long",
    /// A feed is served again.
    IncidentFeedServed = "incident.feed_served",
    /// A consumer that must be told of a removal does not fetch its feed.
    IncidentFeedNotFetched = "incident.feed_not_fetched",
    /// A consumer fetches its feed again.
    IncidentFeedFetched = "incident.feed_fetched",
    /// An administrator accepted such rows as they are.
    IncidentLedgerAccepted = "incident.ledger_accepted",
    /// A webhook does not take its messages; they are kept, and tried again.
    WebhookFailing = "webhook.failing",
    /// A webhook takes its messages again.
    WebhookRecovered = "webhook.recovered",
    /// Messages to a webhook were not taken for three days, and are kept to be sent by hand.
    WebhookGaveUp = "webhook.gave_up",
    /// Events were removed before they could be sent to a webhook.
    WebhookMissed = "webhook.missed",
    /// A manager started.
    NodeStarted = "node.started",
    /// A manager stopped; one that was killed does not say so.
    NodeStopped = "node.stopped",
}

/// What stands before a type in a `CloudEvent`.
pub const TYPE_PREFIX: &str = "riposte.";

impl EventType {
    /// The type as a `CloudEvent` has it.
    pub fn cloud_type(text: &str) -> String {
        format!("{TYPE_PREFIX}{text}")
    }

    /// The events that an entry of the audit log is; none where it concerns accounts, keys, secrets,
    /// retention or what is only queued.
    #[expect(clippy::too_many_lines, reason = "a line for each entry, so that none is forgotten")]
    pub const fn of(entry: AuditEvent) -> &'static [Self] {
        match entry {
            AuditEvent::ResponseCreated => &[Self::ResponseCreated],
            AuditEvent::ResponseSubmitted => &[Self::ResponseSubmitted, Self::ApprovalRequested],
            AuditEvent::ResponseObserved => &[Self::ResponseObserved],
            AuditEvent::ResponseSpared => &[Self::ResponseSpared],
            AuditEvent::ResponseApproved => &[Self::ResponseApproved, Self::ApprovalAnswered],
            AuditEvent::ResponseRejected => &[Self::ResponseRejected, Self::ApprovalAnswered],
            AuditEvent::ResponseBreakGlass => &[Self::ResponseBreakGlass, Self::ApprovalAnswered],
            AuditEvent::ResponseLapsed => &[Self::ResponseLapsed],
            AuditEvent::ResponseActivated => &[Self::ResponseActivated],
            AuditEvent::ResponseConfirmed => &[Self::ResponseConfirmed],
            AuditEvent::ResponseContinued => &[Self::ResponseContinued],
            AuditEvent::ResponseStopped => &[Self::ResponseStopped],
            AuditEvent::ResponseFiled => &[Self::ResponseFiled],
            AuditEvent::ResponseEnded => &[Self::ResponseEnded],
            AuditEvent::CommandFailed | AuditEvent::CommandTimedOut => &[Self::CommandFailed],
            AuditEvent::CommandRefused => &[Self::CommandRefused],
            AuditEvent::CommandExpired => &[Self::CommandExpired],
            AuditEvent::EffectLifted => &[Self::EffectLifted],
            AuditEvent::EffectFailing => &[Self::EffectFailing],
            AuditEvent::EffectRepaired => &[Self::EffectRepaired],
            AuditEvent::EffectDrifted => &[Self::EffectDrifted],
            AuditEvent::EffectLost => &[Self::EffectLost],
            AuditEvent::AgentEnrolled => &[Self::AgentEnrolled],
            AuditEvent::AgentRevoked => &[Self::AgentRevoked],
            AuditEvent::AgentCloned => &[Self::AgentCloned],
            AuditEvent::AgentKeyCopied => &[Self::IncidentKeyCopied],
            AuditEvent::AgentAdvanced => &[Self::IncidentLedgerBehind],
            AuditEvent::AgentRestored => &[Self::IncidentHostRestored],
            AuditEvent::AgentOrdersRejected => &[Self::IncidentOrdersRejected],
            AuditEvent::AgentOrdersAccepted => &[Self::IncidentOrdersAccepted],
            AuditEvent::AgentHoldsStrangers => &[Self::IncidentStrangers],
            AuditEvent::AgentHoldsUnliftable => &[Self::IncidentUnliftable],
            AuditEvent::PolicyCreated => &[Self::PolicyCreated],
            AuditEvent::PolicyUpdated => &[Self::PolicyUpdated],
            AuditEvent::PolicyDeleted => &[Self::PolicyDeleted],
            AuditEvent::PolicyStopped => &[Self::BreakerOpened],
            AuditEvent::PolicyReset => &[Self::BreakerReset],
            AuditEvent::ProtectedCreated => &[Self::ProtectedCreated],
            AuditEvent::ProtectedDeleted => &[Self::ProtectedDeleted],
            AuditEvent::FeedCreated => &[Self::FeedCreated],
            AuditEvent::FeedUpdated => &[Self::FeedUpdated],
            AuditEvent::FeedDeleted => &[Self::FeedDeleted],
            AuditEvent::FeedTooLong => &[Self::IncidentFeedTooLong],
            AuditEvent::FeedServed => &[Self::IncidentFeedServed],
            AuditEvent::FeedNotFetched => &[Self::IncidentFeedNotFetched],
            AuditEvent::FeedFetched => &[Self::IncidentFeedFetched],
            AuditEvent::ManagerFrozen => &[Self::FreezeOn],
            AuditEvent::ManagerThawed => &[Self::FreezeOff],
            AuditEvent::LedgerBreached => &[Self::IncidentLedgerBreached],
            AuditEvent::PipelineLate => &[Self::IncidentAlertsLate],
            AuditEvent::LedgerAccepted => &[Self::IncidentLedgerAccepted],
            // A queued command says nothing that its response does not; one that succeeded is an event of its effect.
            AuditEvent::CommandQueued
            | AuditEvent::CommandAcknowledged
            | AuditEvent::CommandSucceeded
            | AuditEvent::CommandCancelled
            | AuditEvent::AgentTookOver
            | AuditEvent::AgentLabelled
            | AuditEvent::AgentCapabilitiesAnnounced
            | AuditEvent::AgentVersionAnnounced
            | AuditEvent::AgentKeyOrdered
            | AuditEvent::AgentKeyRotated
            | AuditEvent::TokenCreated
            | AuditEvent::TokenDeleted
            | AuditEvent::KeyCreated
            | AuditEvent::KeyRevoked
            | AuditEvent::KeyLoggedOut
            | AuditEvent::UserCreated
            | AuditEvent::UserChanged
            | AuditEvent::UserDisabled
            | AuditEvent::UserEnabled
            | AuditEvent::UserDeleted
            | AuditEvent::UserLoggedIn
            | AuditEvent::UserLoggedOut
            | AuditEvent::UserFailedLogin
            | AuditEvent::UserLockedOut
            | AuditEvent::UserPasswordChanged
            | AuditEvent::UserPasswordReset
            | AuditEvent::UserTotpAdded
            | AuditEvent::UserTotpRemoved
            | AuditEvent::UserTokenReused
            | AuditEvent::UserLinked
            | AuditEvent::UserUnlinked
            | AuditEvent::ActionCreated
            | AuditEvent::ActionUpdated
            | AuditEvent::ActionDeleted
            | AuditEvent::LedgerSealed
            | AuditEvent::RequestDenied
            | AuditEvent::LegalHoldPlaced
            | AuditEvent::LegalHoldReleased
            | AuditEvent::RetentionRemoved
            | AuditEvent::SecretSet
            | AuditEvent::SecretDeleted
            | AuditEvent::WebhookCreated
            | AuditEvent::WebhookUpdated
            | AuditEvent::WebhookSecretReplaced
            | AuditEvent::WebhookDisabled
            | AuditEvent::WebhookReplayed
            | AuditEvent::WebhookDeleted
            | AuditEvent::SigningKeyAdopted
            | AuditEvent::SigningKeyRotationStarted
            | AuditEvent::SigningKeyRotationCancelled
            | AuditEvent::SigningKeyRecoverySet
            | AuditEvent::SigningKeyRevoked => &[],
        }
    }
}

/// Types that a follower asks for: one type, or all of a family, such as `response.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    /// One type.
    One(EventType),
    /// All that begin with this text, which ends in a dot.
    Family(String),
}

impl TypePattern {
    /// Parses a pattern, with or without the prefix of `CloudEvents`.
    ///
    /// # Errors
    /// A sentence, if no type has this form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_prefix(TYPE_PREFIX).unwrap_or(text);
        let known = || EventType::ALL.iter().map(|kind| kind.as_str());
        let pattern = match text.strip_suffix('*') {
            Some(family) if family.ends_with('.') => {
                let is_known = known().any(|kind| kind.starts_with(family));
                is_known.then(|| Self::Family(family.to_owned()))
            }
            Some(_) => None,
            None => EventType::ALL.iter().find(|kind| kind.as_str() == text).map(|kind| Self::One(*kind)),
        };
        let what = || format!("{text:?} is no type of events, such as response.created or response.*");
        pattern.ok_or_else(|| suggest(&what(), text, known()))
    }

    /// Whether `text` is a type that it asks for.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::One(kind) => kind.as_str() == text,
            Self::Family(family) => text.starts_with(family.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Programs filter by these texts: a changed one is another event to them.
    #[test]
    fn every_type_of_an_entry_is_known_and_every_type_has_an_origin() {
        let texts: BTreeSet<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(texts.len(), EventType::ALL.len());
        // What no entry of the audit log is.
        let mut origins: BTreeSet<EventType> =
            [EventType::EffectActive, EventType::AgentConnected, EventType::AgentAway]
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
        assert_eq!(
            silent,
            [
                "action",
                "agent",
                "api_key",
                "command",
                "enrollment_token",
                "ledger",
                "legal_hold",
                "request",
                "retention",
                "secret",
                "signing_key",
                "user",
                "webhook"
            ]
        );
    }

    #[test]
    fn the_texts_of_types_stay() {
        let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for kind in EventType::ALL {
            let (family, verb) = kind.as_str().split_once('.').unwrap();
            families.entry(family).or_default().push(verb);
            assert!(kind.meaning().ends_with('.'), "{}", kind.meaning());
        }
        let lines: Vec<String> =
            families.iter().map(|(family, verbs)| format!("{family}: {}", verbs.join(", "))).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        agent: enrolled, connected, away, revoked, cloned
        approval: requested, answered
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
        for unknown in ["", "*", "response", "response*", "respons.*", "response.gone", ".*", "response.c*"] {
            assert!(TypePattern::parse(unknown).is_err(), "{unknown}");
        }
    }
}
