//! What no response may touch: the list, a new entry with what it lifts, and the end of one.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Method;
use serde::Deserialize;

use super::client::{NO_BODY, Trouble};
use super::format::{Moment, coming, count, past};
use super::page::{PageFailure, PageResult, html};
use super::paths::{segment, with_query};
use super::plan::{ChangePlan, PlanField};
use super::session::{SentForm, Session};
use super::shell::Shell;
use crate::domain::right::Right;
use crate::views::page::Page;
use crate::views::protected::{CreateProtected, CreatedProtected, ProtectedRow};

const SECTION: &str = "/protected";
const LIVE: &str = "protected.*";
const SEEN: &str = "yes";

/// Where the list goes on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cursor {
    cursor: String,
}

struct Row {
    id: String,
    kind: String,
    value: String,
    policies: String,
    reason: String,
    by: String,
    created: Moment,
    until: Option<Moment>,
}

#[derive(Template)]
#[template(path = "protected.html")]
struct ProtectedPage {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<String>,
    may_change: bool,
}

/// The list.
pub(super) async fn list(session: Session, Query(Cursor { cursor }): Query<Cursor>) -> PageResult {
    let page: Page<ProtectedRow> = session.api.get(&with_query("/v1/protected", [("cursor", cursor.as_str())])).await?;
    let now = session.now();
    let rows = page.items.into_iter().map(|row| {
        let policies: Vec<String> = row.policies.read().unwrap_or_default();
        let value = if matches!(row.kind.as_str(), "host" | "agent") { session.agent(&row.value) } else { row.value };
        Row {
            policies: if policies.is_empty() { "every response".to_owned() } else { policies.join(", ") },
            by: session.actor(&row.created_by),
            created: past(row.created_at, now),
            until: row.expires_at.map(|at| coming(at, now)),
            id: row.id,
            kind: row.kind,
            value,
            reason: row.reason,
        }
    });
    let rows = rows.collect();
    let next = page.next_cursor.map(|cursor| with_query(SECTION, [("cursor", cursor.as_str())]));
    let shell = session.shell("Protected", SECTION, if cursor.is_empty() { LIVE } else { "" }).await?;
    html(&ProtectedPage { shell, rows, next, may_change: may_change(&session) })
}

/// Entries count for all agents, so a scope takes the right away.
fn may_change(session: &Session) -> bool {
    session.may(Right::WritePolicies) && session.who.scopes.is_empty()
}

/// A new entry, as a form has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProtectForm {
    kind: String,
    value: String,
    policies: String,
    expires_in: String,
    reason: String,
}

impl ProtectForm {
    fn request(&self) -> Result<CreateProtected, String> {
        let policies = self.policies.split([',', ' ', '\n']).map(str::trim).filter(|name| !name.is_empty());
        let expires_in = match self.expires_in.trim() {
            "" => None,
            text => Some(text.parse().map_err(|error| format!("the duration {text} {error}"))?),
        };
        Ok(CreateProtected {
            kind: self.kind.clone(),
            value: self.value.trim().to_owned(),
            policies: policies.map(str::to_owned).collect(),
            reason: self.reason.clone(),
            expires_in,
        })
    }

    fn form(&self) -> ChangePlan {
        let kinds = [
            ("ip", "an address or a network"),
            ("user", "an account"),
            ("file", "a file or a folder"),
            ("process", "a process"),
            ("host", "a host: no response of kind host touches it"),
            ("agent", "an agent: no response acts there"),
        ];
        ChangePlan {
            title: "Protect".to_owned(),
            fields: vec![
                PlanField::select("kind", "What", if self.kind.is_empty() { "ip" } else { &self.kind }, &kinds),
                PlanField::text("value", "Value", &self.value),
                PlanField::optional(
                    "policies",
                    "Only against these policies",
                    &self.policies,
                    "Empty: against every response.",
                ),
                PlanField::optional("expires_in", "For", &self.expires_in, "Such as 30d; empty: until it is removed."),
                PlanField::reason(&self.reason),
            ],
            action: "/protected/add".to_owned(),
            button: "Show what it lifts…",
            back: SECTION.to_owned(),
            ..ChangePlan::default()
        }
    }

