//! `riposte-agent config check`: every fault of the local policy and of the settings of the service, with
//! file and line, before the agent is started with them. Nothing is changed, and no host is called.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::builder::{BoolishValueParser, TypedValueParser as _};
use clap::{Arg, ArgAction, Args, Command, Subcommand};
use tracing_subscriber::EnvFilter;

use super::arguments::{PlainHttp, PolicyFile, StateDir};
use crate::actions;
use crate::identity::{Identity, IdentityError};
use crate::local_policy::PolicyCheck;
use crate::telemetry::chain;

/// Subcommands of `riposte-agent config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigOrder {
    /// Check before a start: every fault with file and line; exit code 0 if the agent would start
    Check(CheckArguments),
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    state: StateDir,
    #[command(flatten)]
    policy: PolicyFile,
    #[command(flatten)]
    plain: PlainHttp,
    /// The settings of the service, NAME=value a line, such as `/etc/riposte/agent.env`; need not exist
    #[arg(long, value_name = "FILE")]
    environment: Option<PathBuf>,
}

/// What a file of settings says.
#[derive(Debug, Default)]
struct Settings {
    policy: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    plain_http: bool,
}

/// Runs a subcommand. `command` is the command line, which knows every variable.
///
/// # Errors
/// If anything is wrong; each fault was printed.
pub(super) fn run(order: ConfigOrder, command: &Command) -> anyhow::Result<()> {
    let ConfigOrder::Check(CheckArguments { state, policy, plain, environment }) = order;
    let mut told = Vec::new();
    let mut settings = Settings::default();
    if let Some(path) = &environment {
        match std::fs::read_to_string(path) {
            Ok(text) => settings = read_settings(path, &text, command, &mut told),
            // As the unit, whose file is optional.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    let state_dir = settings.state_dir.unwrap_or(state.path);
    let file = policy.file.or(settings.policy);
    let names: Vec<&str> = actions::ALL.iter().map(|action| action.name()).collect();
    let checked = PolicyCheck::of(file.as_deref(), &state_dir, &names);
    let rules = match checked {
        Ok(PolicyCheck { path, faults }) => {
            let name = path.map_or_else(|| "the default local policy".to_owned(), |path| path.display().to_string());
            for fault in faults {
                let place = fault.line.map_or_else(|| name.clone(), |line| format!("{name}:{line}"));
                told.push(format!("{place}: {}", fault.message));
            }
            name
        }
        Err(error) => {
            told.push(chain(&error));
            String::new()
        }
    };
    match Identity::load(&state_dir) {
        Ok(identity) => {
            let is_allowed = plain.insecure_http || settings.plain_http;
            told.extend(identity.enrolment.check_transport(is_allowed).err().map(|error| error.to_string()));
        }
        Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => told.push(chain(&error)),
    }
    match told.as_slice() {
        [] => {
            writeln!(std::io::stdout().lock(), "the agent would start with {}", plain_line(&rules))?;
            Ok(())
        }
        faults => {
            for fault in faults {
                writeln!(std::io::stderr().lock(), "{}", plain_line(fault))?;
            }
            bail!("{}", if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) })
        }
    }
}

/// A line of a file is shown as it is, but for what would write on the terminal.
fn plain_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// Reads settings as systemd does: the last line of a name counts.
fn read_settings(path: &Path, text: &str, command: &Command, told: &mut Vec<String>) -> Settings {
    let variables: Vec<(&str, &Arg)> = command
        .get_subcommands()
        .chain([command])
        .flat_map(Command::get_arguments)
        .filter_map(|argument| Some((argument.get_env()?.to_str()?, argument)))
        .collect();
    let mut settings = Settings::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let mut wrong = |why: String| told.push(format!("{}:{}: {why}", path.display(), index + 1));
        let Some((name, value)) = line.split_once('=') else {
            wrong(format!("{line:?} is not NAME=value"));
            continue;
        };
        if name.is_empty() || !name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_') {
            wrong(format!("{name:?} is no name of a variable: it is NAME=value, without spaces around \"=\""));
            continue;
        }
        let value = unquoted(value);
        let known = variables.iter().find(|(known, _)| *known == name).map(|(_, argument)| *argument);
        let fault = match known {
            Some(argument) => fault_of(argument, value),
            None if name == "RIPOSTE_LOG" => EnvFilter::try_new(value).err().map(|error| error.to_string()),
            None if name.starts_with("RIPOSTE_") => {
                let names = variables.iter().map(|(known, _)| *known);
                let meant = riposte_protocol::words::nearest(name, names);
                Some(format!(
                    "there is no such variable{}",
                    meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"))
                ))
            }
            None => None,
        };
        match fault {
            Some(why) => wrong(format!("{name}: {why}")),
            None if name == "RIPOSTE_POLICY" => settings.policy = Some(value.into()),
            None if name == "RIPOSTE_STATE_DIR" => settings.state_dir = Some(value.into()),
            None if name == "RIPOSTE_INSECURE_HTTP" => settings.plain_http = is_true(value).unwrap_or_default(),
            None => {}
        }
    }
    settings
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> &str {
    let inner = |mark: char| value.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

fn is_true(value: &str) -> Option<bool> {
    BoolishValueParser::new().parse_ref(&Command::new(""), None, value.as_ref()).ok()
}

/// Why a value is none of an argument.
fn fault_of(argument: &Arg, value: &str) -> Option<String> {
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return is_true(value).is_none().then(|| format!("{value:?} is neither true nor false"));
    }
    if value.is_empty() {
        return Some("the value is empty: leave the line out".to_owned());
    }
    let possible = argument.get_possible_values();
    if possible.is_empty() || possible.iter().any(|known| known.matches(value, false)) {
        return None;
    }
    let words: Vec<&str> = possible.iter().map(clap::builder::PossibleValue::get_name).collect();
    Some(format!("{value:?} is none of {}", words.join(", ")))
}
