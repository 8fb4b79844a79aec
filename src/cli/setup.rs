//! `riposte setup wazuh`, on a Wazuh manager: its active responses as policies that only observe, a key and the settings for the
//! forwarder, and the line that enrols the hosts. Each step says what it did; a second run changes nothing that is there.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use super::client::Remote;
use super::output::{complain, say};
use super::policy;
use super::policy::plan::many;
use super::terminal::{can_ask, is_confirmed, needs_yes, plain};
use crate::domain::api_key;
use crate::domain::duration::Span;
use crate::domain::principal::Role;
use crate::host;
use crate::views::agents::{CreateToken, CreatedToken};
use crate::views::keys::{CreateKey, CreatedKey, KeyKind};

/// The unit of the forwarder's package.
const UNIT: &str = "riposte-forward.service";

/// Sets up.
#[derive(Debug, Subcommand)]
pub enum SetupCommand {
    /// On a Wazuh manager: import its active responses, set up the forwarder, and print how hosts are enrolled.
    Wazuh(Box<WazuhSetup>),
}

/// Arguments of `riposte setup wazuh`.
#[derive(Debug, Args)]
pub struct WazuhSetup {
    #[command(flatten)]
    remote: Remote,
    /// Folder of Wazuh.
    #[arg(long, value_name = "DIR", default_value = "/var/ossec")]
    wazuh_dir: PathBuf,
    /// Folder for the forwarder's key and settings.
    #[arg(long, value_name = "DIR", default_value = "/etc/riposte")]
    config_dir: PathBuf,
    /// Hosts that the enrolment token is for; by default as many as Wazuh has agents.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hosts: Option<u32>,
    /// Validity of the enrolment token.
    #[arg(long, default_value = "24h")]
    expires_in: Span,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

/// Runs a subcommand.
///
/// # Errors
/// If Wazuh is not there, the manager refuses, or a file cannot be written.
pub async fn run(command: SetupCommand) -> anyhow::Result<ExitCode> {
    match command {
        SetupCommand::Wazuh(args) => wazuh(*args).await,
    }
}

async fn wazuh(args: WazuhSetup) -> anyhow::Result<ExitCode> {
    // The forwarder runs elsewhere.
    let wazuh_dir = std::path::absolute(&args.wazuh_dir)?;
    let found = Wazuh::find(&wazuh_dir)?;
    let (manager, ca) = args.remote.place()?;
    let hosts = args.hosts.unwrap_or(found.agents.max(1));
    say(&plain(&format!(
        "Wazuh in {}: {}. Riposte at {manager}.",
        args.wazuh_dir.display(),
        many(found.agents as usize, "agent")
    )));
    if args.dry_run {
        say("1. would import the active responses as policies that only observe:");
        let imported = policy::import_to_observe(args.remote.clone(), found.configuration, true).await?;
        say(&plain(&format!("2. would write {}", args.config_dir.join("forward.key").display())));
        say(&plain(&format!("3. would write {}, and start {UNIT}", args.config_dir.join("forward.env").display())));
        say(&format!("4. would make an enrolment token for {}", many(hosts as usize, "host")));
        return Ok(imported);
    }
    if !args.yes {
        if !can_ask() {
            return Ok(needs_yes("setup wazuh"));
        }
        if !is_confirmed("Import in observe mode, set up the forwarder, and make an enrolment token?") {
            return Ok(ExitCode::FAILURE);
        }
    }
    say("1. active responses, as policies that only observe:");
    let imported = policy::import_to_observe(args.remote.clone(), found.configuration, false).await?;
    forwarder(&args, &manager, ca.as_deref(), &found.alerts).await?;
    enrolment(&args.remote, &manager, hosts, args.expires_in).await?;
    say(
        "Then: `riposte agent list`, `riposte response list`, and `riposte policy mode NAME enforce` for what convinces you.",
    );
    if imported != ExitCode::SUCCESS {
        complain("riposte: not every active response became a policy: see 1.");
    }
    Ok(imported)
}

/// A Wazuh manager on this host.
struct Wazuh {
    configuration: PathBuf,
    alerts: PathBuf,
    agents: u32,
}

impl Wazuh {
    fn find(dir: &Path) -> anyhow::Result<Self> {
        let (configuration, alerts) = (dir.join("etc/ossec.conf"), dir.join("logs/alerts/alerts.json"));
        ensure!(
            configuration.is_file() && alerts.parent().is_some_and(Path::is_dir),
            "there is no Wazuh manager in {}: run this on the Wazuh manager, or give its folder with --wazuh-dir",
            dir.display()
        );
        // Only counted: each line holds the key of an agent. One that was removed begins with a sign.
        let lines = fs::read_to_string(dir.join("etc/client.keys")).unwrap_or_default();
        let is_agent = |line: &&str| line.split(' ').nth(1).is_some_and(|name| !name.starts_with(['!', '#']));
        let agents = lines.lines().filter(is_agent).count();
        Ok(Self { configuration, alerts, agents: u32::try_from(agents).unwrap_or(u32::MAX) })
    }
}

/// The forwarder's key and settings, and its unit.
async fn forwarder(args: &WazuhSetup, manager: &str, ca: Option<&Path>, alerts: &Path) -> anyhow::Result<()> {
    let (key, settings) = (args.config_dir.join("forward.key"), args.config_dir.join("forward.env"));
    fs::create_dir_all(&args.config_dir).with_context(|| format!("cannot create {}", args.config_dir.display()))?;
    let known = fs::read_to_string(&key).ok().is_some_and(|text| api_key::form_fault(text.trim()).is_none());
    if known {
        say(&plain(&format!("2. key of the forwarder: {} is there already", key.display())));
    } else {
        let name = format!("forwarder on {}", host::name().as_deref().unwrap_or("the Wazuh manager"));
        let asked = CreateKey {
            name,
            kind: KeyKind::Service,
            role: Role::Ingest,
            pipeline: Some("wazuh".to_owned()),
            expires_in: None,
            webhook: false,
            certificate: None,
            scope: None,
        };
        let made: CreatedKey = args.remote.post("/v1/api-keys", &asked).await?;
        write_new(&key, 0o600, &format!("{}\n", made.key.context("the manager returned no key")?))?;
        say(&plain(&format!("2. key of the forwarder: written to {}", key.display())));
    }
    let mut values = vec![("RIPOSTE_MANAGER", manager.to_owned()), ("RIPOSTE_ALERTS", alerts.display().to_string())];
    if let Some(ca) = ca {
        values.push(("RIPOSTE_CA", fs::canonicalize(ca)?.display().to_string()));
    }
    let before = fs::read_to_string(&settings).unwrap_or_default();
    let after = with_settings(&before, &values);
    if before == after {
        say(&plain(&format!("3. settings of the forwarder: {} is right already", settings.display())));
    } else {
        write_new(&settings, 0o600, &after)?;
        say(&plain(&format!("3. settings of the forwarder: written to {}", settings.display())));
    }
    if started() {
        say(&format!("   {UNIT} runs"));
    } else {
        complain(&plain(&format!(
            "   {UNIT} could not be started here; by hand: riposte forward --manager {manager} --alerts {} --key-file {}",
            alerts.display(),
            key.display()
        )));
    }
    Ok(())
}

/// Settings as `NAME=value` lines with these values; other lines stay.
fn with_settings(before: &str, values: &[(&str, String)]) -> String {
    let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
    for (name, value) in values {
        let line = format!("{name}={value}");
        match lines.iter_mut().find(|line| line.split_once('=').is_some_and(|(key, _)| key.trim() == *name)) {
            Some(known) => *known = line,
            None => lines.push(line),
        }
    }
    lines.join("\n") + "\n"
}

/// Starts the unit of the forwarder, if it is installed.
fn started() -> bool {
    let systemctl = |verb: &[&str]| {
        let mut command = Command::new("systemctl");
        command.args(verb).arg(UNIT).stdin(std::process::Stdio::null());
        command.output().is_ok_and(|output| output.status.success())
    };
    systemctl(&["cat"]) && systemctl(&["enable", "--now"]) && systemctl(&["is-active"])
}

/// A token for all hosts, and the line to run on each.
async fn enrolment(remote: &Remote, manager: &str, hosts: u32, expires_in: Span) -> anyhow::Result<()> {
    let body = CreateToken { labels: serde_json::Map::new(), uses: hosts.into(), expires_in };
    let made: CreatedToken = remote.post("/v1/enrollment-tokens", &body).await?;
    let token = made.token.context("the manager returned no token")?;
    say(&plain(&format!(
        "4. an enrolment token for {}, valid until {}. On each, with the agent's package, as root:",
        many(hosts as usize, "host"),
        made.expires_at
    )));
    say("");
    say(&plain(&format!(
        "   echo {token} | riposte-agent enroll --manager {manager} --token-file - --state-dir /var/lib/riposte-agent && systemctl enable --now riposte-agent"
    )));
    say("");
    if is_loopback(manager) {
        complain(&plain(&format!(
            "   other hosts cannot reach {manager}, which is this host's own address: give the manager a certificate (`riposte tls self-signed`), then run this again with --manager https://NAME:8480"
        )));
    }
    Ok(())
}

/// Whether a URL leads to this host alone.
fn is_loopback(manager: &str) -> bool {
    let url = reqwest::Url::parse(manager).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let place = || format!("cannot write {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).with_context(place)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_replaced_where_they_stand_and_others_stay() {
        let before = "# A comment with = in it\nRIPOSTE_MANAGER=http://127.0.0.1:8480\nRIPOSTE_LOG=debug\n";
        let values = [("RIPOSTE_MANAGER", "https://m:8480".to_owned()), ("RIPOSTE_CA", "/ca.pem".to_owned())];
        let after = with_settings(before, &values);
        let told = "# A comment with = in it\nRIPOSTE_MANAGER=https://m:8480\nRIPOSTE_LOG=debug\nRIPOSTE_CA=/ca.pem\n";
        assert_eq!(after, told);
        assert_eq!(with_settings(&after, &values), after);
    }

    #[test]
    fn a_line_that_other_hosts_cannot_use_is_recognised() {
        for own in ["http://127.0.0.1:8480", "http://[::1]:8480", "https://localhost"] {
            assert!(is_loopback(own), "{own}");
        }
        for reachable in ["https://riposte.example.org:8480", "https://10.0.0.5:8480", "https://[2001:db8::5]"] {
            assert!(!is_loopback(reachable), "{reachable}");
        }
    }
}
