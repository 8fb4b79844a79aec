//! What people set up: where a webhook is, what it is sent, its secret; and the tries by hand.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use reqwest::Url;
use riposte_protocol::time::Timestamp;
use serde_json::json;

use super::chat::Chat;
use super::mail::Mailer;
use super::message::{message_id, parse};
use super::notice::Notice;
use super::receiver::{Receiver, SECRET, URL, client_settings, purpose, topic_of};
use super::syslog::SyslogServer;
use crate::domain::egress::allow_list::Destination;
use crate::domain::event::EventType;
use crate::domain::fault::Fault;
use crate::domain::policy::is_name;
use crate::domain::principal::Principal;
use crate::domain::webhook::{WebhookSecret, sender_secret};
use crate::engine::Engine;
use crate::engine::idempotency::IdempotentRequest;
use crate::engine::refusal::{Refusal, UseCase};
use crate::store::StoreError;
use crate::store::configured::webhooks::{self, NewWebhook, StoredWebhook};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::webhook_messages::{self, WebhookState};
use crate::views::document::DocumentText;
use crate::views::webhooks::{
    AgreeToWebhook, CreateWebhook, ReplayWebhook, UpdateWebhook, WebhookReplay, WebhookSecretView, WebhookSettings,
    WebhookTrial, WebhookView,
};

/// Most webhooks.
const MOST: i64 = 100;
/// How long a replaced secret signs too.
const OVERLAP: Duration = Duration::from_hours(24);
/// Maximum length of a URL, in bytes.
const MAX_URL: usize = 2048;
/// Most events that are named in one replay.
const MAX_REPLAY: usize = 1000;
/// Bytes of a new secret.
const SECRET_BYTES: usize = 32;
impl Engine {
    /// Creates a webhook, once for each idempotency key; returns its secret.
    ///
    /// # Errors
    /// Faults of what is asked, or the name is taken.
    pub async fn create_webhook(
        self: &Arc<Self>,
        asked: CreateWebhook,
        once: Option<Once>,
        by: &Principal,
    ) -> UseCase<WebhookSecretView> {
        let request = IdempotentRequest::find(&self.db, once).await?;
        if request.answered().is_some() {
            return Err(Refusal::Conflict(
                "the webhook was created by this request before, and its secret is not shown again; replace the secret"
                    .into(),
            ));
        }
        let CreateWebhook { name, url, secret, settings } = asked;
        let mut faults = Vec::new();
        if !is_name(&name) {
            faults.push(Fault::at("/name", "must be 1 to 64 characters of a-z, 0-9 and '-'"));
        }
        let url = self.read_url(&url, &settings).map_err(|fault| faults.push(fault));
        if secret.as_deref().is_some_and(|secret| WebhookSecret::parse(secret).is_none()) {
            faults.push(Fault::at("/secret", "must be whsec_ and 24 to 64 bytes in base64"));
        }
        faults.extend(parse(&settings, self).err().unwrap_or_default());
        let Ok(url) = url else { return Err(Refusal::Invalid(faults)) };
        if !faults.is_empty() {
            return Err(Refusal::Invalid(faults));
        }
        let secret = secret.map_or_else(new_secret, Ok)?;
        let sealed = self.seal(SECRET, &name, &secret)?;
        let (now, actor) = (self.clock.now(), by.at());
        let mut ledger = LedgerTx::begin(&self.db).await?;
        if webhooks::count(&mut ledger).await? >= MOST {
            return Err(Refusal::Conflict(format!("there are {MOST} webhooks already; delete one first")));
        }
        let detail = told_of(Some(&place(&url)), settings.person.as_deref());
        let new = self.new_webhook(&name, &url, &settings, detail)?;
        webhooks::create(&mut ledger, &name, NewWebhook { by: &actor, now, ..new }, sealed).await?;
        request.keep(&mut ledger, 201, &name, now).await?;
        ledger.commit().await?;
        Ok(WebhookSecretView { name, secret, previous_until: None })
    }

