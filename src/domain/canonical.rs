//! Canonical forms for comparison. Both sides (selector and alert, filter and row, label and label)
//! are converted first, so spaces, case and spelling do not matter.

use riposte_protocol::account::fold_case;
use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

/// A rule group, trimmed: some rules have spaces around it (` WEF`). Case matters, as in Wazuh.
pub fn group(text: &str) -> &str {
    text.trim()
}

/// An ATT&CK technique in upper case: `t1110.001` becomes `T1110.001`.
pub fn technique(text: &str) -> String {
    text.trim().to_ascii_uppercase()
}

/// A UUID in lower case, or else the trimmed text.
pub fn id(text: &str) -> String {
    let text = text.trim();
    text.parse::<Uuid>().map_or_else(|_| text.to_owned(), |id| id.to_string())
}

/// A name of a policy, action or pipeline, in lower case.
pub fn name(text: &str) -> String {
    fold_case(text.trim())
}

/// A target of unknown kind: every notation of an address or network becomes canonical.
pub fn target(text: &str) -> String {
    let text = text.trim();
    Target::named(TargetKind::Ip, text).map_or_else(|_| text.to_owned(), |target| target.value().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::formats::wazuh::{canonical_agent_id, canonical_rule_id};

    /// Equal texts by kind; the first is the canonical form.
    #[test]
    fn equal_texts_have_one_canonical_form() {
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
