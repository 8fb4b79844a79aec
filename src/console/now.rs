//! What is in force now: a row for each target, with where, why, by whom and until when; and one
//! target with everything that is known of it.

use askama::Template;
use axum::extract::{Path, Query};
use serde::Deserialize;

use super::format::{Moment, coming, count, past};
use super::page::{PageResult, html};
use super::paths::{segment, with_query};
use super::responses::Line;
use super::session::Session;
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::outcome::EffectOutcome;
use crate::domain::right::Right;
use crate::views::agents::AgentView;
use crate::views::effects::EffectFeed;
use crate::views::page::Page;
use crate::views::targets::{TargetHolder, TargetRow, TargetView};

const LIVE: &str = "response.*,effect.*,command.*,freeze.*,protected.*";

/// The filter, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NowQuestion {
    target: String,
    kind: String,
    action: String,
    policy: String,
    agent: String,
    state: String,
    cursor: String,
}

/// Why a target is held.
pub(super) struct Why {
    response: String,
    by: String,
    words: String,
}

/// A target in the list.
pub(super) struct TargetLine {
    kind: String,
    value: String,
    path: String,
    /// Where: `7 of 9 verified`, `1 drifted`.
    badges: Vec<Badge>,
    agents: String,
    actions: String,
    why: Vec<Why>,
    more: i64,
    until: Option<Moment>,
    is_by_hand: bool,
    changed: Option<Moment>,
    is_address: bool,
    /// Whether the target has a value by which it can be lifted as a whole.
    has_value: bool,
}

/// A view that a person can open by one click.
struct Preset {
    name: &'static str,
    path: String,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "now.html")]
#[expect(clippy::struct_excessive_bools, reason = "what the template shows or leaves out")]
struct NowPage {
    shell: Shell,
    filter: NowQuestion,
    states: Vec<(&'static str, String)>,
    presets: Vec<Preset>,
    rows: Vec<TargetLine>,
    next: Option<String>,
    is_filtered: bool,
    is_new: bool,
    may_respond: bool,
    may_protect: bool,
}

/// The page.
pub(super) async fn list(session: Session, Query(filter): Query<NowQuestion>) -> PageResult {
    let NowQuestion { target, kind, action, policy, agent, state, cursor } = &filter;
    let given = [("target", target), ("kind", kind), ("action", action), ("policy", policy), ("state", state)];
    let given = given.map(|(name, value)| (name, value.as_str()));
    // The API selects by id; people write names.
    let agent_id = match agent.trim() {
        "" => String::new(),
        name => {
            let fleet = session.console.engine.fleet.load();
            fleet.called(name).map_or_else(|| uuid::Uuid::nil().to_string(), |agent| agent.id.to_string())
        }
    };
    let pairs = given.into_iter().chain([("agent_id", agent_id.as_str()), ("cursor", cursor.as_str())]);
    let page: Page<TargetRow> = session.api.get(&with_query("/v1/targets", pairs)).await?;
    let next = page.next_cursor.as_ref().map(|cursor| {
        with_query("/", given.into_iter().chain([("agent", agent.as_str()), ("cursor", cursor.as_str())]))
    });
    let is_filtered = given.iter().any(|(_, value)| !value.trim().is_empty()) || !agent.trim().is_empty();
    let presets = [
        ("All", ""),
        ("Pending", "pending"),
        ("Not in force", "failed"),
        ("Drifted", "drifted"),
        ("Cannot be lifted", "failing"),
    ];
    let presets = presets.map(|(name, word)| Preset {
        name,
        path: with_query("/", [("state", word)]),
        is_current: state == word && (word.is_empty() != is_filtered || !word.is_empty()),
    });
    let is_new = page.items.is_empty() && !is_filtered && {
        let agents: Page<AgentView> = session.api.get("/v1/agents?limit=1").await?;
        agents.items.is_empty()
    };
    let live = if cursor.is_empty() { LIVE } else { "" };
    let shell = session.shell("Now", "/", live).await?;
    html(&NowPage {
        shell,
        states: EffectOutcome::ALL.map(|state| (state.as_str(), words_of(state).to_owned())).to_vec(),
        presets: presets.into(),
        rows: page.items.iter().map(|row| session.row(row)).collect(),
        next,
        is_filtered,
        is_new,
        may_respond: session.may(Right::Respond),
        may_protect: session.may(Right::WritePolicies) && session.who.scopes.is_empty(),
        filter,
    })
}

const fn words_of(outcome: EffectOutcome) -> &'static str {
    match outcome {
        EffectOutcome::InForce => "verified",
        EffectOutcome::Unverified => "in force, not verified",
        EffectOutcome::Pending => "pending",
        EffectOutcome::Failed => "not in force",
        EffectOutcome::Drifted => "drifted",
        EffectOutcome::Reverting => "being lifted",
        EffectOutcome::Failing => "cannot be lifted",
    }
}

