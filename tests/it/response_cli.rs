//! `riposte response …`, `riposte alert show` and `riposte agent list` as people read them: the real program and a real manager.

use serde_json::{Value, json};

use crate::processes::{Agent, FakeAgent, Manager, alert, text};

#[tokio::test]
async fn the_command_line_shows_what_became_of_a_response() {
    let manager = Manager::start().await;
    let api = manager.api();
    let here = Agent::start(&manager, "web-01").await;
    let _away = FakeAgent::enroll(&manager, "web-02").await;
    let asked = json!({"action": "log-only", "target": {"kind": "ip", "value": "203.0.113.7"}, "agents": ["web-01", "web-02"],
        "for": "1h", "reason": "looks odd\u{202e}"});
    let made = api.post("/v1/responses", &asked).await;
    let id = text(&made, "id");
    let own = made["commands"].as_array().unwrap().iter().find(|command| command["agent_id"] == here.id.as_str());
    api.command_is(text(own.unwrap(), "id"), "succeeded").await;

    let (is_listed, list) = manager.command(&["response", "list", "--state", "active", "--limit", "1"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(is_listed && lines.len() == 2, "{list}");
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("  UNTIL"), "{list}");
    for word in
        [id, "(key:", "log-only", "ip 203.0.113.7", "active", "partly: in_force 1, pending 1", text(&made, "until")]
    {
        assert!(lines[1].contains(word), "{word}: {list}");
    }
    let (_, json) = manager.command(&["response", "list", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(json.trim()).unwrap()["id"], id);
    let (is_wrong, said) = manager.command(&["response", "list", "--state", "blocked"]);
    assert!(!is_wrong && said.contains("awaiting_approval"), "{said}");

    let end = &id[id.len() - 8..];
    let (is_lifted, said) = manager.command(&["response", "lift", end, "--reason", "a mistake"]);
    assert!(!is_lifted && said.contains("lifts 1 response: 2 effects on 2 agents end"), "{said}");
    assert!(said.contains(&format!("type: riposte response lift {end} --reason 'a mistake' --yes")), "{said}");
    let (is_lifted, said) = manager.command(&["response", "lift", end, "--reason", "a mistake", "--yes"]);
    assert!(is_lifted && said.contains(&format!("response {id}: ended (lifted); ")), "{said}");
    let (is_lifted, said) = manager.command(&["response", "lift", id, "--yes"]);
    assert!(!is_lifted && said.contains("is not active but ended (lifted)"), "{said}");
    let (is_shown, shown) = manager.command(&["response", "show", id]);
    assert!(is_shown && shown.starts_with(&format!("response {id}\n")), "{shown}");
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
    for words in [
        "  state      ended (lifted)",
        "  target     ip 203.0.113.7",
        "web-01: apply succeeded",
        "web-02: pending: ",
        "a mistake",
        "(key:",
        "\nhistory:\n",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let (_, json) = manager.command(&["response", "show", id, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["history"].as_array().unwrap().len() >= 2 && json["commands"].is_array(), "{json}");
    for command in [&["show"][..], &["lift", "--reason", "a mistake"]] {
        let command = [&["response"], command, &["01a00000-0000-7000-8000-000000000000"]].concat();
        let (is_found, said) = manager.command(&command);
        assert!(!is_found && said.contains("the response does not exist"), "{said}");
    }
}

#[tokio::test]
async fn an_alert_and_the_agents_are_shown_with_what_became_of_them() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "10m").await;
    let _away = FakeAgent::enroll(&manager, "web-01").await;
    api.answer_to(&alert(7, "203.0.113.7", "web-01")).await;
    let (_, shown) = manager.command(&["alert", "show", "1795514400.7"]);
    let words = "answer: log-only ip 203.0.113.7\n    state    active\n    outcome  pending: pending 1\n      web-01: pending: queued";
    assert!(shown.contains(words), "{shown}");
    let (_, list) = manager.command(&["agent", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[0].contains("LAST SEEN"), "{list}");
    assert!(
        lines[1].contains("  away  ") && lines[1].contains("never connected") && lines[1].contains("web-01"),
        "{list}"
    );
}
