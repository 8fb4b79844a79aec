//! API keys: those of programs, which administrators manage, and one's own. A secret is shown once.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Method;
use serde::Deserialize;

use super::client::{NO_BODY, Trouble};
use super::format::{Moment, coming, past};
use super::page::{PageFailure, PageResult, html};
use super::paths::{segment, with_query};
use super::plan::{ChangePlan, PlanField};
use super::scope_text::{KEY_ROLES, ROLES, SCOPE_HINT, mistyped, read_role, read_scope, scope_text};
use super::session::{SentForm, Session};
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::duration::Span;
use crate::views::keys::{CreateKey, CreatedKey, KeyKind, KeyView};
use crate::views::page::Page;

const SECTION: &str = "/people";
/// Keys on a page.
const LISTED: &str = "200";
/// Pages that are looked through for one key: 10,000 keys.
const MOST_PAGES: usize = 20;

/// The page of the list, or what a form begins with, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeysQuestion {
    cursor: String,
    role: String,
}

/// A key.
pub(super) struct KeyLine {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: &'static str,
    /// The person or the pipeline whose it is.
    pub(super) whose: String,
    pub(super) badges: Vec<Badge>,
    pub(super) scope: String,
    pub(super) used: Option<Moment>,
    pub(super) from: String,
    pub(super) expires: Option<Moment>,
    pub(super) is_live: bool,
}

/// A key as a list shows it.
pub(super) fn line(session: &Session, view: &KeyView) -> KeyLine {
    let (key, now) = (&view.key, session.now());
    let is_over = key.expires_at.is_some_and(|at| riposte_protocol::time::Timestamp::from(at) <= now);
    let mut badges = vec![match (key.revoked_at.is_some(), is_over) {
        (true, _) => Badge::new(StateTone::Plain, "revoked"),
        (false, true) => Badge::new(StateTone::Plain, "expired"),
        (false, false) => Badge::new(StateTone::Good, "valid"),
    }];
    if view.expires_soon && !is_over {
        badges.push(Badge::new(StateTone::Warn, "expires soon"));
    }
    if key.is_webhook {
        badges.push(Badge::new(StateTone::Plain, "signs requests"));
    }
    if key.certificate.is_some() {
        badges.push(Badge::new(StateTone::Plain, "client certificate"));
    }
    let whose = match (&key.user, &key.pipeline) {
        (Some(user), _) => user.clone(),
        (None, Some(pipeline)) => format!("pipeline {pipeline}"),
        (None, None) => "a program".to_owned(),
    };
    KeyLine {
        id: key.id.clone(),
        name: key.name.clone(),
        role: key.role.as_str(),
        whose,
        badges,
        scope: scope_text(&key.scope),
        used: key.last_used_at.map(|at| past(at, now)),
        from: key.last_used_from.clone().unwrap_or_default(),
        expires: key.expires_at.map(|at| coming(at, now)),
        is_live: key.revoked_at.is_none() && !is_over,
    }
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    shell: Shell,
    keys: Vec<KeyLine>,
    /// Where the forms are.
    base: &'static str,
    next: Option<String>,
}

/// The list for administrators.
pub(super) async fn list(session: Session, Query(asked): Query<KeysQuestion>) -> PageResult {
    let path = with_query("/v1/api-keys", [("limit", LISTED), ("cursor", asked.cursor.as_str())]);
    let page: Page<KeyView> = session.api.get(&path).await?;
    let next = page.next_cursor.as_deref().map(|cursor| with_query("/people/keys", [("cursor", cursor)]));
    let mut keys: Vec<KeyLine> = page.items.iter().map(|view| line(&session, view)).collect();
    keys.sort_by_key(|key| !key.is_live);
    let shell = session.shell("API keys", SECTION, "").await?;
    html(&KeysPage { shell, keys, base: Whose::Program.base(), next })
}

/// Whose keys a form is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Program,
    Own,
}

impl Whose {
    const fn base(self) -> &'static str {
        match self {
            Self::Program => "/people/keys",
            Self::Own => "/account/keys",
        }
    }

    /// Where the keys are listed.
    const fn back(self) -> &'static str {
        match self {
            Self::Program => "/people/keys",
            Self::Own => "/account",
        }
    }

    const fn section(self) -> &'static str {
        match self {
            Self::Program => SECTION,
            Self::Own => "/account",
        }
    }
}

