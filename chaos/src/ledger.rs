//! The manager's whole ledger, read through its API.

use std::collections::HashMap;

use riposte_protocol::time::Timestamp;
use serde_json::Value;

use crate::api::Api;

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) id: String,
    /// Name of the policy that decided it.
    pub(crate) policy: String,
    pub(crate) state: String,
    /// Why it was spared or ended.
    pub(crate) reason: String,
    /// When it was decided, in Unix milliseconds.
    pub(crate) created: i64,
    /// The outcome that the API shows; empty if none.
    pub(crate) outcome: String,
    /// Number of agents on which the API shows it in force.
    pub(crate) in_force: i64,
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) id: String,
    /// Id of its agent.
    pub(crate) agent: String,
    /// Its sequence number at that agent.
    pub(crate) seq: i64,
    /// Id of its effect.
    pub(crate) effect: String,
    /// `apply` or `revert`.
    pub(crate) op: String,
    pub(crate) target: String,
    /// End of the effect, in Unix milliseconds.
    pub(crate) until: Option<i64>,
    pub(crate) state: String,
    /// Time of its first delivery, in Unix milliseconds.
    pub(crate) delivered: Option<i64>,
    /// Why it was abandoned, if it was.
    pub(crate) detail: String,
    /// Id of its response.
    pub(crate) response: String,
}

/// An effect.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) id: String,
    /// Id of its agent.
    pub(crate) agent: String,
    pub(crate) target: String,
    pub(crate) desired: String,
    /// State in the agent's last report.
    pub(crate) actual: String,
    /// Number of failed attempts to lift it.
    pub(crate) failed_reverts: i64,
}

/// The whole ledger.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Ids of alerts by number; more than one id is a violation.
    pub(crate) alerts: HashMap<u64, Vec<String>>,
    /// Responses by the alert's id.
    pub(crate) responses: HashMap<String, Vec<Response>>,
    /// Commands by id.
    pub(crate) commands: HashMap<String, Command>,
    pub(crate) effects: Vec<Effect>,
}

fn text(item: &Value, field: &str) -> String {
    item[field].as_str().unwrap_or_default().to_owned()
}

fn millis(item: &Value, field: &str) -> Option<i64> {
    item[field].as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_millis)
}

impl Ledger {
    /// Reads the whole ledger.
    ///
    /// # Errors
    /// If a list cannot be read to its end.
    pub(crate) async fn read(api: &Api) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        api.each("/v1/alerts", |item| {
            let number = text(item, "pipeline_id").rsplit('.').next().and_then(|number| number.parse().ok());
            ledger.alerts.entry(number.unwrap_or(0)).or_default().push(text(item, "id"));
        })
        .await?;
        api.each("/v1/responses", |item| {
            let response = Response {
                id: text(item, "id"),
                policy: text(item, "policy"),
                state: text(item, "state"),
                reason: text(item, "reason"),
                created: millis(item, "created_at").unwrap_or(0),
                outcome: text(item, "outcome"),
                in_force: item["agents_by_outcome"]["in_force"].as_i64().unwrap_or(0),
            };
            ledger.responses.entry(text(item, "alert_id")).or_default().push(response);
        })
        .await?;
        api.each("/v1/commands", |item| {
            let command = Command {
                id: text(item, "id"),
                agent: text(item, "agent_id"),
                seq: item["seq"].as_i64().unwrap_or(0),
                effect: text(item, "effect_id"),
                op: text(item, "op"),
                target: text(item, "target_value"),
                until: millis(item, "until"),
                delivered: millis(item, "delivered_at"),
                state: text(item, "state"),
                detail: text(item, "detail"),
                response: text(item, "response_id"),
            };
            ledger.commands.insert(command.id.clone(), command);
        })
        .await?;
        ledger.effects = Self::effects(api, "").await?;
        Ok(ledger)
    }

    /// The effects that `filter` selects.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub(crate) async fn effects(api: &Api, filter: &str) -> anyhow::Result<Vec<Effect>> {
        let mut effects = Vec::new();
        api.each(&format!("/v1/effects{filter}"), |item| {
            effects.push(Effect {
                id: text(item, "id"),
                agent: text(item, "agent_id"),
                target: text(item, "target_value"),
                desired: text(item, "desired"),
                actual: text(item, "actual"),
                failed_reverts: item["failed_reverts"].as_i64().unwrap_or(0),
            });
        })
        .await?;
        Ok(effects)
    }
}
