//! One's own account: keys, password, one-time codes, and the session.

use askama::Template;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect};

use super::client::{NO_BODY, Trouble};
use super::format::coming;
use super::keys::{KeyLine, line};
use super::page::{PageResult, html, with_status};
use super::plan::{ChangePlan, PlanField};
use super::scope_text::scope_text;
use super::session::{Cookies, SentForm, Session};
use super::shell::Shell;
use crate::domain::right::Right;
use crate::views::auth::{ChangePassword, NewTotp, TotpCode};
use crate::views::keys::KeyView;
use crate::views::page::Page;

const SECTION: &str = "/account";

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    facts: Vec<(&'static str, String)>,
    keys: Vec<KeyLine>,
    base: &'static str,
    has_codes: bool,
    may_have_keys: bool,
    has_more: bool,
}

/// The page.
pub(super) async fn page(session: Session) -> PageResult {
    let who = &session.who;
    let may_have_keys = session.may(Right::OwnKeys);
    // An administrator is answered with the keys of all.
    let (mut keys, mut has_more) = (Vec::new(), false);
    if may_have_keys {
        let page: Page<KeyView> = session.api.get("/v1/api-keys?limit=500").await?;
        has_more = page.next_cursor.is_some();
        let own = page.items.iter().filter(|view| view.key.user.as_deref() == Some(who.name.as_str()));
        keys.extend(own.map(|view| line(&session, view)));
        keys.sort_by_key(|key: &KeyLine| !key.is_live);
    }
    let mut facts = vec![
        ("Name", who.name.clone()),
        ("Role", who.role.as_str().to_owned()),
        ("Rights", who.rights.join(", ").replace('_', " ")),
    ];
    for scope in &who.scopes {
        facts.push(("Limited to", scope_text(scope)));
    }
    if let Some(at) = who.expires_at {
        facts.push(("Session ends in", coming(at.into(), session.now()).words));
    }
    facts.push(("Your address", who.address.clone()));
    let page = AccountPage {
        shell: session.shell("Account", SECTION, "").await?,
        facts,
        keys,
        base: "/account/keys",
        has_codes: has_codes(&session),
        may_have_keys,
        has_more,
    };
    html(&page)
}

/// Whether the person's logins need a one-time code.
fn has_codes(session: &Session) -> bool {
    let users = session.console.engine.users.load();
    users.values().any(|stored| stored.user.name == session.who.name && stored.user.has_totp)
}

fn password_plan(session: &Session) -> ChangePlan {
    let secret = |name, label| PlanField { kind: "password", ..PlanField::text(name, label, "") };
    let mut fields = vec![secret("password", "Current password")];
    if has_codes(session) {
        fields.push(PlanField::text("totp", "One-time code of six digits", ""));
    }
    fields.push(PlanField { hint: "12 characters or more.", ..secret("new_password", "New password") });
    ChangePlan {
        title: "Change your password".to_owned(),
        warnings: vec!["All your sessions end, also this one: you log in again with the new password.".to_owned()],
        stays: vec!["Your keys stay valid.".to_owned()],
        fields,
        action: "/account/password".to_owned(),
        button: "Change the password",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// The form of a new password.
pub(super) async fn ask_password(session: Session) -> PageResult {
    let plan = password_plan(&session);
    session.plan(SECTION, plan).await
}

/// Changes the password, and asks for a login.
pub(super) async fn password(session: Session, form: SentForm) -> PageResult {
    let body = ChangePassword {
        username: session.who.name.clone(),
        password: form.get("password").to_owned(),
        totp: form.given("totp").map(str::to_owned),
        new_password: form.get("new_password").to_owned(),
    };
    match session.api.send(Method::POST, "/v1/auth/password", None, Some(&body)).await {
        Ok(_) => {
            let mut response = Redirect::to("/login").into_response();
            Cookies::new(session.console.is_tls).end(&mut response);
            Ok(response)
        }
        Err(trouble) => {
            let plan = password_plan(&session);
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

#[derive(Template)]
#[template(path = "codes.html")]
struct CodesPage {
    shell: Shell,
    secret: String,
    uri: String,
    fault: Option<String>,
}

fn codes_plan() -> ChangePlan {
    ChangePlan {
        title: "Set up one-time codes".to_owned(),
        warnings: vec![
            "A secret is shown once, for an authenticator program. Logins need a code only after you have confirmed one."
                .to_owned(),
        ],
        action: "/account/codes".to_owned(),
        button: "Make a secret",
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// What one-time codes are.
pub(super) async fn ask_codes(session: Session) -> PageResult {
    session.plan(SECTION, codes_plan()).await
}

/// Makes a secret.
pub(super) async fn codes(session: Session, _: SentForm) -> PageResult {
    let made = session.api.send(Method::POST, "/v1/auth/totp", None, NO_BODY).await;
    match made.and_then(|answer| answer.read::<NewTotp>()) {
        Ok(NewTotp { secret, otpauth_uri }) => show_codes(&session, secret, otpauth_uri, None).await,
        Err(trouble) => session.refused(SECTION, codes_plan(), &trouble).await,
    }
}

async fn show_codes(session: &Session, secret: String, uri: String, trouble: Option<&Trouble>) -> PageResult {
    let shell = session.shell("Set up one-time codes", SECTION, "").await?;
    let status = trouble.map_or(StatusCode::OK, Trouble::status);
    with_status(status, &CodesPage { shell, secret, uri, fault: trouble.map(ToString::to_string) })
}

/// Confirms the secret by a code. After a wrong code the same secret is shown again.
pub(super) async fn confirm_codes(session: Session, form: SentForm) -> PageResult {
    let body = TotpCode { code: form.get("code").trim().to_owned() };
    match session.api.send(Method::POST, "/v1/auth/totp/confirm", None, Some(&body)).await {
        Ok(_) => Ok(session.done(SECTION, "From now on your logins need a one-time code.")),
        Err(trouble) => {
            show_codes(&session, form.get("secret").to_owned(), form.get("uri").to_owned(), Some(&trouble)).await
        }
    }
}

fn remove_plan() -> ChangePlan {
    ChangePlan {
        title: "Remove one-time codes".to_owned(),
        warnings: vec!["Logins then need the password alone.".to_owned()],
        fields: vec![PlanField {
            hint: "If you have lost the device, an administrator can reset your password and remove them.",
            ..PlanField::text("code", "One-time code of six digits", "")
        }],
        action: "/account/codes/remove".to_owned(),
        button: "Remove them",
        is_dangerous: true,
        back: SECTION.to_owned(),
        ..ChangePlan::default()
    }
}

/// The form that ends the need of codes.
pub(super) async fn ask_remove_codes(session: Session) -> PageResult {
    session.plan(SECTION, remove_plan()).await
}

/// Ends the need of codes, with one more of them.
pub(super) async fn remove_codes(session: Session, form: SentForm) -> PageResult {
    let body = TotpCode { code: form.get("code").trim().to_owned() };
    match session.api.send(Method::DELETE, "/v1/auth/totp", None, Some(&body)).await {
        Ok(_) => Ok(session.done(SECTION, "Your logins need no one-time code any more.")),
        Err(trouble) => session.refused(SECTION, remove_plan(), &trouble).await,
    }
}
