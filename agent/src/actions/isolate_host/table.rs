//! The table of an isolated host: what it lets through, as a script for `nft`, and whether a listing of it is tight.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;

pub(super) const NAME: &str = "inet riposte_isolate";
/// A chain that nothing asks: while it is there, the manager has not answered yet. An agent that dies in between finds
/// it, takes the isolation for failed, and removes it.
pub(super) const UNPROVEN: &str = "unproven";

/// What an isolated host may still talk to.
#[derive(Debug)]
pub(super) struct Exceptions {
    pub(super) managers: Vec<SocketAddr>,
    pub(super) resolvers: Vec<IpAddr>,
    pub(super) allowed: Vec<IpNet>,
}

impl Exceptions {
    /// The whole table as one transaction, which replaces an older one. Answers come in only to what was begun from
    /// here; forwarding has no exception at all.
    pub(super) fn table(&self) -> String {
        let (mut input, mut output) = (String::new(), String::new());
        let mut both = |inbound: &str, outbound: &str| {
            let _infallible = writeln!(input, "    {inbound} accept");
            let _infallible = writeln!(output, "    {outbound} accept");
        };
        both("iif \"lo\"", "oif \"lo\"");
        for manager in &self.managers {
            let (family, address, port) = (family(manager.ip()), manager.ip(), manager.port());
            both(
                &format!("{family} saddr {address} tcp sport {port} ct state established"),
                &format!("{family} daddr {address} tcp dport {port}"),
            );
        }
        for &resolver in &self.resolvers {
            let family = family(resolver);
            for transport in ["udp", "tcp"] {
                both(
                    &format!("{family} saddr {resolver} {transport} sport 53 ct state established"),
                    &format!("{family} daddr {resolver} {transport} dport 53"),
                );
            }
        }
        for network in &self.allowed {
            let family = family(network.addr());
            both(&format!("{family} saddr {network}"), &format!("{family} daddr {network}"));
        }
        // Without these the host would lose its address, or the way to its router, after a while; and so the manager.
        both("udp sport 67 udp dport 68", "udp sport 68 udp dport 67");
        both("udp sport 547 udp dport 546", "udp sport 546 udp dport 547");
        let discovery = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert";
        let asking = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit";
        both(&format!("icmpv6 type {{ {discovery} }}"), &format!("icmpv6 type {{ {asking} }}"));
        let chain = |hook: &str, rules: &str| {
            format!("  chain {hook} {{\n    type filter hook {hook} priority -10; policy drop;\n{rules}  }}\n")
        };
        format!(
            "add table {NAME}\ndelete table {NAME}\ntable {NAME} {{\n  chain {UNPROVEN} {{\n  }}\n{}{}{}}}\n",
            chain("input", &input),
            chain("output", &output),
            chain("forward", "")
        )
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// Whether a listing shows three chains that drop by default, no rule that lets everything through, and that the manager
/// has answered.
pub(super) fn is_tight(objects: &[Value]) -> bool {
    let drops = |hook: &str| {
        objects.iter().map(|object| &object["chain"]).any(|chain| {
            chain["name"] == hook && chain["hook"] == hook && chain["policy"] == "drop" && chain["prio"] == -10
        })
    };
    let is_proven = !objects.iter().any(|object| object["chain"]["name"] == UNPROVEN);
    let mut rules = objects.iter().map(|object| &object["rule"]).filter(|rule| rule.is_object());
    let has_condition = |rule: &Value| {
        rule["expr"].as_array().is_some_and(|parts| parts.iter().any(|part| part.get("match").is_some()))
    };
    is_proven && ["input", "output", "forward"].into_iter().all(drops) && rules.all(has_condition)
}
