//! A command: what it does, to what, for how long, and where. Each fault names its field.

use serde_json::{Map, Value};

use super::answer::OpenC2Answer;

/// What may be asked about.
pub const FEATURES: [&str; 4] = ["versions", "profiles", "pairs", "rate_limit"];
/// Actions with their targets, for `query`.
pub const PAIRS: [(&str, &[&str]); 7] = [
    ("query", &["features"]),
    ("deny", &["ipv4_net", "ipv6_net", "ipv4_connection", "ipv6_connection"]),
    ("allow", &["ipv4_net", "ipv6_net", "ipv4_connection", "ipv6_connection"]),
    ("contain", &["device"]),
    ("restore", &["device"]),
    ("cancel", &["command"]),
    ("delete", &["slpf:rule_number"]),
];
/// Longest id of a command, by OpenC2.
const MAX_ID: usize = 36;
/// Longest name of a host.
const MAX_NAME: usize = 256;

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// Says what this consumer can do.
    Query(Vec<&'static str>),
    /// Blocks an address or a network.
    Deny {
        /// The address or network.
        address: String,
        /// Whether also what is sent to it.
        both: bool,
    },
    /// Lifts the blocks of this address or network.
    Allow(String),
    /// Isolates a host, by its name or the id of its agent.
    Contain(String),
    /// Lifts its isolation.
    Restore(String),
    /// Ends what an earlier command of the same producer did, by the id of that command.
    Cancel(String),
    /// Ends what has this rule number.
    Delete(i64),
}

/// What a producer wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseRequested {
    /// Nothing.
    None,
    /// That the command arrived.
    Ack,
    /// How it stands, or that it is done.
    Outcome,
}

/// `start_time`, `stop_time` and `duration`, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandTimes {
    /// Since when.
    pub start: Option<i64>,
    /// Until when.
    pub stop: Option<i64>,
    /// For how long.
    pub duration: Option<i64>,
}

/// Which hosts enforce it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandActuator {
    /// Name of the host.
    pub hostname: Option<String>,
    /// Id or Wazuh id of the agent.
    pub asset_id: Option<String>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenC2Command {
    /// The producer's id of it.
    pub id: Option<String>,
    /// What it does.
    pub kind: CommandKind,
    /// For how long.
    pub times: CommandTimes,
    /// What the producer wants to hear.
    pub requested: ResponseRequested,
    /// Where.
    pub actuator: CommandActuator,
}

type Read<T> = Result<T, OpenC2Answer>;
type Fields = Map<String, Value>;

/// Reads a command.
///
/// # Errors
/// 400 for a fault, 501 for what Riposte cannot do.
pub fn read(command: &Fields) -> Read<OpenC2Command> {
    only(command, "", &["action", "target", "args", "actuator", "command_id"])?;
    let action = text(command, "", "action", MAX_NAME)?.ok_or_else(|| OpenC2Answer::bad("/action is missing"))?;
    let id = text(command, "", "command_id", MAX_ID)?;
    if id.as_deref().is_some_and(|id| id.chars().any(|c| !c.is_ascii_graphic())) {
        return Err(OpenC2Answer::bad("/command_id must be visible ASCII characters"));
    }
    let target = fields(command, "", "target")?.ok_or_else(|| OpenC2Answer::bad("/target is missing"))?;
    let mut targets = target.iter();
    let (Some((name, value)), None) = (targets.next(), targets.next()) else {
        return Err(OpenC2Answer::bad("/target must have exactly one field, the type of the target"));
    };
    let empty = Fields::new();
    let args = Arguments::read(fields(command, "", "args")?.unwrap_or(&empty))?;
    let kind = kind(&action, (name, value), &args)?;
    let actuator = actuator(fields(command, "", "actuator")?.unwrap_or(&empty))?;
    args.are_kept_by(&kind)?;
    Ok(OpenC2Command { id, kind, times: args.times, requested: args.requested, actuator })
}

