//! Webhooks: how each is doing, what it has not taken, a test message, and sending again what was given
//! up.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::NO_BODY;
use super::format::{Moment, coming, count, past};
use super::page::{PageFailure, PageResult, html};
use super::paths::{segment, with_query};
use super::plan::{ChangePlan, PlanField};
use super::policy_text::write;
use super::scope_text::mistyped;
use super::session::{SentForm, Session};
use super::shell::Shell;
use super::words::{Badge, StateTone};
use crate::views::page::Page;
use crate::views::webhooks::{ReplayWebhook, WebhookMessage, WebhookReplay, WebhookTrial, WebhookView};

pub(super) const LIVE: &str = "webhook.*,feed.*,incident.*";
pub(super) const SECTION: &str = "/integrations";

/// A webhook as a list shows it.
pub(super) struct WebhookLine {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) badge: Badge,
    pub(super) behind: i64,
    pub(super) waiting: i64,
    pub(super) dead: i64,
    pub(super) taken: Option<Moment>,
    pub(super) fault: String,
}

impl WebhookLine {
    /// The line of a webhook.
    pub(super) fn of(session: &Session, view: &WebhookView) -> Self {
        let badge = match view.state.as_str() {
            "ok" => Badge::new(StateTone::Good, "takes messages"),
            "failing" => Badge::new(StateTone::Bad, "failing"),
            "disabled" => Badge::new(StateTone::Plain, "disabled"),
            "new" => Badge::new(StateTone::Warn, "new: no message was taken yet"),
            other => Badge::new(StateTone::Plain, other),
        };
        Self {
            name: view.name.clone(),
            place: view.place.clone(),
            badge,
            behind: view.behind,
            waiting: view.waiting,
            dead: view.dead,
            taken: view.delivered_at.map(|at| past(at, session.now())),
            fault: view.fault.clone().unwrap_or_default(),
        }
    }
}

/// A message that was not taken.
struct MessageLine {
    seq: i64,
    kind: String,
    when: Moment,
    tries: i64,
    next: Option<Moment>,
    fault: String,
}

/// The page of the messages, as the address has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessagesQuestion {
    cursor: String,
    event: String,
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct WebhookPage {
    shell: Shell,
    line: WebhookLine,
    path: String,
    facts: Vec<(&'static str, String)>,
    settings: String,
    messages: Vec<MessageLine>,
    next: Option<String>,
}

fn path(name: &str) -> String {
    format!("/integrations/webhooks/{}", segment(name))
}

fn api_path(name: &str) -> String {
    format!("/v1/webhooks/{}", segment(name))
}

async fn find(session: &Session, name: &str) -> Result<WebhookView, PageFailure> {
    Ok(session.api.get(&api_path(name)).await?)
}

/// One webhook with what it has not taken.
pub(super) async fn one(
    session: Session,
    Path(name): Path<String>,
    Query(asked): Query<MessagesQuestion>,
) -> PageResult {
    let view = find(&session, &name).await?;
    let messages = with_query(&format!("{}/messages", api_path(&name)), [("cursor", asked.cursor.as_str())]);
    let messages: Page<WebhookMessage> = session.api.get(&messages).await?;
    let now = session.now();
    let lines = messages.items.into_iter().map(|message| MessageLine {
        seq: message.seq,
        kind: message.r#type,
        when: past(message.at, now),
        tries: message.tries,
        next: message.next_at.map(|at| coming(at, now)),
        fault: message.fault,
    });
    let settings: Value = view.settings.read().unwrap_or_default();
    let page = WebhookPage {
        shell: session.shell(format!("Webhook {name}"), SECTION, LIVE).await?,
        line: WebhookLine::of(&session, &view),
        path: path(&name),
        facts: facts(&session, &view),
        settings: write(&settings)?,
        messages: lines.collect(),
        next: messages.next_cursor.map(|cursor| with_query(&path(&name), [("cursor", cursor.as_str())])),
    };
    html(&page)
}

fn facts(session: &Session, view: &WebhookView) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Sent to", view.place.clone()),
        ("Taken, ever", view.delivered.to_string()),
        ("Events not looked at yet", view.behind.to_string()),
        ("Tried again", view.waiting.to_string()),
        ("Given up, and kept", view.dead.to_string()),
        ("Removed before they were sent, ever", view.missed.to_string()),
    ];
    let times = [("Taken last", view.delivered_at), ("Not taken last", view.failed_at)];
    facts.extend(times.into_iter().filter_map(|(name, at)| Some((name, at?.to_string()))));
    if let Some(fault) = &view.fault {
        facts.push(("Why", fault.clone()));
    }
    if let Some(person) = &view.agreed_by {
        facts.push(("Decides by its links", person.clone()));
    }
    facts.push(("Created", format!("{} by {}", view.created_at, session.actor(&view.created_by))));
    facts.push(("Changed", format!("{} by {}", view.changed_at, session.actor(&view.changed_by))));
    facts
}

