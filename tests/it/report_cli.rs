//! `riposte report`: a month of a real manager, for auditors.

use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::login_cli::Account;
use crate::processes::{Agent, Manager, alert, text};

/// The month of an instant.
fn month(at: &str) -> String {
    at[..7].to_owned()
}

#[tokio::test]
async fn a_month_is_reported_as_json_and_as_one_page() {
    let manager = Manager::start().await;
    let api = manager.api();
    let agent = Agent::start(&manager, "web-01").await;
    api.make_policy("log-only", "10m").await;
    let (id, command) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
    let now = text(&api.response(&id).await, "created_at").to_owned();
    let name = "/tmp/<img src=x onerror=alert(1)>";
    let asked = json!({"action": "log-only", "target": {"kind": "file", "value": name}, "agents": [agent.id.as_str()],
        "for": "1h", "reason": "<script>alert(1)</script>"});
    let by_hand = api.post("/v1/responses", &asked).await;
    api.post(&format!("/v1/responses/{}/lift", text(&by_hand, "id")), &json!({"reason": "a mistake"})).await;
    let approve = json!({"name": "asks", "mode": "approve", "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "log-only", "target": "source.ip", "on": "origin", "for": "1h"}});
    api.post("/v1/policies", &approve).await;
    api.post("/v1/alerts", &alert(2, "203.0.113.8", "web-01")).await;
    let waiting = api.get("/v1/responses?state=awaiting_approval").await;
    let waits = text(&waiting["items"][0], "id").to_owned();
    let password = "correct horse battery staple";
    api.post("/v1/users", &json!({"name": "bob", "role": "engineer", "password": password})).await;
    let tokens = api.post("/v1/auth/token", &json!({"username": "bob", "password": password})).await;
    let bob = api.with_key(text(&tokens, "access_token"));
    bob.post(&format!("/v1/responses/{waits}/approve"), &json!({"reason": "an attack"})).await;
    api.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.9", "reason": "the bank"})).await;
    api.post("/v1/alerts", &alert(3, "203.0.113.9", "web-01")).await;
    api.post("/v1/users", &json!({"name": "alice", "role": "viewer"})).await;
    api.post("/v1/api-keys", &json!({"name": "a<b>&c", "kind": "service", "role": "viewer"})).await;

    let report = |form: &str| manager.command(&["report", "--month", &month(&now), "-o", form]);
    let (is_made, said) = report("json");
    let end = said.rfind('}').unwrap_or_default();
    let json: Value = serde_json::from_str(&said[..=end]).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(is_made, "{said}");
    let block =
        |policy: Value| json["blocks"].as_array().unwrap().iter().find(|block| block["policy"] == policy).unwrap();
    assert_eq!(block(json!("asks"))["responses"], 1, "{json}");
    assert_eq!(block(Value::Null)["responses"], 1, "{json}");
    assert!(block(json!("answer"))["responses"].as_u64().unwrap() >= 2, "{json}");
    assert_eq!(json["undone"]["by_people"], 1, "{json}");
    assert_eq!(json["undone"]["share_by_people"], 1.0, "{json}");
    let decision = &json["decisions"][0];
    assert_eq!((&decision["who"], &decision["approved"]), (&json!("bob"), &json!(1)), "{json}");
    assert!(json["spared"].as_array().unwrap().iter().any(|row| row["reason"] == "protected"), "{json}");
    assert_eq!(json["access"]["people"][0]["name"], "alice", "{json}");
    assert!(json["access"]["keys"].as_array().unwrap().len() >= 2, "{json}");
    let unknown = json["unknown"].to_string();
    assert!(unknown.contains("The month is not over") && unknown.contains("No older response is stored"), "{unknown}");
    let counted: u64 = json["by_state"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(json["decided"], counted);
    // What is not verified has no time: none is made up.
    let times = &json["time_to_contain"];
    assert_eq!(times["verified"].as_u64().unwrap() > 0, !times["p50_millis"].is_null(), "{times}");

    let (is_made, page) = report("html");
    assert!(is_made && page.starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("a&#60;b&#62;&#38;c") || page.contains("a&lt;b&gt;&amp;c"), "{page}");
    for markup in ["<script", "<img", "onerror=alert(1)>", "src=", "href="] {
        assert!(!page.contains(markup), "{markup}: {page}");
    }

    let begun: Timestamp = now.parse().unwrap();
    let next = begun.plus(std::time::Duration::from_hours(24 * 32)).to_string();
    let (is_made, said) = manager.command(&["report", "--month", &month(&next)]);
    assert!(!is_made && said.contains("has not begun"), "{said}");
    let (is_made, said) = manager.command(&["report", "--month", "2026-13"]);
    assert!(!is_made && said.contains("a month is a year and a number, such as 2026-11"), "{said}");
    let (is_made, said) = manager.command(&["report", "--month", "2001-01", "-o", "json"]);
    assert!(is_made && said.contains(r#""decided": 0"#) && said.contains(r#""p50_millis": null"#), "{said}");
}

#[tokio::test]
async fn a_viewer_gets_no_access_review_and_is_told_so() {
    let manager = Manager::start().await;
    let made =
        manager.api().post("/v1/api-keys", &json!({"name": "auditor", "kind": "service", "role": "viewer"})).await;
    let account = Account::new();
    let key = account.write("key", text(&made, "key"));
    let said =
        account.done(&["report", "--month", "2001-01", "--manager", &manager.base(), "--key-file", &key, "-o", "json"]);
    assert!(said.contains(r#""access": null"#) && said.contains("needs the right to administer"), "{said}");
}