fn kind(action: &str, (name, value): (&str, &Value), args: &Arguments) -> Read<CommandKind> {
    let Some((_, targets)) = PAIRS.iter().find(|(known, _)| *known == action) else {
        let known: Vec<&str> = PAIRS.iter().map(|(known, _)| *known).collect();
        return Err(OpenC2Answer::beyond(format!("/action is none of {}", known.join(", "))));
    };
    // Both spellings of a target of a profile.
    let (name, value) = match (name, value.get("rule_number")) {
        ("slpf", Some(number)) => ("slpf:rule_number", number),
        _ => (name, value),
    };
    if !targets.contains(&name) {
        return Err(OpenC2Answer::beyond(format!("/target: {action} takes {}", targets.join(", "))));
    }
    let at = format!("/target/{name}");
    match (action, name) {
        ("query", _) => features(value).map(CommandKind::Query),
        ("contain" | "restore", _) => {
            let device = device(value, &at)?;
            Ok(if action == "contain" { CommandKind::Contain(device) } else { CommandKind::Restore(device) })
        }
        ("cancel", _) => Ok(CommandKind::Cancel(plain(value, &at, MAX_ID)?)),
        ("delete", _) => rule_number(value).map(CommandKind::Delete),
        _ => {
            let is_connection = name.ends_with("_connection");
            let address = if is_connection { remote(value, &at, args)? } else { net(&plain(value, &at, MAX_NAME)?) };
            let is_right = address.contains(':') == name.starts_with("ipv6");
            if !is_right {
                return Err(OpenC2Answer::bad(format!("{at} is not an address of that version")));
            }
            if action == "allow" {
                return Ok(CommandKind::Allow(address));
            }
            if args.direction == Some(Direction::Egress) {
                let why = "/args/direction: egress alone cannot be denied; ingress and both can";
                return Err(OpenC2Answer::beyond(why));
            }
            let both = !is_connection && args.direction != Some(Direction::Ingress);
            Ok(CommandKind::Deny { address, both })
        }
    }
}

/// A network with all bits is an address.
fn net(text: &str) -> String {
    let whole = if text.contains(':') { "/128" } else { "/32" };
    text.strip_suffix(whole).unwrap_or(text).to_owned()
}

/// The one address of a connection that can be blocked as a whole: where its packets come from.
fn remote(value: &Value, at: &str, args: &Arguments) -> Read<String> {
    let connection = value.as_object().ok_or_else(|| OpenC2Answer::bad(format!("{at} is not an object")))?;
    only(connection, at, &["protocol", "src_addr", "src_port", "dst_addr", "dst_port"])?;
    let source = text(connection, at, "src_addr", MAX_NAME)?;
    match source {
        Some(source) if connection.len() == 1 && args.direction != Some(Direction::Both) => Ok(net(&source)),
        _ => Err(OpenC2Answer::beyond(format!(
            "{at}: only all packets from src_addr can be denied; protocol, ports and dst_addr cannot be told apart"
        ))),
    }
}

fn features(value: &Value) -> Read<Vec<&'static str>> {
    let list = value.as_array().ok_or_else(|| OpenC2Answer::bad("/target/features is not a list"))?;
    let mut found = Vec::new();
    for (index, word) in list.iter().enumerate() {
        let known = FEATURES.into_iter().find(|known| word == known).filter(|known| !found.contains(known));
        found.push(known.ok_or_else(|| {
            OpenC2Answer::bad(format!("/target/features/{index} is none of {}, or twice", FEATURES.join(", ")))
        })?);
    }
    Ok(found)
}

fn device(value: &Value, at: &str) -> Read<String> {
    let device = value.as_object().ok_or_else(|| OpenC2Answer::bad(format!("{at} is not an object")))?;
    only(device, at, &["hostname", "idn_hostname", "device_id"])?;
    let mut names = Vec::new();
    for key in ["device_id", "hostname", "idn_hostname"] {
        names.extend(text(device, at, key, MAX_NAME)?);
    }
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(OpenC2Answer::bad(format!("{at} must have one of hostname, idn_hostname and device_id"))),
    }
}

/// A number, or a number as text: producers send both.
fn rule_number(value: &Value) -> Read<i64> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| OpenC2Answer::bad("/target/slpf:rule_number is not a number"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
    Both,
}

/// What the arguments say.
#[derive(Debug)]
struct Arguments {
    times: CommandTimes,
    requested: ResponseRequested,
    direction: Option<Direction>,
}

