//! `riposte compare`: what Wazuh's active response did, by its own alerts (rules 651 to 657), beside what Riposte did or
//! observed for the same alert. Wazuh's lines say that a program was started, not that it worked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::ExitCode;

use clap::Args;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::client::{Remote, segment};
use super::output::say;
use super::policy::plan::many;
use super::terminal::{cell, plain, table};
use crate::clock::Clock;
use crate::domain::duration::Span;
use crate::domain::response::ResponseState;
use crate::views::alerts::AlertView;
use crate::views::page::Page;
use crate::views::responses::JudgedResponse;

/// Wazuh's rules for lines of its active responses.
const RULES: std::ops::RangeInclusive<u16> = 651..=657;

/// Arguments of `riposte compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    remote: Remote,
    /// How far to look back.
    #[arg(long, default_value = "7d")]
    since: Span,
    /// Only what differs.
    #[arg(long)]
    differences: bool,
    /// Print JSON, one alert per line.
    #[arg(long)]
    json: bool,
}

/// What a line of an active response says.
#[derive(Debug, Deserialize)]
struct LoggedLine {
    data: LoggedData,
}

#[derive(Debug, Deserialize)]
struct LoggedData {
    command: String,
    #[serde(default)]
    origin: LoggedOrigin,
    parameters: LoggedParameters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoggedOrigin {
    name: String,
}

#[derive(Debug, Deserialize)]
struct LoggedParameters {
    program: String,
    alert: LoggedAlert,
}

#[derive(Debug, Deserialize)]
struct LoggedAlert {
    id: String,
    rule: LoggedRule,
    #[serde(default)]
    data: LoggedTarget,
}

#[derive(Debug, Deserialize)]
struct LoggedRule {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoggedTarget {
    srcip: Option<String>,
    dstuser: Option<String>,
    srcuser: Option<String>,
}

/// What Wazuh did for an alert.
#[derive(Clone, Debug, Serialize)]
struct WazuhAction {
    program: String,
    target: String,
    /// Hosts on which it was started.
    agents: BTreeSet<String>,
    /// When the undo was started on the first of them.
    undone_at: Option<Timestamp>,
}

/// What an agent of Riposte writes as the origin of its lines in the same log.
const OWN_ORIGIN: &str = "riposte";

/// How both relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Same,
    BothAct,
    NotYet,
    NotDone,
    OtherTarget,
    OtherAction,
    Spared,
    OnlyWazuh,
    OnlyRiposte,
}

impl Verdict {
    const fn text(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::BothAct => "BOTH ACT",
            Self::NotYet => "Riposte waits for approval",
            Self::NotDone => "Riposte did not act",
            Self::OtherTarget => "another target",
            Self::OtherAction => "another action",
            Self::Spared => "Riposte spares it",
            Self::OnlyWazuh => "only Wazuh",
            Self::OnlyRiposte => "only Riposte",
        }
    }
}

/// One alert, and what both did.
#[derive(Debug, Serialize)]
struct ComparedAlert {
    time: Timestamp,
    alert: String,
    rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    wazuh: Option<WazuhAction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    riposte: Option<String>,
    verdict: Verdict,
    why: String,
}

