//! The last step: active responses become policies. Each is validated as a policy, so the report
//! shows what storing it would find.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::loaded::{ActiveResponse, Command, Loaded, Location};
use super::programs::Programs;
use super::report::{ImportReport, short};
use crate::domain::action::Action;
use crate::domain::duration::Span;
use crate::domain::group_expression::GroupExpression;
use crate::domain::labels::{WAZUH_ID, WAZUH_MANAGER};
use crate::domain::policy::Policy;
use crate::views::import::Level;

/// Highest rule level; `ossec.conf` allows up to 20.
const MAX_LEVEL: u8 = 16;
/// Wazuh forgets repeated offenders only at a restart. A policy needs a time: long enough for an
/// attacker who returns weekly, short enough that few addresses change owner.
const FORGET_AFTER: &str = "30d";
/// Maximum length of the command's part in a policy name, in bytes.
const MAX_SLUG: usize = 48;

/// Policies, and the policy name for each active response.
pub(super) struct Carried {
    pub documents: Vec<Value>,
    pub names: Vec<Option<String>>,
}

/// Carries the active responses over.
pub(super) fn carry(loaded: &Loaded, programs: &Programs, manager: Option<&str>, report: &mut ImportReport) -> Carried {
    let ladder = ladder(loaded, report);
    let mut carried = Carried { documents: Vec::new(), names: Vec::new() };
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for block in &loaded.policies {
        let command = &loaded.commands[block.uses];
        if let Some(illegible) = &block.illegible {
            report.error(illegible.place, illegible.told());
            carried.names.push(None);
            continue;
        }
        let Some(action) = programs.of(block) else {
            report.error(block.place, "the block is not converted, because its command is not");
            carried.names.push(None);
            continue;
        };
        let Some(selectors) = selectors(block, report) else {
            carried.names.push(None);
            continue;
        };
        let slug = slug(&command.name);
        let number = numbers.entry(slug.clone()).or_insert(0);
        *number += 1;
        let name = format!("wazuh-{slug}-{number}");
        let respond = respond(block, command, action, &ladder, on(block, manager, report), report);
        let document = json!({"name": name, "mode": "enforce", "match": selectors, "respond": respond,
            "note": note(block, report)});
        match Policy::parse(&document, &programs.catalogue) {
            Ok(policy) => {
                report.once(
                    Level::Info,
                    block.place,
                    "Wazuh answers alerts of any age; here one that is older than max_age when it comes in (an hour, unless \
                     the configuration or the policy says otherwise; none lifts the limit) is spared as stale",
                );
                if policy.respond.target.is_none() && !loaded.allowlist.is_empty() {
                    report.once(
                        Level::Warning,
                        block.place,
                        "the response has no target, so no protected entry stops it; in Wazuh the white_list does, if \
                         the alert has a data.srcip that is on it. The same goes for every response without a target",
                    );
                }
                if policy.respond.action == "netsh" {
                    report.once(
                        Level::Warning,
                        block.place,
                        "Wazuh's netsh blocks data.win.eventdata.destinationIp where the alert is an event 3 of Sysmon (a connection \
                         that was made); the policy blocks source.ip, whatever the event. For rules of such events write a policy \
                         of their own with `target: destination.ip`. The same goes for every response with netsh",
                    );
                }
                carried.documents.push(document);
                carried.names.push(Some(name));
            }
            Err(faults) => {
                let faults: Vec<String> =
                    faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
                report.error(block.place, format!("the block is not converted: as a policy, {}", faults.join("; ")));
                carried.names.push(None);
            }
        }
    }
    carried
}

/// The command's part of a policy name.
fn slug(command: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let slug: String = command.chars().take(MAX_SLUG).map(plain).collect();
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "command".into() } else { slug.into() }
}

