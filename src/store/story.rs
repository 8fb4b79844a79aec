//! The log's story of the ledger: one line for each decision and each change of state, told once it is durable. It follows the
//! audit entries, so no change of state lacks its line; what a line is about stands in fields, with the names of agents and
//! people. Texts that an alert or an agent brought are escaped and cut.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tracing::Level;
use uuid::Uuid;

use crate::domain::audit::Entry;
use crate::domain::outcome::ResponseOutcome;
use crate::telemetry::ByOutcome;

/// The longest text in a line, in characters.
const MAX_CHARS: usize = 300;

/// What ids are called: agents by their names, API keys by theirs. Cheap to clone.
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

    /// What the agent of that id is called.
    pub fn agent(&self, agent: Uuid) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).agents.get(&agent).cloned()
    }

    /// An actor of the audit log with its name: `alice (key:ID)`.
    fn actor(&self, actor: &str) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = match actor.split_once(':') {
            Some(("key", id)) => known.keys.get(id),
            Some(("agent", id)) => id.parse().ok().and_then(|id: Uuid| known.agents.get(&id)),
            _ => None,
        };
        name.map_or_else(|| escape(actor), |name| format!("{} ({actor})", escape(name)))
    }
}

/// What a line is about, beside the thing that changed.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The alert behind it.
    pub alert: Option<Uuid>,
    /// The response.
    pub response: Option<String>,
    /// The agent.
    pub agent: Option<Uuid>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// The action.
    pub action: Option<String>,
    /// What it is aimed at.
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
    pub(super) fn add(&self, outcome: ResponseOutcome, count: u64) {
        self.0.get_or_create(&ByOutcome { outcome: outcome.as_str() }).inc_by(count);
    }
}

/// A target in a line: its kind and its value.
pub fn target(kind: &str, value: &str) -> Option<String> {
    (!kind.is_empty()).then(|| format!("{kind} {value}").trim_end().to_owned())
}

/// The lines of one transaction.
#[derive(Debug, Default)]
pub struct Story {
    names: Names,
    lines: Vec<(Entry, About)>,
    /// The pipelines' own ids of the alerts that got a response.
    sources: HashMap<Uuid, String>,
}

/// What happens in such numbers that it is told at `debug` only: decisions that do nothing, and what is queued, because it is told
/// when it is delivered.
fn is_quiet(entry: &Entry) -> bool {
    matches!(entry.verb, "observed" | "spared" | "queued")
}

impl Story {
    /// An empty one.
    pub(super) fn new(names: Names) -> Self {
        Self { names, ..Self::default() }
    }

    /// The pipeline's own id of an alert that a line may be about.
    pub(super) fn knows(&mut self, alert: Uuid, own_id: &str) {
        if tracing::enabled!(Level::INFO) {
            self.sources.insert(alert, own_id.to_owned());
        }
    }

    /// What an agent is called; its id if it is not known.
    pub(super) fn name_of(&self, agent: Uuid) -> String {
        self.names.agent(agent).unwrap_or_else(|| agent.to_string())
    }

    /// Adds a line, if it would be told.
    pub(super) fn add(&mut self, entry: &Entry, about: About) {
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
    pub(super) fn tell(self) {
        let Self { names, lines, sources } = self;
        for (entry, about) in lines {
            tell(&names, &entry, about, &sources);
        }
    }
}

fn tell(names: &Names, entry: &Entry, about: About, sources: &HashMap<Uuid, String>) {
    let Entry { verb, noun, noun_id, detail, actor, .. } = entry;
    let own = |kind: &str| (*noun == kind).then(|| noun_id.clone());
    let source_id = about.alert.and_then(|alert| sources.get(&alert)).map(|id| escape(id));
    let alert = about.alert.map(|alert| alert.to_string());
    let response = own("response").or(about.response);
    let (command, effect) = (own("command"), own("effect"));
    let agent = about.agent.or_else(|| own("agent").and_then(|id| id.parse().ok()));
    let agent_name = agent.and_then(|agent| names.agent(agent));
    let agent = agent.map(|agent| agent.to_string());
    let (action, target) = (about.action.map(|text| escape(&text)), about.target.map(|text| escape(&text)));
    let policy = own("policy").or(about.policy);
    let is_other = !["response", "command", "effect", "agent", "policy"].contains(noun);
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

/// A text that others wrote, for a log line: without control characters and without what changes the direction of writing, and
/// not too long.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len().min(MAX_CHARS));
    for (index, char) in text.chars().enumerate() {
        if index == MAX_CHARS {
            escaped.push('…');
            break;
        }
        let is_hidden =
            matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if char.is_control() || is_hidden {
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
    fn what_others_wrote_cannot_forge_a_line() {
        assert_eq!(escape("a\nb\u{1b}[31m\u{202e}c"), "a\\u{a}b\\u{1b}[31m\\u{202e}c");
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), MAX_CHARS + 1);
    }

    #[test]
    fn people_and_agents_have_their_names() {
        let names = Names::default();
        let agent = Uuid::from_u128(7);
        names.add_agent(agent, "web-01".into());
        names.set_keys([("abc".to_owned(), "alice".to_owned())].into());
        assert_eq!(names.actor("key:abc"), "alice (key:abc)");
        assert_eq!(names.actor(&format!("agent:{agent}")), format!("web-01 (agent:{agent})"));
        assert_eq!(names.actor("key:other"), "key:other");
        assert_eq!(names.actor("riposte"), "riposte");
    }
}
