//! `riposte node`: the managers on one ledger.

use std::process::ExitCode;

use clap::Subcommand;

use super::listing::Listing;
use super::shown::ListForm;
use super::terminal::plain;
use crate::views::nodes::Node;

/// The managers on one ledger.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the managers, oldest first.
    List(Listing),
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: NodeCommand) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::List(listing) => listing.print("/v1/nodes", &FORM).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How managers are listed.
const FORM: ListForm<'_, Node> = ListForm {
    noun: ("manager", "managers"),
    head: &["manager", "state", "version", "since", "duties", "changes behind", "clock"],
    more: &[],
    row: &row,
    name: &|node: &Node| node.name.clone(),
};

fn row(node: &Node) -> Vec<String> {
    let asked = if node.asked { " (asked)" } else { "" };
    let duties: Vec<&str> = node.duties.iter().map(|duty| duty.name.as_str()).collect();
    let duties = if duties.is_empty() { "none".to_owned() } else { duties.join(", ") };
    let (behind, clock) = (node.changes_behind.to_string(), format!("{} ms", node.clock_off_millis));
    let name = format!("{}{asked}", node.name);
    let columns = [
        name,
        node.state.as_str().to_owned(),
        node.version.clone(),
        node.started_at.to_string(),
        duties,
        behind,
        clock,
    ];
    columns.map(|text| plain(&text)).into()
}
