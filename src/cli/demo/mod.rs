//! `riposte demo`: the real manager on a fresh ledger, the real agent, sample policies and alerts,
//! and a timeline of decisions, commands, results and reverts. The timeline is read from the audit
//! log through the public API.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::client::Remote;
use super::output::say;
use super::{keyfiles, serve};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::action::Catalogue;
use crate::domain::actor::Actor;
use crate::domain::audit::AuditEvent;
use crate::domain::effect::{Actual, Desired};
use crate::domain::policy::Policy;
use crate::shutdown::{Signals, Tasks};
use crate::telemetry::{self, LogFormat};
use crate::views::agents::{AgentView, CreateToken, CreatedToken};
use crate::views::alerts::Intake;
use crate::views::audit::{AuditProof, AuditRow};
use crate::views::effects::EffectRow;
use crate::views::page::Page;
use crate::views::policies::PolicyView;

const POLICIES: &str = include_str!("policies.json");
const ALERTS: &str = include_str!("alerts.json");
const AGENT_NAME: &str = "demo-host";
/// Time between two alerts: slow enough to read along.
const PACE: Duration = Duration::from_millis(1500);
/// Polling interval of the audit log.
const LOOK: Duration = Duration::from_millis(200);
/// Validity of the agent's enrolment token.
const TOKEN_LASTS: &str = "1h";
/// Time limit for the agent's connection, and for the last revert.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags of `riposte demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Execute responses on this host, as root; otherwise the agent only observes.
    #[arg(long)]
    enforce: bool,
    /// Path of the agent's program; default: beside this one.
    #[arg(long)]
    agent: Option<PathBuf>,
}

/// Runs the demo to its end, or until a signal.
///
/// # Errors
/// If the manager or the agent cannot be started.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    // The timeline is the output; the manager's log would only disturb it.
    if std::env::var_os("RIPOSTE_LOG").is_some() {
        telemetry::start_logging(LogFormat::Text);
    }
    let dir = ScratchDir::make()?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let manager = format!("http://{}", listener.local_addr()?);
    let tasks = Tasks::new();
    let mut signals = Signals::listen()?;
    let mut config = Config::default();
    config.server.data_dir = dir.0.join("manager");
    let key_file = config.server.data_dir.join(keyfiles::ADMIN_KEY);
    let serving = serve::serve(config, listener, Clock::system(), tasks.clone());
    tokio::pin!(serving);
    let show = async {
        let remote = ready(&manager, key_file).await?;
        show(&args, &dir.0, &manager, &remote).await
    };
    let shown = tokio::select! {
        served = &mut serving => bail!("the manager ended early: {served:?}"),
        shown = show => shown,
        () = signals.next() => Ok(()),
    };
    tasks.stop();
    serving.await?;
    shown?;
    Ok(ExitCode::SUCCESS)
}

/// A directory that is removed when dropped.
struct ScratchDir(PathBuf);

impl ScratchDir {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("riposte-demo-{}", std::process::id()));
        keyfiles::make_data_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn ready(manager: &str, key_file: PathBuf) -> anyhow::Result<Remote> {
    let remote = Remote::to(manager, key_file);
    patiently("the manager to be ready", async || remote.get::<Page<AgentView>>("/v1/agents").await.ok()).await?;
    Ok(remote)
}

/// Repeats a request until it succeeds or times out.
async fn patiently<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("waited too long for {what}"))
}