impl Arguments {
    fn read(args: &Fields) -> Read<Self> {
        const OF_PROFILE: [&str; 4] = ["direction", "drop_process", "persistent", "insert_rule"];
        let general = ["start_time", "stop_time", "duration", "response_requested", "slpf"];
        only(args, "/args", &[&general[..], &OF_PROFILE[..]].concat())?;
        let mut of_profile: Fields = args
            .iter()
            .filter(|(key, _)| OF_PROFILE.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if let Some(inner) = fields(args, "/args", "slpf")? {
            only(inner, "/args/slpf", &OF_PROFILE)?;
            of_profile.extend(inner.clone());
        }
        let requested = match text(args, "/args", "response_requested", MAX_NAME)?.as_deref() {
            Some("none") => ResponseRequested::None,
            Some("ack") => ResponseRequested::Ack,
            None | Some("status" | "complete") => ResponseRequested::Outcome,
            Some(_) => {
                return Err(OpenC2Answer::bad("/args/response_requested is none of none, ack, status, complete"));
            }
        };
        let direction = match text(&of_profile, "/args", "direction", MAX_NAME)?.as_deref() {
            None => None,
            Some("ingress") => Some(Direction::Ingress),
            Some("egress") => Some(Direction::Egress),
            Some("both") => Some(Direction::Both),
            Some(_) => return Err(OpenC2Answer::bad("/args/direction is none of ingress, egress, both")),
        };
        match text(&of_profile, "/args", "drop_process", MAX_NAME)?.as_deref() {
            None | Some("none") => {}
            Some("reject" | "false_ack") => {
                return Err(OpenC2Answer::beyond("/args/drop_process: packets are dropped in silence (none)"));
            }
            Some(_) => return Err(OpenC2Answer::bad("/args/drop_process is none of none, reject, false_ack")),
        }
        match of_profile.get("persistent") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => {
                return Err(OpenC2Answer::beyond("/args/persistent: blocks survive a restart of the host"));
            }
            Some(_) => return Err(OpenC2Answer::bad("/args/persistent is not true or false")),
        }
        if of_profile.contains_key("insert_rule") {
            return Err(OpenC2Answer::beyond("/args/insert_rule: rules have no order here"));
        }
        let times = CommandTimes {
            start: millis(args, "start_time")?,
            stop: millis(args, "stop_time")?,
            duration: millis(args, "duration")?,
        };
        Ok(Self { times, requested, direction })
    }
}

impl Arguments {
    /// Refuses times and directions of commands that have none: what ends ends now, and as a whole.
    fn are_kept_by(&self, kind: &CommandKind) -> Read<()> {
        let (takes_times, takes_direction) = match kind {
            CommandKind::Deny { .. } => (true, true),
            CommandKind::Contain(_) => (true, false),
            CommandKind::Allow(_) => (false, self.direction != Some(Direction::Egress)),
            CommandKind::Query(_) | CommandKind::Restore(_) | CommandKind::Cancel(_) | CommandKind::Delete(_) => {
                (false, false)
            }
        };
        if !takes_times && self.times != CommandTimes::default() {
            let why = "/args: start_time, stop_time and duration are for deny and contain; others act now and for good";
            return Err(OpenC2Answer::beyond(why));
        }
        if !takes_direction && self.direction.is_some() {
            return Err(OpenC2Answer::beyond("/args/direction: the command has none, or cannot act on this one alone"));
        }
        Ok(())
    }
}

fn millis(args: &Fields, key: &str) -> Read<Option<i64>> {
    let Some(value) = args.get(key) else { return Ok(None) };
    let millis = value.as_i64().filter(|millis| *millis > 0);
    let bad = || OpenC2Answer::bad(format!("/args/{key} is not a number of milliseconds"));
    millis.map(Some).ok_or_else(bad)
}

