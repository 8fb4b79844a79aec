//! What of an event goes out. A receiver sees the fields that its settings name, and of an event that is more confidential
//! than its ceiling only the id.

use std::collections::BTreeSet;

use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::domain::event::{EventType, TypePattern};
use crate::domain::fault::Fault;
use crate::domain::field_reader::suggest;
use crate::domain::tlp::Tlp;
use crate::engine::Engine;
use crate::engine::event_filter::EventFilter;
use crate::store::StoreError;
use crate::store::configured::policies;
use crate::views::events::EventRow;
use crate::views::webhooks::WebhookSettings;

/// The fields of `data` that can be chosen.
const FIELDS: [&str; 13] = [
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
];
/// Maximum length of a note, in characters.
const MAX_NOTE: usize = 1024;
/// Most types of a webhook.
const MAX_TYPES: usize = 64;
/// Type of an event of which only the id goes out.
const WITHHELD: &str = "withheld";

/// What of an event goes out.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    /// The fields; `None`: all.
    fields: Option<BTreeSet<String>>,
    /// Highest label that goes out whole.
    ceiling: Tlp,
}

/// Reads settings.
///
/// # Errors
/// Every fault, below `/settings`.
pub(super) fn parse(settings: &WebhookSettings, engine: &Engine) -> Result<(EventFilter, Form), Vec<Fault>> {
    let WebhookSettings { types, policy, agent, target, fields, ceiling, note, .. } = settings;
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
    if note.chars().count() > MAX_NOTE {
        faults.push(Fault::at("/settings/note", format!("has more than {MAX_NOTE} characters")));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let filter = EventFilter::new(patterns, policy.as_deref(), agent.flatten(), target.as_deref());
    let fields = fields.as_ref().map(|fields| fields.iter().cloned().collect());
    Ok((filter, Form { fields, ceiling: label.unwrap_or_default() }))
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
            return Ok(only_id(&event, &kept).to_string());
        }
        if let (Some(fields), Some(data)) = (&self.fields, event["data"].as_object_mut()) {
            let hidden: Vec<String> = data.keys().filter(|key| !fields.contains(*key)).cloned().collect();
            data.retain(|key, _| fields.contains(key));
            if !hidden.is_empty() {
                data.insert("redacted".to_owned(), json!(hidden));
            }
        }
        Ok(event.to_string())
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
    async fn sensitivity(&self, row: &EventRow) -> Result<Tlp, StoreError> {
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
