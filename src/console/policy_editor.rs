//! The editor of a policy: its text with the faults as one types, the difference before it is stored,
//! and both texts side by side if another person changed the policy meanwhile.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::client::Trouble;
use super::page::{PageFailure, PageResult, html, with_status};
use super::paths::segment;
use super::policies::SECTION;
use super::policy_text::{DiffLine, DraftState, WrittenPolicy, diff, read, write};
use super::session::{SentForm, Session};
use super::shell::Shell;
use crate::domain::fault::Fault;
use crate::domain::right::Right;
use crate::views::policies::PolicyView;

/// What a new policy begins with: it records, and does nothing.
const STARTER: &str = "\
name: my-first-policy
mode: observe
match:
  - rule_ids: [\"5712\", \"5763\"]
    min_level: 10
respond:
  action: firewall-drop
  target: source.ip
  on: origin
  for: 10m
note: Blocks an address after many failed SSH logins.
";

/// Which policy the text begins as, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EditorQuestion {
    /// Name of a policy to copy.
    copy: String,
}

#[derive(Template)]
#[template(path = "policy_editor.html")]
struct EditorPage {
    shell: Shell,
    /// Name of the policy that is changed; empty: a new one.
    name: String,
    /// Where the form goes.
    action: String,
    back: String,
    version: String,
    text: String,
    draft: DraftState,
    fault: Option<String>,
}

#[derive(Template)]
#[template(path = "policy_faults.html")]
struct FaultsPart {
    draft: DraftState,
}

#[derive(Template)]
#[template(path = "policy_review.html")]
struct ReviewPage {
    shell: Shell,
    name: String,
    action: String,
    back: String,
    /// The version that is replaced; empty: a new policy.
    version: String,
    text: String,
    diff: Vec<DiffLine>,
    draft: DraftState,
    /// What another person has stored meanwhile: its version, its text, and what it changed of what was edited.
    theirs: Option<(i64, String, Vec<DiffLine>)>,
    fault: Option<String>,
}

fn action(name: &str) -> String {
    if name.is_empty() { "/policies/new".to_owned() } else { format!("/policies/{}/edit", segment(name)) }
}

fn back(name: &str) -> String {
    if name.is_empty() { SECTION.to_owned() } else { format!("/policies/{}", segment(name)) }
}

/// Refuses a person who cannot store a policy: a form that ends in a refusal is no help.
///
/// # Errors
/// 403 without the right.
pub(super) fn require_writer(session: &Session) -> Result<(), PageFailure> {
    if session.may(Right::WritePolicies) {
        return Ok(());
    }
    Err(PageFailure::new(StatusCode::FORBIDDEN, "Policies are changed by people with the right write_policies."))
}

/// The editor of a new policy.
pub(super) async fn new(session: Session, Query(asked): Query<EditorQuestion>) -> PageResult {
    let text = if asked.copy.is_empty() { STARTER.to_owned() } else { session.policy(&asked.copy).await?.text };
    editor(&session, "", "", text, None).await
}

/// The editor of a stored policy.
pub(super) async fn edit(session: Session, Path(name): Path<String>) -> PageResult {
    let WrittenPolicy { version, text, .. } = session.policy(&name).await?;
    editor(&session, &name, &version.to_string(), text, None).await
}

async fn editor(session: &Session, name: &str, version: &str, text: String, fault: Option<&Trouble>) -> PageResult {
    require_writer(session)?;
    let title = if name.is_empty() { "New policy".to_owned() } else { format!("Edit {name}") };
    let page = EditorPage {
        shell: session.shell(title, SECTION, "").await?,
        name: name.to_owned(),
        action: action(name),
        back: back(name),
        version: version.to_owned(),
        draft: session.draft(&text),
        text,
        fault: fault.map(ToString::to_string),
    };
    match fault {
        Some(trouble) => with_status(trouble.status(), &page),
        None => html(&page),
    }
}

/// The faults of the text, as a part of the page.
pub(super) async fn check(session: Session, form: SentForm) -> PageResult {
    require_writer(&session)?;
    html(&FaultsPart { draft: session.draft(form.get("document")) })
}

/// What the form of a new policy asks for.
pub(super) async fn create(session: Session, form: SentForm) -> PageResult {
    turn(&session, "", &form).await
}

/// What the form of a stored policy asks for.
pub(super) async fn replace(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    turn(&session, &name, &form).await
}

