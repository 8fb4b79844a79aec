//! Isolation on Windows: rules of its firewall that block every address but a few. A rule that blocks
//! is stronger there than every rule that allows, so the exceptions are what is left out of the
//! blocked ranges, and the host's own rules stay as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::error::failure;
use super::super::recipe::Check;
use super::super::{ActionError, Attempt, netsh};
use super::manager::answers;
use super::table::Exceptions;
use crate::runner::Program;

/// The rules' name once the manager has answered the isolated host.
const NAME: &str = "Riposte isolate-host";
/// Until then. An agent that restarts in between finds them, treats the isolation as failed, and
/// removes them.
const UNPROVEN: &str = "Riposte unproven isolation";
/// In and out: IPv4, IPv6, and TCP and UDP on the link by IPv6.
const RULES: usize = 8;
/// What is left out of the blocked ranges for neighbour discovery, and is blocked for all else but DHCP.
const LINK_V6: &str = "remoteip=fe80::/10,ff02::/16";
/// Without these the host would lose its address or its router after a while: what is asked of all
/// hosts of the link, and neighbour discovery.
const LINK: [&str; 4] = ["0.0.0.0/32", "255.255.255.255/32", "fe80::/10", "ff02::/16"];

/// Brings the rules into force, and proves that the manager answers.
pub(super) async fn apply(attempt: &Attempt<'_>, exceptions: &Exceptions) -> Result<(), ActionError> {
    remove(attempt).await?;
    for program in add(exceptions) {
        if let Err(error) = attempt.run(&program).await {
            remove(attempt).await?;
            return Err(error);
        }
    }
    if answers(&exceptions.managers).await {
        return attempt.run(&prove()).await.map(drop);
    }
    tracing::warn!("the manager does not answer the isolated host: the isolation is removed");
    let reason = "the manager does not answer the isolated host";
    Err(ActionError::Failed(match remove(attempt).await {
        Ok(()) => format!("{reason}; it is removed again"),
        Err(error) => format!("{reason}, and it cannot be removed: {error}"),
    }))
}

/// Whether all rules are there and proven, and the firewall is on.
pub(super) async fn is_in_force(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let show = show(NAME);
    let exit = attempt.look(&show).await?;
    if exit.code == 1 {
        return Ok(false);
    }
    if !exit.is_success() {
        return Err(failure(&show, &exit));
    }
    // The words around a rule's name are in the system's language; the name is not.
    if exit.stdout.matches(NAME).count() != RULES {
        return Ok(false);
    }
    Check::all(&netsh::is_on(), attempt).await
}

/// Whether no rule is left, proven or not.
pub(super) async fn is_lifted(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    for name in [NAME, UNPROVEN] {
        let show = show(name);
        match attempt.look(&show).await? {
            exit if exit.code == 1 => {}
            exit if exit.is_success() => return Ok(false),
            exit => return Err(failure(&show, &exit)),
        }
    }
    Ok(true)
}

/// Removes the rules.
pub(super) async fn remove(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for program in removal() {
        // It fails where there is no rule; what counts is the look afterwards.
        attempt.look(&program).await?;
    }
    if is_lifted(attempt).await? {
        return Ok(());
    }
    Err(ActionError::Failed("rules of the isolation are still in Windows' firewall".into()))
}

/// The programs that remove the rules.
pub(super) fn removal() -> [Program; 2] {
    [NAME, UNPROVEN].map(|name| rule("delete", name))
}

/// The programs that add them.
pub(super) fn add(exceptions: &Exceptions) -> Vec<Program> {
    let left_out = exceptions.networks();
    let block = |direction: &str, ranges: &str| {
        rule("add", UNPROVEN).arguments(&[direction, "action=block", &format!("remoteip={ranges}")])
    };
    let (v4, v6) = (others_v4(&left_out), others_v6(&left_out));
    let ways = ["dir=in", "dir=out"];
    let ranges = [&v4, &v6].into_iter().flat_map(|ranges| ways.map(|way| block(way, ranges)));
    let link = |way: &str| rule("add", UNPROVEN).arguments(&[way, "action=block", LINK_V6]);
    let tcp = ways.map(|way| link(way).arguments(&["protocol=tcp"]));
    let udp = ways.map(|way| link(way).arguments(&["protocol=udp", "remoteport=0-546,548-65535"]));
    ranges.chain(tcp).chain(udp).collect()
}

