//! The difference between files and a manager: creations, changes, deletions, and what is equal.
//! Both sides are normalised, so comments, order and explicit defaults are not changes.

use std::collections::BTreeMap;

use anyhow::Context as _;
use riposte_protocol::key::VerifyingKey;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::files::{FileDocument, Held, KnownNames};
use super::protected::ProtectedItem;
use super::yaml;
use crate::cli::client::Remote;
use crate::cli::output::say;
use crate::cli::terminal::{Tone, plain, shade};
use crate::domain::action::{Action, Catalogue};
use crate::domain::agent::Agent;
use crate::domain::agent_key::AgentKey;
use crate::domain::fleet::Fleet;
use crate::views::actions::{ActionSummary, ActionView};
use crate::views::agents::{AgentRow, AgentView};
use crate::views::policies::{PolicySummary, PolicyView};
use crate::views::protected::ProtectedRow;

/// Unchanged lines around a change.
const CONTEXT: usize = 2;

/// The manager's objects by name, with their versions.
#[derive(Debug)]
pub(super) struct Stored {
    /// Normalised custom actions.
    actions: BTreeMap<String, (i64, Value)>,
    /// Normalised policies.
    policies: BTreeMap<String, (i64, Value)>,
    /// Protected entries.
    protected: Vec<ProtectedItem>,
    /// Agents, without revoked ones.
    agents: Vec<Agent>,
}

impl Stored {
    /// Reads the state of `remote`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) async fn ask(remote: &Remote) -> anyhow::Result<Self> {
        let actions: Vec<ActionView> = remote.items("/v1/actions").await?;
        let actions = actions.iter().filter_map(|view| action(view).transpose()).collect::<anyhow::Result<_>>()?;
        let policies: Vec<PolicyView> = remote.items("/v1/policies").await?;
        let policies = policies.iter().map(policy).collect::<anyhow::Result<_>>()?;
        let protected: Vec<ProtectedRow> = remote.items("/v1/protected").await?;
        let protected = protected.into_iter().map(ProtectedItem::stored).collect::<anyhow::Result<_>>()?;
        let agents: Vec<AgentView> = remote.items("/v1/agents").await?;
        let agents = agents.into_iter().map(|view| agent(view.agent)).collect::<anyhow::Result<_>>()?;
        Ok(Self { actions, policies, protected, agents })
    }

    /// What documents may refer to, without custom actions that cannot be parsed.
    pub(super) fn known(&self) -> KnownNames {
        let actions = self.actions.values().filter_map(|(_, document)| Action::parse(document).ok()).collect();
        let ids = self.agents.iter().flat_map(|agent| {
            let id = agent.id.to_string();
            [(id.clone(), id.clone()), (agent.name.clone(), id)]
        });
        KnownNames { actions, agents: Some(ids.collect()) }
    }

    /// A policy of the manager, normalised.
    pub(super) fn policy(&self, name: &str) -> Option<&Value> {
        self.policies.get(name).map(|(_, document)| document)
    }

    /// Warnings about the policies of `held` with the manager's agents, one per line.
    pub(super) fn warnings(&self, held: &Held) -> Vec<String> {
        let own = held.actions.iter().map(|entry| entry.read.clone());
        let catalogue = Catalogue::with(self.known().actions.into_iter().chain(own).collect());
        let fleet = Fleet::new(self.agents.clone());
        let mut lines = Vec::new();
        for entry in &held.policies {
            let mut warnings = entry.read.warnings();
            if let Some(action) = catalogue.find(&entry.read.respond.action) {
                warnings.extend(entry.read.fleet_warnings(action, &fleet));
            }
            let place = &entry.document.place;
            lines.extend(warnings.iter().map(|fault| format!("{place} {}: warning: {}", fault.pointer, fault.detail)));
        }
        let named = |name: &String| {
            self.policies.contains_key(name) || held.policies.iter().any(|entry| entry.read.name == *name)
        };
        for entry in &held.protected {
            let unknown = entry.read.protection.policies().iter().filter(|name| !named(name));
            let place = &entry.document.place;
            lines.extend(unknown.map(|name| format!("{place} /policies: warning: there is no policy called {name}")));
        }
        lines
    }
}

/// Parses an agent of the manager.
fn agent(row: AgentRow) -> anyhow::Result<Agent> {
    let AgentRow { id, name, public_key, labels, version, capabilities, enrolled_at, .. } = row;
    let public_key = VerifyingKey::parse(&public_key).context("an agent's public key")?;
    Ok(Agent {
        id: id.parse().context("an agent's id")?,
        name,
        key: AgentKey::first(public_key, enrolled_at.into()),
        labels: labels.read().context("an agent's labels")?,
        version,
        capabilities: capabilities.read().context("an agent's capabilities")?,
        revoked_at: None,
    })
}

