//! The actions of Windows: by the recorders those that are programs, by Wine's own calls the others.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::wine::{eventually, forget_in_system, recorded_in_system, recorder, stage};

#[tokio::test]
async fn an_address_is_blocked_by_two_rules_that_name_the_effect_and_unblocked_by_their_names() {
    let (manager, agent) = stage("win-firewall").await;
    let _running = agent.connect(&manager, &[]).await;
    forget_in_system("netsh.exe");
    let before = recorded_in_system("netsh.exe").len();
    let target = json!({"kind": "ip", "value": "203.0.113.10"});
    let response = manager.order("win-firewall", "firewall-drop", target, json!({"for": "1h"})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}");
    assert_eq!(results[0]["verified"], true, "{results:#?}");
    manager.lift(&response).await;
    let results = manager.results(&response, 2).await;
    assert!(results.iter().all(|result| result["outcome"] == "succeeded"), "{results:#?}");
    let ran = recorded_in_system("netsh.exe").split_off(before);
    let changes: Vec<String> = ran
        .iter()
        .filter(|arguments| arguments.len() > 3 && ["add", "delete"].contains(&arguments[2].as_str()))
        .map(|arguments| arguments.join(" "))
        .collect();
    let whole = manager.get(&format!("/v1/responses/{response}")).await;
    let effect = whole["effects"][0]["id"].as_str().unwrap();
    let add = |way: &str| {
        format!(
            "advfirewall firewall add rule name=Riposte firewall-drop 203.0.113.10 {way} interface=any dir={way} \
             action=block remoteip=203.0.113.10/32 description=Riposte effect {effect}"
        )
    };
    let delete = |way: &str| format!("advfirewall firewall delete rule name=Riposte firewall-drop 203.0.113.10 {way}");
    assert_eq!(changes, [add("in"), add("out"), delete("in"), delete("out")]);
}

#[tokio::test]
async fn a_host_is_isolated_by_rules_once_the_manager_answers() {
    let (manager, agent) = stage("win-isolated").await;
    let _running = agent.connect(&manager, &[]).await;
    forget_in_system("netsh.exe");
    let before = recorded_in_system("netsh.exe").len();
    let response = manager
        .order(
            "win-isolated",
            "isolate-host",
            json!({"kind": "host", "value": ""}),
            json!({"for": "1h", "break_glass": true}),
        )
        .await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}");
    manager.lift(&response).await;
    manager.results(&response, 2).await;
    let ran: Vec<String> =
        recorded_in_system("netsh.exe").split_off(before).iter().map(|words| words.join(" ")).collect();
    assert_eq!(
        ran.iter().filter(|text| text.contains("add rule name=Riposte unproven isolation")).count(),
        8,
        "{ran:#?}"
    );
    let blocked = ran.iter().find(|text| text.contains("dir=out") && text.contains("0.0.0.1-")).unwrap();
    assert!(blocked.contains("-127.0.0.0,127.0.0.2-"), "the manager's address stays reachable: {blocked}");
    assert!(ran.iter().any(|text| text.ends_with("new name=Riposte isolate-host")), "{ran:#?}");
}

#[tokio::test]
async fn an_account_is_disabled_and_enabled_and_one_that_does_not_exist_is_named() {
    let (manager, agent) = stage("win-accounts").await;
    let _running = agent.connect(&manager, &[]).await;
    let user = |name: &str| json!({"kind": "user", "value": name});
    let more = json!({"for": "1h", "arguments": ["end-sessions"], "break_glass": true});
    let response = manager.order("win-accounts", "disable-account", user("alice"), more.clone()).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}");
    assert_eq!(results[0]["verified"], true, "{results:#?}");
    manager.lift(&response).await;
    let results = manager.results(&response, 2).await;
    assert!(results.iter().all(|result| result["outcome"] == "succeeded"), "{results:#?}");
    let response = manager.order("win-accounts", "disable-account", user("missing-here"), more).await;
    let results = manager.results(&response, 1).await;
    let reason = results[0]["message"].as_str().unwrap();
    assert!(reason.contains("could not be found"), "{results:#?}");
}

