//! Log lines for decisions and state changes, written once they are durable. They follow the audit
//! entries, so every change has its line. Context is in fields, with names of agents and people.
//! Text from alerts or agents is escaped and truncated.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use riposte_protocol::visible::is_hidden;
use tracing::Level;
use uuid::Uuid;

use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::outcome::ResponseOutcome;
use crate::telemetry::ByOutcome;

/// Maximum length of a text in a line, in characters.
const MAX_CHARS: usize = 300;

/// Names of agents and API keys by id. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    agents: HashMap<Uuid, String>,
    keys: HashMap<String, String>,
}

impl Names {
    /// Replaces the names of all agents.
    pub fn set_agents(&self, agents: HashMap<Uuid, String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).agents = agents;
    }

    /// Adds the name of one agent.
    pub fn add_agent(&self, agent: Uuid, name: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).agents.insert(agent, name);
    }

    /// Replaces the names of all API keys.
    pub fn set_keys(&self, keys: HashMap<String, String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).keys = keys;
    }

    /// Name of the agent with that id.
    pub fn agent(&self, agent: Uuid) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).agents.get(&agent).cloned()
    }

    /// An audit actor with its name: `alice (key:ID)`.
    fn actor(&self, actor: &Actor) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = match actor.plain() {
            Actor::Key(id) => known.keys.get(id),
            Actor::Agent(id) => known.agents.get(id),
            Actor::User(_) | Actor::Policy(_) | Actor::Riposte | Actor::At(..) => None,
        };
        name.map_or_else(|| escape(&actor.to_string()), |name| format!("{} ({actor})", escape(name)))
    }
}

/// Context of a log line, beside the changed object.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The alert that caused it.
    pub alert: Option<Uuid>,
    /// Id of the response.
    pub response: Option<String>,
    /// Id of the agent.
    pub agent: Option<Uuid>,
    /// Policy that decided.
    pub policy: Option<String>,
    /// Name of the action.
    pub action: Option<String>,
    /// Target, as kind and value.
    pub target: Option<String>,
    /// What became of a response that has ended.
    pub outcome: Option<ResponseOutcome>,
}

/// Responses that have ended, by what became of them, since the manager started. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ended(pub Family<ByOutcome, Counter>);

impl Default for Ended {
    /// With a line for either outcome from the start: an alarm on the increase must see the first one.
    fn default() -> Self {
        let ended = Self(Family::default());
        for outcome in [ResponseOutcome::Failed, ResponseOutcome::Lifted] {
            ended.add(outcome, 0);
        }
        ended
    }
}

impl Ended {
    /// Counts `count` more.
    pub(in crate::store) fn add(&self, outcome: ResponseOutcome, count: u64) {
        self.0.get_or_create(&ByOutcome { outcome: outcome.as_str() }).inc_by(count);
    }
}

/// Formats a target: its kind and its value.
pub fn target(kind: &str, value: &str) -> Option<String> {
    (!kind.is_empty()).then(|| format!("{kind} {value}").trim_end().to_owned())
}

/// The log lines of one transaction.
#[derive(Debug, Default)]
pub struct Story {
    names: Names,
    lines: Vec<(AuditEntry, About)>,
    /// Pipeline ids of the alerts that got a response.
    sources: HashMap<Uuid, String>,
}

/// Whether an entry is logged at `debug` only: decisions without action, and queued commands, which
/// are logged at delivery.
fn is_quiet(entry: &AuditEntry) -> bool {
    matches!(entry.event, AuditEvent::ResponseObserved | AuditEvent::ResponseSpared | AuditEvent::CommandQueued)
}

impl Story {
    /// A story without lines.
    pub(in crate::store) fn new(names: Names) -> Self {
        Self { names, ..Self::default() }
    }

    /// Records the pipeline's id of an alert.
    pub(in crate::store) fn knows(&mut self, alert: Uuid, own_id: &str) {
        if tracing::enabled!(Level::INFO) {
            self.sources.insert(alert, own_id.to_owned());
        }
    }