    /// Changes a webhook whose version is `expected`, if that is given.
    ///
    /// # Errors
    /// Faults of what is asked; if there is no such webhook, or it has changed.
    pub async fn update_webhook(
        self: &Arc<Self>,
        name: &str,
        asked: UpdateWebhook,
        expected: Option<i64>,
        by: &Principal,
    ) -> UseCase<()> {
        let UpdateWebhook { url, settings } = asked;
        let stored = self.stored_webhook(name).await?;
        let mut faults = parse(&settings, self).err().unwrap_or_default();
        let url = match url {
            Some(url) => self.read_url(&url, &settings).map_err(|fault| faults.push(fault)).ok(),
            // It must fit the form, which may be another one now.
            None => {
                let url = self.stored_url(&stored)?;
                self.read_url(url.as_str(), &settings).map_err(|fault| faults.push(fault)).ok()
            }
        };
        let Some(url) = url.filter(|_| faults.is_empty()) else { return Err(Refusal::Invalid(faults)) };
        let before: WebhookSettings = stored.document.read().map_err(StoreError::from)?;
        let moved = place(&url) != stored.place;
        let person = settings.person.as_deref().filter(|person| moved || before.person.as_deref() != Some(*person));
        let detail = told_of(moved.then(|| place(&url)).as_deref(), person);
        let (now, actor) = (self.clock.now(), by.at());
        // Who agreed to another place has not agreed to this one.
        let is_same = before.person == settings.person && self.stored_url(&stored).is_ok_and(|before| before == url);
        let agreed_by = stored.agreed_by.filter(|_| is_same);
        let new = NewWebhook { agreed_by, ..self.new_webhook(name, &url, &settings, detail)? };
        let resumes = before.is_disabled && !settings.is_disabled;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let changed = |error| match error {
            StoreError::Conflict => Refusal::Changed(format!("the webhook {name:?} has changed")),
            error => missing(name, error),
        };
        let new = NewWebhook { by: &actor, now, ..new };
        webhooks::update(&mut ledger, name, new, expected, resumes).await.map_err(changed)?;
        Ok(ledger.commit().await?)
    }

    /// Replaces the secret of a webhook. The one before signs too for a day.
    ///
    /// # Errors
    /// If there is no such webhook.
    pub async fn replace_webhook_secret(self: &Arc<Self>, name: &str, by: &Principal) -> UseCase<WebhookSecretView> {
        let secret = new_secret()?;
        let (sealed, now) = (self.seal(SECRET, name, &secret)?, self.clock.now());
        let until = now.plus(OVERLAP);
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let replaced = webhooks::replace_secret(&mut ledger, name, sealed, until, &by.at(), now).await;
        replaced.map_err(|error| missing(name, error))?;
        ledger.commit().await?;
        Ok(WebhookSecretView { name: name.to_owned(), secret, previous_until: Some(until.into()) })
    }

