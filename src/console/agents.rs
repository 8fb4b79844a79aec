//! Agents: who is here, what each holds and can do, what drifted; enrolment with a command to copy;
//! labels and revocation.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Method;
use riposte_protocol::message::{Capability, ONLY_OBSERVED, Platform};
use serde::Deserialize;

use super::client::{NO_BODY, Trouble};
use super::enrolment::{SECTION, Token, tokens};
use super::format::{Moment, coming, count, past};
use super::labels;
use super::page::{PageFailure, PageResult, html};
use super::paths::{segment, with_query};
use super::plan::{ChangePlan, PlanField};
use super::session::{SentForm, Session};
use super::shell::Shell;
use super::words::{self, Badge, StateTone};
use crate::domain::right::Right;
use crate::views::agents::{AgentView, ChangeAgent};
use crate::views::commands::CommandRow;
use crate::views::effects::EffectRow;
use crate::views::page::Page;

/// Effects of one agent that are listed, of each kind.
const LISTED: usize = 500;
const LIVE: &str = "agent.*,incident.*,effect.*,freeze.*";

/// The filter, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AgentsQuestion {
    name: String,
    revoked: String,
    cursor: String,
}

struct Row {
    id: String,
    name: String,
    badge: Badge,
    /// What is wrong with it.
    incidents: Vec<String>,
    labels: String,
    platform: String,
    version: String,
    seen: Option<Moment>,
}

#[derive(Template)]
#[template(path = "agents.html")]
struct AgentsPage {
    shell: Shell,
    filter: AgentsQuestion,
    rows: Vec<Row>,
    tokens: Vec<Token>,
    next: Option<String>,
    may_enrol: bool,
}

/// The list.
pub(super) async fn list(session: Session, Query(filter): Query<AgentsQuestion>) -> PageResult {
    let AgentsQuestion { name, revoked, cursor } = &filter;
    let revoked_too = if revoked == "yes" { "true" } else { "" };
    let pairs = [("name", name.as_str()), ("revoked", revoked_too), ("cursor", cursor.as_str())];
    let page: Page<AgentView> = session.api.get(&with_query("/v1/agents", pairs)).await?;
    let next = page.next_cursor.map(|cursor| {
        with_query(SECTION, [("name", name.as_str()), ("revoked", revoked.as_str()), ("cursor", cursor.as_str())])
    });
    let may_manage = session.may(Right::ManageAgents);
    // Tokens are for agents of all labels.
    let may_enrol = may_manage && session.who.scopes.is_empty();
    let tokens = if may_enrol { tokens(&session).await? } else { Vec::new() };
    let rows = page.items.iter().map(|view| session.agent_row(view)).collect();
    let shell = session.shell("Agents", SECTION, if cursor.is_empty() { LIVE } else { "" }).await?;
    html(&AgentsPage { shell, filter, rows, tokens, next, may_enrol })
}

impl Session {
    fn agent_row(&self, view: &AgentView) -> Row {
        let AgentView { agent, presence, away_since, rejecting, wazuh_claim, .. } = view;
        let mut incidents = Vec::new();
        incidents.extend(agent.incident.as_ref().map(|incident| incident.replace('_', " ")));
        incidents.extend(
            rejecting.as_ref().map(|why| format!("rejects this manager's commands: {}", why.replace('_', " "))),
        );
        if let Some(skew) = agent.clock_skew_seconds.filter(|skew| *skew != 0) {
            let way = if skew > 0 { "ahead" } else { "behind" };
            incidents.push(format!("its clock is {} s {way}", skew.abs()));
        }
        let doubt = wazuh_claim.as_ref().and_then(|claim| claim.doubt.as_ref());
        incidents.extend(doubt.map(|doubt| format!("its identity in Wazuh is not believed: {doubt}")));
        let platform: Option<Platform> = agent.platform.read().ok();
        Row {
            id: agent.id.clone(),
            name: agent.name.clone(),
            badge: words::presence(*presence, agent.revoked_at.is_some()),
            incidents,
            labels: labels::shown(agent.labels.read().unwrap_or_default()),
            platform: platform.map_or_else(String::new, |on| format!("{} {} {}", on.os, on.version, on.arch)),
            version: agent.version.clone(),
            seen: away_since.or(agent.last_seen_at).map(|at| past(at, self.now())),
        }
    }
}

