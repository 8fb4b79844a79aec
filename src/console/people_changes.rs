//! Changes of people, each with its plan: adding one, role and limits, a temporary password, deletion,
//! and forgetting a person who was deleted.

use axum::extract::Path;
use axum::http::Method;

use super::client::{NO_BODY, Trouble};
use super::page::{PageFailure, PageResult};
use super::paths::segment;
use super::people::SECTION;
use super::plan::{ChangePlan, PlanField};
use super::scope_text::{ROLES, SCOPE_HINT, read_role, read_scope, scope_text};
use super::session::{SentForm, Session};
use crate::views::users::{ChangeUser, CreateUser, CreatedUser, ForgottenUser, NewPassword, ResetPassword, UserRow};

const STATES: [(&str, &str); 2] = [("no", "can log in"), ("yes", "disabled: cannot log in")];

fn api_path(name: &str) -> String {
    format!("/v1/users/{}", segment(name))
}

async fn find(session: &Session, name: &str) -> Result<UserRow, PageFailure> {
    Ok(session.api.get(&api_path(name)).await?)
}

fn add_plan(name: &str, role: &str, scope: &str) -> ChangePlan {
    ChangePlan {
        title: "Add a person".to_owned(),
        warnings: vec![
            "A temporary password is shown once. The person chooses another one at the first login.".to_owned(),
            "A name is given once: it cannot be used again, even after the person was deleted.".to_owned(),
        ],
        fields: vec![
            PlanField {
                hint: "Lower case letters, digits, '.', '_' and '-'.",
                ..PlanField::text("name", "Login name", name)
            },
            PlanField::select("role", "Role", role, &ROLES),
            PlanField::optional("scope", "Limited to", scope, SCOPE_HINT),
        ],
        action: "/people/new".to_owned(),
        button: "Add the person",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// The form of a new person.
pub(super) async fn ask_add(session: Session) -> PageResult {
    session.plan(SECTION, add_plan("", "viewer", "")).await
}

/// Adds a person.
pub(super) async fn add(session: Session, form: SentForm) -> PageResult {
    match create(&session, &form).await {
        Ok(CreatedUser { user, temporary_password: Some(password) }) => {
            let about = format!("{} can log in as {} with this password.", user.name, user.role.as_str());
            let secrets = vec![("Temporary password", password)];
            session.shown_once(SECTION, format!("{} was added", user.name), about, secrets, SECTION).await
        }
        Ok(created) => Ok(session.done(SECTION, &format!("{} was added.", created.user.name))),
        Err(trouble) => {
            let plan = add_plan(form.get("name"), form.get("role"), form.get("scope"));
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

async fn create(session: &Session, form: &SentForm) -> Result<CreatedUser, Trouble> {
    let person = CreateUser {
        name: form.get("name").trim().to_owned(),
        role: read_role(form.get("role"))?,
        password: None,
        scope: read_scope(form.get("scope"))?,
    };
    session.api.post("/v1/users", &person).await
}

/// The form of a person's role and limits.
pub(super) async fn ask_change(session: Session, Path(name): Path<String>) -> PageResult {
    let user = find(&session, &name).await?;
    let disabled = if user.disabled_at.is_some() { "yes" } else { "no" };
    let plan = change_plan(&user, user.role.as_str(), disabled, &scope_text(&user.scope));
    session.plan(SECTION, plan).await
}

fn change_plan(user: &UserRow, role: &str, disabled: &str, scope: &str) -> ChangePlan {
    // Another person may have changed any of them since the form was opened.
    let limits = scope_text(&user.scope);
    ChangePlan {
        title: format!("Change {}", user.name),
        facts: vec![
            ("Role now", user.role.as_str().to_owned()),
            ("State now", STATES[usize::from(user.disabled_at.is_some())].1.to_owned()),
            ("Limited to now", if limits.is_empty() { "nothing".to_owned() } else { limits }),
        ],
        warnings: vec!["Disabling ends the person's sessions and stops the person's keys at once.".to_owned()],
        fields: vec![
            PlanField::hidden("version", &user.version.to_string()),
            PlanField::select("role", "Role", role, &ROLES),
            PlanField::select("disabled", "State", disabled, &STATES),
            PlanField::optional("scope", "Limited to", scope, SCOPE_HINT),
        ],
        action: format!("/people/{}/change", segment(&user.name)),
        button: "Change",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// Changes a person.
pub(super) async fn change(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    match send_change(&session, &name, &form).await {
        Ok(()) => Ok(session.done(SECTION, &format!("{name} was changed."))),
        Err(trouble) => {
            let user = find(&session, &name).await?;
            let plan = change_plan(&user, form.get("role"), form.get("disabled"), form.get("scope"));
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

async fn send_change(session: &Session, name: &str, form: &SentForm) -> Result<(), Trouble> {
    let change = ChangeUser {
        role: Some(read_role(form.get("role"))?),
        is_disabled: Some(form.get("disabled") == "yes"),
        // An empty object takes all limits away.
        scope: Some(read_scope(form.get("scope"))?.unwrap_or_else(|| serde_json::json!({}))),
    };
    let version = form.get("version").parse().ok();
    session.api.send(Method::PATCH, &api_path(name), version, Some(&change)).await.map(|_| ())
}

/// What a temporary password means.
pub(super) async fn ask_password(session: Session, Path(name): Path<String>) -> PageResult {
    let plan = password_plan(&find(&session, &name).await?);
    session.plan(SECTION, plan).await
}

fn password_plan(user: &UserRow) -> ChangePlan {
    let mut fields = Vec::new();
    if user.has_totp {
        let label = "Also remove the one-time codes, for a person who lost the device";
        fields.push(PlanField { kind: "checkbox", is_required: false, ..PlanField::text("remove_totp", label, "") });
    }
    ChangePlan {
        title: format!("Reset the password of {}", user.name),
        warnings: vec![
            "A temporary password is shown once, and must be changed at the next login.".to_owned(),
            "All sessions of the person end, and lock-outs after failed logins too.".to_owned(),
        ],
        fields,
        action: format!("/people/{}/password", segment(&user.name)),
        button: "Reset the password",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// Sets a temporary password.
pub(super) async fn password(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    let body = ResetPassword { remove_totp: form.get("remove_totp") == "yes" };
    match session.api.post::<NewPassword>(&format!("{}/reset-password", api_path(&name)), &body).await {
        Ok(NewPassword { temporary_password }) => {
            let about = format!("{name} logs in with this password, and then chooses another one.");
            let secrets = vec![("Temporary password", temporary_password)];
            session.shown_once(SECTION, format!("New password of {name}"), about, secrets, SECTION).await
        }
        Err(trouble) => {
            let plan = password_plan(&find(&session, &name).await?);
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

/// What a deletion means.
pub(super) async fn ask_delete(session: Session, Path(name): Path<String>) -> PageResult {
    let plan = delete_plan(&find(&session, &name).await?);
    session.plan(SECTION, plan).await
}

fn delete_plan(user: &UserRow) -> ChangePlan {
    ChangePlan {
        title: format!("Delete {}", user.name),
        facts: vec![("Role", user.role.as_str().to_owned())],
        warnings: vec![
            "The person can never log in again, and the name is never given again.".to_owned(),
            "All sessions end, and all personal keys stop.".to_owned(),
        ],
        stays: vec![
            "Responses and policies of the person stay.".to_owned(),
            "The audit log keeps the name, until the person is forgotten.".to_owned(),
        ],
        action: format!("/people/{}/delete", segment(&user.name)),
        button: "Delete the person",
        is_dangerous: true,
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// Deletes a person.
pub(super) async fn delete(session: Session, Path(name): Path<String>, _: SentForm) -> PageResult {
    match session.api.send(Method::DELETE, &api_path(&name), None, NO_BODY).await {
        Ok(_) => Ok(session.done(SECTION, &format!("{name} was deleted."))),
        Err(trouble) => {
            let plan = delete_plan(&find(&session, &name).await?);
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

/// What forgetting means.
pub(super) async fn ask_forget(session: Session, Path(name): Path<String>) -> PageResult {
    let plan = forget_plan(&find(&session, &name).await?);
    session.plan(SECTION, plan).await
}

fn forget_plan(user: &UserRow) -> ChangePlan {
    ChangePlan {
        title: format!("Forget {}", user.name),
        warnings: vec![
            "A pseudonym takes the place of the name, and texts of the audit log that can name the person are removed. This \
             cannot be undone."
                .to_owned(),
        ],
        stays: vec!["The audit log stays verifiable, and says that texts were removed.".to_owned()],
        action: format!("/people/{}/forget", segment(&user.name)),
        button: "Forget the person",
        is_dangerous: true,
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// Forgets a deleted person.
pub(super) async fn forget(session: Session, Path(name): Path<String>, _: SentForm) -> PageResult {
    let sent = session.api.send(Method::POST, &format!("{}/forget", api_path(&name)), None, NO_BODY).await;
    match sent.and_then(|answer| answer.read::<ForgottenUser>()) {
        Ok(ForgottenUser { pseudonym }) => {
            Ok(session.done(SECTION, &format!("The person was forgotten, and is now called {pseudonym}.")))
        }
        Err(trouble) => {
            let plan = forget_plan(&find(&session, &name).await?);
            session.refused(SECTION, plan, &trouble).await
        }
    }
}
