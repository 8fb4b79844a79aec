//! What an administrator sees of the real program: the local policy, release, incidents, a full
//! disk.

use std::path::Path;

use riposte_protocol::message::{Actual, FromAgent, HeldEffect, Outcome, ToAgent};
use riposte_protocol::target::{Target, TargetKind};

use crate::support::{Manager, agent, ids, stop};

fn write_policy(state: &Path, text: &str) {
    std::fs::write(state.join("agent.toml"), text).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(state.join("agent.toml"), private).unwrap();
}

#[tokio::test]
async fn no_manager_overrides_the_local_policy() {
    let (manager, _) = Manager::with_agent().await;
    write_policy(
        manager.state.path(),
        "denied_actions = [\"route-null\"]\n[protected]\naddresses = [\"203.0.113.0/24\"]\n",
    );
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    let FromAgent::Hello { capabilities, .. } = stream.next().await else { panic!("no hello") };
    let route_null = capabilities.iter().find(|capability| capability.action == "route-null").unwrap();
    assert!(!route_null.available);
    assert_eq!(route_null.reason.as_deref(), Some("the local policy of this host does not allow route-null"));

    let target = |text| Target::parse(TargetKind::Ip, text).unwrap();
    // The manager of this test listens on a loopback address; the other protected addresses are
    // read from the system.
    let own = own_address().unwrap_or_else(|| "127.0.0.1".into());
    let commands = vec![
        manager.command(1, |command| command.target = target("203.0.113.9")),
        manager.command(2, |command| {
            (command.action, command.target) = ("route-null".into(), target("198.51.100.1"));
        }),
        manager.command(3, |command| command.target = target(&own)),
        manager.command(4, |command| command.target = Target::parse(TargetKind::User, "root").unwrap()),
        manager.command(5, |command| {
            let journal = manager.state.path().join("journal");
            command.target = Target::parse(TargetKind::File, journal.to_str().unwrap()).unwrap();
        }),
        manager.command(6, |command| {
            command.target = Target::parse(TargetKind::Process, &std::process::id().to_string()).unwrap();
        }),
        manager.command(7, |command| command.target = target("198.51.100.2")),
    ];
    stream.send(&ToAgent::Commands { commands }).await;
    assert_eq!(stream.ack().await, ids(&[1, 2, 3, 4, 5, 6, 7]));
    let mut results = Vec::new();
    while results.len() < 7 {
        results.extend(stream.results().await);
    }
    results.sort_by_key(|result| result.command_id);
    for (result, reason) in results.iter().zip([
        "203.0.113.0/24 is protected by the local policy of this host",
        "the local policy of this host does not allow route-null",
        "the target is protected: ",
        "the superuser",
        "a file of the agent itself",
        "the process that runs the agent",
    ]) {
        assert_eq!(result.outcome, Outcome::Refused, "{}", result.message);
        assert!(result.message.contains(reason), "{}", result.message);
    }
    assert_eq!(results[6].outcome, Outcome::Succeeded, "{}", results[6].message);
    assert_eq!(stop(running).await, 0);
}

/// An address of this host other than loopback, if there is one.
fn own_address() -> Option<String> {
    let interfaces = nix::ifaddrs::getifaddrs().unwrap();
    let mut addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    addresses.find(|address| !address.is_loopback()).map(|address| address.to_string())
}

#[tokio::test]
async fn an_invalid_policy_stops_the_start_with_a_reason() {
    let (manager, _) = Manager::with_agent().await;
    let refused = async |policy: &str, mode: u32| {
        write_policy(manager.state.path(), policy);
        let path = manager.state.path().join("agent.toml");
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let ran = agent(manager.state.path(), &["run"]).output().await.unwrap();
        assert_eq!(ran.status.code(), Some(1));
        String::from_utf8_lossy(&ran.stderr).into_owned()
    };
    let said = refused("observ = true", 0o600).await;
    assert!(said.contains("there is no key observ; did you mean observe?"), "{said}");
    let said = refused("observe = true", 0o666).await;
    assert!(said.contains("accounts other than its owner can write it (chmod go-w /"), "{said}");
}