struct Held {
    path: String,
    what: String,
    badge: Badge,
    reason: String,
    until: Option<Moment>,
}

struct Ability {
    action: String,
    badge: Badge,
    reason: String,
}

struct Command {
    response: String,
    what: String,
    badge: Badge,
    detail: String,
    when: Moment,
}

#[derive(Template)]
#[template(path = "agent.html")]
struct AgentPage {
    shell: Shell,
    row: Row,
    facts: Vec<(&'static str, String)>,
    held: Vec<Held>,
    is_cut: bool,
    commands: Vec<Command>,
    abilities: Vec<Ability>,
    may_manage: bool,
    is_revoked: bool,
}

/// One agent.
pub(super) async fn one(session: Session, Path(id): Path<String>) -> PageResult {
    let id = segment(&id);
    let view: AgentView = session.api.get(&format!("/v1/agents/{id}")).await?;
    let now = session.now();
    let (effects, is_cut) = standing(&session, &id).await?;
    let held = effects.iter().map(|effect| Held {
        path: format!("/targets/{}/{}", segment(&effect.target_kind), super::now::path_value(&effect.target_value)),
        what: format!("{} {} {}", effect.action, effect.target_kind, effect.target_value),
        badge: words::effect(effect),
        reason: effect.last_reason.clone(),
        until: effect.until.map(|until| coming(until, now)),
    });
    let held = held.collect();
    let commands: Page<CommandRow> = session.api.get(&format!("/v1/commands?agent_id={id}&limit=50")).await?;
    let commands = commands.items.iter().map(|command| Command {
        response: command.response_id.clone(),
        what: format!("{} {} {} {}", command.op.as_str(), command.action, command.target_kind, command.target_value),
        badge: words::command(command.state),
        detail: command.detail.clone(),
        when: past(command.created_at, now),
    });
    let commands = commands.collect();
    let capabilities: Vec<Capability> = view.agent.capabilities.read().unwrap_or_default();
    let row = session.agent_row(&view);
    let shell = session.shell(row.name.clone(), SECTION, LIVE).await?;
    html(&AgentPage {
        facts: facts(&view, &row),
        held,
        is_cut,
        commands,
        abilities: capabilities.iter().map(ability).collect(),
        may_manage: session.may(Right::ManageAgents),
        is_revoked: view.agent.revoked_at.is_some(),
        shell,
        row,
    })
}

/// Effects that are wanted on an agent, or are there; and whether there are more.
async fn standing(session: &Session, id: &str) -> Result<(Vec<EffectRow>, bool), Trouble> {
    let mut effects: BTreeMap<String, EffectRow> = BTreeMap::new();
    let mut is_cut = false;
    for filter in ["desired=in_force", "actual=in_force", "actual=drifted", "failing=true"] {
        let page: Page<EffectRow> =
            session.api.get(&format!("/v1/effects?agent_id={id}&{filter}&limit={LISTED}")).await?;
        is_cut |= page.next_cursor.is_some();
        effects.extend(page.items.into_iter().map(|effect| (effect.id.clone(), effect)));
    }
    Ok((effects.into_values().rev().collect(), is_cut))
}

fn ability(capability: &Capability) -> Ability {
    let reason = capability.reason.clone().unwrap_or_default();
    let badge = match capability.available {
        true if reason.starts_with(ONLY_OBSERVED) => Badge::new(StateTone::Warn, "only observes"),
        true => Badge::new(StateTone::Good, "can"),
        false => Badge::new(StateTone::Bad, "cannot"),
    };
    Ability { action: capability.action.clone(), badge, reason }
}

fn facts(view: &AgentView, row: &Row) -> Vec<(&'static str, String)> {
    let agent = &view.agent;
    let mut facts = vec![
        ("Labels", if row.labels.is_empty() { "none".to_owned() } else { row.labels.clone() }),
        ("Platform", row.platform.clone()),
        ("Version", agent.version.clone()),
        ("Enrolled", agent.enrolled_at.to_string()),
    ];
    if let Some(seen) = &row.seen {
        facts.push(("Last contact", format!("{} ({})", seen.words, seen.exact)));
    }
    if let Some(since) = agent.key_since {
        facts.push(("Its key since", since.to_string()));
    }
    if let Some(claim) = &view.wazuh_claim {
        facts.push(("Says that it is in Wazuh", format!("{} {}", claim.id, claim.name)));
    }
    facts.push(("Id", agent.id.clone()));
    facts
}

async fn labelling(session: &Session, id: &str, labels: Option<&str>) -> Result<ChangePlan, PageFailure> {
    let view: AgentView = session.api.get(&format!("/v1/agents/{}", segment(id))).await?;
    let row = session.agent_row(&view);
    Ok(ChangePlan {
        title: format!("Labels of {}", row.name),
        facts: vec![("Now", if row.labels.is_empty() { "none".to_owned() } else { row.labels.clone() })],
        warnings: vec!["Policies select agents by labels: a change can bring it under other policies.".to_owned()],
        fields: vec![PlanField {
            kind: "textarea",
            hint: "name=value, separated by commas. An empty value removes the label; others stay.",
            ..PlanField::text("labels", "Labels", labels.unwrap_or(&row.labels))
        }],
        action: format!("/agents/{}/labels", segment(id)),
        button: "Set labels",
        back: format!("/agents/{}", segment(id)),
        ..ChangePlan::default()
    })
}

/// The form of an agent's labels.
pub(super) async fn ask_labels(session: Session, Path(id): Path<String>) -> PageResult {
    let plan = labelling(&session, &id, None).await?;
    session.plan(SECTION, plan).await
}

/// Sets an agent's labels.
pub(super) async fn labels(session: Session, Path(id): Path<String>, form: SentForm) -> PageResult {
    let path = format!("/v1/agents/{}", segment(&id));
    let changed = match labels::read(form.get("labels")) {
        Ok(labels) => {
            let change = ChangeAgent { labels: labels.into_iter().collect() };
            session.api.send(Method::PATCH, &path, None, Some(&change)).await
        }
        Err(why) => Err(Trouble::Mistyped(why)),
    };
    match changed {
        Ok(_) => Ok(session.done(&format!("/agents/{}", segment(&id)), "The labels are set.")),
        Err(trouble) => {
            let plan = labelling(&session, &id, Some(form.get("labels"))).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

async fn revocation(session: &Session, id: &str) -> Result<ChangePlan, PageFailure> {
    let id = segment(id);
    let view: AgentView = session.api.get(&format!("/v1/agents/{id}")).await?;
    let (held, is_cut) = standing(session, &id).await?;
    let endless = held.iter().filter(|effect| effect.until.is_none()).count();
    let more = if is_cut { ", and more" } else { "" };
    let holds = format!("{}{more}", count(i64::try_from(held.len()).unwrap_or(i64::MAX), "effect"));
    let mut warnings = vec![
        "The agent gets no command any more, and its token is refused. What has an end it undoes by itself on time; the \
         manager knows nothing of it from then on. It cannot be taken back: the host enrols anew."
            .to_owned(),
    ];
    if endless > 0 {
        let what = count(i64::try_from(endless).unwrap_or(i64::MAX), "effect");
        warnings.push(format!("{what} without an end stay in force until an administrator removes them on the host."));
    }
    let row = session.agent_row(&view);
    Ok(ChangePlan {
        title: format!("Revoke {}", row.name),
        facts: vec![("State", row.badge.words.clone()), ("Holds", holds)],
        warnings,
        action: format!("/agents/{id}/revoke"),
        button: "Revoke",
        is_dangerous: true,
        back: format!("/agents/{id}"),
        ..ChangePlan::default()
    })
}

/// Shows what a revocation means.
pub(super) async fn ask_revoke(session: Session, Path(id): Path<String>) -> PageResult {
    let plan = revocation(&session, &id).await?;
    session.plan(SECTION, plan).await
}

/// Revokes an agent.
pub(super) async fn revoke(session: Session, Path(id): Path<String>, _: SentForm) -> PageResult {
    match session.api.send(Method::DELETE, &format!("/v1/agents/{}", segment(&id)), None, NO_BODY).await {
        Ok(_) => Ok(session.done(SECTION, "The agent is revoked.")),
        Err(trouble) => {
            let plan = revocation(&session, &id).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}
