//! `<white_list>`: Wazuh's interpretation of addresses, and the resulting protected entries. Wazuh
//! parses only dotted IPv4 and treats everything else, including IPv6, as text. Here all valid
//! addresses are protected.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use super::report::{ImportReport, Place, short};
use crate::domain::protected::Covered;

/// The allowlist as Wazuh loads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allowlist {
    /// Entries that Wazuh treats as addresses and networks.
    pub addresses: Vec<String>,
    /// Entries that Wazuh treats as name patterns: a substring, anchored by `^` and `$`.
    pub hostname_patterns: Vec<String>,
    /// All entries in the order of the files, with their places.
    #[serde(skip)]
    entries: Vec<(String, Place)>,
}

impl Allowlist {
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry; `false` if it looks like an address and is invalid.
    pub(super) fn add(&mut self, text: &str, place: Place) -> bool {
        let plain = text.strip_prefix('!').unwrap_or(text);
        if looks_like_ipv4(plain) {
            if !is_ipv4(plain) {
                return false;
            }
            self.addresses.push(text.to_owned());
        } else {
            self.hostname_patterns.push(text.to_owned());
        }
        self.entries.push((text.to_owned(), place));
        true
    }
}

/// Whether the text has the form of IPv4: four numbers of up to three digits, optionally a slash
/// and up to two digits or four numbers.
fn looks_like_ipv4(text: &str) -> bool {
    let digits = |part: &str, most: usize| part.len() <= most && part.bytes().all(|b| b.is_ascii_digit());
    let quad =
        |text: &str| text.split('.').count() == 4 && text.split('.').all(|part| !part.is_empty() && digits(part, 3));
    match text.split_once('/') {
        None => quad(text),
        Some((address, length)) => quad(address) && (digits(length, 2) || quad(length)),
    }
}

/// Whether all its numbers are in range.
fn is_ipv4(text: &str) -> bool {
    let quad = |text: &str| text.split('.').all(|part| part.parse::<u8>().is_ok());
    match text.split_once('/') {
        None => quad(text),
        Some((address, length)) => {
            quad(address) && (length.parse::<u8>().is_ok_and(|n| n <= 32) || (length.contains('.') && quad(length)))
        }
    }
}

/// Parses IPv4 text: the address, and the prefix length if the mask is a prefix.
fn ipv4(text: &str) -> Option<(Ipv4Addr, Option<u8>)> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let address = address.parse().ok()?;
    if let Ok(mask) = length.parse::<Ipv4Addr>() {
        return Some((address, ipnet::ipv4_mask_to_prefix(mask).ok()));
    }
    let length = length.parse().ok().filter(|length| *length <= 32)?;
    Some((address, Some(length)))
}

/// The protected entries of the list.
pub(super) fn protect(allowlist: &Allowlist, report: &mut ImportReport) -> Vec<Value> {
    let (mut entries, mut seen) = (Vec::new(), HashSet::new());
    for (text, place) in &allowlist.entries {
        let quoted = short(text);
        if text.starts_with('!') {
            let message =
                format!("white_list {quoted:?} is a negation, which protected entries do not support: ignored");
            report.warning(*place, message);
            continue;
        }
        for part in text.split('|') {
            match network(part, *place, report) {
                Some(value) => {
                    if seen.insert(value.clone()) {
                        let reason = format!("white_list {quoted:?} of {}", report.at(*place));
                        entries.push(json!({"kind": "ip", "value": value, "reason": reason}));
                    }
                }
                None if looks_like_ipv4(part) => report.warning(
                    *place,
                    format!("white_list {part:?} has leading zeros, or a mask that is not a prefix: ignored"),
                ),
                None => report.warning(
                    *place,
                    format!(
                        "white_list {:?} is a text that Wazuh searches in the source: ignored. Protected \
                         entries are addresses and networks; if it means some, protect those",
                        short(part)
                    ),
                ),
            }
        }
    }
    if let Some((_, place)) = allowlist.entries.first() {
        report.info(
            *place,
            "an address on Wazuh's white_list stops every command of an alert that has it as data.srcip, and nothing \
             else; a protected entry stops every response aimed at the address, wherever in the alert it stands and \
             also by hand, but not a response to the same alert that is aimed at something else",
        );
    }
    entries
}

/// The address or network of an entry, in canonical form.
fn network(part: &str, place: Place, report: &mut ImportReport) -> Option<String> {
    if looks_like_ipv4(part) {
        let (address, length) = ipv4(part)?;
        let net = IpNet::new(IpAddr::V4(address), length?).ok()?;
        if net.trunc() != net {
            let message = format!(
                "white_list {part:?} has bits behind its mask; Wazuh takes {} of it, and so it is here",
                net.trunc()
            );
            report.info(place, message);
        }
        return Covered::network(&net.trunc().to_string()).ok().map(|covered| covered.value());
    }
    let plain = part.trim();
    let plain = plain.strip_prefix('^').unwrap_or(plain);
    let plain = plain.strip_suffix('$').unwrap_or(plain);
    let value = Covered::network(plain).or_else(|error| match plain.parse::<IpNet>() {
        Ok(net) => Covered::network(&net.trunc().to_string()),
        Err(_) => Err(error),
    });
    let value = value.ok()?.value();
    let message = format!(
        "white_list {:?} is a text to Wazuh; here it is the network or address {value}, in every notation",
        short(part)
    );
    report.info(place, message);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_looks_like_an_address_must_be_valid() {
        for (text, address, good) in [
            ("127.0.0.1", true, true),
            ("!127.0.0.1", true, true),
            ("10.0.0.0/8", true, true),
            ("172.16.0.0/255.240.0.0", true, true),
            ("300.1.1.1", true, false),
            ("10.0.0.0/33", true, false),
            ("10.0.0.0/", true, false),
            ("198.51.100", false, true),
            ("10.0.0.0/8.", false, true),
            ("2001:db8::53", false, true),
            (" 10.0.0.1", false, true),
            ("", false, true),
        ] {
            let mut list = Allowlist::default();
            assert_eq!(list.add(text, Place::default()), good, "{text:?}");
            assert_eq!(
                (list.addresses.len(), list.hostname_patterns.len()),
                (usize::from(address && good), usize::from(!address)),
                "{text:?}"
            );
        }
    }
}