/// Goes on with the text as the pressed button says: to the editor, to the difference, or to the
/// manager.
async fn turn(session: &Session, name: &str, form: &SentForm) -> PageResult {
    let (text, version) = (form.get("document"), form.get("version"));
    match form.get("step") {
        "edit" => editor(session, name, version, text.to_owned(), None).await,
        "save" => save(session, name, version, text).await,
        _ => review(session, name, version, text, None).await,
    }
}

/// The difference to what is in force, or the editor again if the text has faults.
async fn review(session: &Session, name: &str, version: &str, text: &str, trouble: Option<&Trouble>) -> PageResult {
    let draft = session.draft(text);
    if !draft.faults.is_empty() && trouble.is_none() {
        let page = editor(session, name, version, text.to_owned(), None).await?;
        return Ok(unprocessable(page));
    }
    let edited: Option<i64> = version.parse().ok();
    let in_force = if name.is_empty() { None } else { Some(session.policy(name).await?) };
    // In the same form on both sides, so that comments and the order of fields are no difference.
    let mine = normalised(session, text)?;
    let in_force_text = in_force.as_ref().map(|policy| policy.text.clone()).unwrap_or_default();
    let theirs = match (&in_force, edited) {
        (Some(policy), Some(edited)) if policy.version != edited => {
            let before = before(session, name, edited).await?;
            Some((policy.version, policy.text.clone(), diff(&before, &policy.text)))
        }
        _ => None,
    };
    let title = if name.is_empty() { "Store a new policy".to_owned() } else { format!("Change {name}") };
    // This page shows the version in force, so storing from here may replace that one.
    let version = in_force.as_ref().map(|policy| policy.version.to_string()).unwrap_or_default();
    let page = ReviewPage {
        shell: session.shell(title, SECTION, "").await?,
        name: name.to_owned(),
        action: action(name),
        back: back(name),
        version,
        text: text.to_owned(),
        diff: diff(&in_force_text, &mine),
        draft,
        fault: trouble.map(ToString::to_string),
        theirs,
    };
    match trouble {
        Some(trouble) => with_status(trouble.status(), &page),
        None => html(&page),
    }
}

fn unprocessable(mut page: Response) -> Response {
    *page.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    page
}

/// The text of a version that was in force before; empty if it is too old to be listed.
async fn before(session: &Session, name: &str, version: i64) -> Result<String, PageFailure> {
    let (versions, _) = session.policy_versions(name, 100).await?;
    let found = versions.into_iter().find(|row| row.version == version);
    Ok(found.and_then(|row| row.text).unwrap_or_default())
}

/// The text as the manager would write it; as it is if it has faults.
fn normalised(session: &Session, text: &str) -> Result<String, PageFailure> {
    let Ok(document) = read(text) else { return Ok(text.to_owned()) };
    match session.console.engine.check_policy(&document) {
        Ok(policy) => Ok(write(&policy)?),
        Err(_) => Ok(text.to_owned()),
    }
}

/// Stores the text. A refusal shows it again; if the policy was changed meanwhile, with both texts.
async fn save(session: &Session, name: &str, version: &str, text: &str) -> PageResult {
    let document = match read(text) {
        Ok(document) => document,
        Err(Fault { detail, .. }) => return Err(PageFailure::new(StatusCode::UNPROCESSABLE_ENTITY, detail)),
    };
    let stored = store(session, name, version, &document).await;
    match stored {
        Ok(view) => {
            let stored = super::policies::summary(&view)?;
            let said = if name.is_empty() {
                format!("{} was stored, in {}.", stored.name, stored.mode)
            } else {
                format!("{} is now at version {}.", stored.name, view.version)
            };
            Ok(session.done(&back(&stored.name), &said))
        }
        Err(trouble) if trouble.status() == StatusCode::PRECONDITION_FAILED => {
            review(session, name, version, text, Some(&trouble)).await
        }
        Err(trouble) => editor(session, name, version, text.to_owned(), Some(&trouble)).await,
    }
}

async fn store(session: &Session, name: &str, version: &str, document: &Value) -> Result<PolicyView, Trouble> {
    if name.is_empty() {
        return session.api.post("/v1/policies", document).await;
    }
    let path = format!("/v1/policies/{}", segment(name));
    session.api.send(Method::PUT, &path, version.parse().ok(), Some(document)).await?.read()
}
