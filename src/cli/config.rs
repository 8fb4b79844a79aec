//! `riposte config check`: every fault of a configuration, with file and line, before a manager is
//! started with it. The checks are those of `serve`; nothing is created, and no host is called.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::output::{complain, say};
use super::passphrase::Passphrase;
use super::terminal::{plain, plain_lines};
use super::{otlp, serve, sign_on};
use crate::api::front::tls::{Tls, TlsFiles};
use crate::clock::Clock;
use crate::config::{Config, ConfigFile, ConfigFlags};
use crate::domain::duration::Span;
use crate::domain::egress::allow_list::AllowList;
use crate::domain::formats::AlertMappings;
use crate::domain::policy::MaxAge;
use crate::engine::agent_keys;
use crate::engine::egress::rules::Egress;

/// Subcommands of `riposte config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration before a start: every fault with file and line; exit code 0 if a
    /// manager would start with it, 1 if not.
    Check(Box<ConfigCheck>),
}

/// Flags of `riposte config check`; they and their variables count as for `riposte serve`.
#[derive(Debug, Args)]
pub struct ConfigCheck {
    /// Configuration file (TOML); see config.default.toml.
    #[arg(long, env = "RIPOSTE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Runs a subcommand.
///
/// # Errors
/// If the file cannot be read.
pub fn run(command: ConfigCommand) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Check(args) = command;
    let ConfigCheck { config: path, flags } = *args;
    let text = path.as_deref().map(read).transpose()?.unwrap_or_default();
    let file = ConfigFile::read(&text);
    let name = path.as_ref().map_or_else(|| "the configuration".to_owned(), |path| path.display().to_string());
    let place = |line: Option<usize>| line.map_or_else(|| name.clone(), |line| format!("{name}:{line}"));
    for (line, key, section) in file.misplaced() {
        complain(&plain(&format!("{}: warning: {key} belongs into [{section}] now", place(Some(line)))));
    }
    let mut told: Vec<(Option<usize>, String)> =
        file.faults.iter().map(|fault| (fault.line, format!("{}: {}", place(fault.line), fault.message))).collect();
    let of_file: BTreeSet<Problem> = problems(&file.config).into_iter().collect();
    let config = file.config.clone().with_flags(flags);
    for problem in problems(&config) {
        // What the file does not cause, a flag or a variable does.
        let line = file.line(&problem.key).filter(|_| of_file.contains(&problem));
        let from = if of_file.contains(&problem) { place(line) } else { "flags and variables".to_owned() };
        told.push((line, format!("{from}: {}", problem.why)));
    }
    told.sort_by_key(|(line, _)| line.unwrap_or(usize::MAX));
    if told.is_empty() {
        say(&plain(&format!("{name} is valid: {}", in_force(&config))));
        return Ok(ExitCode::SUCCESS);
    }
    for (_, line) in &told {
        complain(&plain_lines(line));
    }
    complain(&format!(
        "riposte: {} in {}",
        if told.len() == 1 { "1 fault".into() } else { format!("{} faults", told.len()) },
        plain(&name)
    ));
    Ok(ExitCode::FAILURE)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A value that a manager would refuse at its start, and its key.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    key: String,
    why: String,
}

/// Everything that `serve` refuses before it opens the ledger.
fn problems(config: &Config) -> Vec<Problem> {
    let mut found: Vec<Problem> =
        config.faults().into_iter().map(|(key, error)| Problem { key, why: error.to_string() }).collect();
    let refused: BTreeSet<String> = found.iter().map(|problem| problem.key.clone()).collect();
    let mut problem = |key: &str, why: String| found.push(Problem { key: key.to_owned(), why });
    if let Err(faults) = AlertMappings::read(&config.observables, &config.pipelines) {
        for fault in faults {
            let key = fault.pointer.trim_start_matches('/').replace('/', ".");
            let (section, name) = key.split_once('.').unwrap_or((&key, ""));
            problem(&key, format!("{section}: {name} {}", fault.detail));
        }
    }
    if let Err(error) = config.alerts.max_age.parse::<MaxAge>() {
        problem("alerts.max_age", format!("max_age {error}, or none"));
    }
    if let Err(error) = config.responses.second_person_within.parse::<Span>() {
        problem("responses.second_person_within", format!("second_person_within {error}"));
    }
    if let Err(error) = agent_keys::max_age(&config.server.agent_key_max_age) {
        problem("server.agent_key_max_age", format!("agent_key_max_age {error}, or none"));
    }
    let egress = match AllowList::parse(&config.egress.allow) {
        Ok(list) => Egress::new(list),
        Err(error) => {
            problem("egress.allow", format!("allow: {error}"));
            Egress::new(AllowList::default())
        }
    };
    if let Err(error) = Passphrase::of(&config.server.key_passphrase_file) {
        problem("server.key_passphrase_file", format!("key_passphrase_file: {error:#}"));
    }
    if let Some(files) = TlsFiles::of(&config.server)
        && let Err(error) = Tls::load(files, Clock::system())
    {
        problem("server.tls_cert", format!("{:#}", anyhow::Error::from(error)));
    }
    if let Ok(places) = config.checkpoint_places()
        && let Some(place) = &places.webhook
        && let Err(error) = serve::webhook(place, &egress)
    {
        problem("audit.audit_checkpoint_webhook_secret_file", format!("{error:#}"));
    }
    let is_refused = refused.iter().any(|refused| refused.starts_with("telemetry."));
    if let Err(error) = otlp::interval(config) {
        problem("telemetry.otlp_interval", format!("{error:#}"));
    } else if !is_refused && let Err(error) = otlp::exporter(config, &egress) {
        let has_file = !config.telemetry.otlp_headers_file.as_os_str().is_empty();
        let key = if has_file { "telemetry.otlp_headers_file" } else { "telemetry.otlp_endpoint" };
        problem(key, format!("{error:#}"));
    }
    for (index, provider) in config.oidc.iter().enumerate() {
        let key = format!("oidc.{index}");
        if refused.iter().any(|refused| refused.starts_with(&format!("{key}."))) {
            continue;
        }
        let alone = Config { oidc: vec![provider.clone()], ..config.clone() };
        if let Err(error) = sign_on::providers(&alone, &egress, config.server.listen) {
            problem(&key, format!("{error:#}"));
        }
    }
    found
}

/// What the configuration comes to, without anything secret.
fn in_force(config: &Config) -> String {
    let scheme = if config.server.tls_cert.as_os_str().is_empty() { "http" } else { "https" };
    let days = match config.alerts.alert_retention_days {
        0 => "for ever".to_owned(),
        days => format!("{days} days"),
    };
    let changed = match config.changed().as_slice() {
        [] => "every key has its default".to_owned(),
        keys => format!("not at their defaults: {}", keys.join(", ")),
    };
    format!(
        "listens on {scheme}://{}, keys in {}, ledger {}, alerts kept {days}; {changed}",
        config.server.listen,
        config.server.data_dir.display(),
        without_account(&config.database())
    )
}

/// A database URL without its account and its parameters: both can hold a password.
fn without_account(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split('?').next().unwrap_or_default();
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_database_is_shown() {
        let shown = without_account("postgres://riposte:p@ss/word@db.example.org:5432/riposte?password=secret");
        assert_eq!(shown, "postgres://db.example.org:5432/riposte");
        assert_eq!(without_account("sqlite:data/riposte.db"), "sqlite:data/riposte.db");
    }
}
