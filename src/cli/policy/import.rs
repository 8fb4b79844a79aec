//! `riposte policy import`: the active responses of Wazuh's `ossec.conf` as policies, with a report of everything that
//! could not be carried over. The manager reads the files; here they are sent, and its answer is told or written down.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use super::stored::cell;
use super::{Import, yaml};
use crate::cli::client::Answer;
use crate::cli::say;
use crate::cli::terminal::{Tone, plain, shade};
use crate::domain::{action, policy};

/// Sends the files, and tells what came of them.
pub(super) async fn run(args: Import) -> anyhow::Result<ExitCode> {
    let Import { remote, files, dry_run, out, json } = args;
    let joined = Joined::read(&files)?;
    let dry_run = dry_run || out.is_some();
    let request = remote.request(Method::POST, &format!("/v1/policies/import?dry_run={dry_run}"))?;
    let request = request.header(CONTENT_TYPE, "application/xml").body(joined.text.clone());
    let imported = Answer::read(remote.start(request).await?).await?.done()?;
    let written = out.as_deref().map(|folder| write(folder, &imported)).transpose()?;
    if json {
        say(&imported.to_string());
    } else {
        tell(&imported, &joined, dry_run)?;
        if let Some(written) = written {
            say(&format!("{written} files written; look at them, then: riposte policy apply -f FOLDER"));
        }
    }
    let is_whole = list(&imported, "report").iter().all(|line| line["level"] != "error");
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list<'a>(imported: &'a Value, key: &str) -> &'a [Value] {
    imported[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn tell(imported: &Value, joined: &Joined, dry_run: bool) -> anyhow::Result<()> {
    for policy in list(imported, "policies") {
        say(&format!("# policy\n{}", yaml::write(&yaml::policy(policy))?.trim_end()));
    }
    for action in list(imported, "actions") {
        say(&format!("# action\n{}", yaml::write(&yaml::action(action))?.trim_end()));
    }
    for protected in list(imported, "protected") {
        say(&format!("# protected\n{}", yaml::write(protected)?.trim_end()));
    }
    for line in list(imported, "report") {
        let level = cell(&line["level"]);
        let tone = if level == "error" { Tone::Bad } else { Tone::Quiet };
        shade(tone, &plain(&format!("{}: {level}: {}", joined.place(&line["line"]), cell(&line["message"]))));
    }
    let count = |key: &str| list(imported, key).len();
    let (policies, actions, protected) = (count("policies"), count("actions"), count("protected"));
    let done = if dry_run { "nothing was applied" } else { "applied" };
    say(&format!("{policies} policies, {actions} actions, {protected} protected entries: {done}"));
    Ok(())
}

/// Several files as one text, and which line of it is whose.
struct Joined {
    text: String,
    /// Each file with the number of lines before it.
    starts: Vec<(PathBuf, usize)>,
}

impl Joined {
    fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut joined = Self { text: String::new(), starts: Vec::new() };
        for path in files {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            joined.starts.push((path.clone(), joined.text.lines().count()));
            joined.text.push_str(text.trim_start_matches('\u{feff}'));
            if !joined.text.ends_with('\n') {
                joined.text.push('\n');
            }
        }
        Ok(joined)
    }

    /// `FILE:LINE` of a line of the whole.
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

/// Writes each policy and action to a file of its own, and what is protected beside them. Nothing is overwritten.
fn write(folder: &Path, imported: &Value) -> anyhow::Result<usize> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    // The names come from elsewhere and become names of files.
    for document in list(imported, "policies") {
        let name = document["name"].as_str().filter(|name| policy::is_name(name));
        let name = name.context("the manager gave a policy without a usable name")?;
        let text = yaml::write(&yaml::policy(document))?;
        files.push((folder.join("policies").join(format!("{name}.yaml")), text));
    }
    for document in list(imported, "actions") {
        let name = document["name"].as_str().filter(|name| action::is_name(name));
        let name = name.context("the manager gave an action without a usable name")?;
        let text = yaml::write(&yaml::action(document))?;
        files.push((folder.join("actions").join(format!("{name}.yaml")), text));
    }
    // Not one of the endings that `apply` reads: each line is a body for POST /v1/protected.
    let protected: String = list(imported, "protected").iter().map(|entry| format!("{entry}\n")).collect();
    if !protected.is_empty() {
        files.push((folder.join("protected.ndjson"), protected));
    }
    if let Some((taken, _)) = files.iter().find(|(path, _)| path.exists()) {
        bail!("{} is there already: give a folder that is empty", taken.display());
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
    fn a_line_of_the_report_is_placed_in_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.conf"), dir.path().join("b.conf"));
        std::fs::write(&a, "<ossec_config>\n</ossec_config>").unwrap();
        std::fs::write(&b, "<ossec_config>\n  <x/>\n</ossec_config>\n").unwrap();
        let joined = Joined::read(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(joined.text.lines().count(), 5);
        assert_eq!(joined.place(&json!(2)), format!("{}:2", a.display()));
        assert_eq!(joined.place(&json!(4)), format!("{}:2", b.display()));
        assert_eq!(joined.place(&Value::Null), a.display().to_string());
    }

    #[test]
    fn what_is_imported_is_written_and_nothing_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let imported = json!({"policies": [{"name": "a", "match": [], "respond": {"action": "scan"}}],
            "actions": [{"name": "scan", "executable": "scan.sh"}], "protected": [{"kind": "ip", "value": "192.0.2.1"}]});
        assert_eq!(write(dir.path(), &imported).unwrap(), 3);
        let held = super::super::files::Documents::read(&[dir.path().to_owned()]).check_only(&[]).unwrap();
        assert_eq!((held.policies.len(), held.actions.len()), (1, 1));
        assert!(write(dir.path(), &imported).unwrap_err().to_string().contains("is there already"));
        let bad = json!({"policies": [{"name": "../a"}]});
        assert!(write(dir.path(), &bad).is_err());
    }
}
