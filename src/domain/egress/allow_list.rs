//! `[egress] allow`: hosts and networks that the manager may call although their addresses are internal.
//! A public address needs no entry, and no entry opens a metadata service.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::address::{AddressKind, plain};

/// Maximum length of a host name.
const MAX_NAME: usize = 253;

/// Why an entry is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} {why}")]
pub struct AllowFault {
    /// The entry.
    pub entry: String,
    /// What is wrong, and what to write.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// This name.
    Name(String),
    /// Every name below this domain, at any depth; not the domain itself.
    Below(String),
    /// Every host whose address is in this network.
    Network(IpNet),
}

/// An entry: hosts, and the port if only that one may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

/// What the configuration lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Entry>);

/// Where a call goes: a host as it was written, and the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    host: String,
    port: u16,
}

impl Destination {
    /// The host, a name or an address with or without brackets, and the port.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: normal(host), port }
    }

    /// The host: a name in lower case, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address, if the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the manager may connect to it at `address`.
    ///
    /// # Errors
    /// [`EgressRefusal`].
    pub fn check(&self, address: IpAddr, allowed: &AllowList) -> Result<(), EgressRefusal> {
        let kind = AddressKind::of(address);
        match kind {
            AddressKind::Public => Ok(()),
            AddressKind::Internal(_) if allowed.lists(self, address) => Ok(()),
            AddressKind::Internal(_) | AddressKind::Metadata => {
                Err(EgressRefusal { destination: self.clone(), address, kind })
            }
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why the manager does not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRefusal {
    destination: Destination,
    address: IpAddr,
    kind: AddressKind,
}

impl std::error::Error for EgressRefusal {}

impl fmt::Display for EgressRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destination, address, kind } = self;
        write!(f, "refusing to call {destination}: its address ")?;
        if destination.address().is_none() {
            write!(f, "{address} ")?;
        }
        match kind {
            AddressKind::Metadata => {
                write!(f, "is a cloud's metadata service, which hands out credentials; no setting allows that")
            }
            AddressKind::Internal(words) => write!(
                f,
                "is internal ({words}); if it is meant, add \"{destination}\" to allow in the configuration's [egress]"
            ),
            AddressKind::Public => write!(f, "is public"),
        }
    }
}

impl AllowList {
    /// Parses the entries of a configuration.
    ///
    /// # Errors
    /// The first entry that is none.
    pub fn parse(entries: &[String]) -> Result<Self, AllowFault> {
        let parse =
            |text: &String| Entry::parse(text.trim()).map_err(|why| AllowFault { entry: text.trim().to_owned(), why });
        entries.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// This list with one more host, which an administrator has written elsewhere in the configuration.
    #[must_use]
    pub fn with(&self, destination: &Destination) -> Self {
        let hosts = match destination.address() {
            Some(address) => Hosts::Network(plain(address).into()),
            None => Hosts::Name(destination.host.clone()),
        };
        let mut list = self.clone();
        list.0.push(Entry { hosts, port: Some(destination.port) });
        list
    }

    /// Whether an entry has this host at this address.
    fn lists(&self, destination: &Destination, address: IpAddr) -> bool {
        let is_host = |hosts: &Hosts| match hosts {
            Hosts::Name(name) => *name == destination.host,
            Hosts::Below(domain) => {
                destination.host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Hosts::Network(network) => network.contains(&plain(address)),
        };
        self.0.iter().any(|entry| entry.port.is_none_or(|port| port == destination.port) && is_host(&entry.hosts))
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("is a URL: write only its host, or HOST:PORT".into());
        }
        if let Some((_, length)) = text.split_once('/') {
            let network: IpNet = text.parse().map_err(|_| {
                if length.contains(':') {
                    "is a network with a port: list the network, or addresses with the port".to_owned()
                } else {
                    "is no network such as 10.0.0.0/8".to_owned()
                }
            })?;
            if network.trunc() != network {
                return Err(format!("has bits behind its mask: write {}", network.trunc()));
            }
            return Ok(Self { hosts: Hosts::Network(network), port: None });
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Self::of_address(address, None);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse::<u16>().ok().filter(|port| *port != 0);
                (host, Some(port.ok_or("has no port from 1 to 65535 after its ':'")?))
            }
            None => (text, None),
        };
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() || is_bracketed => return Self::of_address(address, port),
            Ok(_) => return Err("is an IPv6 address without brackets: write [ADDRESS]:PORT".into()),
            Err(_) => {}
        }
        let (domain, is_below) = host.strip_prefix("*.").map_or((host, false), |domain| (domain, true));
        let domain = normal(domain);
        if !is_host_name(&domain) {
            return Err("is none of HOST, HOST:PORT, *.DOMAIN, an address, ADDRESS:PORT or a network".into());
        }
        Ok(Self { hosts: if is_below { Hosts::Below(domain) } else { Hosts::Name(domain) }, port })
    }

    fn of_address(address: IpAddr, port: Option<u16>) -> Result<Self, String> {
        if AddressKind::of(address) == AddressKind::Metadata {
            return Err("is a cloud's metadata service, which no setting allows".into());
        }
        Ok(Self { hosts: Hosts::Network(plain(address).into()), port })
    }
}