/// What was typed in the form of a new key.
#[derive(Default)]
struct TypedKey<'a> {
    name: &'a str,
    role: &'a str,
    pipeline: &'a str,
    expires_in: &'a str,
    scope: &'a str,
    webhook: &'a str,
}

impl<'a> TypedKey<'a> {
    fn of(form: &'a SentForm) -> Self {
        Self {
            name: form.get("name"),
            role: form.get("role"),
            pipeline: form.get("pipeline"),
            expires_in: form.get("expires_in"),
            scope: form.get("scope"),
            webhook: form.get("webhook"),
        }
    }

    fn read(&self, whose: Whose) -> Result<CreateKey, Trouble> {
        let expires_in = match self.expires_in.trim() {
            "" => None,
            text => Some(text.parse::<Span>().map_err(|error| mistyped(format!("the validity {error}")))?),
        };
        Ok(CreateKey {
            name: self.name.trim().to_owned(),
            kind: if whose == Whose::Own { KeyKind::Personal } else { KeyKind::Service },
            role: read_role(self.role)?,
            pipeline: Some(self.pipeline.trim()).filter(|text| !text.is_empty()).map(str::to_owned),
            expires_in,
            webhook: self.webhook == "yes",
            certificate: None,
            scope: read_scope(self.scope)?,
        })
    }
}

fn add_plan(whose: Whose, typed: &TypedKey<'_>) -> ChangePlan {
    let name = PlanField { hint: "What it is for.", ..PlanField::text("name", "Name", typed.name) };
    let expires = PlanField::optional(
        "expires_in",
        "Valid for",
        typed.expires_in,
        "Such as 90d. A key that expires is renewed in time.",
    );
    let scope = PlanField::optional("scope", "Limited to", typed.scope, SCOPE_HINT);
    let fields = match whose {
        Whose::Own => vec![name, PlanField::select("role", "Role", typed.role, &ROLES), expires, scope],
        Whose::Program => {
            let hint = "Alerts are deduplicated among the keys of one pipeline.";
            let signs = "The sender signs its requests (Standard Webhooks) instead of sending the key; only with the role ingest";
            vec![
                name,
                PlanField::select("role", "Role", typed.role, &KEY_ROLES),
                PlanField::optional("pipeline", "Pipeline whose alerts it sends", typed.pipeline, hint),
                expires,
                scope,
                PlanField { kind: "checkbox", is_required: false, ..PlanField::text("webhook", signs, typed.webhook) },
            ]
        }
    };
    let about = match whose {
        Whose::Program => "It is a principal of its own, and counts in no quorum.",
        Whose::Own => {
            "Its requests are yours. It has at most your role, and is valid for 90 days unless you choose otherwise."
        }
    };
    ChangePlan {
        title: if whose == Whose::Own { "Create a key of your own".to_owned() } else { "Create an API key".to_owned() },
        warnings: vec![about.to_owned(), "Its secret is shown once.".to_owned()],
        fields,
        action: format!("{}/new", whose.base()),
        button: "Create the key",
        back: whose.back().to_owned(),
        ..ChangePlan::default()
    }
}

/// The form of a program's key.
pub(super) async fn ask_add(session: Session, Query(asked): Query<KeysQuestion>) -> PageResult {
    let role = if asked.role.is_empty() { "viewer" } else { asked.role.as_str() };
    let plan = add_plan(Whose::Program, &TypedKey { role, ..TypedKey::default() });
    session.plan(SECTION, plan).await
}

/// Creates a program's key.
pub(super) async fn add(session: Session, form: SentForm) -> PageResult {
    make(&session, Whose::Program, &form).await
}

/// The form of one's own key.
pub(super) async fn ask_add_own(session: Session) -> PageResult {
    let plan = add_plan(Whose::Own, &TypedKey { role: session.who.role.as_str(), ..TypedKey::default() });
    session.plan(Whose::Own.section(), plan).await
}

/// Creates one's own key.
pub(super) async fn add_own(session: Session, form: SentForm) -> PageResult {
    make(&session, Whose::Own, &form).await
}

