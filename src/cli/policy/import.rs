//! `riposte policy import`: converts the active responses of Wazuh's `ossec.conf` into policies,
//! with a report of everything that cannot be converted. The manager parses the files. The result
//! is shown as a difference, written to files, or applied as by `apply`. A second import thus
//! changes nothing, and shows later changes first.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use super::apply::{WRONG, carry_over, checked};
use super::files::Documents;
use super::plan::{Prune, many};
use super::stored::cell;
use super::{Consent, Import, yaml};
use crate::cli::client::{Answer, segment};
use crate::cli::terminal::{Tone, can_ask, needs_yes, plain, shade};
use crate::cli::{complain, say};
use crate::domain::shapes::Sources;
use crate::domain::{action, policy};

/// Sends the files and prints the report.
pub(super) async fn run(args: Import) -> anyhow::Result<ExitCode> {
    let Import { remote, files, consent, out, mode, wazuh_manager, json } = args;
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
    let request = remote.request(Method::POST, &format!("/v1/policies/import?dry_run=true{of}"))?;
    let request = request.header(CONTENT_TYPE, "application/xml").body(joined.bytes.clone());
    let mut imported = Answer::read(remote.start(request).await?).await?.done()?;
    if let (Some(mode), Some(policies)) = (mode, imported["policies"].as_array_mut()) {
        for policy in policies {
            policy["mode"] = mode.mode().as_str().into();
        }
    }
    let is_whole = list(&imported, "report").iter().all(|line| line["level"] != "error");
    let as_report = if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        say(&imported.to_string());
        return Ok(as_report);
    }
    report(&imported, &joined);
    if let Some(folder) = out {
        let written = write(&folder, &imported)?;
        let place = folder.display();
        say(&format!("{} written; look at them, then: riposte policy apply -f {place}", many(written, "file")));
        return Ok(as_report);
    }
    let documents = Documents::of(documents(&imported));
    if documents.is_empty() {
        complain("riposte: nothing to import; see the report above");
        return Ok(ExitCode::FAILURE);
    }
    let Some((held, stored)) = checked(documents, &remote, &Sources::default()).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let done = carry_over(&remote, &held, &stored, Prune::default(), consent).await?;
    Ok(if is_whole { done } else { ExitCode::FAILURE })
}

fn list<'a>(imported: &'a Value, key: &str) -> &'a [Value] {
    imported[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// All imported documents, each with its name for messages.
fn documents(imported: &Value) -> impl Iterator<Item = (String, Value)> {
    ["actions", "protected", "policies"].into_iter().flat_map(|key| {
        let place = move |(index, document): (usize, &Value)| (format!("{key}:{}", index + 1), document.clone());
        list(imported, key).iter().enumerate().map(place).collect::<Vec<_>>()
    })
}

fn report(imported: &Value, joined: &Joined) {
    for line in list(imported, "report") {
        let level = cell(&line["level"]);
        let tone = if level == "error" { Tone::Bad } else { Tone::Quiet };
        shade(tone, &plain(&format!("{}: {level}: {}", joined.place(&line["line"]), cell(&line["message"]))));
    }
    let count = |key: &str, word: &str| many(list(imported, key).len(), word);
    let (policies, actions) = (count("policies", "policy"), count("actions", "action"));
    say(&format!("read: {policies}, {actions}, {}", count("protected", "protected entry")));
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

    /// `FILE:LINE` of a line in the joined file.
    fn place(&self, line: &Value) -> String {
        let number = line.as_u64().and_then(|line| usize::try_from(line).ok()).unwrap_or(0);
        let file = self.starts.iter().rev().find(|(_, before)| *before < number).or_else(|| self.starts.first());
        match file {
            Some((path, before)) if number > 0 => format!("{}:{}", path.display(), number - before),
            Some((path, _)) => path.display().to_string(),
            None => number.to_string(),
        }
    }
}

/// Writes each policy and action to its own file, and the protected entries beside them. Existing
/// files are not overwritten.
fn write(folder: &Path, imported: &Value) -> anyhow::Result<usize> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    // The names are foreign input and become file names.
    for document in list(imported, "policies") {
        let name = document["name"].as_str().filter(|name| policy::is_name(name));
        let name = name.context("the manager returned a policy without a valid name")?;
        let text = yaml::write(&yaml::policy(document))?;
        files.push((folder.join("policies").join(format!("{name}.yaml")), text));
    }
    for document in list(imported, "actions") {
        let name = document["name"].as_str().filter(|name| action::is_name(name));
        let name = name.context("the manager returned an action without a valid name")?;
        let text = yaml::write(&yaml::action(document))?;
        files.push((folder.join("actions").join(format!("{name}.yaml")), text));
    }
    let protected = list(imported, "protected");
    if !protected.is_empty() {
        let text = yaml::write(&Value::Array(protected.to_vec()))?;
        files.push((folder.join("protected.yaml"), text));
    }
    if let Some((taken, _)) = files.iter().find(|(path, _)| path.exists()) {
        bail!("{} exists already: name an empty folder", taken.display());
    }
    for (path, text) in &files {
        let parent = path.parent().context("a file stands in a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let file = std::fs::OpenOptions::new().create_new(true).write(true).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(files.len())
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
        assert_eq!(joined.place(&json!(2)), format!("{}:2", a.display()));
        assert_eq!(joined.place(&json!(4)), format!("{}:2", b.display()));
        assert_eq!(joined.place(&Value::Null), a.display().to_string());
    }

    #[test]
    fn an_import_is_written_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let imported = json!({"policies": [{"name": "a", "match": [], "respond": {"action": "scan"}}],
            "actions": [{"name": "scan", "executable": "scan.sh"}], "protected": [{"kind": "ip", "value": "192.0.2.1", "reason": "allowlist"}]});
        assert_eq!(write(dir.path(), &imported).unwrap(), 3);
        let held = super::super::files::Documents::read(&[dir.path().to_owned()])
            .check_only(&super::super::files::Known::default())
            .unwrap();
        assert_eq!((held.policies.len(), held.actions.len(), held.protected.len()), (1, 1, 1));
        assert!(write(dir.path(), &imported).unwrap_err().to_string().contains("exists already"));
        let bad = json!({"policies": [{"name": "../a"}]});
        assert!(write(dir.path(), &bad).is_err());
    }
}
