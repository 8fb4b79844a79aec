//! Comparison of host names: `web1` equals `WEB1` and `web1.corp.example`. Two full names are equal
//! only as a whole, and an address has no short form.

/// The first label and the full name, both in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName {
    full: String,
    short: usize,
}

impl HostName {
    /// Normalises `name`: trimmed, lower case, without a trailing dot.
    pub fn new(name: &str) -> Self {
        let full = name.trim().trim_end_matches('.').to_lowercase();
        let is_address = full.parse::<std::net::IpAddr>().is_ok();
        let short = full.find('.').filter(|dot| *dot > 0 && !is_address).unwrap_or(full.len());
        Self { full, short }
    }

    /// The full name.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// Its first label.
    pub fn short(&self) -> &str {
        &self.full[..self.short]
    }

    /// Whether both can name the same host.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_short = |name: &Self| name.short == name.full.len();
        self.full == other.full || ((is_short(self) || is_short(other)) && self.short() == other.short())
    }
}

/// `name` without blanks around it and a dot at its end, if it is ASCII and cannot be an address, which has no short form.
fn plain(name: &str) -> Option<&str> {
    let name = name.trim().trim_end_matches('.');
    let can_be_address = name.contains(':') || name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (name.is_ascii() && !can_be_address).then_some(name)
}

/// Whether both texts can name one host.
pub fn is_same_host(one: &str, other: &str) -> bool {
    // Asked of every alert: what is plain ASCII is compared without a copy.
    one == other
        || match (plain(one), plain(other)) {
            (Some(one), Some(other)) => {
                let short = |name: &str| name.find('.').filter(|dot| *dot > 0);
                one.eq_ignore_ascii_case(other)
                    || match (short(one), short(other)) {
                        (None, Some(dot)) => other[..dot].eq_ignore_ascii_case(one),
                        (Some(dot), None) => one[..dot].eq_ignore_ascii_case(other),
                        _ => false,
                    }
            }
            _ => HostName::new(one).is_same(&HostName::new(other)),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_a_missing_domain_do_not_distinguish_hosts() {
        for (one, other) in [
            ("web1", "WEB1"),
            ("web1", "WEB1.corp.example"),
            ("web1.corp.example.", " web1.CORP.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("Ä-host", "ä-host"),
        ] {
            assert!(is_same_host(one, other) && is_same_host(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("web1.a.example", "web1.b.example"),
            ("web1", "web10"),
            ("10", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.2"),
            (".x", ".y"),
            ("web1", ""),
        ] {
            assert!(!is_same_host(one, other) && !is_same_host(other, one), "{one} {other}");
        }
    }
}
