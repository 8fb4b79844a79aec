//! The form in which texts are compared. Whatever stands on either side of a comparison (a selector and an alert, a filter and a
//! row, a label and a label) is brought into it first, so that blanks, case and spelling decide nothing.

use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

/// A group of a rule: rules have some with blanks around them (` WEF`). Its case counts, as it does in Wazuh's list of groups.
pub fn group(text: &str) -> &str {
    text.trim()
}

/// A technique of ATT&CK: `t1110.001` is `T1110.001`.
pub fn technique(text: &str) -> String {
    text.trim().to_ascii_uppercase()
}

/// An id of Riposte's own, if `text` is one: its letters have no case. Else `text` without blanks around it.
pub fn id(text: &str) -> String {
    let text = text.trim();
    text.parse::<Uuid>().map_or_else(|_| text.to_owned(), |id| id.to_string())
}

/// The name of a policy, an action or a pipeline, which are written in lower case.
pub fn name(text: &str) -> String {
    text.trim().to_lowercase()
}

/// A target that a person looks for without saying its kind: an address or a network in any notation is the same one.
pub fn target(text: &str) -> String {
    let text = text.trim();
    Target::named(TargetKind::Ip, text).map_or_else(|_| text.to_owned(), |target| target.value().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::shapes::wazuh::{canonical_agent_id, canonical_rule_id};

    /// Texts that are one and the same, by what they are; the canonical form is the first.
    #[test]
    fn what_is_the_same_is_compared_as_the_same() {
        type Canonical = fn(&str) -> String;
        let table: [(&str, Canonical, &[&str]); 7] = [
            ("group", |text| group(text).to_owned(), &["WEF", " WEF", "WEF ", "\tWEF"]),
            ("technique", technique, &["T1110.001", "t1110.001", " T1110.001 "]),
            ("rule", canonical_rule_id, &["5763", "05763", " 5763", "5763 "]),
            ("agent", |text| canonical_agent_id(text).unwrap(), &["005", "5", "05", " 005 "]),
            (
                "id",
                id,
                &[
                    "01980f00-0000-7000-8000-00000000000a",
                    "01980F00-0000-7000-8000-00000000000A",
                    " 01980f00-0000-7000-8000-00000000000a",
                ],
            ),
            ("name", name, &["block-ssh", "Block-SSH", " block-ssh "]),
            ("target", target, &["2001:db8::1", "2001:DB8::1", " 2001:db8:0:0:0:0:0:1 "]),
        ];
        for (what, canonical, same) in table {
            for text in same {
                assert_eq!(canonical(text), same[0], "{what}: {text:?}");
            }
        }
        for (one, other) in
            [("::ffff:203.0.113.7", "203.0.113.7"), ("203.0.113.7/32", "203.0.113.7"), ("CORP\\alice ", "CORP\\alice")]
        {
            assert_eq!(target(one), target(other));
        }
        assert_ne!(target("/srv/A"), target("/srv/a"), "the case of a path counts");
        assert_ne!(target("Alice"), target("alice"), "and so does that of an account on Linux");
    }
}
