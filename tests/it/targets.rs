//! What is blocked, by target: the list, one target, and what a response by hand, a lift or a freeze does to it.

use std::collections::{BTreeMap, BTreeSet};

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, FakeAgent, TestApp};

const REASON: &str = "seen at night";

/// A manager with three agents: two of `env` `prod`, one of `dev`.
async fn fleet(database: Database) -> (TestApp, Client, Vec<FakeAgent>) {
    let (app, admin) = TestApp::start_on(database).await;
    let mut agents = Vec::new();
    for (name, env) in [("web-01", "prod"), ("web-02", "prod"), ("dev-01", "dev")] {
        let id = if name == "web-01" { json!({"env": env, "wazuh_id": "005"}) } else { json!({ "env": env }) };
        agents.push(app.enrol(&admin, name, &id).await);
    }
    (app, admin, agents)
}

async fn block(admin: &Client, action: &str, target: &str, agents: &[&str], span: &str) -> String {
    let mut asked =
        json!({"action": action, "target": {"kind": "ip", "value": target}, "agents": agents, "reason": REASON});
    if !span.is_empty() {
        asked["for"] = span.into();
    }
    admin.post("/v1/responses", &asked).await.is(201)["id"].as_str().unwrap().to_owned()
}

async fn row(admin: &Client, target: &str) -> Value {
    let mut rows = admin.list(&format!("/v1/targets?target={target}")).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

fn values(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["value"].as_str().unwrap()).collect()
}

