//! Changes of a stored policy, each with its plan: its mode, a rollback, the reset of a breaker, its
//! deletion. Each sends the version that the plan was made of, so that no other change is lost.

use axum::extract::{Path, Query};
use axum::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{NO_BODY, Trouble};
use super::format::count;
use super::page::{PageFailure, PageResult};
use super::paths::{segment, with_query};
use super::plan::{ChangePlan, PlanField};
use super::policies::{SECTION, counts, spelled, summary};
use super::policy_text::{WrittenPolicy, diff};
use super::session::{SentForm, Session};
use crate::views::policies::{PolicyCounts, ResetBreaker, Rollback};

const MODES: [(&str, &str); 3] = [
    ("enforce", "enforce: respond at once"),
    ("approve", "approve: ask people first"),
    ("observe", "observe: record what it would do, and do nothing"),
];
/// Versions among which the one to roll back to is looked for.
const VERSIONS: usize = 500;

/// What the form begins with, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PolicyChoice {
    mode: String,
    agent: String,
    to: i64,
}

fn path(name: &str) -> String {
    format!("/policies/{}", segment(name))
}

fn api_path(name: &str) -> String {
    format!("/v1/policies/{}", segment(name))
}

/// The version that the form was made of.
fn version(form: &SentForm) -> Option<i64> {
    form.given("version").and_then(|text| text.parse().ok())
}

/// What another mode would mean.
pub(super) async fn ask_mode(
    session: Session,
    Path(name): Path<String>,
    Query(choice): Query<PolicyChoice>,
) -> PageResult {
    let plan = mode_plan(&session, &name, &choice.mode).await?;
    session.plan(SECTION, plan).await
}

async fn mode_plan(session: &Session, name: &str, wanted: &str) -> Result<ChangePlan, PageFailure> {
    let WrittenPolicy { view, version, .. } = session.policy(name).await?;
    let now = summary(&view)?.mode;
    let counts = counts(session, name, "24h").await?;
    let wanted = match wanted {
        // The next one that does more.
        "" => match now.as_str() {
            "observe" => "approve",
            "approve" => "enforce",
            _ => "observe",
        },
        wanted => wanted,
    };
    Ok(ChangePlan {
        title: format!("Change the mode of {name}"),
        facts: vec![("Mode now", now), ("In the last 24 hours", deeds(&counts))],
        warnings: vec![
            "In enforce it acts on each alert that matches, without asking.".to_owned(),
            "Responses that are in force stay until they end. Those that wait for approval go on waiting.".to_owned(),
        ],
        fields: vec![
            PlanField::hidden("version", &version.to_string()),
            PlanField::select("mode", "New mode", wanted, &MODES),
        ],
        action: format!("{}/mode", path(name)),
        button: "Change the mode",
        back: path(name),
        ..ChangePlan::default()
    })
}

/// The counts in one line.
fn deeds(counts: &PolicyCounts) -> String {
    let counts = spelled(&counts.responses);
    let counts: Vec<String> = counts.iter().map(|(word, number)| format!("{number} {word}")).collect();
    if counts.is_empty() { "it matched no alert".to_owned() } else { counts.join(", ") }
}

