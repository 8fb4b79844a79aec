//! `riposte policy import`: converts the active responses of Wazuh's `ossec.conf` into policies,
//! with a report of everything that cannot be converted. The manager parses the files. The result
//! is shown as a difference, written to files, or applied as by `apply`. A second import thus
//! changes nothing, and shows later changes first.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::apply::{WRONG, carry_over, checked};
use super::args::{Consent, ImportArgs};
use super::files::Documents;
use super::plan::many;
use super::{new_files, yaml};
use crate::cli::client::segment;
use crate::cli::output::{complain, say};
use crate::cli::reply::{Reply, Said};
use crate::cli::terminal::{Tone, can_ask, cell, needs_yes, plain, shade};
use crate::domain::formats::AlertMappings;
use crate::domain::{action, policy};
use crate::views::import::{Import, Level, Note};

/// Longest part of a file name that is stored, in characters.
const MAX_FILE_NAME: usize = 100;

/// Sends the files and prints the report.
pub(super) async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let ImportArgs { remote, files, consent, out, mode, wazuh_manager, json } = args;
    let Consent { dry_run, yes } = consent;
    let joined = match Joined::read(&files) {
        Ok(joined) => joined,
        Err(why) => {
            complain(&format!("riposte: {why}"));
            return Ok(ExitCode::from(WRONG));
        }
    };
    if !dry_run && !yes && !json && out.is_none() && !can_ask() {
        return Ok(needs_yes("policy import"));
    }
    let of = wazuh_manager.map_or_else(String::new, |name| format!("&wazuh_manager={}", segment(&name)));
    let request = remote.request(Method::POST, &format!("/v1/policies/import?dry_run=true{of}")).await?;
    let request = request.header(CONTENT_TYPE, "application/xml").body(joined.bytes.clone());
    let Said { json: said, view }: Said<Import> = Reply::read(remote.start(request).await?).await?.done()?;
    let mut imported = Imports::of(view)?;
    if let Some(mode) = mode {
        for policy in &mut imported.policies {
            policy.mode = Some(mode.mode().as_str().to_owned());
        }
    }
    joined.place_all(&mut imported);
    let is_whole = imported.report.iter().all(|note| note.level != Level::Error);
    let as_report = if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        say(&laid_over(said, serde_json::to_value(imported)?).to_string());
        return Ok(as_report);
    }
    report(&imported, &joined);
    if let Some(folder) = out {
        let (written, kept) = write(&folder, &imported)?;
        let kept =
            if kept == 0 { String::new() } else { format!(", {} there already and unchanged", many(kept, "file")) };
        let place = folder.display();
        say(&format!("{} written{kept}; look at them, then: riposte policy apply -f {place}", many(written, "file")));
        return Ok(as_report);
    }
    let documents = Documents::of(documents(&imported)?.into_iter());
    if documents.is_empty() {
        complain("riposte: nothing to import; see the report above");
        return Ok(ExitCode::FAILURE);
    }
    let Some((held, stored)) = checked(documents, &remote, &AlertMappings::default()).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let done = carry_over(&remote, &held, &stored, None, consent).await?;
    Ok(if is_whole { done } else { ExitCode::FAILURE })
}

/// A document of an import: what this command reads and changes of it, and the rest as it is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ImportedDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// An import, with documents that can be changed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Imports {
    policies: Vec<ImportedDocument>,
    actions: Vec<ImportedDocument>,
    protected: Vec<ImportedDocument>,
    report: Vec<Note>,
}

impl Imports {
    fn of(import: Import) -> anyhow::Result<Self> {
        let Import { policies, actions, protected, report } = import;
        let read = |documents| serde_json::from_value(Value::Array(documents)).context("a document of the import");
        Ok(Self { policies: read(policies)?, actions: read(actions)?, protected: read(protected)?, report })
    }
}

/// `json` with the fields of `changed` over its own; what only `json` has stays.
fn laid_over(json: Value, changed: Value) -> Value {
    match (json, changed) {
        (Value::Object(mut json), Value::Object(changed)) => {
            for (key, value) in changed {
                let own = json.remove(&key).unwrap_or_default();
                json.insert(key, laid_over(own, value));
            }
            Value::Object(json)
        }
        (Value::Array(json), Value::Array(changed)) if json.len() == changed.len() => {
            json.into_iter().zip(changed).map(|(json, changed)| laid_over(json, changed)).collect()
        }
        (_, changed) => changed,
    }
}

/// All imported documents, each with its name for messages: `policy wazuh-firewall-drop-1`.
fn documents(imported: &Imports) -> anyhow::Result<Vec<(String, Value)>> {
    let actions = imported.actions.iter().enumerate().map(|(index, action)| (named("action", index, action), action));
    let protected = imported
        .protected
        .iter()
        .map(|entry| (format!("protected {} {}", cell(entry.kind.as_ref()), cell(entry.value.as_ref())), entry));
    let policies = imported.policies.iter().enumerate().map(|(index, policy)| (named("policy", index, policy), policy));
    let all = actions.chain(protected).chain(policies);
    all.map(|(place, document)| Ok((place, serde_json::to_value(document)?))).collect()
}

