//! Wazuh's API in the words of its clients: the bodies of `/wazuh`. Names and shapes are Wazuh's, so they
//! differ from those of the other resources.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An active response.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WazuhActiveResponse {
    /// An action with its time-out in seconds, such as `firewall-drop600` (`firewall-drop0`: until it is lifted),
    /// or `!` and the name of a program.
    #[serde(default)]
    #[schema(
        required,
        min_length = 1,
        max_length = 256,
        pattern = r"^!?[A-Za-z0-9_\-.\\/:]+$",
        format = "wazuh-command"
    )]
    pub command: String,
    /// Arguments of the program.
    #[serde(default)]
    #[schema(max_items = 32)]
    pub arguments: Vec<String>,
    /// The alert that it answers, or a part of it: what it is aimed at is in `data`.
    #[serde(default)]
    #[schema(value_type = Option<Object>, example = json!({"data": {"srcip": "203.0.113.7"}}))]
    pub alert: Option<Map<String, Value>>,
}

/// A login.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhLogin {
    /// The token.
    pub data: WazuhToken,
    /// Always 0.
    pub error: u32,
}

/// A token.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhToken {
    /// For `Authorization: Bearer`; valid for 15 minutes.
    pub token: String,
}

/// A logout.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhLogout {
    /// What was done.
    pub message: String,
    /// Always 0.
    pub error: u32,
}

/// What a call did, item by item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhReport<T> {
    /// The items.
    pub data: WazuhItems<T>,
    /// The outcome in a sentence.
    pub message: String,
    /// 0: all items; 1: none; 2: some.
    pub error: u32,
}

/// Items that a call worked for, and those that it did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhItems<T> {
    /// Those that it worked for.
    pub affected_items: Vec<T>,
    /// The number of all items that it works for, also beyond this page.
    pub total_affected_items: usize,
    /// The number of items that it did not work for.
    pub total_failed_items: usize,
    /// Those that it did not work for.
    pub failed_items: Vec<WazuhFailedItem>,
}

/// Items that a call did not work for, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhFailedItem {
    /// The reason.
    pub error: WazuhItemError,
    /// Ids of the items.
    pub id: Vec<String>,
}

/// Why a call did not work for an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhItemError {
    /// Wazuh's number of the error.
    pub code: u32,
    /// The error.
    pub message: String,
    /// What to do.
    pub remediation: String,
}

impl WazuhItemError {
    fn new(code: u32, message: impl Into<String>, remediation: &str) -> Self {
        Self { code, message: message.into(), remediation: remediation.to_owned() }
    }

    /// 1652: there is no such command.
    pub fn no_command(why: &str) -> Self {
        Self::new(1652, why, "GET /v1/actions lists the actions")
    }

    /// 1701: no agent has the id.
    pub fn no_agent() -> Self {
        Self::new(1701, "Agent does not exist", "GET /wazuh/agents lists the agents: their id is the label wazuh_id")
    }

    /// 1731: the agent may not be acted on.
    pub fn not_eligible(why: &str) -> Self {
        Self::new(1731, format!("Agent is not eligible for the action to be performed: {why}"), "GET /v1/protected")
    }

    /// 1731: several agents have the id.
    pub fn ambiguous() -> Self {
        let why = "Agent is not eligible for the action to be performed: several agents have this id";
        Self::new(
            1731,
            why,
            "use credentials whose scope has the agents of one Wazuh manager, by the label wazuh_manager",
        )
    }

    /// 1750: the agent cannot carry out the action.
    pub fn disabled(why: &str) -> Self {
        let why = format!("Active response is not available on the agent: {why}");
        Self::new(1750, why, "GET /v1/agents shows what an agent can do")
    }

    /// The failure of these items.
    pub fn of(self, ids: &[String]) -> WazuhFailedItem {
        WazuhFailedItem { error: self, id: ids.to_vec() }
    }
}

/// An error of a call as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhProblem {
    /// Kind of the error.
    pub title: String,
    /// The error.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// Wazuh's number of the error, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<u32>,
}

