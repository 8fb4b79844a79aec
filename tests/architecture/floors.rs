//! The floors of the manager: each module may use those below it, and none above.

use crate::{code, sources, without_tests};

/// From the top down: each floor may use those below it.
const FLOORS: [&str; 8] = ["main", "cli", "api", "compat", "engine", "store", "domain", "protocol"];
/// A module of the ground uses no other module of this crate, except those named here.
const GROUND: [(&str, &[&str]); 4] =
    [("config", &["telemetry"]), ("clock", &[]), ("shutdown", &[]), ("telemetry", &[])];

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
