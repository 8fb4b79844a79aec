//! Listings of `nft`, as JSON.

use serde_json::Value;

use crate::actions::{ActionError, Attempt};
use crate::runner::{Exit, Program};

/// Lists the tables, with their flags.
pub(super) const TABLES: &str = "list tables inet\n";
/// How often an interrupted listing is retried; each interruption needs a change at that very
/// moment.
const MAX_LOOKS: usize = 20;

/// Runs a listing, and repeats it while another program changes the ruleset: `nft` aborts a listing
/// then.
pub(super) async fn ask(attempt: &Attempt<'_>, program: &Program) -> Result<Exit, ActionError> {
    for _ in 0..MAX_LOOKS {
        let exit = attempt.look(program).await?;
        if exit.is_success() || !exit.stderr.contains("Interrupted system call") {
            return Ok(exit);
        }
    }
    attempt.look(program).await
}

/// Whether a listing shows the table, and that the kernel uses its chains: a dormant table is
/// listed as usual, and drops nothing. The flags are not compared: some versions of `nft` print
/// other words.
pub(super) fn is_awake(objects: &[Value], table: &str) -> bool {
    let mut tables = objects.iter().map(|object| &object["table"]).filter(|found| found["name"] == table);
    tables.next().is_some_and(|found| found.get("flags").is_none())
}

/// The objects of a listing. One document follows the other. The elements come last in a form that
/// depends on the version, and are not read.
pub(super) fn objects(listing: &str) -> Vec<Value> {
    let documents = serde_json::Deserializer::from_str(listing).into_iter::<Value>();
    let objects = documents.map_while(Result::ok).filter_map(|mut document| match document["nftables"].take() {
        Value::Array(objects) => Some(objects),
        _ => None,
    });
    objects.flatten().collect()
}
