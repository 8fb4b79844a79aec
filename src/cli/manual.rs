//! `riposte completions` and `riposte man`: shell completions and man pages, generated from the
//! command line definition.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap_complete::Shell;

use super::output::say;

/// Prints the completions of `command` for a shell.
pub fn completions(command: &mut clap::Command, shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "riposte", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

/// Writes the man pages of `command` and its subcommands to `folder`.
///
/// # Errors
/// If it cannot be written.
pub fn pages(command: clap::Command, folder: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let written = clap_mangen::generate_to(command, folder);
    written.with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
