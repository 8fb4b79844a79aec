//! `riposte unblock` and `riposte response lift`: lift the active responses to a target, of a policy, or by id; the plan says first what ends where, and
//! what stays because other responses hold it.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;
use clap_complete::ArgValueCompleter;
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::change::ChangeArgs;
use super::phrases::{Actors, aim, counted, ends, len, state_of};
use super::resolve::{self, one_of, short};
use super::targets::KINDS;
use crate::cli::client::Remote;
use crate::cli::complete;
use crate::cli::output::say;
use crate::cli::terminal::plain;
use crate::clock::Clock;
use crate::views::page::Page;
use crate::views::responses::{JudgedResponse, Lift, LiftMany, LiftPlan, Lifted, ResponseView, StayingEffect};

/// Staying effects that a plan names.
const NAMED: usize = 10;

/// What to lift.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["target", "policy", "responses"])))]
pub struct UnblockArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// The address, network, account or file.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: Option<String>,
    /// Only this kind of target: an account and a file can have the same name.
    #[arg(long, requires = "target", value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// Everything that this policy holds.
    #[arg(short, long, value_name = "NAME", add = ArgValueCompleter::new(complete::policies))]
    policy: Option<String>,
    /// This response, by its id or a part of it; may be repeated.
    #[arg(long = "response", value_name = "ID", add = ArgValueCompleter::new(complete::active))]
    responses: Vec<String>,
}

/// `riposte unblock`
///
/// # Errors
/// If the manager cannot be asked, refuses, or nothing is to be lifted.
pub async fn run(args: UnblockArgs) -> anyhow::Result<ExitCode> {
    let UnblockArgs { change, target, kind, policy, responses } = args;
    let kind = kind.as_deref().and_then(TargetKind::parse);
    let remote = &change.consent.remote;
    let mut named = Vec::new();
    if !responses.is_empty() {
        let active: Page<JudgedResponse> = remote.get("/v1/responses?state=active&limit=500").await?;
        let ids: Vec<String> = active.items.into_iter().map(|judged| judged.response.id).collect();
        for word in &responses {
            named.push(one_of(&ids, word, "active response", "riposte response list --state active")?.parse::<Uuid>()?);
        }
    }
    let asked = |count, dry_run| LiftMany {
        policy: policy.clone(),
        alert_id: None,
        rule_id: None,
        target: target.clone(),
        target_kind: kind,
        since: None,
        until: None,
        responses: named.clone(),
        everything: false,
        count,
        dry_run,
        reason: change.reason.clone(),
    };
    let plan: Lifted = remote.post("/v1/responses/lift", &asked(None, true)).await?;
    if plan.count == 0 {
        let why = plan.warnings.iter().map(|fault| format!(": {}", fault.detail)).collect::<String>();
        bail!("no active response is to be lifted{why}; `riposte blocked` lists what is blocked");
    }
    let lines = told(remote, &plan).await;
    let responses = counted(i64::try_from(plan.count).unwrap_or(i64::MAX), "response", "responses");
    if let Some(code) = change.consent.stops(&lines, &format!("lift {responses}?")) {
        return Ok(code);
    }
    let lifted: Lifted = remote.post("/v1/responses/lift", &asked(Some(plan.count), false)).await?;
    let lifted = counted(i64::try_from(lifted.count).unwrap_or(i64::MAX), "response", "responses");
    say(&plain(&format!("lifted {lifted}; `riposte blocked` shows what is still being lifted")));
    Ok(ExitCode::SUCCESS)
}

/// Which response ends, and why.
#[derive(Debug, Args)]
pub struct LiftArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Its id, or a part of it.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::active))]
    id: String,
}

