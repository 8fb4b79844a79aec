//! The architecture as a test: floors, where SQL is, the size of files, their names. It reads the
//! source as text: an import that a macro writes is not seen.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::path::{Path, PathBuf};

/// From the top down: each floor may use those below it.
const FLOORS: [&str; 8] = ["main", "cli", "api", "compat", "engine", "store", "domain", "protocol"];
/// A module of the ground uses no other module of this crate, except those named here.
const GROUND: [(&str, &[&str]); 4] =
    [("config", &["telemetry"]), ("clock", &[]), ("shutdown", &[]), ("telemetry", &[])];
/// The most lines of a file of source.
const MOST_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, by its path from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no source");
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The code of a file, without comment lines.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        // A `//` inside a string (an address) is kept: it holds no import.
        let line = if line.trim_start().starts_with("//") { "" } else { line };
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The code without its unit tests: a test may use floors above it.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The module of a manager's file: the part of its path after `src/`.
fn module(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap();
    below.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Names that stand first after `crate::`, braces and `super::super` included.
fn used(code: &str, depth: usize) -> Vec<String> {
    let mut used = Vec::new();
    let up = "super::".repeat(depth);
    let marks = ["crate::".to_owned(), "riposte::".to_owned(), up];
    for mark in marks.iter().filter(|mark| !mark.is_empty()) {
        for (at, _) in code.match_indices(mark.as_str()) {
            // `my_crate::` is another word.
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + mark.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => split_group(group),
                None => vec![rest],
            };
            for name in names {
                let name: String = name.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !name.is_empty() && name != "super" {
                    used.push(name);
                }
            }
        }
    }
    used
}

/// The top-level parts of `{a::b, c::{d, e}}`.
fn split_group(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

/// Returns what is wrong with `user` using `used`, if anything.
fn arrow(user: &str, used: &str) -> Option<String> {
    let floor = |name: &str| FLOORS.iter().position(|floor| *floor == name);
    let ground = |name: &str| GROUND.iter().find(|(ground, _)| *ground == name);
    if user == used || user == "lib" {
        return None;
    }
    match (ground(user), floor(user), ground(used), floor(used)) {
        (Some((_, may)), _, _, _) if may.contains(&used) => None,
        (Some(_), _, _, _) => Some(format!("{user} is ground and uses {used}")),
        (_, Some(_), Some(_), _) => None,
        (_, Some(above), _, Some(below)) if above < below => None,
        (_, Some(_), _, Some(_)) => Some(format!("{user} uses {used}, which is above it")),
        _ => Some(format!("{user} uses {used}: one of them is on no floor")),
    }
}

#[test]
fn no_floor_uses_one_above_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in sources("src") {
        let user = module(&path);
        // The number of folders below src: that many `super::` reach the crate.
        let depth = path.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
        let code = code(without_tests(&text));
        for used in used(&code, depth) {
            // Defined in lib.rs itself.
            if user == "main" && used == "cli" || user == "lib" {
                continue;
            }
            seen += 1;
            wrong.extend(arrow(user, &used).map(|arrow| format!("{path}: {arrow}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 100, "only {seen} imports were found: this test no longer finds them");
}

#[test]
fn this_test_sees_an_arrow_up() {
    for (source, expected) in [
        ("use crate::api::error::ApiError;", vec!["api"]),
        ("use crate::{clock::Clock, engine::{Engine, hub::Hub}, store};", vec!["clock", "engine", "store"]),
        ("fn f() { crate::engine::g(); }", vec!["engine"]),
        ("pub use super::super::api::x;", vec!["api"]),
        ("use other_crate::api;", vec![]),
        ("// use crate::api;", vec![]),
    ] {
        assert_eq!(used(&code(source), 2), expected, "{source}");
    }
    for (user, used) in [
        ("store", "engine"),
        ("domain", "store"),
        ("engine", "api"),
        ("clock", "store"),
        ("telemetry", "config"),
        ("api", "cli"),
        ("domain", "elsewhere"),
    ] {
        assert!(arrow(user, used).is_some(), "{user} -> {used}");
    }
    for (user, used) in
        [("api", "engine"), ("api", "domain"), ("store", "clock"), ("config", "telemetry"), ("main", "cli")]
    {
        assert_eq!(arrow(user, used), None, "{user} -> {used}");
    }
}

#[test]
fn every_module_is_on_a_floor() {
    for (path, _) in sources("src") {
        let module = module(&path);
        let known = module == "lib" || FLOORS.contains(&module) || GROUND.iter().any(|(ground, _)| *ground == module);
        assert!(known, "{path} is on no floor: lib.rs and this test say which there are");
    }
}

/// Returns whether a line holds SQL: its keywords are in upper case.
fn is_sql(line: &str) -> bool {
    let has = |word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let open = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            open(line[..at].chars().next_back()) && open(line[at + word.len()..].chars().next())
        })
    };
    has("SELECT")
        || has("INSERT INTO")
        || has("DELETE FROM")
        || (has("UPDATE") && has("SET"))
        || has("CREATE TABLE")
        || has("ON CONFLICT")
}

#[test]
fn sql_is_in_the_store_and_only_there() {
    assert!(
        is_sql("const A: &str = \"SELECT 1\";")
            && is_sql("UPDATE t SET a = 1")
            && !is_sql("let SELECTED = 1; // UPDATE=1")
    );
    for folder in ["src", "protocol/src", "agent/src"] {
        for (path, text) in sources(folder) {
            if path.starts_with("src/store/") {
                continue;
            }
            for (number, line) in code(&text).lines().enumerate() {
                assert!(!is_sql(line), "{path}:{}: SQL outside src/store: {}", number + 1, line.trim());
                assert!(!line.contains("sqlx::query"), "{path}:{}: a query outside src/store", number + 1);
            }
        }
    }
    let statements = sources("src/store")
        .iter()
        .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| is_sql(line))
        .count();
    assert!(statements > 50, "only {statements} statements were found: this test no longer finds them");
}

/// The names of a package's dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut names = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        names.extend(
            table.get(section).and_then(toml::Value::as_table).into_iter().flatten().map(|(name, _)| name.clone()),
        );
    }
    for target in table.get("target").and_then(toml::Value::as_table).into_iter().flatten().map(|(_, target)| target) {
        names.extend(
            target
                .get("dependencies")
                .and_then(toml::Value::as_table)
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone()),
        );
    }
    names
}