on_both_databases! {
    async fn a_target_counts_its_effects_by_what_became_of_them(database: Database) {
        let (app, admin, agents) = fleet(database).await;
        let names = ["web-01", "web-02", "dev-01"];
        let first = block(&admin, "firewall-drop", "203.0.113.7", &names, "1h").await;
        let found = row(&admin, "203.0.113.7").await;
        let counts = |row: &Value| {
            let words = ["effects", "in_force", "unverified", "pending", "failed", "drifted", "reverting", "failing", "agents"];
            words.map(|word| row[word].as_i64().unwrap())
        };
        assert_eq!(counts(&found), [3, 0, 0, 3, 0, 0, 0, 0, 3], "{found}");
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        agents[1].answer(Outcome::Succeeded, None).await;
        agents[2].answer(Outcome::Failed, None).await;
        let found = row(&admin, "203.0.113.7").await;
        assert_eq!(counts(&found), [3, 1, 1, 0, 1, 0, 0, 0, 3], "{found}");
        // Another action on one of the agents, which holds until it is lifted by hand.
        block(&admin, "route-null", "203.0.113.7", &["web-01"], "").await;
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        let found = row(&admin, "203.0.113.7").await;
        assert_eq!(counts(&found), [4, 2, 1, 0, 1, 0, 0, 0, 3], "{found}");
        assert_eq!((&found["until"], &found["responses"]), (&Value::Null, &json!(2)), "{found}");
        assert_eq!(found["actions"], json!(["firewall-drop", "route-null"]));
        // A lift whose revert fails.
        admin.post(&format!("/v1/responses/{first}/lift"), &json!({"reason": "wrong"})).await.is(200);
        let found = row(&admin, "203.0.113.7").await;
        assert_eq!((&found["in_force"], &found["reverting"], &found["failing"]), (&json!(1), &json!(1), &json!(0)), "{found}");
        agents[0].answer(Outcome::Failed, None).await;
        let found = row(&admin, "203.0.113.7").await;
        assert_eq!((&found["reverting"], &found["failing"]), (&json!(1), &json!(1)), "{found}");
        assert_eq!(values(&admin.list("/v1/targets?state=failing").await), ["203.0.113.7"]);
        assert_eq!(values(&admin.list("/v1/targets?state=pending").await), [""; 0]);
        // A revoked agent is known no more.
        admin.delete(&format!("/v1/agents/{}", agents[0].id), None).await.is(204);
        assert_eq!(admin.list("/v1/targets").await.len(), 0, "what is left is on no enrolled agent");
        drop(app);
    }

    async fn the_sums_of_the_targets_are_those_of_the_effects(database: Database) {
        let (app, admin, agents) = fleet(database).await;
        for nth in 0..9 {
            let some: Vec<&str> = ["web-01", "web-02", "dev-01"].into_iter().take(1 + nth % 3).collect();
            block(&admin, "firewall-drop", &format!("198.51.100.{nth}"), &some, "1h").await;
            app.advance(1);
            if nth % 4 == 0 {
                agents[0].obey().await;
            }
        }
        let filter = json!({"target": "198.51.100.4", "reason": "wrong"});
        admin.post("/v1/responses/lift", &filter).await.is(200);
        // Wanted again later than others: it is listed once, as the newest.
        app.advance(1);
        block(&admin, "firewall-drop", "198.51.100.0", &["web-02"], "2h").await;
        let effects = admin.list("/v1/effects").await;
        let stands = |effect: &&Value| effect["desired"] == "in_force" || effect["actual"] == "in_force" || effect["actual"] == "drifted";
        let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
        for effect in effects.iter().filter(stands) {
            *expected.entry(effect["target_value"].as_str().unwrap()).or_default() += 1;
        }
        for limit in [1, 2, 4, 50] {
            let (mut found, mut path) = (Vec::new(), format!("/v1/targets?limit={limit}"));
            loop {
                let page = admin.get(&path).await.is(200);
                found.extend(page["items"].as_array().unwrap().clone());
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                path = format!("/v1/targets?limit={limit}&cursor={cursor}");
            }
            let mut listed: BTreeMap<&str, i64> = BTreeMap::new();
            for row in &found {
                let parts: i64 = ["in_force", "unverified", "pending", "failed", "drifted", "reverting"]
                    .iter()
                    .map(|word| row[word].as_i64().unwrap())
                    .sum();
                assert_eq!(parts, row["effects"].as_i64().unwrap(), "{row}");
                assert!(listed.insert(row["value"].as_str().unwrap(), parts).is_none(), "listed twice: {row}");
            }
            assert_eq!(listed, expected, "pages of {limit}");
            assert_eq!(found[0]["value"], "198.51.100.0", "what was wanted last is first");
        }
        assert!(admin.get("/v1/targets?cursor=7").await.is_problem(422)["errors"][0]["pointer"] == "/cursor");
        assert!(admin.get("/v1/targets?state=x").await.is_problem(422)["errors"][0]["pointer"] == "/state");
        assert!(admin.get("/v1/targets?kind=x").await.is_problem(422)["errors"][0]["pointer"] == "/kind");
    }

    async fn targets_are_found_by_policy_action_kind_and_agent(database: Database) {
        let (_app, admin, agents) = fleet(database).await;
        admin.policy(&drop_policy("ssh")).await;
        admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.50")).await.is(202);
        block(&admin, "firewall-drop", "203.0.113.51", &["dev-01"], "1h").await;
        let account = json!({"action": "disable-account", "target": "mallory", "agents": ["dev-01"], "for": "1h", "reason": REASON});
        admin.post("/v1/responses", &account).await.is(201);
        let listed = async |query: &str| {
            let rows = admin.list(&format!("/v1/targets?{query}")).await;
            rows.iter().map(|row| row["value"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(listed("policy=ssh").await, set(&["203.0.113.50"]));
        assert_eq!(listed("kind=user").await, set(&["mallory"]));
        assert_eq!(listed("action=firewall-drop").await, set(&["203.0.113.50", "203.0.113.51"]));
        assert_eq!(listed(&format!("agent_id={}", agents[2].id)).await, set(&["203.0.113.51", "mallory"]));
        assert_eq!(listed("target=::ffff:203.0.113.51").await, set(&["203.0.113.51"]));
        let held = row(&admin, "203.0.113.50").await["held_by"][0].clone();
        assert_eq!((&held["policy"], &held["rule"]["id"]), (&json!("ssh"), &json!("5763")), "{held}");
        assert!(held["rule"]["description"].as_str().is_some_and(|text| !text.is_empty()), "{held}");
        // What a scope hides is neither listed nor counted.
        let scope = json!({"name": "dev", "role": "viewer", "scope": {"agents": {"labels": {"env": ["dev"]}}}});
        let dev = admin.post("/v1/api-keys", &scope).await.is(201);
        let dev = admin.with_key(dev["key"].as_str().unwrap());
        block(&admin, "firewall-drop", "203.0.113.52", &["web-01", "dev-01"], "1h").await;
        let rows = dev.list("/v1/targets").await;
        let seen: BTreeSet<&str> = values(&rows).into_iter().collect();
        assert_eq!(seen, BTreeSet::from(["203.0.113.51", "203.0.113.52", "mallory"]));
        assert!(rows.iter().all(|row| row["agents"] == 1 && row["effects"] == 1), "{rows:?}");
        let shown = dev.get("/v1/targets/ip/203.0.113.52").await.is(200);
        assert_eq!(shown["effects"].as_array().unwrap().len(), 1, "{shown}");
        assert_eq!(dev.get("/v1/targets/ip/203.0.113.50").await.is(200)["responses"], json!([]));
    }

    async fn one_target_has_everything_known_of_it(database: Database) {
        let (_app, admin, agents) = fleet(database).await;
        let id = block(&admin, "firewall-drop", "203.0.113.7", &["web-01", "web-02"], "1h").await;
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        admin.post("/v1/feeds", &json!({"name": "edge", "form": "plain"})).await.is(201);
        admin.policy(&drop_policy("ssh")).await;
        let entry = json!({"kind": "ip", "value": "203.0.113.0/24", "policies": ["ssh"], "reason": "the bank"});
        admin.post("/v1/protected", &entry).await.is(201);
        let shown = admin.get("/v1/targets/ip/203.0.113.7").await.is(200);
        assert_eq!((&shown["target"]["agents"], &shown["target"]["responses"]), (&json!(2), &json!(1)), "{shown}");
        let effects = shown["effects"].as_array().unwrap();
        let told: Vec<_> = effects.iter().map(|effect| (&effect["agent"], &effect["outcome"])).collect();
        assert_eq!(told, [(&json!("web-01"), &json!("in_force")), (&json!("web-02"), &json!("pending"))]);
        assert!(effects.iter().all(|effect| effect["held_by"][0]["response_id"] == id.as_str()), "{shown}");
        assert_eq!(shown["responses"][0]["id"], id.as_str());
        assert_eq!(shown["protected"][0]["reason"], "the bank", "{shown}");
        assert_eq!(shown["feeds"][0]["feed"], "edge", "{shown}");
        admin.post(&format!("/v1/responses/{id}/lift"), &json!({"reason": "wrong"})).await.is(200);
        let path = "/v1/targets/ip/%3A%3Affff%3A203.0.113.7";
        assert_eq!(admin.get(path).await.is(200)["responses"][0]["state"], "ended");
        let nothing = admin.get("/v1/targets/file/%2Fetc%2Fpasswd").await.is(200);
        assert_eq!((&nothing["target"]["value"], &nothing["effects"]), (&json!("/etc/passwd"), &json!([])), "{nothing}");
        admin.get("/v1/targets/host/-").await.is(200);
        admin.get("/v1/targets/ip/web-01").await.is_problem(404);
        admin.get("/v1/targets/bird/raven").await.is_problem(404);
    }

    async fn a_dry_run_says_who_cannot_what_is_protected_and_what_is_held(database: Database) {
        let (_app, admin, _agents) = fleet(database).await;
        block(&admin, "firewall-drop", "203.0.113.7", &["web-01"], "1h").await;
        let entry = json!({"kind": "agent", "value": "dev-01", "reason": "a test bench"});
        admin.post("/v1/protected", &entry).await.is(201);
        let asked = json!({"action": "firewall-drop", "target": "203.0.113.7", "on": "all", "reason": REASON, "dry_run": true});
        let plan = admin.post("/v1/responses", &asked).await.is(200);
        assert_eq!((&plan["agents"].as_array().unwrap().len(), &plan["enrolled"]), (&2, &json!(3)), "{plan}");
        assert!((plan["share"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9, "{plan}");
        assert_eq!(plan["protected"][0]["name"], "dev-01", "{plan}");
        assert!(plan["protected"][0]["reason"].as_str().unwrap().contains("a test bench"), "{plan}");
        assert_eq!(plan["already_held"].as_array().unwrap().len(), 1, "{plan}");
        assert_eq!(plan["already_held"][0]["name"], "web-01", "{plan}");
        assert!(plan["already_held"][0]["until"].is_string(), "{plan}");
        assert_eq!(plan["unable"], json!([]), "{plan}");
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "203.0.113.7", "reason": "the bank"})).await.is(201);
        assert_eq!(admin.post("/v1/responses", &asked).await.is_problem(422)["errors"][0]["pointer"], "/target");
    }

    async fn a_dry_run_of_a_lift_says_what_ends_and_what_stays(database: Database) {
        let (_app, admin, _agents) = fleet(database).await;
        let names = ["web-01", "web-02", "dev-01"];
        let first = block(&admin, "firewall-drop", "203.0.113.7", &names, "1h").await;
        let second = block(&admin, "firewall-drop", "203.0.113.7", &["web-02"], "2h").await;
        let plan = async |responses: &[&String]| {
            let asked = json!({"responses": responses, "dry_run": true, "reason": "look"});
            admin.post("/v1/responses/lift", &asked).await.is(200)
        };
        let one = plan(&[&first]).await;
        let expected = json!({"effects": 2, "agents": 2, "stays": 1, "stays_agents": 1});
        for (name, count) in expected.as_object().unwrap() {
            assert_eq!(&one["plan"][name], count, "{name}: {one}");
        }
        let stays = &one["plan"]["staying"][0];
        assert_eq!((&stays["agent"], &stays["response_id"]), (&json!("web-02"), &json!(second)), "{one}");
        assert!(stays["requested_by"].as_str().unwrap().starts_with("key:"), "{one}");
        let both = plan(&[&first, &second]).await;
        assert_eq!((&both["count"], &both["plan"]["effects"], &both["plan"]["stays"]), (&json!(2), &json!(3), &json!(0)), "{both}");
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 2, "a dry run changes nothing");
        let lifted = admin.post("/v1/responses/lift", &json!({"responses": [first], "reason": "wrong"})).await.is(200);
        assert_eq!((&lifted["count"], &lifted["plan"]), (&json!(1), &Value::Null), "{lifted}");
        assert_eq!(plan(&[&first]).await["count"], 0, "what has ended is not lifted again");
        let many = vec![json!(second); 501];
        let many = json!({"responses": many, "reason": "x"});
        assert_eq!(admin.post("/v1/responses/lift", &many).await.is_problem(422)["errors"][0]["pointer"], "/responses");
    }

    async fn a_freeze_says_how_many_commands_wait(database: Database) {
        let (_app, admin, agents) = fleet(database).await;
        block(&admin, "firewall-drop", "203.0.113.7", &["web-01"], "1h").await;
        assert_eq!(admin.get("/v1/freeze").await.is(200)["held_back"], 0, "nothing waits because of a freeze");
        agents[0].answer(Outcome::Succeeded, Some(true)).await;
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "drill"}), None).await.is(200);
        block(&admin, "firewall-drop", "203.0.113.8", &["web-01", "web-02"], "1h").await;
        admin.post("/v1/responses/lift", &json!({"target": "203.0.113.7", "reason": "wrong"})).await.is(200);
        assert_eq!(admin.get("/v1/freeze").await.is(200)["held_back"], 2, "a revert never waits");
    }
}