async fn test_plan(session: &Session, name: &str) -> Result<ChangePlan, PageFailure> {
    let view = find(session, name).await?;
    Ok(ChangePlan {
        title: format!("Send {name} a test message"),
        facts: vec![("Sent to", view.place)],
        warnings: vec!["The receiver gets one message that says that it is a test.".to_owned()],
        action: format!("{}/test", path(name)),
        button: "Send it",
        back: path(name),
        ..ChangePlan::default()
    })
}

/// What a test does.
pub(super) async fn ask_test(session: Session, Path(name): Path<String>) -> PageResult {
    let plan = test_plan(&session, &name).await?;
    session.plan(SECTION, plan).await
}

/// Sends a test message.
pub(super) async fn test(session: Session, Path(name): Path<String>, _: SentForm) -> PageResult {
    let sent = session.api.send(Method::POST, &format!("{}/test", api_path(&name)), None, NO_BODY).await;
    let trouble = match sent.and_then(|answer| answer.read::<WebhookTrial>()) {
        Ok(WebhookTrial { is_taken: true, millis, .. }) => {
            return Ok(session.done(&path(&name), &format!("The receiver took the test message in {millis} ms.")));
        }
        Ok(trial) => mistyped(format!("the receiver did not take it: {}", trial.fault.unwrap_or_default())),
        Err(trouble) => trouble,
    };
    let plan = test_plan(&session, &name).await?;
    session.refused(SECTION, plan, &trouble).await
}

async fn replay_plan(session: &Session, name: &str, event: &str) -> Result<ChangePlan, PageFailure> {
    let view = find(session, name).await?;
    let dead = count(view.dead, "message");
    let what =
        if event.is_empty() { format!("{dead} that were given up") } else { format!("the message of event {event}") };
    Ok(ChangePlan {
        title: format!("Send {name} again what it has not taken"),
        facts: vec![("What", what), ("Sent to", view.place)],
        warnings: vec!["The receiver may have seen some of them: each has the id of its event.".to_owned()],
        fields: vec![PlanField::hidden("event", event)],
        action: format!("{}/replay", path(name)),
        button: "Send again",
        back: path(name),
        is_empty: view.dead == 0,
        ..ChangePlan::default()
    })
}

/// What sending again means.
pub(super) async fn ask_replay(
    session: Session,
    Path(name): Path<String>,
    Query(asked): Query<MessagesQuestion>,
) -> PageResult {
    let plan = replay_plan(&session, &name, &asked.event).await?;
    session.plan(SECTION, plan).await
}

/// Sends again.
pub(super) async fn replay(session: Session, Path(name): Path<String>, form: SentForm) -> PageResult {
    let events = match form.given("event").map(str::parse::<i64>) {
        None => Ok(None),
        Some(Ok(event)) => Ok(Some(vec![event])),
        Some(Err(_)) => Err(mistyped("the event is not a number")),
    };
    let sent = match events {
        Ok(events) => {
            let body = ReplayWebhook { events };
            session.api.post::<WebhookReplay>(&format!("{}/replay", api_path(&name)), &body).await
        }
        Err(trouble) => Err(trouble),
    };
    match sent {
        Ok(WebhookReplay { messages }) => {
            let messages = count(i64::try_from(messages).unwrap_or(i64::MAX), "message");
            Ok(session.done(&path(&name), &format!("{messages} to be sent again.")))
        }
        Err(trouble) => {
            let plan = replay_plan(&session, &name, form.get("event")).await?;
            session.refused(SECTION, plan, &trouble).await
        }
    }
}
