//! An agent as the manager knows it. The [`fleet`](super::fleet) holds all agents with the lookups
//! for decisions.

use std::collections::BTreeMap;

use riposte_protocol::message::{Capability, ONLY_OBSERVED};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::action::Action;
use super::agent_key::AgentKey;
use super::agent_selector::{LabelValues, Selectable};
use super::host_name::is_same_host;
use super::labels::{WAZUH_ID, WAZUH_MANAGER, WAZUH_NAME};

/// Maximum length of an agent name, in bytes: that of a DNS name.
const MAX_NAME_BYTES: usize = 253;

/// The most programs that an agent names; one that names so many may have more.
const MAX_PROGRAMS: usize = 200;

/// One enrolled agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// UUIDv7.
    pub id: Uuid,
    /// Unique name among agents that are not revoked.
    pub name: String,
    /// The key that verifies its tokens.
    pub key: AgentKey,
    /// Labels from operators and enrolment tokens.
    pub labels: BTreeMap<String, String>,
    /// The version of its program, as it last said.
    pub version: String,
    /// What it says it can do.
    pub capabilities: Vec<Capability>,
    /// Revocation time, if revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Selectable for Agent {
    fn has_id(&self, ids: &[String]) -> bool {
        ids.iter().any(|id| *id == self.id.to_string() || self.wazuh_id() == Some(id))
    }

    fn has_labels(&self, labels: &BTreeMap<String, LabelValues>) -> bool {
        self.labels.has_labels(labels)
    }
}

impl Agent {
    /// Its Wazuh id, from its label.
    pub fn wazuh_id(&self) -> Option<&str> {
        self.labels.get(WAZUH_ID).map(String::as_str)
    }

    /// The Wazuh manager or cluster that assigned that id, from its label.
    pub fn wazuh_manager(&self) -> Option<&str> {
        self.labels.get(WAZUH_MANAGER).map(String::as_str)
    }

    /// Its name in Wazuh: the label `wazuh_name`, or else its own name.
    pub fn wazuh_name(&self) -> &str {
        self.labels.get(WAZUH_NAME).map_or(&self.name, String::as_str)
    }

    /// Whether it and an agent with `labels` may belong to one Wazuh manager: nothing says that they do not.
    pub fn can_share_manager(&self, labels: &BTreeMap<String, String>) -> bool {
        match (self.wazuh_manager(), labels.get(WAZUH_MANAGER)) {
            (Some(one), Some(other)) => is_same_host(one, other),
            _ => true,
        }
    }

    /// Whether another agent with `labels` would have the same number at the same Wazuh manager.
    pub fn shares_wazuh_id(&self, labels: &BTreeMap<String, String>) -> bool {
        let managers = (self.wazuh_manager(), labels.get(WAZUH_MANAGER));
        let same_manager = match managers {
            (None, None) => true,
            (Some(one), Some(other)) => is_same_host(one, other),
            _ => false,
        };
        same_manager && self.wazuh_id().is_some_and(|id| labels.get(WAZUH_ID).is_some_and(|other| other == id))
    }

    /// Why the agent reports that it cannot run `action`, by the name of the action or its program.
    /// An agent that reports neither may still run it: the command is sent, and may be refused.
    pub fn cannot(&self, action: &Action) -> Option<&str> {
        let capability = self.capability(action)?;
        (!capability.available).then(|| capability.reason.as_deref().unwrap_or("not available there"))
    }

    /// Whether it says that it only observes what it would do of `action`.
    pub fn only_observes(&self, action: &Action) -> bool {
        let reason = self.capability(action).filter(|known| known.available).and_then(|known| known.reason.as_ref());
        reason.is_some_and(|reason| reason.starts_with(ONLY_OBSERVED))
    }

    /// Whether it names what it can do, and the program of `action` is not among it.
    pub fn lacks_program(&self, action: &Action) -> bool {
        let programs = self.capabilities.iter().filter(|known| known.action.starts_with("script:")).count();
        let names_all = !self.capabilities.is_empty() && programs < MAX_PROGRAMS;
        action.script.is_some() && names_all && self.capability(action).is_none()
    }

    fn capability(&self, action: &Action) -> Option<&Capability> {
        let named = |name: &str| self.capabilities.iter().find(|capability| capability.action == name);
        named(&action.name).or_else(|| named(&action.capability()))
    }
}

/// Reasons for rejecting a command: the word on the wire, and its meaning.
const REASONS: [(&str, &str); 9] = [
    (
        "unknown_key",
        "signed with a key that the agent does not know: enrol it again, or put the right signing.key back",
    ),
    ("signature", "the signature is wrong: something changes them on the way, or forges them"),
    ("audience", "addressed to another agent: two hosts share an identity, or something replays them"),
    ("issuer", "not issued by a manager"),
    ("kind", "of another kind"),
    ("malformed", "malformed"),
    ("expired", "expired before they arrived: compare the clocks of the agent and of the manager"),
    ("future", "dated in the future: compare the clocks of the agent and of the manager"),
    ("replayed", "statements about the manager's keys that are older than one it has accepted: something replays them"),
];

/// The known word for an agent's reason, or `other`.
pub fn known_reason(word: &str) -> &'static str {
    REASONS.iter().find(|(known, _)| *known == word).map_or("other", |(known, _)| known)
}

/// The meaning of a reason.
pub fn reason_words(word: &str) -> &'static str {
    REASONS
        .iter()
        .find(|(known, _)| *known == word)
        .map_or("for a reason that this version does not know", |(_, what)| what)
}

/// Whether `name` can name an agent: what a host name or a Wazuh agent name may hold, nothing that could act up in
/// a log or a page.
/// It ends in no dot, which names the same host once more.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.ends_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
