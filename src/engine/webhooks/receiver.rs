//! One receiver: where it is, which events it is sent, and the call that sends a message. Nothing of what it answers is
//! believed or kept but the status.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use reqwest::{Method, StatusCode, Url};
use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value};

use super::chat::Chat;
use super::mail::Mailer;
use super::message::{Form, parse, person_fault};
use super::syslog::SyslogServer;
use crate::domain::webhook::WebhookSecret;
use crate::engine::Engine;
use crate::engine::egress::client::{ClientSettings, EgressClient};
use crate::engine::egress::error::words;
use crate::engine::egress::rules::Egress;
use crate::engine::event_filter::EventFilter;
use crate::store::configured::webhooks::StoredWebhook;

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Media type of an event, as `CloudEvents` has it.
const EVENT: &str = "application/cloudevents+json";
/// Media type of a message to people, and of an event of OCSF.
const JSON: &str = "application/json";

/// What is sealed: the URL.
pub(super) const URL: &str = "url";
/// What is sealed: a secret.
pub(super) const SECRET: &str = "secret";

/// What a part of a webhook is sealed for.
pub(super) fn purpose(part: &str, name: &str) -> String {
    format!("webhook {part} {name}")
}

/// What a webhook is, ready to be called.
#[derive(Debug)]
pub(super) struct Receiver {
    name: String,
    version: i64,
    /// The secrets that sign, the newest first.
    secrets: Vec<WebhookSecret>,
    /// Until when all of them sign.
    secrets_until: Option<Timestamp>,
    /// The newest secret as it is stored, by which a new one is noticed.
    sealed: Vec<u8>,
    way: Way,
    is_disabled: bool,
    /// By which its person agrees to decide by links; `None` if that is done, or there is no person.
    code: Option<String>,
    /// Time of the last change of its settings.
    changed_at: Timestamp,
    /// Which events.
    pub(super) filter: EventFilter,
    /// What of them.
    pub(super) form: Form,
}

/// How messages get there.
#[derive(Debug)]
enum Way {
    Post { url: Url, client: EgressClient, topic: Option<String> },
    Mail { mailer: Mailer, egress: Egress },
    Syslog { server: SyslogServer, egress: Egress },
}

/// Why a message was not taken.
#[derive(Clone, Debug)]
pub(super) struct Untaken {
    /// In words.
    pub(super) fault: String,
    /// How long the receiver wants to be left alone.
    pub(super) asked: Option<Duration>,
    /// What kind of reason it is.
    pub(super) cause: Cause,
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The receiver does not answer, or takes nothing now.
    Away,
    /// It is there, and does not take this message.
    Refused,
    /// It says that it is gone for good.
    Gone,
    /// It was not sent at all.
    Unsent,
}

impl Cause {
    const fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::GONE => Self::Gone,
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => Self::Refused,
            _ => Self::Away,
        }
    }
}

