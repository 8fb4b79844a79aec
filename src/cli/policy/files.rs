//! Policies, custom actions and protected entries in files: finds the files, parses their
//! documents, and checks all of them before any request. YAML 1.2, so `on` is a string; content
//! that JSON cannot represent is a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use crate::domain::action::{Action, Catalogue};
use crate::domain::fault::Fault;
use crate::domain::formats::AlertMappings;
use crate::domain::policy::{MAX_POLICY_BYTES, Policy};
use crate::domain::protected_document::{AgentIds, ProtectedDocument};
use crate::engine::policy_tests::run_tests;

use super::protected::ProtectedItem;
use super::text;

/// File name extensions in a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A fault with its document: `FILE:2` is the second one of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    place: String,
    fault: Fault,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, fault: Fault { pointer, detail } } = self;
        if pointer.is_empty() { write!(f, "{place}: {detail}") } else { write!(f, "{place} {pointer}: {detail}") }
    }
}

/// A document of a file.
#[derive(Clone, Debug)]
pub(super) struct FileDocument {
    /// Position, such as `FILE:2`.
    pub(super) place: String,
    /// Parsed content.
    pub(super) content: Value,
}

/// A document with its parsed form.
#[derive(Clone, Debug)]
pub(super) struct FileEntry<T> {
    /// The document.
    pub(super) document: FileDocument,
    /// The parsed form.
    pub(super) read: T,
}

/// All documents of some files, and the faults found so far.
#[derive(Debug, Default)]
pub(super) struct Documents {
    documents: Vec<FileDocument>,
    faults: Vec<Placed>,
}

/// The valid content of files.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Custom actions.
    pub(super) actions: Vec<FileEntry<Action>>,
    /// Policies.
    pub(super) policies: Vec<FileEntry<Policy>>,
    /// Protected entries.
    pub(super) protected: Vec<FileEntry<ProtectedItem>>,
}

/// What documents may refer to on the manager.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    /// Custom actions of the manager.
    pub(super) actions: Vec<Action>,
    /// Agents of the manager; absent without a manager.
    pub(super) agents: Option<AgentIds>,
}

impl Documents {
    /// Reads files, and folders recursively.
    pub(super) fn read(paths: &[PathBuf]) -> Self {
        let mut read = Self::default();
        for path in paths {
            match files(path) {
                Ok(files) => files.iter().for_each(|file| read.file(file)),
                Err(error) => read.fault(path.display().to_string(), "", text::unreadable(&error)),
            }
        }
        read
    }

    /// Documents that are not from a file, each with its position for messages.
    pub(super) fn of(contents: impl Iterator<Item = (String, Value)>) -> Self {
        let documents = contents.map(|(place, content)| FileDocument { place, content }).collect();
        Self { documents, faults: Vec::new() }
    }

