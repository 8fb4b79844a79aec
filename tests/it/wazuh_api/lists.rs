//! What clients read: agents in pages, their numbers, and the version of Wazuh that is followed.

use serde_json::{Value, json};

use super::{fleet, logged_in, service};
use crate::support::{Client, Database, TestApp};

fn ids(answer: &Value) -> Vec<&str> {
    answer["data"]["affected_items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

async fn list(client: &Client, query: &str) -> Value {
    client.get(&format!("/wazuh/agents{query}")).await.is(200)
}

on_both_databases! {
    async fn agents_are_listed_in_pages_by_their_number_and_filtered(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, ..] = fleet(&app, &admin).await;
        for (name, labels) in [
            ("app-12", json!({"wazuh_id": "1012", "wazuh_manager": "siem-1"})),
            ("app-99", json!({"wazuh_id": "099"})),
            ("no-id", json!({})),
        ] {
            app.enrol(&admin, name, &labels).await;
        }
        let _present = web.stream(0).await;
        let viewer = service(&app, &admin, "viewer").await;
        let all = app.in_time("the stream is open", || async {
            let all = list(&viewer, "").await;
            all["data"]["affected_items"].as_array().unwrap().iter().any(|item| item["status"] == "active").then_some(all)
        })
        .await;
        assert_eq!(ids(&all), ["000", "005", "006", "099", "1012"]);
        assert_eq!((&all["error"], &all["message"]), (&json!(0), &json!("All selected agents information was returned")));
        let mut one = all["data"]["affected_items"][1].clone();
        let seen = one.as_object_mut().unwrap().remove("lastKeepAlive").unwrap();
        assert!(seen.as_str().unwrap().starts_with("2026-11-24T10:00:"), "{seen}");
        assert_eq!(one, json!({"os": {"arch": "x86_64", "name": "linux", "platform": "linux", "version": "12"},
            "group_config_status": "synced", "dateAdd": "2026-11-24T10:00:00Z", "node_name": "riposte",
            "manager": "riposte", "registerIP": "any", "ip": "any", "group": ["default"], "status": "active",
            "status_code": 0, "name": "web-01", "id": "005", "version": "Riposte v0.1.0"}));
        let last = &all["data"]["affected_items"][4];
        assert_eq!((&last["status"], &last["status_code"]), (&json!("never_connected"), &json!(1)));
        assert_eq!((&last["manager"], last.get("lastKeepAlive")), (&json!("siem-1"), None));
        for (query, expected, total) in [
            ("?limit=2", &["000", "005"][..], 5),
            ("?offset=2&limit=2", &["006", "099"], 5),
            ("?offset=4", &["1012"], 5),
            ("?offset=5", &[], 5),
            ("?limit=100000", &["000", "005", "006", "099", "1012"], 5),
            ("?status=active", &["005"], 1),
            ("?status=never_connected,pending&limit=1", &["000"], 4),
            ("?status=disconnected", &[], 0),
            ("?status=all&name=web-01", &["005"], 1),
            ("?search=app", &["099", "1012"], 2),
            ("?agents_list=6,005", &["005", "006"], 2),
            ("?offset=0&limit=500&group_config_status=synced", &["000", "005", "006", "099", "1012"], 5),
            ("?group_config_status=not%20synced", &[], 0),
        ] {
            let page = list(&viewer, query).await;
            assert_eq!((ids(&page).as_slice(), &page["data"]["total_affected_items"]), (expected, &json!(total)), "{query}");
        }
        let partly = list(&viewer, "?agents_list=005,777").await;
        assert_eq!((ids(&partly), &partly["error"]), (vec!["005"], &json!(2)));
        assert_eq!(partly["data"]["failed_items"][0]["error"]["code"], 1701);
        assert_eq!(partly["data"]["failed_items"][0]["id"], json!(["777"]));
        assert_eq!(list(&viewer, "?agents_list=777").await["error"], 1);
        let summary = viewer.get("/wazuh/agents/summary/status").await.is(200);
        assert_eq!(summary, json!({"data": {
            "connection": {"active": 1, "disconnected": 0, "never_connected": 4, "pending": 0, "total": 5},
            "configuration": {"synced": 5, "not_synced": 0, "total": 5}}, "error": 0}));
    }

    async fn agents_are_queried_ordered_and_selected_as_wazuh_documents(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, ..] = fleet(&app, &admin).await;
        let _present = web.stream(0).await;
        let viewer = service(&app, &admin, "viewer").await;
        app.in_time("the stream is open", || async {
            (list(&viewer, "?status=active").await["data"]["total_affected_items"] == 1).then_some(())
        })
        .await;
        for (query, expected) in [
            ("?q=id%3E4", &["005", "006"][..]),
            ("?q=id!=000", &["005", "006"]),
            ("?q=status=ACTIVE", &["005"]),
            ("?q=name~WEB,name~siem;status=never_connected", &["000", "005"]),
            ("?q=(name~web,name~siem);status=never_connected", &["000"]),
            ("?q=os.name=linux%3Bos.version%3E11&limit=1&offset=1", &["005"]),
            ("?q=lastKeepAlive%3E2026-11-24%2009:00:00", &["005"]),
            ("?q=manager=siem-1", &["000"]),
            ("?sort=-id", &["006", "005", "000"]),
            ("?sort=+name", &["006", "000", "005"]),
            ("?sort=%2Bname", &["006", "000", "005"]),
            ("?sort=status,-id", &[]),
            ("?sort=status,name&limit=2", &["005", "006"]),
            ("?search=-web", &["000", "006"]),
            ("?search=LINUX", &["000", "005", "006"]),
            ("?q=id%3E0&status=never_connected&search=db&sort=-name", &["006"]),
        ] {
            let answer = viewer.get(&format!("/wazuh/agents{query}")).await;
            match expected {
                [] => assert_eq!(answer.is_wazuh_problem(400)["error"], 1403, "{query}"),
                expected => assert_eq!(ids(&answer.is(200)), expected, "{query}"),
            }
        }
        let selected = list(&viewer, "?select=id,os.name,lastKeepAlive&sort=id&limit=1").await;
        assert_eq!(selected["data"]["affected_items"], json!([{"id": "000", "os": {"name": "linux"}}]));
        for (query, code, word) in [
            ("?q=id%3E%3E1", 1409, "operator"),
            ("?q=os.major=1", 1408, "os.major"),
            ("?q=id", 1407, "expected format"),
            ("?q=(id=1", 1407, "too early"),
            ("?q=", 1407, "expected format"),
            ("?q=lastKeepAlive%3E7d", 1412, "7d"),
            ("?sort=nothing", 1403, "nothing"),
            ("?select=id,os", 1724, "os"),
        ] {
            let problem = viewer.get(&format!("/wazuh/agents{query}")).await.is_wazuh_problem(400);
            assert_eq!((&problem["title"], &problem["error"]), (&json!("Bad Request"), &json!(code)), "{query}");
            assert!(problem["detail"].as_str().unwrap().contains(word), "{query}: {problem}");
            assert!(!problem["remediation"].as_str().unwrap().is_empty(), "{query}");
        }
    }

    async fn a_scope_hides_agents_from_lists_and_numbers(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        fleet(&app, &admin).await;
        let asked = json!({"name": "dev", "role": "viewer", "scope": {"agents": {"labels": {"env": "dev"}}}});
        let key = admin.post("/v1/api-keys", &asked).await.is(201)["key"].as_str().unwrap().to_owned();
        let dev = logged_in(&app, "shuffle", &key).await;
        assert_eq!(ids(&list(&dev, "").await), ["006"]);
        // A hidden one fails as one that does not exist does.
        let (hidden, absent) = (list(&dev, "?agents_list=005").await, list(&dev, "?agents_list=777").await);
        assert_eq!(hidden.to_string().replace("005", "777"), absent.to_string());
        let summary = dev.get("/wazuh/agents/summary/status").await.is(200);
        assert_eq!(summary["data"]["connection"]["total"], 1);
    }

    async fn the_version_that_is_followed_is_where_clients_look_for_it(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let viewer = service(&app, &admin, "viewer").await;
        let info = viewer.get("/wazuh/manager/info").await.is(200);
        assert!(info["data"]["version"].as_str().unwrap().starts_with("4."), "{info}");
        assert!(info["data"]["affected_items"][0]["version"].as_str().unwrap().starts_with("v4."), "{info}");
        assert_eq!((&info["data"]["total_affected_items"], &info["error"]), (&json!(1), &json!(0)));
        let api = viewer.get("/wazuh/").await.is(200);
        assert_eq!((&api["data"]["api_version"], &api["error"]), (&info["data"]["version"], &json!(0)));
        assert_eq!(api["data"]["timestamp"], "2026-11-24T10:00:00.000Z");
    }
}