    /// Deletes a webhook with what it has not taken.
    ///
    /// # Errors
    /// If there is no such webhook.
    pub async fn delete_webhook(self: &Arc<Self>, name: &str, by: &Principal) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let deleted = webhooks::delete(&mut ledger, name, &by.at(), self.clock.now()).await;
        deleted.map_err(|error| missing(name, error))?;
        Ok(ledger.commit().await?)
    }

    /// `user` agrees to decide by links in messages of a webhook: an administrator alone could set up a webhook in the name of
    /// anybody, and decide as that person.
    ///
    /// # Errors
    /// If there is no webhook for this person, the code is wrong, or the webhook has changed.
    pub async fn agree_to_webhook(
        self: &Arc<Self>,
        name: &str,
        asked: &AgreeToWebhook,
        user: &str,
        by: &Principal,
    ) -> UseCase<()> {
        let stored = self.stored_webhook(name).await?;
        let settings: WebhookSettings = stored.document.read().map_err(StoreError::from)?;
        if settings.person.as_deref() != Some(user) {
            return Err(missing(name, StoreError::NotFound));
        }
        let code = self.approval_links.code(name, user, self.stored_url(&stored)?.as_str());
        if verify_slices_are_equal(code.as_bytes(), asked.code.trim().as_bytes()).is_err() {
            let why = "is not the code in the last messages of this webhook; riposte webhook test sends another one";
            return Err(Refusal::fault("/code", why));
        }
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let (detail, now) = (format!("to links in messages to {}", stored.place), self.clock.now());
        let agreed = webhooks::agree(&mut ledger, (name, stored.version), user, detail, &by.at(), now).await;
        agreed.map_err(|error| match error {
            StoreError::Conflict => Refusal::Changed(format!("the webhook {name:?} has changed")),
            error => missing(name, error),
        })?;
        Ok(ledger.commit().await?)
    }

    /// Sends a webhook a message that tells of nothing.
    ///
    /// # Errors
    /// If there is no such webhook, or it cannot be used.
    pub async fn try_webhook(self: &Arc<Self>, name: &str) -> UseCase<WebhookTrial> {
        let (stored, begun) = (self.stored_webhook(name).await?, self.clock.now());
        let receiver = Receiver::open(self, &stored, begun).map_err(Refusal::Conflict)?;
        let event = json!({
            "specversion": "1.0",
            "id": "0",
            "source": self.feed.source,
            "type": EventType::cloud_type("webhook.test"),
            "subject": format!("webhook/{name}"),
            "time": begun,
            "datacontenttype": "application/json",
            "data": {"detail": "a test"},
        });
        let body = receiver.form.chat.map_or_else(
            || receiver.form.written(&event),
            |chat| chat.body(&[Notice::test(name, receiver.how_to_agree())]),
        );
        let started = tokio::time::Instant::now();
        let sent = receiver.send(&message_id(0, begun), &body, begun).await;
        let millis = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Ok(WebhookTrial { is_taken: sent.is_ok(), fault: sent.err().map(|untaken| untaken.fault), millis })
    }

    /// Sends messages again that were given up.
    ///
    /// # Errors
    /// If there is no such webhook, or too many events are named.
    pub async fn replay_webhook(
        self: &Arc<Self>,
        name: &str,
        asked: ReplayWebhook,
        by: &Principal,
    ) -> UseCase<WebhookReplay> {
        if asked.events.as_ref().is_some_and(|events| events.len() > MAX_REPLAY) {
            return Err(Refusal::fault("/events", format!("has more than {MAX_REPLAY} entries; leave it out for all")));
        }
        self.stored_webhook(name).await?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let (now, actor) = (self.clock.now(), by.at());
        let messages = webhook_messages::replay(&mut ledger, name, asked.events.as_deref(), &actor, now).await?;
        ledger.commit().await?;
        Ok(WebhookReplay { messages })
    }

    /// All webhooks, by name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn webhooks(&self) -> UseCase<Vec<WebhookView>> {
        let states = webhook_messages::states(&self.db).await?;
        let last = self.event_bounds().await?.last;
        let mut views = Vec::new();
        for stored in webhooks::all(&self.db).await? {
            if let Some(state) = states.iter().find(|state| state.webhook == stored.name) {
                views.push(view(stored, state.clone(), last)?);
            }
        }
        Ok(views)
    }

    /// The user to whom messages of a webhook go and who agreed to decide by their links; `None` if there is none, or it sends
    /// nothing.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn person_of_webhook(&self, name: &str) -> Result<Option<String>, StoreError> {
        let Some(stored) = webhooks::all(&self.db).await?.into_iter().find(|stored| stored.name == name) else {
            return Ok(None);
        };
        let settings: WebhookSettings = stored.document.read()?;
        let has_agreed = settings.person.is_some() && settings.person == stored.agreed_by;
        Ok(settings.person.filter(|_| has_agreed && !settings.is_disabled))
    }

    /// The name of a webhook whose messages are for this person, if there is one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(in crate::engine) async fn webhook_of_person(&self, person: &str) -> Result<Option<String>, StoreError> {
        for stored in webhooks::all(&self.db).await? {
            let settings: WebhookSettings = stored.document.read()?;
            if settings.person.as_deref() == Some(person) {
                return Ok(Some(stored.name));
            }
        }
        Ok(None)
    }

    async fn stored_webhook(&self, name: &str) -> UseCase<StoredWebhook> {
        let found = webhooks::all(&self.db).await?.into_iter().find(|stored| stored.name == name);
        found.ok_or_else(|| missing(name, StoreError::NotFound))
    }

    fn stored_url(&self, stored: &StoredWebhook) -> UseCase<Url> {
        let opened = self.ledger_key.open(&purpose(URL, &stored.name), &stored.url);
        let text = opened.ok().and_then(|plain| String::from_utf8(plain).ok());
        let url = text.and_then(|text| Url::parse(&text).ok());
        url.ok_or_else(|| Refusal::Conflict("its URL cannot be opened with this ledger key; set it again".into()))
    }

    /// Reads a URL. An address in it is checked now, a name at each call.
    fn read_url(&self, text: &str, settings: &WebhookSettings) -> Result<Url, Fault> {
        let fault = |why: String| Fault::at("/url", why);
        let url = Url::parse(text.trim()).map_err(|error| fault(format!("is no URL: {error}")))?;
        if text.len() > MAX_URL {
            return Err(fault(format!("has more than {MAX_URL} bytes")));
        }
        if settings.form.as_deref() == Some(Chat::Mail.as_str()) {
            let mailer = Mailer::read(&url).map_err(fault)?;
            return self.egress.allows(mailer.destination()).map(|()| url).map_err(|error| fault(error.to_string()));
        }
        if SyslogServer::is_meant(&url) {
            if settings.form.as_deref().is_some_and(|form| Chat::ALL.iter().any(|chat| chat.as_str() == form)) {
                return Err(fault("a syslog receiver takes the forms cloudevents and ocsf".into()));
            }
            let server = SyslogServer::read(&url).map_err(fault)?;
            return self.egress.allows(server.destination()).map(|()| url).map_err(|error| fault(error.to_string()));
        }
        if settings.form.as_deref() == Some(Chat::Ntfy.as_str()) {
            topic_of(&url).map_err(fault)?;
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(fault("has no host".into()));
        };
        let address = Destination::new(host, port).address();
        let is_local = address.is_some_and(|address| address.is_loopback());
        if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
            return Err(fault("must be https, or http to a loopback address".into()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("must not hold a user or a password: messages are signed".into()));
        }
        let client = self.egress.client(client_settings(&url)).map_err(|error| fault(error.to_string()))?;
        let allowed = client.request(reqwest::Method::POST, &url);
        allowed.map(|_| url).map_err(|error| fault(error.to_string()))
    }

    fn seal(&self, part: &str, name: &str, text: &str) -> UseCase<Vec<u8>> {
        let sealed = self.ledger_key.seal(&purpose(part, name), text.as_bytes());
        sealed.map_err(|error| Refusal::System(error.to_string()))
    }

    fn new_webhook<'a>(
        &self,
        name: &str,
        url: &Url,
        settings: &WebhookSettings,
        detail: String,
    ) -> UseCase<NewWebhook<'a>> {
        let document = serde_json::to_string(settings).map_err(StoreError::from)?;
        let sealed = self.seal(URL, name, url.as_str())?;
        Ok(NewWebhook {
            document,
            place: place(url),
            url: sealed,
            agreed_by: None,
            detail,
            by: &crate::domain::actor::Actor::Riposte,
            now: self.clock.now(),
        })
    }
}

