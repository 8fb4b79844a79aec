//! The freeze: what it holds back, and the switch.

use super::format::{count, past};
use super::page::{PageFailure, PageResult};
use super::plan::{ChangePlan, PlanField};
use super::session::{SentForm, Session};
use crate::domain::right::Right;
use crate::views::freeze::{Freeze, SetFreeze};

use axum::http::Method;

/// Shows what is held back, and what the switch does.
pub(super) async fn ask(session: Session) -> PageResult {
    let plan = plan(&session, "").await?;
    session.plan("/", plan).await
}

async fn plan(session: &Session, reason: &str) -> Result<ChangePlan, PageFailure> {
    let Freeze { frozen, held_back, last_change } = session.api.get("/v1/freeze").await?;
    let mut facts = vec![("Now", if frozen { "frozen" } else { "commands are delivered" }.to_owned())];
    if frozen {
        facts.push(("Held back", count(held_back, "command")));
    }
    if let Some(change) = last_change {
        let when = past(change.changed_at, session.now()).words;
        let what = if change.frozen { "frozen" } else { "resumed" };
        facts.push((
            "Last change",
            format!("{what} by {}, {when}: {}", session.actor(&change.changed_by), change.reason),
        ));
    }
    let warning = if frozen {
        "What is held back is delivered at once, except what has expired meanwhile."
    } else {
        "No agent gets any new command. Blocks that are in force stay, and end on time: reverts are always delivered. \
         Alerts are still taken in and decided."
    };
    let may = session.may(Right::Respond) && session.who.scopes.is_empty();
    let state = if frozen { "false" } else { "true" };
    Ok(ChangePlan {
        title: if frozen { "Resume deliveries" } else { "Freeze all deliveries" }.to_owned(),
        facts,
        warnings: vec![warning.to_owned()],
        fields: vec![PlanField::hidden("frozen", state), PlanField::reason(reason)],
        action: "/freeze".to_owned(),
        button: if frozen { "Resume" } else { "Freeze" },
        is_dangerous: !frozen,
        is_empty: !may,
        back: "/".to_owned(),
        ..ChangePlan::default()
    })
}

/// Switches.
pub(super) async fn act(session: Session, form: SentForm) -> PageResult {
    let change = SetFreeze { frozen: form.get("frozen") == "true", reason: form.get("reason").to_owned() };
    match session.api.send(Method::PUT, "/v1/freeze", None, Some(&change)).await {
        Ok(_) if change.frozen => Ok(session.done("/", "Frozen: no command but a revert is delivered.")),
        Ok(_) => Ok(session.done("/", "Resumed: what was held back is delivered.")),
        Err(trouble) => {
            let plan = plan(&session, &change.reason).await?;
            session.refused("/", plan, &trouble).await
        }
    }
}
