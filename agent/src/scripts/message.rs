//! Input and output of custom programs: the three message formats that Wazuh has had, and the one
//! question that a program may ask. Builds and reads texts only; runs nothing.

use riposte_protocol::command::{Op, Script, ScriptStyle};
use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Map, Value, json};

use super::order::{OrderedAlert, WazuhMessage, WazuhOrigin, WazuhParameters};
use crate::actions::Attempt;
use crate::conventions::{FOLDER, minimal_alert, verb};

/// Limit of keys in one question; Wazuh itself limits their bytes.
const MAX_KEYS: usize = 64;

/// Wazuh 5's name of an operation.
pub(super) fn verb_of_5(op: Op) -> &'static str {
    match op {
        Op::Apply => "enable",
        Op::Revert => "disable",
    }
}

fn minimal_alert_of_5(target: &Target) -> Value {
    let value = target.value();
    match target.kind() {
        TargetKind::Ip => json!({ "source": { "ip": value } }),
        TargetKind::User => json!({ "user": { "name": value } }),
        TargetKind::File => json!({ "file": { "path": value } }),
        TargetKind::Process => json!({ "process": { "pid": value } }),
        TargetKind::Host | TargetKind::None => json!({}),
    }
}

/// The alert for the program: the one that came with the command, or the one in the journal.
fn alert<'a>(attempt: &'a Attempt<'_>) -> Option<&'a Value> {
    let kept = || attempt.undo.and_then(|undo| undo.get("alert"));
    attempt.alert.or_else(kept).filter(|alert| alert.is_object())
}

/// The line on standard input for a program that reads JSON.
pub(super) fn line(attempt: &Attempt<'_>, script: &Script, command: &str) -> String {
    let message = match script.style {
        ScriptStyle::Wazuh5 => {
            let mut message = match alert(attempt).cloned().unwrap_or_else(|| minimal_alert_of_5(attempt.target)) {
                Value::Object(alert) => alert,
                _ => Map::new(),
            };
            message.insert("command".into(), command.into());
            serde_json::to_string(&message)
        }
        ScriptStyle::Wazuh | ScriptStyle::Argv => {
            let least = || minimal_alert(attempt.target, &script.executable);
            let alert = alert(attempt).cloned().unwrap_or_else(least);
            let parameters = WazuhParameters {
                extra_args: attempt.arguments,
                alert: OrderedAlert(&alert),
                program: format!("{FOLDER}/{}", script.executable),
            };
            let origin = WazuhOrigin { name: "", module: "wazuh-execd" };
            serde_json::to_string(&WazuhMessage { version: 1, origin, command, parameters })
        }
    };
    // Texts and numbers as keys and values can always be written.
    format!("{}\n", message.unwrap_or_default())
}

/// Reads a program's question; `None` if the line is none.
pub(super) fn keys_of(line: &str) -> Option<Vec<String>> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["command"] != "check_keys" {
        return None;
    }
    let keys = message["parameters"]["keys"].as_array()?;
    Some(keys.iter().take(MAX_KEYS).filter_map(|key| key.as_str().map(str::to_owned)).collect())
}

/// The arguments for a program from before Wazuh 4.2; a missing one is a dash.
pub(super) fn argv(attempt: &Attempt<'_>, op: Op) -> Vec<String> {
    let alert = alert(attempt);
    let text = |pointer: &str| {
        // No control characters: a program from before 4.2 may pass it on to a shell, or into a
        // file by lines.
        let text = alert.and_then(|alert| alert.pointer(pointer)).and_then(Value::as_str).unwrap_or_default();
        let text: String = text.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let aimed = |kind: TargetKind, pointer: &str| {
        if attempt.target.kind() == kind { attempt.target.value().to_owned() } else { text(pointer) }
    };
    let mut words = vec![
        verb(op).to_owned(),
        aimed(TargetKind::User, "/data/dstuser"),
        aimed(TargetKind::Ip, "/data/srcip"),
        if alert.is_some() { text("/id") } else { "(from_the_server)".into() },
        if alert.is_some() { text("/rule/id") } else { "(no_rule_id)".into() },
        text("/location"),
        aimed(TargetKind::File, "/syscheck/path"),
    ];
    words.extend(attempt.arguments.iter().cloned());
    words
}