/// The way out of an incident that only people can end: the journal of a custom program's effect
/// was lost, and nothing shows what the program did.
#[tokio::test]
async fn an_effect_lifted_by_hand_is_recorded_and_the_next_revert_succeeds() {
    let (manager, _) = Manager::with_agent().await;
    let script = riposte_protocol::command::Script {
        executable: "gone.sh".into(),
        style: riposte_protocol::command::ScriptStyle::Wazuh,
        undoable: true,
    };
    let revert = |seq| {
        manager.command(seq, |command| {
            (command.op, command.action) = (riposte_protocol::command::Op::Revert, "my-block".into());
            command.effect = uuid::Uuid::from_u128(7);
            command.script = Some(script.clone());
        })
    };
    // The journal of the enrolment is lost.
    std::fs::remove_file(manager.state.path().join("journal")).unwrap_or_default();
    for (seq, expected) in [(5, Outcome::Failed), (6, Outcome::Succeeded)] {
        let running = manager.run(&["--transport", "stream"]);
        let mut stream = manager.accept().await;
        stream.hello().await;
        stream.send(&ToAgent::Commands { commands: vec![revert(seq)] }).await;
        // The earlier result is sent again, because its acknowledgement was not received.
        let result = loop {
            let FromAgent::Result { results } = stream.next().await else { continue };
            if let Some(result) = results.into_iter().find(|result| ids(&[seq.into()]).contains(&result.command_id)) {
                break result;
            }
        };
        assert_eq!(result.outcome, expected, "{}", result.message);
        stream.send(&ToAgent::ResultAck { command_ids: vec![result.command_id] }).await;
        assert_eq!(stop(running).await, 0);
        let effect = uuid::Uuid::from_u128(7).to_string();
        let noted = agent(manager.state.path(), &["release", "--lifted", &effect]).output().await.unwrap();
        assert_eq!(noted.status.code(), Some(0), "{}", String::from_utf8_lossy(&noted.stderr));
    }
}

#[tokio::test]
async fn release_lifts_everything_on_purpose_and_the_manager_learns_why() {
    let (manager, _) = Manager::with_agent().await;
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    stream.send(&ToAgent::Commands { commands: vec![manager.command(1, |_| ()), manager.command(2, |_| ())] }).await;
    stream.ack().await;
    let mut told = stream.results().await.len();
    while told < 2 {
        told += stream.results().await.len();
    }
    let refused = agent(manager.state.path(), &["release"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("stop it first (systemctl stop riposte-agent)"), "{said}");
    assert_eq!(stop(running).await, 0);
    // Enrolled anew it would forget what it holds.
    let arguments = ["enroll", "--manager", &manager.url, "--name", "web-1"];
    let refused = agent(manager.state.path(), &arguments).env("RIPOSTE_TOKEN", "secret").output().await.unwrap();
    let (said, state) = (String::from_utf8_lossy(&refused.stderr), manager.state.path().display());
    assert!(said.contains(&format!("lift them first with `riposte-agent release --state-dir {state}`")), "{said}");
    assert!(!said.contains("give another state directory"), "{said}");

    let released =
        agent(manager.state.path(), &["release", "--reason", "maintenance, ticket 7"]).output().await.unwrap();
    assert_eq!(released.status.code(), Some(0), "{}", String::from_utf8_lossy(&released.stderr));
    let said = String::from_utf8_lossy(&released.stdout);
    assert!(said.contains("2 effects lifted; 0 commands"), "{said}");

    // Reported until the manager has answered with no result outstanding, and then forgotten:
    // before that, the manager ignores the report.
    for answer in [false, true, true] {
        let running = manager.run(&["--transport", "stream"]);
        let mut stream = manager.accept().await;
        let effects = hello(&mut stream).await;
        let released = effects.iter().filter(|effect| effect.actual == Some(Actual::Absent));
        let reasons: Vec<_> = released.map(|effect| effect.released.as_deref()).collect();
        assert_eq!(reasons, [Some("maintenance, ticket 7"); 2], "{answer}");
        if answer {
            stream.send(&ToAgent::ResultAck { command_ids: ids(&[1, 2]) }).await;
            stream.send(&ToAgent::Commands { commands: vec![manager.command(3, |_| ())] }).await;
            while !matches!(stream.next().await, FromAgent::Ack { .. }) {}
        }
        assert_eq!(stop(running).await, 0);
    }
    let _running = manager.run(&["--transport", "stream"]);
    let effects = hello(&mut manager.accept().await).await;
    assert!(effects.iter().all(|effect| effect.released.is_none()), "{effects:?}");
}

async fn hello(stream: &mut crate::support::Stream) -> Vec<HeldEffect> {
    let FromAgent::Hello { effects, .. } = stream.next().await else { panic!("no hello") };
    effects.unwrap()
}

#[tokio::test]
async fn an_effect_that_the_clock_has_ended_is_reported() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    let now = riposte_protocol::time::Timestamp::from_millis(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap());
    let until = Some(now.plus(std::time::Duration::from_millis(400)));
    stream.send(&ToAgent::Commands { commands: vec![manager.command(1, |command| command.until = until)] }).await;
    stream.ack().await;
    stream.results().await;
    loop {
        if let FromAgent::Effects { effects, ended } = stream.next().await {
            assert_eq!((effects, ended), (vec![], ids(&[1 << 64])));
            break;
        }
    }
}

