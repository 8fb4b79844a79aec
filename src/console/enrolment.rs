//! Enrolment of agents: tokens, and the command for the hosts, which shows a token once.

use askama::Template;
use axum::extract::Path;
use axum::http::Method;

use super::client::{NO_BODY, Trouble};
use super::format::{Moment, coming, count};
use super::labels;
use super::page::{PageResult, html};
use super::paths::segment;
use super::plan::{ChangePlan, PlanField};
use super::session::{SentForm, Session};
use super::shell::Shell;
use crate::views::agents::{CreateToken, CreatedToken, TokenRow};
use crate::views::page::Page;

/// The section of the navigation, and the list of agents.
pub(super) const SECTION: &str = "/agents";

/// A token in the list.
pub(super) struct Token {
    pub(super) id: String,
    pub(super) labels: String,
    pub(super) left: String,
    pub(super) until: Moment,
    pub(super) by: String,
}

/// The tokens with which hosts can enrol.
///
/// # Errors
/// If the API refuses.
pub(super) async fn tokens(session: &Session) -> Result<Vec<Token>, Trouble> {
    let page: Page<TokenRow> = session.api.get("/v1/enrollment-tokens?limit=50").await?;
    let live = page.items.into_iter().map(|row| Token {
        labels: labels::shown(row.labels.read().unwrap_or_default()),
        left: format!("{} of {}", row.uses_left, row.uses),
        until: coming(row.expires_at, session.now()),
        by: session.actor(&row.created_by),
        id: row.id,
    });
    Ok(live.collect())
}

/// The form of an enrolment token.
pub(super) async fn ask_enrol(session: Session) -> PageResult {
    session.plan(SECTION, enrolment("", "1", "1h")).await
}

fn enrolment(labels: &str, uses: &str, expires_in: &str) -> ChangePlan {
    ChangePlan {
        title: "Enrol agents".to_owned(),
        fields: vec![
            PlanField::optional("labels", "Labels for these agents", labels, "Such as env=prod, role=web."),
            PlanField::text("uses", "How many agents", uses),
            PlanField { hint: "Such as 1h or 7d.", ..PlanField::text("expires_in", "Valid for", expires_in) },
        ],
        action: "/agents/enrol".to_owned(),
        button: "Make the token",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

#[derive(Template)]
#[template(path = "enrolled.html")]
struct TokenPage {
    shell: Shell,
    token: String,
    manager: String,
    until: String,
    uses: String,
}

/// Makes a token, and shows the command for the hosts. The token is shown once.
pub(super) async fn enrol(session: Session, form: SentForm) -> PageResult {
    let (labels, uses, expires_in) = (form.get("labels"), form.get("uses"), form.get("expires_in"));
    let made = match token_request(labels, uses, expires_in) {
        Ok(request) => session.api.post::<CreatedToken>("/v1/enrollment-tokens", &request).await,
        Err(why) => Err(Trouble::Mistyped(why)),
    };
    match made {
        Ok(made) => {
            let manager = session.console.engine.public_url.trim_end_matches('/').to_owned();
            let shell = session.shell("Enrol agents", SECTION, "").await?;
            html(&TokenPage {
                shell,
                token: made.token.unwrap_or_default(),
                manager: if manager.is_empty() { session.origin() } else { manager },
                until: made.expires_at.to_string(),
                uses: count(uses.trim().parse().unwrap_or(1), "agent"),
            })
        }
        Err(trouble) => session.refused(SECTION, enrolment(labels, uses, expires_in), &trouble).await,
    }
}

fn token_request(labels: &str, uses: &str, expires_in: &str) -> Result<CreateToken, String> {
    Ok(CreateToken {
        labels: labels::read(labels)?.into_iter().collect(),
        uses: uses.trim().parse().map_err(|_| format!("{} is no number of agents", uses.trim()))?,
        expires_in: expires_in.trim().parse().map_err(|error| format!("the duration {} {error}", expires_in.trim()))?,
    })
}

/// Shows what the end of a token means.
pub(super) async fn ask_delete_token(session: Session, Path(id): Path<String>) -> PageResult {
    session.plan(SECTION, token_end(&id)).await
}

fn token_end(id: &str) -> ChangePlan {
    ChangePlan {
        title: "Delete the enrolment token".to_owned(),
        warnings: vec!["No host enrols with it any more. Agents that have enrolled with it stay.".to_owned()],
        action: format!("/agents/tokens/{}/delete", segment(id)),
        button: "Delete",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// Deletes a token.
pub(super) async fn delete_token(session: Session, Path(id): Path<String>, _: SentForm) -> PageResult {
    let path = format!("/v1/enrollment-tokens/{}", segment(&id));
    match session.api.send(Method::DELETE, &path, None, NO_BODY).await {
        Ok(_) => Ok(session.done(SECTION, "The token is deleted.")),
        Err(trouble) => session.refused(SECTION, token_end(&id), &trouble).await,
    }
}
