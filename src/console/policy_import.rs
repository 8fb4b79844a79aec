//! The import of a Wazuh manager's `ossec.conf`: what it comes to, with a report of all that differs,
//! and then the storing of it, all or nothing.

use askama::Template;
use axum::body::{Body, to_bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::client::Trouble;
use super::format::count;
use super::page::{PageFailure, PageResult, html, with_status};
use super::paths::with_query;
use super::policies::{SECTION, mode_badge};
use super::policy_editor::require_writer;
use super::policy_text::{DiffLine, WrittenPolicy, diff, write};
use super::session::{SentForm, Session};
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::views::import::{Import, Level, Note};
use crate::views::problem::Problem;

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// A note of the report.
struct NoteLine {
    badge: Badge,
    place: String,
    message: String,
}

impl NoteLine {
    fn of(note: &Note) -> Self {
        let tone = match note.level {
            Level::Error => StateTone::Bad,
            Level::Warning => StateTone::Warn,
            Level::Info => StateTone::Plain,
        };
        let place = note.line.map_or_else(String::new, |line| format!("line {line}"));
        Self { badge: Badge::new(tone, note.level.as_str()), place, message: note.message.clone() }
    }
}

/// A document of the import.
struct ImportedLine {
    name: String,
    badges: Vec<Badge>,
    text: String,
    /// What it would change of the one that is stored.
    diff: Vec<DiffLine>,
    is_stored: bool,
}

/// What the configuration comes to.
struct ImportedParts {
    notes: Vec<NoteLine>,
    policies: Vec<ImportedLine>,
    actions: Vec<ImportedLine>,
    protected: Vec<ImportedLine>,
    /// Whether the manager would refuse to store it.
    is_refused: bool,
    /// How many of its policies are stored already.
    taken: usize,
}

#[derive(Template)]
#[template(path = "policy_import.html")]
struct ImportPage {
    shell: Shell,
    configuration: String,
    wazuh_manager: String,
    fault: Option<String>,
    parts: Option<ImportedParts>,
}

/// The form.
pub(super) async fn ask(session: Session) -> PageResult {
    let page = page(&session, "", "").await?;
    html(&page)
}

async fn page(session: &Session, configuration: &str, wazuh_manager: &str) -> Result<ImportPage, PageFailure> {
    require_writer(session)?;
    Ok(ImportPage {
        shell: session.shell("Import an ossec.conf", SECTION, "").await?,
        configuration: configuration.to_owned(),
        wazuh_manager: wazuh_manager.to_owned(),
        fault: None,
        parts: None,
    })
}

/// Shows what it comes to, or stores it.
pub(super) async fn run(session: Session, form: SentForm) -> PageResult {
    let (configuration, wazuh_manager) = (form.get("configuration"), form.get("wazuh_manager").trim());
    let mut page = page(&session, configuration, wazuh_manager).await?;
    if form.get("step") == "store" {
        match send(&session, configuration, wazuh_manager, false).await {
            Ok(import) => return Ok(session.done(SECTION, &stored(&import))),
            Err(trouble) => page.fault = Some(trouble.to_string()),
        }
    }
    match send(&session, configuration, wazuh_manager, true).await {
        Ok(import) => page.parts = Some(parts(&session, import).await?),
        Err(trouble) => {
            page.fault.get_or_insert_with(|| trouble.to_string());
            return with_status(trouble.status(), &page);
        }
    }
    if page.fault.is_some() { with_status(StatusCode::CONFLICT, &page) } else { html(&page) }
}

fn stored(import: &Import) -> String {
    let number = |list: &[Value]| i64::try_from(list.len()).unwrap_or(i64::MAX);
    let policies = match import.policies.len() {
        1 => "1 policy".to_owned(),
        many => format!("{many} policies"),
    };
    let actions = count(number(&import.actions), "custom action");
    format!("Imported: {policies}, {actions}, {} protected.", number(&import.protected))
}

/// Sends the configuration.
async fn send(session: &Session, configuration: &str, wazuh_manager: &str, dry_run: bool) -> Result<Import, Trouble> {
    let dry_run = if dry_run { "true" } else { "false" };
    let path = with_query("/v1/policies/import", [("dry_run", dry_run), ("wazuh_manager", wazuh_manager)]);
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    let response = session.api.call(Method::POST, &path, headers, Body::from(configuration.to_owned())).await?;
    let status = response.status();
    let body = to_bytes(response.into_body(), MAX_ANSWER).await;
    let body = body.map_err(|error| Trouble::Broken(format!("the API's answer to the import broke off: {error}")))?;
    let broken = |error| Trouble::Broken(format!("the API's answer to the import does not fit the console: {error}"));
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(broken);
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(broken)?;
    Err(Trouble::Refused(Box::new(problem)))
}

async fn parts(session: &Session, import: Import) -> Result<ImportedParts, Trouble> {
    let mut policies = Vec::with_capacity(import.policies.len());
    for document in &import.policies {
        policies.push(policy(session, document).await?);
    }
    let line = |document: &Value, name: String| -> Result<ImportedLine, Trouble> {
        Ok(ImportedLine { name, badges: Vec::new(), text: write(document)?, diff: Vec::new(), is_stored: false })
    };
    let field = |document: &Value, field: &str| document[field].as_str().unwrap_or_default().to_owned();
    let actions = import.actions.iter().map(|document| line(document, field(document, "name")));
    let protected = import
        .protected
        .iter()
        .map(|document| line(document, format!("{} {}", field(document, "kind"), field(document, "value"))));
    Ok(ImportedParts {
        actions: actions.collect::<Result<_, _>>()?,
        protected: protected.collect::<Result<_, _>>()?,
        is_refused: import.report.iter().any(|note| note.level == Level::Error),
        taken: policies.iter().filter(|line| line.is_stored).count(),
        notes: import.report.iter().map(NoteLine::of).collect(),
        policies,
    })
}

/// A policy of the import, beside the stored one of its name.
async fn policy(session: &Session, document: &Value) -> Result<ImportedLine, Trouble> {
    let name = document["name"].as_str().unwrap_or_default().to_owned();
    let text = write(document)?;
    let mut badges = vec![mode_badge(document["mode"].as_str().unwrap_or("enforce"))];
    let stored = match session.policy(&name).await {
        Ok(WrittenPolicy { view, .. }) => {
            let stored: Result<Value, _> = view.policy.read();
            // Both sides have their fields by name.
            Some(stored.map_err(|error| Trouble::Broken(format!("the policy cannot be read: {error}")))?)
        }
        Err(trouble) if trouble.status() == StatusCode::NOT_FOUND => None,
        Err(trouble) => return Err(trouble),
    };
    let lines = match &stored {
        Some(stored) => diff(&write(stored)?, &text),
        None => Vec::new(),
    };
    badges.push(match (&stored, lines.is_empty()) {
        (None, _) => Badge::new(StateTone::Good, "new"),
        (Some(_), true) => Badge::new(StateTone::Plain, "stored already, the same"),
        (Some(_), false) => Badge::new(StateTone::Warn, "stored already, and differs"),
    });
    Ok(ImportedLine { name, badges, text, diff: lines, is_stored: stored.is_some() })
}