#[tokio::test]
async fn an_agent_with_a_full_disk_reports_it_in_every_result() {
    let (manager, _) = Manager::with_agent().await;
    // No file may grow, and SIGXFSZ is ignored: a write returns an error, as on a full disk.
    let program = env!("CARGO_BIN_EXE_riposte-agent");
    let script = format!("trap '' XFSZ; exec prlimit --fsize=0 {program} run --transport stream --state-dir \"$0\"");
    let mut running = tokio::process::Command::new("sh");
    let running = running.args(["-c", &script]).arg(manager.state.path()).kill_on_drop(true).spawn().unwrap();
    let mut stream = manager.accept().await;
    let FromAgent::Hello { capabilities, .. } = stream.next().await else { panic!("no hello") };
    assert!(capabilities.iter().all(|capability| !capability.available));
    stream.send(&ToAgent::Commands { commands: vec![manager.command(1, |_| ())] }).await;
    let results = stream.results().await;
    assert_eq!(results[0].outcome, Outcome::Refused);
    assert!(
        results[0].message.starts_with("the agent's journal cannot be written, so nothing new is executed: "),
        "{}",
        results[0].message
    );
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn systemd_is_notified_of_readiness_heartbeats_and_stopping() {
    let (manager, _) = Manager::with_agent().await;
    let path = manager.state.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut running = agent(manager.state.path(), &["run", "--transport", "stream"]);
    running.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let running = running.spawn().unwrap();
    let told = async |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let length =
                tokio::time::timeout(crate::support::PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
            if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                break;
            }
        }
    };
    // Without a manager: reverts do not need one.
    told("READY=1").await;
    let mut stream = manager.accept().await;
    stream.hello().await;
    told("STATUS=connected to the manager").await;
    told("WATCHDOG=1").await;
    drop(stream);
    told("STATUS=not connected to the manager").await;
    assert_eq!(stop(running).await, 0);
    told("STOPPING=1").await;
}

#[tokio::test]
async fn an_incident_is_in_the_status_and_reported_at_every_connect() {
    let (manager, _) = Manager::with_agent().await;
    // The journal after an action of another version could not be lifted.
    let held = serde_json::json!([{"record": "held", "held": {
        "effect": uuid::Uuid::from_u128(7), "action": "gone-action", "target": {"kind": "ip", "value": "203.0.113.7"},
        "arguments": [], "until": "2026-01-01T00:00:00.000Z", "undo": null,
    }}]);
    let json = held.to_string();
    let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    std::fs::write(manager.state.path().join("journal"), line).unwrap();
    for _ in 0..2 {
        let running = manager.run(&["--transport", "stream"]);
        let mut stream = manager.accept().await;
        let effects = hello(&mut stream).await;
        assert_eq!(effects[0].failing.as_deref(), Some("this agent does not know the action gone-action"));
        assert_eq!(stop(running).await, 0);
    }
    let status = agent(manager.state.path(), &["status"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains("1 effects; 1 incidents"), "{said}");
    assert!(said.contains("INCIDENT since ") && said.contains("cannot be lifted: this agent does not know"), "{said}");
}
