//! The actions that come with Riposte. Each is a file of the agent's `actions/`; a test of the agent's compares the names.

use riposte_protocol::target::TargetKind;
use serde_json::{Value, json};

use super::Action;
use super::custom::free_arguments;
use crate::domain::alert::TargetField;

const LINUX: &[&str] = &["linux"];
const EVERYWHERE: &[&str] = &["linux", "macos", "freebsd", "openbsd", "netbsd", "windows"];

/// Every action of Riposte's own.
pub(super) fn all() -> Vec<Action> {
    let ip = || action(&[TargetKind::Ip], Some(TargetField::SourceIp));
    let any =
        [TargetKind::None, TargetKind::Ip, TargetKind::User, TargetKind::File, TargetKind::Process, TargetKind::Host];
    let action = |name: &str, summary: &str, platforms: &[&str], rest: Action| Action {
        name: name.into(),
        summary: summary.into(),
        platforms: platforms.iter().map(|word| (*word).to_owned()).collect(),
        ..rest
    };
    vec![
        action(
            "disable-account",
            "Locks a local account; lifting it restores exactly the earlier state.",
            LINUX,
            Action {
                parameters: words(&["end-sessions"]),
                ..self::action(&[TargetKind::User], Some(TargetField::DestinationUser))
            },
        ),
        action(
            "firewall-drop",
            "Drops every packet from an address, to the host and through it.",
            LINUX,
            Action { parameters: words(&["output"]), ..ip() },
        ),
        action(
            "log-only",
            "Writes one line to the agent's log and changes nothing.",
            EVERYWHERE,
            Action { parameters: free_arguments(), ..self::action(&any, None) },
        ),
        action("route-null", "Routes everything to an address into a black hole.", LINUX, ip()),
    ]
}

fn action(target_kinds: &[TargetKind], default_target: Option<TargetField>) -> Action {
    Action {
        name: String::new(),
        summary: String::new(),
        target_kinds: target_kinds.to_vec(),
        default_target,
        undoable: true,
        platforms: Vec::new(),
        parameters: words(&[]),
        wants_alert: false,
        script: None,
    }
}

/// The schema of a list of some of `words`, each at most once.
fn words(words: &[&str]) -> Value {
    match words {
        [] => json!({"type": "array", "maxItems": 0}),
        _ => json!({"type": "array", "items": {"enum": words}, "uniqueItems": true}),
    }
}
