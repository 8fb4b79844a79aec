//! `restart-wazuh`: restarts Wazuh on this host, whatever it is here, agent or manager. Riposte's own agent is another
//! service and goes on.

use std::path::Path;
use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;

use super::recipe::{Change, Look, Recipe};
use super::{About, Action, Attempt, Host, Os, Step};
use crate::runner::Program;

/// A restart stops a dozen daemons one by one.
pub(super) const TIMEOUT: Duration = Duration::from_mins(3);

/// The action.
#[derive(Debug)]
pub(super) struct RestartWazuh;

const ABOUT: About = About {
    name: "restart-wazuh",
    summary: "Restarts Wazuh on the host",
    targets: &[TargetKind::None, TargetKind::Host],
    lock_domain: "wazuh",
    undoable: false,
    looks: false,
    applied: "`bin/wazuh-control restart` in Wazuh's home; Windows: `net stop WazuhSvc`, `net start WazuhSvc`",
    verified: "by the exit status",
    undone: "nothing to undo",
    rights: "root; Administrator",
    ..About::DEFAULT
};

pub(super) fn recipe(os: Os, wazuh_home: &Path) -> Recipe {
    if os == Os::Windows {
        return windows();
    }
    let control = wazuh_home.join("bin/wazuh-control");
    let restart = Program::new(&control.to_string_lossy(), ["restart"]).timeout(TIMEOUT);
    Recipe { apply: vec![Change::new(restart)], ..Recipe::default() }
}

/// Stopping fails when it is stopped already, and that is no reason not to start it.
pub(super) fn windows() -> Recipe {
    let net = |verb: &str| Program::new("net.exe", [verb, "WazuhSvc"]).timeout(TIMEOUT);
    Recipe { apply: vec![Change::new(net("stop")).may_fail(), Change::new(net("start"))], ..Recipe::default() }
}

/// Whether Wazuh can be restarted by its own program.
///
/// # Errors
/// Why not, for people.
pub(super) fn has_wazuh(host: &Host) -> Result<(), String> {
    let needed = match host.os {
        Os::Windows => "net.exe".into(),
        _ => host.wazuh_home.join("bin/wazuh-control").to_string_lossy().into_owned(),
    };
    host.has_programs(&[&needed])
}

impl Action for RestartWazuh {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        has_wazuh(host)
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        recipe(attempt.host.os, &attempt.host.wazuh_home).plan(op)
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async { recipe(attempt.host.os, &attempt.host.wazuh_home).apply(attempt).await })
    }
}

/// The service `name` is running.
pub(super) fn is_active(service: &str) -> Look {
    Look::exit(Program::new("systemctl", ["is-active", "--quiet", service]), 3)
}
