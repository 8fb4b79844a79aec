//! Actions that drive programs which cannot be installed here (Wazuh's, Kaspersky's, a running
//! systemd), through the real runner and the real lanes.
//!
//! Stand-ins are at the real paths. They record how they were started, print what a test tells them
//! to print, and end as it tells them to end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

use super::{ALL, Host, availability, find, own_namespace};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::executor;
use crate::journal::{Journal, Record};
use crate::local_policy::LocalPolicy;
use crate::runner::Runner;
use crate::self_protection::SelfProtection;

/// `/opt/NAME.does` holds the commands that the stand-in of that name runs after it has recorded
/// its start.
const STAND_IN: &str = r#"#!/bin/sh
{ printf '%s' "$0"; for word; do printf '|%s' "$word"; done; printf ' in %s\n' "$PWD"; } >> /opt/ran
does=/opt/$(basename "$0").does
if [ -e "$does" ]; then . "$does"; fi
"#;

/// `/opt` is the test's own, and Kaspersky's folder in it is empty. The host's other folders are
/// mounted into it: one of them may hold this very program. `systemctl` is a stand-in.
const PREPARE: &str = "systemctl=$(command -v systemctl); mount -t tmpfs tmpfs /mnt; mkdir /mnt/opt; \
                       mount --rbind /opt /mnt/opt; mount -t tmpfs tmpfs /opt; \
                       for folder in /mnt/opt/*/; do folder=$(basename \"$folder\"); \
                       case $folder in kaspersky|'*') continue ;; esac; \
                       mkdir \"/opt/$folder\"; mount --rbind \"/mnt/opt/$folder\" \"/opt/$folder\"; done; umount -l /mnt; \
                       : > /opt/stand-in; chmod 755 /opt/stand-in; mount --bind /opt/stand-in \"$systemctl\"";
/// Time limit of an order, generous for a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Stage {
    agent: Arc<Agent>,
    root: tempfile::TempDir,
    seq: u64,
}

impl Stage {
    fn new(has_systemd: bool, services: &[&str], policy: LocalPolicy) -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("ossec");
        std::fs::write("/opt/stand-in", STAND_IN).unwrap();
        let control = home.join("bin/wazuh-control");
        for path in
            [&control, &home.join("bin/wazuh-logtest-legacy"), Path::new("/opt/kaspersky/kesl/bin/kesl-control")]
        {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, STAND_IN).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        if has_systemd {
            std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        }
        let units = root.path().join("usr/lib/systemd/system");
        std::fs::create_dir_all(&units).unwrap();
        for service in services {
            std::fs::write(units.join(format!("{service}.service")), "").unwrap();
        }
        let mut host = Host::new(Runner::new(), root.path());
        (host.root, host.wazuh_home) = (root.path().into(), home);
        let journal = Journal::open(&root.path().join("journal")).unwrap();
        let agent = Agent::new(journal, ALL, Clock::system(), host, policy, SelfProtection::default());
        let agent = Arc::new(agent);
        executor::start(&agent);
        Self { agent, root, seq: 0 }
    }

    fn bin(&self, name: &str) -> String {
        self.root.path().join("ossec/bin").join(name).display().to_string()
    }

    /// Executes the action; returns its result, and how its programs were started.
    async fn order(&mut self, action: &str, arguments: &[&str]) -> (CommandResult, Vec<String>) {
        assert_eq!(availability(find(ALL, action).unwrap(), &self.agent.host), Ok(()), "{action}");
        let _none_yet = std::fs::remove_file("/opt/ran");
        self.seq += 1;
        let command = Command {
            iss: riposte_protocol::MANAGER.into(),
            aud: Uuid::nil(),
            jti: Uuid::from_u128(self.seq.into()),
            seq: self.seq,
            iat: 0,
            exp: 4_000_000_000,
            op: Op::Apply,
            effect: Uuid::from_u128(u128::from(self.seq) << 64),
            action: action.into(),
            target: Target::parse(TargetKind::None, "").unwrap(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            until: None,
            response: Uuid::nil(),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        };
        let id = command.jti;
        self.agent.record([Record::Received { command: Box::new(command) }]).unwrap();
        self.agent.wake_lanes();
        let result = tokio::time::timeout(PATIENCE, async {
            loop {
                let told = self.agent.outbox.notified();
                let found = self.agent.read(|state| state.outbox().iter().find(|it| it.command_id == id).cloned());
                match found {
                    Some(result) => break result,
                    None => told.await,
                }
            }
        });
        let result = result
            .await
            .unwrap_or_else(|_| panic!("{action} came to no end: {}", self.agent.read(|state| format!("{state:#?}"))));
        let ran = std::fs::read_to_string("/opt/ran").unwrap_or_default();
        (result, ran.lines().map(str::to_owned).collect())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.agent.tasks.stop();
    }
}

fn does(name: &str, what: &str) {
    std::fs::write(PathBuf::from("/opt").join(format!("{name}.does")), what).unwrap();
}

fn systemctl() -> String {
    Runner::find("systemctl").unwrap().display().to_string()
}

#[tokio::test]
async fn restarts_and_kaspersky_are_started_as_they_should_be_and_their_ends_are_read() {
    if own_namespace::is_inside() {
        without_systemd().await;
        with_systemd().await;
        return time_out().await;
    }
    let name = "actions::stand_in_tests::restarts_and_kaspersky_are_started_as_they_should_be_and_their_ends_are_read";
    own_namespace::run_again(name, &["systemctl"], &[], PREPARE).await;
}

