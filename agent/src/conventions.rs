//! What is fixed for custom programs, mostly by Wazuh: their folder, the prefix of their names,
//! their time limit, the words for apply and revert, and the fields of an alert in which a program
//! finds its target.

use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Value, json};

/// The folder of custom programs, below Wazuh's home.
pub const FOLDER: &str = "active-response/bin";
/// Prefix of a program's name where the name of an action is expected.
pub const PREFIX: &str = "script:";
/// Default time limit of a custom program.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// Wazuh's name of an operation.
pub fn verb(op: Op) -> &'static str {
    match op {
        Op::Apply => "add",
        Op::Revert => "delete",
    }
}

/// The minimal alert that Wazuh's programs can read, for a response without one: a response by
/// hand.
pub fn minimal_alert(target: &Target, action: &str) -> Value {
    let value = target.value();
    let mut alert = json!({
        "rule": { "id": "0", "level": 0, "description": format!("Riposte: {action}"), "groups": ["riposte"] },
        "id": "0",
        "data": {},
        "location": "riposte",
    });
    match target.kind() {
        TargetKind::Ip => alert["data"]["srcip"] = value.into(),
        TargetKind::User => alert["data"]["dstuser"] = value.into(),
        TargetKind::File => {
            alert["data"]["file"] = value.into();
            alert["syscheck"] = json!({ "path": value });
        }
        TargetKind::Process => alert["data"]["pid"] = value.into(),
        TargetKind::Host | TargetKind::None => {}
    }
    alert
}
