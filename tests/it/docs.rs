//! `docs/policies.md` is a page to learn from: this test runs every example on it as it stands.
//!
//! - `yaml` and `json` blocks are whole policies, and custom actions beside them. They parse
//!   without an error or a warning, and contain tests.
//! - `yaml fragment` blocks are parts of a policy. Each is merged into `BASE`: objects field by
//!   field; lists and everything else replace the value there. The result is checked as above.
//! - `sh` blocks: each line that begins with `riposte` names commands and flags that the program
//!   has. The same holds for the pages of `COMMANDS`.
//! - Any other kind of block fails the test, so that every example is checked.

use riposte::domain::action::{Action, Catalogue};
use riposte::domain::formats::AlertMappings;
use riposte::domain::policy::Policy;
use riposte::domain::response::Spared;
use riposte::engine::policy_tests::run_tests;
use serde_json::Value;

use crate::policy_cli::alone;

/// The policy that fragments are merged into.
const BASE: &str = "
name: example
match: [{ min_level: 10 }]
respond: { action: firewall-drop, for: 10m }
";

/// A code block: its first line, its kind, its text.
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) kind: String,
    pub(crate) text: String,
}

pub(crate) fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for (index, line) in page.lines().enumerate() {
        match (open.as_mut(), line.trim_start().strip_prefix("```")) {
            (None, Some(kind)) => open = Some(Block { line: index + 1, kind: kind.into(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

fn documents(text: &str) -> Vec<Value> {
    let read = |document| serde::Deserialize::deserialize(document).unwrap();
    yaml_serde::Deserializer::from_str(text).map(read).collect()
}

fn merge(into: &mut Value, part: &Value) {
    match (into, part) {
        (Value::Object(into), Value::Object(part)) => {
            for (key, value) in part {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, part) => *into = part.clone(),
    }
}

/// The policy must be valid, and its own tests must pass.
fn check(line: usize, document: &Value, actions: &Catalogue) -> Policy {
    let policy = Policy::parse(document, actions).unwrap_or_else(|faults| panic!("line {line}: {faults:#?}"));
    assert_eq!(policy.warnings(), [], "line {line}");
    assert_eq!(run_tests(&policy, &AlertMappings::default()), [], "line {line}");
    policy
}

#[test]
fn every_policy_on_the_page_does_what_it_says() {
    let (mut whole, mut parts) = (0, 0);
    for Block { line, kind, text } in blocks(&page("policies.md")) {
        match kind.as_str() {
            "yaml" | "json" => {
                let (actions, policies): (Vec<Value>, Vec<Value>) =
                    documents(&text).into_iter().partition(|document| document.get("executable").is_some());
                let read = |action| Action::parse(action).unwrap_or_else(|faults| panic!("line {line}: {faults:#?}"));
                let catalogue = Catalogue::with(actions.iter().map(read).collect());
                assert!(!policies.is_empty(), "line {line}: no policy");
                for policy in &policies {
                    assert!(!check(line, policy, &catalogue).tests.is_empty(), "line {line}: it has no tests");
                    whole += 1;
                }
            }
            "yaml fragment" => {
                let [part] = documents(&text).try_into().unwrap_or_else(|_| panic!("line {line}: more than one part"));
                let mut policy = documents(BASE).remove(0);
                merge(&mut policy, &part);
                check(line, &policy, Catalogue::built_in());
                parts += 1;
            }
            "sh" => {}
            other => panic!("line {line}: a block of kind {other:?} is run by no test"),
        }
    }
    assert!(whole > 5 && parts > 5, "{whole} policies and {parts} parts: the page was not read");
}

/// Splits a line into words as a shell would, up to a comment, a redirection or a pipe.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#' | '>' | '|') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    assert_eq!(quote, None, "a quote is not closed: {line}");
    words.extend(word);
    words
}

/// The pages whose commands are read.
const COMMANDS: [&str; 9] = [
    "policies.md",
    "policy-library.md",
    "wazuh-import.md",
    "hardening.md",
    "install.md",
    "upgrade.md",
    "forward.md",
    "pipelines.md",
    "migrate-from-wazuh.md",
];

#[test]
fn every_command_on_the_pages_exists() {
    let mut tried = 0;
    let blocks = COMMANDS.into_iter().flat_map(|name| blocks(&page(name)));
    // A block in a list is indented.
    for Block { line, text, .. } in blocks.filter(|block| block.kind == "sh") {
        for command in text.lines().map(str::trim).filter(|command| command.starts_with("riposte ")) {
            // Not where the output goes.
            let command = command.split(" >").next().unwrap_or_default();
            let read = riposte::cli::command().try_get_matches_from(words(command));
            assert!(read.is_ok(), "line {line}: {command}\n{}", read.unwrap_err());
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried} commands: the page was not read");
}

/// The tables of `docs/policy-library.md` are what the program lists.
#[test]
fn the_page_of_the_library_lists_what_the_program_lists() {
    let here = tempfile::tempdir().unwrap();
    let listed = |words: &str| -> Vec<Value> {
        let out = alone(here.path(), &format!("policy library list --json{words}")).gives(0);
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let rules = |row: &Value| {
        let rules: Vec<&str> = row["rules"].as_array().unwrap().iter().map(|rule| rule.as_str().unwrap()).collect();
        rules.join(" ")
    };
    let policies = listed("").into_iter().map(|row| {
        let [name, action, target, duration, summary] =
            ["name", "action", "target", "for", "summary"].map(|field| text(&row, field));
        format!("| `{name}` | {} | `{action}` | `{target}` | {duration} | {summary} |", rules(&row))
    });
    let without = listed(" --without")
        .into_iter()
        .map(|row| format!("| {} | {} | {} |", rules(&row), text(&row, "what"), text(&row, "why")));
    let expected: Vec<String> = policies.chain(without).collect();
    let page = page("policy-library.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let rows: Vec<&str> =
        rows.into_iter().filter(|line| !line.starts_with("| name") && !line.starts_with("| rules")).collect();
    assert_eq!(rows, expected);
}

/// The table of `docs/states.md` has the words of `Spared::reason`, in its order.
#[test]
fn the_page_explains_each_reason_of_a_spared_response() {
    let code = include_str!("../../src/domain/response.rs");
    let (_, code) = code.split_once("impl Spared {").unwrap();
    let (_, code) = code.split_once("fn reason(").unwrap();
    let (code, _) = code.split_once("\n    }\n").unwrap();
    let words: Vec<&str> = code.lines().filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\",")).collect();
    assert!(words.contains(&Spared::Cooldown.reason()) && words.len() > 10, "{words:?}: the code was not read");
    let page = page("states.md");
    let (_, part) = page.split_once("\n## Spared\n").unwrap();
    let (part, _) = part.split_once("\n## ").unwrap();
    let rows: Vec<Vec<&str>> = part
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").collect())
        .collect();
    let explained: Vec<&str> = rows.iter().map(|row| row[0].trim_end_matches('`')).collect();
    assert_eq!(explained, words);
    for row in rows {
        assert!(
            row.len() == 3 && row.iter().all(|cell| cell.len() > 5),
            "it does not say what it means and what to do: {row:?}"
        );
    }
}

#[test]
fn a_wrong_example_would_be_noticed() {
    let read = riposte::cli::command().try_get_matches_from(words("riposte policy list --jsno"));
    assert!(read.is_err());
    assert_eq!(words("a \"b c\" d  # e"), ["a", "b c", "d"]);
    let mut base = documents(BASE).remove(0);
    merge(&mut base, &documents("respond: { fro: 1h }").remove(0));
    assert!(Policy::parse(&base, Catalogue::built_in()).is_err());
}
