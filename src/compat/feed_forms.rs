//! The forms in which firewalls and proxies read a list of addresses. Every value is an address or a network in
//! canonical form, so nothing in a line needs to be escaped.

use std::fmt::Write as _;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::domain::feed::FeedForm;
use crate::domain::feed_list::FeedEntry;

/// The policy of a response by hand, where a form names one.
pub const BY_HAND: &str = "by-hand";
/// Longest time-out of an entry: `RouterOS` takes none of 36 weeks or more. A router fetches far more often, and
/// each fetch begins it anew.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(30 * 24);

/// The list as text. `name` is that of the feed.
pub fn text<'a>(
    form: FeedForm,
    name: &str,
    entries: impl Iterator<Item = (&'a str, &'a FeedEntry)>,
    now: Timestamp,
) -> String {
    let mut text = String::new();
    if form == FeedForm::Mikrotik {
        // What was removed since the last run is not in the list any more.
        for family in ["ip", "ipv6"] {
            line(&mut text, format_args!("/{family} firewall address-list remove [find list=\"riposte-{name}\"]"));
        }
    }
    for (value, entry) in entries {
        match form {
            FeedForm::Nginx => line(&mut text, format_args!("deny {value};")),
            FeedForm::NginxGeo => line(&mut text, format_args!("{value} 1;")),
            FeedForm::HaproxyMap => {
                line(&mut text, format_args!("{value} {}", entry.policy.as_deref().unwrap_or(BY_HAND)));
            }
            FeedForm::Mikrotik => {
                let family = if value.contains(':') { "ipv6" } else { "ip" };
                // The entry ends on the router by itself, also if it does not fetch again.
                let left = entry.until.instant().map_or(LONGEST_TIMEOUT, |at| at.since(now).min(LONGEST_TIMEOUT));
                let left = left.as_secs().max(1);
                let list = format!("/{family} firewall address-list add list=\"riposte-{name}\"");
                // An error in one line would end the script, and the list would be short.
                line(&mut text, format_args!(":do {{{list} address={value} timeout={left}s}} on-error={{}}"));
            }
            FeedForm::Plain
            | FeedForm::Panos
            | FeedForm::Fortigate
            | FeedForm::Opnsense
            | FeedForm::Haproxy
            | FeedForm::Crowdsec
            | FeedForm::Taxii => line(&mut text, format_args!("{value}")),
        }
    }
    text
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{words}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::effect::Until;

    #[test]
    fn every_form_is_what_its_program_reads() {
        let entry = |until, policy: Option<&str>| FeedEntry {
            until,
            policy: policy.map(str::to_owned),
            revision: 1,
            changed_at: Timestamp::from_millis(0),
            first_at: Timestamp::from_millis(0),
            is_listed: true,
        };
        let ends = Until::At(Timestamp::from_millis(90_500));
        let entries = [("198.51.100.0/24", entry(Until::Never, None)), ("2001:db8::7", entry(ends, Some("ssh")))];
        let of = |form| {
            text(form, "edge", entries.iter().map(|(value, entry)| (*value, entry)), Timestamp::from_millis(500))
        };
        for form in [FeedForm::Plain, FeedForm::Panos, FeedForm::Fortigate, FeedForm::Opnsense, FeedForm::Haproxy] {
            assert_eq!(of(form), "198.51.100.0/24\n2001:db8::7\n");
        }
        assert_eq!(of(FeedForm::Nginx), "deny 198.51.100.0/24;\ndeny 2001:db8::7;\n");
        assert_eq!(of(FeedForm::NginxGeo), "198.51.100.0/24 1;\n2001:db8::7 1;\n");
        assert_eq!(of(FeedForm::HaproxyMap), "198.51.100.0/24 by-hand\n2001:db8::7 ssh\n");
        let script = "/ip firewall address-list remove [find list=\"riposte-edge\"]\n\
             /ipv6 firewall address-list remove [find list=\"riposte-edge\"]\n\
             :do {/ip firewall address-list add list=\"riposte-edge\" address=198.51.100.0/24 timeout=2592000s} on-error={}\n\
             :do {/ipv6 firewall address-list add list=\"riposte-edge\" address=2001:db8::7 timeout=90s} on-error={}\n";
        assert_eq!(of(FeedForm::Mikrotik), script);
    }
}
