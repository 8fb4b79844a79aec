//! Protected entries: addresses, networks, accounts, files, processes, hosts and agents that no
//! response, or no response of some policies, may touch. The same check runs when a response is
//! decided, when a command is delivered, and, for existing effects, when an entry is added (promise
//! 7).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use riposte_protocol::account::{Account, fold_case};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::effect::Until;

/// What an entry protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covered {
    /// Every address of a network; a single address is a network of one.
    Network(IpNet),
    /// An account, ignoring case and notation: `alice` includes `CORP\alice` and `alice@corp`.
    User(String),
    /// A file, or a folder with its subtree.
    File(String),
    /// A process id.
    Process(String),
    /// An agent's host: actions on it are allowed, isolation is not.
    Host(Uuid),
    /// Everything on an agent.
    Agent(Uuid),
}

/// Why a text cannot be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoveredError {
    /// Not an address or network.
    #[error("is not an address or a network such as 203.0.113.0/24")]
    Network,
    /// A network with host bits set, which is often a typing error.
    #[error("is not a network: host bits are set")]
    HostBits,
    /// Not an account.
    #[error("is not an account name: printable characters, 256 bytes at most")]
    User,
    /// Not a path.
    #[error("is not an absolute path without '.' or '..' parts")]
    File,
    /// Not a process id.
    #[error("is not a process number above 1")]
    Process,
    /// Not an enrolled agent.
    #[error("is not the id or name of an enrolled agent")]
    Agent,
}

impl Covered {
    /// Parses an address or network; IPv4-mapped ones (`::ffff:…`) become IPv4.
    ///
    /// # Errors
    /// If it is neither.
    pub fn network(text: &str) -> Result<Self, CoveredError> {
        let text = text.trim();
        if let Ok(target) = Target::parse(TargetKind::Ip, text) {
            return target.network().map(Self::Network).ok_or(CoveredError::Network);
        }
        let net: IpNet = text.parse().map_err(|_| CoveredError::Network)?;
        let net = match net {
            IpNet::V6(v6) => match v6.addr().to_ipv4_mapped() {
                Some(v4) if v6.prefix_len() >= 96 => {
                    IpNet::new(IpAddr::V4(v4), v6.prefix_len() - 96).map_err(|_| CoveredError::Network)?
                }
                _ => net,
            },
            IpNet::V4(_) => net,
        };
        if net.trunc() == net { Ok(Self::Network(net)) } else { Err(CoveredError::HostBits) }
    }

    /// Parses an account name.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn user(text: &str) -> Result<Self, CoveredError> {
        let target = Target::account(text.trim()).map_err(|_| CoveredError::User)?;
        Ok(Self::User(fold_case(target.value())))
    }

    /// Parses the path of a file or folder.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn file(text: &str) -> Result<Self, CoveredError> {
        let target = Target::parse(TargetKind::File, text).map_err(|_| CoveredError::File)?;
        Ok(Self::File(target.value().to_owned()))
    }

    /// Parses a process id.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn process(text: &str) -> Result<Self, CoveredError> {
        let target = Target::parse(TargetKind::Process, text.trim()).map_err(|_| CoveredError::Process)?;
        Ok(Self::Process(target.value().to_owned()))
    }

    /// Name of its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Network(_) => "ip",
            Self::User(_) => "user",
            Self::File(_) => "file",
            Self::Process(_) => "process",
            Self::Host(_) => "host",
            Self::Agent(_) => "agent",
        }
    }

    /// The canonical text.
    pub fn value(&self) -> String {
        match self {
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Self::Network(net) => net.to_string(),
            Self::User(text) | Self::File(text) | Self::Process(text) => text.clone(),
            Self::Host(id) | Self::Agent(id) => id.to_string(),
        }
    }
}

/// A path as it is compared with others, with `/` between its parts. Windows does not tell capitals
/// from small letters.
fn as_compared(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { path.to_lowercase().replace('\\', "/") }
}

