//! `CrowdSec`'s words for what a feed lists: decisions, durations as Go writes them, and the filters of its
//! bouncers. What its clients need was recorded from them: a single address with scope `Ip`, and an extension as
//! a deletion with the new decision beside it.

use std::net::IpAddr;

use ipnet::IpNet;
use riposte_protocol::time::Timestamp;
use sha2::{Digest as _, Sha256};

use super::feed_forms::BY_HAND;
use crate::domain::effect::Until;
use crate::domain::feed_list::FeedEntry;
use crate::views::crowdsec::{CrowdsecDecision, CrowdsecStream};

/// Origin of every decision.
const ORIGIN: &str = "riposte";
/// Type of every decision.
const BAN: &str = "ban";
/// What is told of an entry without an end in a list that gives each one an end; it does not occur there.
const ENDLESS_SECS: u64 = 20 * 24 * 3600;
/// The largest number that JavaScript and JSON readers keep exactly.
const MAX_ID: u64 = (1 << 53) - 1;

/// A duration as Go writes it: `1h2m3s`.
pub fn go_duration(secs: u64) -> String {
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// The entries that a bouncer asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// Origins, separated by commas.
    pub origins: Option<String>,
    /// Scopes, separated by commas.
    pub scopes: Option<String>,
    /// Types, separated by commas.
    pub types: Option<String>,
    /// Texts of which the scenario must have one, separated by commas.
    pub containing: Option<String>,
    /// Texts of which the scenario must have none, separated by commas.
    pub not_containing: Option<String>,
    /// The value.
    pub value: Option<String>,
    /// An address that the value must be, or a network that must have it.
    pub ip: Option<IpAddr>,
    /// A network that must have the value, or lie within it.
    pub range: Option<IpNet>,
}

impl DecisionFilter {
    fn takes(&self, value: &str, scope: &str, scenario: &str) -> bool {
        let names = |list: &Option<String>, word: &str| {
            list.as_deref().is_none_or(|list| parts(list).any(|part| part.eq_ignore_ascii_case(word)))
        };
        let has = |list: &str| parts(list).any(|part| scenario.contains(part));
        let network = network(value);
        names(&self.origins, ORIGIN)
            && names(&self.scopes, scope)
            && names(&self.types, BAN)
            && self.containing.as_deref().is_none_or(has)
            && !self.not_containing.as_deref().is_some_and(has)
            && self.value.as_deref().is_none_or(|wanted| wanted == value)
            && self.ip.is_none_or(|ip| network.is_some_and(|network| network.contains(&ip.to_canonical())))
            && self
                .range
                .is_none_or(|range| network.is_some_and(|network| range.contains(&network) || network.contains(&range)))
    }
}

/// The parts of a list, without empty ones.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn network(value: &str) -> Option<IpNet> {
    value.parse().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from))
}

fn scope(value: &str) -> &'static str {
    if value.contains('/') { "Range" } else { "Ip" }
}

fn scenario(entry: &FeedEntry) -> String {
    format!("{ORIGIN}/{}", entry.policy.as_deref().unwrap_or(BY_HAND))
}

fn decision(value: &str, entry: &FeedEntry, duration: String) -> CrowdsecDecision {
    let digest = Sha256::digest(value);
    let number = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)) & MAX_ID;
    CrowdsecDecision {
        id: i64::try_from(number.max(1)).unwrap_or(1),
        origin: ORIGIN.to_owned(),
        scenario: scenario(entry),
        scope: scope(value).to_owned(),
        r#type: BAN.to_owned(),
        value: value.to_owned(),
        duration,
    }
}

/// The decision of an entry that is in force; `None` if it is over or the filter does not take it. Its duration is
/// what is left.
pub fn in_force(value: &str, entry: &FeedEntry, filter: &DecisionFilter, now: Timestamp) -> Option<CrowdsecDecision> {
    if !entry.is_listed || entry.until.is_over(now) || !filter.takes(value, scope(value), &scenario(entry)) {
        return None;
    }
    let secs = match entry.until {
        Until::Never => ENDLESS_SECS,
        // Not later than the block, and not zero, which some sets read as without end.
        Until::At(at) => at.since(now).as_secs().max(1),
    };
    Some(decision(value, entry, go_duration(secs)))
}

