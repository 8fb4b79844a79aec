//! Custom programs, and what an agent does with what it is told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::wine::{eventually, recorded_in_system, stage};

fn output(result: &Value) -> (&str, &str) {
    (result["outcome"].as_str().unwrap(), result["output"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_agent_streams_or_polls_and_executes_log_only() {
    let (manager, agent) = stage("win-log").await;
    for transport in ["stream", "poll"] {
        let _running = agent.connect(&manager, &["--transport", transport]).await;
        let target = json!({"kind": "ip", "value": "203.0.113.7"});
        let response =
            manager.order("win-log", "log-only", target, json!({"for": "3s", "arguments": [transport]})).await;
        // Applied, and lifted on time.
        let results = manager.results(&response, 1).await;
        assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}\n{}", manager.log());
        eventually("the effect is lifted", async || {
            let whole = manager.get(&format!("/v1/responses/{response}")).await;
            (whole["outcome"] == "lifted").then_some(())
        })
        .await;
        assert!(agent.log().contains("log-only: reverted"), "{}", agent.log());
    }
}

#[tokio::test]
async fn programs_of_wazuh_get_their_line_and_hostile_arguments_as_they_are() {
    let (manager, agent) = stage("win-programs").await;
    agent.install("block.exe");
    agent.install("words.exe");
    std::fs::write(
        agent.path("home/active-response/bin/batch.cmd"),
        "@echo off\r\necho %1>> \"%~dp0batch.log\"\r\necho from a batch\r\n",
    )
    .unwrap();
    let hostile = [
        "a b",
        "\"quoted\"",
        "back\\slash\\",
        "\\\"",
        "%PATH%",
        "^&|<>()",
        "ünïcödé ☃",
        "",
        "'",
        "--flag=x",
        "$(calc)",
        "`x`",
        "trailing\\\\",
        "a\"b\\\"c",
    ];
    for (name, executable, style) in
        [("block", "block.exe", "wazuh"), ("words", "words.exe", "argv"), ("batch", "batch.cmd", "argv")]
    {
        let parameters = json!({"type": "array"});
        let action = json!({"name": name, "summary": "A test.", "target_kinds": ["ip"], "executable": executable, "style": style,
            "parameters": parameters, "undoable": name != "batch"});
        manager.post("/v1/actions", &action).await;
    }
    let _running = agent.connect(&manager, &[]).await;
    let target = json!({"kind": "ip", "value": "203.0.113.8"});
    let response =
        manager.order("win-programs", "block", target.clone(), json!({"for": "1h", "arguments": hostile})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(output(&results[0]), ("succeeded", "recorded\r\n"), "{results:#?}");
    let recorded = agent.recorded("block.exe");
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    let line: Value = serde_json::from_str(&recorded[0].1).unwrap();
    assert_eq!((&line["version"], &line["command"]), (&json!(1), &json!("add")));
    assert_eq!(line["parameters"]["extra_args"], json!(hostile));
    assert_eq!(line["parameters"]["alert"]["data"]["srcip"], "203.0.113.8");
    manager.lift(&response).await;
    manager.results(&response, 2).await;
    let recorded = agent.recorded("block.exe");
    let line: Value = serde_json::from_str(&recorded[1].1).unwrap();
    assert_eq!(line["command"], "delete");

    let response =
        manager.order("win-programs", "words", target.clone(), json!({"for": "1h", "arguments": hostile})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "succeeded", "{results:#?}");
    let words = &agent.recorded("words.exe")[0].0;
    assert_eq!(words[..3], ["add", "-", "203.0.113.8"]);
    assert_eq!(words[words.len() - hostile.len()..], hostile, "each is one argument, as it was");

    let response = manager.order("win-programs", "batch", target.clone(), json!({"arguments": ["plain"]})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(output(&results[0]), ("succeeded", "from a batch\r\n"), "{results:#?}");
    // The command processor cannot be given this: the program is not started, rather than misled.
    let response = manager.order("win-programs", "batch", target, json!({"arguments": ["a\" & calc & \""]})).await;
    let results = manager.results(&response, 1).await;
    assert_ne!(results[0]["outcome"], "timed_out", "{results:#?}");
    let log = std::fs::read_to_string(agent.path("home/active-response/bin/batch.log")).unwrap();
    assert!(!log.contains("calc\r\n"), "{log}");
}

#[tokio::test]
async fn a_script_of_powershell_is_given_to_it_as_a_file() {
    let (manager, agent) = stage("win-script").await;
    std::fs::write(agent.path("home/active-response/bin/block.ps1"), "exit 0\r\n").unwrap();
    std::fs::write(agent.path("home/active-response/bin/block.txt"), "no program\r\n").unwrap();
    let action = json!({"name": "script", "summary": "A test.", "target_kinds": ["ip"], "executable": "block.ps1",
        "style": "argv", "parameters": {"type": "array"}, "undoable": false});
    manager.post("/v1/actions", &action).await;
    let _running = agent.connect(&manager, &[]).await;
    let (_, actions) = agent.run(&["actions", "--wazuh-home", &agent.windows_path("home")]);
    assert!(actions.contains("script:block.ps1") && !actions.contains("block.txt"), "{actions}");
    let program = r"WindowsPowerShell\v1.0\powershell.exe".replace('\\', "/");
    let before = recorded_in_system(&program).len();
    let target = json!({"kind": "ip", "value": "203.0.113.13"});
    let response = manager.order("win-script", "script", target, json!({"arguments": ["a 'b' c"]})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(output(&results[0]), ("succeeded", "ran a script\r\n"), "{results:#?}");
    let ran = recorded_in_system(&program).split_off(before);
    let words = &ran[0];
    assert_eq!(words[..4], ["-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass"]);
    assert_eq!((words[4].as_str(), &words[5]), ("-File", &agent.windows_path("home/active-response/bin/block.ps1")));
    assert_eq!((words[6].as_str(), words.last().unwrap().as_str()), ("add", "a 'b' c"));
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_everything_that_it_started() {
    let (manager, agent) = stage("win-hang").await;
    agent.install("hang.exe");
    std::fs::write(agent.path("state/agent.toml"), "script_timeout_seconds = 2\n").unwrap();
    let action = json!({"name": "hang", "summary": "A test.", "target_kinds": ["ip"], "executable": "hang.exe", "style": "wazuh",
        "parameters": {"type": "array"}, "undoable": false});
    manager.post("/v1/actions", &action).await;
    let _running = agent.connect(&manager, &[]).await;
    let target = json!({"kind": "ip", "value": "203.0.113.9"});
    let response = manager.order("win-hang", "hang", target, json!({"arguments": ["riposte-test-hang"]})).await;
    let results = manager.results(&response, 1).await;
    assert_eq!(results[0]["outcome"], "timed_out", "{results:#?}\n{}", agent.log());
    let children = std::fs::read_to_string(agent.path("home/active-response/bin/hang.exe.children")).unwrap();
    assert_eq!(children.lines().count(), 1, "it had started a child");
    // Of both nothing is left.
    eventually("the tree is gone", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_left = processes.into_iter().any(|process| {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains("hang.exe")
        });
        (!is_left).then_some(())
    })
    .await;
}
