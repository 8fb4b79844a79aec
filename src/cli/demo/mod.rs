//! `riposte demo`: the real manager on a fresh ledger, the real agent, sample policies and alerts,
//! and a timeline of decisions, commands, results and reverts. The timeline is read from the audit
//! log through the public API.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::client::Remote;
use super::{keyfiles, say, serve};
use crate::clock::Clock;
use crate::config::Config;
use crate::shutdown::{Signals, Tasks};
use crate::telemetry::{self, LogFormat};

const POLICIES: &str = include_str!("policies.json");
const ALERTS: &str = include_str!("alerts.json");
const AGENT_NAME: &str = "demo-host";
/// Time between two alerts: slow enough to read along.
const PACE: Duration = Duration::from_millis(1500);
/// Polling interval of the audit log.
const LOOK: Duration = Duration::from_millis(200);
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
    patiently("the manager to be ready", async || remote.get("/v1/agents").await.ok()).await?;
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
    for policy in &policies {
        remote.post("/v1/policies", policy.clone()).await?;
        say(&format!("  {:24} {}", text(policy, "name"), text(policy, "note")));
    }
    let mut agent = start_agent(args, dir, manager, remote).await?;
    let doing =
        if args.enforce { "executes commands on this host" } else { "only observes (--enforce executes commands)" };
    say(&format!("Agent {AGENT_NAME} {doing}.\n"));
    let mut timeline = Timeline::new(remote).await?;
    let alerts: Vec<Value> = serde_json::from_str(ALERTS)?;
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
        let effects = remote.get("/v1/effects?limit=500").await.ok()?;
        let items = effects["items"].as_array()?.clone();
        items.iter().all(|effect| effect["desired"] == "absent" && effect["actual"] == "absent").then_some(())
    })
    .await?;
    let proof = remote.get("/v1/audit/verify").await?;
    say(&format!(
        "\n{over} The audit log holds {} entries, its chain is intact: {}.",
        proof["entries"], proof["intact"]
    ));
    say("Next: make run, then docs/getting-started.md.");
    stop(&mut agent).await
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

async fn start_agent(args: &DemoArgs, dir: &Path, manager: &str, remote: &Remote) -> anyhow::Result<Child> {
    let beside = std::env::current_exe()?.with_file_name("riposte-agent");
    let program = args.agent.clone().unwrap_or(beside);
    let token = remote.post("/v1/enrollment-tokens", json!({"labels": {"env": "demo", "wazuh_id": "001"}})).await?;
    let state = dir.join("agent");
    let mut enroll = Command::new(&program);
    enroll.args(["enroll", "--manager", manager, "--name", AGENT_NAME, "--state-dir"]).arg(&state);
    // The token is secret: the environment is not visible to other users.
    enroll.env("RIPOSTE_TOKEN", text(&token, "token")).stdin(Stdio::null());
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
        let agents = remote.get("/v1/agents").await.ok()?;
        (agents["items"][0]["streaming"] == true).then_some(())
    })
    .await?;
    Ok(child)
}

async fn stop(agent: &mut Child) -> anyhow::Result<()> {
    agent.start_kill().context("the agent cannot be stopped")?;
    agent.wait().await?;
    Ok(())
}

async fn hand_in(remote: &Remote, number: usize, mut alert: Value) -> anyhow::Result<()> {
    let now = Clock::system().now();
    alert["timestamp"] = json!(now);
    alert["id"] = json!(format!("{}.{number}", now.as_secs()));
    alert["manager"] = json!({"name": "demo"});
    let (rule, agent, data) = (&alert["rule"], &alert["agent"], &alert["data"]);
    let aim = ["srcip", "dstuser"].into_iter().find_map(|key| data[key].as_str()).unwrap_or_default();
    let line = format!(
        "rule {} level {}: {} ({aim}, {})",
        text(rule, "id"),
        rule["level"],
        text(rule, "description"),
        text(agent, "name")
    );
    print_line("ALERT", &line);
    remote.post("/v1/alerts", alert).await?;
    Ok(())
}

/// Prints audit entries once each, oldest first.
struct Timeline<'a> {
    remote: &'a Remote,
    seen: i64,
}

impl<'a> Timeline<'a> {
    async fn new(remote: &'a Remote) -> anyhow::Result<Self> {
        let newest = remote.get("/v1/audit?limit=1").await?;
        Ok(Self { remote, seen: newest["items"][0]["seq"].as_i64().unwrap_or(0) })
    }

    async fn follow(&mut self, during: Duration) -> anyhow::Result<()> {
        let clock = Clock::system();
        let end = clock.now().plus(during);
        while clock.now() < end {
            tokio::time::sleep(LOOK).await;
            let page = self.remote.get("/v1/audit?limit=500").await?;
            let entries = page["items"].as_array().cloned().unwrap_or_default();
            for entry in entries.iter().rev().filter(|entry| entry["seq"].as_i64().unwrap_or(0) > self.seen) {
                show_entry(entry);
            }
            self.seen = entries.first().and_then(|entry| entry["seq"].as_i64()).unwrap_or(self.seen);
        }
        Ok(())
    }
}

fn show_entry(entry: &Value) {
    let print_line = |word: &str, rest: &str| print_at(text(entry, "at"), word, rest);
    let detail = text(entry, "detail");
    let first_line = detail.lines().next().unwrap_or_default();
    let by = text(entry, "actor").strip_prefix("policy:").unwrap_or_default();
    match (text(entry, "noun"), text(entry, "verb")) {
        ("response", "created") => print_line("  decided", &format!("{by}: {}", before_alert(first_line))),
        ("response", "observed") => print_line("  observed", &format!("{by}: {}", before_alert(first_line))),
        ("response", "spared") => {
            let why = first_line.rsplit_once(": ").map_or("", |(_, why)| why);
            print_line("  spared", &format!("{by}: {}: {why}", before_alert(first_line)));
        }
        ("response", "ended") => print_line("  over", first_line),
        ("command", "queued") => print_line("    queued", first_line),
        ("command", "acknowledged") => print_line("    taken", "the agent has it in its journal"),
        ("command", verb) => print_line(&format!("    {verb}"), first_line),
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
    use crate::domain::formats;
    use crate::domain::policy::Policy;

    #[test]
    fn the_demos_policies_and_alerts_are_valid() {
        for policy in serde_json::from_str::<Vec<Value>>(POLICIES).unwrap() {
            let policy = Policy::parse(&policy, crate::domain::action::Catalogue::built_in()).unwrap();
            assert!(policy.warnings().is_empty() && !policy.note.is_empty(), "{}", policy.name);
        }
        for mut sample in serde_json::from_str::<Vec<Value>>(ALERTS).unwrap() {
            sample["timestamp"] = json!("2026-11-24T10:00:00.000Z");
            sample["id"] = json!("1");
            formats::parse(&sample.to_string(), &crate::domain::formats::ObservableMappings::default()).unwrap();
        }
    }
}