const fn tone_of(outcome: EffectOutcome) -> StateTone {
    match outcome {
        EffectOutcome::InForce => StateTone::Good,
        EffectOutcome::Unverified | EffectOutcome::Pending | EffectOutcome::Reverting => StateTone::Warn,
        EffectOutcome::Failed | EffectOutcome::Drifted | EffectOutcome::Failing => StateTone::Bad,
    }
}

impl Session {
    fn row(&self, row: &TargetRow) -> TargetLine {
        let now = self.now();
        let numbers = [
            (EffectOutcome::InForce, row.in_force),
            (EffectOutcome::Unverified, row.unverified),
            (EffectOutcome::Pending, row.pending),
            (EffectOutcome::Failed, row.failed),
            (EffectOutcome::Drifted, row.drifted),
            (EffectOutcome::Reverting, row.reverting - row.failing),
            (EffectOutcome::Failing, row.failing),
        ];
        let badges = numbers.into_iter().filter(|(_, number)| *number > 0).map(|(outcome, number)| {
            let words = if outcome == EffectOutcome::InForce {
                format!("{number} of {} verified", row.effects)
            } else {
                format!("{number} {}", words_of(outcome))
            };
            Badge::new(tone_of(outcome), words)
        });
        TargetLine {
            path: format!("/targets/{}/{}", segment(&row.kind), path_value(&row.value)),
            kind: row.kind.clone(),
            value: if row.value.is_empty() { row.kind.clone() } else { row.value.clone() },
            badges: badges.collect(),
            agents: count(row.agents, "agent"),
            actions: row.actions.join(", "),
            why: row.held_by.iter().take(2).map(|holder| self.why(holder)).collect(),
            more: (row.responses - 2).max(0),
            until: row.until.map(|until| coming(until, now)),
            is_by_hand: row.until.is_none() && row.responses > 0,
            changed: row.changed_at.map(|at| past(at, now)),
            is_address: row.kind == "ip",
            has_value: !row.value.is_empty(),
        }
    }

    fn why(&self, holder: &TargetHolder) -> Why {
        let by = match &holder.policy {
            Some(policy) => format!("policy {policy}"),
            None => self.actor(&holder.requested_by),
        };
        let words = match &holder.rule {
            Some(rule) => format!("rule {}, level {}: {}", rule.id, rule.level, rule.description),
            None => holder.note.clone(),
        };
        Why { response: holder.response_id.clone(), by, words }
    }
}

/// The value of a target in a path: one without a value has `-`.
pub(super) fn path_value(value: &str) -> String {
    if value.is_empty() { "-".to_owned() } else { segment(value) }
}

/// An effect on one agent.
struct OnAgent {
    agent: String,
    action: String,
    badge: Badge,
    reason: String,
    until: Option<Moment>,
    held_by: Vec<String>,
}

#[derive(Template)]
#[template(path = "target.html")]
struct TargetPage {
    shell: Shell,
    row: TargetLine,
    on: Vec<OnAgent>,
    history: Vec<Line>,
    protected: Vec<(String, String)>,
    feeds: Vec<EffectFeed>,
    /// The path of the API, which the programs of the console use too.
    may_respond: bool,
    may_protect: bool,
}

/// One target.
pub(super) async fn target(session: Session, Path((kind, value)): Path<(String, String)>) -> PageResult {
    let path = format!("/v1/targets/{}/{}", segment(&kind), path_value(if value == "-" { "" } else { &value }));
    let view: TargetView = session.api.get(&path).await?;
    let now = session.now();
    let on = view.effects.iter().map(|on| OnAgent {
        agent: on.agent.clone(),
        action: on.effect.action.clone(),
        badge: on.outcome.map_or_else(
            || Badge::new(StateTone::Warn, "agent revoked: nothing is known"),
            |outcome| Badge::new(tone_of(outcome), words_of(outcome)),
        ),
        reason: on.effect.last_reason.clone(),
        until: on.effect.until.map(|until| coming(until, now)),
        held_by: on.held_by.iter().map(|holder| holder.response_id.clone()).collect(),
    });
    let on = on.collect();
    let protected =
        view.protected.iter().map(|entry| (format!("{} {}", entry.kind, entry.value), entry.reason.clone()));
    let row = session.row(&view.target);
    let shell = session.shell(format!("{} {}", row.kind, row.value), "/", LIVE).await?;
    html(&TargetPage {
        shell,
        on,
        history: view.responses.iter().map(|judged| session.line(judged)).collect(),
        protected: protected.collect(),
        feeds: view.feeds,
        may_respond: session.may(Right::Respond),
        may_protect: session.may(Right::WritePolicies) && session.who.scopes.is_empty(),
        row,
    })
}