async fn show(args: &DemoArgs, dir: &Path, manager: &str, remote: &Remote) -> anyhow::Result<()> {
    say("A manager on a fresh SQLite ledger, one agent beside it. Policies:");
    let policies: Vec<Value> = serde_json::from_str(POLICIES)?;
    for document in &policies {
        let policy = Policy::parse(document, Catalogue::built_in());
        let Ok(Policy { name, note, .. }) = policy else { bail!("a policy of the demo has faults: {policy:?}") };
        let _: PolicyView = remote.post("/v1/policies", document).await?;
        say(&format!("  {name:24} {note}"));
    }
    let mut agent = start_agent(args, dir, manager, remote).await?;
    let doing =
        if args.enforce { "executes commands on this host" } else { "only observes (--enforce executes commands)" };
    say(&format!("Agent {AGENT_NAME} {doing}.\n"));
    let mut timeline = Timeline::new(remote).await?;
    let alerts: Vec<SampleAlert> = serde_json::from_str(ALERTS)?;
    for (number, alert) in alerts.into_iter().enumerate() {
        hand_in(remote, number, alert).await?;
        timeline.follow(PACE).await?;
    }
    let (rest, over) = if args.enforce {
        ("Every block is lifted when its time is up:", "Every block is lifted.")
    } else {
        (
            "Nothing is blocked, because the agent only observes; every response ends when its time is up:",
            "Every response is over.",
        )
    };
    say(&format!("\nNo more alerts. {rest}\n"));
    patiently("the last block to be lifted", async || {
        timeline.follow(LOOK).await.ok()?;
        let effects: Page<EffectRow> = remote.get("/v1/effects?limit=500").await.ok()?;
        let is_over = |effect: &EffectRow| effect.desired == Desired::Absent && effect.actual == Actual::Absent;
        effects.items.iter().all(is_over).then_some(())
    })
    .await?;
    let AuditProof { entries, intact, .. } = remote.get("/v1/audit/verify").await?;
    say(&format!("\n{over} The audit log holds {entries} entries, its chain is intact: {intact}."));
    say("Next: make run, then docs/tutorial.md.");
    stop(&mut agent).await
}

