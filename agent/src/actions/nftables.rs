//! Blocks addresses and networks in an nftables table of our own, `inet riposte`: one set for each
//! family and prefix length, and two chains that drop their packets before the host's own filters
//! run. The host's own rules are never changed.
//!
//! A set holds plain addresses, and a rule masks the address before the lookup: interval sets would
//! refuse overlapping networks. An element has a kernel time-out as a backup of the agent's own
//! timer: if the agent never runs again, the block still ends.
//!
//! The kernel needs about 5 ms for a transaction that only adds, and 15 ms or more for one that
//! also removes. So adding is tried first, and the chains are only verified.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use riposte_protocol::command::Op;
use serde_json::Value;

use super::about::has;
use super::error::failure;
use super::{ActionError, Attempt};
use crate::runner::{Exit, Program};

const TABLE: &str = "inet riposte";
/// Lists the tables, with their flags.
pub(super) const TABLES: &str = "list tables inet\n";
/// Longest time-out of an element. The kernel holds its milliseconds in nanoseconds, which is 584
/// years, and refuses more. Only the agent's own timer handles a later end.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24 * 200_000);
/// How often an interrupted listing is retried; each interruption needs a change at that very
/// moment.
const MAX_LOOKS: usize = 20;

/// Which packets of one network are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Packets from it, to this host or through it.
    In,
    /// Packets from this host to it.
    Out,
}

/// One network in one set, with the chains that use the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fence {
    way: Way,
    network: IpNet,
}

impl Fence {
    fn all(attempt: &Attempt<'_>) -> Result<Vec<Self>, ActionError> {
        let network = attempt.target.network();
        let network = network.ok_or_else(|| ActionError::Refused("the target is not an address".into()))?;
        let mut fences = vec![Self { way: Way::In, network }];
        if has(attempt.arguments, "output") {
            fences.push(Self { way: Way::Out, network });
        }
        Ok(fences)
    }

    /// Name of the set's class, such as `v4` or `v6_64`.
    fn class(self) -> String {
        let family = if self.is_v4() { "v4" } else { "v6" };
        let length = self.network.prefix_len();
        if length == self.network.max_prefix_len() { family.into() } else { format!("{family}_{length}") }
    }

    fn set(self) -> String {
        match self.way {
            Way::In => format!("blocked_{}", self.class()),
            Way::Out => format!("blocked_to_{}", self.class()),
        }
    }

    fn chains(self) -> Vec<(String, &'static str)> {
        let hooks: &[&str] = match self.way {
            Way::In => &["input", "forward"],
            Way::Out => &["output"],
        };
        hooks.iter().map(|hook| (format!("{hook}_{}", self.class()), *hook)).collect()
    }

    fn is_v4(self) -> bool {
        self.network.addr().is_ipv4()
    }

    fn element(self) -> IpAddr {
        self.network.network()
    }

