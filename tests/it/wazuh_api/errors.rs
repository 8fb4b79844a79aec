//! The form of every error below `/wazuh`, for hostile bodies.

use reqwest::Method;
use serde_json::{Value, json};

use super::{LOGIN, block, fleet, run, service};
use crate::support::{Answer, Client, Database, TestApp};

on_both_databases! {
    async fn a_body_that_is_wrong_gets_wazuhs_words_and_changes_nothing(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, ..] = fleet(&app, &admin).await;
        let soar = service(&app, &admin, "analyst").await;
        let alert = json!({"data": {"srcip": "203.0.113.7"}});
        let many = vec!["x".repeat(1000); 33];
        for (body, error, word) in [
            (json!({}), Some(1650), "not specified"),
            (json!({"command": ""}), Some(1650), "not specified"),
            (json!([]), None, "object"),
            (json!(["firewall-drop600", [], {"data": {"srcip": "203.0.113.7"}}]), None, "object"),
            (json!(7), None, ""),
            (json!("firewall-drop600"), None, ""),
            (json!(null), None, ""),
            (json!({"command": 7}), None, "/command"),
            (json!({"command": ["firewall-drop600"]}), None, "/command"),
            (json!({"command": "firewall-drop600", "custom": true}), None, "custom"),
            (json!({"command": "firewall-drop600", "arguments": "x"}), None, "/arguments"),
            (json!({"command": "firewall-drop600", "arguments": [1]}), None, "/arguments/0"),
            (json!({"command": "firewall-drop600", "alert": [alert]}), None, "/alert"),
            (json!({"command": "../firewall-drop600", "alert": alert}), None, "parent folder"),
            (json!({"command": "!../../bin/sh", "alert": alert}), None, "parent folder"),
            (json!({"command": "firewall-drop600; reboot", "alert": alert}), None, "'command'"),
            (json!({"command": "firewall-drop\u{0}600", "alert": alert}), None, "control character"),
            (json!({"command": "firewall-drop600", "arguments": ["a\u{0}"]}), None, "control character"),
            (json!({"command": "firewall-drop999999999999", "alert": alert}), None, "ten years"),
            (json!({"command": "firewall-drop600"}), Some(1012), "data.srcip"),
            (json!({"command": "firewall-drop600", "alert": {"data": {"srcip": "1"}}}), Some(1012), "/alert"),
            (json!({"command": "firewall-drop600", "alert": {"data": {"srcip": ";reboot"}}}), Some(1012), "/alert"),
            (json!({"command": "firewall-drop600", "alert": {"data": {"srcip": ["203.0.113.7"]}}}), Some(1012), "data.srcip"),
            (json!({"command": "disable-account60", "alert": {"data": {"dstuser": "a\u{0}b"}}}), Some(1012), ""),
            (json!({"command": "firewall-drop600", "arguments": ["x"], "alert": alert}), Some(1012), "/arguments"),
            (json!({"command": "log-only60", "arguments": many}), Some(1012), "/arguments"),
            (json!({"command": "kill-process0", "alert": {"data": {"audit": {"pid": "4711"}}}}), Some(1012), "/arguments"),
        ] {
            let problem = run(&soar, "?agents_list=005", &body).await.is_wazuh_problem(400);
            assert_eq!(problem.get("error").and_then(Value::as_u64), error, "{body}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(word), "{body}: {problem}");
            assert_eq!(problem["title"], "Bad Request");
        }
        // Deep nesting and a large body.
        let put = |body: String| {
            let request = soar.request(Method::PUT, "/wazuh/active-response?agents_list=005");
            Answer::to(request.header("content-type", "application/json").body(body))
        };
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        put(format!("{{\"command\":\"firewall-drop600\",\"alert\":{deep}}}")).await.is_wazuh_problem(400);
        for broken in ["", "{", "{\"command\":\"firewall-drop600\"} x", "\u{feff}{}"] {
            put(broken.to_owned()).await.is_wazuh_problem(400);
        }
        let large = json!({"command": "firewall-drop600", "arguments": ["x".repeat(1024 * 1024)]}).to_string();
        assert_eq!(put(large).await.is_wazuh_problem(413)["title"], "Content size exceeded.");
        assert!(web.owed().await.is_empty());
        assert!(admin.list("/v1/responses").await.is_empty());
    }

    async fn an_unknown_command_is_a_failed_item_of_each_agent_as_in_wazuh(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        fleet(&app, &admin).await;
        let soar = service(&app, &admin, "analyst").await;
        for (command, word) in [
            ("firewal-drop600", "did you mean firewall-drop"),
            ("firewall-drop", "firewall-drop600"),
            ("!rm", "rm is no action"),
            ("!firewall-drop600", "firewall-drop600"),
        ] {
            let answer = run(&soar, "", &block(command, "203.0.113.7")).await.is(200);
            let item = &answer["data"]["failed_items"][0];
            assert_eq!((&item["error"]["code"], &item["id"]), (&json!(1652), &json!(["005", "006"])), "{answer}");
            assert!(item["error"]["message"].as_str().unwrap().contains(word), "{answer}");
            let message = "AR command was not sent to any agent";
            assert_eq!((&answer["error"], &answer["message"]), (&json!(1), &json!(message)));
        }
        assert!(admin.list("/v1/responses").await.is_empty());
    }

    async fn paths_methods_media_types_and_queries_are_answered_in_wazuhs_form(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let soar = service(&app, &admin, "analyst").await;
        for path in ["/wazuh", "/wazuh/nothing", "/wazuh/agents/005/key", "/wazuh/security/user/authenticate/run_as"] {
            let problem = soar.get(path).await.is_wazuh_problem(404);
            assert_eq!(problem, json!({"title": "Not Found", "detail": "404: Not Found"}), "{path}");
        }
        let problem = soar.post("/wazuh/active-response", &json!({})).await.is_wazuh_problem(405);
        assert_eq!(problem, json!({"title": "Method Not Allowed", "detail": "405: Method Not Allowed"}));
        let put = |kind: Option<&str>, body: &'static str| {
            let request = soar.request(Method::PUT, "/wazuh/active-response");
            Answer::to(match kind {
                Some(kind) => request.header("content-type", kind).body(body),
                None => request.body(body),
            })
        };
        for kind in [None, Some("text/plain"), Some("application/xml")] {
            let problem = put(kind, r#"{"command":"log-only60"}"#).await.is_wazuh_problem(406);
            assert_eq!(problem["error"], 6002);
            assert!(problem["detail"].as_str().unwrap().starts_with("Invalid Content-type"), "{problem}");
        }
        for query in ["?agents_list=all", "?agents_list=", "?agents_list=005;006", "?custom=1", "?pretty=maybe", "?agents_list=%00"] {
            run(&soar, query, &json!({"command": "log-only60"})).await.is_wazuh_problem(400);
        }
        for query in ["?limit=0", "?limit=100001", "?offset=-1", "?status=gone", "?distinct=true", "?agents_list=x"] {
            soar.get(&format!("/wazuh/agents{query}")).await.is_wazuh_problem(400);
        }
        let anonymous = Client::anonymous(&app.base);
        for answer in [anonymous.get("/wazuh/agents").await, anonymous.with_key("a.b.c").get("/wazuh/").await] {
            assert_eq!(answer.is_wazuh_problem(401)["title"], "Unauthorized");
        }
        // Below /v1 nothing has changed.
        soar.get("/v1/nothing").await.is_problem(404);
    }

    async fn a_login_in_the_name_of_another_is_refused_with_the_reason(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let key = app.client_with_role(&admin, "analyst").await;
        let anonymous = Client::anonymous(&app.base);
        for (client, basic) in [(&anonymous, true), (&anonymous, false), (&admin, false)] {
            let request = client.request(Method::POST, "/wazuh/security/user/authenticate/run_as?raw=true");
            let request = if basic { request.basic_auth("soar", Some(key.key())) } else { request };
            let problem = Answer::to(request.json(&json!({"user_name": "alice"}))).await.is_wazuh_problem(403);
            assert_eq!((&problem["title"], &problem["error"]), (&json!("Permission Denied"), &json!(6004)));
            assert!(problem["detail"].as_str().unwrap().contains("authorization context"), "{problem}");
            assert!(problem["remediation"].as_str().unwrap().contains("/security/user/authenticate"), "{problem}");
        }
    }

    async fn a_manager_that_cannot_commit_says_so_in_wazuhs_form(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        fleet(&app, &admin).await;
        let soar = service(&app, &admin, "analyst").await;
        let send = async || run(&soar, "?agents_list=005", &block("log-only60", "203.0.113.7")).await;
        app.execute("ALTER TABLE holds RENAME TO elsewhere").await;
        let answer = send().await;
        let problem = answer.is_wazuh_problem(503);
        assert_eq!((&problem["title"], &problem["error"]), (&json!("Service Unavailable"), &json!(3021)), "{problem}");
        assert!(problem["remediation"].as_str().unwrap().contains("Retry-After"), "{problem}");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        // Nothing of it was kept, and the same call works when the manager does.
        assert!(admin.list("/v1/responses").await.is_empty());
        app.execute("ALTER TABLE elsewhere RENAME TO holds").await;
        assert_eq!(send().await.is(200)["data"]["affected_items"], json!(["005"]));
    }
}

