//! Blocks addresses in an nftables table of our own, `inet riposte`: a set of addresses per family and two chains
//! that drop what comes from them, before the host's own filters are asked. Nothing of the host's rules is touched.
//!
//! An element carries a kernel time-out as a net under the agent's own timer: should the agent never run again, the
//! block still ends.

use std::net::IpAddr;
use std::time::Duration;

use riposte_protocol::command::Op;
use serde_json::Value;

use super::attempt::failure;
use super::{ActionError, Attempt};
use crate::runner::{Exit, Program};

const TABLE: &str = "inet riposte";

/// The table as it has to be. One transaction, and idempotent: it repairs a table without touching the addresses in
/// its sets, and no packet ever sees it half done. Priority -10 is just before the filters (0), after connection
/// tracking and the destination's translation, so that the forward chain sees what the host's filter sees.
const DEFINITION: &str = "\
add table inet riposte
add set inet riposte blocked_v4 { type ipv4_addr; flags timeout; }
add set inet riposte blocked_v6 { type ipv6_addr; flags timeout; }
add chain inet riposte input { type filter hook input priority -10; policy accept; }
add chain inet riposte forward { type filter hook forward priority -10; policy accept; }
flush chain inet riposte input
flush chain inet riposte forward
add rule inet riposte input ip saddr @blocked_v4 counter drop
add rule inet riposte input ip6 saddr @blocked_v6 counter drop
add rule inet riposte forward ip saddr @blocked_v4 counter drop
add rule inet riposte forward ip6 saddr @blocked_v6 counter drop
";

pub(super) fn plan(op: Op, attempt: &Attempt<'_>) -> String {
    let Some(address) = attempt.target.ip() else { return String::new() };
    match op {
        Op::Apply => transaction(&format!("{DEFINITION}{}", addition(address, attempt.remaining))).text(),
        Op::Revert => removal(address).text(),
    }
}

pub(super) async fn block(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let address = address(attempt)?;
    ensure_table(attempt).await?;
    attempt.run(&transaction(&addition(address, attempt.remaining))).await?;
    Ok(())
}

pub(super) async fn is_blocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let address = address(attempt)?;
    Ok(has_element(attempt, address).await? && is_table_whole(attempt).await?)
}

pub(super) async fn unblock(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let address = address(attempt)?;
    // Looking first would leave a gap in which the kernel's own time-out can come: deleting what is not there is the
    // failure that we know.
    let program = removal(address);
    let exit = attempt.change(&program).await?;
    if exit.is_success() || is_missing(&exit) { Ok(()) } else { Err(failure(&program, &exit)) }
}

pub(super) async fn is_unblocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let address = address(attempt)?;
    Ok(!has_element(attempt, address).await?)
}

async fn ensure_table(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    if is_table_whole(attempt).await? {
        return Ok(());
    }
    let repaired = attempt.change(&transaction(DEFINITION)).await?;
    if repaired.is_success() {
        return Ok(());
    }
    // A set of another type, or a chain at another hook: it cannot have blocked anything, so it is made anew.
    tracing::warn!(table = TABLE, "the firewall table cannot be repaired in place: it is made anew, emptied");
    let anew = format!("add table {TABLE}\ndelete table {TABLE}\n{DEFINITION}");
    attempt.run(&transaction(&anew)).await?;
    Ok(())
}

async fn is_table_whole(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    // Terse: without the sets' elements, of which there may be very many.
    let program = Program::new("nft", ["-j", "-t", "list", "table", "inet", "riposte"]);
    let exit = attempt.look(&program).await?;
    if exit.is_success() {
        return Ok(serde_json::from_str(&exit.stdout).is_ok_and(|listing| is_whole(&listing)));
    }
    if is_missing(&exit) { Ok(false) } else { Err(failure(&program, &exit)) }
}

