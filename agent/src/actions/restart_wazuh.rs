//! `restart-wazuh`: restarts Wazuh on this host, agent or manager. Riposte's own agent is another
//! service and keeps running.
//!
//! Where systemd runs Wazuh, systemd restarts it: daemons that `wazuh-control` starts would be
//! children of the agent's service, in its sandbox, and end with it.

use std::path::Path;
use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;

use super::recipe::{Change, Check, Recipe};
use super::{About, Action, Attempt, Host, Os, Step};
use crate::platform;
use crate::runner::Program;

/// A restart stops a dozen daemons one by one. Equals the default time limit of a step.
pub(super) const TIMEOUT: Duration = Duration::from_mins(2);

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
    applied: "`systemctl restart` of the service that runs Wazuh, `wazuh-manager` or `wazuh-agent`; without one, `bin/wazuh-control \
              restart` in Wazuh's home; Windows: `net stop WazuhSvc`, `net start WazuhSvc`",
    verified: "by the exit status",
    undone: "nothing to undo",
    rights: "root; Administrator",
    ..About::DEFAULT
};

pub(super) fn recipe(os: Os, wazuh_home: &Path, service: Option<&str>) -> Recipe {
    if os == Os::Windows {
        return windows();
    }
    let control = wazuh_home.join("bin/wazuh-control");
    let restart = match service {
        Some(service) => Program::new("systemctl", ["restart", service]),
        None => Program::new(&control.to_string_lossy(), ["restart"]),
    };
    Recipe { apply: vec![Change::new(restart.timeout(TIMEOUT))], ..Recipe::default() }
}

fn of(host: &Host) -> Recipe {
    recipe(host.os, &host.wazuh_home, service(host))
}

/// The systemd service that runs Wazuh; `None` without one.
pub(super) fn service(host: &Host) -> Option<&'static str> {
    /// Folders of systemd's units, in its order: the first file of a name counts.
    const UNITS: [&str; 5] = [
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    // A link to /dev/null masks a unit: it must never be started.
    let is_known = |service: &str| {
        let mut units = UNITS.iter().map(|folder| host.path(folder).join(format!("{service}.service")));
        let unit = units.find(|unit| unit.symlink_metadata().is_ok());
        unit.and_then(|unit| unit.canonicalize().ok()).is_some_and(|unit| unit != Path::new("/dev/null"))
    };
    // A manager has no separate agent.
    let find = || ["wazuh-manager", "wazuh-agent"].into_iter().find(|service| is_known(service));
    has_systemd(host).then(find).flatten()
}

/// Whether systemd is running, tested as its documentation says.
pub(super) fn has_systemd(host: &Host) -> bool {
    host.path("/run/systemd/system").is_dir() && host.runner.is_installed("systemctl")
}

/// Stopping a stopped service fails, but that must not prevent starting it.
pub(super) fn windows() -> Recipe {
    let net = |verb: &str| Program::new("net.exe", [verb, "WazuhSvc"]).timeout(TIMEOUT);
    Recipe { apply: vec![Change::new(net("stop")).may_fail(), Change::new(net("start"))], ..Recipe::default() }
}

/// Whether services may be restarted.
///
/// # Errors
/// Why not, for people.
pub(super) fn may_restart() -> Result<(), String> {
    platform::must_be_root()
}

/// Checks that Wazuh can be restarted by its own program.
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
        if service(host).is_none() {
            has_wazuh(host)?;
        }
        may_restart()
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        of(attempt.host).plan(op)
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async { of(attempt.host).apply(attempt).await })
    }
}

/// Whether the service `name` is running.
pub(super) fn is_active(service: &str) -> Check {
    Check::exit(Program::new("systemctl", ["is-active", "--quiet", service]), 3)
}