async fn start_agent(args: &DemoArgs, dir: &Path, manager: &str, remote: &Remote) -> anyhow::Result<Child> {
    let beside = std::env::current_exe()?.with_file_name("riposte-agent");
    let program = args.agent.clone().unwrap_or(beside);
    let labels = [("env", "demo"), ("wazuh_id", "001")].map(|(key, value)| (key.to_owned(), value.into()));
    let asked = CreateToken { labels: labels.into_iter().collect(), uses: 1, expires_in: TOKEN_LASTS.parse()? };
    let created: CreatedToken = remote.post("/v1/enrollment-tokens", &asked).await?;
    let token = created.token.context("the manager returned no token")?;
    let state = dir.join("agent");
    let mut enroll = Command::new(&program);
    enroll.args(["enroll", "--manager", manager, "--name", AGENT_NAME, "--state-dir"]).arg(&state);
    // The token is secret: the environment is not visible to other users.
    enroll.env("RIPOSTE_TOKEN", token).stdin(Stdio::null());
    let output = enroll.output().await;
    let output =
        output.with_context(|| format!("cannot run {}: build the whole workspace first", program.display()))?;
    if !output.status.success() {
        bail!("the agent could not enrol: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut run = Command::new(&program);
    run.arg("run").arg("--state-dir").arg(&state).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    if !args.enforce {
        run.arg("--observe");
    }
    if std::env::var_os("RIPOSTE_LOG").is_none() {
        run.stderr(Stdio::null());
    }
    let child = run.spawn().context("the agent does not start")?;
    patiently("the agent to connect", async || {
        let agents: Page<AgentView> = remote.get("/v1/agents").await.ok()?;
        agents.items.first().filter(|agent| agent.streaming).map(drop)
    })
    .await?;
    Ok(child)
}

async fn stop(agent: &mut Child) -> anyhow::Result<()> {
    agent.start_kill().context("the agent cannot be stopped")?;
    agent.wait().await?;
    Ok(())
}

/// A sample alert: what is printed of it, and the rest as it is.
#[derive(Debug, Serialize, Deserialize)]
struct SampleAlert {
    rule: SampleRule,
    agent: SampleAgent,
    data: SampleData,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SampleRule {
    id: String,
    level: u8,
    description: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SampleAgent {
    id: String,
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct SampleData {
    #[serde(skip_serializing_if = "Option::is_none")]
    srcip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dstuser: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A sample alert as a Wazuh manager would send it at this time.
#[derive(Debug, Serialize)]
struct SentAlert {
    timestamp: Timestamp,
    id: String,
    manager: SendingManager,
    #[serde(flatten)]
    sample: SampleAlert,
}

#[derive(Debug, Serialize)]
struct SendingManager {
    name: &'static str,
}

impl SentAlert {
    fn new(sample: SampleAlert, number: usize, timestamp: Timestamp) -> Self {
        let id = format!("{}.{number}", timestamp.as_secs());
        Self { timestamp, id, manager: SendingManager { name: "demo" }, sample }
    }
}

async fn hand_in(remote: &Remote, number: usize, sample: SampleAlert) -> anyhow::Result<()> {
    let SampleAlert { rule, agent, data, .. } = &sample;
    let aim = data.srcip.as_ref().or(data.dstuser.as_ref()).map(String::as_str).unwrap_or_default();
    let SampleRule { id, level, description, .. } = rule;
    print_line("ALERT", &format!("rule {id} level {level}: {description} ({aim}, {})", agent.name));
    let sent = SentAlert::new(sample, number, Clock::system().now());
    let _: Intake = remote.post("/v1/alerts", &sent).await?;
    Ok(())
}

/// Prints audit entries once each, oldest first.
struct Timeline<'a> {
    remote: &'a Remote,
    seen: i64,
}

impl<'a> Timeline<'a> {
    async fn new(remote: &'a Remote) -> anyhow::Result<Self> {
        let newest: Page<AuditRow> = remote.get("/v1/audit?limit=1").await?;
        Ok(Self { remote, seen: newest.items.first().map_or(0, |entry| entry.seq) })
    }

    async fn follow(&mut self, during: Duration) -> anyhow::Result<()> {
        let clock = Clock::system();
        let end = clock.now().plus(during);
        while clock.now() < end {
            tokio::time::sleep(LOOK).await;
            let page: Page<AuditRow> = self.remote.get("/v1/audit?limit=500").await?;
            for entry in page.items.iter().rev().filter(|entry| entry.seq > self.seen) {
                show_entry(entry);
            }
            self.seen = page.items.first().map_or(self.seen, |entry| entry.seq);
        }
        Ok(())
    }
}

fn show_entry(entry: &AuditRow) {
    let AuditRow { at, actor, verb, noun, detail, .. } = entry;
    let at = at.to_string();
    let print_line = |word: &str, rest: &str| print_at(&at, word, rest);
    let first_line = detail.lines().next().unwrap_or_default();
    let by = match Actor::parse(actor) {
        Some(Actor::Policy(name)) => name,
        _ => String::new(),
    };
    match AuditEvent::parse(noun, verb) {
        Some(AuditEvent::ResponseCreated) => print_line("  decided", &format!("{by}: {}", before_alert(first_line))),
        Some(AuditEvent::ResponseObserved) => print_line("  observed", &format!("{by}: {}", before_alert(first_line))),
        Some(AuditEvent::ResponseSpared) => {
            let why = first_line.rsplit_once(": ").map_or("", |(_, why)| why);
            print_line("  spared", &format!("{by}: {}: {why}", before_alert(first_line)));
        }
        Some(AuditEvent::ResponseEnded) => print_line("  over", first_line),
        Some(AuditEvent::CommandQueued) => print_line("    queued", first_line),
        Some(AuditEvent::CommandAcknowledged) => print_line("    taken", "the agent has it in its journal"),
        _ if noun == "command" => print_line(&format!("    {verb}"), first_line),
        _ => {}
    }
}

/// Cuts ids off: the alert is printed above.
fn before_alert(detail: &str) -> &str {
    detail.split(", alert ").next().unwrap_or(detail)
}

fn print_line(word: &str, rest: &str) {
    print_at(&Clock::system().now().to_string(), word, rest);
}

fn print_at(at: &str, word: &str, rest: &str) {
    // 2026-11-24T10:00:00.123Z: print only the time of day.
    let time = at.get(11..23).unwrap_or(at);
    say(&format!("{time}  {word:14} {rest}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::formats::{self, AlertMappings};

    #[test]
    fn the_demos_policies_and_alerts_are_valid() {
        for policy in serde_json::from_str::<Vec<Value>>(POLICIES).unwrap() {
            let policy = Policy::parse(&policy, Catalogue::built_in()).unwrap();
            assert!(policy.warnings().is_empty() && !policy.note.is_empty(), "{}", policy.name);
        }
        for sample in serde_json::from_str::<Vec<SampleAlert>>(ALERTS).unwrap() {
            let sent = SentAlert::new(sample, 1, Timestamp::from_millis(0));
            formats::parse(&serde_json::to_string(&sent).unwrap(), &AlertMappings::default(), None).unwrap();
        }
    }
}