async fn without_systemd() {
    let mut stage = Stage::new(false, &["wazuh-agent"], LocalPolicy::default());
    let control = stage.bin("wazuh-control");
    for (action, arguments) in [("restart-wazuh", &[][..]), ("restart.sh", &["agent"])] {
        let (result, ran) = stage.order(action, arguments).await;
        assert_eq!((result.outcome, result.exit_code), (Outcome::Succeeded, Some(0)), "{action}: {}", result.message);
        assert_eq!(ran, [format!("{control}|restart in /")]);
    }

    does("wazuh-control", "echo stopping; echo 'wazuh-agentd: Configuration error' >&2; exit 7");
    let (result, _) = stage.order("restart-wazuh", &[]).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(7)));
    assert!(
        result.message.ends_with("wazuh-control ended with 7: wazuh-agentd: Configuration error"),
        "{}",
        result.message
    );
    assert!(result.output.contains("stopping"), "{}", result.output);
    does("wazuh-control", "");

    let words = ["--start-task", "2; id", "$(id)", "a 'b' \"c\""];
    does("kesl-control", "echo started");
    let (result, ran) = stage.order("kaspersky", &words).await;
    assert_eq!((result.outcome, result.output.as_str()), (Outcome::Succeeded, "started\n"));
    let expected = format!("/opt/kaspersky/kesl/bin/kesl-control|{} in /", words.join("|"));
    assert_eq!(ran, [expected], "each argument is one argument");
    does("kesl-control", "kill -9 $$");
    assert_eq!(stage.order("kaspersky", &["--get-task-list"]).await.0.exit_code, Some(137));
}

async fn with_systemd() {
    let systemctl = systemctl();
    for (services, service) in
        [(["wazuh-agent"].as_slice(), "wazuh-agent"), (&["wazuh-manager", "wazuh-agent"], "wazuh-manager")]
    {
        let mut stage = Stage::new(true, services, LocalPolicy::default());
        let (result, ran) = stage.order("restart-wazuh", &[]).await;
        assert_eq!(result.outcome, Outcome::Succeeded, "{}", result.message);
        assert_eq!(ran, [format!("{systemctl}|restart|{service} in /")]);
    }

    let mut stage = Stage::new(true, &[], LocalPolicy::default());
    let (_, ran) = stage.order("restart-wazuh", &[]).await;
    assert_eq!(ran, [format!("{}|restart in /", stage.bin("wazuh-control"))], "systemd does not run this Wazuh");
    let said = availability(find(ALL, "restart.sh").unwrap(), &stage.agent.host).unwrap_err();
    assert!(said.contains("neither a wazuh-agent nor a wazuh-manager"), "{said}");

    let mut stage = Stage::new(true, &["wazuh-manager", "wazuh-agent"], LocalPolicy::default());
    let masked = stage.root.path().join("etc/systemd/system/wazuh-manager.service");
    std::fs::create_dir_all(masked.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/null", masked).unwrap();
    let (_, ran) = stage.order("restart-wazuh", &[]).await;
    assert_eq!(ran, [format!("{systemctl}|restart|wazuh-agent in /")], "a masked unit cannot be started");

    let mut stage = Stage::new(true, &["wazuh-manager"], LocalPolicy::default());
    let logtest = format!("{}|-t in /", stage.bin("wazuh-logtest-legacy"));
    let (result, ran) = stage.order("restart.sh", &["manager"]).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, Some(true)), "{}", result.message);
    let (restart, look) = (format!("{systemctl}|restart|wazuh-manager in /"), "|is-active|--quiet|wazuh-manager in /");
    assert_eq!(ran, [logtest.clone(), restart, format!("{systemctl}{look}")]);

    does("systemctl", "[ \"$1\" != is-active ] || exit 3");
    let (result, _) = stage.order("restart.sh", &["agent"]).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Failed, Some(false)), "it did not come back");
    does("systemctl", "");

    does("wazuh-logtest-legacy", "exit 1");
    let (result, ran) = stage.order("restart.sh", &["manager"]).await;
    assert_eq!(
        (result.outcome, ran),
        (Outcome::Failed, vec![logtest]),
        "a manager that would not come back is not stopped"
    );
    does("wazuh-logtest-legacy", "");
}

async fn time_out() {
    let policy = LocalPolicy { timeout: Duration::from_secs(1), ..LocalPolicy::default() };
    let mut stage = Stage::new(false, &[], policy);
    does("wazuh-control", "echo $$ > /opt/pid; sleep 1000 & wait");
    let begun = Instant::now();
    let (result, _) = stage.order("restart-wazuh", &[]).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::TimedOut, None));
    assert_eq!(result.message, "it did not end within 1 s and was stopped");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let group = std::fs::read_to_string("/opt/pid").unwrap();
    let is_left = || {
        let listed = std::process::Command::new("ps").args(["-e", "-o", "pgid=,stat="]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let mut processes = listed.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        processes.any(|(its, state)| its == group.trim() && !state.trim().starts_with('Z'))
    };
    while is_left() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the program outlives its time-out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    does("wazuh-control", "");
    assert_eq!(stage.order("restart-wazuh", &[]).await.0.outcome, Outcome::Succeeded, "and holds nothing up");
}
