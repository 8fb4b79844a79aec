//! The table of an isolated host: its exceptions, as a script for `nft`, and whether a listing of
//! it is tight.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use riposte_protocol::target::WIDEST;
use serde_json::Value;

pub(super) const NAME: &str = "inet riposte_isolate";
/// A chain that is not used by any rule. While it exists, the manager has not answered yet. An
/// agent that restarts in between finds it, treats the isolation as failed, and removes it.
pub(super) const UNPROVEN: &str = "unproven";

/// The exceptions: what an isolated host may still talk to.
#[derive(Debug)]
pub(super) struct Exceptions {
    pub(super) managers: Vec<SocketAddr>,
    pub(super) resolvers: Vec<IpAddr>,
    pub(super) allowed: Vec<IpNet>,
}

impl Exceptions {
    /// The whole table as one transaction, which replaces an older one. Inbound packets are
    /// accepted only for connections that this host opened; forwarding has no exceptions.
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
        // Without DHCP and neighbour discovery the host would lose its address or its router after
        // a while, and so the manager.
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

/// Whether a listing shows three chains that drop by default, no rule that accepts everything, and
/// that the manager has answered.
pub(super) fn is_tight(objects: &[Value]) -> bool {
    let drops = |hook: &str| {
        objects.iter().map(|object| &object["chain"]).any(|chain| {
            chain["name"] == hook && chain["hook"] == hook && chain["policy"] == "drop" && chain["prio"] == -10
        })
    };
    let is_proven = !objects.iter().any(|object| object["chain"]["name"] == UNPROVEN);
    let mut rules = objects.iter().map(|object| &object["rule"]).filter(|rule| rule.is_object());
    is_proven && ["input", "output", "forward"].into_iter().all(drops) && rules.all(is_narrow)
}

/// Whether a rule accepts only what an exception may be about.
fn is_narrow(rule: &Value) -> bool {
    let parts = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let matches: Vec<&Value> = parts.iter().map(|part| &part["match"]).filter(|found| found["op"] == "==").collect();
    let right_of =
        |left: fn(&Value) -> bool| matches.iter().find(|found| left(&found["left"])).map(|found| &found["right"]);
    let is_address = |left: &Value| left["payload"]["field"] == "saddr" || left["payload"]["field"] == "daddr";
    let is_interface = |left: &Value| left["meta"]["key"] == "iif" || left["meta"]["key"] == "oif";
    let is_discovery = |left: &Value| left["payload"]["protocol"] == "icmpv6" && left["payload"]["field"] == "type";
    let is_port_of_dhcp = |found: &&Value| {
        found["left"]["payload"]["protocol"] == "udp" && [67, 68, 546, 547].iter().any(|port| found["right"] == *port)
    };
    right_of(is_interface).is_some_and(|interface| interface == "lo")
        || right_of(is_address).is_some_and(is_narrow_network)
        || right_of(is_discovery).is_some_and(Value::is_object)
        || matches.iter().copied().filter(is_port_of_dhcp).count() == 2
}

fn is_narrow_network(right: &Value) -> bool {
    let address =
        right.as_str().or_else(|| right["prefix"]["addr"].as_str()).and_then(|text| text.parse::<IpAddr>().ok());
    let widest = if address.is_some_and(|address| address.is_ipv4()) { WIDEST.0 } else { WIDEST.1 };
    address.is_some() && right["prefix"]["len"].as_u64().is_none_or(|length| length >= u64::from(widest))
}
