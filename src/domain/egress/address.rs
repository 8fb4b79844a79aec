//! What kind of network an address belongs to. A form that carries an IPv4 address inside an IPv6 one
//! is judged by the address inside, because that is where the packets arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses at which clouds hand out credentials or the configuration of the machine to any program
/// on it. An address of a DNS or time server of a cloud is not among them.
const METADATA: &[IpAddr] = &[
    // AWS, Azure, Google Cloud, OpenStack, Oracle, DigitalOcean, Hetzner, IBM.
    v4(169, 254, 169, 254),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // AWS: credentials of containers (ECS) and of pods (EKS).
    v4(169, 254, 170, 2),
    v4(169, 254, 170, 23),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    // Google Cloud and Oracle by IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    // Oracle's earlier one.
    v4(192, 0, 0, 192),
    // Azure's host: the goal state with its certificates. A public address.
    v4(168, 63, 129, 16),
    // Alibaba, Tencent, Scaleway.
    v4(100, 100, 100, 200),
    v4(169, 254, 0, 23),
    v4(169, 254, 42, 42),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// An address of the Internet.
    Public,
    /// One that only a listed host may have; with the words for it.
    Internal(&'static str),
    /// A metadata service of a cloud: never called.
    Metadata,
}

impl AddressKind {
    /// The kind of `address`.
    pub fn of(address: IpAddr) -> Self {
        if METADATA.contains(&address) {
            return Self::Metadata;
        }
        match address {
            IpAddr::V4(address) => v4_words(address).map_or(Self::Public, Self::Internal),
            IpAddr::V6(address) => match inside(address) {
                Some((inner, outer)) => match Self::of(inner.into()) {
                    Self::Public => outer.map_or(Self::Public, Self::Internal),
                    kind => kind,
                },
                None => v6_words(address).map_or(Self::Public, Self::Internal),
            },
        }
    }
}

/// The address in the form in which it is compared with a list: without IPv6 around an IPv4 address.
pub fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(outer) => inside(outer).map_or(address, |(inner, _)| inner.into()),
        IpAddr::V4(_) => address,
    }
}

/// The IPv4 address that an IPv6 address carries, and the words for the form itself if it is no public
/// one.
fn inside(address: Ipv6Addr) -> Option<(Ipv4Addr, Option<&'static str>)> {
    let octets = address.octets();
    let at = |from: usize| Ipv4Addr::new(octets[from], octets[from + 1], octets[from + 2], octets[from + 3]);
    match address.segments() {
        // Neither of `::` and `::1` is an IPv4 address.
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => None,
        // IPv4-mapped: the socket speaks IPv4. NAT64 by the well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some((at(12), None)),
        // IPv4-translated (RFC 2765) and IPv4-compatible (RFC 4291).
        [0, 0, 0, 0, 0xffff | 0, 0, ..] => Some((at(12), Some("in an obsolete form of IPv4"))),
        // NAT64 by the prefix for local use (RFC 8215).
        [0x64, 0xff9b, 1, ..] => Some((at(12), Some("behind a NAT64 of the site"))),
        // 6to4 (RFC 3056), and Teredo (RFC 4380), which stores the client's address inverted.
        [0x2002, ..] => Some((at(2), Some("a 6to4 address"))),
        [0x2001, 0, ..] => Some((!at(12), Some("a Teredo address"))),
        // ISATAP (RFC 5214), below any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some((at(12), Some("an ISATAP address"))),
        _ => None,
    }
}

fn v4_words(address: Ipv4Addr) -> Option<&'static str> {
    let words = match address.octets() {
        [0, ..] => "unspecified",
        [127, ..] => "loopback: this host itself",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [169, 254, ..] => "link-local",
        [100, 64..=127, ..] => "shared address space (CGNAT)",
        [192, 0, 0, _] | [192, 88, 99, _] => "reserved for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "reserved for documentation",
        [198, 18..=19, ..] => "reserved for benchmarks",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    };
    Some(words)
}

/// Only `2000::/3` is handed out for the Internet (RFC 4291); within it some blocks are not.
fn v6_words(address: Ipv6Addr) -> Option<&'static str> {
    let [first, second, third, ..] = address.segments();
    let words = match first {
        _ if address.is_unspecified() => "unspecified",
        _ if address.is_loopback() => "loopback: this host itself",
        0xfc00..=0xfdff => "unique-local",
        0xfe80..=0xfebf => "link-local",
        0xfec0..=0xfeff => "site-local",
        0xff00..=0xffff => "multicast",
        0x2001 if second == 0xdb8 => "reserved for documentation",
        0x3fff if second < 0x1000 => "reserved for documentation",
        // Benchmarks, ORCHID and other blocks for protocols; 2001:1::/32 has anycast addresses of protocols.
        0x2001 if second < 0x200 && !(second == 4 && third == 0x112) => "reserved for protocols",
        0x2000..=0x3fff => return None,
        _ => "reserved",
    };
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_judged_by_where_its_packets_arrive() {
        let table = [
            ("8.8.8.8", "public"),
            ("2606:4700::1111", "public"),
            ("2001:4860:4860::8888", "public"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("10.0.0.0", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("172.32.0.1", "public"),
            ("172.15.255.255", "public"),
            ("192.168.7.7", "private"),
            ("169.254.1.1", "link-local"),
            ("100.64.0.1", "CGNAT"),
            ("100.127.255.255", "CGNAT"),
            ("100.128.0.1", "public"),
            ("198.19.0.1", "benchmarks"),
            ("203.0.113.7", "documentation"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("fc00::1", "unique-local"),
            ("fdff::1", "unique-local"),
            ("ff02::1", "multicast"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("2001:10::1", "reserved for protocols"),
            ("100::1", "reserved"),
            ("4000::1", "reserved"),
            // IPv4 inside IPv6.
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:8.8.8.8", "public"),
            ("::ffff:0:10.0.0.1", "private"),
            ("::10.0.0.1", "private"),
            ("::8.8.8.8", "obsolete"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b::8.8.8.8", "public"),
            ("64:ff9b:1::8.8.8.8", "NAT64"),
            ("64:ff9b:1::10.0.0.1", "private"),
            ("2002:a00:1::1", "private"),
            ("2002:808:808::1", "6to4"),
            ("2001:0:1::f5ff:fffe", "private"),
            ("2600::5efe:10.0.0.1", "private"),
        ];
        for (text, words) in table {
            let kind = AddressKind::of(text.parse().unwrap());
            let said = match kind {
                AddressKind::Public => "public",
                AddressKind::Internal(words) => words,
                AddressKind::Metadata => "metadata",
            };
            assert!(said.contains(words), "{text}: {said}, expected {words}");
        }
    }

    #[test]
    fn a_metadata_service_is_one_in_every_form() {
        for text in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "192.0.0.192",
            "168.63.129.16",
            "100.100.100.200",
            "169.254.0.23",
            "169.254.42.42",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(AddressKind::of(text.parse().unwrap()), AddressKind::Metadata, "{text}");
        }
        assert_eq!(plain("::ffff:10.0.0.1".parse().unwrap()), v4(10, 0, 0, 1));
    }
}
