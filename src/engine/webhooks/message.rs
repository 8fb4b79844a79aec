//! What of an event goes out. A receiver sees the fields that its settings name, and of an event that is more confidential
//! than its ceiling only the id.

use std::collections::BTreeSet;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

use super::chat::Chat;
use crate::domain::event::{EventType, TypePattern};
use crate::domain::fault::Fault;
use crate::domain::field_reader::suggest;
use crate::domain::ocsf;
use crate::domain::right::Right;
use crate::domain::tlp::Tlp;
use crate::engine::Engine;
use crate::engine::event_filter::EventFilter;
use crate::store::StoreError;
use crate::store::configured::policies;
use crate::views::events::EventRow;
use crate::views::webhooks::WebhookSettings;

/// The fields of `data` that can be chosen.
const FIELDS: [&str; 15] = [
    "actor",
    "detail",
    "case",
    "alert_id",
    "response_id",
    "command_id",
    "effect_id",
    "agent_id",
    "agent",
    "policy",
    "action",
    "target_kind",
    "target_value",
    "mitre",
    "d3fend",
];
/// Maximum length of a note, in characters.
const MAX_NOTE: usize = 1024;
/// Most types of a webhook.
const MAX_TYPES: usize = 64;
/// The form of an event, as it is in the feed.
const EVENTS: &str = "cloudevents";
/// The form of an event, as OCSF has it.
const OCSF: &str = "ocsf";
/// How long events are gathered for people, so that what happens at once comes in one message.
const GATHER: Duration = Duration::from_secs(5);
/// Longest wait before an event is told.
const LONGEST_AFTER: Duration = Duration::from_hours(24);
/// Type of an event of which only the id goes out.
const WITHHELD: &str = "withheld";

/// The events that people are told of where nothing else is asked for.
const NOTABLE: [&str; 12] = [
    "approval.requested",
    "response.break_glass",
    "breaker.opened",
    "effect.failing",
    "agent.away",
    "agent.cloned",
    "freeze.on",
    "incident.*",
    "webhook.failing",
    "webhook.gave_up",
    "webhook.missed",
    "node.stopped",
];
/// What of an event goes out, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    /// The fields; `None`: all.
    fields: Option<BTreeSet<String>>,
    /// Highest label that goes out whole.
    pub(super) ceiling: Tlp,
    /// The chat, if it is words for people.
    pub(super) chat: Option<Chat>,
    /// The user to whom they go.
    pub(super) person: Option<String>,
    /// How long to wait before an event is told.
    pub(super) after: Duration,
    /// Whether an event goes out as OCSF has it.
    pub(super) is_ocsf: bool,
}

