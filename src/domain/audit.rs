//! The audit log: every change of state, with its actor and reason. Each entry's hash covers the
//! previous one, so an edit breaks the chain from there on (promise 12).

use super::actor::Actor;
use super::commitments::Commitments;
use super::fault::Fault;
use super::merkle::{LEAF_PREFIX, TreeHash};
use riposte_protocol::time::Timestamp;
use sha2::{Digest, Sha256};

/// The predecessor hash of the first entry.
pub const GENESIS: [u8; 32] = [0; 32];

macro_rules! events {
    ($($noun:literal { $($(#[doc = $doc:literal])+ $name:ident = $verb:literal,)+ })+) => {
        /// What an entry records: the kind of the changed object, and the change in the past tense.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum AuditEvent {
            $($($(#[doc = $doc])+ $name,)+)+
        }

        impl AuditEvent {
            /// All events.
            pub const ALL: &[Self] = &[$($(Self::$name),+),+];

            /// The event of these words, if this version has it.
            pub fn parse(noun: &str, verb: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|event| event.noun() == noun && event.verb() == verb)
            }

            /// Kind of the changed object.
            pub const fn noun(self) -> &'static str {
                match self {
                    $($(Self::$name)|+ => $noun,)+
                }
            }

            /// The change, in the past tense.
            pub const fn verb(self) -> &'static str {
                match self {
                    $($(Self::$name => $verb,)+)+
                }
            }
        }
    };
}

impl AuditEvent {
    /// Whether its transaction changes a row of a sealed set.
    pub const fn changes_sealed_row(self) -> bool {
        matches!(
            self,
            Self::KeyCreated
                | Self::KeyRevoked
                | Self::UserCreated
                | Self::UserChanged
                | Self::UserDisabled
                | Self::UserEnabled
                | Self::UserDeleted
                | Self::UserForgotten
                | Self::UserPasswordChanged
                | Self::UserPasswordReset
                | Self::UserTotpAdded
                | Self::UserTotpRemoved
                | Self::UserLinked
                | Self::UserUnlinked
                | Self::UserLoggedIn
                | Self::PolicyCreated
                | Self::PolicyUpdated
                | Self::PolicyDeleted
                | Self::ActionCreated
                | Self::ActionUpdated
                | Self::ActionDeleted
                | Self::ProtectedCreated
                | Self::ProtectedDeleted
                | Self::ManagerFrozen
                | Self::ManagerThawed
                | Self::AgentEnrolled
                | Self::AgentLabelled
                | Self::AgentRevoked
                | Self::AgentKeyRotated
                | Self::SecretSet
                | Self::SecretDeleted
                | Self::FeedCreated
                | Self::FeedUpdated
                | Self::FeedDeleted
                | Self::LegalHoldPlaced
                | Self::LegalHoldReleased
                | Self::WebhookCreated
                | Self::WebhookUpdated
                | Self::WebhookSecretReplaced
                | Self::WebhookDisabled
                | Self::WebhookDeleted
                | Self::WebhookAgreed
                | Self::TokenCreated
                | Self::TokenDeleted
        )
    }
}

events! {
    "response" {
        /// It was decided, and acts.
        ResponseCreated = "created",
        /// It was decided, and waits for approval.
        ResponseSubmitted = "submitted",
        /// It was decided, and only observed.
        ResponseObserved = "observed",
        /// It was decided, and spared.
        ResponseSpared = "spared",
        /// A person approved it.
        ResponseApproved = "approved",
        /// A person rejected it.
        ResponseRejected = "rejected",
        /// It acts without the people whose approval it needs.
        ResponseBreakGlass = "break_glass",
        /// No decision arrived in time.
        ResponseLapsed = "lapsed",
        /// It acts after an approval, or without one in time.
        ResponseActivated = "activated",
        /// A person confirmed that it stays.
        ResponseConfirmed = "confirmed",
        /// Its next wave went out.
        ResponseContinued = "continued",
        /// Its pending waves were dropped, because too many commands failed.
        ResponseStopped = "stopped",
        /// It was filed under a case, or its label was set.
        ResponseFiled = "filed",
        /// It holds nothing any more.
        ResponseEnded = "ended",
    }
    "command" {
        /// It was numbered and queued.
        CommandQueued = "queued",
        /// Its agent has it in the journal.
        CommandAcknowledged = "acknowledged",
        /// Its agent reported success.
        CommandSucceeded = "succeeded",
        /// Its agent reported a failure.
        CommandFailed = "failed",
        /// Its agent stopped it by a time limit, or sent no result in time.
        CommandTimedOut = "timed_out",
        /// Its agent refused it.
        CommandRefused = "refused",
        /// It was not acknowledged in time, or was withdrawn after it was sent.
        CommandExpired = "expired",
        /// It was withdrawn before it was sent.
        CommandCancelled = "cancelled",
    }
    "effect" {
        /// Its agent reported that it is lifted. Only in the log: the result is the audit entry.
        EffectLifted = "lifted",
        /// Its agent reported that it cannot be lifted.
        EffectFailing = "failing",
        /// Its agent found it in force again.
        EffectRepaired = "repaired",
        /// Its agent found it changed or missing.
        EffectDrifted = "drifted",
        /// Its agent reported that it is not in force.
        EffectLost = "lost",
    }
    "agent" {
        /// It was enrolled.
        AgentEnrolled = "enrolled",
        /// It took over the wanted effects of the agent that it replaces.
        AgentTookOver = "took over",
        /// Its labels were changed.
        AgentLabelled = "labelled",
        /// It announced what it can do.
        AgentCapabilitiesAnnounced = "announced capabilities",
        /// It announced the version that it runs.
        AgentVersionAnnounced = "announced its version",
        /// It was revoked.
        AgentRevoked = "revoked",
        /// A user ordered a rotation of its key.
        AgentKeyOrdered = "ordered to rotate its key",
        /// It replaced its key.
        AgentKeyRotated = "rotated its key",
        /// Its old key was used after it was replaced.
        AgentKeyCopied = "key copied",
        /// Its journal is ahead of this ledger, which continues from there.
        AgentAdvanced = "advanced",
        /// Its host was restored from an earlier state.
        AgentRestored = "restored",
        /// Two hosts use its identity.
        AgentCloned = "cloned",
        /// It rejects the commands of this manager.
        AgentOrdersRejected = "rejected orders",
        /// It executes the commands of this manager again.
        AgentOrdersAccepted = "accepted orders again",
        /// It holds effects that this ledger does not know.
        AgentHoldsStrangers = "holds strangers",
        /// It holds effects that no command can lift.
        AgentHoldsUnliftable = "holds what cannot be lifted",
    }
    "enrollment_token" {
        /// It was created.
        TokenCreated = "created",
        /// It was deleted.
        TokenDeleted = "deleted",
    }
    "api_key" {
        /// It was created.
        KeyCreated = "created",
        /// It was revoked.
        KeyRevoked = "revoked",
        /// The tokens that stand for it have ended.
        KeyLoggedOut = "logged out",
    }
    "user" {
        /// It was created.
        UserCreated = "created",
        /// Its role was changed.
        UserChanged = "changed",
        /// It was disabled, with all its sessions and keys.
        UserDisabled = "disabled",
        /// It was enabled.
        UserEnabled = "enabled",
        /// It was disabled for ever.
        UserDeleted = "deleted",
        /// An administrator ordered to forget the person, who has this pseudonym from then on.
        UserForgetting = "forgetting",
        /// Texts of entries about this person were removed; the detail lists the entries.
        UserTextsRemoved = "removed texts",
        /// The name of the person was replaced everywhere.
        UserForgotten = "forgotten",
        /// The person started a session.
        UserLoggedIn = "logged in",
        /// The person ended a session.
        UserLoggedOut = "logged out",
        /// Logins failed; the detail has their number and their address.
        UserFailedLogin = "failed to log in",
        /// Too many logins failed, so that further ones are refused for a time.
        UserLockedOut = "locked out",
        /// The person changed the password, which ends all sessions.
        UserPasswordChanged = "changed the password",
        /// An administrator set a temporary password, which ends all sessions.
        UserPasswordReset = "got a temporary password",
        /// The person confirmed a device for one-time codes.
        UserTotpAdded = "added one-time codes",
        /// One-time codes are needed no more.
        UserTotpRemoved = "removed one-time codes",
        /// A used refresh token was used again, which ended the session.
        UserTokenReused = "reused a refresh token",
        /// An identity at an OpenID provider became this person's.
        UserLinked = "linked",
        /// An identity at an OpenID provider is this person's no more.
        UserUnlinked = "unlinked",
    }
    "policy" {
        /// It was created.
        PolicyCreated = "created",
        /// It was replaced or rolled back.
        PolicyUpdated = "updated",
        /// It was deleted.
        PolicyDeleted = "deleted",
        /// Its breaker opened, on one agent or as a whole.
        PolicyStopped = "stopped",
        /// Its breaker was reset.
        PolicyReset = "reset",
    }
    "action" {
        /// It was created.
        ActionCreated = "created",
        /// It was replaced.
        ActionUpdated = "updated",
        /// It was deleted.
        ActionDeleted = "deleted",
    }
    "protected" {
        /// An entry was created.
        ProtectedCreated = "created",
        /// An entry was deleted.
        ProtectedDeleted = "deleted",
    }
    "manager" {
        /// Deliveries were frozen.
        ManagerFrozen = "frozen",
        /// Deliveries were resumed.
        ManagerThawed = "thawed",
    }
    "ledger" {
        /// The rows that grant power were sealed, at the first start that does so.
        LedgerSealed = "sealed",
        /// An administrator accepted them as they are.
        LedgerAccepted = "accepted",
        /// Another program has changed one of them.
        LedgerBreached = "breached",
    }
    "pipeline" {
        /// Alerts came later than the `max_age` of the configuration; the detail has their number and times. Once for each outage.
        PipelineLate = "late",
    }
    "request" {
        /// Its caller has not the right, or not there; the detail has the number of such requests.
        RequestDenied = "denied",
    }
    "legal_hold" {
        /// It was created.
        LegalHoldPlaced = "placed",
        /// It was released.
        LegalHoldReleased = "released",
    }
    "retention" {
        /// Rows were removed because of their age; the id says which kind, and the detail how many.
        RetentionRemoved = "removed",
    }
    "secret" {
        /// It was set, or its value or its actions were changed.
        SecretSet = "set",
        /// It was deleted.
        SecretDeleted = "deleted",
    }
    "webhook" {
        /// It was created.
        WebhookCreated = "created",
        /// It was changed.
        WebhookUpdated = "updated",
        /// It has a new secret.
        WebhookSecretReplaced = "secret_replaced",
        /// Its receiver said that it is gone, so nothing is sent any more.
        WebhookDisabled = "disabled",
        /// Messages that were given up are sent again.
        WebhookReplayed = "replayed",
        /// It was deleted.
        WebhookDeleted = "deleted",
        /// The person whom its messages are for agreed to decide by their links.
        WebhookAgreed = "agreed",
    }
    "forwarder" {
        /// It is not watched any more.
        ForwarderDeleted = "deleted",
    }
    "feed" {
        /// It was created.
        FeedCreated = "created",
        /// It was replaced.
        FeedUpdated = "updated",
        /// It was deleted.
        FeedDeleted = "deleted",
        /// There is more to list than it may hold, so it is served to no consumer.
        FeedTooLong = "too long",
        /// It is served again.
        FeedServed = "served again",
        /// A consumer that must be told of a removal does not fetch it.
        FeedNotFetched = "not fetched",
        /// That consumer fetches it again.
        FeedFetched = "fetched again",
    }
    "signing_key" {
        /// It became the key that signs commands.
        SigningKeyAdopted = "adopted",
        /// A new one was made and announced to agents.
        SigningKeyRotationStarted = "rotation_started",
        /// The new one was taken back.
        SigningKeyRotationCancelled = "rotation_cancelled",
        /// A recovery key was set.
        SigningKeyRecoverySet = "recovery_key_set",
        /// It was revoked by the recovery key.
        SigningKeyRevoked = "revoked",
    }
}

/// An entry without a position in the chain yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Time of the change.
    pub at: Timestamp,
    /// What made the change.
    pub actor: Actor,
    /// The change.
    pub event: AuditEvent,
    /// Id of the changed object.
    pub noun_id: String,
    /// Reason or further detail, for people.
    pub detail: String,
}

impl AuditEvent {
    /// Whether the id of its object is the name of a person. The list of removed texts names a pseudonym.
    const fn names_person(self) -> bool {
        !matches!(self, Self::UserTextsRemoved) && matches!(self.noun().as_bytes(), b"user")
    }
}

/// The hash of entry `seq` after `previous`. Every part is hashed with its length, so different
/// entries never have equal input.
pub fn hash(previous: &[u8; 32], seq: i64, entry: &EntryRef) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    feed(&mut hasher, seq, entry);
    hasher.finalize().into()
}

/// The hash of entry `seq` by itself: a leaf of the tree over the entries of a checkpoint.
pub fn leaf(seq: i64, entry: &EntryRef) -> TreeHash {
    let mut hasher = Sha256::new();
    hasher.update([LEAF_PREFIX]);
    feed(&mut hasher, seq, entry);
    hasher.finalize().into()
}

/// What an entry about a person has in the place of a length: no text is as long.
const COMMITTED: u64 = u64::MAX;

fn feed(hasher: &mut Sha256, seq: i64, entry: &EntryRef) {
    hasher.update(seq.to_be_bytes());
    hasher.update(entry.at.as_millis().to_be_bytes());
    let EntryRef { actor, verb, noun, noun_id, detail, commitments, .. } = *entry;
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    let Some(commitments) = commitments else {
        return [actor, verb, noun, noun_id, detail].map(str::as_bytes).into_iter().for_each(part);
    };
    part(verb.as_bytes());
    part(noun.as_bytes());
    for commitment in commitments.to([actor, noun_id, detail]) {
        part(&commitment);
    }
    hasher.update(COMMITTED.to_be_bytes());
}

/// The hashed parts of an entry, as they are stored.
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
    /// How actor, id and detail are hashed: by commitments if they can name a person, else as they are.
    pub commitments: Option<Commitments>,
}

impl AuditEntry {
    /// Whether it can name a person: then it is hashed by commitments.
    pub fn names_person(&self) -> bool {
        matches!(self.actor.plain(), Actor::User(_)) || self.actor.address().is_some() || self.event.names_person()
    }

    /// The hash of the entry at position `seq` after `previous`, with commitments if it names a person.
    pub fn hash(&self, previous: &[u8; 32], seq: i64, commitments: Option<Commitments>) -> [u8; 32] {
        let Self { at, actor, event, noun_id, detail } = self;
        let actor = actor.to_string();
        let (verb, noun) = (event.verb(), event.noun());
        hash(previous, seq, &EntryRef { at: *at, actor: &actor, verb, noun, noun_id, detail, commitments })
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
mod tests;
