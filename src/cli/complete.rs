//! Dynamic completion: the script of `riposte completions` calls this program again, which completes words and asks the
//! manager for the names of agents, policies, targets and responses. It must never hold up the line that is typed: a
//! manager that is slow, away or refuses completes nothing. Nor may it offer what a shell would not read as one word:
//! names of accounts and files are what attackers chose.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::Parser;
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{CompletionCandidate, Shell};
use serde::de::DeserializeOwned;

use super::client::Remote;
use super::night::phrases::aim;
use crate::views::agents::AgentView;
use crate::views::page::Page;
use crate::views::policies::{PolicySummary, PolicyView};
use crate::views::responses::JudgedResponse;
use crate::views::targets::TargetRow;

/// Time limit of the manager's answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The variable by which the script asks for candidates.
const VARIABLE: &str = "RIPOSTE_COMPLETE";
/// The program in the script: the one in the `PATH` of the shell.
const PROGRAM: &str = "riposte";

/// Which manager is asked: that of the line, the environment, or the current context.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    remote: Remote,
}

/// Prints the candidates if the script asks for them. Returns whether it does.
///
/// # Errors
/// If the script is of an unknown shell.
pub fn answered(command: fn() -> clap::Command) -> clap::error::Result<bool> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), here.as_deref())
}

/// The script for a shell.
///
/// # Errors
/// If there is none for this shell.
pub fn script(shell: Shell) -> anyhow::Result<String> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let known = shells.completer(&name);
    let known = known.ok_or_else(|| anyhow::anyhow!("there are no completions for {name}"))?;
    let mut script = Vec::new();
    known.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    let mut script = String::from_utf8(script)?;
    if shell == Shell::Zsh {
        // As a file of zsh's completions it is the body of `_riposte`, which the first TAB calls.
        script.push_str("if [ \"$funcstack[1]\" = \"_riposte\" ]; then _clap_dynamic_completer_riposte \"$@\"; fi\n");
    }
    Ok(script)
}

/// Names of enrolled agents.
pub fn agents(current: &OsStr) -> Vec<CompletionCandidate> {
    ask("/v1/agents?limit=500", current, |view: AgentView| Some((view.agent.name, view.presence.as_str().to_owned())))
}

/// Names of policies.
pub fn policies(current: &OsStr) -> Vec<CompletionCandidate> {
    ask("/v1/policies?limit=500", current, |view: PolicyView| {
        let summary: PolicySummary = view.policy.read().ok()?;
        Some((summary.name, format!("{}, {}", summary.mode, summary.respond.action)))
    })
}

/// Targets that are blocked.
pub fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    ask("/v1/targets?limit=500", current, |row: TargetRow| Some((row.value, row.actions.join(", "))))
}

/// Ids of the newest responses.
pub fn responses(current: &OsStr) -> Vec<CompletionCandidate> {
    ask("/v1/responses?limit=50", current, |judged| Some(one_response(judged)))
}

/// Ids of the newest active responses.
pub fn active(current: &OsStr) -> Vec<CompletionCandidate> {
    ask("/v1/responses?limit=50&state=active", current, |judged| Some(one_response(judged)))
}

/// Ids of responses that wait for approval.
pub fn waiting(current: &OsStr) -> Vec<CompletionCandidate> {
    ask("/v1/responses?limit=50&state=awaiting_approval", current, |judged| Some(one_response(judged)))
}

fn one_response(judged: JudgedResponse) -> (String, String) {
    let what = format!("{} {}", judged.response.action, aim(&judged.response));
    (judged.response.id, what)
}

/// The items of the list at `path` that begin with `current`, each with a few words about it.
fn ask<T: DeserializeOwned>(
    path: &str,
    current: &OsStr,
    read: impl Fn(T) -> Option<(String, String)>,
) -> Vec<CompletionCandidate> {
    // A failure is not told: it would be printed in the middle of the line that is typed.
    let Some(page) = page::<T>(path) else { return Vec::new() };
    let current = current.to_string_lossy();
    let found = page.items.into_iter().filter_map(read);
    let offered = found.filter(|(word, _)| is_one_word(word) && word.starts_with(&*current));
    offered.map(|(word, about)| CompletionCandidate::new(word).help(Some(visible(&about).into()))).collect()
}

fn page<T: DeserializeOwned>(path: &str) -> Option<Page<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = async {
        let remote = Line::try_parse_from(of_manager(std::env::args_os())).ok()?.remote.without_refresh()?;
        remote.get(path).await.ok()
    };
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    answer.ok()?
}

/// The words of a line that say which manager, after the name of a program.
fn of_manager(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut line = vec![OsString::from(PROGRAM)];
    let mut words = words.skip_while(|word| word != "--").peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let (flag, has_value) = text.split_once('=').map_or((&*text, false), |(flag, _)| (flag, true));
        if ["--manager", "--context", "--key-file", "--ca"].contains(&flag) {
            let value = if has_value { None } else { words.next() };
            line.push(word);
            line.extend(value);
        }
    }
    line
}

/// Whether every shell reads it as this one word, and a command as no flag.
fn is_one_word(word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+,".contains(c);
    !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain)
}

/// The text without what a terminal could take for a command, on one line.
fn visible(text: &str) -> String {
    super::terminal::plain(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_offered() {
        for word in ["web-01", "203.0.113.7", "2001:db8::1", "10.0.0.0/8", "/tmp/x", "alice@example.org"] {
            assert!(is_one_word(word), "{word}");
        }
        for word in
            ["", "-rf", "a b", "$(reboot)", "`x`", "a;b", "a\u{1b}[2J", "a\u{202e}b", "CORP\\alice", "a*", "~root", "é"]
        {
            assert!(!is_one_word(word), "{word}");
        }
    }

    #[test]
    fn the_manager_of_the_line_is_asked() {
        let words = ["riposte", "--", "riposte", "agent", "--context=prod", "show", "--key-file", "k", "--agent", "we"];
        let line = of_manager(words.iter().map(OsString::from));
        assert_eq!(line, ["riposte", "--context=prod", "--key-file", "k"]);
    }
}
