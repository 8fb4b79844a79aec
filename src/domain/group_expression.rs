//! Wazuh's `rules_group`: an expression that is searched in the text of a rule's groups
//! (`syslog,sshd,`), ignoring case. `|` separates alternatives; `^` and `$` anchor one. A comma is
//! an ordinary character, so `a,b` needs both as neighbours. Other syntax of Wazuh (classes,
//! parentheses) is unused in Wazuh's own rules, and refused.

use serde::{Serialize, Serializer};

use super::canonical;

/// Maximum length of an expression, in bytes.
const MAX_BYTES: usize = 1024;

/// A parsed group expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupExpression {
    source: String,
    alternatives: Vec<Alternative>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Alternative {
    text: String,
    at_start: bool,
    at_end: bool,
}

impl GroupExpression {
    /// Parses an expression.
    ///
    /// # Errors
    /// Why it cannot be interpreted as Wazuh would.
    pub fn parse(source: &str) -> Result<Self, &'static str> {
        if source.is_empty() || source.len() > MAX_BYTES {
            return Err("must be a text of 1 to 1024 bytes");
        }
        if source.contains(['\\', '(', ')']) {
            return Err("uses classes or parentheses, which are not supported here");
        }
        let alternatives = source.split('|').map(|part| {
            let (at_start, part) = part.strip_prefix('^').map_or((false, part), |rest| (true, rest));
            let (at_end, part) = part.strip_suffix('$').map_or((false, part), |rest| (true, rest));
            // Groups are trimmed, so spaces in an expression would never match.
            let parts: Vec<&str> = part.split(',').map(str::trim).collect();
            Alternative { text: parts.join(",").to_ascii_lowercase(), at_start, at_end }
        });
        Ok(Self { source: source.to_owned(), alternatives: alternatives.collect() })
    }

    /// Whether it matches a rule's groups.
    pub fn matches(&self, groups: &[String]) -> bool {
        let mut text = String::with_capacity(groups.iter().map(|group| group.len() + 1).sum());
        for group in groups {
            text.push_str(&canonical::group(group).to_ascii_lowercase());
            text.push(',');
        }
        self.alternatives.iter().any(|Alternative { text: part, at_start, at_end }| match (at_start, at_end) {
            (true, true) => text == *part,
            (true, false) => text.starts_with(part.as_str()),
            (false, true) => text.ends_with(part.as_str()),
            (false, false) => text.contains(part.as_str()),
        })
    }
}

impl Serialize for GroupExpression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_tried_on_the_text_of_the_groups() {
        let groups: Vec<String> =
            ["syslog", "sshd", "authentication_failures", "pci_dss_11.4"].map(String::from).to_vec();
        let matches = |source: &str| GroupExpression::parse(source).unwrap().matches(&groups);
        for good in [
            "ssh",
            "SSHD,",
            "^syslog,",
            "web|authentication_failures,",
            "pci_dss_11.4,$",
            "sshd,authentication",
            " sshd , authentication",
            "^syslog,sshd,authentication_failures,pci_dss_11.4,$",
        ] {
            assert!(matches(good), "{good}");
        }
        for bad in ["^sshd", "authentication_failures,sshd", "sshd$", "web", "^syslog$"] {
            assert!(!matches(bad), "{bad}");
        }
    }

    #[test]
    fn expressions_with_another_meaning_in_wazuh_are_refused() {
        for source in ["", "a\\wb", "(a|b)"] {
            assert!(GroupExpression::parse(source).is_err(), "{source:?}");
        }
    }
}