/// An object of the manager: its name, its version, and its document.
type Named = (String, (i64, Value));

/// A policy of the manager.
fn policy(view: &PolicyView) -> anyhow::Result<Named> {
    let PolicySummary { name, .. } = view.policy.read().context("a policy of the manager")?;
    Ok((name, (view.version, view.policy.read()?)))
}

/// A custom action of the manager; `None` for a built-in one.
fn action(view: &ActionView) -> anyhow::Result<Option<Named>> {
    let ActionSummary { name, script } = view.action.read().context("an action of the manager")?;
    if script.is_none() {
        return Ok(None);
    }
    let version = view.version.with_context(|| format!("the manager returned {name:?} without a version"))?;
    Ok(Some((name, (version, yaml::action(&view.action.read()?)?))))
}

/// Kind of object in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    /// A custom action.
    Action,
    /// A protected entry.
    Protected,
    /// A policy.
    Policy,
}

impl ItemKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Protected => "protected",
            Self::Policy => "policy",
        }
    }

    /// Path of its collection.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Action => "/v1/actions",
            Self::Protected => "/v1/protected",
            Self::Policy => "/v1/policies",
        }
    }
}

/// The change of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Create it.
    Create,
    /// Replace it at this version.
    Replace(i64),
    /// Delete it at this version; no file contains it.
    Delete(i64),
    /// Replace the protected entry with this id: create the new one first, so that the target stays
    /// protected.
    Renew(String),
    /// Delete the protected entry with this id; no file contains it.
    Remove(String),
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Kind of the object.
    pub(super) kind: ItemKind,
    /// Name of the object.
    pub(super) name: String,
    /// The change.
    pub(super) change: Change,
    /// The document to send; `None` for a deletion.
    pub(super) document: Option<FileDocument>,
    before: Value,
    after: Value,
}

impl Step {
    /// `policy block-ssh`.
    pub(super) fn subject(&self) -> String {
        format!("{} {}", self.kind.as_str(), plain(&self.name))
    }

    /// The same with its document: `policy block-ssh (FILE:2)`.
    pub(super) fn placed(&self) -> String {
        let (subject, document) = (self.subject(), self.document.as_ref());
        // A document that is in no file has no other place than its name.
        let place = document.map(|document| plain(&document.place)).filter(|place| *place != subject);
        place.map_or_else(|| subject.clone(), |place| format!("{subject} ({place})"))
    }
}

/// All changes in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Actions first, because policies may need them; then protected entries, before a policy can
    /// act on them.
    pub(super) steps: Vec<Step>,
    unchanged: Vec<String>,
    left: usize,
    left_protected: usize,
}

/// Kinds of objects to delete if no file contains them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prune {
    /// Policies.
    pub(super) policies: bool,
    /// Protected entries.
    pub(super) protected: bool,
}

impl Plan {
    /// The changes that make `stored` match `held`, with the deletions that `prune` allows.
    ///
    /// # Errors
    /// Never for parsed documents.
    pub(super) fn between(held: &Held, stored: &Stored, prune: Prune) -> anyhow::Result<Self> {
        let mut plan = Self::default();
        for entry in &held.actions {
            let after = yaml::action(&serde_json::to_value(&entry.read)?)?;
            plan.one(ItemKind::Action, &entry.read.name, &stored.actions, after, &entry.document);
        }
        plan.protected(held, stored, prune.protected)?;
        for entry in &held.policies {
            let after = serde_json::to_value(&entry.read)?;
            plan.one(ItemKind::Policy, &entry.read.name, &stored.policies, after, &entry.document);
        }
        for (name, (version, before)) in &stored.policies {
            if held.policies.iter().any(|entry| entry.read.name == *name) {
                continue;
            }
            if !prune.policies {
                plan.left += 1;
                continue;
            }
            plan.steps.push(Step {
                kind: ItemKind::Policy,
                name: name.clone(),
                change: Change::Delete(*version),
                document: None,
                before: before.clone(),
                after: Value::Null,
            });
        }
        Ok(plan)
    }

    /// The same without a word about what is on the manager only: the documents are a choice, not a
    /// site's whole configuration.
    pub(super) fn of_a_choice(self) -> Self {
        Self { left: 0, left_protected: 0, ..self }
    }

