//! Feeds: lists of addresses in force that firewalls and bouncers fetch. Here is what a feed selects of the
//! blocks in the ledger; `feed_list.rs` is the list over time. Pure: the clock and the ledger are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::effect::Until;
use super::fault::Fault;
use super::fleet::Fleet;
use super::protected::ProtectedSet;
use super::scope::is_like;

/// Actions that block an address, which a feed lists unless it names others. `log-only` and marker files are
/// no blocks.
pub const BLOCKING_ACTIONS: [&str; 8] =
    ["firewall-drop", "firewalld-drop", "host-deny", "ipfw", "netsh", "npf", "pf", "route-null"];

/// Most entries of a feed.
pub const MAX_ENTRIES: u32 = 1_000_000;
/// Most names, patterns or labels in one filter.
pub const MAX_FILTERS: usize = 64;
/// Longest minimum of the time left.
pub const MAX_MIN_LEFT: Duration = Duration::from_hours(24);
/// Expected interval of a feed that names none.
pub const DEFAULT_INTERVAL: Duration = Duration::from_mins(10);

/// The form in which a feed is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedForm {
    /// One address or network a line.
    #[default]
    Plain,
    /// An external dynamic list of PAN-OS.
    Panos,
    /// An external resource of `FortiGate`.
    Fortigate,
    /// A URL table of `OPNsense`.
    Opnsense,
    /// A script of `RouterOS` that replaces an address list.
    Mikrotik,
    /// `deny` lines of nginx.
    Nginx,
    /// Lines of a `geo` block of nginx.
    NginxGeo,
    /// A file of an ACL of `HAProxy`.
    Haproxy,
    /// A map of `HAProxy`, from the address to the policy.
    HaproxyMap,
    /// `CrowdSec`'s API for bouncers, at `/crowdsec`.
    Crowdsec,
    /// A collection of indicators in STIX, at `/taxii2`.
    Taxii,
}

impl FeedForm {
    /// All forms.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Panos,
        Self::Fortigate,
        Self::Opnsense,
        Self::Mikrotik,
        Self::Nginx,
        Self::NginxGeo,
        Self::Haproxy,
        Self::HaproxyMap,
        Self::Crowdsec,
        Self::Taxii,
    ];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Panos => "panos",
            Self::Fortigate => "fortigate",
            Self::Opnsense => "opnsense",
            Self::Mikrotik => "mikrotik",
            Self::Nginx => "nginx",
            Self::NginxGeo => "nginx_geo",
            Self::Haproxy => "haproxy",
            Self::HaproxyMap => "haproxy_map",
            Self::Crowdsec => "crowdsec",
            Self::Taxii => "taxii",
        }
    }

    /// Parses a form's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.as_str() == word)
    }

    /// Whether consumers are told when each entry ends, and so lift it by themselves.
    pub const fn tells_ends(self) -> bool {
        matches!(self, Self::Crowdsec | Self::Mikrotik | Self::Taxii)
    }

    /// Whether a consumer asks for what has changed, in an API of its own: what it reads at `/feeds` does not count as told.
    pub const fn tells_changes(self) -> bool {
        matches!(self, Self::Crowdsec | Self::Taxii)
    }

    /// Entries of a feed that names no maximum. Smaller than what the usual device of that kind takes.
    pub const fn default_max_entries(self) -> u32 {
        match self {
            Self::Panos => 50_000,
            Self::Mikrotik | Self::Nginx => 10_000,
            _ => 100_000,
        }
    }

    /// Whether networks are listed unless the feed says so. `CrowdSec`'s firewall bouncer reads a network as its
    /// first address.
    pub const fn takes_networks(self) -> bool {
        !matches!(self, Self::Crowdsec)
    }
}

/// What a feed selects and how it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSpec {
    /// Unique name, which is in the URL.
    pub name: String,
    /// Counts up with each change.
    pub version: i64,
    /// The form in which it is served.
    pub form: FeedForm,
    /// Policies, by name; `*` stands for any characters. Empty: all, and responses by hand.
    pub policies: Vec<String>,
    /// Labels that the agent of a block must have.
    pub labels: BTreeMap<String, String>,
    /// Actions that count as blocks.
    pub actions: Vec<String>,
    /// Entries that end sooner are not listed.
    pub min_left: Duration,
    /// Whether networks are listed, and not only single addresses.
    pub networks: bool,
    /// Most entries; with more the feed is an error, never a shorter list.
    pub max_entries: u32,
    /// Longest time between two fetches of a consumer that works.
    pub expected_interval: Duration,
}

