//! New agents say which agent of Wazuh their host is, and are believed where the list of a Wazuh manager agrees.

use riposte_protocol::message::{EnrollRequest, WazuhIdentity};
use serde_json::{Value, json};

use crate::support::agent::{enrollment, new_key};
use crate::support::{Client, Database, TestApp};

/// Enrols an agent that says it is `id`, called `wazuh`, in Wazuh. Returns its id.
async fn enrol(app: &TestApp, admin: &Client, name: &str, (id, wazuh): (&str, &str)) -> String {
    let token = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201)["token"].as_str().unwrap().to_owned();
    let key = new_key();
    let claim = WazuhIdentity { id: id.into(), name: wazuh.into() };
    let asked = EnrollRequest { wazuh: Some(claim), ..enrollment(&token, name, &key) };
    let answer =
        Client::anonymous(&app.base).post("/v1/agents/enroll", &serde_json::to_value(asked).unwrap()).await.is(201);
    answer["agent_id"].as_str().unwrap().to_owned()
}

async fn list(admin: &Client, manager: &str, agents: &[(&str, &str)]) -> Value {
    let agents: Vec<_> = agents.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
    admin.put("/v1/wazuh-agents", &json!({"manager": manager, "agents": agents}), None).await.is(200)
}

async fn shown(admin: &Client, agent: &str) -> Value {
    admin.get(&format!("/v1/agents/{agent}")).await.is(200)
}

on_both_databases! {
    async fn a_claim_is_believed_when_the_list_agrees_before_or_after_the_enrolment(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let before = enrol(&app, &admin, "web-01", ("5", "web-01")).await;
        let waiting = shown(&admin, &before).await;
        assert_eq!(waiting["wazuh_claim"], json!({"id": "005", "name": "web-01"}));
        assert_eq!(list(&admin, "w1", &[("005", "web-01"), ("6", "DB-01")]).await, json!({"agents": 2, "believed": 1}));
        let known = shown(&admin, &before).await;
        assert_eq!((&known["labels"]["wazuh_id"], known.get("wazuh_claim")), (&json!("005"), None));
        let after = shown(&admin, &enrol(&app, &admin, "db.example.org", ("006", "db-01")).await).await;
        assert_eq!((&after["labels"]["wazuh_id"], &after["labels"]["wazuh_name"]), (&json!("006"), &json!("db-01")));
        // An alert that names the number finds it.
        let explained = admin.list("/v1/audit").await;
        assert!(explained.iter().any(|entry| entry["verb"] == "labelled" && entry["actor"] == "riposte"));
    }

    async fn a_claim_that_contradicts_waits_for_a_person(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        list(&admin, "w1", &[("005", "web-01"), ("006", "db-01")]).await;
        let first = enrol(&app, &admin, "web-01", ("005", "web-01")).await;
        assert_eq!(shown(&admin, &first).await["labels"]["wazuh_id"], json!("005"));
        for (name, claim, why) in [
            ("mail-01", ("006", "mail-01"), "agent 006 is called db-01"),
            ("ftp-01", ("007", "ftp-01"), "has no such agent"),
            ("other", ("005", "web-01"), "already has the wazuh_id 005"),
        ] {
            let agent = enrol(&app, &admin, name, claim).await;
            let view = shown(&admin, &agent).await;
            assert!(view["labels"].get("wazuh_id").is_none(), "{view}");
            assert!(view["wazuh_claim"]["doubt"].as_str().unwrap().contains(why), "{view}");
            // A person decides.
            let number = format!("1{}", claim.0);
            let label = json!({"labels": {"wazuh_id": number}});
            admin.patch(&format!("/v1/agents/{agent}"), &label, "").await.is(200);
            list(&admin, "w1", &[("005", "web-01"), ("006", "db-01")]).await;
            assert!(shown(&admin, &agent).await.get("wazuh_claim").is_none());
        }
    }

    async fn who_may_send_a_list_and_what_is_refused(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let bad = json!({"manager": "", "agents": [{"id": "x", "name": "a"}, {"id": "1", "name": ""}]});
        assert_eq!(admin.put("/v1/wazuh-agents", &bad, None).await.points_at(), ["/manager", "/agents/0", "/agents/1"]);
        let key = async |scope: Value| {
            let made = json!({"name": scope.to_string(), "role": "ingest", "scope": scope});
            let made = admin.post("/v1/api-keys", &made).await.is(201);
            admin.with_key(made["key"].as_str().unwrap())
        };
        let empty = |manager: &str| json!({"manager": manager, "agents": []});
        let of_one = key(json!({"wazuh_managers": ["w1"]})).await;
        of_one.put("/v1/wazuh-agents", &empty("w1"), None).await.is(200);
        of_one.put("/v1/wazuh-agents", &empty("w2"), None).await.is_problem(403);
        let of_some = key(json!({"agents": {"labels": {"env": "dev"}}})).await;
        of_some.put("/v1/wazuh-agents", &empty("w1"), None).await.is_problem(403);
    }
}
