//! The files: their size, their names, and their first line.

use crate::sources;

/// The most lines of a file of source.
const MOST_LINES: usize = 500;

#[test]
fn no_file_grows_beyond_what_one_can_read() {
    for folder in ["src", "protocol/src", "agent/src", "fuzz"] {
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
    for folder in ["src", "protocol/src", "agent/src", "fuzz", "tests", "benches"] {
        for (path, _) in sources(folder) {
            let mut parts = path.split('/').map(|part| part.trim_end_matches(".rs"));
            assert!(!parts.any(|part| DRAWERS.contains(&part)), "{path}: a name without meaning");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["src", "protocol/src", "agent/src", "fuzz", "tests", "benches"] {
        for (path, text) in sources(folder) {
            let said = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default();
            assert!(said.len() > 10, "{path} does not begin with a description (//!)");
        }
    }
}