/// Whether `name` can be the name of a feed.
pub fn is_feed_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('-')
}

impl FeedSpec {
    /// Every fault of it, with its place.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !is_feed_name(&self.name) {
            faults.push(Fault::at("/name", "must be 1 to 64 characters of a-z, 0-9 and '-', the first no '-'"));
        }
        let is_pattern = |word: &str| {
            let mut bytes = word.bytes();
            (1..=64).contains(&word.len())
                && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*".contains(&byte))
        };
        let is_action = |word: &str| {
            let mut bytes = word.bytes();
            (1..=64).contains(&word.len())
                && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
        };
        let mut check = |field: &str, words: &[String], is_right: &dyn Fn(&str) -> bool, what: &str| {
            if words.len() > MAX_FILTERS {
                faults.push(Fault::at(format!("/{field}"), format!("has more than {MAX_FILTERS} items")));
            }
            let wrong = words.iter().enumerate().filter(|(_, word)| !is_right(word));
            faults.extend(wrong.map(|(index, _)| Fault::at(format!("/{field}/{index}"), what)));
        };
        let what = "is a policy's name of a-z, 0-9 and '-', with '*' for any characters";
        check("policies", &self.policies, &is_pattern, what);
        check("actions", &self.actions, &is_action, "is an action's name of a-z, 0-9, '.', '_' and '-'");
        if self.labels.len() > MAX_FILTERS {
            faults.push(Fault::at("/labels", format!("has more than {MAX_FILTERS} labels")));
        }
        let is_long = |text: &str| text.is_empty() || text.len() > 256 || text.chars().any(char::is_control);
        for (key, value) in &self.labels {
            if is_long(key) || is_long(value) {
                let detail = "must have 1 to 256 characters, without control characters";
                faults.push(Fault::at(format!("/labels/{}", key.replace('~', "~0").replace('/', "~1")), detail));
            }
        }
        if self.min_left > MAX_MIN_LEFT {
            faults.push(Fault::at("/min_left", "must be at most 24h"));
        }
        if !(1..=MAX_ENTRIES).contains(&self.max_entries) {
            faults.push(Fault::at("/max_entries", format!("must be 1 to {MAX_ENTRIES}")));
        }
        faults
    }

    /// Whether blocks of `policy` (`None`: by hand) are listed.
    fn takes_policy(&self, policy: Option<&str>) -> bool {
        let is_named = |name: &str| self.policies.iter().any(|pattern| is_like(pattern, name));
        self.policies.is_empty() || policy.is_some_and(is_named)
    }

    /// What it lists of these blocks at `now`.
    pub fn select(
        &self,
        blocks: &[BlockedTarget],
        fleet: &Fleet,
        protected: &ProtectedSet,
        now: Timestamp,
    ) -> Selected {
        let mut selected = Selected::default();
        for block in blocks {
            let has_labels = |key: &String, value: &String| {
                fleet.get(block.agent).is_some_and(|agent| agent.labels.get(key) == Some(value))
            };
            if !self.actions.contains(&block.action)
                || !self.takes_policy(block.policy.as_deref())
                || !self.labels.iter().all(|(key, value)| has_labels(key, value))
            {
                continue;
            }
            let Ok(target) = Target::named(TargetKind::Ip, &block.value) else { continue };
            let is_network = target.network().is_none_or(|network| network.prefix_len() < network.max_prefix_len());
            let is_protected = target.always_protected().is_some()
                || protected.target(&target, block.policy.as_deref(), now).is_some();
            if (is_network && !self.networks) || is_protected {
                continue;
            }
            // The moment from which too little of it is left.
            let leaves_at = block.until.instant().map(|at| at.minus(self.min_left));
            if leaves_at.is_some_and(|at| at <= now) {
                continue;
            }
            selected.next_change = [selected.next_change, leaves_at].into_iter().flatten().min();
            let entry = SelectedEntry { until: block.until, policy: block.policy.clone() };
            let known = selected.entries.entry(target.value().to_owned()).or_insert_with(|| entry.clone());
            // The longest wins; of equal ones the first by name, so that the list does not depend on an order.
            let rank = |entry: &SelectedEntry| (entry.until, std::cmp::Reverse(entry.policy.clone()));
            if rank(&entry) > rank(known) {
                *known = entry;
            }
        }
        selected
    }
}

/// A block in the ledger that is in force or being applied on an agent, as one response holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedTarget {
    /// The agent.
    pub agent: Uuid,
    /// Name of the action.
    pub action: String,
    /// Address or network, as the ledger has it.
    pub value: String,
    /// End of the hold.
    pub until: Until,
    /// Policy of the response; `None`: by hand.
    pub policy: Option<String>,
}