/// An agent; with `select`, the fields of it that are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhAgent {
    /// Operating system.
    #[schema(required = false)]
    pub os: WazuhOs,
    /// Always `synced`.
    #[schema(required = false)]
    pub group_config_status: String,
    /// Time of the last contact; absent if there was none.
    #[serde(rename = "lastKeepAlive", skip_serializing_if = "Option::is_none")]
    pub last_keep_alive: Option<String>,
    /// Time of the enrolment.
    #[serde(rename = "dateAdd")]
    #[schema(required = false)]
    pub date_add: String,
    /// Always `riposte`.
    #[schema(required = false)]
    pub node_name: String,
    /// The Wazuh manager that assigned the id: the label `wazuh_manager`, or `riposte`.
    #[schema(required = false)]
    pub manager: String,
    /// Always `any`: agents have no fixed address.
    #[serde(rename = "registerIP")]
    #[schema(required = false)]
    pub register_ip: String,
    /// Always `any`: agents have no fixed address.
    #[schema(required = false)]
    pub ip: String,
    /// Always `default`.
    #[schema(required = false)]
    pub group: Vec<String>,
    /// `active`, `disconnected` or `never_connected`.
    #[schema(required = false)]
    pub status: String,
    /// 0 if it was ever connected.
    #[schema(required = false)]
    pub status_code: u32,
    /// Its name in Wazuh.
    #[schema(required = false)]
    pub name: String,
    /// Its Wazuh id: the label `wazuh_id`.
    #[schema(required = false)]
    pub id: String,
    /// Version of the agent program.
    #[schema(required = false)]
    pub version: String,
}

/// Operating system of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhOs {
    /// Architecture.
    #[schema(required = false)]
    pub arch: String,
    /// Name.
    #[schema(required = false)]
    pub name: String,
    /// Platform.
    #[schema(required = false)]
    pub platform: String,
    /// Version.
    #[schema(required = false)]
    pub version: String,
}

/// The number of agents by status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhSummary {
    /// The numbers.
    pub data: WazuhCounts,
    /// Always 0.
    pub error: u32,
}

/// Numbers of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhCounts {
    /// By connection.
    pub connection: WazuhConnections,
    /// By configuration.
    pub configuration: WazuhConfigurations,
}

/// Numbers of agents by connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhConnections {
    /// Connected.
    pub active: usize,
    /// Not connected.
    pub disconnected: usize,
    /// Enrolled and never connected.
    pub never_connected: usize,
    /// Always 0.
    pub pending: usize,
    /// All.
    pub total: usize,
}

/// Numbers of agents by configuration; there is nothing to synchronise here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhConfigurations {
    /// All.
    pub synced: usize,
    /// Always 0.
    pub not_synced: usize,
    /// All.
    pub total: usize,
}

/// What the API is.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhAbout {
    /// What it is.
    pub data: WazuhApiInfo,
    /// Always 0.
    pub error: u32,
}

/// What the API is.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhApiInfo {
    /// Name of the API.
    pub title: String,
    /// The version of Wazuh whose API this one follows.
    pub api_version: String,
    /// Always 0.
    pub revision: String,
    /// Licence of Riposte.
    pub license_name: String,
    /// Text of that licence.
    pub license_url: String,
    /// Name of the manager.
    pub hostname: String,
    /// Time of the manager.
    pub timestamp: Timestamp,
}

/// What the manager is.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhManager {
    /// What it is; clients look for the version in either place.
    pub data: WazuhManagerData,
    /// Always the same sentence.
    pub message: String,
    /// Always 0.
    pub error: u32,
}

/// What the manager is.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhManagerData {
    /// As `version` of the one item.
    pub version: String,
    /// One manager.
    pub affected_items: Vec<WazuhManagerInfo>,
    /// Always 1.
    pub total_affected_items: usize,
    /// Always 0.
    pub total_failed_items: usize,
    /// Always empty.
    pub failed_items: Vec<WazuhFailedItem>,
}

/// What the manager is.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WazuhManagerInfo {
    /// Always empty: Riposte has no such folder.
    pub path: String,
    /// The version of Wazuh whose API this one follows, such as `v4.14.7`.
    pub version: String,
    /// Always `server`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always `unlimited`.
    pub max_agents: String,
    /// Always `yes`.
    pub openssl_support: String,
    /// Always `+0000`.
    pub tz_offset: String,
    /// Always `UTC`.
    pub tz_name: String,
}