    /// Whether there are neither documents nor faults.
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.faults.is_empty()
    }

    /// The faults, if there are no documents: they need no manager.
    pub(super) fn unread(&self) -> Option<Vec<Placed>> {
        (self.documents.is_empty() && !self.faults.is_empty()).then(|| self.faults.clone())
    }

    fn fault(&mut self, place: String, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(Placed { place, fault: Fault::at(pointer, detail) });
    }

    fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = match text::of_file(path) {
            Ok(text) => text,
            Err(why) => return self.fault(name, "", why),
        };
        let text = text.as_str();
        let mut number = 0;
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
            match serde_json::from_str(text) {
                Ok(content) => self.take(&name, &mut number, content),
                Err(error) => self.fault(name, "", format!("is not JSON: {error}")),
            }
            return;
        }
        for document in yaml_serde::Deserializer::from_str(text) {
            let place = format!("{name}:{}", number + 1);
            let content = match yaml_serde::Value::deserialize(document) {
                Ok(content) => content,
                // After a syntax error the start of the next document is unknown.
                Err(error) => return self.fault(place, "", text::not_yaml(text, &error)),
            };
            let mut faults = Vec::new();
            let content = json(content, "", &mut faults);
            if faults.is_empty() {
                self.take(&name, &mut number, content);
            } else {
                number += 1;
                self.faults.extend(faults.into_iter().map(|fault| Placed { place: place.clone(), fault }));
            }
        }
    }

    /// Adds a document; a list counts as several, and null as none.
    fn take(&mut self, name: &str, number: &mut usize, content: Value) {
        match content {
            Value::Null => {}
            Value::Array(list) => list.into_iter().for_each(|content| self.take(name, number, content)),
            content => {
                *number += 1;
                let place = format!("{name}:{number}");
                self.documents.push(FileDocument { place, content });
            }
        }
    }

    /// Checks everything: each document, duplicate names, and the policies' own tests. Documents
    /// may refer to `known` and to each other.
    ///
    /// # Errors
    /// All faults.
    pub(super) fn check(self, known: &KnownNames, mappings: &AlertMappings) -> Result<Held, Vec<Placed>> {
        let (held, mut faults) = self.hold(known);
        for entry in &held.policies {
            let failed = run_tests(&entry.read, mappings).into_iter();
            faults.extend(failed.map(|fault| Placed { place: entry.document.place.clone(), fault }));
        }
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        if faults.is_empty() { Ok(held) } else { Err(faults) }
    }

    /// The same without the policies' tests.
    ///
    /// # Errors
    /// All faults.
    pub(super) fn check_only(self, known: &KnownNames) -> Result<Held, Vec<Placed>> {
        let (held, mut faults) = self.hold(known);
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        if faults.is_empty() { Ok(held) } else { Err(faults) }
    }

    fn hold(self, known: &KnownNames) -> (Held, Vec<Placed>) {
        let Self { documents, mut faults } = self;
        let (mut protected, mut actions, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for document in documents {
            match Marks::of(&document.content) {
                Marks { kind: true, name: false, .. } => protected.push(document),
                Marks { executable: true, .. } => actions.push(document),
                _ => policies.push(document),
            }
        }
        let protected = read_each(protected, &mut faults, |content| {
            ProtectedDocument::parse(content, known.agents.as_ref()).map(ProtectedItem::of_file)
        });
        let actions = read_each(actions, &mut faults, Action::parse);
        let own = actions.iter().map(|entry| entry.read.clone());
        let catalogue = Catalogue::with(known.actions.iter().cloned().chain(own).collect());
        let policies = read_each(policies, &mut faults, |content| {
            if content.to_string().len() > MAX_POLICY_BYTES {
                return Err(vec![Fault::at("", format!("is longer than {MAX_POLICY_BYTES} bytes"))]);
            }
            Policy::parse(content, &catalogue)
        });
        unique(&actions, "/name", |action| action.name.clone(), &mut faults);
        unique(&policies, "/name", |policy| policy.name.clone(), &mut faults);
        unique(&protected, "/value", |entry| entry.protection.name(), &mut faults);
        (Held { actions, policies, protected }, faults)
    }
}

/// The fields that tell the documents apart: policies and actions have a name, protected entries a
/// kind, and only actions a program.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Marks {
    #[serde(deserialize_with = "is_there")]
    name: bool,
    #[serde(deserialize_with = "is_there")]
    kind: bool,
    #[serde(deserialize_with = "is_there")]
    executable: bool,
}

impl Marks {
    /// Those of a document; one that is no object has none.
    fn of(document: &Value) -> Self {
        Self::deserialize(document).unwrap_or_default()
    }
}

/// A field is there, with any value.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn read_each<T>(
    documents: Vec<FileDocument>,
    faults: &mut Vec<Placed>,
    read: impl Fn(&Value) -> Result<T, Vec<Fault>>,
) -> Vec<FileEntry<T>> {
    let mut entries = Vec::with_capacity(documents.len());
    for document in documents {
        match read(&document.content) {
            Ok(read) => entries.push(FileEntry { document, read }),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| Placed { place: document.place.clone(), fault }));
            }
        }
    }
    entries
}

fn unique<T>(entries: &[FileEntry<T>], at: &str, name: impl Fn(&T) -> String, faults: &mut Vec<Placed>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for FileEntry { document: FileDocument { place, .. }, read } in entries {
        if let Some(earlier) = seen.insert(name(read), place) {
            let fault = Fault::at(at, format!("{} is also in {earlier}", name(read)));
            faults.push(Placed { place: place.clone(), fault });
        }
    }
}

/// The file, or all supported files below the folder, sorted. Hidden files and linked folders are
/// skipped: mounted configurations keep old versions there.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut entries) = (Vec::new(), std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?);
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, is_ours) = (entry.path(), !entry.file_name().to_string_lossy().starts_with('.'));
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if is_ours && entry.file_type()?.is_dir() {
            found.extend(files(&path)?);
        } else if is_ours && ENDINGS.contains(&ending.as_str()) && std::fs::metadata(&path)?.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Converts YAML to JSON.
