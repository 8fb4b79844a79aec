//! `riposte man`: man pages, generated from the command line definition.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
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