    fn protected(&mut self, held: &Held, stored: &Stored, prune: bool) -> anyhow::Result<()> {
        let mut taken: Vec<&str> = Vec::new();
        for entry in &held.protected {
            let name = entry.read.protection.name();
            let same = |old: &&ProtectedItem| old.protection == entry.read.protection;
            let found = stored.protected.iter().filter(same).find(|old| entry.read.is_like(old));
            let found = found.or_else(|| stored.protected.iter().find(same));
            taken.extend(found.and_then(|old| old.id.as_deref()));
            let (change, before) = match found {
                Some(old) if entry.read.is_like(old) => {
                    self.unchanged.push(format!("{} {name}", ItemKind::Protected.as_str()));
                    continue;
                }
                Some(old) => (Change::Renew(old.id.clone().unwrap_or_default()), old.shown()?),
                None => (Change::Create, Value::Null),
            };
            let (kind, document) = (ItemKind::Protected, Some(entry.document.clone()));
            self.steps.push(Step { kind, name, change, document, before, after: entry.read.shown()? });
        }
        for old in &stored.protected {
            let id = old.id.clone().unwrap_or_default();
            if taken.contains(&id.as_str()) {
                continue;
            }
            if !prune {
                self.left_protected += 1;
                continue;
            }
            let (name, change) = (old.protection.name(), Change::Remove(id));
            let (kind, before) = (ItemKind::Protected, old.shown()?);
            self.steps.push(Step { kind, name, change, document: None, before, after: Value::Null });
        }
        Ok(())
    }

    fn one(
        &mut self,
        kind: ItemKind,
        name: &str,
        stored: &BTreeMap<String, (i64, Value)>,
        after: Value,
        document: &FileDocument,
    ) {
        let (change, before) = match stored.get(name) {
            Some((_, before)) if *before == after => {
                return self.unchanged.push(format!("{} {name}", kind.as_str()));
            }
            Some((version, before)) => (Change::Replace(*version), before.clone()),
            None => (Change::Create, Value::Null),
        };
        self.steps.push(Step { kind, name: name.to_owned(), change, document: Some(document.clone()), before, after });
    }

    /// Prints the plan. If the command can delete what is in no file (`can_prune`), names the flags.
    ///
    /// # Errors
    /// Never for parsed documents.
    pub(super) fn show(&self, can_prune: bool) -> anyhow::Result<()> {
        for subject in &self.unchanged {
            say(&format!("  {subject}: unchanged"));
        }
        for step in &self.steps {
            let subject = step.subject();
            match &step.change {
                Change::Create => shade(Tone::Good, &format!("+ {subject}: new")),
                Change::Replace(version) => say(&format!("~ {subject}: changed since version {version}")),
                Change::Renew(_) => say(&format!("~ {subject}: changed")),
                Change::Delete(version) => {
                    shade(Tone::Bad, &format!("- {subject}: deleted (version {version}), no file has it"));
                }
                Change::Remove(_) => {
                    shade(Tone::Bad, &format!("- {subject}: PROTECTED NO MORE, no file has it"));
                }
            }
            for (tone, line) in lines(&step.before, &step.after)? {
                shade(tone, &format!("    {line}"));
            }
        }
        for (left, word, flag) in
            [(self.left, "policy", "--prune"), (self.left_protected, "protected entry", "--prune-protected")]
        {
            if left > 0 {
                let hint = if can_prune { format!(" ({flag} deletes them)") } else { String::new() };
                say(&format!("  {} in no file, left as they are{hint}", many(left, word)));
            }
        }
        Ok(())
    }

    /// `1 policy new, 2 changed`, for the confirmation.
    pub(super) fn summary(&self) -> String {
        let count = |wanted: fn(&Change) -> bool| self.steps.iter().filter(|step| wanted(&step.change)).count();
        let parts = [
            (count(|change| *change == Change::Create), "new"),
            (count(|change| matches!(change, Change::Replace(_) | Change::Renew(_))), "changed"),
            (count(|change| matches!(change, Change::Delete(_) | Change::Remove(_))), "deleted"),
            (self.unchanged.len(), "unchanged"),
        ];
        let said: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        said.join(", ")
    }
}

/// `1 policy`, `2 policies`.
pub(in crate::cli) fn many(count: usize, word: &str) -> String {
    match (count, word.strip_suffix('y')) {
        (1, _) => format!("1 {word}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {word}s"),
    }
}