#[test]
fn agent_and_manager_know_only_the_protocol_of_each_other() {
    let agent = dependencies("agent/Cargo.toml");
    assert!(agent.contains(&"riposte-protocol".to_owned()));
    assert!(!agent.contains(&"riposte".to_owned()), "the agent depends on the manager");
    // Another trust level: no web server and no database in a program that runs as root on every
    // host.
    for heavy in ["axum", "sqlx", "rusqlite", "tower-http"] {
        assert!(!agent.contains(&heavy.to_owned()), "the agent depends on {heavy}");
    }
    let manager = dependencies("Cargo.toml");
    assert!(manager.contains(&"riposte-protocol".to_owned()) && !manager.contains(&"riposte-agent".to_owned()));
    let protocol = dependencies("protocol/Cargo.toml");
    assert!(!protocol.contains(&"riposte".to_owned()) && !protocol.contains(&"riposte-agent".to_owned()));
    // The protocol is a function of its arguments.
    for io in ["tokio", "reqwest", "axum", "sqlx"] {
        assert!(!protocol.contains(&io.to_owned()), "the protocol depends on {io}");
    }
}

#[test]
fn no_file_grows_beyond_what_one_can_read() {
    for folder in ["src", "protocol/src", "agent/src"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(
                lines <= MOST_LINES,
                "{path} has {lines} lines; {MOST_LINES} is the most: split it by stage or noun"
            );
        }
    }
}

#[test]
fn no_module_is_a_drawer_for_everything() {
    const DRAWERS: [&str; 9] = ["utils", "util", "common", "helpers", "helper", "prelude", "misc", "types", "shared"];
    for folder in ["src", "protocol/src", "agent/src", "tests", "benches"] {
        for (path, _) in sources(folder) {
            let mut parts = path.split('/').map(|part| part.trim_end_matches(".rs"));
            assert!(!parts.any(|part| DRAWERS.contains(&part)), "{path}: a name without meaning");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["src", "protocol/src", "agent/src", "tests", "benches"] {
        for (path, text) in sources(folder) {
            let said = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default();
            assert!(said.len() > 10, "{path} does not begin with a description (//!)");
        }
    }
}

#[test]
fn decisions_are_numbered_without_a_gap() {
    let mut names: Vec<String> = std::fs::read_dir(root().join("docs/decisions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.as_bytes()[0].is_ascii_digit())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "docs/decisions holds no decision");
    for (name, expected) in names.iter().zip(1..) {
        let number = name.split('-').next().unwrap();
        assert_eq!(number, format!("{expected:04}"), "{name}");
        let text = std::fs::read_to_string(root().join("docs/decisions").join(name)).unwrap();
        for part in ["Context", "Decision", "Consequences"] {
            assert!(text.contains(part), "{name} has no part called {part}");
        }
    }
    // Every decision that the code refers to exists.
    for folder in ["src", "protocol/src", "agent/src"] {
        for (path, text) in sources(folder) {
            for reference in text.split("docs/decisions/").skip(1) {
                let file: String =
                    reference.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '.')).collect();
                let file = file.trim_end_matches('.');
                assert!(
                    names.iter().any(|name| name == file),
                    "{path} points at docs/decisions/{file}, which is not there"
                );
            }
        }
    }
}
