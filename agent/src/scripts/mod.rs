//! Custom actions: programs of one folder, `active-response/bin` below Wazuh's home or another.
//! They run as under Wazuh's execd, so existing scripts need no change, but they cannot hang the
//! agent. The manager names a file of that folder, never a path. The host's administrator decides
//! what is in it.

mod keys;
mod message;
mod order;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use riposte_protocol::command::{Op, Script, ScriptStyle};
use riposte_protocol::message::Capability;
use serde_json::{Value, json};

pub use self::keys::KeyBook;
use crate::actions::{About, Action, ActionError, Attempt, Domain, Host, Step};
use crate::conventions::{FOLDER, PREFIX, verb};
use crate::platform::guarded;
use crate::runner::Program;

/// Limit of reported programs, and of their names' length. A manager accepts 256 capabilities of 64
/// bytes and refuses an agent with more. The number of files in a folder must not cause that.
const MAX_ADVERTISED: usize = 200;
const MAX_NAME_BYTES: usize = 57;

/// The lock domain of a custom program.
pub fn domain(script: &Script) -> Domain {
    format!("{PREFIX}{}", script.executable).into()
}

/// The programs that can be run here, as reported to the manager.
pub fn capabilities(host: &Host) -> Vec<Capability> {
    let Ok(entries) = std::fs::read_dir(host.scripts_dir()) else { return Vec::new() };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let runnable = names.into_iter().filter(|name| find(host, name).is_ok()).take(MAX_ADVERTISED);
    runnable.map(|name| Capability { action: format!("{PREFIX}{name}"), available: true, reason: None }).collect()
}

/// The path of the program of that name, if it may be run. It must be a plain, executable file of
/// the folder itself, without setuid or setgid. Only root and the agent's account may be able to
/// change it or any part of its path.
fn find(host: &Host, name: &str) -> Result<PathBuf, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
        return Err(format!(
            "'{}' is not the name of a program: letters, digits, '.', '_', '-', '+', 57 at most",
            escape(name)
        ));
    }
    let path = host.scripts_dir().join(name);
    let refused = |reason: String| format!("{} is not run: {reason}", path.display());
    let folder = guarded::folder(&host.scripts_dir()).map_err(|error| refused(error.to_string()))?;
    folder.require_sure().map_err(|error| refused(error.to_string()))?;
    let stat = folder.stat(name).map_err(|error| refused(error.to_string()))?;
    let stat = stat.ok_or_else(|| format!("{} cannot be run: there is no such file", path.display()))?;
    match guarded::fault_of_program(&stat, &path) {
        None => Ok(path),
        Some(reason) => Err(refused(reason)),
    }
}

fn escape(name: &str) -> String {
    name.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// The action that runs custom programs.
#[derive(Debug)]
pub struct CustomProgram;

/// The one instance, for all programs.
pub static SCRIPT: CustomProgram = CustomProgram;

impl Action for CustomProgram {
    fn about(&self) -> &About {
        const ABOUT: About = About {
            name: "script",
            summary: "Runs a program of the folder for custom programs as Wazuh does",
            networks: true,
            users: crate::actions::Users::Any,
            lock_domain: "script",
            looks: false,
            parameters: &[crate::actions::Parameter {
                form: crate::actions::Form::Text("EXTRA_ARG"),
                summary: "passed to the program as it is",
                repeated: true,
                ..crate::actions::Parameter::DEFAULT
            }],
            ..About::DEFAULT
        };
        &ABOUT
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        // Only an attempt knows its program.
        Ok(())
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        match attempt.script.map(|script| (script, find(attempt.host, &script.executable))) {
            Some((script, Ok(_))) => program(attempt, script, op).text(),
            Some((_, Err(reason))) => reason,
            None => "no program is named".into(),
        }
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async {
            let script = script(attempt)?;
            find(attempt.host, &script.executable).map_err(ActionError::Refused)?;
            // The program gets the same alert when it lifts the effect, without the manager's help.
            Ok(json!({ "alert": attempt.alert }))
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let script = script(attempt)?;
            let keys = run(attempt, script, Op::Apply).await?;
            if script.undoable {
                attempt.host.keys.hold(attempt.effect, &script.executable, keys).map_err(|error| unwritable(&error))?;
            }
            Ok(())
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // The stored keys show that the program has succeeded; nothing else can be checked.
        Box::pin(async { Ok(attempt.host.keys.knows(attempt.effect)) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let script = script(attempt)?;
            // Another effect has the same keys: the program runs when the last of them is lifted.
            if !attempt.host.keys.is_shared(attempt.effect) {
                run(attempt, script, Op::Revert).await?;
            }
            attempt.host.keys.release(attempt.effect).map_err(|error| unwritable(&error))
        })
    }

    fn is_lifted<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // The exit status is the only evidence.
        Box::pin(async { Ok(true) })
    }
}

fn script<'a>(attempt: &Attempt<'a>) -> Result<&'a Script, ActionError> {
    attempt.script.ok_or_else(|| ActionError::Refused("no program is named".into()))
}

fn unwritable(error: &std::io::Error) -> ActionError {
    ActionError::Failed(format!("the program's keys cannot be stored: {error}"))
}

/// Runs the program to its end; returns the keys of its question.
async fn run(attempt: &Attempt<'_>, script: &Script, op: Op) -> Result<Vec<String>, ActionError> {
    find(attempt.host, &script.executable).map_err(ActionError::Refused)?;
    let program = program(attempt, script, op);
    let mut keys: Vec<String> = Vec::new();
    let (host, effect) = (attempt.host, attempt.effect);
    let mut answer = |line: &str| {
        let asked = message::keys_of(line)?;
        // The keys of a program that cannot undo are not stored, so no alert counts as repeated.
        let is_held = script.undoable && host.keys.is_held_by_another(effect, &script.executable, &asked);
        keys = asked;
        Some(message::line(attempt, script, if is_held { "abort" } else { "continue" }))
    };
    match host.runner.converse(&program, &mut answer).await {
        Ok(exit) => {
            attempt.note(Some(exit.code), &crate::runner::join(&exit.stdout, &exit.stderr));
            if exit.is_success() { Ok(keys) } else { Err(crate::actions::failure(&program, &exit)) }
        }
        Err(error) => Err(attempt.not_ended(&error)),
    }
}

/// The program as Wazuh starts it: in its home, under its relative name. A folder with another
/// layout has no home.
fn program(attempt: &Attempt<'_>, script: &Script, op: Op) -> Program {
    let folder = attempt.host.scripts_dir();
    let home = folder.ends_with(FOLDER).then(|| folder.ancestors().nth(2)).flatten();
    let (name, directory) = match home {
        Some(home) => (format!("{FOLDER}/{}", script.executable), home),
        None => (folder.join(&script.executable).to_string_lossy().into_owned(), folder.as_path()),
    };
    let program = Program::new(&name, []).directory(directory).timeout(attempt.host.script_timeout);
    match script.style {
        ScriptStyle::Wazuh | ScriptStyle::Wazuh5 => {
            let command = if script.style == ScriptStyle::Wazuh { verb(op) } else { message::verb_of_5(op) };
            program.stdin(message::line(attempt, script, command))
        }
        ScriptStyle::Argv => {
            let words = message::argv(attempt, op);
            program.arguments(&words.iter().map(String::as_str).collect::<Vec<_>>())
        }
    }
}
