//! The client address of a request: the connection's, or the one that a trusted proxy reports. A
//! client's own forwarding headers are never trusted.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;
use ipnet::IpNet;

/// Header of proxies that do not support `Forwarded` (RFC 7239).
const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// Headers that identify a proxy.
const OF_PROXIES: [&str; 4] = ["forwarded", X_FORWARDED_FOR, "x-forwarded-proto", "x-forwarded-host"];

/// The trusted proxies.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the proxies in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the address belongs to a trusted proxy.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client address of a request: the nearest hop that is not a trusted proxy.
    ///
    /// A proxy that sets one of the two headers passes the other one on as the client wrote it. So
    /// where both are there and differ, one may be forged: the address is the proxy's own.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.holds(peer) {
            return peer;
        }
        match (headers.contains_key(FORWARDED), headers.contains_key(X_FORWARDED_FOR)) {
            (true, true) => {
                let (forwarded, other) = (self.nearest(peer, forwarded(headers)), self.nearest(peer, listed(headers)));
                if forwarded == other { forwarded } else { peer }
            }
            (true, false) => self.nearest(peer, forwarded(headers)),
            (false, _) => self.nearest(peer, listed(headers)),
        }
    }

    /// The last of the hops that a trusted proxy wrote.
    fn nearest(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for hop in hops.into_iter().rev() {
            // A hop that is not an address ends the chain: no trusted proxy wrote the entries
            // before it.
            let Some(address) = hop else { return nearest };
            nearest = address;
            if !self.holds(address) {
                return nearest;
            }
        }
        nearest
    }
}

/// The header that shows that a proxy forwarded the request, if any.
pub fn of_proxy(headers: &HeaderMap) -> Option<&'static str> {
    OF_PROXIES.into_iter().find(|name| headers.contains_key(*name))
}

/// The headers of proxies in a request, for one that is made in its place.
pub fn sent_by_proxies(headers: &HeaderMap) -> HeaderMap {
    let mut sent = HeaderMap::new();
    for name in OF_PROXIES {
        for value in headers.get_all(name) {
            sent.append(name, value.clone());
        }
    }
    sent
}

fn parts(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|part| part.trim().to_owned()).collect()
}

/// The hops in `Forwarded`, farthest first.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let node = |part: &String| {
        let mut pairs = part.split(';').filter_map(|pair| pair.split_once('='));
        let (_, node) = pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case("for"))?;
        address(node)
    };
    parts(headers, FORWARDED.as_str()).iter().map(node).collect()
}

/// The hops in `X-Forwarded-For`, farthest first.
fn listed(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    parts(headers, X_FORWARDED_FOR).iter().map(|part| address(part)).collect()
}

/// Parses an address with or without port, brackets and quotes.
fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim().trim_matches('"');
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address);
    }
    if let Some(address) = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse().ok();
    }
    node.parse::<SocketAddr>().ok().map(|socket| socket.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(trusted: &[&str], peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted = TrustedProxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        trusted.origin(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_sets_the_client_address() {
        let forged = [("x-forwarded-for", "198.51.100.9")];
        assert_eq!(origin(&[], "203.0.113.7", &forged), "203.0.113.7");
        assert_eq!(origin(&["127.0.0.1/32"], "203.0.113.7", &forged), "203.0.113.7");
        assert_eq!(origin(&["127.0.0.1/32"], "127.0.0.1", &[]), "127.0.0.1");
        for (headers, expected) in [
            // The client wrote the first entry itself.
            (vec![("x-forwarded-for", "10.9.9.9, 203.0.113.7")], "203.0.113.7"),
            (vec![("x-forwarded-for", "203.0.113.7, 10.0.0.2")], "203.0.113.7"),
            (vec![("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "10.0.0.2")], "203.0.113.7"),
            (vec![("x-forwarded-for", "203.0.113.7:4711")], "203.0.113.7"),
            (vec![("x-forwarded-for", "unknown, 10.0.0.2")], "10.0.0.2"),
            (vec![("x-forwarded-for", "198.51.100.1, unknown")], "10.0.0.1"),
            (vec![("forwarded", "for=203.0.113.7;proto=https, For=\"[2001:db8::7]:4711\"")], "2001:db8::7"),
            (vec![("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
            // One of the two is the client's own, and it is not known which.
            (vec![("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "198.51.100.1")], "10.0.0.1"),
            (vec![("forwarded", "for=_hidden")], "10.0.0.1"),
            (vec![("forwarded", "proto=https")], "10.0.0.1"),
        ] {
            assert_eq!(origin(&["10.0.0.0/30"], "10.0.0.1", &headers), expected, "{headers:?}");
        }
    }
}