impl Receiver {
    /// Opens what is stored of a webhook.
    ///
    /// # Errors
    /// In words, if it cannot be opened or this version cannot read it.
    pub(super) fn open(engine: &Engine, stored: &StoredWebhook, now: Timestamp) -> Result<Self, String> {
        let open = |part: &str, sealed: &[u8]| {
            let plain =
                engine.ledger_key.open(&purpose(part, &stored.name), sealed).map_err(|error| error.to_string())?;
            String::from_utf8(plain).map_err(|error| error.to_string())
        };
        let url = Url::parse(&open(URL, &stored.url)?).map_err(|error| error.to_string())?;
        let secret = |sealed: &[u8]| {
            let text = open(SECRET, sealed)?;
            WebhookSecret::parse(&text).ok_or_else(|| "its secret is none".to_owned())
        };
        let mut secrets = vec![secret(&stored.secret)?];
        let until = stored.previous_until.map(Timestamp::from).filter(|until| *until > now);
        if let (Some(previous), Some(_)) = (&stored.previous_secret, until) {
            secrets.push(secret(previous)?);
        }
        let settings = stored.document.read().map_err(|error| error.to_string())?;
        let (filter, form) = parse(&settings, engine).map_err(|faults| {
            let words = faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail));
            words.collect::<Vec<_>>().join("; ")
        })?;
        let stranger = form.person.as_deref().filter(|person| stored.agreed_by.as_deref() != Some(person));
        let code = stranger.map(|person| engine.approval_links.code(&stored.name, person, url.as_str()));
        let way = if form.chat == Some(Chat::Mail) {
            Way::Mail { mailer: Mailer::read(&url)?, egress: engine.egress.clone() }
        } else if SyslogServer::is_meant(&url) {
            Way::Syslog { server: SyslogServer::read(&url)?, egress: engine.egress.clone() }
        } else {
            let (url, topic) = if form.chat == Some(Chat::Ntfy) { topic_of(&url)? } else { (url, None) };
            let client = engine.egress.client(client_settings(&url)).map_err(|error| words(&error))?;
            Way::Post { url, client, topic }
        };
        Ok(Self {
            name: stored.name.clone(),
            version: stored.version,
            secrets,
            secrets_until: until,
            sealed: stored.secret.clone(),
            way,
            is_disabled: settings.is_disabled,
            code,
            changed_at: stored.changed_at.into(),
            filter,
            form,
        })
    }

    /// Whether this is what is stored, at `now`.
    pub(super) fn is_of(&self, stored: &StoredWebhook, now: Timestamp) -> bool {
        self.version == stored.version
            && self.sealed == stored.secret
            && self.secrets_until.is_none_or(|until| until > now)
    }

    pub(super) const fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    /// Name of the webhook.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub(super) const fn version(&self) -> i64 {
        self.version
    }

    /// Whether the user to whom its messages go may still decide.
    pub(super) fn may_be_used(&self, engine: &Engine) -> bool {
        self.is_disabled || self.form.person.as_deref().is_none_or(|person| person_fault(engine, person).is_none())
    }

    /// The user who decides by links in its messages.
    pub(super) fn decider(&self) -> Option<&str> {
        self.form.person.as_deref().filter(|_| self.code.is_none())
    }

    /// How its person agrees to that, in words; `None` if that is done.
    pub(super) fn how_to_agree(&self) -> Option<String> {
        let (person, code) = (self.form.person.as_deref()?, self.code.as_deref()?);
        let name = &self.name;
        Some(format!("To decide by links here, {person} types once: riposte webhook agree {name} {code}"))
    }

    /// Whether its settings were changed after `at`.
    pub(super) fn has_changed_since(&self, at: Timestamp) -> bool {
        self.changed_at > at
    }

    /// Sends a message, whose id is the same at each try.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn send(&self, id: &str, body: &str, now: Timestamp) -> Result<(), Untaken> {
        let untaken = |fault: String| Untaken { fault, asked: None, cause: Cause::Away };
        let (url, client, topic) = match &self.way {
            Way::Mail { mailer, egress } => {
                return mailer.send(egress, &format!("{}.{id}", self.name), body).await.map_err(untaken);
            }
            Way::Syslog { server, egress } => return server.send(egress, body, now).await.map_err(untaken),
            Way::Post { url, client, topic } => (url, client, topic),
        };
        let seconds = now.as_secs().to_string();
        let signatures: Vec<String> =
            self.secrets.iter().map(|secret| secret.sign(id, &seconds, body.as_bytes())).collect();
        let body = topic.as_ref().map_or_else(|| Ok(body.to_owned()), |topic| with_topic(body, topic));
        let request = client.request(Method::POST, url).map_err(|error| untaken(words(&error)))?;
        let mut request = request
            .header(CONTENT_TYPE, if self.form.chat.is_some() || self.form.is_ocsf { JSON } else { EVENT })
            .header(USER_AGENT, concat!("riposte/", env!("CARGO_PKG_VERSION")))
            .body(body.map_err(|error| untaken(error.to_string()))?);
        if self.form.chat.is_none() {
            request = request
                .header("webhook-id", id)
                .header("webhook-timestamp", seconds)
                .header("webhook-signature", signatures.join(" "));
        }
        let response = request.send().await.map_err(|error| untaken(words(&error.without_url())))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        tracing::debug!(webhook = self.name, "the webhook {} answered {status}", self.name);
        Err(Untaken {
            fault: format!("it answered {status}"),
            asked: retry_after(response.headers()),
            cause: Cause::of(status),
        })
    }
}

/// The address of an ntfy server, to which messages in JSON go, and the topic, which a person copies as one URL.
///
/// # Errors
/// If there is no topic.
pub(super) fn topic_of(url: &Url) -> Result<(Url, Option<String>), String> {
    let topic = url.path().trim_matches('/').to_owned();
    if topic.is_empty() || topic.contains('/') {
        return Err("must end in the topic, such as https://ntfy.example.org/night-shift".into());
    }
    let mut base = url.clone();
    base.set_path("/");
    Ok((base, Some(topic)))
}

fn with_topic(body: &str, topic: &str) -> serde_json::Result<String> {
    let mut message: Map<String, Value> = serde_json::from_str(body)?;
    message.insert("topic".to_owned(), topic.into());
    serde_json::to_string(&message)
}

/// The client for a URL. Plain HTTP is for loopback addresses alone, which was checked when it was set.
pub(super) fn client_settings(url: &Url) -> ClientSettings {
    ClientSettings {
        authorities: Vec::new(),
        is_plain: url.scheme() == "http",
        listed: None,
        timeout: TIMEOUT,
        connect_timeout: CONNECT_TIMEOUT,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