    fn kind(self) -> &'static str {
        if self.is_v4() { "ipv4_addr" } else { "ipv6_addr" }
    }

    /// Defines the set and the chains. One transaction, and idempotent: it repairs them without
    /// touching the addresses in the set, and no packet sees an intermediate state.
    ///
    /// Priority -10 is just before the filters (0), after connection tracking and destination
    /// translation, so that the forward chain sees what the host's filter sees.
    fn definition(self) -> String {
        let set = self.set();
        let mut script =
            format!("add table {TABLE}\nadd set {TABLE} {set} {{ type {}; flags timeout; }}\n", self.kind());
        let family = if self.is_v4() { "ip" } else { "ip6" };
        let field = if self.way == Way::In { "saddr" } else { "daddr" };
        let is_masked = self.network.prefix_len() < self.network.max_prefix_len();
        let mask = if is_masked { format!(" & {}", self.network.netmask()) } else { String::new() };
        for (chain, hook) in self.chains() {
            let _infallible = write!(
                script,
                "add chain {TABLE} {chain} {{ type filter hook {hook} priority -10; policy accept; }}\n\
                 flush chain {TABLE} {chain}\n\
                 add rule {TABLE} {chain} {family} {field}{mask} @{set} counter drop\n"
            );
        }
        script
    }

    fn creation(self, remaining: Option<Duration>) -> String {
        format!("create element {TABLE} {} {{ {}{} }}\n", self.set(), self.element(), timeout(remaining))
    }

    /// Sets a new time-out by adding, deleting and adding the element again. A plain `add` of an
    /// existing element changes nothing on most kernels, and a plain `delete` of a missing one
    /// fails. It is one transaction, so no packet slips through.
    fn renewal(self, remaining: Option<Duration>) -> String {
        let (set, element) = (self.set(), self.element());
        format!(
            "add element {TABLE} {set} {{ {element} }}\n\
             delete element {TABLE} {set} {{ {element} }}\n\
             add element {TABLE} {set} {{ {element}{} }}\n",
            timeout(remaining)
        )
    }

    fn removal(self) -> Program {
        transaction(&format!("delete element {TABLE} {} {{ {} }}\n", self.set(), self.element()))
    }

    /// The query: the set and the chains, without the rest of the table, which may be long.
    fn listing(self) -> String {
        let chains = self.chains().into_iter().map(|(chain, _)| format!("list chain {TABLE} {chain}\n"));
        format!("list set {TABLE} {}\n{}", self.set(), chains.collect::<String>())
    }

    fn query(self) -> String {
        format!("get element {TABLE} {} {{ {} }}\n", self.set(), self.element())
    }

    /// Whether a listing shows the set, the chains at their hooks, and in each chain exactly the
    /// one drop.
    fn is_whole_in(self, objects: &[Value]) -> bool {
        let set = objects.iter().map(|object| &object["set"]).any(|set| {
            set["name"] == self.set()
                && set["type"] == self.kind()
                && set["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "timeout"))
        });
        set && self.chains().iter().all(|(name, hook)| {
            let hooked = objects.iter().map(|object| &object["chain"]).any(|chain| {
                chain["name"] == *name && chain["hook"] == *hook && chain["type"] == "filter" && chain["prio"] == -10
            });
            let mut rules = objects.iter().map(|object| &object["rule"]).filter(|rule| rule["chain"] == *name);
            hooked && rules.next().is_some_and(|rule| self.is_dropped_by(rule)) && rules.next().is_none()
        })
    }

    fn is_dropped_by(self, rule: &Value) -> bool {
        // Only the counter may be between the two: with one more condition, part of the packets
        // would pass.
        let Some([first, between @ .., last]) = rule["expr"].as_array().map(Vec::as_slice) else { return false };
        let is_counter = |part: &Value| part.as_object().is_some_and(|part| part.contains_key("counter"));
        let matched = &first["match"];
        let (payload, mask) = match matched["left"]["&"].as_array().map(Vec::as_slice) {
            Some([payload, mask]) => (&payload["payload"], mask.as_str()),
            _ => (&matched["left"]["payload"], None),
        };
        let field = if self.way == Way::In { "saddr" } else { "daddr" };
        let mask =
            mask.map_or(Some(self.network.max_prefix_len()), |mask| ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok());
        last.as_object().is_some_and(|last| last.contains_key("drop"))
            && between.iter().all(is_counter)
            && matched["op"] == "=="
            && payload["field"] == field
            && mask == Some(self.network.prefix_len())
            && matched["right"] == format!("@{}", self.set())
    }
}

pub(super) fn plan(op: Op, attempt: &Attempt<'_>) -> String {
    let Ok(fences) = Fence::all(attempt) else { return String::new() };
    match op {
        Op::Apply => {
            transaction(&each(&fences, |fence| fence.definition() + &fence.creation(attempt.remaining))).text()
        }
        Op::Revert => fences.iter().map(|fence| fence.removal().text()).collect::<Vec<_>>().join("; "),
    }
}

pub(super) async fn block(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let fences = Fence::all(attempt)?;
    let create = transaction(&each(&fences, |fence| fence.creation(attempt.remaining)));
    // Its failure is an answer: there is no table yet, or the element's end has to be moved.
    let created = attempt.look(&create).await?;
    if created.is_success() {
        attempt.note(Some(0), "");
    } else if created.stderr.contains("File exists") {
        attempt.run(&transaction(&each(&fences, |fence| fence.renewal(attempt.remaining)))).await?;
    } else {
        define(attempt, &fences).await?;
    }
    if !look(attempt, &fences).await? {
        define(attempt, &fences).await?;
        if !look(attempt, &fences).await? {
            return Ok(());
        }
    }
    attempt.saw_in_force();
    Ok(())
}

pub(super) async fn is_blocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    Ok(attempt.take_seen_in_force() || look(attempt, &Fence::all(attempt)?).await?)
}

