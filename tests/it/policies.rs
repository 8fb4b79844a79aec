//! Policies over the API: created, changed, kept in versions, and in effect from the next alert on.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::{Client, Database, TestApp};

/// Returns the state of each response to the alert numbered `id`, by policy.
async fn answered(admin: &Client, id: &str) -> Vec<(String, String)> {
    let answer = admin.post("/v1/alerts", &brute_force(id, "203.0.113.7")).await.is(202);
    let mut states = Vec::new();
    for response in answer["responses"].as_array().unwrap() {
        let response = admin.get(&format!("/v1/responses/{}", response.as_str().unwrap())).await.is(200);
        let text = |key: &str| response[key].as_str().unwrap().to_owned();
        states.push((text("policy"), text("state")));
    }
    states
}

fn pair(policy: &str, state: &str) -> (String, String) {
    (policy.into(), state.into())
}

on_both_databases! {
    async fn a_policy_is_written_read_changed_and_deleted(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let mut policy = drop_policy("drop");
        policy["mode"] = json!("observe");
        policy["note"] = json!("ticket 7");
        let created = admin.post("/v1/policies", &policy).await;
        assert_eq!(created.header("etag"), Some("\"1\""));
        let read = admin.get("/v1/policies/drop").await;
        assert_eq!((read.header("etag"), read.is(200)), (Some("\"1\""), created.is(201)));
        for (key, value) in policy.as_object().unwrap() {
            assert_eq!(&read.is(200)[key], value, "{key}");
        }
        app.advance(60);
        policy["mode"] = json!("enforce");
        let changed = admin.put("/v1/policies/drop", &policy, Some("\"1\"")).await;
        assert_eq!(changed.header("etag"), Some("\"2\""));
        let changed = changed.is(200);
        assert_eq!((&changed["mode"], &changed["version"]), (&json!("enforce"), &json!(2)));
        assert_eq!(changed["created_at"], read.is(200)["created_at"]);
        assert_eq!(changed["updated_at"], "2026-11-24T10:01:00.000Z");
        admin.delete("/v1/policies/drop", Some("\"2\"")).await.is(204);
        admin.get("/v1/policies/drop").await.is_problem(404);
        assert_eq!(admin.list("/v1/policies").await, Vec::<Value>::new());
    }

    async fn a_change_is_refused_unless_it_names_the_current_version(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        admin.policy(&drop_policy("drop")).await;
        let observing = {
            let mut policy = drop_policy("drop");
            policy["mode"] = json!("observe");
            policy
        };
        admin.put("/v1/policies/drop", &observing, None).await.is_problem(428);
        admin.delete("/v1/policies/drop", None).await.is_problem(428);
        for stale in ["\"0\"", "\"2\"", "1", "\"x\"", "W/\"1\""] {
            admin.put("/v1/policies/drop", &observing, Some(stale)).await.is_problem(412);
            admin.delete("/v1/policies/drop", Some(stale)).await.is_problem(412);
        }
        assert_eq!(admin.get("/v1/policies/drop").await.is(200)["mode"], "enforce");
        // Two clients that read the same version: the second one gets 412.
        admin.put("/v1/policies/drop", &observing, Some("\"1\"")).await.is(200);
        let problem = admin.put("/v1/policies/drop", &drop_policy("drop"), Some("\"1\"")).await.is_problem(412);
        assert_eq!(problem["type"], "urn:riposte:problem:changed");
        assert_eq!(admin.get("/v1/policies/drop").await.is(200)["mode"], "observe");
        admin.put("/v1/policies/other", &drop_policy("other"), Some("\"1\"")).await.is_problem(404);
        admin.delete("/v1/policies/other", Some("\"1\"")).await.is_problem(404);
        let problem = admin.put("/v1/policies/drop", &drop_policy("renamed"), Some("\"2\"")).await;
        assert_eq!(problem.points_at(), ["/name"]);
    }

    async fn every_version_survives_deletion_and_creation_anew(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let mut policy = drop_policy("drop");
        admin.policy(&policy).await;
        policy["note"] = json!("second");
        admin.put("/v1/policies/drop", &policy, Some("\"1\"")).await.is(200);
        admin.delete("/v1/policies/drop", Some("\"2\"")).await.is(204);
        policy["note"] = json!("fourth");
        let again = admin.post("/v1/policies", &policy).await;
        assert_eq!(again.header("etag"), Some("\"4\""), "a version is never used twice");
        let versions = admin.list("/v1/policies/drop/versions").await;
        let shape: Vec<(i64, Option<&str>)> = versions
            .iter()
            .map(|entry| (entry["version"].as_i64().unwrap(), entry["document"]["note"].as_str()))
            .collect();
        assert_eq!(shape, [(4, Some("fourth")), (3, None), (2, Some("second")), (1, None)]);
        assert!(versions[1]["document"].is_null() && !versions[3]["document"].is_null());
        assert!(versions.iter().all(|entry| entry["changed_by"].as_str().unwrap().starts_with("key:")));
        let verbs: Vec<String> = admin.history("policy", "drop").await.into_iter().map(|(_, verb)| verb).collect();
        assert_eq!(verbs.len(), 4, "{verbs:?}");
        let page = admin.get("/v1/policies/drop/versions?limit=3").await.is(200);
        let rest =
            admin.get(&format!("/v1/policies/drop/versions?cursor={}", page["next_cursor"].as_str().unwrap())).await;
        assert_eq!(rest.is(200)["items"].as_array().unwrap().len(), 1);
        admin.get("/v1/policies/never/versions").await.is_problem(404);
    }

    async fn a_policy_counts_from_the_next_alert_on(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        assert_eq!(answered(&admin, "1").await, []);
        admin.policy(&drop_policy("drop")).await;
        assert_eq!(answered(&admin, "2").await, [pair("drop", "active")]);
        let mut policy = drop_policy("drop");
        policy["mode"] = json!("observe");
        admin.put("/v1/policies/drop", &policy, Some("\"1\"")).await.is(200);
        assert_eq!(answered(&admin, "3").await, [pair("drop", "observed")]);
        admin.policy(&drop_policy("also")).await;
        assert_eq!(answered(&admin, "4").await, [pair("also", "active"), pair("drop", "observed")]);
        policy["match"] = json!([{"rule_ids": ["1"]}]);
        admin.put("/v1/policies/drop", &policy, Some("\"2\"")).await.is(200);
        assert_eq!(answered(&admin, "5").await, [pair("also", "active")]);
        admin.delete("/v1/policies/also", Some("\"1\"")).await.is(204);
        assert_eq!(answered(&admin, "6").await, []);
    }

    async fn a_name_is_taken_once(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        admin.policy(&drop_policy("drop")).await;
        let mut other = drop_policy("drop");
        other["mode"] = json!("observe");
        admin.post("/v1/policies", &other).await.is_problem(409);
        assert_eq!(admin.get("/v1/policies/drop").await.is(200)["mode"], "enforce");
        assert_eq!(admin.list("/v1/policies/drop/versions").await.len(), 1);
    }
}

