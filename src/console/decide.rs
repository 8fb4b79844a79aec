//! Approving, rejecting, confirming and lifting responses, each with its plan.

use axum::extract::{Path, Query};
use serde::Deserialize;
use serde::Serialize;

use super::client::Trouble;
use super::format::{coming, count};
use super::page::{PageFailure, PageResult};
use super::paths::segment;
use super::plan::{ChangePlan, PlanField};
use super::responses::Line;
use super::session::{SentForm, Session};
use super::words;
use crate::domain::response::ResponseState;
use crate::views::responses::{ApproveResponse, Lift, ResponseView, Say};

const SECTION: &str = "/responses";
/// Agents named in a plan.
const NAMED: usize = 40;

/// What a person decides on one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Approve,
    Reject,
    Confirm,
    Lift,
}

impl Choice {
    const fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Confirm => "confirm",
            Self::Lift => "lift",
        }
    }

    const fn button(self) -> &'static str {
        match self {
            Self::Approve => "Approve",
            Self::Reject => "Reject",
            Self::Confirm => "Confirm",
            Self::Lift => "Lift",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Approve => "Approved.",
            Self::Reject => "Rejected: nothing is carried out.",
            Self::Confirm => "Confirmed: it stays.",
            Self::Lift => "Lifted: what no other response holds is being reverted on every agent.",
        }
    }
}

/// What was typed before, when a form is shown again.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Typed {
    reason: String,
}

macro_rules! choices {
    ($($(#[$doc:meta])* $ask:ident, $act:ident => $choice:ident;)*) => {
        $(
            $(#[$doc])*
            pub(super) async fn $ask(session: Session, Path(id): Path<String>, Query(typed): Query<Typed>) -> PageResult {
                ask(&session, Choice::$choice, &id, &typed.reason).await
            }

            $(#[$doc])*
            pub(super) async fn $act(session: Session, Path(id): Path<String>, form: SentForm) -> PageResult {
                act(&session, Choice::$choice, &id, &form).await
            }
        )*
    };
}

choices! {
    /// Lets a response that waits act.
    ask_approve, approve => Approve;
    /// Ends a response that waits.
    ask_reject, reject => Reject;
    /// Lets a response stay that acted first.
    ask_confirm, confirm => Confirm;
    /// Ends a response.
    ask_lift, lift => Lift;
}

async fn ask(session: &Session, choice: Choice, id: &str, reason: &str) -> PageResult {
    let plan = plan(session, choice, id, reason).await?;
    session.plan(SECTION, plan).await
}

async fn plan(session: &Session, choice: Choice, id: &str, reason: &str) -> Result<ChangePlan, PageFailure> {
    let id = segment(id);
    let view: ResponseView = session.api.get(&format!("/v1/responses/{id}")).await?;
    let line = session.line(&view.response);
    let response = &view.response.response;
    let ids: Vec<String> = response.agents.read().unwrap_or_default();
    let mut facts = vec![
        ("Action", line.action.clone()),
        ("Target", line.aim.clone()),
        ("By", line.by.clone()),
        ("Agents", count(i64::try_from(ids.len()).unwrap_or(i64::MAX), "agent")),
        ("State", line.badge.words.clone()),
    ];
    if let Some(by) = response.answer_by.filter(|_| choice != Choice::Lift) {
        facts.push(("Decided for you in", coming(by, session.now()).words));
    }
    let (mut warnings, stays) = (Vec::new(), Vec::new());
    if choice == Choice::Lift {
        warnings.push("Effects that another response holds stay in force until that one ends.".to_owned());
    }
    if choice == Choice::Reject {
        warnings.push("One rejection ends the response.".to_owned());
    }
    let mut concerned: Vec<String> = ids.iter().take(NAMED).map(|id| session.agent(id)).collect();
    if ids.len() > NAMED {
        concerned.push(format!("and {} more", ids.len() - NAMED));
    }
    Ok(ChangePlan {
        title: format!("{} {} {}", choice.button(), response.action, words::aim(response)),
        facts,
        warnings,
        concerned,
        stays,
        fields: vec![PlanField::reason(reason)],
        action: format!("/responses/{id}/{}", choice.word()),
        button: choice.button(),
        is_dangerous: false,
        back: format!("/responses/{id}"),
        ..ChangePlan::default()
    })
}

async fn act(session: &Session, choice: Choice, id: &str, form: &SentForm) -> PageResult {
    let reason = form.get("reason").to_owned();
    let path = format!("/v1/responses/{}/{}", segment(id), choice.word());
    let before: ResponseView = session.api.get(&format!("/v1/responses/{}", segment(id))).await?;
    let was_active = before.response.response.state == ResponseState::Active;
    let sent = match choice {
        Choice::Approve => send(session, &path, &ApproveResponse { reason, break_glass: false }).await,
        Choice::Reject | Choice::Confirm => send(session, &path, &Say { reason }).await,
        Choice::Lift => send(session, &path, &Lift { reason }).await,
    };
    match sent {
        Ok(view) => {
            let Line { action, aim, .. } = session.line(&view.response);
            let place = match choice {
                Choice::Approve | Choice::Reject => "/waiting".to_owned(),
                Choice::Confirm | Choice::Lift => format!("/responses/{}", segment(id)),
            };
            let said = match view.response.response.state {
                ResponseState::AwaitingApproval => "Your approval counts; it waits for further people.",
                ResponseState::Ended if choice == Choice::Lift && !was_active => "It had ended already.",
                _ => choice.done(),
            };
            Ok(session.done(&place, &format!("{action} {aim}: {said}")))
        }
        Err(trouble) => {
            let plan = plan(session, choice, id, form.get("reason")).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

async fn send(session: &Session, path: &str, body: &impl Serialize) -> Result<ResponseView, Trouble> {
    session.api.post(path, body).await
}
