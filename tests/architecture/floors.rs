//! The floors of each package: a module may use those below it, and none above.

use crate::{code, sources, without_tests};

/// The floors of a package.
struct House {
    /// The folder of its source.
    folder: &'static str,
    /// Its crate's name, by which its own binary calls it.
    name: &'static str,
    /// From the top down. Modules of one floor may use each other.
    floors: &'static [&'static [&'static str]],
    /// Modules that every floor may use. Each uses only those that are named with it.
    ground: &'static [(&'static str, &'static [&'static str])],
}

const MANAGER: House = House {
    folder: "src",
    name: "riposte",
    floors: &[
        &["main"],
        &["cli"],
        &["console"],
        &["api"],
        &["compat"],
        &["engine"],
        &["store"],
        &["views"],
        &["domain"],
        &["protocol"],
    ],
    ground: &[
        ("config", &["telemetry"]),
        ("clock", &[]),
        ("exposition", &[]),
        ("host", &[]),
        ("shutdown", &[]),
        ("telemetry", &[]),
    ],
};

const AGENT: House = House {
    folder: "agent/src",
    name: "riposte_agent",
    floors: &[
        &["main"],
        &["cli"],
        &["session", "enroll"],
        &["intake"],
        &["executor"],
        &["agent"],
        &["actions", "scripts"],
        &["local_policy", "own_key", "responses_log"],
        &["identity", "journal", "runner", "self_protection"],
    ],
    ground: &[
        ("clock", &["manager_time", "moment", "platform"]),
        ("conventions", &[]),
        ("durable", &["platform"]),
        ("manager_time", &["durable", "moment", "platform"]),
        ("manager_url", &[]),
        ("moment", &[]),
        ("pin", &[]),
        ("platform", &["conventions", "tasks"]),
        ("refusal", &[]),
        ("tasks", &[]),
        ("telemetry", &[]),
        ("tls", &[]),
        ("unreachable", &[]),
        ("wazuh_identity", &["platform"]),
    ],
};

const PROTOCOL: House = House {
    folder: "protocol/src",
    name: "riposte_protocol",
    floors: &[
        &["delivery"],
        &["command", "enrolment", "key_change", "key_statement", "message"],
        &["identity", "target"],
        &["account", "jws"],
        &["key"],
    ],
    ground: &[("time", &[]), ("visible", &[]), ("words", &[])],
};

const SIMULATION: House = House {
    folder: "simulation/src",
    name: "riposte_simulation",
    floors: &[
        &["main"],
        &["shrink"],
        &["campaign"],
        &["agent", "cluster", "deliver", "manager"],
        &["world"],
        &["checker"],
        &["host", "node"],
        &["store", "wire"],
        &["disk", "instant", "outgoing", "receive", "turn"],
        &["journal", "plan"],
        // The rules of the manager.
        &["command", "effect", "settlement"],
    ],
    ground: &[
        ("defect", &[]),
        ("manager_time", &[]),
        ("moment", &[]),
        ("platform", &[]),
        ("random", &[]),
        ("refusal", &[]),
    ],
};

const CHAOS: House = House {
    folder: "chaos/src",
    name: "riposte_chaos",
    floors: &[
        &["main"],
        &["hostile", "run", "soak", "space"],
        &["consumer", "endpoint", "reader", "report"],
        &["verify", "world"],
        &["forwarder", "peer"],
        &["ledger", "load", "postgres", "shield", "witness", "writer"],
        &["alert_files", "faults", "programs"],
        &["api", "plan", "postgres_programs", "proxy", "sandbox"],
    ],
    ground: &[("clock", &[]), ("random", &[])],
};

const HOUSES: [House; 5] = [MANAGER, AGENT, PROTOCOL, SIMULATION, CHAOS];

