//! Attacks, as the threat table in `docs/security.md` names them. Each row has a test, here or
//! where its defence is tested, and each test here has a row.

mod agents;
mod forger;
mod http;
mod keys;
mod sign_on;

use std::collections::BTreeSet;
use std::path::Path;

/// Collects every test function in the Rust files below `folder`.
fn tests_below(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            tests_below(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for whole in text.lines() {
                let line = whole.trim_start();
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let is_function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some((name, rest)) = is_function.and_then(|rest| rest.split_once('(')) {
                    // `on_both_databases!` makes two tests of each function in it.
                    let is_for_both = line.len() < whole.len() && rest.starts_with("database: Database)");
                    if is_test || is_for_both {
                        into.insert(name.to_owned());
                    }
                    is_test = false;
                }
            }
        }
    }
}

#[test]
fn every_row_of_the_threat_table_has_a_test_and_every_attack_has_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, table) = document.split_once("\n## Attacks\n").expect("a section of attacks");
    let table = table.split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| who |")).collect();
    assert!(rows.len() > 20, "the table has {} rows", rows.len());
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "protocol/src", "agent/src", "agent/tests"] {
        tests_below(&root.join(folder), &mut tests);
    }
    let mut named = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}");
        for name in cells[3].split(", ") {
            let name = name.trim_matches('`');
            assert!(tests.contains(name), "there is no test called {name}: {row}");
            named.insert(name.to_owned());
        }
    }
    let mut attacks = BTreeSet::new();
    tests_below(&root.join("tests/it/attacks"), &mut attacks);
    attacks.remove("every_row_of_the_threat_table_has_a_test_and_every_attack_has_a_row");
    let without: Vec<&String> = attacks.difference(&named).collect();
    assert!(without.is_empty(), "attacks without a row in docs/security.md: {without:?}");
}
