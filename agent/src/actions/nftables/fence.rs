//! What blocks one network in one direction: an element of a set, and the chains whose rule drops
//! what is in the set. Each as the script of `nft` that makes it, and as what the kernel then holds.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::actions::about::has;
use crate::actions::{ActionError, Attempt};
use crate::platform::ruleset::{Expression, FilterChain, Ruleset, Set};

/// The table, with its family.
pub(super) const TABLE: &str = "inet riposte";
/// Its name in the family.
pub(super) const TABLE_NAME: &str = "riposte";
/// Longest time-out of an element. The kernel holds its milliseconds in nanoseconds, which is 584
/// years, and refuses more. Only the agent's own timer handles a later end.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24 * 200_000);
/// Priority of the chains: just before the filters (0), after connection tracking and destination
/// translation, so that the forward chain sees what the host's filter sees.
const PRIORITY: i32 = -10;

/// Which packets of one network are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// Packets from it, to this host or through it.
    In,
    /// Packets from this host to it.
    Out,
}

/// One network in one set, with the chains that use the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    way: Way,
    network: IpNet,
}

impl Fence {
    pub(super) fn all(attempt: &Attempt<'_>) -> Result<Vec<Self>, ActionError> {
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

    pub(super) fn set(self) -> String {
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

    fn is_masked(self) -> bool {
        self.network.prefix_len() < self.network.max_prefix_len()
    }

    fn element(self) -> IpAddr {
        self.network.network()
    }

    fn kind(self) -> &'static str {
        if self.is_v4() { "ipv4_addr" } else { "ipv6_addr" }
    }

    /// Defines the set and the chains. One transaction, and idempotent: it repairs them without
    /// touching the addresses in the set, and no packet sees an intermediate state.
    pub(super) fn definition(self) -> String {
        let set = self.set();
        let mut script =
            format!("add table {TABLE}\nadd set {TABLE} {set} {{ type {}; flags timeout; }}\n", self.kind());
        let family = if self.is_v4() { "ip" } else { "ip6" };
        let field = if self.way == Way::In { "saddr" } else { "daddr" };
        let mask = if self.is_masked() { format!(" & {}", self.network.netmask()) } else { String::new() };
        for (chain, hook) in self.chains() {
            let _infallible = write!(
                script,
                "add chain {TABLE} {chain} {{ type filter hook {hook} priority {PRIORITY}; policy accept; }}\n\
                 flush chain {TABLE} {chain}\n\
                 add rule {TABLE} {chain} {family} {field}{mask} @{set} counter drop\n"
            );
        }
        script
    }

    pub(super) fn creation(self, remaining: Option<Duration>) -> String {
        format!("create element {TABLE} {} {{ {}{} }}\n", self.set(), self.element(), timeout(remaining))
    }

    /// Sets a new time-out by adding, deleting and adding the element again. A plain `add` of an
    /// existing element changes nothing on most kernels, and a plain `delete` of a missing one
    /// fails. It is one transaction, so no packet slips through.
    pub(super) fn renewal(self, remaining: Option<Duration>) -> String {
        let (set, element) = (self.set(), self.element());
        format!(
            "add element {TABLE} {set} {{ {element} }}\n\
             delete element {TABLE} {set} {{ {element} }}\n\
             add element {TABLE} {set} {{ {element}{} }}\n",
            timeout(remaining)
        )
    }

    /// Removes the element, and does nothing if it is not there: a plain `delete` would fail then.
    pub(super) fn removal(self) -> String {
        let (set, element) = (self.set(), self.element());
        format!(
            "add element {TABLE} {set} {{ {element} }}
delete element {TABLE} {set} {{ {element} }}
"
        )
    }

    /// Removes the set and the chains, whatever they are, so that they can be defined anew.
    pub(super) fn clearance(self, has_set: bool) -> String {
        let chains = self.chains().into_iter().map(|(chain, _)| {
            format!(
                "add chain {TABLE} {chain}
flush chain {TABLE} {chain}
delete chain {TABLE} {chain}
"
            )
        });
        let set = if has_set {
            format!(
                "delete set {TABLE} {}
",
                self.set()
            )
        } else {
            String::new()
        };
        format!(
            "add table {TABLE}
{}{set}",
            chains.collect::<String>()
        )
    }

    /// Whether the kernel holds the set, the chains at their hooks, and in each chain exactly the
    /// one drop.
    pub(super) fn is_whole_in(self, ruleset: &mut Ruleset) -> io::Result<bool> {
        if ruleset.set(TABLE_NAME, &self.set())? != Some(self.plain_set()) {
            return Ok(false);
        }
        for (name, hook) in self.chains() {
            let chain = FilterChain { hook: number(hook), priority: PRIORITY };
            if ruleset.filter_chain(TABLE_NAME, &name)? != Some(chain) {
                return Ok(false);
            }
            let rules = ruleset.rules(TABLE_NAME, &name)?;
            if !matches!(rules.as_slice(), [rule] if self.is_dropped_by(rule)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn plain_set(self) -> Set {
        Set { element_bytes: if self.is_v4() { 4 } else { 16 }, is_plain: true }
    }

    /// What has to be cleared before the definition can be made: a set of another kind, or a chain
    /// that is at another hook; `None` if neither is in the way.
    pub(super) fn obstacle(self, ruleset: &mut Ruleset) -> io::Result<Option<String>> {
        let set = ruleset.set(TABLE_NAME, &self.set())?;
        let is_other_set = set.is_some_and(|set| set != self.plain_set());
        for (name, hook) in self.chains() {
            let chain = FilterChain { hook: number(hook), priority: PRIORITY };
            if is_other_set || ruleset.filter_chain(TABLE_NAME, &name)? != Some(chain) {
                return Ok(Some(self.clearance(set.is_some())));
            }
        }
        Ok(None)
    }

    /// Whether the kernel holds the element.
    pub(super) fn is_element_of(self, ruleset: &mut Ruleset) -> io::Result<bool> {
        match self.element() {
            IpAddr::V4(address) => ruleset.has_element(TABLE_NAME, &self.set(), &address.octets()),
            IpAddr::V6(address) => ruleset.has_element(TABLE_NAME, &self.set(), &address.octets()),
        }
    }

    /// Whether the rule is the one of the definition. Only counters may be between its parts: with
    /// one more condition, part of the packets would pass.
    fn is_dropped_by(self, rule: &[Expression]) -> bool {
        // Numbers of the families, and where the headers have their addresses (RFC 791, RFC 8200).
        let (family, source, destination, length) = if self.is_v4() { (2, 12, 16, 4) } else { (10, 8, 24, 16) };
        let offset = if self.way == Way::In { source } else { destination };
        let mut expected =
            vec![Expression::Family, Expression::Equals(vec![family]), Expression::Header { offset, length }];
        if self.is_masked() {
            expected.push(Expression::Mask(match self.network.netmask() {
                IpAddr::V4(mask) => mask.octets().to_vec(),
                IpAddr::V6(mask) => mask.octets().to_vec(),
            }));
        }
        expected.extend([Expression::IsIn(self.set()), Expression::Drop]);
        rule.iter().filter(|expression| **expression != Expression::Counter).eq(&expected)
    }
}

/// The number of a hook, as in `linux/netfilter.h`.
fn number(hook: &str) -> u32 {
    match hook {
        "input" => 1,
        "forward" => 2,
        _ => 3,
    }
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
    fn a_rule_with_one_more_condition_or_another_mask_is_not_the_drop() {
        let fence = |network: &str| Fence { way: Way::In, network: network.parse().unwrap() };
        let (one, net) = (fence("203.0.113.7/32"), fence("203.0.113.0/24"));
        let begin =
            || vec![Expression::Family, Expression::Equals(vec![2]), Expression::Header { offset: 12, length: 4 }];
        let rule = |middle: &[Expression], set: &str| {
            let end = [Expression::IsIn(set.into()), Expression::Counter, Expression::Drop];
            [begin(), middle.to_vec(), end.to_vec()].concat()
        };
        let mask = Expression::Mask(vec![255, 255, 255, 0]);
        assert!(one.is_dropped_by(&rule(&[], "blocked_v4")));
        assert!(net.is_dropped_by(&rule(std::slice::from_ref(&mask), "blocked_v4_24")));
        for (middle, set) in [
            (vec![Expression::Other], "blocked_v4"),
            (vec![mask], "blocked_v4"),
            (vec![Expression::Equals(vec![6])], "blocked_v4"),
            (vec![], "blocked_v6"),
        ] {
            assert!(!one.is_dropped_by(&rule(&middle, set)), "{middle:?} {set}");
        }
        assert!(!net.is_dropped_by(&rule(&[], "blocked_v4_24")), "no mask");
        assert!(!one.is_dropped_by(&begin()), "nothing is dropped");
        assert!(!one.is_dropped_by(&[]));
    }
}