fn named(word: &str, index: usize, document: &ImportedDocument) -> String {
    let name = document.name.clone().unwrap_or_else(|| (index + 1).to_string());
    format!("{word} {name}")
}

fn report(imported: &Imports, joined: &Joined) {
    for Note { level, file, line, message, .. } in &imported.report {
        let tone = if *level == Level::Error { Tone::Bad } else { Tone::Quiet };
        let line_in_file = line.map_or_else(String::new, |number| format!(":{number}"));
        let file = file.clone().unwrap_or_else(|| joined.first());
        shade(tone, &plain(&format!("{file}{line_in_file}: {}: {message}", level.as_str())));
    }
    let (policies, actions) = (many(imported.policies.len(), "policy"), many(imported.actions.len(), "action"));
    say(&format!("read: {policies}, {actions}, {}", many(imported.protected.len(), "protected entry")));
}

/// Several files joined into one, with a mapping of lines. They are sent as bytes, because Wazuh
/// reads bytes too.
struct Joined {
    bytes: Vec<u8>,
    /// Each file with the number of lines before it.
    starts: Vec<(PathBuf, usize)>,
}

impl Joined {
    fn read(files: &[PathBuf]) -> Result<Self, String> {
        let mut joined = Self { bytes: Vec::new(), starts: Vec::new() };
        for path in files {
            let bytes = std::fs::read(path)
                .map_err(|error| format!("{}: {}", path.display(), super::text::unreadable(&error)))?;
            joined.starts.push((path.clone(), joined.bytes.split(|byte| *byte == b'\n').count() - 1));
            joined.bytes.extend_from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes));
            if !joined.bytes.ends_with(b"\n") {
                joined.bytes.push(b'\n');
            }
        }
        Ok(joined)
    }

    /// What the first file is called.
    fn first(&self) -> String {
        self.starts.first().map(|(path, _)| path.display().to_string()).unwrap_or_default()
    }

    /// Whose line a line of the whole is, and which of that file.
    fn find(&self, line: u32) -> Option<(&Path, u32)> {
        let before = |before: usize| u32::try_from(before).unwrap_or(u32::MAX);
        let (path, start) = self.starts.iter().rev().find(|(_, start)| before(*start) < line)?;
        Some((path, line - before(*start)))
    }

    /// What is kept of an import says `ossec.conf, line N` of the whole; here each names its own file. Only the file's name: an import
    /// of the same file from another folder must be the same.
    fn place_all(&self, imported: &mut Imports) {
        for note in &mut imported.report {
            if let Some((path, number)) = note.line.and_then(|number| self.find(number)) {
                (note.file, note.line) = (Some(path.display().to_string()), Some(number));
            }
        }
        let Imports { policies, actions, protected, .. } = imported;
        let notes = policies.iter_mut().filter_map(|policy| policy.note.as_mut());
        notes.for_each(|text| self.place(text, Place::First));
        let summaries = actions.iter_mut().filter_map(|action| action.summary.as_mut());
        let reasons = protected.iter_mut().filter_map(|entry| entry.reason.as_mut());
        summaries.chain(reasons).for_each(|text| self.place(text, Place::Last));
    }

    /// Names the own file at the place in `text`, if it has one. What stands elsewhere was written in the configuration, and may
    /// look like a place.
    fn place(&self, text: &mut String, place: Place) {
        if let Some(placed) = self.placed(text, place) {
            *text = placed;
        }
    }

    fn placed(&self, text: &str, place: Place) -> Option<String> {
        const WHOLE: &str = " of ossec.conf, line ";
        let at = match place {
            Place::First => text.find(WHOLE)?,
            Place::Last => text.rfind(WHOLE)?,
        };
        let (before, rest) = (text.get(..at)?, text.get(at + WHOLE.len()..)?);
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let (path, number) = self.find(number.parse().ok()?)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name: String = name.chars().take(MAX_FILE_NAME).collect();
        Some(format!("{before} of {}, line {number}{after}", plain(&name)))
    }
}

/// Where in a text the place of its origin stands.
#[derive(Clone, Copy)]
enum Place {
    /// At the beginning, as in a note.
    First,
    /// At the end.
    Last,
}

