//! The flags of what changes something, and its plan: what, where, how many, and what stays and why. A person confirms
//! it; a program says `--yes`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::client::Remote;
use crate::cli::output::{complain, say};
use crate::cli::terminal::{can_ask, is_confirmed, plain, plain_lines};

/// The reason of a person who gives none.
const NO_REASON: &str = "by hand, on the command line";

/// Which manager, and whether and why it changes.
#[derive(Clone, Debug, Args)]
pub struct ChangeArgs {
    /// Which manager, and whether it changes.
    #[command(flatten)]
    pub consent: ConsentArgs,
    /// Reason; recorded in the audit log.
    #[arg(short, long, value_name = "TEXT", default_value = NO_REASON)]
    pub reason: String,
}

/// Which manager, and whether it changes, where the manager asks for no reason.
#[derive(Clone, Debug, Args)]
pub struct ConsentArgs {
    /// Which manager.
    #[command(flatten)]
    pub remote: Remote,
    /// Only print the plan.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

impl ConsentArgs {
    /// Prints the plan and asks. Returns the exit code of a command that goes no further.
    pub fn stops(&self, plan: &[String], question: &str) -> Option<ExitCode> {
        say(&plain_lines(&plan.join("\n")));
        if self.dry_run {
            say("a dry run: nothing was changed");
            return Some(ExitCode::SUCCESS);
        }
        if self.yes {
            return None;
        }
        if !can_ask() {
            let typed = retyped(std::env::args());
            complain(&plain(&format!(
                "riposte: nothing was changed, because the input is not a terminal that can be asked; type: {typed} --yes"
            )));
            return Some(ExitCode::from(2));
        }
        if is_confirmed(question) {
            return None;
        }
        complain("riposte: nothing was changed");
        Some(ExitCode::FAILURE)
    }
}

/// The command as it can be typed again.
fn retyped(args: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = |word: String| {
        if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    std::iter::once("riposte".to_owned()).chain(args.skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_retyped_so_that_a_shell_reads_the_same_words() {
        let args = ["/usr/bin/riposte", "unblock", "CORP\\alice", "--reason", "it's $HOME", ""];
        let typed = retyped(args.iter().map(|word| (*word).to_owned()));
        assert_eq!(typed, r"riposte unblock 'CORP\alice' --reason 'it'\''s $HOME' ''");
    }
}