/// The note on the origin of a policy.
fn note(block: &ActiveResponse, report: &ImportReport) -> String {
    let mut words = vec![format!("command {}", short(&block.command))];
    let location: Vec<&str> = block.location.iter().map(|word| word.as_str()).collect();
    words.push(format!("location {}", location.join(",")));
    let ids: Vec<String> = block.rules_id.iter().map(u32::to_string).collect();
    let parts = [
        ("agent_id", block.agent_id.clone()),
        ("level", block.level.map(|level| level.to_string())),
        ("rules_group", block.rules_group.clone()),
        ("rules_id", Some(ids.join(",")).filter(|ids| !ids.is_empty())),
        ("timeout", Some(block.timeout_seconds.to_string())),
    ];
    words.extend(parts.into_iter().filter_map(|(name, text)| Some(format!("{name} {}", short(&text?)))));
    format!("From Wazuh's active response of {}: {}", report.at(block.place), words.join("; "))
}

/// The selectors: a rule id matches alone, level and group must match together. `None` if the block
/// cannot be converted.
fn selectors(block: &ActiveResponse, report: &mut ImportReport) -> Option<Value> {
    if block.unread_rules {
        let message = "Wazuh does not read all of rules_id: from a number it goes on at the next comma, and it stops at \
                       anything that is neither a digit, a comma nor a blank. The policy has what it does read";
        report.warning(block.place, message);
    }
    let mut selectors = Vec::new();
    if !block.rules_id.is_empty() {
        let ids: Vec<String> = block.rules_id.iter().map(u32::to_string).collect();
        selectors.push(json!({"rule_ids": ids}));
    }
    if let Some(expression) = &block.rules_group
        && let Err(error) = GroupExpression::parse(expression)
    {
        report.error(block.place, format!("the block is not converted: its rules_group {error}"));
        return None;
    }
    match (block.level.filter(|level| *level > 0), &block.rules_group) {
        (Some(level), _) if level > MAX_LEVEL => {
            let message = format!(
                "level {level} is higher than any rule's ({MAX_LEVEL} at most): the block never fires by its level, and \
                 the level is ignored"
            );
            report.warning(block.place, message);
        }
        (Some(level), Some(expression)) => selectors.push(json!({"min_level": level, "wazuh_rules_group": expression})),
        (Some(level), None) => selectors.push(json!({"min_level": level})),
        (None, Some(expression)) => selectors.push(json!({"wazuh_rules_group": expression})),
        (None, None) => {}
    }
    if selectors.is_empty() {
        let message = "the block never fires: nothing selects a rule (level 0 counts as no level). It is not converted";
        report.warning(block.place, message);
        return None;
    }
    Some(selectors.into())
}

fn respond(
    block: &ActiveResponse,
    command: &Command,
    action: &Action,
    ladder: &[String],
    on: Value,
    report: &mut ImportReport,
) -> Map<String, Value> {
    let mut respond = Map::new();
    respond.insert("action".into(), action.name.as_str().into());
    respond.insert("on".into(), on);
    if let Some(span) = time(block, action, report) {
        respond.insert("for".into(), span.into());
        if !ladder.is_empty() {
            respond.insert("escalate".into(), json!({"ladder": ladder, "forget_after": FORGET_AFTER}));
        }
    }
    // Wazuh has no quotes: a space always separates.
    let words = command.extra_args.as_deref().unwrap_or_default().split(' ');
    let arguments: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    // Arguments of custom actions are site-specific; the policy parser checks their form.
    if action.script.is_some() || action.check_arguments(&arguments, "").is_empty() {
        if !arguments.is_empty() {
            respond.insert("arguments".into(), arguments.into());
        }
    } else if !arguments.is_empty() {
        let message = format!("{} does not accept extra_args {:?}: ignored", action.name, short(&arguments.join(" ")));
        report.warning(block.place, message);
    }
    respond
}