/// Changes the mode.
pub(super) async fn mode(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    let mode = form.get("mode").to_owned();
    let sent = set_mode(&session, &name, version(&form), &mode).await;
    match sent {
        Ok(()) => Ok(session.done(&path(&name), &format!("{name} is now in {mode}."))),
        Err(trouble) => {
            let plan = mode_plan(&session, &name, &mode).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

async fn set_mode(session: &Session, name: &str, version: Option<i64>, mode: &str) -> Result<(), Trouble> {
    let WrittenPolicy { view, .. } = session.policy(name).await?;
    let read = view.policy.read::<Map<String, Value>>();
    let mut document = read.map_err(|error| Trouble::Broken(format!("the policy cannot be read: {error}")))?;
    document.insert("mode".to_owned(), mode.into());
    session.api.send(Method::PUT, &api_path(name), version, Some(&document)).await.map(|_| ())
}

/// What a rollback would change.
pub(super) async fn ask_rollback(
    session: Session,
    Path(name): Path<String>,
    Query(choice): Query<PolicyChoice>,
) -> PageResult {
    let plan = rollback_plan(&session, &name, choice.to).await?;
    session.plan(SECTION, plan).await
}

async fn rollback_plan(session: &Session, name: &str, to: i64) -> Result<ChangePlan, PageFailure> {
    let WrittenPolicy { version, text, .. } = session.policy(name).await?;
    let (versions, _) = session.policy_versions(name, VERSIONS).await?;
    let wanted = versions.iter().find(|row| row.version == to).and_then(|row| row.text.as_deref());
    let lines = diff(&text, wanted.unwrap_or_default());
    let lines = lines.into_iter().filter(|line| matches!(line.class, "add" | "del"));
    let lines: Vec<String> = lines.map(|line| format!("{} {}", line.sign, line.text)).collect();
    let mut warnings = vec!["Responses that are in force stay until they end.".to_owned()];
    if wanted.is_none() {
        warnings.push(format!("Version {to} is not one of its versions, or is the one that deleted it."));
    } else if lines.is_empty() {
        warnings.push(format!("Version {to} says the same as the one in force."));
    }
    Ok(ChangePlan {
        title: format!("Roll {name} back to version {to}"),
        facts: vec![
            ("In force", format!("version {version}")),
            ("Afterwards", format!("version {}, with the text of version {to}", version + 1)),
            (
                "Difference",
                format!("{} changed, shown below", count(i64::try_from(lines.len()).unwrap_or(i64::MAX), "line")),
            ),
        ],
        warnings,
        concerned: lines,
        fields: vec![PlanField::hidden("version", &version.to_string()), PlanField::hidden("to", &to.to_string())],
        action: format!("{}/rollback", path(name)),
        button: "Roll back",
        back: path(name),
        is_empty: wanted.is_none(),
        ..ChangePlan::default()
    })
}

/// Rolls back.
pub(super) async fn rollback(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    let to = form.get("to").parse().unwrap_or_default();
    let body = Rollback { version: to };
    let api_path = format!("{}/rollback", api_path(&name));
    match session.api.send(Method::POST, &api_path, version(&form), Some(&body)).await {
        Ok(_) => Ok(session.done(&path(&name), &format!("{name} was rolled back to version {to}."))),
        Err(trouble) => {
            let plan = rollback_plan(&session, &name, to).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

/// What the reset of a breaker would do.
pub(super) async fn ask_reset(
    session: Session,
    Path(name): Path<String>,
    Query(choice): Query<PolicyChoice>,
) -> PageResult {
    let plan = reset_plan(&session, &name, &choice.agent, "").await?;
    session.plan(SECTION, plan).await
}

async fn reset_plan(session: &Session, name: &str, agent: &str, reason: &str) -> Result<ChangePlan, PageFailure> {
    let WrittenPolicy { view, .. } = session.policy(name).await?;
    let on_agents =
        view.stopped_agents.iter().filter(|on| agent.is_empty() || on.agent == agent || on.agent_id == agent);
    let whole = view.stopped.iter().filter(|_| agent.is_empty());
    let concerned: Vec<String> = whole
        .map(|breaker| format!("as a whole: {}", breaker.reason))
        .chain(on_agents.map(|on| format!("on {}: {}", on.agent, on.reason)))
        .collect();
    let is_empty = concerned.is_empty();
    let warning = if is_empty {
        "No breaker of the policy is open there.".to_owned()
    } else {
        "The policy acts again at once, and its failure counts start at zero. If the cause remains, the breaker opens again."
            .to_owned()
    };
    Ok(ChangePlan {
        title: if agent.is_empty() {
            format!("Let {name} act again")
        } else {
            format!("Let {name} act again on {agent}")
        },
        warnings: vec![warning],
        concerned,
        fields: vec![PlanField::hidden("agent", agent), PlanField::reason(reason)],
        action: format!("{}/reset", path(name)),
        button: "Reset",
        back: path(name),
        is_empty,
        ..ChangePlan::default()
    })
}

/// Resets a breaker.
pub(super) async fn reset(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    let agent = form.given("agent").map(str::to_owned);
    let body = ResetBreaker { reason: form.get("reason").to_owned(), agent: agent.clone() };
    let api_path = format!("{}/reset", api_path(&name));
    match session.api.send(Method::POST, &api_path, None, Some(&body)).await {
        Ok(_) => Ok(session.done(&path(&name), &format!("{name} acts again."))),
        Err(trouble) => {
            let plan = reset_plan(&session, &name, &agent.unwrap_or_default(), form.get("reason")).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

/// What a deletion would do.
pub(super) async fn ask_delete(session: Session, Path(name): Path<String>) -> PageResult {
    let plan = delete_plan(&session, &name).await?;
    session.plan(SECTION, plan).await
}

async fn delete_plan(session: &Session, name: &str) -> Result<ChangePlan, PageFailure> {
    let WrittenPolicy { view, version, .. } = session.policy(name).await?;
    let counts = counts(session, name, "24h").await?;
    Ok(ChangePlan {
        title: format!("Delete {name}"),
        facts: vec![("Mode", summary(&view)?.mode), ("In the last 24 hours", deeds(&counts))],
        warnings: vec!["Alerts that only this policy matches get no response any more.".to_owned()],
        stays: vec![
            "Its responses stay in force until they end, or are lifted.".to_owned(),
            "Its versions are kept.".to_owned(),
        ],
        fields: vec![PlanField::hidden("version", &version.to_string())],
        action: format!("{}/delete", path(name)),
        button: "Delete the policy",
        is_dangerous: true,
        back: path(name),
        ..ChangePlan::default()
    })
}

/// Deletes the policy.
pub(super) async fn delete(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    match session.api.send(Method::DELETE, &api_path(&name), version(&form), NO_BODY).await {
        Ok(_) => {
            let place = with_query("/responses", [("policy", name.as_str()), ("state", "active")]);
            Ok(session.done(&place, &format!("{name} was deleted. These are its responses that stay in force.")))
        }
        Err(trouble) => {
            let plan = delete_plan(&session, &name).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}
