//! `restart.sh`: restarts the Wazuh agent or the Wazuh manager with the system's own tools. A
//! manager's configuration is checked first, so that the restart does not end with a manager that
//! cannot start.

use std::path::Path;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;

use super::recipe::{Change, Recipe};
use super::restart_wazuh::{TIMEOUT, has_systemd, has_wazuh, is_active, may_restart, service, windows};
use super::{About, Action, Attempt, Form, Host, Os, Parameter, Step};
use crate::runner::Program;

/// The action.
#[derive(Debug)]
pub(super) struct RestartSh;

const ABOUT: About = About {
    name: "restart.sh",
    summary: "Restarts the Wazuh agent or manager by the service manager",
    targets: &[TargetKind::None, TargetKind::Host],
    lock_domain: "wazuh",
    undoable: false,
    parameters: &[Parameter {
        form: Form::OneOf(&["agent", "manager"]),
        summary: "which of the two",
        required: true,
        ..Parameter::DEFAULT
    }],
    applied: "for a manager, `bin/wazuh-logtest-legacy -t` first; then `systemctl restart wazuh-agent` or `wazuh-manager`; without \
              systemd, `bin/wazuh-control restart`; Windows: `net stop WazuhSvc`, `net start WazuhSvc`",
    verified: "with systemd, the service is active; else by the exit status",
    undone: "nothing to undo",
    rights: "root; Administrator",
    ..About::DEFAULT
};

pub(super) fn recipe(os: Os, wazuh_home: &Path, has_systemd: bool, arguments: &[String]) -> Recipe {
    if os == Os::Windows {
        return windows();
    }
    let own = |name: &str, argument: &str| {
        Program::new(&wazuh_home.join("bin").join(name).to_string_lossy(), [argument]).timeout(TIMEOUT)
    };
    let is_manager = arguments.iter().any(|argument| argument == "manager");
    let service = if is_manager { "wazuh-manager" } else { "wazuh-agent" };
    let mut recipe = Recipe::default();
    if is_manager {
        recipe.apply.push(Change::new(own("wazuh-logtest-legacy", "-t")));
    }
    if has_systemd {
        let restart = Program::new("systemctl", ["restart", service]).timeout(TIMEOUT);
        recipe.apply.push(Change::new(restart));
        recipe.shows.push(is_active(service));
    } else {
        recipe.apply.push(Change::new(own("wazuh-control", "restart")));
    }
    recipe
}

fn of(attempt: &Attempt<'_>) -> Recipe {
    let host = attempt.host;
    recipe(host.os, &host.wazuh_home, has_systemd(host), attempt.arguments)
}

impl Action for RestartSh {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        if !has_systemd(host) {
            has_wazuh(host)?;
        } else if service(host).is_none() {
            return Err("systemd has neither a wazuh-agent nor a wazuh-manager to start".into());
        }
        may_restart()
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        of(attempt).plan(op)
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        // A running service is no reason not to restart it.
        Box::pin(async { of(attempt).change(attempt).await })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { of(attempt).is_in_force(attempt).await })
    }
}
