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
    /// An agent took the place of another one of its name.
    AgentTookOver = "audit.agent_took_over",
    /// The labels of an agent were replaced.
    AgentLabelled = "audit.agent_labelled",
    /// A person asked an agent to replace its key.
    AgentKeyOrdered = "audit.agent_key_ordered",
    /// The key of an agent was replaced.
    AgentKeyRotated = "audit.agent_key_rotated",
    /// An enrolment token was created.
    TokenCreated = "audit.enrollment_token_created",
    /// An enrolment token was deleted.
    TokenDeleted = "audit.enrollment_token_deleted",
    /// An API key was created.
    KeyCreated = "audit.api_key_created",
    /// An API key was revoked.
    KeyRevoked = "audit.api_key_revoked",
    /// The tokens of an API key were ended.
    KeyLoggedOut = "audit.api_key_logged_out",
    /// A user was created.
    UserCreated = "audit.user_created",
    /// The role or the scope of a user was changed.
    UserChanged = "audit.user_changed",
    /// A user was disabled.
    UserDisabled = "audit.user_disabled",
    /// A user was enabled.
    UserEnabled = "audit.user_enabled",
    /// A user was deleted.
    UserDeleted = "audit.user_deleted",
    /// An administrator ordered to forget a person, who has this pseudonym from then on.
    UserForgetting = "audit.user_forgetting",
    /// Texts of the audit log that can name a person were removed.
    UserTextsRemoved = "audit.user_texts_removed",
    /// A person was forgotten.
    UserForgotten = "audit.user_forgotten",
    /// A user logged in.
    UserLoggedIn = "audit.user_logged_in",
    /// A user logged out, or the sessions of a user were ended.
    UserLoggedOut = "audit.user_logged_out",
    /// Logins failed; the detail says from where.
    UserFailedLogin = "audit.user_failed_login",
    /// Further logins have to wait.
    UserLockedOut = "audit.user_locked_out",
    /// A user changed the own password.
    UserPasswordChanged = "audit.user_password_changed",
    /// An administrator replaced the password of a user.
    UserPasswordReset = "audit.user_password_reset",
    /// A user added one-time codes.
    UserTotpAdded = "audit.user_totp_added",
    /// The one-time codes of a user were removed.
    UserTotpRemoved = "audit.user_totp_removed",
    /// A refresh token was used a second time, so its session was ended.
    UserTokenReused = "audit.user_token_reused",
    /// A user was linked to an identity of an OpenID provider.
    UserLinked = "audit.user_linked",
    /// Such a link was removed.
    UserUnlinked = "audit.user_unlinked",
    /// A custom action was created.
    ActionCreated = "audit.action_created",
    /// A custom action was replaced.
    ActionUpdated = "audit.action_updated",
    /// A custom action was deleted.
    ActionDeleted = "audit.action_deleted",
    /// Requests were denied, because the caller lacks the right.
    RequestDenied = "audit.request_denied",
    /// A legal hold was placed.
    LegalHoldPlaced = "audit.legal_hold_placed",
    /// A legal hold was released.
    LegalHoldReleased = "audit.legal_hold_released",
    /// What is over and old was removed.
    RetentionRemoved = "audit.retention_removed",
    /// A secret was set.
    SecretSet = "audit.secret_set",
    /// A secret was deleted.
    SecretDeleted = "audit.secret_deleted",
    /// A webhook was created.
    WebhookCreated = "audit.webhook_created",
    /// A webhook was replaced.
    WebhookUpdated = "audit.webhook_updated",
    /// The secret of a webhook was replaced.
    WebhookSecretReplaced = "audit.webhook_secret_replaced",
    /// A webhook was disabled, because its receiver is gone.
    WebhookDisabled = "audit.webhook_disabled",
    /// Messages that were given up are sent again.
    WebhookReplayed = "audit.webhook_replayed",
    /// A webhook was deleted.
    WebhookDeleted = "audit.webhook_deleted",
    /// A person agreed to decide by links in messages.
    WebhookAgreed = "audit.webhook_agreed",
    /// A forwarder was deleted from the list.
    ForwarderDeleted = "audit.forwarder_deleted",
    /// The ledger was sealed for the first time.
    LedgerSealed = "audit.ledger_sealed",
    /// A signing key came into use.
    SigningKeyAdopted = "audit.signing_key_adopted",
    /// A rotation of the signing key began.
    SigningKeyRotationStarted = "audit.signing_key_rotation_started",
    /// A rotation of the signing key was cancelled.
    SigningKeyRotationCancelled = "audit.signing_key_rotation_cancelled",
    /// A recovery key was set.
    SigningKeyRecoverySet = "audit.signing_key_recovery_set",
    /// A signing key was revoked.
    SigningKeyRevoked = "audit.signing_key_revoked",
}

/// What stands before a type in a `CloudEvent`.
pub const TYPE_PREFIX: &str = "riposte.";

impl EventType {
    /// The type as a `CloudEvent` has it.
    pub fn cloud_type(text: &str) -> String {
        format!("{TYPE_PREFIX}{text}")
    }