fn actuator(actuator: &Fields) -> Read<CommandActuator> {
    if let Some(other) = actuator.keys().find(|profile| *profile != "slpf") {
        return Err(OpenC2Answer::beyond(format!("/actuator/{}: the only profile is slpf", shown(other))));
    }
    let Some(of) = fields(actuator, "/actuator", "slpf")? else { return Ok(CommandActuator::default()) };
    let at = "/actuator/slpf";
    if let Some(other) = ["named_group", "asset_tuple"].into_iter().find(|key| of.contains_key(*key)) {
        return Err(OpenC2Answer::beyond(format!("{at}/{other}: name a host by hostname or asset_id")));
    }
    only(of, at, &["hostname", "asset_id"])?;
    Ok(CommandActuator { hostname: text(of, at, "hostname", MAX_NAME)?, asset_id: text(of, at, "asset_id", MAX_NAME)? })
}

/// Refuses fields that are not known: what is ignored would look as if it was done.
fn only(fields: &Fields, at: &str, known: &[&str]) -> Read<()> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(other) => Err(OpenC2Answer::beyond(format!("{at}/{} is not known", shown(other)))),
    }
}

/// A foreign word, short and visible.
fn shown(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn fields<'a>(of: &'a Fields, at: &str, key: &str) -> Read<Option<&'a Fields>> {
    match of.get(key) {
        None => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(inner)),
        Some(_) => Err(OpenC2Answer::bad(format!("{at}/{key} is not an object"))),
    }
}

fn text(of: &Fields, at: &str, key: &str, longest: usize) -> Read<Option<String>> {
    of.get(key).map(|value| plain(value, &format!("{at}/{key}"), longest)).transpose()
}

