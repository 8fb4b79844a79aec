//! The page before each change: what will happen, where, how much, what stays and why; then the
//! reason, and the button. With a script it opens over the page that it was asked from, without one
//! it is a page of its own.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::client::Trouble;
use super::page::{PageFailure, html, with_status};
use super::session::Session;
use super::shell::Shell;
use crate::domain::right::Right;

/// Rights that forms need, by the beginning and the end of their addresses; the first that fits counts.
const NEEDS: [(&str, &str, Right); 11] = [
    ("/agents/", "", Right::ManageAgents),
    ("/alerts/", "", Right::Ingest),
    ("/block", "", Right::Respond),
    ("/freeze", "", Right::Respond),
    ("/integrations/", "", Right::Administer),
    ("/lift", "", Right::Respond),
    ("/people/", "", Right::Administer),
    ("/policies/", "", Right::WritePolicies),
    ("/protected/", "", Right::WritePolicies),
    ("/responses/", "/lift", Right::Respond),
    ("/responses/", "", Right::Approve),
];

/// A field of the form.
#[derive(Clone, Debug, Default)]
pub(super) struct PlanField {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) hint: &'static str,
    /// `text`, `password`, `hidden`, `textarea`, `checkbox` or `select`.
    pub(super) kind: &'static str,
    pub(super) is_required: bool,
    /// Choices of a `select`.
    pub(super) choices: Vec<(String, String)>,
}

impl PlanField {
    /// A field of one line.
    pub(super) fn text(name: &'static str, label: &'static str, value: &str) -> Self {
        Self { name, label, value: value.to_owned(), kind: "text", is_required: true, ..Self::default() }
    }

    /// A field that may stay empty.
    pub(super) fn optional(name: &'static str, label: &'static str, value: &str, hint: &'static str) -> Self {
        Self { is_required: false, hint, ..Self::text(name, label, value) }
    }

    /// A value that goes with the form and is not shown.
    pub(super) fn hidden(name: &'static str, value: &str) -> Self {
        Self { name, value: value.to_owned(), kind: "hidden", ..Self::default() }
    }

    /// One of several values.
    pub(super) fn select(name: &'static str, label: &'static str, value: &str, choices: &[(&str, &str)]) -> Self {
        let choices = choices.iter().map(|(value, words)| ((*value).to_owned(), (*words).to_owned())).collect();
        Self { choices, kind: "select", ..Self::text(name, label, value) }
    }

    /// The reason, which the audit log keeps.
    pub(super) fn reason(value: &str) -> Self {
        Self { kind: "textarea", hint: "The audit log keeps it.", ..Self::text("reason", "Reason", value) }
    }
}

/// What a change would do.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangePlan {
    pub(super) title: String,
    /// Name and value: what, where, how many, until when.
    pub(super) facts: Vec<(&'static str, String)>,
    /// What needs attention before the button is pressed.
    pub(super) warnings: Vec<String>,
    /// What is concerned, one a line.
    pub(super) concerned: Vec<String>,
    /// What stays, and why.
    pub(super) stays: Vec<String>,
    pub(super) fields: Vec<PlanField>,
    /// Where the form goes.
    pub(super) action: String,
    pub(super) button: &'static str,
    /// Whether the change cannot be undone, or takes protection away.
    pub(super) is_dangerous: bool,
    /// Where the person goes back to.
    pub(super) back: String,
    /// Why the change was not made, after a form was sent.
    pub(super) fault: Option<String>,
    /// Whether there is nothing that could be done.
    pub(super) is_empty: bool,
}

/// The right that a form needs, by its address; `None`: every person has it.
fn right(action: &str) -> Option<Right> {
    let fits = |(begin, end, _): &&(&str, &str, Right)| action.starts_with(begin) && action.ends_with(end);
    NEEDS.iter().find(fits).map(|(_, _, right)| *right)
}

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    shell: Shell,
    plan: ChangePlan,
}

impl Session {
    /// Shows a plan, in a section of the navigation.
    ///
    /// # Errors
    /// If the frame cannot be made.
    pub(super) async fn plan(&self, section: &str, plan: ChangePlan) -> Result<Response, PageFailure> {
        let shell = self.shell(plan.title.clone(), section, "").await?;
        let plan = self.within_rights(plan);
        html(&PlanPage { shell, plan })
    }

    /// The plan, without its form if the person's role lacks the right.
    fn within_rights(&self, mut plan: ChangePlan) -> ChangePlan {
        if right(&plan.action).is_some_and(|right| !self.may(right)) {
            plan.warnings.push(format!("Your role, {}, may look at this and not do it.", self.who.role.as_str()));
            plan.is_empty = true;
        }
        plan
    }

    /// Shows the plan again with what was typed, and why the change was not made.
    ///
    /// # Errors
    /// If the frame cannot be made.
    pub(super) async fn refused(
        &self,
        section: &str,
        plan: ChangePlan,
        trouble: &Trouble,
    ) -> Result<Response, PageFailure> {
        let status = trouble.status();
        let shell = self.shell(plan.title.clone(), section, "").await?;
        let plan = ChangePlan { fault: Some(trouble.to_string()), ..self.within_rights(plan) };
        let status = if status.is_client_error() { status } else { StatusCode::SERVICE_UNAVAILABLE };
        with_status(status, &PlanPage { shell, plan })
    }
}