#[tokio::test]
async fn a_policy_with_faults_is_refused_whole_and_each_is_pointed_at() {
    let (_app, admin) = TestApp::start().await;
    let respond = json!({"action": "firewall-drop"});
    let matching = json!([{"min_level": 3}]);
    for (policy, places) in [
        (json!([]), vec![""]),
        (json!({}), vec!["/name", "/match", "/respond"]),
        (json!({"name": "Drop It", "match": matching, "respond": respond}), vec!["/name"]),
        (json!({"name": "x".repeat(65), "match": matching, "respond": respond}), vec!["/name"]),
        (json!({"name": "p", "match": {}, "respond": respond}), vec!["/match"]),
        (
            json!({"name": "p", "match": [7, {"min_level": 17}], "respond": respond}),
            vec!["/match/0", "/match/1/min_level"],
        ),
        (json!({"name": "p", "match": [{"rule_ids": "5763"}], "respond": respond}), vec!["/match/0/rule_ids"]),
        (json!({"name": "p", "match": [{"agents": ["005"]}], "respond": respond}), vec!["/match/0/agents"]),
        (
            json!({"name": "p", "matches": [], "match": [{"rule_id": ["1"], "a/b": 1}],
                "respond": {"action": "log-only", "fro": "1h"}}),
            vec!["/matches", "/match/0/a~1b", "/match/0/rule_id", "/respond/fro"],
        ),
        (
            json!({"name": "p", "mode": "enforced", "match": matching,
                "respond": {"action": "firewal-drop", "for": "10 minutes", "on": "al"}}),
            vec!["/mode", "/respond/action", "/respond/on", "/respond/for"],
        ),
        (
            json!({"name": "p", "match": matching,
                "respond": {"action": "firewall-drop", "target": "destination.user"}}),
            vec!["/respond/target"],
        ),
        (
            json!({"name": "p", "match": matching, "respond": {"action": "firewall-drop", "target": "source.ipp"}}),
            vec!["/respond/target"],
        ),
        (
            json!({"name": "p", "match": matching, "respond": {"action": "firewall-drop", "on": {"agents": []}}}),
            vec!["/respond/on/agents"],
        ),
        (
            json!({"name": "p", "match": matching, "respond": {"action": "firewall-drop", "for": "0s"}}),
            vec!["/respond/for"],
        ),
        (
            json!({"name": "p", "match": matching, "respond": {"action": "log-only", "arguments": vec!["x"; 33]}}),
            vec!["/respond/arguments"],
        ),
    ] {
        let mut found = admin.post("/v1/policies", &policy).await.points_at();
        found.sort();
        let mut places: Vec<String> = places.into_iter().map(String::from).collect();
        places.sort();
        assert_eq!(found, places, "{policy}");
    }
    assert_eq!(admin.list("/v1/policies").await.len(), 0);
    // A suggestion where a word looks misspelt.
    let misspelt = json!({"name": "p", "matchh": [], "match": matching, "respond": {"action": "firewal-drop"}});
    let problem = admin.post("/v1/policies", &misspelt).await.is_problem(422);
    let details: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["detail"].as_str().unwrap()).collect();
    assert!(
        details[0].contains("did you mean match?") && details[1].contains("did you mean firewall-drop?"),
        "{details:?}"
    );
    // The same rules hold for a change.
    admin.policy(&drop_policy("p")).await;
    admin.put("/v1/policies/p", &misspelt, Some("\"1\"")).await.is_problem(422);
    assert_eq!(admin.get("/v1/policies/p").await.is(200)["version"], 1);
}

