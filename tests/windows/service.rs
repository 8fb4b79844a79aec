//! The agent as a service of Wine's manager of services.

use serde_json::json;

use crate::wine::{self, Agent, Manager, eventually};

#[tokio::test]
async fn the_service_is_installed_runs_executes_stops_and_is_removed() {
    let manager = Manager::start().await;
    let agent = Agent::new("win-service");
    agent.enrol(&manager).await;
    let (is_installed, said) = agent.run(&["install"]);
    assert!(is_installed, "{said}");
    assert!(said.contains("The service riposte-agent is installed"), "{said}");
    agent.is_seen(&manager).await;
    let target = json!({"kind": "ip", "value": "203.0.113.12"});
    let response = manager.order("win-service", "log-only", target, json!({"for": "1h"})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}");
    let log = std::fs::read_to_string(agent.path("state/agent.log")).unwrap();
    assert!(log.contains("agent started") && log.contains("log-only: applied"), "{log}");

    let (is_removed, said) = agent.run(&["uninstall"]);
    assert!(!is_removed && said.contains("1 effects are in force"), "{said}");
    manager.lift(&response).await;
    manager.results(&response, 2).await;
    let (is_removed, said) = agent.run(&["uninstall"]);
    assert!(is_removed && said.contains("The service riposte-agent is removed"), "{said}");
    let log = std::fs::read_to_string(agent.path("state/agent.log")).unwrap();
    assert!(log.contains("stopping; what is in force stays in force"), "{log}");
    eventually("it is away", async || {
        let agents = manager.get("/v1/agents").await;
        (agents["items"][0]["presence"] == "away").then_some(())
    })
    .await;
    let (is_removed, said) = agent.run(&["uninstall"]);
    assert!(!is_removed && said.contains("the service cannot be removed"), "{said}");

    // Again, as one that only observes.
    let (is_installed, said) = agent.run(&["install", "--observe"]);
    assert!(is_installed, "{said}");
    agent.is_seen(&manager).await;
    let target = json!({"kind": "ip", "value": "203.0.113.14"});
    let response = manager.order("win-service", "log-only", target, json!({"for": "1h"})).await;
    let results = manager.results(&response, 1).await;
    let (is_removed, said) = agent.run(&["uninstall"]);
    assert_eq!(results[0]["observed"], true, "{results:#?}");
    assert!(is_removed, "nothing is in force: {said}");
}

#[tokio::test]
async fn the_package_brings_the_program_and_takes_it_away() {
    let installed = wine::in_prefix("drive_c/Program Files/Riposte/riposte-agent.exe");
    let package = wine::package();
    for (switch, is_there) in [("/i", true), ("/x", false)] {
        let output = wine::wine().args(["msiexec", switch]).arg(&package).args(["/qn", "/norestart"]).output().unwrap();
        assert!(output.status.success(), "{switch}: {output:?}");
        assert_eq!(installed.exists(), is_there, "after {switch}");
        if is_there {
            assert!(installed.with_file_name("first-time.ps1").exists());
        }
    }
}
