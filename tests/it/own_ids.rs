//! Alerts by the ids of their pipelines: the id that a Wazuh user knows.

use serde_json::json;

use crate::processes::{Manager, alert};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Database, TestApp, eventually};

const OWN: &str = "1795169472.12345";

on_both_databases! {
    async fn an_alert_is_found_by_its_pipelines_own_id(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let taken = admin.post("/v1/alerts", &brute_force(OWN, "203.0.113.7")).await.is(202);
        admin.post("/v1/alerts", &brute_force("1795169472.99", "203.0.113.8")).await.is(202);
        let one = admin.get(&format!("/v1/alerts/{OWN}")).await.is(200);
        assert_eq!(one["pipeline_id"], OWN);
        let id = one["id"].as_str().unwrap();
        assert_eq!(admin.get(&format!("/v1/alerts/{id}")).await.is(200), one, "and by Riposte's");
        assert_eq!(admin.get(&format!("/v1/alerts/{OWN}/explain")).await.is(200)["alert_id"], id);
        let listed = admin.list(&format!("/v1/alerts?source_id={OWN}")).await;
        assert_eq!((listed.len(), listed[0]["id"].as_str()), (1, Some(id)));
        let responses = admin.list(&format!("/v1/responses?alert_id={OWN}")).await;
        assert_eq!((responses.len(), &responses[0]["id"]), (1, &taken["responses"][0]));
        admin.get("/v1/alerts/1795169472.0").await.is_problem(404);
        assert!(admin.list("/v1/alerts?source_id=1795169472.0").await.is_empty());

        // Wazuh's ids are unique on one node only.
        let mut other = brute_force(OWN, "203.0.113.9");
        other["manager"] = json!({"name": "siem-2"});
        other["cluster"] = json!({"node": "worker-\n7"});
        admin.post("/v1/alerts", &other).await.is(202);
        for path in [format!("/v1/alerts/{OWN}"), format!("/v1/alerts/{OWN}/explain"), format!("/v1/responses?alert_id={OWN}")] {
            let problem = admin.get(&path).await.is_problem(409);
            assert_eq!(problem["type"], "urn:riposte:problem:ambiguous");
            let named = problem["errors"].to_string();
            for word in ["siem-1", "siem-2", "worker-", id] {
                assert!(named.contains(word), "{word}: {problem}");
            }
        }
        assert_eq!(admin.list(&format!("/v1/alerts?source_id={OWN}")).await.len(), 2);
    }

    /// Alerts stored by an earlier version are indexed after the start, in the background.
    async fn alerts_of_an_earlier_version_are_found_too(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        admin.post("/v1/alerts", &brute_force(OWN, "203.0.113.7")).await.is(202);
        assert_eq!(app.execute("UPDATE alerts SET pipeline_id = NULL").await, 1);
        admin.get(&format!("/v1/alerts/{OWN}")).await.is_problem(404);
        let (_app, admin) = app.restart().await;
        eventually("it is named", || async {
            (admin.get(&format!("/v1/alerts/{OWN}")).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_command_line_finds_alerts_by_either_id() {
    let manager = Manager::start().await;
    manager.api().make_policy("log-only", "10m").await;
    let mut sent = alert(7, "203.0.113.7", "web-01");
    sent["rule"]["description"] = json!("\u{1b}[31mred\u{202e}der");
    manager.api().post("/v1/alerts", &sent).await;
    let (is_listed, list) = manager.command(&["alert", "list", "-o", "wide"]);
    assert!(is_listed && list.contains("1795514400.7") && list.contains("5763"), "{list}");
    assert!(!list.contains('\u{1b}'), "{list:?}");
    let (is_shown, shown) = manager.command(&["alert", "show", "1795514400.7"]);
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    assert!(is_shown && shown.contains("spared") && shown.contains("\"srcip\": \"203.0.113.7\""), "{shown}");
    let (is_explained, explained) = manager.command(&["alert", "explain", "1795514400.7"]);
    assert!(is_explained && explained.contains("answer, version 1: fires"), "{explained}");
    let (is_json, json) = manager.command(&["alert", "show", "1795514400.7", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(is_json && json["responses"].as_array().unwrap().len() == 1, "{json}");
    let (is_found, said) = manager.command(&["alert", "show", "1795514400.8"]);
    assert!(!is_found && said.contains("no alert has this id"), "{said}");
}
