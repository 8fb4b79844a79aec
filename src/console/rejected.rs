//! Alerts that were not taken in: the list, one with its bytes and faults, and sending it again.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Method;
use serde::Deserialize;

use super::client::NO_BODY;
use super::format::{Moment, count, past};
use super::page::{PageFailure, PageResult, html};
use super::paths::{segment, with_query};
use super::plan::ChangePlan;
use super::session::{SentForm, Session};
use super::shell::Shell;
use crate::domain::fault::Fault;
use crate::domain::right::Right;
use crate::views::alerts::{Intake, RejectedAlert};
use crate::views::page::Page;

const SECTION: &str = "/alerts";
/// Faults shown in the list.
const LISTED: usize = 2;

/// The filter of the list, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RejectedQuestion {
    pipeline: String,
    cursor: String,
}

/// A rejected alert.
struct RejectedLine {
    id: String,
    when: Moment,
    times: i64,
    size: i64,
    sender: String,
    pipeline: String,
    /// The first faults, in one line.
    why: String,
    faults: Vec<(String, String)>,
}

fn line(session: &Session, alert: &RejectedAlert) -> RejectedLine {
    let faults: Vec<Fault> = alert.errors.read().unwrap_or_default();
    let first: Vec<String> =
        faults.iter().take(LISTED).map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
    let why = match faults.len() {
        0 => "No reason is kept".to_owned(),
        all if all > LISTED => format!("{}, and {} more", first.join("; "), all - LISTED),
        _ => first.join("; "),
    };
    RejectedLine {
        id: alert.id.clone(),
        when: past(alert.last_at, session.now()),
        times: alert.count,
        size: alert.size,
        sender: session.actor(&alert.sender),
        pipeline: alert.pipeline.clone().unwrap_or_default(),
        why,
        faults: faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect(),
    }
}

#[derive(Template)]
#[template(path = "rejected.html")]
struct RejectedPage {
    shell: Shell,
    asked: RejectedQuestion,
    lines: Vec<RejectedLine>,
    next: Option<String>,
}

/// The list.
pub(super) async fn list(session: Session, Query(asked): Query<RejectedQuestion>) -> PageResult {
    let given = [("pipeline", asked.pipeline.as_str())];
    let path = with_query("/v1/rejected", given.into_iter().chain([("cursor", asked.cursor.as_str())]));
    let page: Page<RejectedAlert> = session.api.get(&path).await?;
    let next = page.next_cursor.as_deref();
    let next = next.map(|cursor| with_query("/alerts/rejected", given.into_iter().chain([("cursor", cursor)])));
    let shell = session.shell("Rejected alerts", SECTION, "").await?;
    let lines = page.items.iter().map(|alert| line(&session, alert)).collect();
    html(&RejectedPage { shell, asked, lines, next })
}

#[derive(Template)]
#[template(path = "rejected_one.html")]
struct RejectedOnePage {
    shell: Shell,
    line: RejectedLine,
    raw: Option<String>,
    may_resend: bool,
}

/// One with its bytes.
pub(super) async fn one(session: Session, Path(id): Path<String>) -> PageResult {
    let alert = find(&session, &id).await?;
    let shell = session.shell("Rejected alert", SECTION, "").await?;
    let may_resend = session.may(Right::Ingest) && alert.is_kept;
    html(&RejectedOnePage { shell, line: line(&session, &alert), raw: alert.raw, may_resend })
}

async fn find(session: &Session, id: &str) -> Result<RejectedAlert, PageFailure> {
    Ok(session.api.get(&format!("/v1/rejected/{}", segment(id))).await?)
}

/// What sending it again would do.
pub(super) async fn ask_resend(session: Session, Path(id): Path<String>) -> PageResult {
    let plan = plan(&session, &id).await?;
    session.plan(SECTION, plan).await
}

async fn plan(session: &Session, id: &str) -> Result<ChangePlan, PageFailure> {
    let alert = find(session, id).await?;
    let line = line(session, &alert);
    let warnings = vec![
        "The alert is read by the mappings of now. If policies match, they respond to it as to every other alert."
            .to_owned(),
        "An alert that is older than a policy's max_age is spared.".to_owned(),
    ];
    Ok(ChangePlan {
        title: "Take the alert in again".to_owned(),
        facts: vec![
            ("From", line.sender),
            (
                "Pipeline",
                if line.pipeline.is_empty() { "that which the alert names".to_owned() } else { line.pipeline },
            ),
            ("Last received", line.when.exact),
            ("Size", count(alert.size, "byte")),
        ],
        warnings,
        concerned: line.faults.into_iter().map(|(pointer, detail)| format!("{pointer} {detail}")).collect(),
        action: format!("/alerts/rejected/{}/resend", segment(id)),
        button: "Take it in again",
        back: format!("/alerts/rejected/{}", segment(id)),
        ..ChangePlan::default()
    })
}

/// Sends it again.
pub(super) async fn resend(session: Session, Path(id): Path<String>, _: SentForm) -> PageResult {
    let path = format!("/v1/rejected/{}/resend", segment(&id));
    let sent = session.api.send(Method::POST, &path, None, NO_BODY).await;
    match sent.and_then(|answer| answer.read::<Intake>()) {
        Ok(intake) => {
            let responses = count(i64::try_from(intake.responses.len()).unwrap_or(i64::MAX), "response");
            let what = if intake.accepted > 0 { "The alert was taken in" } else { "The alert was known already" };
            Ok(session.done("/alerts/rejected", &format!("{what}: {responses}.")))
        }
        Err(trouble) => {
            let plan = plan(&session, &id).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}
