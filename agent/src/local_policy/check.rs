//! Every fault of `agent.toml` with its line, for `riposte-agent config check`: the start stops at the first.
//! Each key, and each entry of a list, is read by itself with the reader of the start.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::read::{self, PolicyError};

/// A fault of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFault {
    /// Its line, from 1; `None` if it is none of a line.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// A checked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCheck {
    /// Path of the file; `None` if there is none, and the default counts.
    pub path: Option<PathBuf>,
    /// Everything that is wrong with it.
    pub faults: Vec<PolicyFault>,
}

impl PolicyCheck {
    /// Checks the file that a start would read.
    ///
    /// # Errors
    /// When the file cannot be read or trusted.
    pub fn of(chosen: Option<&Path>, state_dir: &Path, actions: &[&str]) -> Result<Self, PolicyError> {
        Ok(match read::text(chosen, state_dir)? {
            Some((path, text)) => Self { path: Some(path), faults: faults(&text, actions) },
            None => Self { path: None, faults: Vec::new() },
        })
    }
}

fn faults(text: &str, actions: &[&str]) -> Vec<PolicyFault> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<PolicyFault> = errors
        .into_iter()
        .map(|error| PolicyFault {
            line: error.span().map(|span| line(span.start)),
            message: error.message().to_owned(),
        })
        .collect();
    // The syntax is right, so the values are there.
    let Ok(values) = text.parse::<Table>() else { return faults };
    let mut alone = |at: usize, part: Table| {
        if let Err(message) = read::rules(part, actions) {
            let fault = PolicyFault { line: Some(line(at)), message };
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    };
    for (name, item) in table.get_ref() {
        let (at, name) = (name.span().start, name.get_ref().as_ref());
        let Some(value) = values.get(name) else { continue };
        match (item.get_ref(), value) {
            (DeValue::Table(keys), Value::Table(values)) if name == "protected" => {
                for (key, item) in keys {
                    let (at, key) = (key.span().start, key.get_ref().as_ref());
                    let Some(value) = values.get(key) else { continue };
                    for (at, value) in entries(at, item.get_ref(), value) {
                        alone(at, one("protected", Value::Table(one(key, value))));
                    }
                }
            }
            (item, value) => {
                for (at, value) in entries(at, item, value) {
                    alone(at, beside(&values, actions, name, value));
                }
            }
        }
    }
    // What only the keys together say.
    if faults.is_empty()
        && let Err(message) = read::rules(values, actions)
    {
        faults.push(PolicyFault { line: None, message });
    }
    faults.sort_by_key(|fault| fault.line);
    faults
}

fn one(key: &str, value: Value) -> Table {
    Table::from_iter([(key.to_owned(), value)])
}

/// A key, and the one that its limit depends on, unless that is wrong itself.
fn beside(values: &Table, actions: &[&str], name: &str, value: Value) -> Table {
    let mut part = one(name, value);
    if name == "script_timeout_seconds"
        && let Some(limit) = values.get("timeout_seconds")
        && read::rules(one("timeout_seconds", limit.clone()), actions).is_ok()
    {
        part.insert("timeout_seconds".to_owned(), limit.clone());
    }
    part
}

/// The entries of a list, each as a list of its own; anything else as it is.
fn entries(at: usize, item: &DeValue<'_>, value: &Value) -> Vec<(usize, Value)> {
    match (item, value) {
        (DeValue::Array(items), Value::Array(values)) if !values.is_empty() => items
            .iter()
            .zip(values)
            .map(|(item, value)| (item.span().start, Value::Array(vec![value.clone()])))
            .collect(),
        _ => vec![(at, value.clone())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: &[&str] = &["firewall-drop", "log-only"];

    fn told(text: &str) -> Vec<(Option<usize>, String)> {
        faults(text, ACTIONS).into_iter().map(|fault| (fault.line, fault.message)).collect()
    }

    #[test]
    fn every_fault_has_its_line() {
        let text = "observ = true\ndenied_actions = [\"log-only\",\n  \"firewal-drop\"]\nverify_every = \"1s\"\n\
                    timeout_seconds = 20\nscript_timeout_seconds = 30\ndrift = \"ignore\"\nscripts_dir = \"bin\"\n\
                    responses_log = \"log\"\nmax_output_bytes = \"many\"\n\n[protected]\naddresses = [\n\
                    \"10.0.0.0/8\",\n\"10.0.0\",\n\"x\",\n]\nuser = [\"root\"]\nfiles = [\"etc\"]\n\n\
                    [[allowed_actions]]\naction = \"x\"\n";
        let told = told(text);
        let lines: Vec<usize> = told.iter().map(|(line, _)| line.unwrap()).collect();
        assert_eq!(lines, [1, 3, 4, 6, 7, 8, 9, 10, 15, 16, 18, 19, 21], "{told:#?}");
        for (at, part) in [
            (0, "did you mean observe?"),
            (1, "did you mean firewall-drop?"),
            (3, "which is 20"),
            (8, "\"10.0.0\" in protected.addresses"),
            (10, "did you mean protected.users?"),
        ] {
            assert!(told[at].1.contains(part), "{}", told[at].1);
        }
    }

    #[test]
    fn a_limit_that_is_wrong_itself_is_told_once() {
        assert_eq!(told("timeout_seconds = 999\nscript_timeout_seconds = 60\n").len(), 1);
        // Together with the default of the other.
        let told = told("timeout_seconds = 20\nscript_timeout_seconds = 21\n");
        assert_eq!((told.len(), told[0].0), (1, Some(2)), "{told:?}");
    }

    #[test]
    fn faults_of_syntax_have_their_lines_and_a_right_file_has_none() {
        let told_of_syntax = told("observe = true\ntimeout_seconds = \n");
        assert_eq!(told_of_syntax[0].0, Some(2), "{told_of_syntax:?}");
        assert_eq!(told("observe = true\nobserve = false\n")[0].0, Some(2));
        assert_eq!(told(""), []);
        assert_eq!(told("allowed_actions = []\n[protected]\nusers = []\n"), []);
    }
}
