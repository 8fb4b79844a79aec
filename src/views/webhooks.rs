//! `/v1/webhooks`: who is sent the events of the feed.

use serde::{Deserialize, Serialize};

use super::columns::Millis;
use super::document::DocumentText;
use crate::domain::duration::Span;

/// Which events go out, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Types of events; `response.*` stands for all that begin so, `*` for all. Empty: all but `audit.*`; for people, what they
    /// must know.
    #[schema(example = json!(["response.*", "approval.requested"]))]
    pub types: Vec<String>,
    /// Only events about this policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64, format = "one-line")]
    pub policy: Option<String>,
    /// Only events about this agent, by its id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, format = "one-line")]
    pub agent: Option<String>,
    /// Only events about this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, format = "one-line")]
    pub target: Option<String>,
    /// Fields of `data` that go out; the others are left out, and named in `redacted`. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["response_id", "policy", "action"]))]
    pub fields: Option<Vec<String>>,
    /// Highest label of the Traffic Light Protocol that goes out whole, `amber` by default: `clear`, `green`, `amber`,
    /// `amber+strict` or `red`. Of an event above it only the id goes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(clear|green|amber|amber[+]strict|red)$", example = "amber")]
    pub ceiling: Option<String>,
    /// What a message is: `cloudevents` or `ocsf` (one event each, the first by default), or words for people: `slack`, `teams`,
    /// `ntfy`, `mail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(cloudevents|ocsf|slack|teams|ntfy|mail)$", example = "slack")]
    pub form: Option<String>,
    /// Only for people: the user to whom messages go. They have links by which this user approves and rejects, once the user
    /// has agreed to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64, format = "one-line")]
    pub person: Option<String>,
    /// Only for people: how long to wait. What was settled meanwhile is not told, so a second webhook with a wait reaches the
    /// next person when the first one has not acted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "duration-text", example = "10m")]
    pub after: Option<Span>,
    /// Whether nothing is sent. What happens meanwhile is not sent later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_disabled: bool,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1024)]
    pub note: String,
}

/// A webhook to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// Unique name.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9-]+$", example = "tickets")]
    pub name: String,
    /// Where messages are sent: an `https` URL, or an `http` URL of a loopback address; for `mail`
    /// `smtps://USER:PASSWORD@HOST/?from=ADDRESS&to=ADDRESS`; for a syslog receiver `syslog+tls://HOST`. It is not shown
    /// again.
    #[schema(max_length = 2048, example = "https://tickets.example.org/hooks/riposte")]
    pub url: String,
    /// The secret of the receiver, `whsec_` and 24 to 64 bytes in base64; absent: a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub secret: Option<String>,
    /// Which events go out, and what of them.
    #[serde(default)]
    pub settings: WebhookSettings,
}

/// A change of a webhook.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWebhook {
    /// Where messages are sent; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, example = "https://tickets.example.org/hooks/riposte")]
    pub url: Option<String>,
    /// Which events go out, and what of them.
    pub settings: WebhookSettings,
}

/// A webhook.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookView {
    /// Unique name.
    pub name: String,
    /// Version, from 1.
    pub version: i64,
    /// Scheme and host of the URL.
    pub place: String,
    /// Which events go out, and what of them.
    #[schema(value_type = WebhookSettings)]
    pub settings: DocumentText,
    /// `ok`, `failing`, `disabled`, or `new` before a message was taken.
    #[schema(example = "ok")]
    pub state: String,
    /// Number of the last event that was looked at.
    pub mark: i64,
    /// Events behind it.
    pub behind: i64,
    /// Messages that were not taken and are tried again.
    pub waiting: i64,
    /// Messages that were given up, and are kept.
    pub dead: i64,
    /// Messages taken, ever.
    pub delivered: i64,
    /// Events that were removed before they could be sent, ever.
    pub missed: i64,
    /// When a message was taken last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Millis>,
    /// When a message was not taken last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Millis>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Time of creation.
    pub created_at: Millis,
    /// Principal that created it.
    pub created_by: String,
    /// Time of the last change.
    pub changed_at: Millis,
    /// Principal that changed it last.
    pub changed_by: String,
    /// User who agreed to decide by links in its messages. Without it they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed_by: Option<String>,
}

/// The agreement of a person to decide by links in the messages of a webhook.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgreeToWebhook {
    /// The code in its messages: who has it reads them.
    #[schema(max_length = 64, example = "3f9c-02ab-77e1-5d40")]
    pub code: String,
}

/// A new secret, which is not shown again.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookSecretView {
    /// Name of the webhook.
    pub name: String,
    /// The secret that the receiver verifies messages with.
    pub secret: String,
    /// Until when the one before signs too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Millis>,
}

/// What became of a message that was sent to try a webhook.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookTrial {
    /// Whether the receiver took it.
    pub is_taken: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: i64,
}

/// A message that was not taken.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookMessage {
    /// Number of the event.
    pub seq: i64,
    /// Time of the event.
    pub at: Millis,
    /// Type of the event.
    pub r#type: String,
    /// How often it was sent.
    pub tries: i64,
    /// When it is sent next; absent: it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Millis>,
    /// Why it was not taken last.
    pub fault: String,
}

/// Which messages that were given up are sent again.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayWebhook {
    /// Numbers of their events; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1000)]
    pub events: Option<Vec<i64>>,
}

/// How many messages are sent again.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookReplay {
    /// Messages.
    pub messages: u64,
}