pub(super) async fn unblock(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for fence in Fence::all(attempt)? {
        // Looking first would leave a gap in which the kernel's own time-out can strike. Deleting a
        // missing element is the failure that is expected.
        let program = fence.removal();
        let exit = attempt.look(&program).await?;
        if !exit.is_success() && !is_missing(&exit) {
            return Err(failure(&program, &exit));
        }
        attempt.note(Some(0), "");
    }
    Ok(())
}

pub(super) async fn is_unblocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    for fence in Fence::all(attempt)? {
        let program = transaction(&fence.query());
        let exit = ask(attempt, &program).await?;
        if exit.is_success() {
            return Ok(false);
        }
        if !is_missing(&exit) {
            return Err(failure(&program, &exit));
        }
    }
    Ok(true)
}

/// Creates or repairs the sets and chains, and adds the addresses.
async fn define(attempt: &Attempt<'_>, fences: &[Fence]) -> Result<(), ActionError> {
    let script = each(fences, |fence| fence.definition() + &fence.renewal(attempt.remaining));
    let defined = attempt.look(&transaction(&script)).await?;
    if defined.is_success() {
        attempt.note(Some(0), "");
        return Ok(());
    }
    // A set of another type, or a chain at another hook: it cannot have blocked anything, so it is
    // recreated.
    tracing::warn!(table = TABLE, "the firewall table cannot be repaired in place: it is recreated, empty");
    attempt.run(&transaction(&format!("add table {TABLE}\ndelete table {TABLE}\n{script}"))).await?;
    Ok(())
}

/// Whether the table is whole and the elements are in it: one program call for the whole query.
async fn look(attempt: &Attempt<'_>, fences: &[Fence]) -> Result<bool, ActionError> {
    // Terse: without the elements of the sets, which may be very many.
    let query = TABLES.to_owned() + &each(fences, Fence::listing) + &each(fences, Fence::query);
    // As an argument: from standard input `nft -j` accepts only JSON.
    let program = Program::new("nft", ["-j", "-t", &query]);
    let exit = ask(attempt, &program).await?;
    if !exit.is_success() {
        return if is_missing(&exit) { Ok(false) } else { Err(failure(&program, &exit)) };
    }
    let objects = objects(&exit.stdout);
    Ok(is_awake(&objects, "riposte") && fences.iter().all(|fence| fence.is_whole_in(&objects)))
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

fn each(fences: &[Fence], script: impl Fn(Fence) -> String) -> String {
    fences.iter().map(|&fence| script(fence)).collect()
}

/// An element's time-out in the syntax of `nft`. One unit has at most eight digits, so seconds
/// alone end at 1157 days.
fn timeout(remaining: Option<Duration>) -> String {
    let Some(remaining) = remaining.filter(|remaining| *remaining <= LONGEST_TIMEOUT) else { return String::new() };
    let seconds = whole_seconds(remaining);
    match (seconds / 86_400, seconds % 86_400) {
        (0, seconds) => format!(" timeout {seconds}s"),
        (days, 0) => format!(" timeout {days}d"),
        (days, seconds) => format!(" timeout {days}d{seconds}s"),
    }
}

/// Rounded up: the kernel must never lift a block before its end, and reads 0 as "never".
fn whole_seconds(remaining: Duration) -> u64 {
    remaining.as_secs().saturating_add(u64::from(remaining.subsec_nanos() > 0)).max(1)
}

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

pub(super) fn transaction(script: &str) -> Program {
    Program::new("nft", ["-f", "-"]).stdin(script)
}

/// `nft` has one exit code for all failures; only the kernel's text for "not there" differs.
pub(super) fn is_missing(exit: &Exit) -> bool {
    exit.stderr.contains("No such file or directory")
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
    fn no_unit_of_a_time_out_has_more_digits_than_nft_reads() {
        let after = |days: u64, seconds: u64| timeout(Some(Duration::from_secs(86_400 * days + seconds)));
        assert_eq!(after(0, 600), " timeout 600s");
        assert_eq!(after(1500, 0), " timeout 1500d");
        assert_eq!(after(3650, 86_399), " timeout 3650d86399s");
        assert_eq!((after(200_000, 0).as_str(), after(200_000, 1).as_str()), (" timeout 200000d", ""));
    }

    #[test]
    fn an_empty_or_foreign_listing_is_no_whole_table() {
        let fence = Fence { way: Way::In, network: "203.0.113.7/32".parse().unwrap() };
        assert!(!fence.is_whole_in(&objects("")));
        assert!(!fence.is_whole_in(&objects(r#"{"nftables": [{"table": {"name": "riposte"}}]} table inet"#)));
    }
}
