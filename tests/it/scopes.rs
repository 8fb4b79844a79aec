//! Scopes: what they take away, for every operation of the contract, and what they hide.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::auth::{Stage, call};
use super::operations::{OPERATIONS, Who};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, TestApp};

/// Where a fault is expected, and the change that makes it.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// A service key with a scope.
async fn scoped(admin: &Client, role: &str, scope: &Value) -> Client {
    let asked = json!({"name": "scoped", "role": role, "scope": scope});
    admin.with_key(admin.post("/v1/api-keys", &asked).await.is(201)["key"].as_str().unwrap())
}

/// The scopes of the matrix, for the role `engineer`. The agent of the stage has no label, and its policies are
/// called `drop`, `waits` and `acts-first`.
const READS: &str = "reads only";
const ELSEWHERE: &str = "agents elsewhere";
const OTHER_POLICIES: &str = "other policies";

fn scope_of(name: &str) -> Value {
    match name {
        READS => json!({"rights": ["read"]}),
        ELSEWHERE => json!({"agents": {"labels": {"env": "dev"}}}),
        _ => json!({"policies": ["team-*"]}),
    }
}

/// The status that an engineer with this scope gets, where it is not that of an engineer without.
fn expected(scope: &str, method: &str, path: &str) -> Option<u16> {
    let is_write = method != "GET";
    // A question, by which nothing is changed.
    if path.ends_with("/openc2") {
        return None;
    }
    match scope {
        READS
            if path == "/v1/policies/backtest"
                || path == "/v1/whoami"
                || path.starts_with("/v1/auth/")
                || path.starts_with("/wazuh/security/") =>
        {
            None
        }
        READS if is_write || ["/v1/enrollment-tokens", "/feeds/{name}"].contains(&path) => Some(403),
        READS if path.starts_with("/taxii2/") => Some(403),
        READS => None,
        ELSEWHERE => match (method, path) {
            // One alert that is rejected, an agent that does not exist, labels that leave the scope.
            ("POST", "/v1/alerts" | "/v1/responses" | "/v1/policies" | "/v1/enrollment-tokens") => Some(422),
            ("POST", "/v1/responses/lift") => Some(409),
            ("POST", "/v1/rejected/{id}/resend") => Some(404),
            (_, "/v1/enrollment-tokens" | "/v1/enrollment-tokens/{id}") => Some(403),
            (_, path) if path.starts_with("/taxii2/") => path.contains('{').then_some(404),
            (_, path)
                if path.ends_with("{id}") && !path.starts_with("/v1/protected")
                    || path.starts_with("/v1/agents/{id}")
                    || path.starts_with("/v1/alerts/{id}")
                    || path.starts_with("/v1/responses/{id}")
                    || path.starts_with("/v1/commands/{id}") =>
            {
                Some(404)
            }
            // A list is of all agents, and so are the counts.
            (_, path) if path.starts_with("/feeds/") || path.starts_with("/v1/feeds") => Some(403),
            (_, "/v1/statistics") => Some(403),
            // A hidden agent is one that does not exist.
            (_, path) if path.starts_with("/v1/auth/") || path.starts_with("/wazuh/") => None,
            // What a forwarder says of itself is about no agent.
            ("PUT", "/v1/forwarders/{name}") => None,
            (method, _) if method != "GET" => Some(403),
            _ => None,
        },
        _ => match (method, path) {
            ("POST", "/v1/policies") => Some(422),
            // The count of an administrator, who sees more.
            ("POST", "/v1/responses/lift") => Some(409),
            ("GET", "/v1/policies/{name}/counts") => None,
            // A hold on a target is one of the whole installation.
            ("GET", "/v1/holds/{id}" | "/v1/rejected/{id}") | ("POST", "/v1/rejected/{id}/resend") => Some(404),
            (_, path) if path.starts_with("/v1/policies/{name}") => Some(404),
            (_, path) if path.starts_with("/feeds/") || path.starts_with("/v1/feeds") => Some(403),
            (_, "/v1/statistics") => Some(403),
            (_, path) if path.starts_with("/taxii2/") => path.contains('{').then_some(404),
            // Those that a policy made are hidden with it; those by hand are not.
            (_, "/v1/responses/{id}/approve" | "/v1/responses/{id}/reject" | "/v1/responses/{id}/confirm") => Some(404),
            (_, path) if path.starts_with("/v1/enrollment-tokens") && (method != "POST") => Some(403),
            (_, "/v1/policies/import" | "/v1/policies/backtest" | "/v1/freeze") if is_write => Some(403),
            (_, path)
                if is_write
                    && ["/v1/actions", "/v1/protected", "/v1/secrets"].iter().any(|own| path.starts_with(own)) =>
            {
                Some(403)
            }
            _ => None,
        },
    }
}