/// Reads settings.
///
/// # Errors
/// Every fault, below `/settings`.
pub(super) fn parse(settings: &WebhookSettings, engine: &Engine) -> Result<(EventFilter, Form), Vec<Fault>> {
    let WebhookSettings { types, policy, agent, target, fields, ceiling, note, person, after, .. } = settings;
    let (mut patterns, mut faults) = (Vec::new(), Vec::new());
    if types.len() > MAX_TYPES {
        faults.push(Fault::at("/settings/types", format!("has more than {MAX_TYPES} entries")));
    }
    for (index, word) in types.iter().enumerate().take(MAX_TYPES) {
        match TypePattern::parse(word) {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => faults.push(Fault::at(format!("/settings/types/{index}"), why)),
        }
    }
    let fleet = engine.fleet.load();
    let called = |word: &str| word.parse().ok().or_else(|| fleet.called(word).map(|agent| agent.id));
    let agent = agent.as_deref().map(|word| called(word.trim()));
    if agent == Some(None) {
        faults.push(Fault::at("/settings/agent", "is neither the id nor the name of an enrolled agent"));
    }
    for (index, field) in fields.iter().flatten().enumerate() {
        if !FIELDS.contains(&field.as_str()) {
            let what = format!("{field:?} is no field of an event's data");
            faults.push(Fault::at(format!("/settings/fields/{index}"), suggest(&what, field, FIELDS)));
        }
    }
    let label = ceiling.as_deref().map_or(Some(Tlp::default()), Tlp::parse);
    if label.is_none() {
        let labels = Tlp::ALL.map(Tlp::as_str).join(", ");
        faults.push(Fault::at("/settings/ceiling", format!("must be one of {labels}")));
    }
    let chat = chat(settings, &mut faults);
    faults.extend(person.as_deref().and_then(|person| person_fault(engine, person)));
    if note.chars().count() > MAX_NOTE {
        faults.push(Fault::at("/settings/note", format!("has more than {MAX_NOTE} characters")));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if patterns.is_empty() && chat.is_none() {
        // Accounts, keys and logins go out only where they are asked for.
        patterns = EventType::without_audit();
    } else if patterns.is_empty() {
        patterns.extend(NOTABLE.iter().filter_map(|word| TypePattern::parse(word).ok()));
    }
    let filter = EventFilter::new(patterns, policy.as_deref(), agent.flatten(), target.as_deref());
    let fields = fields.as_ref().map(|fields| fields.iter().cloned().collect());
    let least = if chat.is_some() { GATHER } else { Duration::ZERO };
    let after = after.map_or(least, |after| after.duration().max(least));
    let (ceiling, person, is_ocsf) =
        (label.unwrap_or_default(), person.clone(), settings.form.as_deref() == Some(OCSF));
    Ok((filter, Form { fields, ceiling, chat, person, after, is_ocsf }))
}

/// The chat of settings, and what does not fit it.
fn chat(settings: &WebhookSettings, faults: &mut Vec<Fault>) -> Option<Chat> {
    let chat = match settings.form.as_deref() {
        None | Some(EVENTS | OCSF) => None,
        Some(word) => {
            let chat = Chat::ALL.into_iter().find(|chat| chat.as_str() == word);
            if chat.is_none() {
                let known = Chat::ALL.map(Chat::as_str).into_iter().chain([EVENTS, OCSF]);
                faults.push(Fault::at(
                    "/settings/form",
                    suggest("must be cloudevents, ocsf, slack, teams, ntfy or mail", word, known),
                ));
                return None;
            }
            chat
        }
    };
    let only = |is_there: bool, field: &str, what: &str| {
        is_there.then(|| Fault::at(format!("/settings/{field}"), format!("is only for {what}")))
    };
    let people = "messages to people: set form to slack, teams, ntfy or mail";
    if chat.is_some() {
        faults.extend(only(settings.fields.is_some(), "fields", "the forms cloudevents and ocsf"));
    } else {
        faults.extend(only(settings.person.is_some(), "person", people));
        faults.extend(only(settings.after.is_some(), "after", people));
    }
    if settings.after.is_some_and(|after| after.duration() > LONGEST_AFTER) {
        faults.push(Fault::at("/settings/after", "must be at most 24h"));
    }
    chat
}

/// Why this user cannot decide.
pub(super) fn person_fault(engine: &Engine, person: &str) -> Option<Fault> {
    let users = engine.users.load();
    let user = users.get(person).filter(|user| user.user.disabled_at.is_none());
    let why = match user {
        None => "is no user who can log in",
        Some(user) if !user.user.role.may(Right::Approve) => "is a user who may not approve",
        Some(_) => return None,
    };
    Some(Fault::at("/settings/person", why))
}

/// The id of a message: the same at each try and from each manager, and another one for an event of a restored ledger that
/// has the number of one before.
pub(super) fn message_id(seq: i64, at: Timestamp) -> String {
    format!("event_{seq}_{}", at.as_millis())
}

impl Form {
    /// The body of the message of an event.
    ///
    /// # Errors
    /// If the event cannot be written as JSON.
    pub(super) async fn body(&self, engine: &Engine, row: &EventRow) -> Result<String, StoreError> {
        let label = engine.sensitivity(row).await?;
        let mut event = serde_json::to_value(engine.cloud_event(row.clone()))?;
        if label > self.ceiling {
            let data =
                json!({"withheld": format!("tlp:{label} is above the ceiling tlp:{} of this webhook", self.ceiling)});
            let kept =
                json!({"type": EventType::cloud_type(WITHHELD), "data": data, "datacontenttype": "application/json"});
            return Ok(self.written(&only_id(&event, &kept)));
        }
        if let (Some(fields), Some(data)) = (&self.fields, event["data"].as_object_mut()) {
            let hidden: Vec<String> = data.keys().filter(|key| !fields.contains(*key)).cloned().collect();
            data.retain(|key, _| fields.contains(key));
            if !hidden.is_empty() {
                data.insert("redacted".to_owned(), json!(hidden));
            }
        }
        Ok(self.written(&event))
    }

    /// An event, or what goes out of one, in the form of the webhook.
    pub(super) fn written(&self, event: &Value) -> String {
        if self.is_ocsf { ocsf::event(event).to_string() } else { event.to_string() }
    }
}

/// What names the event, with `kept`.
fn only_id(event: &Value, kept: &Value) -> Value {
    let names = ["specversion", "id", "source"];
    let mut fields: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), event[*name].clone())).collect();
    fields.extend(kept.as_object().cloned().unwrap_or_default());
    Value::Object(fields)
}

impl Engine {
    /// How confidential an event is: as its response says, else as its policy does, or did before it was deleted. What cannot
    /// be known counts as most confidential.
    pub(super) async fn sensitivity(&self, row: &EventRow) -> Result<Tlp, StoreError> {
        if let Some(label) = row.tlp.as_deref() {
            return Ok(Tlp::parse(label).unwrap_or(Tlp::Red));
        }
        let Some(name) = row.policy.as_deref() else { return Ok(Tlp::default()) };
        let policies = self.policies.load_full();
        if let Ok(at) = policies.policies().binary_search_by(|known| known.policy.name.as_str().cmp(name)) {
            return Ok(policies.policies()[at].policy.tlp);
        }
        // The last version deleted it, and has no document.
        let versions = policies::versions(&self.db, name, None, 2).await?;
        let Some(document) = versions.into_iter().find_map(|version| version.document) else { return Ok(Tlp::Red) };
        let document: Value = document.read()?;
        let label = document.get("tlp").map_or(Some(Tlp::default()), |label| label.as_str().and_then(Tlp::parse));
        Ok(label.unwrap_or(Tlp::Red))
    }
}
