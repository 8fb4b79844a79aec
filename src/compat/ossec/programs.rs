//! Commands become actions: Wazuh's own programs become built-in actions, and others become custom
//! actions with a program in the agents' folder.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::loaded::{ActiveResponse, Command, Loaded};
use super::report::{ImportReport, short};
use crate::domain::action::{Action, Catalogue, is_name};

/// Wazuh's programs, without `.exe`, `.sh`, `.cmd` or `.py`, and the equivalent action.
const PROGRAMS: [(&str, &str); 16] = [
    ("firewall-drop", "firewall-drop"),
    ("default-firewall-drop", "firewall-drop"),
    ("host-deny", "host-deny"),
    ("route-null", "route-null"),
    ("netsh", "netsh"),
    ("disable-account", "disable-account"),
    ("firewalld-drop", "firewalld-drop"),
    ("ipfw", "ipfw"),
    ("npf", "npf"),
    ("pf", "pf"),
    ("ip-customblock", "ip-customblock"),
    ("restart-wazuh", "restart-wazuh"),
    ("restart-ossec", "restart-wazuh"),
    ("wazuh-slack", "wazuh-slack"),
    ("ossec-slack", "wazuh-slack"),
    ("kaspersky", "kaspersky"),
];
const ENDINGS: [&str; 4] = [".exe", ".sh", ".cmd", ".py"];
/// Maximum length of an action name, in bytes.
const MAX_NAME: usize = 64;

/// Converted commands.
pub(super) struct Programs {
    /// Action name per command; `None` if it cannot be converted.
    pub by_command: Vec<Option<String>>,
    /// Documents of custom actions.
    pub documents: Vec<Value>,
    /// Built-in and custom actions.
    pub catalogue: Catalogue,
}

impl Programs {
    /// The action of a response.
    pub(super) fn of(&self, block: &ActiveResponse) -> Option<&Action> {
        let name = self.by_command.get(block.uses)?.as_deref()?;
        self.catalogue.find(name).map(AsRef::as_ref)
    }
}

/// The built-in action equivalent to a program, if any.
fn own(executable: &str) -> Option<&'static Action> {
    let known = Catalogue::built_in();
    // Here the name with its extension is the action's.
    if executable == "restart.sh" {
        return known.find("restart.sh").or_else(|| known.find("restart-wazuh")).map(AsRef::as_ref);
    }
    known.find(meaning(executable)?).map(AsRef::as_ref)
}

/// The name of the action equivalent to a program of Wazuh's own, which may not exist yet.
pub fn meaning(executable: &str) -> Option<&'static str> {
    let plain = ENDINGS.iter().find_map(|ending| executable.strip_suffix(ending)).unwrap_or(executable);
    PROGRAMS.iter().find(|(program, _)| *program == plain).map(|(_, name)| *name)
}

/// Converts the commands.
pub(super) fn carry(loaded: &Loaded, report: &mut ImportReport) -> Programs {
    let mut by_command = Vec::with_capacity(loaded.commands.len());
    let (mut documents, mut actions, mut names) = (Vec::new(), Vec::new(), Names::default());
    let mut first_of: HashSet<&str> = HashSet::new();
    // Indexed by command, so that blocks and commands do not cost their product.
    let (mut used, mut stateful) = (vec![false; loaded.commands.len()], vec![false; loaded.commands.len()]);
    for block in &loaded.policies {
        if let (Some(used), Some(stateful)) = (used.get_mut(block.uses), stateful.get_mut(block.uses)) {
            *used = true;
            *stateful |= block.stateful;
        }
    }
    for ((command, used), stateful) in loaded.commands.iter().zip(used).zip(stateful) {
        if !first_of.insert(&command.name) {
            let message = format!(
                "command {:?} is defined again; Wazuh uses the first of that name, so this one is ignored",
                short(&command.name)
            );
            report.warning(command.place, message);
            by_command.push(None);
            continue;
        }
        if let Some(illegible) = &command.illegible {
            report.error(illegible.place, illegible.told());
            by_command.push(None);
            continue;
        }
        if let Some(action) = own(&command.executable) {
            if used {
                same_meaning(command, action, report);
            }
            by_command.push(Some(action.name.clone()));
            continue;
        }
        let name = names.free(&command.name);
        let document = custom(&name, command, stateful, report);
        match Action::parse(&document) {
            Ok(action) => {
                describe(command, &name, used, stateful, report);
                actions.push(action);
                documents.push(document);
                by_command.push(Some(name));
            }
            Err(faults) => {
                let faults: Vec<String> =
                    faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
                let message = format!(
                    "command {:?} cannot be an action, and its uses are not converted: {}",
                    short(&command.name),
                    faults.join("; ")
                );
                report.error(command.place, message);
                by_command.push(None);
            }
        }
    }
    Programs { by_command, documents, catalogue: Catalogue::with(actions) }
}

