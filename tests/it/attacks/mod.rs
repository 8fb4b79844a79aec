//! Attacks, as the tables in `docs/security.md` name them. Each row has a test, here or where its
//! defence is tested, and each test here has a row. Each cell of the matrix of attackers and controls
//! names a test, or says why the control does not reach the attacker.

mod agents;
mod forger;
mod http;
mod keys;
mod people;
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

/// Who attacks: the rows of the matrix in `docs/security.md`, and the headings of its attacks.
const ATTACKERS: [&str; 9] = [
    "alert forger",
    "stolen ingest key",
    "stolen analyst key",
    "malicious engineer",
    "compromised agent",
    "root on the manager",
    "database writer",
    "network",
    "local account on an agent's host",
];
/// What begins a cell of the matrix where a control does not reach an attacker.
const OUT_OF_REACH: &str = "out of reach: ";

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap()
}

fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let (_, section) = document.split_once(&format!("\n## {title}\n")).expect("the section");
    section.split("\n## ").next().unwrap()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows of the tables in `text`, without their heads.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().collect();
    let is_head = move |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
    let is_row = |line: &str| line.starts_with("| ");
    text.lines().enumerate().filter(move |(at, line)| is_row(line) && !is_head(*at)).map(|(_, line)| line)
}

fn all_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "protocol/src", "agent/src", "agent/tests"] {
        tests_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut tests);
    }
    tests
}

/// The tests that a cell names.
fn named_in<'a>(cell: &'a str, tests: &BTreeSet<String>) -> Vec<&'a str> {
    let names: Vec<&str> = cell.split(", ").map(|name| name.trim_matches('`')).collect();
    for name in &names {
        assert!(tests.contains(*name), "there is no test called {name}: {cell}");
    }
    names
}

#[test]
fn every_cell_of_the_matrix_names_a_test_or_says_that_it_is_out_of_reach() {
    let (document, tests) = (document(), all_tests());
    let section = section(&document, "Who could do harm");
    let head = section.lines().filter(|line| line.starts_with("| attacker |")).nth(1).expect("the matrix");
    let matrix = section.split_once(head).unwrap().1.split("\n\n").next().unwrap();
    let matrix: Vec<Vec<&str>> = matrix.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    assert_eq!(matrix.iter().map(|row| row[0]).collect::<Vec<_>>(), ATTACKERS);
    let first = rows(section).take(ATTACKERS.len()).map(|row| cells(row)[0]).collect::<Vec<_>>();
    assert_eq!(first, ATTACKERS, "the table of what each can do");
    for row in matrix {
        assert_eq!(row.len(), cells(head).len(), "{row:?}");
        let mut reached = 0;
        for cell in &row[1..] {
            match cell.strip_prefix(OUT_OF_REACH) {
                Some(why) => assert!(why.len() > 10, "{row:?} does not say why a control is out of reach"),
                None => reached += named_in(cell, &tests).len(),
            }
        }
        assert!(reached > 2, "{row:?}");
    }
}

#[test]
fn every_row_of_the_attack_tables_has_a_test_and_every_attack_has_a_row() {
    let (document, tests) = (document(), all_tests());
    let section = section(&document, "Attacks");
    let mut groups = section.split("\n### ");
    assert!(rows(groups.next().unwrap()).next().is_none(), "a row before the first attacker");
    let (mut headings, mut named, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for group in groups {
        let (heading, table) = group.split_once('\n').unwrap();
        headings.push(heading.to_lowercase());
        assert!(rows(table).count() > 2, "{heading} has too few rows");
        for row in rows(table) {
            let cells = cells(row);
            assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
            named.extend(named_in(cells[2], &tests).into_iter().map(str::to_owned));
            assert!(seen.insert((heading, cells[0], cells[2])), "twice: {row}");
        }
    }
    assert_eq!(headings, ATTACKERS);
    let mut attacks = BTreeSet::new();
    tests_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/attacks"), &mut attacks);
    attacks.retain(|name| !name.starts_with("every_row_of_") && !name.starts_with("every_cell_of_"));
    let without: Vec<&String> = attacks.difference(&named).collect();
    assert!(without.is_empty(), "attacks without a row in docs/security.md: {without:?}");
}
