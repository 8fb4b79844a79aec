//! `riposte setup wazuh`: from a Wazuh manager to alerts that arrive and hosts that enrol.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;

use crate::processes::{Manager, PATIENCE, agent_program, alert, eventually, manager_program, tied};

const CONFIGURATION: &str = r"<ossec_config>
  <command><name>firewall-drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>
  <active-response><command>firewall-drop</command><location>local</location><rules_id>5763</rules_id><timeout>600</timeout></active-response>
</ossec_config>
";

/// A folder as a Wazuh manager has it.
fn wazuh() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    fs::create_dir_all(dir.path().join("logs/alerts")).unwrap();
    fs::write(dir.path().join("etc/ossec.conf"), CONFIGURATION).unwrap();
    let keys = "001 web-01 any 0123\n002 !web-02 any 4567\n003 web-03 10.0.0.3 89ab\n";
    fs::write(dir.path().join("etc/client.keys"), keys).unwrap();
    fs::write(dir.path().join("logs/alerts/alerts.json"), "").unwrap();
    dir
}

fn set_up(manager: &Manager, wazuh: &Path, config: &Path, flags: &[&str]) -> (bool, String) {
    let mut command = tied(&manager_program());
    command
        .args(["setup", "wazuh", "--manager", &manager.base(), "--key-file"])
        .arg(manager.data_dir().join("admin.key"));
    command.arg("--wazuh-dir").arg(wazuh).arg("--config-dir").arg(config).args(flags);
    // The test leaves the services of its host alone.
    let programs = TempDir::new().unwrap();
    let systemctl = programs.path().join("systemctl");
    fs::write(&systemctl, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn an_active_response_that_cannot_be_imported_is_in_the_exit_code() {
    let (manager, wazuh, config) = (Manager::start().await, wazuh(), TempDir::new().unwrap());
    let absent =
        "<active-response><command>absent</command><location>local</location><rules_id>1</rules_id></active-response>";
    let configuration = CONFIGURATION.replace("</ossec_config>", &format!("{absent}</ossec_config>"));
    fs::write(wazuh.path().join("etc/ossec.conf"), configuration).unwrap();
    let etc = config.path().join("etc");
    let (is_ok, told) = set_up(&manager, wazuh.path(), &etc, &["--yes"]);
    assert!(!is_ok && told.contains("not every active response became a policy"), "{told}");
    // Wazuh refuses such a file as a whole, and the rest is set up.
    assert_eq!(manager.api().get("/v1/policies").await["items"], json!([]));
    assert!(etc.join("forward.key").exists(), "{told}");
}

#[tokio::test]
async fn a_wazuh_manager_is_set_up_with_one_command() {
    let (manager, wazuh, config) = (Manager::start().await, wazuh(), TempDir::new().unwrap());
    let (api, etc) = (manager.api(), config.path().join("etc"));
    let (is_ok, told) = set_up(&manager, wazuh.path(), &etc, &["--dry-run"]);
    assert!(is_ok && told.contains("would make an enrolment token for 2 hosts"), "{told}");
    assert_eq!(api.get("/v1/policies").await["items"], json!([]));
    assert!(!etc.exists());
    let (is_ok, told) = set_up(&manager, wazuh.path(), &etc, &["--yes"]);
    assert!(is_ok && told.contains("2 agents"), "{told}");
    assert!(told.contains("other hosts cannot reach http://127.0.0.1:"), "{told}");
    let policies = api.get("/v1/policies").await;
    assert_eq!((policies["items"].as_array().unwrap().len(), &policies["items"][0]["mode"]), (1, &json!("observe")));
    let key = etc.join("forward.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    // The printed line enrols a host, which says which agent of Wazuh it is.
    let token = told.split("echo ").nth(1).unwrap().split(' ').next().unwrap();
    let host = config.path().join("host");
    fs::create_dir_all(host.join("etc")).unwrap();
    fs::write(host.join("etc/client.keys"), "001 web-01 any 0123\n").unwrap();
    let mut agent = tied(&agent_program());
    agent.args(["enroll", "--manager", &manager.base(), "--name", "web-01", "--state-dir"]);
    agent.arg(config.path().join("agent")).arg("--wazuh-home").arg(&host);
    let output = agent.env("RIPOSTE_TOKEN", token).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The forwarder runs with what was written.
    let settings = fs::read_to_string(etc.join("forward.env")).unwrap();
    let mut forwarder = tied(&manager_program());
    forwarder.args(["forward", "--from", "beginning", "--state-dir"]).arg(config.path().join("state"));
    forwarder.arg("--key-file").arg(&key).envs(settings.lines().map(|line| line.split_once('=').unwrap()));
    let mut forwarder = forwarder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The list of Wazuh's agents agrees.
    let recognised = async || {
        let agents = api.get("/v1/agents").await;
        (agents["items"][0]["labels"]["wazuh_id"] == "001").then_some(())
    };
    eventually("the number of the host", PATIENCE, recognised).await;
    let mut one = alert(1, "203.0.113.7", "web-01");
    one["agent"]["id"] = json!("001");
    fs::write(wazuh.path().join("logs/alerts/alerts.json"), format!("{one}\n")).unwrap();
    let observed = async || {
        let listed = api.get("/v1/responses").await;
        (listed["items"][0]["state"] == "observed").then_some(())
    };
    eventually("an observed response", PATIENCE, observed).await;
    forwarder.kill().unwrap();
    forwarder.wait().unwrap();
    // What is there stays.
    let before = fs::read_to_string(&key).unwrap();
    let (is_ok, told) = set_up(&manager, wazuh.path(), &etc, &["--yes"]);
    assert!(is_ok && told.contains("is there already") && told.contains("is right already"), "{told}");
    assert_eq!(fs::read_to_string(&key).unwrap(), before);
    assert_eq!(api.get("/v1/policies").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_host_without_wazuh_and_a_program_that_cannot_ask_are_told_so() {
    let (manager, config) = (Manager::start().await, TempDir::new().unwrap());
    let (is_ok, told) = set_up(&manager, config.path(), config.path(), &["--yes"]);
    assert!(!is_ok && told.contains("there is no Wazuh manager in"), "{told}");
    let (is_ok, told) = set_up(&manager, wazuh().path(), config.path(), &[]);
    assert!(!is_ok && told.contains("--yes"), "{told}");
}