/// The line difference between two documents in YAML form.
///
/// # Errors
/// Never for a policy or an action.
pub(super) fn lines(before: &Value, after: &Value) -> anyhow::Result<Vec<(Tone, String)>> {
    let text = |value: &Value| if value.is_null() { Ok(String::new()) } else { yaml::write(value) };
    let (before, after) = (text(before)?, text(after)?);
    let diff = TextDiff::from_lines(&before, &after);
    let mut lines = Vec::new();
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            lines.push((Tone::Quiet, "  …".to_owned()));
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (tone, sign) = match change.tag() {
                ChangeTag::Insert => (Tone::Good, '+'),
                ChangeTag::Delete => (Tone::Bad, '-'),
                ChangeTag::Equal => (Tone::Quiet, ' '),
            };
            lines.push((tone, format!("{sign} {}", plain(change.value().trim_end_matches('\n')))));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::policy::files::Documents;
    use serde_json::json;

    fn held(text: &str) -> Held {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.yaml"), text).unwrap();
        Documents::read(&[dir.path().to_owned()]).check_only(&KnownNames::default()).unwrap()
    }

    fn stored(policies: &[Value]) -> Stored {
        let view = |view: &Value| policy(&serde_json::from_value(view.clone()).unwrap()).unwrap();
        let policies = policies.iter().map(view).collect();
        Stored { actions: BTreeMap::new(), policies, protected: Vec::new(), agents: Vec::new() }
    }

    fn view(name: &str, duration: &str) -> Value {
        json!({"name": name, "mode": "enforce", "match": [{"rule_ids": ["5763"], "min_level": 5}],
            "respond": {"action": "firewall-drop", "target": "source.ip", "on": "origin", "for": duration},
            "version": 7, "created_at": "2026-11-24T10:00:00.000Z", "updated_at": "2026-11-24T10:00:00.000Z", "warnings": []})
    }

    const FILE: &str = "# In another order, with defaults left out.
respond: { for: 600s, action: firewall-drop }
name: same
match: [{ min_level: 5, rule_ids: [5763] }]
---
name: longer
match: [{ min_level: 5, rule_ids: [5763] }]
respond: { for: 1h, action: firewall-drop }
---
name: new
match: [{ min_level: 12 }]
respond: { action: log-only }
";

    #[test]
    fn only_a_difference_in_meaning_is_a_change() {
        let stored = stored(&[view("same", "10m"), view("longer", "10m"), view("other", "10m")]);
        let changes = |policies| {
            let prune = Prune { policies, protected: false };
            let plan = Plan::between(&held(FILE), &stored, prune).unwrap();
            let steps: Vec<(String, Change)> =
                plan.steps.iter().map(|step| (step.name.clone(), step.change.clone())).collect();
            (steps, plan.summary())
        };
        let (longer, new) = (("longer".to_owned(), Change::Replace(7)), ("new".to_owned(), Change::Create));
        assert_eq!(changes(false), (vec![longer.clone(), new.clone()], "1 new, 1 changed, 1 unchanged".into()));
        let gone = ("other".to_owned(), Change::Delete(7));
        assert_eq!(changes(true), (vec![longer, new, gone], "1 new, 1 changed, 1 deleted, 1 unchanged".into()));
    }

    #[test]
    fn protected_entries_are_created_replaced_and_removed_only_on_request() {
        let held =
            held("- { kind: ip, value: 192.0.2.0/24, reason: office }\n- { kind: user, value: Backup, reason: new }\n");
        let view = |id: &str, value: &str, reason: &str| {
            let kind = if value.contains('.') { "ip" } else { "user" };
            let row = json!({"id": id, "kind": kind, "value": value, "policies": [], "reason": reason, "expires_at": null,
                "created_at": "2026-11-24T10:00:00.000Z", "created_by": "key:a"});
            ProtectedItem::stored(serde_json::from_value(row).unwrap()).unwrap()
        };
        let protected =
            vec![view("1", "192.0.2.0/24", "office"), view("2", "backup", "old"), view("3", "192.0.2.9", "x")];
        let stored = Stored { protected, ..stored(&[]) };
        let changes = |protected| {
            let plan = Plan::between(&held, &stored, Prune { policies: true, protected }).unwrap();
            plan.steps.iter().map(|step| (step.name.clone(), step.change.clone())).collect::<Vec<_>>()
        };
        let renewed = ("user backup".to_owned(), Change::Renew("2".into()));
        assert_eq!(changes(false), std::slice::from_ref(&renewed));
        assert_eq!(changes(true), [renewed, ("ip 192.0.2.9".to_owned(), Change::Remove("3".into()))]);
    }

    #[test]
    fn a_difference_is_shown_as_yaml_lines() {
        let document = |duration: &str| stored(&[view("p", duration)]).policies.remove("p").unwrap().1;
        let (before, after) = (document("10m"), document("1h"));
        let shown: Vec<String> = lines(&before, &after).unwrap().into_iter().map(|(_, line)| line).collect();
        assert_eq!(shown, ["    target: source.ip", "    on: origin", "-   for: 10m", "+   for: 1h"]);
        let whole = lines(&Value::Null, &before).unwrap();
        assert!(whole.iter().all(|(tone, line)| *tone == Tone::Good && line.starts_with("+ ")));
    }
}