/// `riposte response lift`
///
/// # Errors
/// If the manager cannot be asked, refuses, or the response is not active.
pub async fn lift(args: LiftArgs) -> anyhow::Result<ExitCode> {
    let LiftArgs { change, id: word } = args;
    let remote = &change.consent.remote;
    let id = resolve::response(remote, &word, "&state=active").await?;
    let view: ResponseView = remote.get(&format!("/v1/responses/{id}")).await?;
    let asked = LiftMany {
        policy: None,
        alert_id: None,
        rule_id: None,
        target: None,
        target_kind: None,
        since: None,
        until: None,
        responses: vec![id.parse()?],
        everything: false,
        count: None,
        dry_run: true,
        reason: change.reason.clone(),
    };
    let plan: Lifted = remote.post("/v1/responses/lift", &asked).await?;
    let row = &view.response.response;
    if plan.count == 0 {
        bail!("response {} is not active but {}; `riposte response list --state active`", short(&id), state_of(row));
    }
    let mut lines = vec![format!("response {}: {} {}", short(&id), row.action, aim(row))];
    lines.extend(told(remote, &plan).await);
    if let Some(code) = change.consent.stops(&lines, "lift this response?") {
        return Ok(code);
    }
    let body = Lift { reason: change.reason.clone() };
    let view: ResponseView = remote.post(&format!("/v1/responses/{id}/lift"), &body).await?;
    let state = state_of(&view.response.response);
    say(&plain(&format!("response {id}: {state}; `riposte response show {id}` shows each agent")));
    Ok(ExitCode::SUCCESS)
}

async fn told(remote: &Remote, lifted: &Lifted) -> Vec<String> {
    let plan = lifted.plan.clone().unwrap_or_default();
    let actors = Actors::of(remote, plan.staying.iter().map(|effect| effect.requested_by.as_str())).await;
    words(lifted.count, &plan, &actors, Clock::system().now())
}

fn words(count: usize, plan: &LiftPlan, actors: &Actors, now: Timestamp) -> Vec<String> {
    let LiftPlan { effects, agents, stays, stays_agents, staying } = plan;
    let responses = counted(i64::try_from(count).unwrap_or(i64::MAX), "response", "responses");
    let on = |effects, agents| {
        format!("{} on {}", counted(effects, "effect", "effects"), counted(agents, "agent", "agents"))
    };
    let mut lines = vec![format!("lifts {responses}: {} end", on(*effects, *agents))];
    if *effects == 1 {
        lines[0].push('s');
    }
    if *stays > 0 {
        let stay = if *stays == 1 { "stays" } else { "stay" };
        lines.push(format!("  {} {stay}, held by other responses:", on(*stays, *stays_agents)));
    }
    lines.extend(staying.iter().take(NAMED).map(|effect| {
        let StayingEffect { agent, action, target_value, policy, requested_by, until, .. } = effect;
        let by = actors.requester(policy.as_deref(), requested_by);
        format!("    {agent}: {action} {target_value}, by {by}, ends {}", ends(*until, now))
    }));
    let others = *stays - len(staying).min(i64::try_from(NAMED).unwrap_or(i64::MAX));
    if *stays > 0 && others > 0 {
        lines.push(format!("    and {others} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_ends_and_what_stays_and_why() {
        let staying = |agent: &str, policy: Option<&str>| StayingEffect {
            effect_id: "e".into(),
            agent_id: "a".into(),
            agent: agent.into(),
            action: "firewall-drop".into(),
            target_kind: "ip".into(),
            target_value: "203.0.113.7".into(),
            response_id: "r".into(),
            policy: policy.map(str::to_owned),
            requested_by: "user:alice".into(),
            until: None,
        };
        let staying = vec![staying("web-01", Some("ssh")), staying("web-02", None)];
        let plan = LiftPlan { effects: 14, agents: 9, stays: 3, stays_agents: 3, staying };
        let lines = words(2, &plan, &Actors::default(), Timestamp::from_millis(0));
        insta::assert_snapshot!(lines.join("\n"), @r"
        lifts 2 responses: 14 effects on 9 agents end
          3 effects on 3 agents stay, held by other responses:
            web-01: firewall-drop 203.0.113.7, by policy ssh, ends by hand
            web-02: firewall-drop 203.0.113.7, by alice, ends by hand
            and 1 more
        ");
        let plan = LiftPlan { effects: 1, agents: 1, ..LiftPlan::default() };
        assert_eq!(
            words(1, &plan, &Actors::default(), Timestamp::from_millis(0)),
            ["lifts 1 response: 1 effect on 1 agent ends"]
        );
    }
}