async fn make(session: &Session, whose: Whose, form: &SentForm) -> PageResult {
    let typed = TypedKey::of(form);
    let made = match typed.read(whose) {
        Ok(key) => session.api.post::<CreatedKey>("/v1/api-keys", &key).await,
        Err(trouble) => Err(trouble),
    };
    match made {
        Ok(CreatedKey { id, key, webhook_secret, expires_at, .. }) => {
            let until = expires_at.map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {at}"));
            let about = match &webhook_secret {
                Some(_) => {
                    format!("The sender signs with this secret, and sends to /v1/ingest/{id}. It is valid {until}.")
                }
                None => format!("The key {id} is valid {until}. It goes into the header Authorization: Bearer KEY."),
            };
            let secrets = [("Key", key), ("Secret", webhook_secret)];
            let secrets = secrets.into_iter().filter_map(|(name, secret)| Some((name, secret?))).collect();
            session.shown_once(whose.section(), "The key was created".to_owned(), about, secrets, whose.back()).await
        }
        Err(trouble) => session.refused(whose.section(), add_plan(whose, &typed), &trouble).await,
    }
}

/// What a revocation means.
pub(super) async fn ask_revoke(session: Session, Path(id): Path<String>) -> PageResult {
    let plan = revoke_plan(&session, Whose::Program, &id).await?;
    session.plan(SECTION, plan).await
}

/// Revokes a key.
pub(super) async fn revoke(session: Session, Path(id): Path<String>, _: SentForm) -> PageResult {
    end(&session, Whose::Program, &id).await
}

/// What the revocation of one's own key means.
pub(super) async fn ask_revoke_own(session: Session, Path(id): Path<String>) -> PageResult {
    let plan = revoke_plan(&session, Whose::Own, &id).await?;
    session.plan(Whose::Own.section(), plan).await
}

/// Revokes one's own key.
pub(super) async fn revoke_own(session: Session, Path(id): Path<String>, _: SentForm) -> PageResult {
    end(&session, Whose::Own, &id).await
}

/// The key of this id; the API has no path of a single one.
async fn find(session: &Session, id: &str) -> Result<Option<KeyView>, PageFailure> {
    let mut cursor = String::new();
    for _ in 0..MOST_PAGES {
        let path = with_query("/v1/api-keys", [("limit", "500"), ("cursor", cursor.as_str())]);
        let page: Page<KeyView> = session.api.get(&path).await?;
        if let Some(found) = page.items.into_iter().find(|view| view.key.id == id) {
            return Ok(Some(found));
        }
        match page.next_cursor {
            Some(next) => cursor = next,
            None => break,
        }
    }
    Ok(None)
}

async fn revoke_plan(session: &Session, whose: Whose, id: &str) -> Result<ChangePlan, PageFailure> {
    let found = find(session, id).await?.map(|view| line(session, &view));
    let is_empty = !found.as_ref().is_some_and(|key| key.is_live);
    let facts = found.iter().flat_map(|key| {
        let used = key.used.as_ref().map_or_else(|| "never".to_owned(), |at| format!("{} from {}", at.words, key.from));
        [("Key", id.to_owned()), ("Whose", key.whose.clone()), ("Role", key.role.to_owned()), ("Last used", used)]
    });
    let warning = if is_empty {
        "There is no valid key of this id.".to_owned()
    } else {
        "Requests with it are refused at once. A revoked key cannot be made valid again.".to_owned()
    };
    Ok(ChangePlan {
        title: format!("Revoke {}", found.as_ref().map_or(id, |key| key.name.as_str())),
        facts: facts.collect(),
        warnings: vec![warning],
        action: format!("{}/{}/revoke", whose.base(), segment(id)),
        button: "Revoke the key",
        is_dangerous: true,
        back: whose.back().to_owned(),
        is_empty,
        ..ChangePlan::default()
    })
}

async fn end(session: &Session, whose: Whose, id: &str) -> PageResult {
    match session.api.send(Method::DELETE, &format!("/v1/api-keys/{}", segment(id)), None, NO_BODY).await {
        Ok(_) => Ok(session.done(whose.back(), "The key was revoked.")),
        Err(trouble) => {
            let plan = revoke_plan(session, whose, id).await?;
            session.refused(whose.section(), plan, &trouble).await
        }
    }
}
