//! `/v1/actions`: what agents can run.

use riposte_protocol::command::ScriptStyle;
use riposte_protocol::target::TargetKind;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::Millis;
use super::document::DocumentText;
use crate::domain::action::{Accounts, Action};
use crate::domain::alert::TargetField;

/// An action at its current version.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ActionView {
    /// The action.
    #[serde(flatten)]
    #[schema(value_type = Action)]
    pub action: DocumentText,
    /// Current version, equal to the `ETag`; absent for built-in actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Time of the last change; absent for built-in actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Millis>,
}

/// What a client reads of an action's document.
#[derive(Debug, Deserialize)]
pub struct ActionSummary {
    /// Unique name.
    pub name: String,
    /// Whether it is a custom action: its program.
    pub script: Option<IgnoredAny>,
}

// The manager parses it by hand, to report all faults at once.
/// A custom action as submitted.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CustomAction {
    /// Unique name: a-z, 0-9, '-', '_' and '.', at most 64 characters; not the name of a built-in
    /// action.
    pub name: String,
    /// What the action does, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// File name of the program in the agents' program folder.
    pub executable: String,
    /// How the program is invoked; absent: as in Wazuh 4.2 and later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<ScriptStyle>,
    /// Kinds of target that it accepts; absent: `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_kinds: Option<Vec<TargetKind>>,
    /// Accounts that it accepts as a target of kind `user`; absent: `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Accounts>,
    /// Default observable to target, if the policy names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_target: Option<TargetField>,
    /// Whether the program runs again to undo the action; absent: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undoable: Option<bool>,
    /// Supported operating systems; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// JSON Schema of its arguments, an array of strings; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Whether the command includes the alert; absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wants_alert: Option<bool>,
}
