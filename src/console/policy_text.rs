//! Policies as text: YAML in the order in which the manager writes the fields, the faults of a draft,
//! and the difference between two texts.

use serde::Deserialize;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use yaml_serde::Mapping;

use super::client::{NO_BODY, Trouble};
use super::paths::segment;
use super::session::Session;
use crate::domain::fault::Fault;
use crate::domain::policy::MAX_POLICY_BYTES;
use crate::engine::refusal::Refusal;
use crate::views::columns::Millis;
use crate::views::page::Page;
use crate::views::policies::PolicyView;

/// Fields of the API's view that stand beside the policy's own.
const BESIDE: [&str; 6] = ["version", "created_at", "updated_at", "warnings", "stopped", "stopped_agents"];
/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// A policy with its text.
pub(super) struct WrittenPolicy {
    pub(super) view: PolicyView,
    pub(super) version: i64,
    pub(super) text: String,
}

/// A version of a policy with its text; `None` if this version deleted it.
pub(super) struct WrittenVersion {
    pub(super) version: i64,
    pub(super) at: Millis,
    pub(super) by: String,
    pub(super) text: Option<String>,
}

/// A version as the API returns it; a `Mapping` keeps the order of the fields.
#[derive(Deserialize)]
struct OrderedVersion {
    version: i64,
    document: Option<Mapping>,
    changed_at: Millis,
    changed_by: String,
}

impl Session {
    /// The policy `name`.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn policy(&self, name: &str) -> Result<WrittenPolicy, Trouble> {
        let path = format!("/v1/policies/{}", segment(name));
        let answer = self.api.send(axum::http::Method::GET, &path, None, NO_BODY).await?;
        let view: PolicyView = answer.read()?;
        let mut document: Mapping = answer.read()?;
        document.retain(|field, _| !field.as_str().is_some_and(|field| BESIDE.contains(&field)));
        Ok(WrittenPolicy { version: view.version, view, text: write(&document)? })
    }

    /// The newest versions of the policy `name`, newest first, and whether there are older ones.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn policy_versions(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<(Vec<WrittenVersion>, bool), Trouble> {
        let path = format!("/v1/policies/{}/versions?limit={limit}", segment(name));
        let page: Page<OrderedVersion> = self.api.get(&path).await?;
        let written = page.items.into_iter().map(|row| {
            let text = row.document.as_ref().map(write).transpose()?;
            Ok(WrittenVersion { version: row.version, at: row.changed_at, by: row.changed_by, text })
        });
        Ok((written.collect::<Result<_, Trouble>>()?, page.next_cursor.is_some()))
    }

    /// The faults of a draft, or what to know about it.
    pub(super) fn draft(&self, text: &str) -> DraftState {
        let document = match read(text) {
            Ok(document) => document,
            Err(fault) => return DraftState { faults: vec![fault], ..DraftState::default() },
        };
        let engine = &self.console.engine;
        let policy = match engine.check_policy(&document) {
            Ok(policy) => policy,
            Err(Refusal::Invalid(faults)) => return DraftState { faults, ..DraftState::default() },
            Err(refusal) => {
                return DraftState { faults: vec![Fault::at("", refusal.to_string())], ..DraftState::default() };
            }
        };
        let mut warnings = policy.warnings();
        if let Some(action) = engine.actions.load().find(&policy.respond.action) {
            warnings.extend(policy.fleet_warnings(action, &engine.fleet.load()));
        }
        DraftState { faults: Vec::new(), warnings, tests: policy.tests.len(), mode: policy.mode.as_str() }
    }
}

/// What is known of a draft.
#[derive(Default)]
pub(super) struct DraftState {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// Number of its own tests, which all agree if there is no fault.
    pub(super) tests: usize,
    pub(super) mode: &'static str,
}

/// Reads a policy that is written in YAML or JSON.
///
/// # Errors
/// If it is neither.
pub(super) fn read(text: &str) -> Result<Value, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::at("", "the text is empty"));
    }
    if text.len() > MAX_POLICY_BYTES {
        return Err(Fault::at("", format!("the text is longer than {} KiB", MAX_POLICY_BYTES / 1024)));
    }
    let tabbed = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    yaml_serde::from_str(text).map_err(|error| match text.lines().position(tabbed) {
        Some(index) => Fault::at("", format!("line {} begins with a tab: indent with spaces", index + 1)),
        None => Fault::at("", format!("the text is neither YAML nor JSON: {error}")),
    })
}

/// Writes a document as YAML.
///
/// # Errors
/// If the library refuses.
pub(super) fn write(document: &impl serde::Serialize) -> Result<String, Trouble> {
    yaml_serde::to_string(document)
        .map_err(|error| Trouble::Broken(format!("the policy cannot be written as YAML: {error}")))
}

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiffLine {
    /// Class: `add`, `del`, `gap` or `same`.
    pub(super) class: &'static str,
    pub(super) sign: char,
    pub(super) text: String,
}

/// The lines that differ, with some around them; empty if none differs.
pub(super) fn diff(before: &str, after: &str) -> Vec<DiffLine> {
    let diff = TextDiff::from_lines(before, after);
    let mut lines = Vec::new();
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            lines.push(DiffLine { class: "gap", sign: '…', text: String::new() });
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (class, sign) = match change.tag() {
                ChangeTag::Insert => ("add", '+'),
                ChangeTag::Delete => ("del", '-'),
                ChangeTag::Equal => ("same", ' '),
            };
            lines.push(DiffLine { class, sign, text: change.value().trim_end_matches('\n').to_owned() });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_signs_and_its_surroundings() {
        let lines = diff("a: 1\nb: 2\n", "a: 1\nb: 3\n");
        let shown: Vec<String> = lines.iter().map(|line| format!("{}{}", line.sign, line.text)).collect();
        assert_eq!(shown, [" a: 1", "-b: 2", "+b: 3"]);
        assert_eq!(diff("a: 1\n", "a: 1\n"), []);
    }

    #[test]
    fn the_fields_keep_the_order_of_the_answer() {
        let document: Mapping = serde_json::from_str(r#"{"name":"p","mode":"observe","match":[],"a":1}"#).unwrap();
        assert_eq!(write(&document).unwrap(), "name: p\nmode: observe\nmatch: []\na: 1\n");
    }

    #[test]
    fn a_text_is_read_as_yaml_or_json_and_a_tab_is_named() {
        assert_eq!(read("{\"name\": \"p\"}").unwrap(), read("name: p\n").unwrap());
        assert_eq!(read("match:\n\t- a\n").unwrap_err().detail, "line 2 begins with a tab: indent with spaces");
        assert_eq!(read(" \n").unwrap_err().detail, "the text is empty");
        assert!(read("name: [").unwrap_err().detail.starts_with("the text is neither YAML nor JSON: "));
    }
}