fn same_meaning(command: &Command, action: &Action, report: &mut ImportReport) {
    if command.executable != action.name || command.name != action.name {
        let message = format!(
            "command {:?} runs {}, a program of Wazuh's own: it becomes Riposte's action {}",
            short(&command.name),
            short(&command.executable),
            action.name
        );
        report.info(command.place, message);
    }
}

/// The document of a custom action.
fn custom(name: &str, command: &Command, stateful: bool, report: &ImportReport) -> Value {
    let summary = format!("Wazuh's command {:?} of {}.", short(&command.name), report.at(command.place));
    let mut document = json!({"name": name, "summary": summary, "executable": command.executable, "style": "wazuh",
        "undoable": stateful, "wants_alert": true, "target_kinds": ["none"]});
    if stateful {
        // Every lasting effect needs a target, so that it can be found, protected and lifted.
        document["target_kinds"] = json!(["ip", "user", "file", "process", "host", "none"]);
        // Wazuh passes any account name from the alert to its programs.
        document["user"] = json!("any");
        document["default_target"] = json!(default_target(command.expect.as_deref().unwrap_or_default()));
    }
    document
}

/// The target that corresponds to the `expect` of Wazuh before 4.2.
fn default_target(expect: &str) -> &'static str {
    let expect = expect.to_ascii_lowercase();
    if expect.contains("srcip") {
        "source.ip"
    } else if expect.contains("user") {
        "destination.user"
    } else if expect.contains("filename") {
        "file.path"
    } else {
        "source.ip"
    }
}

fn describe(command: &Command, name: &str, used: bool, stateful: bool, report: &mut ImportReport) {
    let quoted = short(&command.name);
    let executable = short(&command.executable);
    if name != command.name {
        report.warning(
            command.place,
            format!("command {quoted:?} is called {name} here: its own name is taken, or no action can have it"),
        );
    }
    let of_wazuh = if meaning(&command.executable).is_some() {
        ". It is a program of Wazuh's own, for which this version has no action"
    } else {
        ""
    };
    let what = format!(
        "command {quoted:?} becomes the custom action {name}, which runs {executable} from the agents' folder for \
         programs{of_wazuh}"
    );
    if stateful {
        let target = default_target(command.expect.as_deref().unwrap_or_default());
        let message = format!(
            "{what}. It is undone after a time, so it needs a target: {target} of the alert. An alert without one is \
             answered by Wazuh and not here; if the program looks at another field, say so in the policy's respond.target"
        );
        report.warning(command.place, message);
    } else {
        let unused = if used { "" } else { ". No active response uses it" };
        report.info(command.place, format!("{what}; it is run once, has no target, and is never undone{unused}"));
    }
}

/// Names in use, and the next suffix for equal ones.
#[derive(Default)]
struct Names {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Names {
    /// A free action name that is not a built-in one.
    fn free(&mut self, command: &str) -> String {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') => c,
            _ => '-',
        };
        let clean: String = command.chars().take(MAX_NAME).map(plain).collect();
        let clean = clean.trim_matches(['.', '_', '-']);
        let clean = if is_name(clean) { clean } else { "command" };
        let next = self.next.entry(clean.to_owned()).or_insert(2);
        let mut name = clean.to_owned();
        while self.taken.contains(&name) || Catalogue::built_in().find(&name).is_some() {
            let suffix = format!("-{next}");
            name = format!("{}{suffix}", clean.get(..clean.len().min(MAX_NAME - suffix.len())).unwrap_or(clean));
            *next += 1;
        }
        self.taken.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wazuhs_programs_are_recognised_by_file_name() {
        for executable in ["firewall-drop", "firewall-drop.sh", "default-firewall-drop"] {
            assert_eq!(own(executable).unwrap().name, "firewall-drop", "{executable}");
        }
        assert_eq!(own("route-null.exe").unwrap().name, "route-null");
        assert_eq!(own("block-ip.py"), None);
        assert_eq!(own(".sh"), None);
    }

    #[test]
    fn names_are_normalised_and_unique() {
        let mut names = Names::default();
        let mut name = |command: &str| names.free(command);
        assert_eq!(
            ["Page Oncall", "page-oncall", "page oncall"].map(&mut name),
            ["page-oncall", "page-oncall-2", "page-oncall-3"]
        );
        assert_eq!(["firewall-drop", "…", ""].map(&mut name), ["firewall-drop-2", "command", "command-2"]);
        assert_eq!((name(&"x".repeat(300)), name(&"x".repeat(300)).len()), ("x".repeat(64), 64));
    }
}
