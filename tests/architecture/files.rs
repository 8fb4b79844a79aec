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

/// Files of the agent, beside `platform/`, that ask which system the program is built for: each chooses one of two files with the
/// same functions, or leaves out what a system has not.
const ASK_THE_SYSTEM: [&str; 5] = [
    "agent/src/actions/evidence.rs",
    "agent/src/actions/kill_process.rs",
    "agent/src/actions/mod.rs",
    "agent/src/actions/quarantine_file.rs",
    "agent/src/cli/mod.rs",
];

#[test]
fn only_the_platform_of_the_agent_asks_for_the_system_and_is_unsafe() {
    let asks = ["cfg(unix)", "cfg(windows)", "cfg_attr(unix", "cfg_attr(windows", "cfg(target_os", "cfg(not(target_os"];
    let mut found = Vec::new();
    for (path, text) in sources("agent/src") {
        // Which parts of Linux a kernel has is asked where they are used.
        let is_place =
            path.contains("/platform/") || path.ends_with("/unix.rs") || path.contains("/quarantine_file/store");
        let is_unsafe = text.contains("unsafe {") || text.contains("unsafe impl") || text.contains("unsafe fn");
        assert!(!is_unsafe || path.contains("/platform/windows/"), "{path}: unsafe code is in platform/windows alone");
        if !is_place && asks.iter().any(|ask| crate::without_tests(&text).contains(ask)) {
            found.push(path);
        }
    }
    found.sort();
    let found: Vec<&str> = found.iter().map(|path| &path[path.find("agent/src").unwrap_or(0)..]).collect();
    assert_eq!(found, ASK_THE_SYSTEM);
}