async fn has_element(attempt: &Attempt<'_>, address: IpAddr) -> Result<bool, ActionError> {
    let set = set_of(address);
    let element = format!("{{ {address} }}");
    let program = Program::new("nft", ["get", "element", "inet", "riposte", set, &element]);
    let exit = attempt.look(&program).await?;
    if exit.is_success() || is_missing(&exit) { Ok(exit.is_success()) } else { Err(failure(&program, &exit)) }
}

/// Adding, deleting and adding again is how an element gets a new time-out: a plain `add` of one that is there
/// changes nothing, a plain `delete` of one that is not there fails. It is one transaction, so no packet slips through.
fn addition(address: IpAddr, remaining: Option<Duration>) -> String {
    let set = set_of(address);
    let timeout = remaining.map(|remaining| format!(" timeout {}s", whole_seconds(remaining))).unwrap_or_default();
    format!(
        "add element {TABLE} {set} {{ {address} }}\n\
         delete element {TABLE} {set} {{ {address} }}\n\
         add element {TABLE} {set} {{ {address}{timeout} }}\n"
    )
}

/// Rounded up: the kernel must never lift a block before its end. 0 would mean "never" to it.
fn whole_seconds(remaining: Duration) -> u64 {
    remaining.as_secs().saturating_add(u64::from(remaining.subsec_nanos() > 0)).max(1)
}

fn removal(address: IpAddr) -> Program {
    transaction(&format!("delete element {TABLE} {} {{ {address} }}\n", set_of(address)))
}

fn transaction(script: &str) -> Program {
    Program::new("nft", ["-f", "-"]).stdin(script)
}

fn set_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "blocked_v4" } else { "blocked_v6" }
}

fn address(attempt: &Attempt<'_>) -> Result<IpAddr, ActionError> {
    attempt.target.ip().ok_or_else(|| ActionError::Refused("the target is not an address".into()))
}

/// `nft` has one exit code for every failure; the kernel's word for "not there" is the only difference.
fn is_missing(exit: &Exit) -> bool {
    exit.stderr.contains("No such file or directory")
}

/// Whether a listing shows the sets, the chains at their hooks, and in each chain exactly the two drops.
fn is_whole(listing: &Value) -> bool {
    let objects = listing["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let set = |name: &str, kind: &str| {
        objects.iter().map(|object| &object["set"]).any(|set| {
            set["name"] == name
                && set["type"] == kind
                && set["flags"].as_array().is_some_and(|f| f.iter().any(|f| f == "timeout"))
        })
    };
    let chain = |name: &str| {
        let hooked = objects.iter().map(|object| &object["chain"]).any(|chain| {
            chain["name"] == name && chain["hook"] == name && chain["type"] == "filter" && chain["prio"] == -10
        });
        let rules = objects.iter().map(|object| &object["rule"]).filter(|rule| rule["chain"] == name);
        let dropped: Vec<&str> = rules.map(|rule| dropped_set(rule).unwrap_or("something else")).collect();
        hooked && dropped == ["@blocked_v4", "@blocked_v6"]
    };
    set("blocked_v4", "ipv4_addr") && set("blocked_v6", "ipv6_addr") && chain("input") && chain("forward")
}

/// The set whose addresses a rule drops, if that is what it does.
fn dropped_set(rule: &Value) -> Option<&str> {
    let expressions = rule["expr"].as_array()?;
    let last_drops = expressions.last()?.as_object()?.contains_key("drop");
    let matched = &expressions.first()?["match"];
    (last_drops && matched["op"] == "==" && matched["left"]["payload"]["field"] == "saddr")
        .then(|| matched["right"].as_str())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_time_out_never_comes_before_the_end() {
        for (millis, secs) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (600_000, 600)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), secs, "{millis} ms");
        }
    }

    #[test]
    fn an_empty_or_foreign_listing_is_no_whole_table() {
        assert!(!is_whole(&Value::Null));
        assert!(!is_whole(&serde_json::json!({"nftables": [{"table": {"name": "riposte"}}]})));
    }
}
