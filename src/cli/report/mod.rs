//! `riposte report`: one month for auditors, of what the public API says. `collect.rs` reads it page by page,
//! `figures.rs` computes, `page.rs` writes one HTML page without scripts. A figure that cannot be known is left out, and
//! the report says so; none is guessed.

pub mod collect;
pub mod figures;
pub mod month;
pub mod page;

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::client::Remote;
use super::output::{complain, say};
use super::terminal::{escaped, plain};
use crate::clock::Clock;
use month::Month;

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportForm {
    /// One page that needs nothing else.
    #[default]
    Html,
    /// One JSON document.
    Json,
}

/// Which month, and how.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    remote: Remote,
    /// The month, in UTC.
    #[arg(long, value_name = "YYYY-MM", value_parser = str::parse::<Month>)]
    month: Month,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: ReportForm,
}

/// `riposte report`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(args: ReportArgs) -> anyhow::Result<ExitCode> {
    let ReportArgs { remote, month, output } = args;
    let now = Clock::system().now();
    anyhow::ensure!(month.since() <= now, "{month} has not begun; name a month up to this one");
    let collected = collect::month(&remote, month, now).await?;
    let report = figures::of(collected);
    match output {
        ReportForm::Html => say(page::html(&report)?.trim_end()),
        ReportForm::Json => say(&escaped(&serde_json::to_string_pretty(&report)?)),
    }
    let left_out = match report.unknown.len() {
        0 => String::new(),
        count => format!("; {count} remarks on what could not be known"),
    };
    complain(&plain(&format!("riposte: {month}: {} responses{left_out}", report.decided)));
    Ok(ExitCode::SUCCESS)
}
