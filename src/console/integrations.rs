//! Integrations: what brings alerts (pipelines, forwarders), and what is told of responses (webhooks,
//! feeds and their consumers). Webhooks have a page of their own in `webhooks.rs`.

use askama::Template;
use axum::extract::Path;
use axum::http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::client::{NO_BODY, Trouble};
use super::format::{Moment, past};
use super::page::{PageFailure, PageResult, html};
use super::paths::segment;
use super::plan::ChangePlan;
use super::session::{SentForm, Session};
use super::shell::Shell;
use super::webhooks::{LIVE, SECTION, WebhookLine};
use super::words::{Badge, StateTone};
use crate::domain::right::Right;
use crate::views::alerts::PipelineView;
use crate::views::feeds::{FeedConsumer, FeedView};
use crate::views::forwarders::ForwarderRow;
use crate::views::page::Page;
use crate::views::webhooks::WebhookView;

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;

impl Session {
    /// A list that a person with a scope may not see; `None` then.
    ///
    /// # Errors
    /// If the API refuses for another reason.
    pub(super) async fn seen<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Trouble> {
        match self.api.get(path).await {
            Ok(seen) => Ok(Some(seen)),
            Err(trouble) if trouble.status() == StatusCode::FORBIDDEN => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

/// A number of bytes in words.
pub(super) fn bytes(number: i64) -> String {
    match number {
        ..KIB => format!("{number} bytes"),
        KIB..MIB => format!("{} KiB", number / KIB),
        _ => format!("{} MiB", number / MIB),
    }
}

struct PipelineLine {
    name: String,
    source: String,
    recognise: String,
    mapping: String,
}

struct ForwarderLine {
    name: String,
    path: String,
    badge: Badge,
    version: String,
    key: String,
    heard: Moment,
    behind: String,
    last_alert: Option<Moment>,
}

fn forwarder(session: &Session, row: &ForwarderRow) -> ForwarderLine {
    let now = session.now();
    let badge = if row.is_silent {
        Badge::new(StateTone::Bad, "silent: its alerts do not arrive")
    } else if row.behind_bytes > 0 {
        Badge::new(StateTone::Warn, "behind")
    } else {
        Badge::new(StateTone::Good, "up to date")
    };
    ForwarderLine {
        name: row.name.clone(),
        path: format!("/integrations/forwarders/{}/forget", segment(&row.name)),
        badge,
        version: row.version.clone(),
        key: session.actor(&row.principal),
        heard: past(row.heard_at, now),
        behind: bytes(row.behind_bytes),
        last_alert: row.last_alert_at.map(|at| past(at, now)),
    }
}

struct ConsumerLine {
    name: String,
    badge: Badge,
    keys: i64,
    last: Option<Moment>,
    address: String,
    owed: String,
}

fn consumer(session: &Session, consumer: &FeedConsumer) -> ConsumerLine {
    let badge = match (consumer.silent_since, consumer.last_at) {
        (Some(_), _) => Badge::new(StateTone::Bad, "does not fetch a removal"),
        (None, None) => Badge::new(StateTone::Warn, "has never fetched"),
        (None, Some(_)) if consumer.owed_new + consumer.owed_removed > 0 => {
            Badge::new(StateTone::Warn, "has an older list")
        }
        (None, Some(_)) => Badge::new(StateTone::Good, "has the list"),
    };
    let owed = match (consumer.owed_new, consumer.owed_removed) {
        (0, 0) => "nothing".to_owned(),
        (new, removed) => format!("{new} new, {removed} removed"),
    };
    ConsumerLine {
        name: consumer.name.clone(),
        badge,
        keys: consumer.keys,
        last: consumer.last_at.map(|at| past(at, session.now())),
        address: consumer.address.clone().unwrap_or_default(),
        owed,
    }
}

struct FeedLine {
    name: String,
    form: &'static str,
    note: String,
    entries: i64,
    most: u32,
    lists: String,
    badge: Badge,
    consumers: Vec<ConsumerLine>,
}

fn feed(session: &Session, view: &FeedView) -> FeedLine {
    let badge = match (view.too_long_since, view.consumers.is_empty()) {
        (Some(_), _) => Badge::new(StateTone::Bad, "too long: no consumer gets it"),
        (None, true) => Badge::new(StateTone::Warn, "no consumer"),
        (None, false) => Badge::new(StateTone::Good, "served"),
    };
    let policies = if view.policies.is_empty() { "all policies".to_owned() } else { view.policies.join(", ") };
    FeedLine {
        name: view.name.clone(),
        form: view.form.as_str(),
        note: view.note.clone(),
        entries: view.entries,
        most: view.max_entries,
        lists: format!("{} of {policies}", view.actions.join(", ")),
        badge,
        consumers: view.consumers.iter().map(|one| consumer(session, one)).collect(),
    }
}

#[derive(Template)]
#[template(path = "integrations.html")]
struct IntegrationsPage {
    shell: Shell,
    pipelines: Vec<PipelineLine>,
    forwarders: Vec<ForwarderLine>,
    /// `None`: not for this person.
    webhooks: Option<Vec<WebhookLine>>,
    feeds: Option<Vec<FeedLine>>,
    may_administer: bool,
}

/// The page.
pub(super) async fn page(session: Session) -> PageResult {
    let pipelines: Page<PipelineView> = session.api.get("/v1/pipelines").await?;
    let forwarders: Page<ForwarderRow> = session.api.get("/v1/forwarders?limit=500").await?;
    let may_administer = session.may(Right::Administer);
    let webhooks: Option<Page<WebhookView>> =
        if may_administer { session.seen("/v1/webhooks?limit=500").await? } else { None };
    let feeds: Option<Page<FeedView>> = session.seen("/v1/feeds?limit=200").await?;
    let pipelines = pipelines.items.into_iter().map(|view| PipelineLine {
        source: view.source,
        recognise: view.mapping.recognise.join(", "),
        mapping: serde_json::to_string_pretty(&view.mapping).unwrap_or_default(),
        name: view.name,
    });
    let page = IntegrationsPage {
        shell: session.shell("Integrations", SECTION, LIVE).await?,
        pipelines: pipelines.collect(),
        forwarders: forwarders.items.iter().map(|row| forwarder(&session, row)).collect(),
        webhooks: webhooks.map(|page| page.items.iter().map(|view| WebhookLine::of(&session, view)).collect()),
        feeds: feeds.map(|page| page.items.iter().map(|view| feed(&session, view)).collect()),
        may_administer,
    };
    html(&page)
}

/// What forgetting a forwarder means.
pub(super) async fn ask_forget(session: Session, Path(name): Path<String>) -> PageResult {
    let plan = forget_plan(&session, &name).await?;
    session.plan(SECTION, plan).await
}

async fn forget_plan(session: &Session, name: &str) -> Result<ChangePlan, PageFailure> {
    let all: Page<ForwarderRow> = session.api.get("/v1/forwarders?limit=500").await?;
    let found = all.items.iter().find(|row| row.name == name).map(|row| forwarder(session, row));
    let is_empty = found.is_none();
    let facts = found.into_iter().flat_map(|line| {
        [
            ("State", line.badge.words),
            ("Reported", line.heard.words),
            ("Not forwarded yet", line.behind),
            ("Key", line.key),
        ]
    });
    Ok(ChangePlan {
        title: format!("Forget the forwarder {name}"),
        facts: facts.collect(),
        warnings: vec![
            "It is listed no more, and nothing tells when it falls silent. If it still runs, it is back with its next report."
                .to_owned(),
        ],
        stays: vec!["Its key stays valid: revoke it under People, API keys.".to_owned()],
        action: format!("/integrations/forwarders/{}/forget", segment(name)),
        button: "Forget it",
        back: SECTION.to_owned(),
        is_empty,
        ..ChangePlan::default()
    })
}

/// Forgets a forwarder.
pub(super) async fn forget(session: Session, Path(name): Path<String>, _: SentForm) -> PageResult {
    match session.api.send(Method::DELETE, &format!("/v1/forwarders/{}", segment(&name)), None, NO_BODY).await {
        Ok(_) => Ok(session.done(SECTION, &format!("The forwarder {name} was forgotten."))),
        Err(trouble) => {
            let plan = forget_plan(&session, &name).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_is_read() {
        assert_eq!([0, 1023, 1024, 5 * MIB + 1].map(bytes), ["0 bytes", "1023 bytes", "1 KiB", "5 MiB"]);
    }
}
