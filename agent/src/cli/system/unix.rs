//! Commands that only some systems have: none here, where packages install the service.

use clap::Subcommand;

/// No commands.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(in crate::cli) enum SystemOrder {}

/// Runs one.
pub(in crate::cli) fn run(order: SystemOrder) -> anyhow::Result<()> {
    match order {}
}
