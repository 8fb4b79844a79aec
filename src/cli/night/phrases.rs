//! Words for people that several commands share: counts, times that are left, and who did something.

use std::collections::HashMap;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::cli::client::Remote;
use crate::domain::actor::Actor;
use crate::views::columns::Millis;
use crate::views::keys::KeyRow;
use crate::views::responses::ResponseRow;
use crate::views::targets::{TargetHolder, TargetRow};

/// `1 agent`, `2 agents`.
pub fn counted(count: i64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The number of a list's items.
pub fn len<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

/// How long until an end: `in 42 min`, `by hand`, `over`.
pub fn ends(until: Option<Millis>, now: Timestamp) -> String {
    let Some(until) = until.map(Timestamp::from) else { return "by hand".to_owned() };
    if until <= now { "over".to_owned() } else { format!("in {}", span(until.since(now))) }
}

/// How long ago: `42 min ago`.
pub fn ago(at: Millis, now: Timestamp) -> String {
    format!("{} ago", span(now.since(at.into())))
}

/// A span of time in its largest unit, rounded down.
fn span(span: Duration) -> String {
    match span.as_secs() {
        secs @ 0..60 => format!("{secs} s"),
        secs @ 60..3600 => format!("{} min", secs / 60),
        secs @ 3600..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}

/// Names of actors: those of API keys, if the caller may list them.
#[derive(Debug, Default)]
pub struct Actors(HashMap<String, String>);

impl Actors {
    /// Asks for the names of keys, if one of `actors` is a key.
    pub async fn of<'a>(remote: &Remote, mut actors: impl Iterator<Item = &'a str>) -> Self {
        if !actors.any(|actor| matches!(Actor::parse(actor), Some(Actor::Key(_)))) {
            return Self::default();
        }
        // Without the right to list keys they keep their ids.
        let keys: Vec<KeyRow> = remote.items("/v1/api-keys").await.unwrap_or_default();
        Self(keys.into_iter().map(|key| (key.id, key.name)).collect())
    }

    /// `alice`, `key ci`, `policy ssh`.
    pub fn name(&self, actor: &str) -> String {
        match Actor::parse(actor) {
            Some(Actor::User(name)) => name,
            Some(Actor::Key(id)) => format!("key {}", self.0.get(&id).unwrap_or(&id)),
            Some(Actor::Policy(name)) => format!("policy {name}"),
            _ => actor.to_owned(),
        }
    }

    /// Who asked for a response: its policy, or a person or program.
    pub fn requester(&self, policy: Option<&str>, requested_by: &str) -> String {
        policy.map_or_else(|| self.name(requested_by), |policy| format!("policy {policy}"))
    }
}

/// Where a target is in force: `9 agents`, or `7 of 9 in force, 1 drifted, 1 pending`.
pub fn coverage(row: &TargetRow) -> String {
    let TargetRow { effects, in_force, unverified, pending, failed, drifted, reverting, failing, .. } = *row;
    let stuck = failing;
    let parts = [
        (unverified, "unverified"),
        (pending, "pending"),
        (failed, "failed"),
        (drifted, "drifted"),
        (reverting - stuck, "being lifted"),
        (stuck, "cannot be lifted"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    let all = counted(row.agents, "agent", "agents");
    if in_force == effects {
        return if effects == row.agents { all } else { format!("{all}, {effects} effects") };
    }
    let first = format!("{in_force} of {effects} in force");
    std::iter::once(first).chain(parts).collect::<Vec<_>>().join(", ")
}

/// The target of a response: `ip 203.0.113.7`, or `-`.
pub fn aim(response: &ResponseRow) -> String {
    let words = [&response.target_kind, &response.target_value].into_iter().flatten();
    let words: Vec<&str> = words.map(String::as_str).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

/// The state of a response, with the reason: `ended (lifted)`.
pub fn state_of(response: &ResponseRow) -> String {
    let reason = response.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{}{reason}", response.state.as_str())
}

/// Why a response holds a target: its alert's rule, or what a person wrote.
pub fn reason(holder: &TargetHolder) -> String {
    match &holder.rule {
        Some(rule) if rule.description.is_empty() => format!("rule {} (level {})", rule.id, rule.level),
        Some(rule) => format!("rule {} (level {}): {}", rule.id, rule.level, rule.description),
        None => holder.note.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_counts_are_in_the_words_of_people() {
        let now = Timestamp::from_millis(1_000_000_000);
        let after = |secs: u64| Some(Millis::from(now.plus(Duration::from_secs(secs))));
        let table = [
            (1, "in 1 s"),
            (59, "in 59 s"),
            (60, "in 1 min"),
            (3599, "in 59 min"),
            (3600, "in 1 h"),
            (172_800, "in 2 days"),
        ];
        for (secs, words) in table {
            assert_eq!(ends(after(secs), now), words);
        }
        assert_eq!((ends(None, now), ends(after(0), now)), ("by hand".into(), "over".into()));
        assert_eq!(
            (counted(1, "agent", "agents"), counted(0, "agent", "agents")),
            ("1 agent".into(), "0 agents".into())
        );
    }

    #[test]
    fn where_a_target_is_names_what_is_not_in_force() {
        let row = TargetRow { agents: 9, effects: 9, in_force: 9, ..TargetRow::default() };
        assert_eq!(coverage(&row), "9 agents");
        let row = TargetRow { in_force: 5, drifted: 1, pending: 1, reverting: 2, failing: 1, ..row };
        assert_eq!(coverage(&row), "5 of 9 in force, 1 pending, 1 drifted, 1 being lifted, 1 cannot be lifted");
    }
}