/// Whether people have disabled it, or its receiver is gone.
pub(super) fn is_disabled(stored: &StoredWebhook) -> Result<bool, StoreError> {
    let settings: WebhookSettings = stored.document.read()?;
    Ok(settings.is_disabled)
}

/// Disables a webhook whose receiver said that it is gone.
pub(super) async fn disable(engine: &Engine, receiver: &Receiver, now: Timestamp) -> Result<(), StoreError> {
    let name = receiver.name();
    let is_called = |stored: &StoredWebhook| stored.name == name && stored.version == receiver.version();
    // One that was changed meanwhile is another one.
    let Some(stored) = webhooks::all(&engine.db).await?.into_iter().find(is_called) else { return Ok(()) };
    let settings = WebhookSettings { is_disabled: true, ..stored.document.read()? };
    let mut ledger = LedgerTx::begin(&engine.db).await?;
    let detail = "its receiver answered 410 Gone".to_owned();
    webhooks::disable(&mut ledger, &stored, serde_json::to_string(&settings)?, detail, now).await?;
    tracing::warn!(webhook = name, "the webhook {name} is disabled: its receiver answered 410 Gone");
    ledger.commit().await
}

/// What the audit log says of a webhook: where its messages go, and for whom.
fn told_of(place: Option<&str>, person: Option<&str>) -> String {
    let place = place.map(|place| format!("to {place}"));
    let person = person.map(|person| format!("with links by which user:{person} decides"));
    place.into_iter().chain(person).collect::<Vec<_>>().join(", ")
}

fn view(stored: StoredWebhook, state: WebhookState, last: i64) -> Result<WebhookView, StoreError> {
    let StoredWebhook {
        name, version, document, place, created_at, created_by, changed_at, changed_by, agreed_by, ..
    } = stored;
    let settings: WebhookSettings = document.read()?;
    let WebhookState { mark, is_failing, delivered, missed, delivered_at, failed_at, fault, waiting, dead, .. } = state;
    let word = match (settings.is_disabled, is_failing, delivered_at) {
        (true, ..) => "disabled",
        (_, true, _) => "failing",
        (_, _, None) => "new",
        _ => "ok",
    };
    Ok(WebhookView {
        name,
        version,
        place,
        settings: DocumentText::of(&settings)?,
        state: word.to_owned(),
        mark,
        behind: if settings.is_disabled { 0 } else { (last - mark).max(0) },
        waiting,
        dead,
        delivered,
        missed,
        delivered_at,
        failed_at,
        fault,
        created_at,
        created_by,
        changed_at,
        changed_by,
        agreed_by,
    })
}

/// Scheme, host and port of a URL: the rest may be what lets a caller in.
fn place(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn missing(name: &str, error: StoreError) -> Refusal {
    match error {
        StoreError::NotFound => Refusal::NotFound(format!("the webhook {name:?} does not exist")),
        error => error.into(),
    }
}

fn new_secret() -> UseCase<String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Refusal::System(error.to_string()))?;
    Ok(sender_secret(&bytes))
}