    /// Name of an agent, or its id if the name is unknown.
    pub(super) fn name_of(&self, agent: Uuid) -> String {
        self.names.agent(agent).unwrap_or_else(|| agent.to_string())
    }

    /// Adds a line, if its level is enabled.
    pub(in crate::store) fn add(&mut self, entry: &AuditEntry, about: About) {
        let is_told = if is_quiet(entry) {
            tracing::enabled!(Level::DEBUG)
        } else if about.outcome == Some(ResponseOutcome::Failed) {
            tracing::enabled!(Level::WARN)
        } else {
            tracing::enabled!(Level::INFO)
        };
        if is_told {
            self.lines.push((entry.clone(), about));
        }
    }

    /// Writes the lines.
    pub(in crate::store) fn tell(self) {
        let Self { names, lines, sources } = self;
        for (entry, about) in lines {
            tell(&names, &entry, about, &sources);
        }
    }
}

fn tell(names: &Names, entry: &AuditEntry, about: About, sources: &HashMap<Uuid, String>) {
    let AuditEntry { event, noun_id, detail, actor, .. } = entry;
    let (verb, noun) = (event.verb(), event.noun());
    let own = |kind: &str| (noun == kind).then(|| noun_id.clone());
    let source_id = about.alert.and_then(|alert| sources.get(&alert)).map(|id| escape(id));
    let alert = about.alert.map(|alert| alert.to_string());
    let response = own("response").or(about.response);
    let (command, effect) = (own("command"), own("effect"));
    let agent = about.agent.or_else(|| own("agent").and_then(|id| id.parse().ok()));
    let agent_name = agent.and_then(|agent| names.agent(agent));
    let agent = agent.map(|agent| agent.to_string());
    let (action, target) = (about.action.map(|text| escape(&text)), about.target.map(|text| escape(&text)));
    let policy = own("policy").or(about.policy);
    let is_other = !["response", "command", "effect", "agent", "policy"].contains(&noun);
    let id = is_other.then(|| escape(noun_id));
    let by = names.actor(actor);
    let detail = if detail.is_empty() { String::new() } else { format!(": {}", escape(detail)) };
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                $level,
                id,
                alert,
                source_id,
                response,
                command,
                effect,
                policy,
                agent,
                agent_name,
                action,
                target,
                by,
                "{noun} {verb}{detail}"
            )
        };
    }
    if is_quiet(entry) {
        line!(Level::DEBUG);
    } else if about.outcome == Some(ResponseOutcome::Failed) {
        line!(Level::WARN);
    } else {
        line!(Level::INFO);
    }
}

/// Makes foreign text safe for a log line: no control or bidirectional characters, and truncated.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len().min(MAX_CHARS));
    for (index, char) in text.chars().enumerate() {
        if index == MAX_CHARS {
            escaped.push('…');
            break;
        }
        if is_hidden(char) {
            escaped.extend(char.escape_unicode());
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_forge_a_log_line() {
        assert_eq!(escape("a\nb\u{1b}[31m\u{202e}c"), "a\\u{a}b\\u{1b}[31m\\u{202e}c");
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), MAX_CHARS + 1);
    }

    #[test]
    fn people_and_agents_are_logged_with_their_names() {
        let names = Names::default();
        let agent = Uuid::from_u128(7);
        names.add_agent(agent, "web-01".into());
        names.set_keys([("abc".to_owned(), "alice".to_owned())].into());
        assert_eq!(names.actor(&Actor::Key("abc".into())), "alice (key:abc)");
        assert_eq!(names.actor(&Actor::Agent(agent)), format!("web-01 (agent:{agent})"));
        assert_eq!(names.actor(&Actor::Key("other".into())), "key:other");
        assert_eq!(names.actor(&Actor::Riposte), "riposte");
    }
}
