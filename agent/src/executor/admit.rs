//! Decides whether a command is obeyed: the action is known, the target and the arguments fit, and
//! neither the host's own rules nor the protected targets forbid it. The manager has checked most
//! of it already; the agent does not rely on that.

use riposte_protocol::command::{Command, Script, ScriptStyle};
use riposte_protocol::target::TargetKind;

use crate::actions::{Action, Bulk};
use crate::agent::Agent;
use crate::scripts;

/// Returns the action if this agent obeys this apply; otherwise the reason, for people. Reverts
/// never come here. What is held is lifted as the journal says, even if it is forbidden or
/// protected by now; what is not held runs nothing.
pub(super) fn admit(agent: &Agent, command: &Command) -> Result<&'static dyn Action, String> {
    let script = command.script.as_ref();
    let action = find(agent, &command.action, script).ok_or_else(|| unknown(&command.action))?;
    if script.is_some() && agent.action(&command.action).is_some() {
        let name = command.action.escape_debug();
        return Err(format!("{name} is an action of this agent's own, so it cannot be the name of a custom one"));
    }
    action.about().check_target(&command.target)?;
    let is_foreign = command.target.kind() == TargetKind::User && !command.target.is_local_account();
    if is_foreign && script.is_some_and(|script| script.style == ScriptStyle::Argv) {
        return Err(
            "the account cannot be one of a host, and the program would get it as an argument: use another style"
                .into(),
        );
    }
    let executable = script.map(|script| script.executable.as_str());
    if let Some(reason) = agent.policy.forbids(&command.action, executable) {
        return Err(reason);
    }
    // An effect that is held already only gets another end.
    let is_new = agent.read(|state| state.held_effect(command.effect).is_none());
    let by_default = || is_new.then(|| agent.policy.protects_by_default(&command.target)).flatten();
    if let Some(reason) = agent.protects_now(&command.target).or_else(by_default) {
        return Err(format!("the target is protected: {reason}"));
    }
    action.about().check_arguments(&command.arguments)?;
    Ok(action)
}

/// Returns the action of that name, or the one that runs custom programs.
pub(super) fn find(agent: &Agent, name: &str, script: Option<&Script>) -> Option<&'static dyn Action> {
    if script.is_some() { Some(&scripts::SCRIPT) } else { agent.action(name) }
}

/// The refusal of an unknown action.
pub(super) fn unknown(action: &str) -> String {
    format!("this agent does not know the action {}", action.escape_debug())
}

/// The action of that name, if it does many at once here.
pub(super) fn find_bulk(agent: &Agent, action: Option<&str>) -> Option<(&'static dyn Action, &'static dyn Bulk)> {
    let action = agent.action(action?)?;
    let bulk = action.bulk().filter(|bulk| bulk.works_on(&agent.host))?;
    Some((action, bulk))
}
