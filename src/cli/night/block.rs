//! `riposte block`: a response by hand, with its plan first. The action follows from the kind of the target.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use clap_complete::ArgValueCompleter;
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

use super::change::ChangeArgs;
use super::phrases::{counted, ends, len};
use super::resolve::kind_of;
use super::targets::KINDS;
use crate::cli::complete;
use crate::cli::output::say;
use crate::cli::terminal::{plain, plain_lines};
use crate::clock::Clock;
use crate::domain::duration::Span;
use crate::domain::response::ResponseState;
use crate::views::responses::{AlreadyHeld, ManualPreview, ManualTarget, NewManualResponse, ResponseView, UnableAgent};

/// Agents that a plan names.
const NAMED: usize = 10;

/// What to block, where and for how long.
#[derive(Debug, Args)]
pub struct BlockArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// The address, network, account or file; `-` for an action without a target.
    #[arg(value_name = "TARGET")]
    target: String,
    /// Its kind, where the text does not say it.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// The action; by default the one for the kind: `firewall-drop`, `disable-account` or `quarantine-file`.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// On this agent, by name or id; may be repeated.
    #[arg(long = "agent", value_name = "NAME", conflicts_with_all = ["labels", "on", "all"], add = ArgValueCompleter::new(complete::agents))]
    agents: Vec<String>,
    /// On agents with this label, KEY=VALUE; with several, on those that have all.
    #[arg(long = "label", value_name = "KEY=VALUE", conflicts_with_all = ["on", "all"])]
    labels: Vec<String>,
    /// On the agents that this selects, as `on` of a policy in JSON: `server`, `{"labels": {"env": "prod"}}`.
    #[arg(long, value_name = "JSON", conflicts_with = "all")]
    on: Option<String>,
    /// On all agents; the default.
    #[arg(short, long)]
    all: bool,
    /// For how long, such as `1h`; by default until it is lifted by hand.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Span>,
    /// Argument of the action; may be repeated.
    #[arg(long = "argument", value_name = "TEXT")]
    arguments: Vec<String>,
    /// Act at once where a second person would have to approve; audited and announced.
    #[arg(long)]
    break_glass: bool,
}

/// `riposte block`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(args: BlockArgs) -> anyhow::Result<ExitCode> {
    let remote = &args.change.consent.remote;
    let plan: ManualPreview = remote.post("/v1/responses", &order(&args, true)?).await?;
    let asked = order(&args, false)?;
    let what = format!("{} {}", asked.action, plan.target.as_deref().unwrap_or_default());
    let lines = told(what.trim(), args.duration, &plan, Clock::system().now());
    if plan.state == ResponseState::Spared {
        say(&plain_lines(&lines.join("\n")));
        bail!("it would not act: {}", plan.detail);
    }
    let question = format!("{} on {}?", what.trim(), counted(len(&plan.agents), "agent", "agents"));
    if let Some(code) = args.change.consent.stops(&lines, &question) {
        return Ok(code);
    }
    let made: ResponseView = remote.post("/v1/responses", &asked).await?;
    let row = &made.response.response;
    let next = match row.state {
        ResponseState::AwaitingApproval => "another person must approve it: `riposte waiting`".to_owned(),
        _ => format!("`riposte blocked {}` shows where it is in force", args.target),
    };
    say(&plain(&format!("response {}: {}; {next}", row.id, row.state.as_str().replace('_', " "))));
    Ok(ExitCode::SUCCESS)
}

