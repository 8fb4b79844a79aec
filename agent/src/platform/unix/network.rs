//! The addresses that this host needs. Routes and resolvers are read as Linux shows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that this host needs, with what each is.
pub fn needed() -> Vec<(IpAddr, &'static str)> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut needed = own_addresses();
    needed.extend(gateways_v4(&text("/proc/net/route")).into_iter().map(|address| (address.into(), GATEWAY)));
    needed.extend(gateways_v6(&text("/proc/net/ipv6_route")).into_iter().map(|address| (address.into(), GATEWAY)));
    // systemd-resolved lists its upstream resolvers in the second file; the first then names
    // only itself.
    for path in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        needed.extend(resolvers(&text(path)).into_iter().map(|address| (address, "a resolver of this host")));
    }
    needed
}

/// Nothing: what an isolated host keeps is read from its own files.
pub fn kept_for_isolation(_needs_names: bool) -> Vec<IpAddr> {
    Vec::new()
}

const GATEWAY: &str = "a gateway of this host";

/// The addresses of this host itself.
pub fn own_addresses() -> Vec<(IpAddr, &'static str)> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut needed = Vec::new();
    for interface in interfaces {
        let own = interface.address.as_ref().and_then(address);
        needed.extend(own.map(|address| (address, "an address of this host")));
        let broadcast = interface.broadcast.as_ref().and_then(address);
        needed.extend(broadcast.map(|address| (address, "the broadcast address of a network of this host")));
    }
    needed
}

fn address(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The next hops in `/proc/net/route`: columns Iface, Destination, Gateway …, addresses as the
/// kernel's own integers.
fn gateways_v4(table: &str) -> Vec<Ipv4Addr> {
    let next_hop = |line: &str| {
        let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
        (gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    };
    table.lines().skip(1).filter_map(next_hop).collect()
}

/// The next hops in `/proc/net/ipv6_route`: the fifth column.
fn gateways_v6(table: &str) -> Vec<Ipv6Addr> {
    let next_hop = |line: &str| {
        let gateway = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
        (gateway != 0).then(|| Ipv6Addr::from(gateway))
    };
    table.lines().filter_map(next_hop).collect()
}

/// The name servers in a `resolv.conf`.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local address has its interface after a `%`.
        address.split('%').next()?.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_resolvers_are_read_as_the_system_writes_them() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(gateways_v4(routes), ["192.0.2.1".parse::<Ipv4Addr>().unwrap()]);
        let routes = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0\n\
                      fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000004 00000000 80200001     eth0\n";
        assert_eq!(gateways_v6(routes), ["fd00::1".parse::<Ipv6Addr>().unwrap()]);
        let text =
            "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver\n";
        let expected: [IpAddr; 2] = ["192.0.2.53".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(resolvers(text), expected);
        assert_eq!(gateways_v4("").len() + gateways_v6("\n").len() + resolvers("").len(), 0, "nothing is no panic");
    }

    #[test]
    fn this_hosts_own_addresses_are_found() {
        let found = own_addresses();
        assert!(found.iter().any(|(address, _)| address.is_loopback()), "{found:?}");
    }
}
