//! People: who may log in, with the role and the last login. Changes are in `people_changes.rs`.

use askama::Template;
use axum::extract::Query;
use serde::Deserialize;

use super::format::{Moment, past};
use super::page::{PageResult, html};
use super::paths::{segment, with_query};
use super::scope_text::scope_text;
use super::session::Session;
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::domain::forgotten::PSEUDONYM_PREFIX;
use crate::views::page::Page;
use crate::views::users::UserRow;

pub(super) const SECTION: &str = "/people";

/// The page of the list, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PeopleQuestion {
    cursor: String,
}

/// A person.
struct PersonLine {
    name: String,
    path: String,
    role: &'static str,
    badges: Vec<Badge>,
    scope: String,
    last: Option<Moment>,
    from: String,
    is_self: bool,
    is_deleted: bool,
    may_be_forgotten: bool,
}

fn line(session: &Session, user: &UserRow) -> PersonLine {
    let mut badges = Vec::new();
    match (user.deleted_at, user.disabled_at) {
        (Some(_), _) => badges.push(Badge::new(StateTone::Plain, "deleted")),
        (None, Some(_)) => badges.push(Badge::new(StateTone::Warn, "disabled")),
        (None, None) => badges.push(Badge::new(StateTone::Good, "enabled")),
    }
    if user.deleted_at.is_none() {
        if user.must_change_password {
            badges.push(Badge::new(StateTone::Warn, "temporary password"));
        }
        let (tone, words) =
            if user.has_totp { (StateTone::Good, "one-time codes") } else { (StateTone::Warn, "no one-time codes") };
        badges.push(Badge::new(tone, words));
    }
    PersonLine {
        path: format!("/people/{}", segment(&user.name)),
        role: user.role.as_str(),
        badges,
        scope: scope_text(&user.scope),
        last: user.last_login_at.map(|at| past(at, session.now())),
        from: user.last_login_from.clone().unwrap_or_default(),
        is_self: user.name == session.who.name,
        is_deleted: user.deleted_at.is_some(),
        may_be_forgotten: user.deleted_at.is_some() && !user.name.starts_with(PSEUDONYM_PREFIX),
        name: user.name.clone(),
    }
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    shell: Shell,
    lines: Vec<PersonLine>,
    next: Option<String>,
}

/// The list.
pub(super) async fn list(session: Session, Query(asked): Query<PeopleQuestion>) -> PageResult {
    let path = with_query("/v1/users", [("limit", "100"), ("cursor", asked.cursor.as_str())]);
    let page: Page<UserRow> = session.api.get(&path).await?;
    let next = page.next_cursor.as_deref().map(|cursor| with_query("/people", [("cursor", cursor)]));
    let mut lines: Vec<PersonLine> = page.items.iter().map(|user| line(&session, user)).collect();
    lines.sort_by_key(|line| line.is_deleted);
    let shell = session.shell("People", SECTION, "").await?;
    html(&PeoplePage { shell, lines, next })
}