    fn foreseen(&self, preview: &CreatedProtected) -> ChangePlan {
        let CreatedProtected { kind, value, expires_at, lifts, warnings, .. } = preview;
        let lifts = i64::try_from(lifts.len()).unwrap_or(i64::MAX);
        let until = expires_at.map_or_else(|| "until it is removed".to_owned(), |at| at.to_string());
        let against = if self.policies.trim().is_empty() { "every response" } else { &self.policies };
        let hidden = [
            ("kind", &self.kind),
            ("value", &self.value),
            ("policies", &self.policies),
            ("expires_in", &self.expires_in),
        ];
        let mut fields: Vec<PlanField> =
            hidden.into_iter().map(|(name, value)| PlanField::hidden(name, value)).collect();
        fields.push(PlanField::hidden("seen", SEEN));
        fields.push(PlanField::reason(&self.reason));
        ChangePlan {
            title: format!("Protect {kind} {value}"),
            facts: vec![
                ("Protects", format!("{kind} {value}")),
                ("Against", against.to_owned()),
                ("Until", until),
                ("Lifts now", count(lifts, "effect in force")),
            ],
            warnings: warnings.iter().map(|fault| fault.detail.clone()).collect(),
            fields,
            button: "Protect",
            ..self.form()
        }
    }
}

/// The form of a new entry. With a value it shows at once what the entry would lift.
pub(super) async fn ask(session: Session, Query(asked): Query<ProtectForm>) -> PageResult {
    if asked.value.trim().is_empty() {
        return session.plan(SECTION, asked.form()).await;
    }
    let with_reason = ProtectForm { reason: reason_or(&asked.reason), ..asked.clone() };
    match preview(&session, &with_reason).await {
        Ok(preview) => session.plan(SECTION, asked.foreseen(&preview)).await,
        Err(trouble) => session.refused(SECTION, asked.form(), &trouble).await,
    }
}

/// A dry run needs a reason, too.
fn reason_or(reason: &str) -> String {
    if reason.trim().is_empty() { "dry run".to_owned() } else { reason.to_owned() }
}

async fn preview(session: &Session, asked: &ProtectForm) -> Result<CreatedProtected, Trouble> {
    let request = asked.request().map_err(Trouble::Mistyped)?;
    session.api.post("/v1/protected?dry_run=true", &request).await
}

/// Shows what a new entry lifts, or makes it once that was seen.
pub(super) async fn add(session: Session, form: SentForm) -> PageResult {
    let get = |name: &str| form.get(name).to_owned();
    let asked = ProtectForm {
        kind: get("kind"),
        value: get("value"),
        policies: get("policies"),
        expires_in: get("expires_in"),
        reason: get("reason"),
    };
    if form.get("seen") != SEEN {
        return match preview(&session, &asked).await {
            Ok(preview) => session.plan(SECTION, asked.foreseen(&preview)).await,
            Err(trouble) => session.refused(SECTION, asked.form(), &trouble).await,
        };
    }
    let made = match asked.request() {
        Ok(request) => session.api.post::<CreatedProtected>("/v1/protected", &request).await,
        Err(why) => Err(Trouble::Mistyped(why)),
    };
    match made {
        Ok(made) => {
            let lifts = count(i64::try_from(made.lifts.len()).unwrap_or(i64::MAX), "effect");
            Ok(session.done(SECTION, &format!("{} {} is protected; {lifts} are lifted for it.", made.kind, made.value)))
        }
        Err(trouble) => session.refused(SECTION, asked.form(), &trouble).await,
    }
}

/// Shows what the end of an entry means.
pub(super) async fn ask_remove(session: Session, Path(id): Path<String>) -> PageResult {
    let plan = removal(&session, &id).await?;
    session.plan(SECTION, plan).await
}

async fn removal(session: &Session, id: &str) -> Result<ChangePlan, PageFailure> {
    let row: ProtectedRow = session.api.get(&format!("/v1/protected/{}", segment(id))).await?;
    Ok(ChangePlan {
        title: format!("Protect {} {} no more", row.kind, row.value),
        facts: vec![
            ("Entry", format!("{} {}", row.kind, row.value)),
            ("Reason", row.reason.clone()),
            ("Since", past(row.created_at, session.now()).words),
            ("By", session.actor(&row.created_by)),
        ],
        warnings: vec!["From then on responses may touch it.".to_owned()],
        action: format!("/protected/{}/remove", segment(id)),
        button: "Remove",
        is_dangerous: true,
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    })
}

/// Removes an entry.
pub(super) async fn remove(session: Session, Path(id): Path<String>, _: SentForm) -> PageResult {
    match session.api.send(Method::DELETE, &format!("/v1/protected/{}", segment(&id)), None, NO_BODY).await {
        Ok(_) => Ok(session.done(SECTION, "The entry is removed.")),
        Err(trouble) => {
            let plan = removal(&session, &id).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}