#[tokio::test]
async fn a_scope_takes_from_a_role_what_it_says_for_every_operation() {
    let mut stage = Stage::set().await;
    let admin = stage.admin.clone();
    for scope in [READS, ELSEWHERE, OTHER_POLICIES] {
        // Only people approve.
        stage.app.person(&admin, &scope.replace(' ', "-"), "engineer").await;
        let service = scoped(&admin, "engineer", &scope_of(scope)).await;
        let session = stage.app.session(&admin, &format!("{}-2", scope.replace(' ', "-")), "engineer").await;
        let user = format!("/v1/users/{}-2", scope.replace(' ', "-"));
        let person = session.personal_key("k", "engineer").await;
        admin.patch(&user, &json!({"scope": scope_of(scope)}), "\"1\"").await.is(200);
        for operation in OPERATIONS {
            let (method, path, who, on, right, _) = *operation;
            let Who::Roles(may) = who else { continue };
            if !may.contains(&"engineer") {
                continue;
            }
            let client = if path.ends_with("/approve") { &person } else { &service };
            let thing = stage.fresh(on).await;
            let body = stage.body(method, path, &thing).await;
            let answer = call(client, *operation, &thing, body.as_ref()).await;
            let status = expected(scope, method, path).unwrap_or(right);
            assert_eq!(answer.status, status, "{method} {path} with {scope}: {}", answer.text);
            if path == "/v1/freeze" {
                admin.put("/v1/freeze", &json!({"frozen": false, "reason": "day"}), None).await.is(200);
            }
        }
    }
}

