//! The systemd units of the programs: every hardening line, and how systemd itself reads them,
//! which works without a running systemd. `scripts/try-units.sh` tests what the programs can do
//! under them, and how exposed systemd rates them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The lines of the agent's unit below `[Service]`.
const AGENT: &str = "\
Type=notify
ExecStart=/usr/bin/riposte-agent run
StateDirectory=riposte-agent
StateDirectoryMode=0700
Environment=RIPOSTE_STATE_DIR=/var/lib/riposte-agent
EnvironmentFile=-/etc/riposte/agent.env
UMask=0077
KillMode=mixed
TimeoutStopSec=20
Restart=always
RestartSec=2
WatchdogSec=3min
OOMScoreAdjust=-500
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER CAP_KILL
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/etc /run -/var/ossec/logs -/ipblock
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RemoveIPC=yes
KeyringMode=private
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@debug @mount @swap @reboot @module @raw-io @obsolete
SystemCallErrorNumber=EPERM";

/// The lines of the manager's unit.
const MANAGER: &str = "\
Type=exec
ExecStart=/usr/bin/riposte serve
DynamicUser=yes
StateDirectory=riposte
StateDirectoryMode=0700
Environment=RIPOSTE_DATA_DIR=/var/lib/riposte RIPOSTE_LOG_FORMAT=json
EnvironmentFile=-/etc/riposte/manager.env
UMask=0077
TimeoutStopSec=45
Restart=on-failure
RestartSec=2
LimitNOFILE=65536";

/// What a program gets that needs only the network and its own directory: the last lines of both.
const CONFINED: &str = "\
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM";

/// The lines of the forwarder's unit.
const FORWARD: &str = "\
Type=exec
ExecStart=/usr/lib/riposte-forward/riposte forward
DynamicUser=yes
SupplementaryGroups=wazuh
LoadCredential=key:/etc/riposte/forward.key
StateDirectory=riposte-forward
StateDirectoryMode=0700
Environment=RIPOSTE_KEY_FILE=%d/key RIPOSTE_STATE_DIR=/var/lib/riposte-forward
Environment=RIPOSTE_METRICS_LISTEN=127.0.0.1:9481 RIPOSTE_LOG_FORMAT=json
EnvironmentFile=/etc/riposte/forward.env
UMask=0077
TimeoutStopSec=30
Restart=on-failure
RestartSec=5";

/// All units in `folder`, started with a program that every system has: the test is about all
/// other lines.
fn units(folder: &Path, change: impl Fn(&str) -> String) -> Vec<PathBuf> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let copy = |name: &str| {
        let unit = std::fs::read_to_string(deploy.join(name)).unwrap();
        assert_eq!(unit.matches("ExecStart=/").count(), 1, "{name}");
        let programs = ["/usr/bin/riposte-agent", "/usr/bin/riposte", "/usr/lib/riposte-forward/riposte"];
        let unit = programs.iter().fold(unit, |unit, program| unit.replace(&format!("={program} "), "=/bin/true "));
        std::fs::write(folder.join(name), change(&unit)).unwrap();
        folder.join(name)
    };
    ["riposte.service", "riposte-agent.service", "riposte-forward.service", "riposte-forward-group.service"]
        .map(copy)
        .into()
}

/// Systemd's complaints about these units. It also reads those of the host, which are not ours.
fn complaints(units: &[PathBuf]) -> Vec<String> {
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).env("LC_ALL", "C").output();
    let output = output.expect("this test needs systemd-analyze, which is not installed");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.contains("riposte")).map(str::to_owned).collect()
}

#[test]
fn no_line_of_the_units_is_lost() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for (name, expected) in [
        ("riposte-agent.service", AGENT.to_owned()),
        ("riposte.service", format!("{MANAGER}\n{CONFINED}")),
        ("riposte-forward.service", format!("{FORWARD}\n{CONFINED}")),
    ] {
        let unit = std::fs::read_to_string(deploy.join(name)).unwrap();
        let lines =
            unit.lines().skip_while(|line| *line != "[Service]").skip(1).take_while(|line| *line != "[Install]");
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(lines, expected.lines().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(complaints(&units(folder.path(), str::to_owned)), Vec::<String>::new());
    // Systemd reports only what it does not understand, so the test checks that it reports at all.
    let damaged = units(folder.path(), |unit| unit.replace("ProtectClock=", "ProtectClok="));
    let said = complaints(&damaged);
    assert_eq!(said.iter().filter(|line| line.contains("Unknown key")).count(), 4, "{said:#?}");
}