    /// The events that an entry of the audit log is; none where it is what is only queued, or what agents announce.
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
            AuditEvent::AgentTookOver => &[Self::AgentTookOver],
            AuditEvent::AgentLabelled => &[Self::AgentLabelled],
            AuditEvent::AgentKeyOrdered => &[Self::AgentKeyOrdered],
            AuditEvent::AgentKeyRotated => &[Self::AgentKeyRotated],
            AuditEvent::TokenCreated => &[Self::TokenCreated],
            AuditEvent::TokenDeleted => &[Self::TokenDeleted],
            AuditEvent::KeyCreated => &[Self::KeyCreated],
            AuditEvent::KeyRevoked => &[Self::KeyRevoked],
            AuditEvent::KeyLoggedOut => &[Self::KeyLoggedOut],
            AuditEvent::UserCreated => &[Self::UserCreated],
            AuditEvent::UserChanged => &[Self::UserChanged],
            AuditEvent::UserDisabled => &[Self::UserDisabled],
            AuditEvent::UserEnabled => &[Self::UserEnabled],
            AuditEvent::UserDeleted => &[Self::UserDeleted],
            AuditEvent::UserForgetting => &[Self::UserForgetting],
            AuditEvent::UserTextsRemoved => &[Self::UserTextsRemoved],
            AuditEvent::UserForgotten => &[Self::UserForgotten],
            AuditEvent::UserLoggedIn => &[Self::UserLoggedIn],
            AuditEvent::UserLoggedOut => &[Self::UserLoggedOut],
            AuditEvent::UserFailedLogin => &[Self::UserFailedLogin],
            AuditEvent::UserLockedOut => &[Self::UserLockedOut],
            AuditEvent::UserPasswordChanged => &[Self::UserPasswordChanged],
            AuditEvent::UserPasswordReset => &[Self::UserPasswordReset],
            AuditEvent::UserTotpAdded => &[Self::UserTotpAdded],
            AuditEvent::UserTotpRemoved => &[Self::UserTotpRemoved],
            AuditEvent::UserTokenReused => &[Self::UserTokenReused],
            AuditEvent::UserLinked => &[Self::UserLinked],
            AuditEvent::UserUnlinked => &[Self::UserUnlinked],
            AuditEvent::ActionCreated => &[Self::ActionCreated],
            AuditEvent::ActionUpdated => &[Self::ActionUpdated],
            AuditEvent::ActionDeleted => &[Self::ActionDeleted],
            AuditEvent::RequestDenied => &[Self::RequestDenied],
            AuditEvent::LegalHoldPlaced => &[Self::LegalHoldPlaced],
            AuditEvent::LegalHoldReleased => &[Self::LegalHoldReleased],
            AuditEvent::RetentionRemoved => &[Self::RetentionRemoved],
            AuditEvent::SecretSet => &[Self::SecretSet],
            AuditEvent::SecretDeleted => &[Self::SecretDeleted],
            AuditEvent::WebhookCreated => &[Self::WebhookCreated],
            AuditEvent::WebhookUpdated => &[Self::WebhookUpdated],
            AuditEvent::WebhookSecretReplaced => &[Self::WebhookSecretReplaced],
            AuditEvent::WebhookDisabled => &[Self::WebhookDisabled],
            AuditEvent::WebhookReplayed => &[Self::WebhookReplayed],
            AuditEvent::WebhookDeleted => &[Self::WebhookDeleted],
            AuditEvent::WebhookAgreed => &[Self::WebhookAgreed],
            AuditEvent::ForwarderDeleted => &[Self::ForwarderDeleted],
            AuditEvent::LedgerSealed => &[Self::LedgerSealed],
            AuditEvent::SigningKeyAdopted => &[Self::SigningKeyAdopted],
            AuditEvent::SigningKeyRotationStarted => &[Self::SigningKeyRotationStarted],
            AuditEvent::SigningKeyRotationCancelled => &[Self::SigningKeyRotationCancelled],
            AuditEvent::SigningKeyRecoverySet => &[Self::SigningKeyRecoverySet],
            AuditEvent::SigningKeyRevoked => &[Self::SigningKeyRevoked],
            // A queued command says nothing that its response does not; one that succeeded is an event of its effect.
            // What an agent says of itself at each start is no news.
            AuditEvent::CommandQueued
            | AuditEvent::CommandAcknowledged
            | AuditEvent::CommandSucceeded
            | AuditEvent::CommandCancelled
            | AuditEvent::AgentCapabilitiesAnnounced
            | AuditEvent::AgentVersionAnnounced => &[],
        }
    }
}

/// Types that a follower asks for: one type, or all of a family, such as `response.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    /// One type.
    One(EventType),
    /// All that begin with this text, which ends in a dot; all types if it is empty.
    Family(String),
}

impl EventType {
    /// The families of types that tell what responses and agents do and what people set up: all but `audit`.
    pub fn without_audit() -> Vec<TypePattern> {
        let family = |kind: &Self| kind.as_str().split_once('.').map_or("", |(family, _)| family).to_owned();
        let mut families: Vec<String> = Self::ALL.iter().map(family).filter(|family| family != "audit").collect();
        families.dedup();
        families.into_iter().map(|family| TypePattern::Family(format!("{family}."))).collect()
    }
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
            // All types.
            Some("") => Some(Self::Family(String::new())),
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
mod tests;