/// A protected entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedEntry {
    /// UUIDv7.
    pub id: Uuid,
    /// What it protects.
    pub covered: Covered,
    /// Policies that it applies to; empty: every response.
    pub policies: Vec<String>,
    /// End of the protection.
    pub until: Until,
    /// Reason that the operator entered.
    pub reason: String,
}

impl ProtectedEntry {
    /// Whether it stops a response of `policy` (`None`: manual) at `now`.
    pub fn stops(&self, policy: Option<&str>, now: Timestamp) -> bool {
        let concerned = self.policies.is_empty() || policy.is_some_and(|name| self.policies.iter().any(|p| p == name));
        concerned && !self.until.is_over(now)
    }
}

impl ProtectedEntry {
    /// The same entry for the responses of every policy.
    fn for_everything(&self) -> Self {
        Self { policies: Vec::new(), ..self.clone() }
    }
}

/// All entries, with lookups in constant time. Immutable, replaced as a whole.
#[derive(Debug, Default)]
pub struct ProtectedSet {
    /// By prefix length (IPv4 first), then by network.
    networks: BTreeMap<(bool, u8), HashMap<IpNet, Vec<ProtectedEntry>>>,
    /// By name without realm.
    users: HashMap<String, Vec<(Account, ProtectedEntry)>>,
    files: HashMap<String, Vec<ProtectedEntry>>,
    processes: HashMap<String, Vec<ProtectedEntry>>,
    hosts: HashMap<Uuid, Vec<ProtectedEntry>>,
    agents: HashMap<Uuid, Vec<ProtectedEntry>>,
}

impl ProtectedSet {
    /// Builds the lookups.
    pub fn new(entries: Vec<ProtectedEntry>) -> Self {
        let mut set = Self::default();
        for entry in entries {
            match entry.covered.clone() {
                Covered::Network(net) => {
                    let of_length = set.networks.entry((net.addr().is_ipv6(), net.prefix_len())).or_default();
                    of_length.entry(net).or_default().push(entry);
                }
                Covered::User(name) => {
                    let account = Account::of(&name);
                    set.users.entry(account.name().to_owned()).or_default().push((account, entry));
                }
                Covered::File(path) => set.files.entry(as_compared(&path)).or_default().push(entry),
                Covered::Process(number) => set.processes.entry(number).or_default().push(entry),
                Covered::Host(id) => set.hosts.entry(id).or_default().push(entry),
                Covered::Agent(id) => set.agents.entry(id).or_default().push(entry),
            }
        }
        set
    }

    /// The entry that protects `target` from a response of `policy`, if any.
    pub fn target(&self, target: &Target, policy: Option<&str>, now: Timestamp) -> Option<&ProtectedEntry> {
        let stops = |entries: &&Vec<ProtectedEntry>| entries.iter().any(|entry| entry.stops(policy, now));
        let found = match target.kind() {
            TargetKind::User => {
                let wanted = Account::of(target.value());
                let mut entries = self.users.get(wanted.name()).into_iter().flatten();
                let hit = entries.find(|(account, entry)| account.may_be(&wanted) && entry.stops(policy, now));
                return hit.map(|(_, entry)| entry);
            }
            TargetKind::Ip => {
                let wanted = target.network()?;
                let alike = self.networks.iter().filter(|((is_v6, _), _)| *is_v6 == wanted.addr().is_ipv6());
                // Equal or wider networks are looked up directly; narrower ones are within the
                // target.
                let mut hits = alike.flat_map(|((_, prefix), of_length)| {
                    let around = IpNet::new(wanted.addr(), *prefix).ok().map(|network| network.trunc());
                    let is_wider = *prefix <= wanted.prefix_len();
                    let hit = around.filter(|_| is_wider).and_then(|network| of_length.get(&network));
                    let within = of_length.iter().filter(move |(network, _)| !is_wider && wanted.contains(*network));
                    hit.into_iter().chain(within.map(|(_, entries)| entries))
                });
                hits.find(stops)
            }
            TargetKind::File => {
                let path = as_compared(target.value());
                let folders = path.match_indices('/').map(|(end, _)| &path[..end.max(1)]).chain([path.as_str()]);
                folders.filter_map(|folder| self.files.get(folder)).find(stops)
            }
            TargetKind::Process => self.processes.get(target.value()).filter(stops),
            TargetKind::Host | TargetKind::None => None,
        };
        found?.iter().find(|entry| entry.stops(policy, now))
    }