#[tokio::test]
async fn a_policy_that_can_never_match_is_a_warning() {
    let (_app, admin) = TestApp::start().await;
    let mut policy = drop_policy("drop");
    assert_eq!(admin.policy(&policy).await["warnings"], json!([]));
    for (name, selectors, places) in
        [("none", json!([]), vec!["/match"]), ("empty", json!([{"min_level": 3}, {}]), vec!["/match/1"])]
    {
        policy["name"] = json!(name);
        policy["match"] = selectors;
        let created = admin.policy(&policy).await;
        let found: Vec<&str> =
            created["warnings"].as_array().unwrap().iter().map(|w| w["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, places);
        assert_eq!(admin.get(&format!("/v1/policies/{name}")).await.is(200)["warnings"], created["warnings"]);
    }
}

#[tokio::test]
async fn any_selector_is_enough_and_within_one_everything_must_hold() {
    let (app, admin) = TestApp::start().await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
    app.enrol(&admin, "db-01", &json!({"wazuh_id": "006", "env": "test"})).await;
    // The alert: rule 5763, level 10, groups syslog, sshd, authentication_failures, pci_dss_11.4;
    // agent 005 (prod).
    let cases = [
        (json!([{"rule_ids": ["5763"]}]), true),
        (json!([{"rule_ids": [5763]}]), true),
        (json!([{"rule_ids": ["05763"]}]), true),
        (json!([{"rule_ids": ["576"]}]), false),
        (json!([{"min_level": 10}]), true),
        (json!([{"min_level": 11}]), false),
        (json!([{"rule_groups": ["sshd"]}]), true),
        (json!([{"rule_groups": ["ssh"]}]), false),
        (json!([{"rule_groups": ["SSHD"]}]), false),
        (json!([{"rule_groups": ["web", "pci_dss_11.4"]}]), true),
        (json!([{"rule_ids": ["5763"], "min_level": 11}]), false),
        (json!([{"rule_ids": ["5763"], "rule_groups": ["web"]}]), false),
        (json!([{"rule_ids": ["1"]}, {"min_level": 11}]), false),
        (json!([{"rule_ids": ["1"]}, {"min_level": 10, "rule_groups": ["sshd"]}]), true),
        (json!([{"agents": {"ids": ["5"]}}]), true),
        (json!([{"agents": {"ids": ["006"]}}]), false),
        (json!([{"agents": {"labels": {"env": "prod"}}}]), true),
        (json!([{"agents": {"labels": {"env": "test"}}}]), false),
        (json!([{"min_level": 10, "agents": {"ids": ["005"], "labels": {"env": "prod"}}}]), true),
        (json!([{"min_level": 10, "agents": {"ids": ["005"], "labels": {"env": "test"}}}]), false),
        (json!([{"min_level": 0}]), true),
        (json!([{}]), false),
        (json!([]), false),
    ];
    let mut expected = Vec::new();
    for (n, (selectors, fires)) in cases.iter().enumerate() {
        let name = format!("p{n:02}");
        admin
            .policy(&json!({"name": name, "mode": "observe", "match": selectors, "respond": {"action": "log-only"}}))
            .await;
        expected.extend(fires.then_some((name, "observed".to_owned())));
    }
    assert_eq!(answered(&admin, "1").await, expected);
    // Level 0: Wazuh itself would not even have written it.
    let mut quiet = brute_force("2", "203.0.113.7");
    quiet["rule"]["level"] = json!(0);
    assert_eq!(admin.post("/v1/alerts", &quiet).await.is(202)["responses"], json!([]));
}

#[tokio::test]
async fn a_response_goes_to_the_agents_that_its_policy_names() {
    let (app, admin) = TestApp::start().await;
    let mut agents = Vec::new();
    for (name, labels) in [
        ("web-01", json!({"wazuh_id": "005", "env": "prod"})),
        ("web-02", json!({"wazuh_id": "006", "env": "prod"})),
        ("db-01", json!({"env": "test"})),
    ] {
        agents.push(app.enrol(&admin, name, &labels).await);
    }
    for (n, (on, expected)) in [
        (json!("origin"), vec![0]),
        (json!("all"), vec![0, 1, 2]),
        (json!({"agents": ["db-01", "no-such-agent"]}), vec![2]),
        (json!({"agents": [agents[1].id.to_string()]}), vec![1]),
        (json!({"labels": {"env": "prod"}}), vec![0, 1]),
        (json!({"labels": {"env": "prod", "wazuh_id": "006"}}), vec![1]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut policy = drop_policy("drop");
        policy["respond"]["on"] = on.clone();
        admin.policy(&policy).await;
        let answer = admin.post("/v1/alerts", &brute_force(&n.to_string(), &format!("203.0.113.{n}"))).await.is(202);
        let response = admin.get(&format!("/v1/responses/{}", answer["responses"][0].as_str().unwrap())).await.is(200);
        let expected: Vec<Value> = expected.into_iter().map(|at: usize| json!(agents[at].id)).collect();
        assert_eq!(response["agents"], json!(expected), "{on}");
        assert_eq!(response["commands"].as_array().unwrap().len(), expected.len());
        let version = format!("\"{}\"", admin.get("/v1/policies/drop").await.is(200)["version"]);
        admin.delete("/v1/policies/drop", Some(&version)).await.is(204);
    }
}

/// DESIGN §1: an alert's origin is the agent with its number *and* its name, otherwise the agent of
/// its name.
#[tokio::test]
async fn an_alert_finds_its_origin_by_wazuh_id_and_name() {
    let (app, admin) = TestApp::start().await;
    let other = app.enrol(&admin, "host-a", &json!({"wazuh_id": "5"})).await;
    let by_name = app.enrol(&admin, "web-01", &json!({})).await;
    admin.policy(&drop_policy("drop")).await;
    admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202);
    assert_eq!(by_name.owed_one().await.target.value(), "203.0.113.1");
    assert_eq!(other.owed().await, [], "the number alone is not enough");
    // Two agents of one name would be found both, so the name is taken.
    let named = admin.request(reqwest::Method::PATCH, &format!("/v1/agents/{}", other.id));
    crate::support::Answer::to(named.json(&json!({"labels": {"wazuh_name": "web-01"}}))).await.is_problem(409);
    by_name.obey().await;
    admin.delete(&format!("/v1/agents/{}", by_name.id), None).await.is(204);
    // A changed label counts at once.
    let named = admin.request(reqwest::Method::PATCH, &format!("/v1/agents/{}", other.id));
    crate::support::Answer::to(named.json(&json!({"labels": {"wazuh_name": "web-01"}}))).await.is(200);
    admin.post("/v1/alerts", &brute_force("2", "203.0.113.2")).await.is(202);
    assert_eq!(other.owed_one().await.target.value(), "203.0.113.2");
    admin.post("/v1/alerts", &from_agent(brute_force("3", "203.0.113.3"), "009", "HOST-B")).await.is(202);
    assert_eq!(other.owed().await.len(), 1);
}