#[tokio::test]
async fn the_process_that_is_meant_is_killed_and_no_other() {
    let (manager, agent) = stage("win-kill").await;
    agent.install("sleeper.exe");
    let _running = agent.connect(&manager, &[]).await;
    // A program of the agent's own tells its number: it hangs, with a child.
    let action = json!({"name": "sleeper", "summary": "A test.", "target_kinds": ["ip"], "executable": "sleeper.exe", "style": "wazuh",
        "parameters": {"type": "array"}, "undoable": false});
    manager.post("/v1/actions", &action).await;
    let nowhere = json!({"kind": "ip", "value": "203.0.113.11"});
    manager.order("win-kill", "sleeper", nowhere, json!({"arguments": ["riposte-test-hang"]})).await;
    let numbers = eventually("the program runs", async || {
        let text = std::fs::read_to_string(agent.path("home/active-response/bin/sleeper.exe.children")).ok()?;
        let (_, child) = text.trim().split_once(' ')?;
        Some(child.to_owned())
    })
    .await;
    let target = json!({"kind": "process", "value": numbers});
    let response =
        manager.order("win-kill", "kill-process", target.clone(), json!({"arguments": ["name=other.exe"]})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "refused", "{results:#?}");
    let response =
        manager.order("win-kill", "kill-process", target.clone(), json!({"arguments": ["name=SLEEPER"]})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}");
    let evidence = results[0]["evidence"]["executable"].as_str().unwrap();
    assert!(evidence.to_lowercase().ends_with(r"sleeper.exe"), "{evidence}");
    let response = manager.order("win-kill", "kill-process", target, json!({"arguments": ["name=sleeper.exe"]})).await;
    let results = manager.results(&response, 1).await;
    assert!(results[0]["message"].as_str().unwrap().contains("there is no process"), "{results:#?}");
}

#[tokio::test]
async fn a_file_is_taken_out_of_reach_and_given_back_with_its_rights() {
    let (manager, agent) = stage("win-files").await;
    let _running = agent.connect(&manager, &[]).await;
    let place = agent.path("Änderung Büro.exe");
    std::fs::write(&place, "malware").unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o644)).unwrap();
    let target = |file: &str| json!({"kind": "file", "value": agent.windows_path(file)});
    let response =
        manager.order("win-files", "quarantine-file", target("Änderung Büro.exe"), json!({"for": "1h"})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}\n{}", agent.log());
    assert!(!place.exists(), "it is gone from its place");
    let kept: Vec<_> = std::fs::read_dir(agent.path("state/quarantine")).unwrap().flatten().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].metadata().unwrap().permissions().mode() & 0o007, 0, "no other account can open it");
    manager.lift(&response).await;
    let results = manager.results(&response, 2).await;
    assert!(results.iter().all(|result| result["outcome"] == "succeeded"), "{results:#?}");
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "malware");
    assert_eq!(place.metadata().unwrap().permissions().mode() & 0o044, 0o044, "others can read it as before");

    // Another program has it open and does not share it.
    let mut holder = recorder(&["riposte-test-hold", &agent.windows_path("Änderung Büro.exe")]);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(holder.is_running());
    let response =
        manager.order("win-files", "quarantine-file", target("Änderung Büro.exe"), json!({"for": "1h"})).await;
    let results = manager.results(&response, 1).await;
    let said = results[0]["message"].as_str().unwrap();
    assert!(said.contains("another program has") && said.contains("open"), "{said}");
    holder.kill();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "malware", "nothing was half-done");

    // What the system and the agent need stays where it is.
    for file in ["state/journal", "riposte-agent.exe"] {
        let response = manager.order("win-files", "quarantine-file", target(file), json!({"for": "1h"})).await;
        let results = manager.results(&response, 1).await;
        assert_eq!(results[0]["outcome"], "refused", "{results:#?}");
    }
    let system = json!({"kind": "file", "value": r"c:\WINDOWS\System32\kernel32.dll"});
    let response = manager.order("win-files", "quarantine-file", system, json!({"for": "1h"})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "refused", "{results:#?}");
}