/// A host in the form in which hosts are compared.
fn normal(host: &str) -> String {
    let host = host.trim_matches(['[', ']']);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether this is a name: labels of letters, digits, '-' and '_'. A last label of digits would be read as
/// an address by some resolvers.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= MAX_NAME && text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn an_entry_opens_its_hosts_and_no_others() {
        let table = [
            ("chat.corp.example", "chat.corp.example", 443, "10.0.0.1", true),
            ("chat.corp.example", "CHAT.corp.example.", 443, "10.0.0.1", true),
            ("chat.corp.example", "other.corp.example", 443, "10.0.0.1", false),
            ("chat.corp.example:8443", "chat.corp.example", 8443, "10.0.0.1", true),
            ("chat.corp.example:8443", "chat.corp.example", 443, "10.0.0.1", false),
            ("*.corp.example", "chat.corp.example", 443, "10.0.0.1", true),
            ("*.corp.example", "a.b.corp.example", 443, "fd00::1", true),
            ("*.corp.example", "corp.example", 443, "10.0.0.1", false),
            ("*.corp.example", "evilcorp.example", 443, "10.0.0.1", false),
            ("*.corp.example:443", "chat.corp.example", 80, "10.0.0.1", false),
            ("10.0.0.0/8", "any.example", 443, "10.1.2.3", true),
            ("10.0.0.0/8", "any.example", 443, "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "any.example", 443, "192.168.0.1", false),
            ("10.0.0.5", "any.example", 443, "10.0.0.5", true),
            ("10.0.0.5:443", "10.0.0.5", 80, "10.0.0.5", false),
            ("[fd00::5]:443", "[fd00::5]", 443, "fd00::5", true),
            ("fd00::/8", "any.example", 443, "fd12::1", true),
            ("fd00::/8", "any.example", 443, "fd00:ec2::254", false),
            ("169.254.0.0/16", "any.example", 80, "169.254.169.254", false),
            ("0.0.0.0/0", "any.example", 80, "100.100.100.200", false),
            ("localhost", "localhost", 80, "127.0.0.1", true),
            ("localhost", "127.0.0.1", 80, "127.0.0.1", false),
        ];
        for (entry, host, port, address, is_open) in table {
            let checked = Destination::new(host, port).check(address.parse().unwrap(), &list(&[entry]));
            assert_eq!(checked.is_ok(), is_open, "{entry}: {host}:{port} at {address}: {checked:?}");
        }
    }

    #[test]
    fn an_entry_that_is_none_is_refused_with_what_to_write() {
        for (entry, why) in [
            ("", "is none of HOST"),
            ("*", "is none of HOST"),
            ("*.", "is none of HOST"),
            ("a.*.example", "is none of HOST"),
            ("https://chat.example", "is a URL"),
            ("chat.example/hooks", "is no network"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("10.0.0.0/33", "is no network"),
            ("10.0.0.0/8:443", "a network with a port"),
            ("chat.example:0", "no port"),
            ("chat.example:", "no port"),
            ("10.0.0", "is none of HOST"),
            ("0x7f.1", "is none of HOST"),
            ("a b", "is none of HOST"),
            ("169.254.169.254", "metadata"),
            ("[::ffff:169.254.169.254]:80", "metadata"),
        ] {
            let fault = AllowList::parse(&[entry.to_owned()]).unwrap_err().to_string();
            assert!(fault.contains(why), "{entry}: {fault}");
        }
    }

    #[test]
    fn a_refusal_names_the_host_the_address_and_the_setting() {
        let refusal = |host: &str, address: &str| {
            let checked = Destination::new(host, 443).check(address.parse().unwrap(), &AllowList::default());
            checked.unwrap_err().to_string()
        };
        assert_eq!(
            refusal("chat.corp.example", "10.0.0.5"),
            "refusing to call chat.corp.example:443: its address 10.0.0.5 is internal (private); if it is meant, add \
             \"chat.corp.example:443\" to allow in the configuration's [egress]"
        );
        let metadata = refusal("x.example", "169.254.169.254");
        assert!(metadata.contains("no setting allows") && metadata.contains("x.example"), "{metadata}");
        assert!(refusal("[fd00::1]", "fd00::1").contains("add \"[fd00::1]:443\""));
        let open = AllowList::default().with(&Destination::new("sso.corp.example", 8443));
        let at = |host: &str, port| Destination::new(host, port).check("10.0.0.1".parse().unwrap(), &open).is_ok();
        assert_eq!(
            (at("sso.corp.example", 8443), at("sso.corp.example", 80), at("b.example", 8443)),
            (true, false, false)
        );
    }
}