/// The program that gives the rules their name.
pub(super) fn prove() -> Program {
    rule("set", UNPROVEN).arguments(&["new", &format!("name={NAME}")])
}

fn show(name: &str) -> Program {
    rule("show", name)
}

fn rule(verb: &str, name: &str) -> Program {
    Program::new("netsh.exe", ["advfirewall", "firewall", verb, "rule", &format!("name={name}")])
}

impl Exceptions {
    /// Everything that stays reachable.
    fn networks(&self) -> Vec<IpNet> {
        let managers = self.managers.iter().map(|manager| IpNet::from(manager.ip()));
        let resolvers = self.resolvers.iter().copied().map(IpNet::from);
        let link = LINK.iter().filter_map(|network| network.parse().ok());
        managers.chain(resolvers).chain(self.allowed.iter().copied()).chain(link).collect()
    }
}

/// All IPv4 addresses but those of `left_out`, as ranges.
fn others_v4(left_out: &[IpNet]) -> String {
    let ranges = left_out.iter().filter_map(|network| match network {
        IpNet::V4(network) => Some((u32::from(network.network()).into(), u32::from(network.broadcast()).into())),
        IpNet::V6(_) => None,
    });
    let text = |number: u128| {
        u32::try_from(number).map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |number| Ipv4Addr::from(number).into())
    };
    complement(ranges.collect(), u32::MAX.into(), text)
}

/// The same for IPv6.
fn others_v6(left_out: &[IpNet]) -> String {
    let ranges = left_out.iter().filter_map(|network| match network {
        IpNet::V6(network) => Some((u128::from(network.network()), u128::from(network.broadcast()))),
        IpNet::V4(_) => None,
    });
    complement(ranges.collect(), u128::MAX, |number| Ipv6Addr::from(number).into())
}

/// The ranges between `ranges`, from 0 to `last`.
fn complement(mut ranges: Vec<(u128, u128)>, last: u128, text: impl Fn(u128) -> IpAddr) -> String {
    ranges.sort_unstable();
    let (mut next, mut between) = (Some(0), Vec::new());
    for (first, end) in ranges {
        let Some(from) = next else { break };
        if first > from {
            between.push((from, first - 1));
        }
        // Ranges may overlap.
        next = if end >= last { None } else { Some(from.max(end + 1)) };
    }
    between.extend(next.map(|from| (from, last)));
    between.into_iter().map(|(from, to)| format!("{}-{}", text(from), text(to))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_exceptions_is_blocked() {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        assert_eq!(others_v4(&networks(&["192.0.2.7/32"])), "0.0.0.0-192.0.2.6,192.0.2.8-255.255.255.255");
        assert_eq!(
            others_v4(&networks(&["10.0.0.0/16", "10.0.5.0/24", "255.255.255.255/32", "0.0.0.0/32"])),
            "0.0.0.1-9.255.255.255,10.1.0.0-255.255.255.254"
        );
        assert_eq!(others_v4(&networks(&["::1/128"])), "0.0.0.0-255.255.255.255", "the other family");
        assert_eq!(
            others_v6(&networks(&["fe80::/10", "ff02::/16", "2001:db8::7/128"])),
            "::-2001:db8::6,2001:db8::8-fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff,\
             fec0::-ff01:ffff:ffff:ffff:ffff:ffff:ffff:ffff,ff03::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        let exceptions = Exceptions {
            managers: vec!["192.0.2.7:8443".parse().unwrap()],
            resolvers: vec!["192.0.2.53".parse().unwrap()],
            allowed: networks(&["198.51.100.0/24"]),
        };
        let programs: Vec<String> = add(&exceptions).iter().map(Program::text).collect();
        assert_eq!(programs.len(), RULES);
        assert_eq!(
            programs[0],
            "netsh.exe advfirewall firewall add rule 'name=Riposte unproven isolation' dir=in action=block \
             remoteip=0.0.0.1-192.0.2.6,192.0.2.8-192.0.2.52,192.0.2.54-198.51.99.255,198.51.101.0-255.255.255.254"
        );
        assert_eq!(
            prove().text(),
            "netsh.exe advfirewall firewall set rule 'name=Riposte unproven isolation' new 'name=Riposte isolate-host'"
        );
    }
}
