//! `riposte demo`: a manager on a fresh ledger, one agent, sample policies, sample alerts, and a timeline.

use std::process::ExitCode;

use clap::Args;

/// Flags of `riposte demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Carry responses out for real (needs root); otherwise the agent only says what it would do.
    #[arg(long)]
    enforce: bool,
}

/// Runs the demo.
pub async fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