    /// All entries that cover `target`, also those for some policies only. It reads every entry: nothing on the
    /// way of an alert may call it.
    pub fn covering(&self, target: &Target, now: Timestamp) -> Vec<&ProtectedEntry> {
        let networks = self.networks.values().flat_map(HashMap::values).flatten();
        let accounts = self.users.values().flatten().map(|(_, entry)| entry);
        let others = self.files.values().chain(self.processes.values()).flatten();
        let covers = |entry: &&ProtectedEntry| {
            !entry.until.is_over(now) && Self::new(vec![entry.for_everything()]).target(target, None, now).is_some()
        };
        networks.chain(accounts).chain(others).filter(covers).collect()
    }

    /// The entry that protects an agent from a response of `policy` on a target of `kind`, if any.
    pub fn agent(
        &self,
        agent: Uuid,
        kind: TargetKind,
        policy: Option<&str>,
        now: Timestamp,
    ) -> Option<&ProtectedEntry> {
        let hosts = self.hosts.get(&agent).filter(|_| kind == TargetKind::Host);
        let mut entries = self.agents.get(&agent).into_iter().chain(hosts).flatten();
        entries.find(|entry| entry.stops(policy, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn entry(covered: Covered) -> ProtectedEntry {
        ProtectedEntry { id: Uuid::nil(), covered, policies: vec![], until: Until::Never, reason: "because".into() }
    }

    fn ip(text: &str) -> Target {
        Target::parse(TargetKind::Ip, text).unwrap()
    }

    #[test]
    fn a_folder_of_windows_protects_what_is_in_it_in_any_case_of_letters() {
        let entry = ProtectedEntry {
            id: Uuid::nil(),
            covered: Covered::file(r"C:\Program Files\Line").unwrap(),
            policies: Vec::new(),
            until: Until::Never,
            reason: "the line".into(),
        };
        let set = ProtectedSet::new(vec![entry]);
        let protects = |path: &str| {
            let target = Target::parse(TargetKind::File, path).unwrap();
            set.target(&target, None, Timestamp::from_millis(0)).is_some()
        };
        assert!(protects(r"c:\program files\LINE\x.exe") && protects(r"C:\Program Files\Line"));
        assert!(!protects(r"C:\Program Files\Lines\x.exe") && !protects(r"D:\Program Files\Line\x.exe"));
        assert!(!protects("/Program Files/Line/x.exe"));
    }

    #[test]
    fn networks_cover_their_addresses_in_every_notation() {
        let nets = ["10.0.0.0/8", "203.0.113.7", "2001:db8::/32", "::ffff:192.0.2.0/120", "::/0"];
        let set = ProtectedSet::new(nets.iter().map(|net| entry(Covered::network(net).unwrap())).collect());
        for covered in ["10.255.0.1", "::ffff:10.0.0.1", "203.0.113.7", "2001:db8:1::1", "192.0.2.200", "2001:dead::1"]
        {
            assert!(set.target(&ip(covered), None, NOW).is_some(), "{covered}");
        }
        for open in ["11.0.0.1", "203.0.113.8", "192.0.3.1"] {
            assert!(set.target(&ip(open), None, NOW).is_none(), "{open}");
        }
        for (network, covered) in [("203.0.113.0/24", true), ("10.1.0.0/16", true), ("203.0.112.0/24", false)] {
            let target = Target::parse_network(network).unwrap();
            assert_eq!(set.target(&target, None, NOW).is_some(), covered, "{network}");
        }
    }

    #[test]
    fn an_entry_is_one_network_and_nothing_else() {
        assert_eq!(Covered::network("203.0.113.7/24"), Err(CoveredError::HostBits));
        for text in ["", "any", "10.0.0.0/33", "10.0.0/8", "0177.1", "fe80::1%eth0"] {
            assert_eq!(Covered::network(text), Err(CoveredError::Network), "{text}");
        }
        assert_eq!(Covered::network("::ffff:192.0.2.0/120").unwrap().value(), "192.0.2.0/24");
        assert_eq!(Covered::network("2001:DB8::1").unwrap().value(), "2001:db8::1");
    }

    #[test]
    fn an_entry_can_be_for_some_policies_and_for_a_time() {
        let covered = Covered::network("203.0.113.7").unwrap();
        let for_p = ProtectedEntry { policies: vec!["p".into()], ..entry(covered.clone()) };
        let over = ProtectedEntry { until: Until::At(NOW), ..entry(covered) };
        let target = ip("203.0.113.7");
        let set = ProtectedSet::new(vec![for_p]);
        assert!(set.target(&target, Some("p"), NOW).is_some());
        assert!(set.target(&target, Some("q"), NOW).is_none() && set.target(&target, None, NOW).is_none());
        let set = ProtectedSet::new(vec![over]);
        assert!(set.target(&target, None, NOW).is_none());
        assert!(set.target(&target, None, NOW.minus(std::time::Duration::from_millis(1))).is_some());
    }

    #[test]
    fn accounts_are_protected_in_every_notation() {
        let covered = ["Deploy", "CORP\\Alice", " müller ", "Σ"].map(|name| entry(Covered::user(name).unwrap()));
        let set = ProtectedSet::new(covered.to_vec());
        let stops = |name: &str| set.target(&Target::account(name).unwrap(), None, NOW).is_some();
        for name in [
            "DEPLOY",
            "corp\\deploy",
            "deploy@corp.example",
            "alice",
            "alice@corp.example",
            "corp\\ALICE",
            "MÜLLER",
            "x\\Müller",
            "corp:Σ",
        ] {
            assert!(stops(name), "{name}");
        }
        for name in ["deploy2", "OTHER\\alice", "alice@other.example", "CORP\\bob", "muller"] {
            assert!(!stops(name), "{name}");
        }
    }

    #[test]
    fn a_folder_covers_what_is_below_it_and_a_host_only_itself() {
        let host = Uuid::from_u128(1);
        let covered = [Covered::file("/srv/www").unwrap(), Covered::process("4711").unwrap(), Covered::Host(host)];
        let set = ProtectedSet::new(covered.into_iter().map(entry).collect());
        let stops = |kind, value| set.target(&Target::parse(kind, value).unwrap(), None, NOW).is_some();
        assert!(stops(TargetKind::File, "/srv/www") && stops(TargetKind::File, "/srv/www/a/b"));
        assert!(!stops(TargetKind::File, "/srv/www2") && !stops(TargetKind::File, "/srv"));
        assert!(stops(TargetKind::Process, "4711") && !stops(TargetKind::Process, "471"));
        assert!(set.agent(host, TargetKind::Host, None, NOW).is_some());
        assert!(set.agent(host, TargetKind::Ip, None, NOW).is_none());
    }

    proptest::proptest! {
        /// The lookup must return what trying every network returns.
        #[test]
        fn the_lookup_agrees_with_trying_everything(nets in proptest::collection::vec((0u32.., 0u8..33), 0..20), address: u32) {
            let nets: Vec<IpNet> = nets.iter().map(|(bits, len)| IpNet::new(IpAddr::V4((*bits).into()), *len).unwrap().trunc()).collect();
            let set = ProtectedSet::new(nets.iter().map(|net| entry(Covered::Network(*net))).collect());
            let address = IpAddr::V4(address.into());
            let target = ip(&address.to_string());
            let plain = nets.iter().any(|net| net.contains(&address));
            proptest::prop_assert_eq!(set.target(&target, None, NOW).is_some(), plain);
        }
    }
}