fn plain(value: &Value, at: &str, longest: usize) -> Read<String> {
    let is_right = |text: &&str| (1..=longest).contains(&text.len());
    let text = value.as_str().filter(is_right);
    text.map(str::to_owned).ok_or_else(|| OpenC2Answer::bad(format!("{at} is not a text of 1 to {longest} bytes")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(command: &Value) -> Read<OpenC2Command> {
        read(command.as_object().unwrap())
    }

    fn deny(target: &Value, args: &Value) -> Read<CommandKind> {
        of(&json!({"action": "deny", "target": target, "args": args})).map(|command| command.kind)
    }

    #[test]
    fn both_dialects_mean_the_same() {
        let otupy = json!({"action": "deny", "target": {"ipv4_net": "203.0.113.7/32"},
            "args": {"slpf": {"direction": "ingress"}, "response_requested": "complete", "duration": 600_000},
            "actuator": {"slpf": {"hostname": "web-01", "asset_id": "005"}}});
        let flat = json!({"action": "deny", "target": {"ipv4_net": "203.0.113.7"},
            "args": {"direction": "ingress", "drop_process": "none", "response_requested": "complete", "duration": 600_000},
            "actuator": {"slpf": {"hostname": "web-01", "asset_id": "005"}}});
        let (otupy, flat) = (of(&otupy).unwrap(), of(&flat).unwrap());
        assert_eq!(otupy, flat);
        assert_eq!(otupy.kind, CommandKind::Deny { address: "203.0.113.7".into(), both: false });
        assert_eq!(otupy.times, CommandTimes { duration: Some(600_000), ..CommandTimes::default() });
        for number in [
            json!({"slpf:rule_number": 1234}),
            json!({"slpf:rule_number": "1234"}),
            json!({"slpf": {"rule_number": 1234}}),
        ] {
            let command = of(&json!({"action": "delete", "target": number})).unwrap();
            assert_eq!(command.kind, CommandKind::Delete(1234));
        }
    }

    #[test]
    fn a_block_is_exactly_what_was_asked_for_or_refused() {
        let net = json!({"ipv6_net": "2001:db8::/64"});
        assert_eq!(deny(&net, &json!({})), Ok(CommandKind::Deny { address: "2001:db8::/64".into(), both: true }));
        let from = json!({"ipv4_connection": {"src_addr": "192.0.2.1"}});
        assert_eq!(deny(&from, &json!({})), Ok(CommandKind::Deny { address: "192.0.2.1".into(), both: false }));
        for (target, args) in [
            (json!({"ipv4_connection": {"protocol": "tcp", "dst_addr": "192.0.2.1", "dst_port": 22}}), json!({})),
            (json!({"ipv4_connection": {"src_addr": "192.0.2.1", "src_port": 22}}), json!({})),
            (from, json!({"direction": "both"})),
            (net.clone(), json!({"direction": "egress"})),
            (net.clone(), json!({"slpf": {"drop_process": "reject"}})),
            (net.clone(), json!({"persistent": false})),
            (net.clone(), json!({"insert_rule": 7})),
            (net.clone(), json!({"what": 1})),
            (json!({"uri": "https://example.org"}), json!({})),
        ] {
            let fault = deny(&target, &args).unwrap_err();
            assert_eq!(fault.status as u16, 501, "{target} {args}: {}", fault.text);
        }
    }

    #[test]
    fn times_and_directions_that_would_be_ignored_are_refused() {
        let device = json!({"device": {"hostname": "web-01"}});
        let net = json!({"ipv4_net": "203.0.113.7"});
        for (action, target, args) in [
            ("allow", &net, json!({"duration": 600_000})),
            ("allow", &net, json!({"direction": "egress"})),
            ("restore", &device, json!({"start_time": 600_000})),
            ("restore", &device, json!({"direction": "both"})),
            ("contain", &device, json!({"direction": "ingress"})),
            ("cancel", &json!({"command": "c-1"}), json!({"stop_time": 600_000})),
            ("delete", &json!({"slpf:rule_number": 7}), json!({"duration": 600_000})),
        ] {
            let fault = of(&json!({"action": action, "target": target, "args": args})).unwrap_err();
            assert_eq!(fault.status as u16, 501, "{action} {args}: {}", fault.text);
            of(&json!({"action": action, "target": target})).unwrap();
        }
        of(&json!({"action": "allow", "target": net, "args": {"direction": "ingress"}})).unwrap();
    }

    #[test]
    fn a_fault_names_its_field() {
        let net = json!({"ipv4_net": "203.0.113.7"});
        for (command, field) in [
            (json!({}), "/action"),
            (json!({"action": 7, "target": net}), "/action"),
            (json!({"action": "deny"}), "/target"),
            (json!({"action": "deny", "target": {}}), "/target"),
            (json!({"action": "deny", "target": {"ipv4_net": "a", "ipv6_net": "b"}}), "/target"),
            (json!({"action": "deny", "target": {"ipv4_net": "2001:db8::1"}}), "/target/ipv4_net"),
            (json!({"action": "deny", "target": {"ipv4_net": 7}}), "/target/ipv4_net"),
            (json!({"action": "deny", "target": net, "args": []}), "/args"),
            (json!({"action": "deny", "target": net, "args": {"duration": 0}}), "/args/duration"),
            (json!({"action": "deny", "target": net, "args": {"start_time": "x"}}), "/args/start_time"),
            (json!({"action": "deny", "target": net, "args": {"response_requested": "x"}}), "/args/response_requested"),
            (json!({"action": "deny", "target": net, "args": {"direction": "up"}}), "/args/direction"),
            (json!({"action": "deny", "target": net, "command_id": "a b"}), "/command_id"),
            (json!({"action": "deny", "target": net, "command_id": "x".repeat(37)}), "/command_id"),
            (json!({"action": "query", "target": {"features": ["versions", "x"]}}), "/target/features/1"),
            (json!({"action": "query", "target": {"features": ["versions", "versions"]}}), "/target/features/1"),
            (json!({"action": "contain", "target": {"device": {"hostname": "a", "device_id": "b"}}}), "/target/device"),
            (json!({"action": "delete", "target": {"slpf:rule_number": -1}}), "/target/slpf:rule_number"),
        ] {
            let fault = of(&command).unwrap_err();
            assert!(fault.text.starts_with(field) && fault.status as u16 == 400, "{command}: {fault:?}");
        }
        for (command, field) in [
            (json!({"action": "scan", "target": net}), "/action"),
            (json!({"action": "deny", "target": net, "x\u{1b}[m": 1}), "/x[m"),
            (json!({"action": "deny", "target": net, "actuator": {"er": {}}}), "/actuator/er"),
            (
                json!({"action": "deny", "target": net, "actuator": {"slpf": {"named_group": "g"}}}),
                "/actuator/slpf/named_group",
            ),
        ] {
            let fault = of(&command).unwrap_err();
            assert!(fault.text.starts_with(field) && fault.status as u16 == 501, "{command}: {fault:?}");
        }
    }
}