/// Writes each policy and action to a file of its own, and what is protected beside them: how many were written, and how many were
/// there already with the same contents. Nothing is overwritten; if a file differs, nothing is written.
fn write(folder: &Path, imported: &Imports) -> anyhow::Result<(usize, usize)> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    // The names are foreign input and become file names.
    for document in &imported.policies {
        let name = document.name.as_deref().filter(|name| policy::is_name(name));
        let name = name.context("the manager returned a policy without a valid name")?;
        let text = yaml::write(&serde_json::to_value(document)?)?;
        files.push((folder.join("policies").join(format!("{name}.yaml")), text));
    }
    for document in &imported.actions {
        let name = document.name.as_deref().filter(|name| action::is_name(name));
        let name = name.context("the manager returned an action without a valid name")?;
        let text = yaml::write(&yaml::action(&serde_json::to_value(document)?)?)?;
        files.push((folder.join("actions").join(format!("{name}.yaml")), text));
    }
    if !imported.protected.is_empty() {
        let text = yaml::write(&serde_json::to_value(&imported.protected)?)?;
        files.push((folder.join("protected.yaml"), text));
    }
    new_files::write(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_of_the_report_names_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.conf"), dir.path().join("b.conf"));
        std::fs::write(&a, "<ossec_config>\n</ossec_config>").unwrap();
        std::fs::write(&b, "<ossec_config>\n  <x/>\n</ossec_config>\n").unwrap();
        let joined = Joined::read(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(joined.bytes.split(|byte| *byte == b'\n').count(), 6);
        assert_eq!(joined.find(2), Some((a.as_path(), 2)));
        assert_eq!(joined.find(4), Some((b.as_path(), 2)));
        assert_eq!(joined.find(0), None);
    }

    #[test]
    fn what_is_stored_names_the_file_that_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.conf"), dir.path().join("b.conf"));
        std::fs::write(&a, "1\n2\n").unwrap();
        std::fs::write(&b, "1\n2\n3\n").unwrap();
        let joined = Joined::read(&[a, b.clone()]).unwrap();
        let import = json!({
            "policies": [{"note": "From Wazuh's active response of ossec.conf, line 2: command x of ossec.conf, line 1"}],
            "actions": [{"summary": "Wazuh's command \"of ossec.conf, line 1\" of ossec.conf, line 4."}],
            "protected": [{"reason": "white_list \"192.0.2.1\" of ossec.conf, line 5"}, {"reason": "other"}],
            "report": [{"line": 4, "level": "info", "message": "m"}, {"level": "info", "message": "n", "new": 1}], "new": 2,
        });
        let mut placed = Imports::of(serde_json::from_value(import.clone()).unwrap()).unwrap();
        joined.place_all(&mut placed);
        let imported = laid_over(import, serde_json::to_value(placed).unwrap());
        let note = "From Wazuh's active response of a.conf, line 2: command x of ossec.conf, line 1";
        assert_eq!(imported["policies"][0]["note"], note);
        assert_eq!(imported["actions"][0]["summary"], "Wazuh's command \"of ossec.conf, line 1\" of b.conf, line 2.");
        assert_eq!(imported["protected"][0]["reason"], "white_list \"192.0.2.1\" of b.conf, line 3");
        assert_eq!(imported["protected"][1]["reason"], "other");
        let line = json!({"file": b.display().to_string(), "line": 2, "level": "info", "message": "m"});
        assert_eq!((&imported["report"][0], &imported["report"][1]["file"]), (&line, &Value::Null));
        // What a newer manager says beyond stays.
        assert_eq!((&imported["report"][1]["new"], &imported["new"]), (&json!(1), &json!(2)));
    }

    #[test]
    fn an_import_is_written_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let imports = |note: Option<&str>| -> Imports {
            let import = json!({"policies": [{"name": "a", "match": [], "respond": {"action": "scan"}, "note": note}],
                "actions": [{"name": "scan", "executable": "scan.sh"}],
                "protected": [{"kind": "ip", "value": "192.0.2.1", "reason": "allowlist"}], "report": []});
            serde_json::from_value(import).unwrap()
        };
        let imported = imports(None);
        assert_eq!(write(dir.path(), &imported).unwrap(), (3, 0));
        let held = super::super::files::Documents::read(&[dir.path().to_owned()])
            .check_only(&super::super::files::KnownNames::default())
            .unwrap();
        assert_eq!((held.policies.len(), held.actions.len(), held.protected.len()), (1, 1, 1));
        assert_eq!(write(dir.path(), &imported).unwrap(), (0, 3), "the same once more");
        std::fs::remove_file(dir.path().join("protected.yaml")).unwrap();
        let refused = write(dir.path(), &imports(Some("changed"))).unwrap_err().to_string();
        assert!(refused.contains("policies/a.yaml is there already and differs"), "{refused}");
        assert!(!dir.path().join("protected.yaml").exists(), "nothing was written");
        let mut bad = imports(None);
        bad.policies[0].name = Some("../a".to_owned());
        assert!(write(dir.path(), &bad).is_err());
    }
}