/// Names that stand first after `crate::`, braces and `super::super` included.
fn used(code: &str, name: &str, depth: usize) -> Vec<String> {
    let mut used = Vec::new();
    let up = "super::".repeat(depth);
    let marks = ["crate::".to_owned(), format!("{name}::"), up];
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

impl House {
    /// The module of a file: the part of its path after the folder.
    fn module<'a>(&self, path: &'a str) -> &'a str {
        let below = path.strip_prefix(self.folder).unwrap().trim_start_matches('/');
        below.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn floor(&self, module: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&module))
    }

    fn ground(&self, module: &str) -> Option<&'static [&'static str]> {
        self.ground.iter().find(|(ground, _)| *ground == module).map(|(_, may)| *may)
    }

    /// Returns what is wrong with `user` using `used`, if anything.
    fn arrow(&self, user: &str, used: &str) -> Option<String> {
        // An item of the crate's root, such as `crate::MANAGER`.
        let is_item = used.starts_with(char::is_uppercase);
        if user == used || user == "lib" || is_item {
            return None;
        }
        match (self.ground(user), self.floor(user), self.ground(used), self.floor(used)) {
            (Some(may), _, _, _) if may.contains(&used) => None,
            (Some(_), _, _, _) => Some(format!("{user} is ground and uses {used}")),
            (_, Some(_), Some(_), _) => None,
            (_, Some(above), _, Some(below)) if above <= below => None,
            (_, Some(_), _, Some(_)) => Some(format!("{user} uses {used}, which is above it")),
            _ => Some(format!("{user} uses {used}: one of them is on no floor")),
        }
    }
}

#[test]
fn no_floor_uses_one_above_it() {
    let mut wrong = Vec::new();
    for house in HOUSES {
        let mut seen = 0;
        for (path, text) in sources(house.folder) {
            // Only tests include this file.
            if path.ends_with("tests.rs") || TEST_FILES.contains(&path.as_str()) {
                continue;
            }
            let user = house.module(&path);
            // The number of folders below the source: that many `super::` reach the crate.
            let below = path.strip_prefix(house.folder).unwrap();
            let depth = below.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
            let code = code(without_tests(&text));
            for used in used(&code, house.name, depth) {
                seen += 1;
                wrong.extend(house.arrow(user, &used).map(|arrow| format!("{path}: {arrow}")));
            }
        }
        let folder = house.folder;
        assert!(seen > 10, "only {seen} imports were found in {folder}: this test no longer finds them");
    }
    assert!(wrong.is_empty(), "{} arrows up:\n{}", wrong.len(), wrong.join("\n"));
}

/// Files of tests that have no name of a test.
const TEST_FILES: [&str; 4] = [
    "agent/src/actions/own_namespace.rs",
    "agent/src/executor/campaign.rs",
    "agent/src/executor/promises.rs",
    "agent/src/executor/real_drift.rs",
];

#[test]
fn this_test_sees_an_arrow_up() {
    for (source, expected) in [
        ("use crate::api::error::ApiError;", vec!["api"]),
        ("use crate::{clock::Clock, engine::{Engine, hub::Hub}, store};", vec!["clock", "engine", "store"]),
        ("fn f() { crate::engine::g(); }", vec!["engine"]),
        ("pub use super::super::api::x;", vec!["api"]),
        ("riposte::cli::main()", vec!["cli"]),
        ("use other_crate::api;", vec![]),
        ("// use crate::api;", vec![]),
    ] {
        assert_eq!(used(&code(source), "riposte", 2), expected, "{source}");
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
        assert!(MANAGER.arrow(user, used).is_some(), "{user} -> {used}");
    }
    for (user, used) in
        [("api", "engine"), ("api", "domain"), ("store", "clock"), ("config", "telemetry"), ("main", "cli")]
    {
        assert_eq!(MANAGER.arrow(user, used), None, "{user} -> {used}");
    }
    for (user, used) in
        [("executor", "intake"), ("journal", "executor"), ("local_policy", "actions"), ("platform", "durable")]
    {
        assert!(AGENT.arrow(user, used).is_some(), "{user} -> {used}");
    }
    for (user, used) in [("session", "intake"), ("actions", "scripts"), ("scripts", "actions"), ("journal", "durable")]
    {
        assert_eq!(AGENT.arrow(user, used), None, "{user} -> {used}");
    }
}

#[test]
fn every_module_is_on_a_floor() {
    for house in HOUSES {
        for (path, _) in sources(house.folder) {
            let module = house.module(&path);
            let known = module == "lib" || house.floor(module).is_some() || house.ground(module).is_some();
            assert!(known, "{path} is on no floor: its package's lib.rs and this test say which there are");
        }
    }
}