/// What a feed lists at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// By address or network in canonical form.
    pub entries: BTreeMap<String, SelectedEntry>,
    /// When one of the entries leaves the list by time alone.
    pub next_change: Option<Timestamp>,
}

/// An entry that a feed lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedEntry {
    /// Its end.
    pub until: Until,
    /// Policy of its longest hold; `None`: by hand.
    pub policy: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> FeedSpec {
        FeedSpec {
            name: "edge".into(),
            version: 1,
            form: FeedForm::Plain,
            policies: vec![],
            labels: BTreeMap::new(),
            actions: vec!["firewall-drop".into()],
            min_left: Duration::ZERO,
            networks: true,
            max_entries: 10,
            expected_interval: DEFAULT_INTERVAL,
        }
    }

    fn block(value: &str, secs: i64, policy: Option<&str>) -> BlockedTarget {
        let until = if secs == 0 { Until::Never } else { Until::At(Timestamp::from_millis(secs * 1000)) };
        let (action, policy) = ("firewall-drop".to_owned(), policy.map(str::to_owned));
        BlockedTarget { agent: Uuid::nil(), action, value: value.to_owned(), until, policy }
    }

    fn listed(spec: &FeedSpec, blocks: &[BlockedTarget], secs: i64) -> Vec<String> {
        let now = Timestamp::from_millis(secs * 1000);
        spec.select(blocks, &Fleet::new(vec![]), &ProtectedSet::default(), now).entries.into_keys().collect()
    }

    #[test]
    fn a_feed_lists_what_its_filters_take_and_what_is_not_over() {
        let mut blocks = vec![
            block("203.0.113.7", 100, Some("ssh")),
            block("198.51.100.0/24", 200, Some("web")),
            block("2001:db8::7", 0, None),
        ];
        blocks.push(BlockedTarget { action: "log-only".into(), ..block("203.0.113.9", 0, None) });
        assert_eq!(listed(&spec(), &blocks, 1), ["198.51.100.0/24", "2001:db8::7", "203.0.113.7"]);
        assert_eq!(listed(&FeedSpec { networks: false, ..spec() }, &blocks, 1), ["2001:db8::7", "203.0.113.7"]);
        assert_eq!(listed(&FeedSpec { policies: vec!["s*".into()], ..spec() }, &blocks, 1), ["203.0.113.7"]);
        assert_eq!(listed(&spec(), &blocks, 100), ["198.51.100.0/24", "2001:db8::7"], "over at its end");
        let early = FeedSpec { min_left: Duration::from_mins(1), ..spec() };
        assert_eq!(listed(&early, &blocks, 39).len(), 3);
        assert_eq!(listed(&early, &blocks, 40).len(), 2, "too little is left");
        let of_an_agent = FeedSpec { labels: [("env".to_owned(), "prod".to_owned())].into(), ..spec() };
        assert!(listed(&of_an_agent, &blocks, 1).is_empty());
    }

    #[test]
    fn the_longest_hold_of_an_address_counts() {
        let blocks = [
            block("203.0.113.7", 100, Some("b")),
            block("203.0.113.7", 300, Some("c")),
            block("203.0.113.7", 300, Some("a")),
        ];
        let selected = spec().select(&blocks, &Fleet::new(vec![]), &ProtectedSet::default(), Timestamp::from_millis(0));
        let entry = &selected.entries["203.0.113.7"];
        assert_eq!((entry.until, entry.policy.as_deref()), (block("", 300, None).until, Some("a")));
        assert_eq!(selected.next_change, Some(Timestamp::from_millis(100_000)));
    }

    #[test]
    fn every_fault_of_a_feed_is_named() {
        assert_eq!(spec().faults(), []);
        let wrong = FeedSpec {
            name: "Edge".into(),
            policies: vec!["a b".into()],
            actions: vec![String::new()],
            labels: [("k/1".to_owned(), String::new())].into(),
            min_left: Duration::from_hours(25),
            max_entries: 0,
            ..spec()
        };
        let places: Vec<String> = wrong.faults().into_iter().map(|fault| fault.pointer).collect();
        let expected = ["/name", "/policies/0", "/actions/0", "/labels/k~11", "/min_left", "/max_entries"];
        assert_eq!(places, expected);
        for form in FeedForm::ALL {
            assert_eq!(FeedForm::parse(form.as_str()), Some(form));
            assert_eq!(serde_json::to_value(form).unwrap(), form.as_str());
        }
    }
}
