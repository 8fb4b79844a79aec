//! What states, agents and actors are called on pages. A state is a sign, a word and a colour: the
//! colour alone says nothing.

use std::fmt;

use askama::Template;
use axum::http::StatusCode;
use riposte_protocol::message::Outcome;
use serde::de::DeserializeOwned;

use super::client::Trouble;
use super::session::Session;
use crate::domain::actor::Actor;
use crate::domain::command::CommandState;
use crate::domain::effect::Actual;
use crate::domain::outcome::ResponseOutcome;
use crate::domain::presence::Presence;
use crate::domain::response::ResponseState;
use crate::domain::right::Right;
use crate::domain::scope::Scopes;
use crate::views::effects::EffectRow;
use crate::views::responses::{OutcomeView, ResponseRow};

/// How a state looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateTone {
    Good,
    Warn,
    Bad,
    Plain,
}

impl StateTone {
    /// Class and sign.
    pub(super) const fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Good => ("good", "✓"),
            Self::Warn => ("warn", "!"),
            Self::Bad => ("bad", "✗"),
            Self::Plain => ("plain", "·"),
        }
    }
}

impl fmt::Display for StateTone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.look().0)
    }
}

/// A state as a page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Template)]
#[template(
    source = "<span class=\"state {{ tone }}\" data-sign=\"{{ tone.look().1 }}\">{{ words }}</span>",
    ext = "html"
)]
pub(super) struct Badge {
    pub(super) tone: StateTone,
    pub(super) words: String,
}

impl Badge {
    pub(super) fn new(tone: StateTone, words: impl Into<String>) -> Self {
        Self { tone, words: words.into() }
    }
}

/// The state of a response, with what became of it.
pub(super) fn response(row: &ResponseRow, outcome: &OutcomeView) -> Badge {
    let of_outcome = |of_all| match of_all {
        ResponseOutcome::InForce if outcome.agents_unverified > 0 => {
            Badge::new(StateTone::Warn, "in force, not verified")
        }
        ResponseOutcome::InForce => Badge::new(StateTone::Good, "in force"),
        ResponseOutcome::Pending => Badge::new(StateTone::Warn, "pending"),
        ResponseOutcome::Partly => Badge::new(StateTone::Warn, "partly"),
        ResponseOutcome::Failed => Badge::new(StateTone::Bad, "failed"),
        ResponseOutcome::Lifted => Badge::new(StateTone::Plain, if row.one_shot { "done" } else { "lifted" }),
    };
    match row.state {
        ResponseState::Active | ResponseState::Ended => {
            outcome.outcome.map_or_else(|| Badge::new(StateTone::Plain, row.state.as_str()), of_outcome)
        }
        ResponseState::AwaitingApproval => Badge::new(StateTone::Warn, "waits for approval"),
        ResponseState::Rejected => Badge::new(StateTone::Plain, "rejected"),
        ResponseState::Lapsed => Badge::new(StateTone::Plain, "lapsed: not answered in time"),
        ResponseState::Observed => Badge::new(StateTone::Plain, "observed only"),
        ResponseState::Spared => Badge::new(StateTone::Plain, "spared"),
    }
}

/// What an effect is on its agent.
pub(super) fn effect(effect: &EffectRow) -> Badge {
    use crate::domain::effect::{Desired, LastApply};
    let is_wanted = effect.desired == Desired::InForce;
    if effect.agent_revoked {
        return Badge::new(StateTone::Warn, "agent revoked: nothing is known");
    }
    match (is_wanted, effect.actual) {
        _ if effect.failed_reverts > 0 => Badge::new(StateTone::Bad, "cannot be lifted"),
        (true, Actual::Unknown) if effect.last_apply == Some(LastApply::Unverified) => {
            Badge::new(StateTone::Warn, "in force, not verified")
        }
        (true, Actual::InForce) => Badge::new(StateTone::Good, "in force, verified"),
        (_, Actual::Drifted) => Badge::new(StateTone::Bad, "drifted"),
        (true, _) => match effect.last_apply {
            Some(LastApply::Observed) => Badge::new(StateTone::Plain, "observed only"),
            Some(
                LastApply::Failed
                | LastApply::Refused
                | LastApply::TimedOut
                | LastApply::Expired
                | LastApply::Cancelled,
            ) => Badge::new(StateTone::Bad, "failed"),
            _ => Badge::new(StateTone::Warn, "pending"),
        },
        (false, Actual::InForce | Actual::Unknown) => Badge::new(StateTone::Warn, "being lifted"),
        (false, Actual::Absent) => Badge::new(StateTone::Plain, "lifted"),
    }
}