fn json(value: yaml_serde::Value, at: &str, faults: &mut Vec<Fault>) -> Value {
    use yaml_serde::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(is) => Value::Bool(is),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => {
            let whole = number.as_u64().map(Number::from).or_else(|| number.as_i64().map(Number::from));
            let number = whole.or_else(|| number.as_f64().and_then(Number::from_f64));
            number.map_or_else(
                || {
                    faults.push(Fault::at(at, "is not a number that JSON knows"));
                    Value::Null
                },
                Value::Number,
            )
        }
        Yaml::Sequence(list) => {
            let items = list.into_iter().enumerate().map(|(index, item)| json(item, &format!("{at}/{index}"), faults));
            Value::Array(items.collect())
        }
        Yaml::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, value) in mapping {
                let key = match key {
                    Yaml::String(key) => key,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(is) => is.to_string(),
                    _ => {
                        faults.push(Fault::at(at, "has a field whose name is not a text"));
                        continue;
                    }
                };
                let value = json(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), faults);
                object.insert(key, value);
            }
            Value::Object(object)
        }
        Yaml::Tagged(_) => {
            faults.push(Fault::at(at, "begins with '!', which YAML takes for a tag: put the text in quotes"));
            Value::Null
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> String {
        format!("name: {name}\nmatch: [{{ min_level: 3 }}]\nrespond: {{ action: log-only, on: origin }}\n")
    }

    fn read(files: &[(&str, &str)]) -> (tempfile::TempDir, Documents) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let documents = Documents::read(&[dir.path().to_owned()]);
        (dir, documents)
    }

    fn faults(files: &[(&str, &str)]) -> Vec<String> {
        let (dir, documents) = read(files);
        let faults = documents.check(&KnownNames::default(), &AlertMappings::default()).unwrap_err();
        let prefix = format!("{}/", dir.path().display());
        faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect()
    }

    #[test]
    fn folders_are_read_with_everything_below_them() {
        let action = "name: scan\nexecutable: scan.sh\n";
        let uses = policy("d").replace("log-only", "scan");
        let list = r#"[{"name": "e", "match": [], "respond": {"action": "log-only"}}]"#;
        let (_dir, documents) = read(&[
            ("b.yml", &format!("---\n{}---\n{}---\n", policy("b"), policy("c"))),
            ("a/deep/a.yaml", &policy("a")),
            ("z.yaml", action),
            ("d.yaml", &uses),
            ("e.json", list),
            ("notes.md", "not read"),
            (".git/x.yaml", "{"),
            ("empty.yaml", "# nothing\n"),
        ]);
        let held = documents.check(&KnownNames::default(), &AlertMappings::default()).unwrap();
        let names: Vec<&str> = held.policies.iter().map(|entry| entry.read.name.as_str()).collect();
        assert_eq!((names, held.actions.len()), (vec!["a", "b", "c", "d", "e"], 1));
        assert!(held.policies[2].document.place.ends_with("b.yml:2"));
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let tagged = "name: t\nmatch: [{ when: !has(data.x) true }]\nrespond: { action: log-only }\n";
        let wrong_test = format!("{}tests: [{{ fires: false, alert: {ALERT} }}]\n", policy("c"));
        let found = faults(&[
            ("a.yaml", &format!("{}---\n{}mod: x\n", policy("a"), policy("b"))),
            ("b.yaml", &policy("a")),
            ("c.yaml", &wrong_test),
            ("d.yaml", "name: [\n"),
            ("e.json", "{"),
            ("f.yaml", "name: f\nname: g\n"),
            ("g.yaml", "just text\n"),
            ("h.yaml", tagged),
            ("i.yaml", "name: i\nexecutable: /bin/sh\n"),
        ]);
        insta::assert_snapshot!(found.join("\n"), @r#"
        a.yaml:2 /mod: is not a known field; did you mean mode?
        b.yaml:1 /name: a is also in a.yaml:1
        c.yaml:1 /tests/0/fires: is false, but the policy fires at this alert
        d.yaml:1: is not YAML: did not find expected node content at line 2 column 1, while parsing a flow node
        e.json: is not JSON: EOF while parsing an object at line 1 column 1
        f.yaml:1: is not YAML: duplicate entry with key "name"
        g.yaml:1: a policy is a JSON object
        h.yaml:1 /match/0/when: begins with '!', which YAML takes for a tag: put the text in quotes
        i.yaml:1 /executable: must be a file name in the agents' program folder, without a path
        "#);
    }

    const ALERT: &str = r#"{ pipeline: x, id: "1", time: "2026-11-20T10:11:12Z", rule: { id: "1", level: 5 } }"#;

    #[test]
    fn a_missing_file_is_a_fault() {
        let documents = Documents::read(&[PathBuf::from("/nowhere/at-all.yaml")]);
        assert!(
            documents.check(&KnownNames::default(), &AlertMappings::default()).unwrap_err()[0]
                .to_string()
                .ends_with("no such file or folder")
        );
    }
}
