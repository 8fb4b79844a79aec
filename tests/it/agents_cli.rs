//! `riposte agent show`, `label` and `revoke`: agents by name, changed after a plan.

use serde_json::json;

use crate::processes::{FakeAgent, Manager};

#[tokio::test]
async fn an_agent_is_shown_labelled_and_revoked_by_its_name_after_a_plan() {
    let manager = Manager::start().await;
    let _away = FakeAgent::enroll(&manager, "web-01").await;
    let asked = json!({"action": "log-only", "target": {"kind": "ip", "value": "203.0.113.7"}, "agents": ["web-01"],
        "reason": "looks odd"});
    manager.api().post("/v1/responses", &asked).await;
    let (is_shown, said) = manager.command(&["agent", "show", "WEB-01"]);
    for words in [
        "agent web-01\n",
        "away; it has never connected",
        "holds      1 effect, 1 not reported",
        "waits      1 command",
    ] {
        assert!(is_shown && said.contains(words), "{words}: {said}");
    }
    let (_, said) = manager.command(&["agent", "show", "web-01", "-o", "name"]);
    assert_eq!(said, "web-01\n");
    let (is_shown, said) = manager.command(&["agent", "show", "web-02"]);
    assert!(!is_shown && said.contains("no agent called web-02 is enrolled"), "{said}");
    assert!(said.contains("`riposte agent list` lists them"), "{said}");

    let (is_done, said) = manager.command(&["agent", "label", "web-01", "env=prod", "gone-", "--dry-run"]);
    assert!(is_done && said.contains("env=prod is new") && said.contains("gone is not there"), "{said}");
    let (_, said) = manager.command(&["agent", "label", "web-01", "env=prod"]);
    assert!(said.contains("type: riposte agent label web-01 env=prod --yes"), "{said}");
    let (is_done, said) = manager.command(&["agent", "label", "web-01", "env=prod", "--yes"]);
    assert!(is_done && said.contains(r#"web-01 {"env":"prod"}"#), "{said}");
    let (_, said) = manager.command(&["agent", "label", "web-01", "env=test", "--dry-run"]);
    assert!(said.contains("env=test, was prod"), "{said}");

    let (is_done, said) = manager.command(&["agent", "revoke", "web-01"]);
    assert!(!is_done && said.contains("1 effect has no end and STAYS on its host"), "{said}");
    assert!(said.contains("log-only 203.0.113.7") && said.contains("cancelled  1 queued command"), "{said}");
    let (is_done, said) = manager.command(&["agent", "revoke", "web-01", "--yes"]);
    assert!(is_done && said.contains("web-01 is revoked"), "{said}");
    let (is_done, said) = manager.command(&["agent", "revoke", "web-01", "--yes"]);
    assert!(!is_done && said.contains("no agent called web-01 is enrolled"), "{said}");
}
