//! One public type name means one thing in a package.

use std::collections::BTreeMap;

use crate::{code, sources, without_tests};

/// The source of each package.
const PACKAGES: [&str; 5] = ["src", "agent/src", "protocol/src", "simulation/src", "chaos/src"];

/// Names that are declared twice for a reason.
const EXCEPTIONS: [(&str, &str); 2] = [
    ("Watch", "`agent/src/platform/linux/waiting.rs` and `waiting_unseen.rs` are one module on two platforms"),
    ("Ruleset", "`agent/src/platform/linux/ruleset.rs` and `ruleset_unseen.rs` are one module on two platforms"),
];

/// Returns the public types that a file declares, whatever the reach of `pub` is.
fn public_types(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in code.lines() {
        let Some(rest) = line.trim_start().strip_prefix("pub") else { continue };
        let rest = match rest.strip_prefix('(') {
            Some(reach) => reach.split_once(')').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let Some((kind, rest)) = rest.strip_prefix(' ').and_then(|rest| rest.split_once(' ')) else { continue };
        if ["struct", "enum", "trait", "type"].contains(&kind) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(&rest[..end]);
        }
    }
    found
}

/// Returns the names that several places declare, each with the places.
fn clashes<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, code) in files {
        for name in public_types(code) {
            places.entry(name).or_default().push(path);
        }
    }
    let several = places.iter().filter(|(_, paths)| paths.len() > 1);
    several.map(|(name, paths)| format!("{name}: {}", paths.join(", "))).collect()
}

#[test]
fn no_two_public_types_of_a_package_share_a_name() {
    let mut wrong = Vec::new();
    for package in PACKAGES {
        let files: Vec<(String, String)> = sources(package)
            .into_iter()
            .filter(|(path, _)| !path.contains("/tests/") && !path.ends_with("/tests.rs"))
            // What Windows has under the names of the other systems.
            .filter(|(path, _)| !path.contains("/platform/windows/") && !path.ends_with("/windows.rs"))
            .map(|(path, text)| (path, code(without_tests(&text))))
            .collect();
        let types: usize = files.iter().map(|(_, code)| public_types(code).len()).sum();
        assert!(types > 0, "{package} declares no public type: this test no longer finds them");
        wrong.extend(clashes(files.iter().map(|(path, code)| (path.as_str(), code.as_str()))));
    }
    for (name, reason) in EXCEPTIONS {
        let before = wrong.len();
        wrong.retain(|clash| clash.split(':').next() != Some(name));
        assert!(wrong.len() < before, "{name} is declared once: it needs no exception ({reason})");
    }
    assert!(wrong.is_empty(), "{} names with two meanings:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn this_test_sees_a_name_with_two_meanings() {
    let files = [
        ("a.rs", "pub struct Entry<'a> {\n    pub name: &'a str,\n}\nstruct Local;\npub(crate) fn entry() {}"),
        ("b.rs", "    pub(crate) enum Entry {\n}\npub(super) type Local = u8;\npub trait Act: Send {}"),
        ("c.rs", "pub(in crate::x) struct Act(u8);\npub use a::Entry;\npublic struct Entry;\nstruct Local;"),
    ];
    assert_eq!(clashes(files), ["Act: b.rs, c.rs", "Entry: a.rs, b.rs"]);
    assert_eq!(clashes([files[0]]), [""; 0]);
}