/// The state of a command.
pub(super) fn command(state: CommandState) -> Badge {
    let tone = match state {
        CommandState::Succeeded => StateTone::Good,
        CommandState::Failed | CommandState::TimedOut | CommandState::Refused | CommandState::Expired => StateTone::Bad,
        CommandState::Queued | CommandState::Delivered | CommandState::Acknowledged => StateTone::Warn,
        CommandState::Cancelled => StateTone::Plain,
    };
    Badge::new(tone, state.as_str().replace('_', " "))
}

/// The outcome of a result.
pub(super) const fn result(outcome: Outcome) -> StateTone {
    match outcome {
        Outcome::Succeeded => StateTone::Good,
        _ => StateTone::Bad,
    }
}

/// Whether an agent is here.
pub(super) fn presence(presence: Presence, is_revoked: bool) -> Badge {
    match presence {
        _ if is_revoked => Badge::new(StateTone::Plain, "revoked"),
        Presence::Streaming => Badge::new(StateTone::Good, "connected"),
        Presence::Polling => Badge::new(StateTone::Good, "polls"),
        Presence::Away => Badge::new(StateTone::Bad, "away"),
    }
}

/// What a response is aimed at.
pub(super) fn aim(row: &ResponseRow) -> String {
    let words = [&row.target_kind, &row.target_value].into_iter().flatten();
    let words: Vec<&str> = words.map(String::as_str).filter(|word| !word.is_empty() && *word != "none").collect();
    if words.is_empty() { "the agent itself".to_owned() } else { words.join(" ") }
}

/// The counts of an outcome: `7 in force, 1 pending`.
pub(super) fn counts(outcome: &OutcomeView) -> String {
    let Some(counts) = outcome.agents_by_outcome else { return String::new() };
    let counts = [
        (counts.in_force, "in force"),
        (counts.pending, "pending"),
        (counts.failed, "failed"),
        (counts.lifted, "lifted"),
    ];
    let shown = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    let mut shown: Vec<String> = shown.collect();
    if outcome.agents_unverified > 0 {
        shown.push(format!("{} of them not verified", outcome.agents_unverified));
    }
    shown.join(", ")
}

impl Session {
    /// What a GET returns; `None` if it is not there, or not for this person.
    ///
    /// # Errors
    /// If the API refuses for another reason.
    pub(super) async fn found<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Trouble> {
        match self.api.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(trouble) if trouble.status() == StatusCode::NOT_FOUND => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The name of an agent; its id if it is revoked or unknown.
    pub(super) fn agent(&self, id: &str) -> String {
        let fleet = self.console.engine.fleet.load();
        let found = id.parse().ok().and_then(|id| fleet.get(id));
        // The name of a hidden agent is not shown.
        let scopes = Scopes::of(self.who.scopes.iter().cloned());
        let found = found.filter(|agent| scopes.take_agent(&***agent));
        found.map_or_else(|| id.to_owned(), |agent| agent.name.clone())
    }

    /// Who did it: a person, a policy, an agent or a key, by name.
    pub(super) fn actor(&self, word: &str) -> String {
        match Actor::parse(word) {
            Some(Actor::User(name)) => name,
            Some(Actor::Policy(name)) => format!("policy {name}"),
            Some(Actor::Agent(id)) => format!("agent {}", self.agent(&id.to_string())),
            Some(Actor::Key(id)) => {
                let keys = self.console.engine.keys.load();
                // The list of keys is for administrators.
                let stored = keys.get(&id).filter(|_| self.may(Right::Administer));
                let name = stored.map(|stored| stored.key.name.clone());
                name.map_or_else(|| format!("key {id}"), |name| format!("key {name}"))
            }
            Some(Actor::Riposte) => "Riposte".to_owned(),
            _ => word.to_owned(),
        }
    }
}