on_both_databases! {
    async fn a_scope_hides_other_agents_from_lists_counts_and_the_audit_log(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "dev-01", &json!({"wazuh_id": "001", "env": "dev"})).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
        admin.policy(&drop_policy("drop")).await;
        let mut everywhere = drop_policy("everywhere");
        everywhere["respond"]["on"] = json!("all");
        everywhere["match"] = json!([{"rule_ids": ["5712"]}]);
        admin.policy(&everywhere).await;
        let of = |id: &str, target: &str, agent: (&str, &str)| {
            let mut alert = brute_force(id, target);
            alert["agent"] = json!({"id": agent.0, "name": agent.1});
            alert
        };
        admin.post("/v1/alerts", &of("1", "203.0.113.1", ("001", "dev-01"))).await.is(202);
        admin.post("/v1/alerts", &of("2", "203.0.113.2", ("005", "web-01"))).await.is(202);
        let mut both = of("3", "203.0.113.3", ("001", "dev-01"));
        both["rule"]["id"] = json!("5712");
        admin.post("/v1/alerts", &both).await.is(202);

        let dev = scoped(&admin, "analyst", &json!({"agents": {"labels": {"env": ["dev", "staging"]}}})).await;
        let names = async |path: &str, field: &str| {
            let items = dev.list(path).await;
            let mut names: Vec<String> = items.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names("/v1/agents", "name").await, ["dev-01"]);
        assert_eq!(names("/v1/alerts", "pipeline_id").await, ["1", "3"]);
        assert_eq!(names("/v1/responses", "target_value").await, ["203.0.113.1", "203.0.113.3"]);
        assert_eq!(names("/v1/effects", "target_value").await, ["203.0.113.1", "203.0.113.3"]);
        assert_eq!(names("/v1/commands", "target_value").await, ["203.0.113.1", "203.0.113.3"]);
        // A response on agents of both kinds is shown without those that are hidden.
        let all = admin.list("/v1/responses?target=203.0.113.3").await;
        assert_eq!(all[0]["agents"].as_array().unwrap().len(), 2);
        let cut = dev.get(&format!("/v1/responses/{}", all[0]["id"].as_str().unwrap())).await.is(200);
        for list in ["agents", "effects", "commands", "agent_outcomes"] {
            assert_eq!(cut[list].as_array().unwrap().len(), 1, "{list}: {cut}");
        }
        assert_eq!(cut["agents_by_outcome"], Value::Null);
        // It may be read, and not lifted or repeated on the hidden agent.
        let lift = format!("/v1/responses/{}/lift", all[0]["id"].as_str().unwrap());
        dev.post(&lift, &json!({"reason": "over"})).await.is_problem(403);
        let counts = |client: &Client, policy: &str| {
            let (client, path) = (client.clone(), format!("/v1/policies/{policy}/counts"));
            async move { client.get(&path).await.is(200) }
        };
        assert_eq!(counts(&admin, "drop").await["targets"], 2);
        let shown = counts(&dev, "drop").await;
        assert_eq!((&shown["targets"], &shown["responses"]["active"]), (&json!(1), &json!(1)), "{shown}");
        for entry in dev.list("/v1/audit").await {
            let noun = entry["noun"].as_str().unwrap();
            assert!(["response", "command", "effect", "agent", "policy"].contains(&noun), "{entry}");
            assert!(!entry["detail"].as_str().unwrap().contains("203.0.113.2"), "{entry}");
        }
        // Nor does an empty result tell which names exist.
        let named = dev.post("/v1/responses/lift", &json!({"policy": "absent", "reason": "x"})).await.is(200);
        assert_eq!(named.get("warnings"), None, "{named}");
        // Lifting by a filter leaves out what is not within the scope.
        let lifted = dev.post("/v1/responses/lift", &json!({"everything": true, "dry_run": true, "reason": "x"})).await.is(200);
        assert_eq!(lifted["count"], 1);
        dev.post("/v1/responses/lift", &json!({"everything": true, "count": 1, "reason": "x"})).await.is(200);
        assert_eq!(admin.list("/v1/responses?state=active").await.len(), 2);
    }

    async fn a_scope_limits_actions_agents_and_the_number_of_responses(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        for (name, env) in [("dev-01", "dev"), ("dev-02", "dev"), ("web-01", "prod")] {
            app.enrol(&admin, name, &json!({"env": env})).await;
        }
        let scope = json!({"actions": ["firewall-drop"], "agents": {"labels": {"env": "dev"}}, "agents_per_response": 1,
            "responses_per_hour": 2});
        let dev = scoped(&admin, "analyst", &scope).await;
        let who = dev.get("/v1/whoami").await.is(200);
        assert_eq!(who["scopes"], json!([scope]));
        let order = |action: &str, target: &str, agents: &[&str]| {
            json!({"action": action, "target": target, "agents": agents, "reason": "seen"})
        };
        let outside = dev.post("/v1/responses", &order("host-deny", "203.0.113.1", &["dev-01"])).await.is_problem(403);
        assert!(outside["detail"].as_str().unwrap().contains("firewall-drop"), "{outside}");
        let hidden = dev.post("/v1/responses", &order("firewall-drop", "203.0.113.1", &["web-01"])).await;
        hidden.is_problem(422);
        assert_eq!(hidden.points_at(), ["/agents/0"]);
        let wide = dev.post("/v1/responses", &order("firewall-drop", "203.0.113.1", &["dev-01", "dev-02"])).await;
        assert!(wide.is_problem(403)["detail"].as_str().unwrap().contains("allows 1"), "{}", wide.text);
        for target in ["203.0.113.1", "203.0.113.2"] {
            dev.post("/v1/responses", &order("firewall-drop", target, &["dev-01"])).await.is(201);
        }
        let full = dev.post("/v1/responses", &order("firewall-drop", "203.0.113.3", &["dev-01"])).await;
        full.is_problem(429);
        assert_eq!(full.header("retry-after"), Some("3600"));
        assert_eq!(admin.list("/v1/responses").await.len(), 2, "a refused response leaves nothing");
        app.advance(3601);
        dev.post("/v1/responses", &order("firewall-drop", "203.0.113.3", &["dev-01"])).await.is(201);
        // A wildcard selects only what is within the scope.
        let preview = json!({"action": "firewall-drop", "target": "203.0.113.4", "on": "all", "reason": "x", "dry_run": true});
        dev.post("/v1/responses", &preview).await.is_problem(403);
        let admins = admin.post("/v1/responses", &preview).await.is(200);
        assert_eq!(admins["agents"].as_array().unwrap().len(), 3, "{admins}");
    }

    async fn a_person_may_approve_and_not_author(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut asks = drop_policy("asks");
        asks["mode"] = json!("approve");
        admin.policy(&asks).await;
        let person = app.person(&admin, "alice", "engineer").await;
        admin.patch("/v1/users/alice", &json!({"scope": {"rights": ["read", "approve"]}}), "\"1\"").await.is(200);
        let response = admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202);
        let id = response["responses"][0].as_str().unwrap();
        person.post("/v1/policies", &drop_policy("own")).await.is_problem(403);
        let order = json!({"action": "firewall-drop", "target": "203.0.113.9", "agents": ["web-01"], "reason": "seen"});
        person.post("/v1/responses", &order).await.is_problem(403);
        person.post(&format!("/v1/responses/{id}/approve"), &json!({"reason": "right"})).await.is(200);
        assert_eq!(admin.get(&format!("/v1/responses/{id}")).await.is(200)["state"], "active");
    }

    async fn a_scoped_engineer_writes_no_policy_that_reaches_further(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "dev-01", &json!({"wazuh_id": "001", "env": "dev"})).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
        admin.policy(&drop_policy("team-admins")).await;
        let scope = json!({"policies": ["team-*"], "actions": ["firewall-drop"], "agents": {"labels": {"env": "dev"}},
            "agents_per_response": 5, "responses_per_hour": 60});
        let dev = scoped(&admin, "engineer", &scope).await;
        let policy = |name: &str, change: &dyn Fn(&mut Value)| {
            let mut policy = drop_policy(name);
            policy["match"][0]["agents"] = json!({"labels": {"env": "dev"}});
            policy["limits"] = json!({"responses": "1/1m", "agents_per_response": 5});
            change(&mut policy);
            policy
        };
        let table: [Change; 7] = [
            ("/name", &|policy| policy["name"] = json!("other")),
            ("/respond/action", &|policy| policy["respond"]["action"] = json!("host-deny")),
            ("/match/0/agents", &|policy| policy["match"][0]["agents"] = json!({"ids": ["005"]})),
            ("/match/0/agents", &|policy| policy["match"][0]["agents"] = json!({"labels": {"env": ["dev", "prod"]}})),
            ("/respond/on", &|policy| policy["respond"]["on"] = json!("all")),
            ("/respond/on/agents", &|policy| policy["respond"]["on"] = json!({"agents": ["web-01"]})),
            ("/limits/responses", &|policy| policy["limits"]["responses"] = json!("2/1m")),
        ];
        for (pointer, change) in table {
            let answer = dev.post("/v1/policies", &policy("team-a", change)).await;
            answer.is_problem(422);
            assert_eq!(answer.points_at(), [pointer], "{}", answer.text);
        }
        let no_limit = policy("team-a", &|policy| {
            policy["respond"]["on"] = json!({"labels": {"env": "dev"}});
            policy["limits"] = json!({"responses": "1/1m"});
        });
        assert_eq!(dev.post("/v1/policies", &no_limit).await.points_at(), ["/limits/agents_per_response"]);
        dev.post("/v1/policies", &policy("team-a", &|_| ())).await.is(201);
        // What exists and reaches further is neither replaced nor deleted.
        let within = policy("team-admins", &|_| ());
        dev.put("/v1/policies/team-admins", &within, Some("\"1\"")).await.is_problem(403);
        dev.delete("/v1/policies/team-admins", Some("\"1\"")).await.is_problem(403);
        dev.delete("/v1/policies/team-a", Some("\"1\"")).await.is(204);
        // Labels cannot bring another host into the scope, or take one out of it.
        let ids: Vec<String> = ["dev-01", "web-01"].map(|name| format!("/v1/agents?name={name}")).into();
        let dev_01 = admin.list(&ids[0]).await[0]["id"].as_str().unwrap().to_owned();
        let web_01 = admin.list(&ids[1]).await[0]["id"].as_str().unwrap().to_owned();
        let relabel = json!({"labels": {"env": "dev"}});
        dev.patch(&format!("/v1/agents/{web_01}"), &relabel, "").await.is_problem(404);
        let out = dev.patch(&format!("/v1/agents/{dev_01}"), &json!({"labels": {"env": "prod"}}), "").await;
        out.is_problem(422);
        assert_eq!(out.points_at(), ["/labels"]);
    }

    async fn a_pipelines_key_speaks_for_its_managers_pipelines_and_agents_only(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
        app.enrol(&admin, "dev-01", &json!({"wazuh_id": "001", "env": "dev"})).await;
        admin.policy(&drop_policy("drop")).await;
        let scope = json!({"agents": {"labels": {"env": "prod"}}, "wazuh_managers": ["wazuh-1"], "pipelines": ["wazuh"]});
        let key = scoped(&admin, "ingest", &scope).await;
        let alert = |id: &str, change: &dyn Fn(&mut Value)| {
            let mut alert = brute_force(id, "203.0.113.7");
            alert["agent"] = json!({"id": "005", "name": "web-01"});
            alert["manager"] = json!({"name": "wazuh-1"});
            change(&mut alert);
            alert
        };
        let table: [Change; 5] = [
            ("/agent", &|alert| alert["agent"] = json!({"id": "001", "name": "dev-01"})),
            ("/agent", &|alert| alert["agent"] = json!({"id": "777", "name": "unknown"})),
            // The number of one host and the name of another.
            ("/agent", &|alert| alert["agent"] = json!({"id": "005", "name": "dev-01"})),
            ("/manager/name", &|alert| alert["manager"] = json!({"name": "wazuh-2"})),
            ("/manager/name", &|alert| drop(alert.as_object_mut().unwrap().remove("manager"))),
        ];
        for (nth, (pointer, change)) in table.into_iter().enumerate() {
            let answer = key.post("/v1/alerts", &alert(&format!("x{nth}"), change)).await;
            answer.is_problem(422);
            assert_eq!(answer.points_at(), [pointer], "{}", answer.text);
        }
        // One that speaks for another is rejected alone.
        let batch = json!([alert("1", &|_| ()), alert("2", &|alert| alert["agent"] = json!({"id": "001", "name": "dev-01"}))]);
        let intake = key.post("/v1/alerts", &batch).await.is(202);
        assert_eq!((&intake["accepted"], &intake["rejected"][0]["index"]), (&json!(1), &json!(1)), "{intake}");
        assert_eq!(admin.list("/v1/alerts").await.len(), 1);
    }

    async fn a_pipeline_sends_its_key_in_the_address_or_as_a_password(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let made = admin.post("/v1/api-keys", &json!({"name": "siem", "role": "ingest", "pipeline": "siem"})).await.is(201);
        let key = made["key"].as_str().unwrap();
        let (anonymous, alert) = (Client::anonymous(&app.base), |id: &str| brute_force(id, "203.0.113.7"));
        let intake = anonymous.post(&format!("/v1/ingest/{key}"), &alert("1")).await.is(202);
        assert_eq!(intake["accepted"], 1);
        let with_password = async |password: &str, path: &str| {
            let request = anonymous.request(reqwest::Method::POST, path).basic_auth("siem", Some(password));
            Answer::to(request.json(&alert("2"))).await
        };
        assert_eq!(with_password(key, "/v1/alerts").await.is(202)["accepted"], 1);
        // One pipeline, whichever way the key comes.
        assert_eq!(anonymous.post(&format!("/v1/ingest/{key}"), &alert("2")).await.is(202)["duplicates"], 1);
        // Other keys are not accepted this way, and this one nowhere else.
        let engineer = app.client_with_role(&admin, "engineer").await;
        for other in [engineer.key(), admin.key(), "rip_0123456789abcdef_x", "x"] {
            anonymous.post(&format!("/v1/ingest/{other}"), &alert("3")).await.is_problem(401);
            with_password(other, "/v1/alerts").await.is_problem(401);
        }
        with_password(key, "/v1/freeze").await.is_problem(405);
        let order = with_password(key, "/v1/responses").await;
        order.is_problem(403);
        admin.delete(&format!("/v1/api-keys/{}", made["id"].as_str().unwrap()), None).await.is(204);
        anonymous.post(&format!("/v1/ingest/{key}"), &alert("4")).await.is_problem(401);
    }

    async fn a_sender_that_signs_is_known_by_its_signature_and_sends_once(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let asked = json!({"name": "hook", "role": "ingest", "webhook": true});
        let made = admin.post("/v1/api-keys", &asked).await.is(201);
        assert_eq!(made.get("key"), None, "{made}");
        let (id, secret) = (made["id"].as_str().unwrap(), made["webhook_secret"].as_str().unwrap());
        let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let (anonymous, path) = (Client::anonymous(&app.base), format!("/v1/ingest/{id}"));
        let send = async |message: &str, at: i64, body: &str, signed_body: &str| {
            let signed = format!("{message}.{at}.{signed_body}");
            let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
            mac.update(signed.as_bytes());
            let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
            let request = anonymous.request(reqwest::Method::POST, &path).header("content-type", "application/json");
            let request = request.header("webhook-id", message).header("webhook-timestamp", at.to_string());
            Answer::to(request.header("webhook-signature", signature).body(body.to_owned())).await
        };
        let (now, alert) = (app.clock.now().as_secs(), brute_force("1", "203.0.113.7").to_string());
        // A request that only names the key is no use of it.
        send("msg_0", now, &alert, "another body").await.is_problem(401);
        let key = admin.list("/v1/api-keys").await.into_iter().find(|key| key["id"] == id).unwrap();
        assert_eq!(key["last_used_at"], Value::Null, "{key}");
        assert_eq!(send("msg_1", now, &alert, &alert).await.is(202)["accepted"], 1);
        // The same message again has the same answer, and changes nothing.
        assert_eq!(send("msg_1", now, &alert, &alert).await.is(202)["accepted"], 1);
        assert_eq!(admin.list("/v1/alerts").await.len(), 1);
        let other = brute_force("2", "203.0.113.8").to_string();
        send("msg_2", now, &other, &alert).await.is_problem(401);
        send("msg_3", now - 301, &other, &other).await.is_problem(401);
        send("msg_4", now + 301, &other, &other).await.is_problem(401);
        send("msg.5", now, &other, &other).await.is_problem(401);
        // The id alone is no key, and a key that is sent is none of this kind.
        anonymous.post(&path, &brute_force("3", "203.0.113.9")).await.is_problem(401);
        let plain = app.client_with_role(&admin, "ingest").await;
        let unsigned = format!("/v1/ingest/{}", plain.key().split('_').nth(1).unwrap());
        let request = anonymous.request(reqwest::Method::POST, &unsigned).header("webhook-signature", "v1,AAAA");
        let request = request.header("webhook-id", "m").header("webhook-timestamp", now.to_string());
        Answer::to(request.json(&brute_force("4", "203.0.113.9"))).await.is_problem(401);
        assert_eq!(admin.list("/v1/alerts").await.len(), 1);
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        send("msg_6", now, &other, &other).await.is_problem(401);
        let wrong = json!({"name": "hook", "role": "viewer", "webhook": true});
        admin.post("/v1/api-keys", &wrong).await.is_problem(409);
    }

    async fn a_scope_that_is_wrong_is_refused_with_its_fields(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let wrong = json!({"rights": ["aprove"], "actions": ["firewall-dorp"], "policies": ["Team*"], "agents": {"label": {}},
            "agents_per_response": 0, "pipelines": [], "hosts": []});
        let answer = admin.post("/v1/api-keys", &json!({"name": "k", "role": "analyst", "scope": wrong})).await;
        answer.is_problem(422);
        let mut fields = answer.points_at();
        fields.sort();
        let all = ["/scope/agents/label", "/scope/agents_per_response", "/scope/hosts", "/scope/pipelines", "/scope/policies/0",
            "/scope/rights/0"];
        assert_eq!(fields, all, "{}", answer.text);
        let unknown = json!({"name": "k", "role": "analyst", "scope": {"actions": ["firewall-dorp"]}});
        assert_eq!(admin.post("/v1/api-keys", &unknown).await.points_at(), ["/scope/actions/0"]);
        let limited = json!({"rights": ["read"]});
        let user = json!({"name": "root", "role": "admin", "scope": limited});
        admin.post("/v1/users", &user).await.is_problem(409);
        app.person(&admin, "alice", "analyst").await;
        admin.patch("/v1/users/alice", &json!({"scope": limited}), "\"1\"").await.is(200);
        let promoted = admin.patch("/v1/users/alice", &json!({"role": "admin"}), "\"2\"").await;
        promoted.is_problem(409);
        let open = admin.patch("/v1/users/alice", &json!({"role": "admin", "scope": {}}), "\"2\"").await.is(200);
        assert_eq!(open.get("scope"), None, "{open}");
        // A scope that cannot be read takes everything away: the manager says what is damaged.
        app.execute("UPDATE users SET scope = '{\"rights\": \"all\"}' WHERE name = 'alice'").await;
        assert!(admin.get("/v1/users").await.status >= 500);
    }
}
