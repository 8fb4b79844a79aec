//! Writes the man pages (section 8) and the shell completions of `riposte-agent` into two folders, for the
//! packages (`scripts/package.sh`): `manual MAN COMPLETIONS`. The agent's program carries neither, to stay small.
//! `riposte agent`, a command of the manager, has the page `riposte-agent(1)`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> io::Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [pages, completions] = folders.as_slice() else {
        return Err(io::Error::other("usage: manual MAN COMPLETIONS"));
    };
    fs::create_dir_all(pages)?;
    fs::create_dir_all(completions)?;
    let mut command = riposte_agent::cli::command().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "riposte-agent", completions)?;
    }
    command.build();
    write(command, pages)
}

/// Writes the page of `command`, and those of its subcommands.
fn write(command: clap::Command, pages: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below.clone(), pages)?;
    }
    Man::new(command).section("8").generate_to(pages).map(drop)
}
