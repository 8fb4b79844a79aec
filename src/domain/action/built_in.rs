//! Built-in actions. Each is a file of the agent's `actions/`, described in `docs/actions.md`.

use riposte_protocol::target::TargetKind;
use serde_json::{Value, json};

use super::definition::{Accounts, Action, free_arguments};
use crate::domain::alert::TargetField;

const LINUX: &[&str] = &["linux"];
const UNIX: &[&str] = &["linux", "macos", "freebsd", "openbsd", "netbsd"];
const EVERYWHERE: &[&str] = &["linux", "macos", "freebsd", "openbsd", "netbsd", "windows"];
const ANY_TARGET: &[TargetKind] =
    &[TargetKind::None, TargetKind::Ip, TargetKind::User, TargetKind::File, TargetKind::Process, TargetKind::Host];

// Names of techniques in D3FEND.
const ACCOUNT_LOCKING: &str = "D3-AL";
const CONTENT_QUARANTINE: &str = "D3-CQ";
const NETWORK_ISOLATION: &str = "D3-NI";
const NETWORK_TRAFFIC_FILTERING: &str = "D3-NTF";
const PROCESS_TERMINATION: &str = "D3-PT";

/// All built-in actions.
pub(super) fn all() -> Vec<Action> {
    vec![
        on_user("disable-account", "Locks a local account; lifting it restores exactly the earlier state.")
            .on(&["linux", "macos", "freebsd", "openbsd", "netbsd", "windows"])
            .taking(words(&["end-sessions"]))
            .being(ACCOUNT_LOCKING),
        on_ip("firewall-drop", "Drops every packet from an address, to the host and through it.")
            .on(UNIX)
            .taking(words(&["output"]))
            .being(NETWORK_TRAFFIC_FILTERING),
        on_ip("firewalld-drop", "Drops an address by a rich rule of firewalld, until it is reloaded.").on(LINUX).being(NETWORK_TRAFFIC_FILTERING),
        on_ip("host-deny", "Denies an address by a line of its own in hosts.deny or hosts.allow.").on(UNIX).being(NETWORK_TRAFFIC_FILTERING),
        on_ip("ip-customblock", "Makes a marker file for an address, for what a site's own programs do with it.").on(UNIX),
        on_ip("ipfw", "Blocks an address by a table of ipfw.").on(&["freebsd"]).being(NETWORK_TRAFFIC_FILTERING),
        Action {
            target_kinds: vec![TargetKind::Host],
            default_target: Some(TargetField::Host),
            ..action("isolate-host", "Cuts the host off from everything but its manager.")
        }
        .on(LINUX)
        .taking(json!({"type": "array", "items": {"type": "string", "pattern": "^allow=[0-9a-fA-F.:/]+$"}, "uniqueItems": true}))
        .being(NETWORK_ISOLATION),
        action("kaspersky", "Starts a task of Kaspersky Endpoint Security for Linux.")
            .at(ANY_TARGET)
            .on(LINUX)
            .taking(json!({"type": "array", "minItems": 1, "items": {"type": "string"}}))
            .once(),
        Action {
            target_kinds: vec![TargetKind::Process],
            default_target: Some(TargetField::ProcessId),
            ..action("kill-process", "Ends a process.")
        }
        .on(LINUX)
        .taking(json!({"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^(name=.{1,64}|path=/.{1,1000})$"}}))
        .being(PROCESS_TERMINATION)
        .once(),
        Action { target_kinds: ANY_TARGET.to_vec(), ..action("log-only", "Writes one line to the agent's log and changes nothing.") }
            .on(EVERYWHERE)
            .taking(free_arguments()),
        on_ip("netsh", "Blocks an address by a rule of the Windows firewall.").on(&["windows"]).being(NETWORK_TRAFFIC_FILTERING),
        on_ip("npf", "Blocks an address by a table of npf.").on(&["netbsd"]).being(NETWORK_TRAFFIC_FILTERING),
        on_ip("pf", "Blocks an address by a table of pf.").on(&["openbsd", "freebsd", "macos"]).being(NETWORK_TRAFFIC_FILTERING),
        Action {
            target_kinds: vec![TargetKind::File],
            default_target: Some(TargetField::FilePath),
            ..action("quarantine-file", "Moves a file into quarantine, where no program can open it; lifting restores it.")
        }
        .on(LINUX)
        .being(CONTENT_QUARANTINE),
        action("restart-wazuh", "Restarts the Wazuh agent or manager of the host.")
            .at(&[TargetKind::None, TargetKind::Host])
            .on(EVERYWHERE)
            .once(),
        action("restart.sh", "Restarts the Wazuh agent or manager of the host, whichever is named.")
            .at(&[TargetKind::None, TargetKind::Host])
            .on(EVERYWHERE)
            .taking(json!({"type": "array", "minItems": 1, "maxItems": 1, "items": {"enum": ["agent", "manager"]}}))
            .once(),
        on_ip("route-null", "Routes everything to an address into a black hole.").on(&["linux", "freebsd", "windows"]).being(NETWORK_TRAFFIC_FILTERING),
        Action { wants_alert: true, ..action("wazuh-slack", "Posts the alert to a Slack hook.") }
            .at(ANY_TARGET)
            .on(EVERYWHERE)
            .taking(json!({"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "string", "pattern": "^(https://[^\\s]+|secret:[a-z0-9][a-z0-9._-]{0,63})$"}}))
            .once(),
    ]
}

fn on_ip(name: &str, summary: &str) -> Action {
    let (target_kinds, default_target) = (vec![TargetKind::Ip], Some(TargetField::SourceIp));
    Action { target_kinds, default_target, ..action(name, summary) }
}

fn on_user(name: &str, summary: &str) -> Action {
    let (target_kinds, default_target) = (vec![TargetKind::User], Some(TargetField::DestinationUser));
    Action { target_kinds, default_target, ..action(name, summary) }
}

fn action(name: &str, summary: &str) -> Action {
    Action {
        name: name.into(),
        summary: summary.into(),
        target_kinds: vec![TargetKind::None],
        user: Accounts::Local,
        default_target: None,
        undoable: true,
        platforms: Vec::new(),
        parameters: words(&[]),
        wants_alert: false,
        d3fend: Vec::new(),
        script: None,
    }
}

impl Action {
    fn at(self, target_kinds: &[TargetKind]) -> Self {
        Self { target_kinds: target_kinds.to_vec(), ..self }
    }

    fn on(self, platforms: &[&str]) -> Self {
        Self { platforms: platforms.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    fn taking(self, parameters: Value) -> Self {
        Self { parameters, ..self }
    }

    fn being(self, technique: &str) -> Self {
        Self { d3fend: vec![technique.to_owned()], ..self }
    }

    fn once(self) -> Self {
        Self { undoable: false, ..self }
    }
}

/// JSON Schema of an array of distinct strings out of `words`.
fn words(words: &[&str]) -> Value {
    match words {
        [] => json!({"type": "array", "maxItems": 0}),
        _ => json!({"type": "array", "items": {"enum": words}, "uniqueItems": true}),
    }
}
