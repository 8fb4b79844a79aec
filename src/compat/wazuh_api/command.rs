//! The `command` of `PUT /active-response`: a line of Wazuh's `ar.conf`, which is a command with its time-out
//! in seconds (`firewall-drop600`), or `!` and the name of a program, which Wazuh never undoes.

use std::sync::Arc;
use std::time::Duration;

use crate::compat::ossec::meaning;
use crate::domain::action::{Action, Catalogue};
use crate::domain::duration::Span;

/// Longest command, in bytes: that of a name in `ar.conf`.
const MAX_COMMAND: usize = 256;
/// Most digits of a time-out. More is longer than ten years, which is the most.
const MAX_DIGITS: usize = 9;

/// What a command means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalledCommand {
    /// The action.
    pub action: Arc<Action>,
    /// For how long; until it is lifted if absent.
    pub duration: Option<Duration>,
    /// Whether the command cannot say for how long, and leaves something that is to be lifted.
    pub is_endless_by_form: bool,
}

/// Why a command means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// There is none.
    #[error("Active response command not specified")]
    Missing,
    /// It has a form that Wazuh does not accept either.
    #[error("'command' {0}")]
    Form(&'static str),
    /// There is no such command.
    #[error("{0}")]
    Unknown(String),
}

/// Reads a command.
///
/// # Errors
/// Why it means nothing here.
pub fn read(text: &str, actions: &Catalogue) -> Result<CalledCommand, CommandFault> {
    if text.is_empty() {
        return Err(CommandFault::Missing);
    }
    let (is_program, name) = text.strip_prefix('!').map_or((false, text), |name| (true, name));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '\\' | '/' | ':');
    if name.is_empty() || name.len() > MAX_COMMAND || !name.chars().all(is_plain) {
        let why = "must be at most 256 letters, digits, '_', '-', '.', ':' and slashes, after an optional '!'";
        return Err(CommandFault::Form(why));
    }
    if name.split(['/', '\\']).any(|part| part == "..") {
        return Err(CommandFault::Form("must not lead to a parent folder"));
    }
    if is_program {
        let action = named(name, actions).ok_or_else(|| unknown(name, actions))?;
        return Ok(CalledCommand { is_endless_by_form: action.undoable, action, duration: None });
    }
    // The shortest time-out first: the name of an action may end in digits itself.
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let splits = (1..=digits).map(|count| name.split_at(name.len() - count));
    let mut known = splits.filter_map(|(name, timeout)| Some((named(name, actions)?, timeout)));
    let Some((action, timeout)) = known.next() else { return Err(unknown(name, actions)) };
    let too_long = CommandFault::Form("must not have a time-out of more than ten years");
    let secs = Some(timeout.trim_start_matches('0')).filter(|digits| digits.len() <= MAX_DIGITS);
    let secs: u64 = secs.ok_or_else(|| too_long.clone())?.parse().unwrap_or(0);
    let duration = Duration::from_secs(secs);
    if duration > Span::MAX {
        return Err(too_long);
    }
    // As in Wazuh, what leaves nothing to undo has no time-out, whatever the command says.
    let duration = (!duration.is_zero() && action.undoable).then_some(duration);
    Ok(CalledCommand { action, duration, is_endless_by_form: false })
}

/// The action of this name, the equivalent of a program of Wazuh's own, or the action that runs the program.
fn named(name: &str, actions: &Catalogue) -> Option<Arc<Action>> {
    let runs = |action: &&Arc<Action>| action.script.as_ref().is_some_and(|script| script.executable == name);
    let found = actions.find(name).or_else(|| actions.find(meaning(name)?));
    found.or_else(|| actions.iter().find(runs)).cloned()
}

fn unknown(name: &str, actions: &Catalogue) -> CommandFault {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let hint = if named(name, actions).is_some() {
        format!("; say for how many seconds: {name}600, or {name}0 until it is lifted")
    } else {
        actions.nearest(plain).map_or_else(String::new, |meant| format!("; did you mean {meant}?"))
    };
    CommandFault::Unknown(format!("The command used is not defined: {name} is no action with a time-out{hint}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalogue() -> Catalogue {
        let custom = |name: &str, executable: &str, undoable: bool| {
            let kinds = if undoable { json!(["ip"]) } else { json!(["none"]) };
            let document = json!({"name": name, "summary": "x", "executable": executable, "undoable": undoable,
                "target_kinds": kinds});
            Action::parse(&document).unwrap()
        };
        Catalogue::with(vec![custom("block2", "block-it.py", true), custom("page", "page.sh", false)])
    }

    #[test]
    fn a_command_is_an_action_with_its_time_out_or_a_program() {
        let actions = catalogue();
        for (command, action, secs, is_endless_by_form) in [
            ("firewall-drop600", "firewall-drop", Some(600), false),
            ("firewall-drop0", "firewall-drop", None, false),
            ("firewall-drop000", "firewall-drop", None, false),
            ("firewall-drop.sh60", "firewall-drop", Some(60), false),
            ("default-firewall-drop1", "firewall-drop", Some(1), false),
            ("netsh.exe60", "netsh", Some(60), false),
            ("!firewall-drop", "firewall-drop", None, true),
            ("!route-null.exe", "route-null", None, true),
            ("restart-wazuh0", "restart-wazuh", None, false),
            ("restart-ossec0", "restart-wazuh", None, false),
            ("restart-wazuh600", "restart-wazuh", None, false),
            ("!restart-wazuh", "restart-wazuh", None, false),
            ("!restart.sh", "restart.sh", None, false),
            ("block2600", "block2", Some(600), false),
            ("!block-it.py", "block2", None, true),
            ("block-it.py30", "block2", Some(30), false),
            ("!page.sh", "page", None, false),
            ("firewall-drop315360000", "firewall-drop", Some(315_360_000), false),
        ] {
            let read = read(command, &actions).unwrap_or_else(|fault| panic!("{command}: {fault}"));
            assert_eq!(read.action.name, action, "{command}");
            assert_eq!(read.duration, secs.map(Duration::from_secs), "{command}");
            assert_eq!(read.is_endless_by_form, is_endless_by_form, "{command}");
        }
    }

    #[test]
    fn another_command_is_refused_with_what_to_do() {
        let actions = catalogue();
        let fault = |command: &str| read(command, &actions).unwrap_err();
        assert_eq!(fault(""), CommandFault::Missing);
        for form in [
            "!",
            "../firewall-drop600",
            "a/../b",
            "!..\\x",
            "fire wall0",
            "x\0",
            "é0",
            "firewall-drop315360001",
            "firewall-drop99999999999999999999",
            &"x".repeat(257),
        ] {
            assert!(matches!(fault(form), CommandFault::Form(_)), "{form:?}: {:?}", fault(form));
        }
        let told = |command: &str| fault(command).to_string();
        assert!(told("firewall-drop").contains("firewall-drop600"), "{}", told("firewall-drop"));
        assert!(told("firewal-drop600").contains("did you mean firewall-drop"), "{}", told("firewal-drop600"));
        for unknown in ["nothing-like-it600", "!bin/firewall-drop", "600", "!firewall-drop600"] {
            assert!(matches!(fault(unknown), CommandFault::Unknown(_)), "{unknown}");
        }
    }
}
