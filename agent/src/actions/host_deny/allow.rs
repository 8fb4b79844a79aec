//! `hosts.allow`, which libwrap reads before `hosts.deny`: whether one of its lines allows an
//! address. A pattern with a host's name cannot be compared with an address, and counts as not
//! matching.

use ipnet::IpNet;

/// Returns the first line that allows some of `network`.
pub(super) fn letting_in(text: &str, network: IpNet) -> Option<String> {
    // A backslash at its end continues a line.
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    for line in lines {
        let parts = parts(line);
        let (daemons, clients) =
            (parts.first().map_or("", |part| part.trim()), parts.get(1).copied().unwrap_or_default());
        let is_denied = parts.iter().skip(2).any(|option| option.trim().eq_ignore_ascii_case("deny"));
        if is_denied && daemons.eq_ignore_ascii_case("ALL") && list_covers(clients, network) {
            // The first matching line decides.
            return None;
        }
        if !is_denied && list_touches(clients, network) {
            return Some(line.chars().take(200).collect::<String>().escape_debug().to_string());
        }
    }
    None
}

/// The parts between colons; colons inside brackets belong to an address.
fn parts(line: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    line.split(|character| {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ':' && depth == 0
    })
    .collect()
}

/// Whether a list of patterns, without those after `EXCEPT`, matches some of the network.
fn list_touches(list: &str, network: IpNet) -> bool {
    let (patterns, but) = lists(list);
    patterns.iter().any(|pattern| touches(pattern, network)) && !but.iter().any(|pattern| contains(pattern, network))
}

/// Whether it matches all of the network.
fn list_covers(list: &str, network: IpNet) -> bool {
    let (patterns, but) = lists(list);
    patterns.iter().any(|pattern| contains(pattern, network)) && !but.iter().any(|pattern| touches(pattern, network))
}

fn lists(list: &str) -> (Vec<&str>, Vec<&str>) {
    let words: Vec<&str> = list.split([' ', '\t', ',']).filter(|word| !word.is_empty()).collect();
    let mut groups = words.split(|word| word.eq_ignore_ascii_case("EXCEPT"));
    let mut next = || groups.next().map(<[&str]>::to_vec).unwrap_or_default();
    (next(), next())
}

/// Whether a pattern matches some of the network.
fn touches(pattern: &str, network: IpNet) -> bool {
    pattern.eq_ignore_ascii_case("ALL")
        || read(pattern).is_some_and(|other| other.contains(&network) || network.contains(&other))
}

/// Whether a pattern matches all of the network.
fn contains(pattern: &str, network: IpNet) -> bool {
    pattern.eq_ignore_ascii_case("ALL") || read(pattern).is_some_and(|other| other.contains(&network))
}

/// The network of a pattern: an address, `192.0.2.`, `NET/MASK`, `NET/LENGTH`, `[V6]`,
/// `[V6]/LENGTH`.
fn read(pattern: &str) -> Option<IpNet> {
    if let Some(prefix) = pattern.strip_suffix('.') {
        let length = prefix.split('.').count();
        let address = format!("{prefix}{}", ".0".repeat(4_usize.checked_sub(length)?));
        return format!("{address}/{}", 8 * length).parse().ok();
    }
    let (address, mask) = pattern.split_once('/').map_or((pattern, None), |(address, mask)| (address, Some(mask)));
    let address: std::net::IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let length = match mask {
        None => IpNet::from(address).max_prefix_len(),
        Some(mask) => match mask.parse::<std::net::IpAddr>() {
            Ok(mask) => ipnet::ip_mask_to_prefix(mask).ok()?,
            Err(_) => mask.parse().ok()?,
        },
    };
    IpNet::new(address, length).ok().map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_allow_an_address_are_recognised() {
        let lets_in = |line: &str, network: &str| letting_in(line, network.parse().unwrap()).is_some();
        for line in [
            "ALL: ALL",
            "sshd : 203.0.113.7",
            "sshd: 198.51.100.1, 203.0.113.",
            "sshd: 203.0.113.0/255.255.255.0 : allow",
            "ALL: 203.0.113.0/24",
            "ALL: ALL EXCEPT 203.0.113.9",
            "sshd: \\\n 203.0.113.7",
            "ftpd : 203.0.113.7 : deny\nALL : ALL : allow",
        ] {
            assert!(lets_in(line, "203.0.113.7/32"), "{line}");
        }
        for line in [
            "",
            "# ALL: ALL",
            "sshd: 203.0.113.70",
            "sshd: .example.org",
            "sshd: 203.0.11.",
            "ALL: ALL EXCEPT 203.0.113.7",
            "ALL: ALL EXCEPT 203.0.113.0/255.255.255.0",
            "ALL: ALL : deny",
            "sshd: [2001:db8::7]",
            "sshd",
            "ALL : 203.0.113.7 : deny\nALL : ALL : allow",
        ] {
            assert!(!lets_in(line, "203.0.113.7/32"), "{line}");
        }
        assert!(lets_in("sshd: [2001:db8::]/32", "2001:db8::7/128"));
        assert!(lets_in("sshd: 203.0.113.7", "203.0.113.0/24"), "a part of the network");
        assert!(lets_in("ALL: ALL EXCEPT 203.0.113.7", "203.0.113.0/24"));
    }
}