#[tokio::test]
async fn a_pretty_answer_says_the_same_in_lines_of_wazuhs_indent() {
    let (app, admin) = TestApp::start().await;
    fleet(&app, &admin).await;
    let soar = service(&app, &admin, "analyst").await;
    let plain = soar.get("/wazuh/agents/summary/status").await.is(200);
    let pretty = soar.get("/wazuh/agents/summary/status?pretty=true").await;
    assert_eq!(pretty.is(200), plain);
    assert!(pretty.text.starts_with("{\n   \"data\": {\n      \"connection\": {\n"), "{}", pretty.text);
    let ran = run(&soar, "?pretty=true&agents_list=005", &block("firewall-drop600", "203.0.113.7")).await;
    assert!(ran.text.contains("\n         \"005\"\n      ],"), "{}", ran.text);
    ran.is(200);
    let error = Answer::to(Client::anonymous(&app.base).request(Method::POST, &format!("{LOGIN}?pretty=true"))).await;
    assert_eq!(error.text, "{\n   \"title\": \"Unauthorized\",\n   \"detail\": \"Invalid credentials\"\n}");
    error.is_wazuh_problem(401);
    let missing = soar.get("/wazuh/nothing?pretty=true").await;
    assert_eq!(missing.text, "{\n   \"title\": \"Not Found\",\n   \"detail\": \"404: Not Found\"\n}");
}
