//! Everything that the manager's ledger says, read through its API.

use std::collections::HashMap;

use riposte_protocol::time::Timestamp;
use serde_json::Value;

use crate::api::Api;

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Its id.
    pub(crate) id: String,
    /// The policy that decided it.
    pub(crate) policy: String,
    /// Where it stands.
    pub(crate) state: String,
    /// Why it was spared or ended.
    pub(crate) reason: String,
    /// When it was decided, in milliseconds.
    pub(crate) created: i64,
    /// What is shown to have become of it; empty: nothing is.
    pub(crate) outcome: String,
    /// On how many agents it is shown to be in force.
    pub(crate) in_force: i64,
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// Its id.
    pub(crate) id: String,
    /// For whom.
    pub(crate) agent: String,
    /// Its number there.
    pub(crate) seq: i64,
    /// About which effect.
    pub(crate) effect: String,
    /// `apply` or `revert`.
    pub(crate) op: String,
    /// On which target.
    pub(crate) target: String,
    /// Until when, in milliseconds.
    pub(crate) until: Option<i64>,
    /// Where it stands.
    pub(crate) state: String,
    /// When it was first sent, in milliseconds.
    pub(crate) delivered: Option<i64>,
    /// Why, if it was given up.
    pub(crate) detail: String,
    /// For which response.
    pub(crate) response: String,
}

/// An effect.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    /// Its id.
    pub(crate) id: String,
    /// On which agent.
    pub(crate) agent: String,
    /// On which target.
    pub(crate) target: String,
    /// What is wanted.
    pub(crate) desired: String,
    /// What the agent said.
    pub(crate) actual: String,
    /// How often it could not be lifted.
    pub(crate) failed_reverts: i64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Ids of alerts by their numbers; more than one is a violation.
    pub(crate) alerts: HashMap<u64, Vec<String>>,
    /// Responses by the alert's id.
    pub(crate) responses: HashMap<String, Vec<Response>>,
    /// Commands by id.
    pub(crate) commands: HashMap<String, Command>,
    /// Effects.
    pub(crate) effects: Vec<Effect>,
}

fn text(item: &Value, field: &str) -> String {
    item[field].as_str().unwrap_or_default().to_owned()
}

fn millis(item: &Value, field: &str) -> Option<i64> {
    item[field].as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_millis)
}

impl Ledger {
    /// Reads all of it.
    ///
    /// # Errors
    /// If a list cannot be had to its end.
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

    /// The effects, of those that `filter` lets through.
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