fn order(args: &BlockArgs, dry_run: bool) -> anyhow::Result<NewManualResponse> {
    let kind = match (args.target.as_str(), &args.kind) {
        (_, Some(word)) => TargetKind::parse(word).context("the kind of the target")?,
        ("-", None) => TargetKind::None,
        (text, None) => kind_of(text),
    };
    let action = match (&args.action, kind) {
        (Some(name), _) => name.clone(),
        (None, TargetKind::Ip) => "firewall-drop".to_owned(),
        (None, TargetKind::User) => "disable-account".to_owned(),
        (None, TargetKind::File) => "quarantine-file".to_owned(),
        (None, kind) => bail!("a target of kind {kind} has no usual action: name one with --action"),
    };
    let target = match (args.target.as_str(), &args.kind) {
        ("-", None) => None,
        (text, _) => Some(ManualTarget::Full { kind, value: text.to_owned() }),
    };
    let on = match (&args.on, args.labels.as_slice()) {
        (Some(text), _) => Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))),
        (None, []) if args.agents.is_empty() => Some(json!("all")),
        (None, []) => None,
        (None, labels) => {
            let pair = |label: &String| {
                let (key, value) = label.split_once('=').with_context(|| format!("{label:?} is not KEY=VALUE"))?;
                Ok((key.to_owned(), Value::from(value)))
            };
            Some(json!({"labels": labels.iter().map(pair).collect::<anyhow::Result<Map<_, _>>>()?}))
        }
    };
    Ok(NewManualResponse {
        action,
        target,
        agents: args.agents.clone(),
        on,
        duration: args.duration,
        reason: args.change.reason.clone(),
        arguments: args.arguments.clone(),
        break_glass: args.break_glass,
        dry_run,
        case: None,
        tlp: None,
    })
}

fn told(what: &str, duration: Option<Span>, plan: &ManualPreview, now: Timestamp) -> Vec<String> {
    let ManualPreview { agents, unable, protected, already_held, enrolled, share, quorum, detail, .. } = plan;
    let until = duration.map_or_else(|| "until it is lifted by hand".to_owned(), |span| format!("for {span}"));
    let all = counted(i64::try_from(*enrolled).unwrap_or(i64::MAX), "agent", "agents");
    let percent = share * 100.0;
    let mut lines = vec![format!("{what} on {} of {all} ({percent:.0} %), {until}", agents.len())];
    let names: Vec<&str> = agents.iter().take(NAMED).map(|agent| agent.name.as_str()).collect();
    let others = agents.len().saturating_sub(NAMED);
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    if !names.is_empty() {
        lines.push(format!("  on         {}{others}", names.join(", ")));
    }
    let held =
        already_held.iter().map(|AlreadyHeld { name, until, .. }| format!("{name} (ends {})", ends(*until, now)));
    lines.extend(some("held there ", held));
    let left_out = |agents: &[UnableAgent]| -> Vec<String> {
        agents.iter().map(|agent| format!("{}: {}", agent.name, agent.reason)).collect()
    };
    lines.extend(some("protected  ", left_out(protected).into_iter()));
    lines.extend(some("unable     ", left_out(unable).into_iter()));
    if let Some(quorum) = quorum {
        let people = counted(i64::from(*quorum), "person", "people");
        lines.push(format!("  waits for  {people}: {detail}"));
    } else if !detail.is_empty() {
        lines.push(format!("  note       {detail}"));
    }
    lines
}

/// At most [`NAMED`] lines of what there is, and how many more there are.
fn some(label: &str, all: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let others = all.len().saturating_sub(NAMED);
    let mut lines: Vec<String> = all.take(NAMED).map(|one| format!("  {label}{one}")).collect();
    if others > 0 {
        lines.push(format!("  {label}and {others} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_where_it_acts_where_not_and_who_must_approve() {
        let agent = |nth: usize| json!({"id": "01a00000-0000-7000-8000-00000000000a", "name": format!("web-{nth:02}")});
        let with = |nth: usize, more: (&str, &str)| {
            let mut agent = agent(nth);
            agent[more.0] = more.1.into();
            agent
        };
        let plan = json!({"state": "awaiting_approval", "detail": "on more than 10 agents", "target": "203.0.113.7",
            "agents": (0..12).map(agent).collect::<Vec<_>>(), "quorum": 1,
            "unable": [with(20, ("reason", "nft is missing"))], "protected": [with(21, ("reason", "the bank"))],
            "already_held": [{"id": "01a00000-0000-7000-8000-00000000000a", "name": "web-01", "effect_id": "e", "until": null}],
            "enrolled": 14, "share": 0.857});
        let plan: ManualPreview = serde_json::from_value(plan).unwrap();
        let lines = told("firewall-drop 203.0.113.7", None, &plan, Timestamp::from_millis(0));
        insta::assert_snapshot!(lines.join("\n"));
    }
}