/// What a bouncer is told of changed entries. One that is in force is deleted too: a set would keep the earlier
/// end. A deletion of what a bouncer does not have does nothing, so the filter does not matter for it.
pub fn changes<'a>(
    entries: impl Iterator<Item = (&'a str, &'a FeedEntry)>,
    filter: &DecisionFilter,
    now: Timestamp,
) -> CrowdsecStream {
    let (mut new, mut deleted) = (Vec::new(), Vec::new());
    for (value, entry) in entries {
        deleted.push(decision(value, entry, "-1s".to_owned()));
        new.extend(in_force(value, entry, filter, now));
    }
    let some = |list: Vec<CrowdsecDecision>| if list.is_empty() { None } else { Some(list) };
    CrowdsecStream { new: some(new), deleted: some(deleted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(secs: i64, policy: Option<&str>, is_listed: bool) -> FeedEntry {
        let until = Until::At(Timestamp::from_millis(secs * 1000));
        let changed_at = Timestamp::from_millis(0);
        FeedEntry { until, policy: policy.map(str::to_owned), revision: 1, changed_at, first_at: changed_at, is_listed }
    }

    fn takes(filter: &DecisionFilter, value: &str) -> bool {
        in_force(value, &entry(10, Some("ssh-brute-force"), true), filter, Timestamp::from_millis(0)).is_some()
    }

    #[test]
    fn a_duration_is_as_go_writes_it() {
        let told =
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (3600, "1h0m0s"), (14_398, "3h59m58s"), (1_728_000, "480h0m0s")];
        for (secs, text) in told {
            assert_eq!(go_duration(secs), text);
        }
    }

    #[test]
    fn a_decision_says_what_is_left_and_an_extension_is_deleted_and_new() {
        let at = Timestamp::from_millis(500);
        let (kept, gone) = (entry(14_400, Some("ssh"), true), entry(14_400, None, false));
        let told =
            changes([("203.0.113.7", &kept), ("203.0.113.8", &gone)].into_iter(), &DecisionFilter::default(), at);
        let new = told.new.unwrap();
        assert_eq!((new.len(), new[0].value.as_str(), new[0].duration.as_str()), (1, "203.0.113.7", "3h59m59s"));
        assert_eq!((new[0].scenario.as_str(), new[0].scope.as_str()), ("riposte/ssh", "Ip"));
        let deleted = told.deleted.unwrap();
        let values: Vec<&str> = deleted.iter().map(|decision| decision.value.as_str()).collect();
        assert_eq!(values, ["203.0.113.7", "203.0.113.8"]);
        assert!(deleted.iter().all(|decision| decision.duration == "-1s"));
        assert_eq!(deleted[1].scenario, "riposte/by-hand");
        let nothing = changes(std::iter::empty(), &DecisionFilter::default(), at);
        assert_eq!(serde_json::to_string(&nothing).unwrap(), r#"{"new":null,"deleted":null}"#);
        // Over, but not lifted yet: nothing is left of it.
        assert_eq!(
            in_force("203.0.113.7", &entry(1, None, true), &DecisionFilter::default(), Timestamp::from_millis(1000)),
            None
        );
    }

    #[test]
    fn filters_are_those_of_the_bouncers() {
        let with = |change: fn(&mut DecisionFilter)| {
            let mut filter = DecisionFilter::default();
            change(&mut filter);
            filter
        };
        assert!(takes(&with(|filter| filter.origins = Some("cscli,riposte".into())), "203.0.113.7"));
        assert!(!takes(&with(|filter| filter.origins = Some("cscli".into())), "203.0.113.7"));
        assert!(takes(&with(|filter| filter.scopes = Some("ip,range".into())), "203.0.113.7"));
        assert!(!takes(&with(|filter| filter.scopes = Some("ip".into())), "203.0.113.0/24"));
        assert!(!takes(&with(|filter| filter.types = Some("captcha".into())), "203.0.113.7"));
        assert!(takes(&with(|filter| filter.containing = Some("http,ssh".into())), "203.0.113.7"));
        assert!(!takes(&with(|filter| filter.containing = Some("http".into())), "203.0.113.7"));
        assert!(!takes(&with(|filter| filter.not_containing = Some("ssh".into())), "203.0.113.7"));
        assert!(takes(&with(|filter| filter.ip = "203.0.113.7".parse().ok()), "203.0.113.0/24"));
        assert!(takes(&with(|filter| filter.ip = "::ffff:203.0.113.7".parse().ok()), "203.0.113.7"));
        assert!(!takes(&with(|filter| filter.ip = "203.0.113.8".parse().ok()), "203.0.113.7"));
        assert!(takes(&with(|filter| filter.range = "203.0.113.0/24".parse().ok()), "203.0.113.7"));
        assert!(!takes(&with(|filter| filter.value = Some("203.0.113.8".into())), "203.0.113.7"));
    }
}
