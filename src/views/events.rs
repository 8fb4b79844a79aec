//! `/v1/events`: what happens, as `CloudEvents` 1.0.

use serde::{Deserialize, Serialize};

use super::columns::{JsonText, Millis};
use crate::domain::event::EventType;

/// A stored event.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EventRow {
    /// Number.
    pub seq: i64,
    /// Time of the change.
    pub at: Millis,
    /// Type, without the prefix of `CloudEvents`.
    pub r#type: String,
    /// Kind and id of the object.
    pub subject: String,
    /// What made the change.
    pub actor: String,
    /// Reason or further detail.
    pub detail: String,
    /// Alert.
    pub alert_id: Option<String>,
    /// Response.
    pub response_id: Option<String>,
    /// Command.
    pub command_id: Option<String>,
    /// Effect.
    pub effect_id: Option<String>,
    /// Agent.
    pub agent_id: Option<String>,
    /// Policy.
    pub policy: Option<String>,
    /// Action.
    pub action: Option<String>,
    /// Kind of the target.
    pub target_kind: Option<String>,
    /// Target.
    pub target_value: Option<String>,
    /// Case of its response.
    pub case_ref: Option<String>,
    /// Label of the Traffic Light Protocol of its response, if that has one of its own.
    pub tlp: Option<String>,
    /// ATT&CK techniques of the alert of its response.
    pub mitre: Option<JsonText>,
    /// The agents of its response, if it has no agent of its own.
    pub response_agents: Option<JsonText>,
}

/// An event, as `CloudEvents` 1.0 has it in JSON.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CloudEvent {
    /// Version of `CloudEvents`.
    #[schema(example = "1.0")]
    pub specversion: String,
    /// Number of the event: they count up by one, in the order in which changes were committed.
    pub id: String,
    /// The manager: its `public_url`, or `/riposte` without one.
    #[schema(format = "uri-reference")]
    pub source: String,
    /// `riposte.` and the type, such as `riposte.response.created`.
    pub r#type: String,
    /// Kind and id of the object, such as `response/ID`.
    pub subject: String,
    /// Time of the change.
    pub time: Millis,
    /// Media type of `data`.
    pub datacontenttype: String,
    /// What the event is about.
    pub data: EventData,
}

/// What an event is about. What does not apply is absent.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventData {
    /// What made the change: `key:ID`, `user:NAME`, `agent:ID`, `policy:NAME`, or `riposte` itself.
    pub actor: String,
    /// Reason or further detail, for people; at most 500 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Case that the response belongs to, in a system elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_id: Option<String>,
    /// Response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// Effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_id: Option<String>,
    /// Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Name of the agent, if it is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Kind of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_kind: Option<String>,
    /// Target in canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_value: Option<String>,
    /// ATT&CK techniques that the alert of the response names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["T1110.001"]))]
    pub mitre: Option<JsonText>,
    /// D3FEND techniques that the action is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["D3-NTF"]))]
    pub d3fend: Vec<String>,
}

impl EventRow {
    /// The event, from the manager `source`; `agent` is the name of its agent, `d3fend` what its action is.
    pub fn cloud_event(self, source: &str, agent: Option<String>, d3fend: Vec<String>) -> CloudEvent {
        let Self { actor, detail, alert_id, response_id, command_id, effect_id, agent_id, policy, action, .. } = self;
        let (target_kind, target_value, case, mitre) = (self.target_kind, self.target_value, self.case_ref, self.mitre);
        CloudEvent {
            specversion: "1.0".to_owned(),
            id: self.seq.to_string(),
            source: source.to_owned(),
            r#type: EventType::cloud_type(&self.r#type),
            subject: self.subject,
            time: self.at,
            datacontenttype: "application/json".to_owned(),
            data: EventData {
                actor,
                detail,
                case,
                alert_id,
                response_id,
                command_id,
                effect_id,
                agent_id,
                agent,
                policy,
                action,
                target_kind,
                target_value,
                mitre,
                d3fend,
            },
        }
    }
}

/// Events that a follower has missed: retention removed them before they could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventGap {
    /// Number of the first one.
    pub from: i64,
    /// Number of the last one.
    pub to: i64,
}
