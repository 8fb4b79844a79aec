//! An attacker who chooses the texts of alerts: addresses, names, log lines, ids.

use serde_json::{Value, json};

use crate::processes::{FakeAgent as ProcessAgent, Manager};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Database, TestApp};

/// Texts that do harm where a program takes them for more than texts.
const HOSTILE: [&str; 12] = [
    "\u{1b}]0;owned\u{7}\u{1b}[2J",
    "'; DROP TABLE alerts; --",
    "$(touch /tmp/riposte-owned)",
    "`id`",
    "; reboot",
    "-F",
    "../../../../etc/passwd",
    "x\r\nSet-Cookie: owned=1\r\n\r\n",
    "=cmd|' /C calc'!A0",
    "\"} 1\nriposte_owned{x=\"",
    "%s%n%x",
    "<script>alert(1)</script>",
];

/// Returns an alert with `text` in every field that holds text.
fn saying(text: &str, id: usize) -> Value {
    let mut alert = brute_force(&format!("forged-{id}"), text);
    alert["rule"]["description"] = json!(text);
    alert["rule"]["groups"] = json!([text, "sshd"]);
    alert["rule"]["mitre"] = json!({"id": [text]});
    alert["agent"]["ip"] = json!(text);
    alert["manager"]["name"] = json!(text);
    alert["full_log"] = json!(text);
    alert["location"] = json!(text);
    alert["data"] = json!({"srcip": text, "dstip": text, "srcuser": text, "dstuser": text, text: text});
    alert["syscheck"] = json!({"path": text});
    alert
}

on_both_databases! {
    async fn wrappers_around_an_alert_cost_no_more_than_what_they_weigh(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let wrapped = |times: usize| {
            let alert = serde_json::to_string(&brute_force("1", "203.0.113.7")).unwrap();
            format!("{}{alert}{}", "{\"_source\":".repeat(times), "}".repeat(times))
        };
        let post = |body: String| {
            let request = admin.request(reqwest::Method::POST, "/v1/alerts").header("content-type", "application/json");
            crate::support::Answer::to(request.body(body))
        };
        let begun = std::time::Instant::now();
        for times in [5, 130, 50_000] {
            post(wrapped(times)).await.is_problem(422);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
        post(wrapped(2)).await.is(202);
        let stored = admin.list("/v1/alerts").await;
        assert_eq!(stored.len(), 1);
    }

    async fn a_field_that_a_request_can_name_hides_no_alert(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        // A selector that names the rule takes lines of Riposte's own too, so it would show nothing.
        let mut policy = drop_policy("drop");
        policy["match"] = json!([{"min_level": 9}]);
        admin.policy(&policy).await;
        for (id, data) in [
            ("1", json!({"srcip": "203.0.113.1", "parameters": {"alert": {"location": "riposte"}}})),
            ("2", json!({"srcip": "203.0.113.2", "parameters.alert.location": "riposte"})),
        ] {
            let mut alert = brute_force(id, "203.0.113.7");
            alert["data"] = data;
            admin.post("/v1/alerts", &alert).await.is(202);
        }
        assert_eq!(agent.owed().await.len(), 2);
    }

    async fn a_hostile_text_in_any_field_stays_a_text(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        for (name, action, target) in
            [("by-ip", "firewall-drop", "source.ip"), ("by-user", "disable-account", "destination.user")]
        {
            let mut policy = drop_policy(name);
            policy["respond"]["action"] = json!(action);
            policy["respond"]["target"] = json!(target);
            admin.policy(&policy).await;
        }
        for (id, text) in HOSTILE.iter().enumerate() {
            let alert = saying(text, id);
            let taken = admin.post("/v1/alerts", &alert).await.is(202);
            assert_eq!((&taken["accepted"], taken["responses"].as_array().unwrap().len()), (&json!(1), 2), "{text:?}");
            for response in taken["responses"].as_array().unwrap() {
                let answer = admin.get(&format!("/v1/responses/{}", response.as_str().unwrap())).await;
                assert!(answer.header("set-cookie").is_none());
                let response = answer.is(200);
                // No target can be made of it: the policy that fired says so, and acts on nothing.
                assert_eq!((&response["state"], &response["target_value"]), (&json!("spared"), &Value::Null), "{text:?}");
            }
        }
        let newest = admin.get("/v1/alerts?limit=1").await.is(200)["items"][0]["id"].as_str().unwrap().to_owned();
        let kept = admin.get(&format!("/v1/alerts/{newest}")).await.is(200);
        assert_eq!(kept["raw"]["full_log"], *HOSTILE.last().unwrap(), "stored unchanged");
        assert_eq!(admin.list("/v1/alerts").await.len(), HOSTILE.len(), "every table is still there");
        assert!(agent.owed().await.is_empty(), "nothing of it reaches an agent");
        let metrics = admin.get("/metrics").await.text;
        assert!(!metrics.contains("owned"), "a text of an alert is no label");
        assert!(metrics.lines().all(|line| line.starts_with(['#', 'r'])), "{metrics}");
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
        assert!(!std::path::Path::new("/tmp/riposte-owned").exists());
    }

    async fn a_decoy_cannot_silence_an_alert_of_wazuhs(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let pipeline = app.client_with_role(&admin, "ingest").await;
        let decoy = |pipeline: &str, id: &str| {
            json!({"pipeline": pipeline, "id": id, "time": "2026-11-24T10:00:00Z", "rule": {"id": "1", "level": 3}})
        };
        // It claims to be Wazuh, and uses the ids and separators of a Wazuh alert's identity.
        pipeline.post("/v1/alerts", &decoy("wazuh", "1")).await.is_problem(422);
        let joints = [("siem-1", "1"), ("wazuh\u{1f}siem-1", "1"), ("wazuhsiem-1", "1"), ("x", "siem-1\u{1f}\u{1f}1")];
        for (name, id) in joints {
            pipeline.post("/v1/alerts", &decoy(name, id)).await.is(202);
        }
        let real = pipeline.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        assert_eq!((&real["accepted"], &real["duplicates"]), (&json!(1), &json!(0)), "{real}");
        assert_eq!(real["responses"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_hostile_text_cannot_write_to_the_terminal_or_into_another_line_of_the_log() {
    let manager = Manager::start().await;
    let api = manager.api();
    ProcessAgent::enroll(&manager, "web-01").await;
    api.make_policy("firewall-drop", "10m").await;
    for (id, text) in HOSTILE.iter().enumerate() {
        api.post("/v1/alerts", &saying(text, id)).await;
    }
    // A request without a key is logged with its path and the reason of the refusal.
    for path in ["/v1/alerts/%1b%5b2J", "/v1/policies/%0aERROR%20owned", "/v1/agents?name=%1b%5d0;owned%07"] {
        let url = format!("{}{path}", api.base);
        assert_eq!(api.http.get(&url).bearer_auth("\"owned\"").send().await.unwrap().status(), 401, "{path}");
    }
    let log = manager.log();
    assert!(log.contains("without valid credentials"), "the strangers are in the log:\n{log}");
    let odd: Vec<&str> = log
        .lines()
        .filter(|line| line.chars().any(|c| c.is_control() && c != '\t') || line.contains("]0;owned\u{7}"))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(!log.lines().any(|line| line.starts_with("ERROR owned") || line.starts_with("Set-Cookie")), "{log}");
}