/// The duration; `None`: without end, or for a one-shot action.
fn time(block: &ActiveResponse, action: &Action, report: &mut ImportReport) -> Option<String> {
    let seconds = block.timeout_seconds;
    if !action.undoable {
        if seconds != 0 {
            report.warning(block.place, format!("{} leaves nothing to undo: the timeout is ignored", action.name));
        }
        return None;
    }
    if seconds < 0 {
        report.warning(block.place, "a timeout below zero never ends in Wazuh: the response lasts until it is lifted");
        return None;
    }
    if seconds == 0 {
        const FOR_GOOD: &str = "without a timeout a response lasts until it is lifted by hand, as in Wazuh. The same goes for \
                                every block without one";
        report.once(Level::Info, block.place, FOR_GOOD);
        return None;
    }
    let span = span(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
    if span.is_none() {
        report.warning(block.place, "a timeout of more than ten years is none: the response lasts until it is lifted");
    }
    span
}

/// Formats a duration; `None` if it is zero or too long.
fn span(duration: Duration) -> Option<String> {
    let span: Span = format!("{}s", duration.as_secs()).parse().ok()?;
    Some(span.to_string())
}

/// On which agents. Of several words Wazuh obeys one: server before all before a named agent before the alert's own.
fn on(block: &ActiveResponse, manager: Option<&str>, report: &mut ImportReport) -> Value {
    let ActiveResponse { location, place, .. } = block;
    let word = |word: Location| location.contains(&word);
    if location.len() > 1 {
        let words: Vec<&str> = location.iter().map(|word| word.as_str()).collect();
        let mut message = format!(
            "location has several words ({}): the first in the order server, all, defined-agent, local counts",
            words.join(", ")
        );
        if word(Location::Local) && !word(Location::Server) {
            message.push_str(". Wazuh answers alerts of the manager's own host on that host then; the policy does not tell them apart");
        }
        report.warning(*place, message);
    }
    if word(Location::Server) {
        const SERVER: &str =
            "location server needs an agent of Riposte on the Wazuh manager's host, with the label wazuh_id 000";
        report.once(Level::Info, *place, SERVER);
        return json!("server");
    }
    if word(Location::All) {
        const ALL: &str = "location all leaves out the manager's own host in Wazuh; here it is every enrolled agent, \
                           that host's included if it has one";
        report.once(Level::Warning, *place, ALL);
        return json!("all");
    }
    if word(Location::DefinedAgent) {
        let written = block.agent_id.as_deref().unwrap_or_default();
        let number = super::values::number(written);
        let id = format!("{number:03}");
        if written.trim().trim_start_matches('0') != number.to_string() {
            report.warning(*place, format!("agent_id {:?} is one number to Wazuh: {id}", short(written)));
        }
        let Some(manager) = manager else {
            let message = format!(
                "the agent is found by its label {WAZUH_ID}: {id}; with several Wazuh managers, name the one that this file is of"
            );
            report.info(*place, message);
            return json!({"labels": {WAZUH_ID: id}});
        };
        report
            .info(*place, format!("the agent is found by its labels {WAZUH_ID}: {id} and {WAZUH_MANAGER}: {manager}"));
        return json!({"labels": {WAZUH_ID: id, WAZUH_MANAGER: manager}});
    }
    json!("origin")
}

/// Durations for repeated offenders.
fn ladder(loaded: &Loaded, report: &mut ImportReport) -> Vec<String> {
    let minutes = &loaded.repeated_offenders_minutes;
    let Some(place) = loaded.offenders_at.filter(|_| !minutes.is_empty()) else { return Vec::new() };
    let times = minutes.iter().map_while(|minutes| {
        let seconds = u64::try_from(*minutes).ok()?.checked_mul(60)?;
        span(Duration::from_secs(seconds))
    });
    let ladder: Vec<String> = times.collect();
    if ladder.len() < minutes.len() {
        report.warning(place, "repeated_offenders ends at its first entry that is not a time of at most ten years");
    }
    if !ladder.is_empty() {
        let message = format!(
            "repeated_offenders is read by each host from its own ossec.conf in Wazuh, and never forgotten before a restart. \
             Here it becomes the ladder of every policy with a timeout ({}), for everybody that is responded to within {FORGET_AFTER} again",
            ladder.join(", ")
        );
        report.warning(place, message);
    }
    ladder
}