/// Runs the comparison. The exit code is 1 if anything differs.
///
/// # Errors
/// If the manager cannot be asked.
pub async fn run(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let since = Clock::system().now().minus(args.since.duration());
    let logged = logged(&args.remote, since).await?;
    let responses = responses(&args.remote, since).await?;
    let mut compared = Vec::new();
    let mut answered = BTreeSet::new();
    for ((id, _), (time, rule, action)) in logged {
        let found: Page<AlertView> = args.remote.get(&format!("/v1/alerts?source_id={}", segment(&id))).await?;
        let known = found.items.first().map(|alert| alert.id.clone());
        let own = known.as_ref().and_then(|known| responses.get(known)).map_or(&[][..], Vec::as_slice);
        answered.extend(known.clone());
        compared.push(judge(time, id, rule, action, known.is_some(), own));
    }
    for (alert, own) in &responses {
        let acting = own.iter().find(|judged| judged.response.state != ResponseState::Spared);
        if let Some(JudgedResponse { response, .. }) = acting.filter(|_| !answered.contains(alert)) {
            compared.push(ComparedAlert {
                time: response.created_at.into(),
                alert: alert.clone(),
                rule: String::new(),
                wazuh: None,
                policy: response.policy.clone(),
                riposte: Some(did(acting)),
                verdict: Verdict::OnlyRiposte,
                why: "Wazuh logged no active response for this alert".to_owned(),
            });
        }
    }
    compared.sort_by_key(|one| one.time);
    print(&args, &compared);
    let is_same = compared.iter().all(|one| one.verdict == Verdict::Same);
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Logged = BTreeMap<(String, String), (Timestamp, String, WazuhAction)>;

/// Wazuh's active responses by alert and program. A line that is logged twice counts once.
async fn logged(remote: &Remote, since: Timestamp) -> anyhow::Result<Logged> {
    let mut logged = Logged::new();
    for rule in RULES {
        let alerts: Vec<AlertView> = remote.items(&format!("/v1/alerts?rule_id={rule}&since={since}")).await?;
        for AlertView { id, time, agent, .. } in alerts {
            let alert: AlertView = remote.get(&format!("/v1/alerts/{id}")).await?;
            // Plain lines of Wazuh before 4.2 name no alert.
            let Some(line) = alert.raw.and_then(|raw| serde_json::from_str::<LoggedLine>(raw.get()).ok()) else {
                continue;
            };
            if line.data.origin.name == OWN_ORIGIN {
                continue;
            }
            let LoggedParameters { program, alert } = line.data.parameters;
            let LoggedTarget { srcip, dstuser, srcuser } = alert.data;
            let program = program_name(&program);
            let target = srcip.or(dstuser).or(srcuser).unwrap_or_default();
            let new = WazuhAction { program: program.clone(), target, agents: BTreeSet::new(), undone_at: None };
            let (first, _, action) = logged.entry((alert.id, program)).or_insert_with(|| (time, alert.rule.id, new));
            *first = (*first).min(time);
            if line.data.command == "delete" {
                action.undone_at = Some(action.undone_at.map_or(time, |before| before.min(time)));
            } else {
                action.agents.extend(agent.name.or(agent.id));
            }
        }
    }
    Ok(logged)
}

/// The name of an action, from `active-response/bin/firewall-drop` or a program of Windows.
fn program_name(program: &str) -> String {
    let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = name.rsplit_once('.').filter(|(_, end)| ["sh", "exe", "cmd", "bat", "py"].contains(end));
    stem.map_or(name, |(stem, _)| stem).to_owned()
}

/// Riposte's responses since then, by the alert.
async fn responses(remote: &Remote, since: Timestamp) -> anyhow::Result<HashMap<String, Vec<JudgedResponse>>> {
    let (mut by_alert, mut next) = (HashMap::<_, Vec<_>>::new(), "/v1/responses?limit=500".to_owned());
    loop {
        let page: Page<JudgedResponse> = remote.get(&next).await?;
        let is_over = page.items.last().is_none_or(|last| Timestamp::from(last.response.created_at) < since);
        for judged in page.items {
            if let Some(alert) =
                judged.response.alert_id.clone().filter(|_| Timestamp::from(judged.response.created_at) >= since)
            {
                by_alert.entry(alert).or_default().push(judged);
            }
        }
        match page.next_cursor.filter(|_| !is_over) {
            Some(cursor) => next = format!("/v1/responses?limit=500&cursor={cursor}"),
            None => return Ok(by_alert),
        }
    }
}

fn judge(
    time: Timestamp,
    alert: String,
    rule: String,
    wazuh: WazuhAction,
    is_known: bool,
    own: &[JudgedResponse],
) -> ComparedAlert {
    let is_action = |judged: &&JudgedResponse| judged.response.action == wazuh.program;
    let is_target =
        |judged: &&JudgedResponse| judged.response.target_value.as_deref().unwrap_or_default() == wazuh.target;
    let is_spared = |judged: &&JudgedResponse| judged.response.state == ResponseState::Spared;
    let best = own.iter().find(|one| is_action(one) && is_target(one) && !is_spared(one));
    let best = best.or_else(|| own.iter().find(is_action)).or_else(|| own.first());
    let (verdict, why) = match best {
        None if !is_known => (Verdict::OnlyWazuh, "Riposte has not received the alert".to_owned()),
        None => (Verdict::OnlyWazuh, "no policy matches; `riposte alert explain` says why".to_owned()),
        Some(judged) if is_spared(&judged) => (Verdict::Spared, judged.response.detail.clone()),
        Some(judged) if !is_action(&judged) => (Verdict::OtherAction, String::new()),
        Some(judged) if !is_target(&judged) => (Verdict::OtherTarget, String::new()),
        Some(judged) => {
            let target = judged.response.target_value.as_deref().unwrap_or_default();
            match judged.response.state {
                ResponseState::Observed => (Verdict::Same, String::new()),
                ResponseState::AwaitingApproval => (Verdict::NotYet, judged.response.detail.clone()),
                ResponseState::Rejected | ResponseState::Lapsed | ResponseState::Spared => {
                    (Verdict::NotDone, judged.response.detail.clone())
                }
                ResponseState::Active | ResponseState::Ended => {
                    let why = format!("both act on {target}: whichever undoes first takes the block of the other away");
                    (Verdict::BothAct, why)
                }
            }
        }
    };
    let policy = best.and_then(|judged| judged.response.policy.clone());
    let riposte = best.map(|judged| did(Some(judged)));
    ComparedAlert { time, alert, rule, wazuh: Some(wazuh), policy, riposte, verdict, why }
}

/// What Riposte did, in a few words.
fn did(judged: Option<&JudgedResponse>) -> String {
    let Some(JudgedResponse { response, .. }) = judged else { return String::new() };
    format!("{} {} ({})", response.action, cell(response.target_value.as_ref()), response.state.as_str())
}

fn print(args: &CompareArgs, compared: &[ComparedAlert]) {
    let shown = compared.iter().filter(|one| !args.differences || one.verdict != Verdict::Same);
    if args.json {
        for one in shown {
            // A line that cannot be written is one that holds no JSON, which this is.
            say(&serde_json::to_string(one).unwrap_or_default());
        }
        return;
    }
    let row = |one: &ComparedAlert| {
        let wazuh = one.wazuh.as_ref().map(|wazuh| {
            let agents = wazuh.agents.iter().cloned().collect::<Vec<_>>().join(", ");
            format!("{} {} on {agents}", wazuh.program, wazuh.target)
        });
        vec![
            one.time.to_string(),
            one.alert.clone(),
            one.rule.clone(),
            cell(wazuh),
            cell(one.riposte.as_ref()),
            one.verdict.text().to_owned(),
            one.why.clone(),
        ]
    };
    table(&["time", "alert", "rule", "wazuh started", "riposte", "", "why"], &shown.map(row).collect::<Vec<_>>());
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut policies: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for one in compared {
        *counts.entry(one.verdict).or_default() += 1;
        if let Some(policy) = &one.policy {
            let (same, other) = policies.entry(policy).or_default();
            *(if one.verdict == Verdict::Same { same } else { other }) += 1;
        }
    }
    say("");
    let counts: Vec<String> = counts.iter().map(|(verdict, count)| format!("{count} {}", verdict.text())).collect();
    say(&format!(
        "{}: {}",
        many(compared.len(), "alert"),
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
    ));
    for (policy, (same, other)) in policies {
        let next = match other {
            0 => format!(
                "remove its <active-response> block from ossec.conf and restart Wazuh, then `riposte policy mode {policy} enforce`; back: the reverse"
            ),
            _ => format!("look at what differs first: `riposte policy counts {policy}`"),
        };
        say(&plain(&format!("{policy}: {same} the same, {other} different. {next}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_like_the_action() {
        for (program, name) in [
            ("active-response/bin/firewall-drop", "firewall-drop"),
            ("active-response\\bin\\netsh.exe", "netsh"),
            ("custom.script.sh", "custom.script"),
            ("route-null", "route-null"),
            ("a.b", "a.b"),
        ] {
            assert_eq!(program_name(program), name);
        }
    }
}
