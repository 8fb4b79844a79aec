//! The rights of every role: the objects that operations act on, and what each role may do
//! (`operations.rs`). Callers without valid credentials are in `matrix.rs`.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use riposte_protocol::message::PollRequest;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::{OPERATIONS, On, Operation, ROLES, Who};
use crate::support::agent::{enrollment, new_key};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::app::PASSWORD;
use crate::support::openid::silent_provider;
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

#[test]
fn the_table_of_this_test_names_every_operation_of_the_contract() {
    let contract = serde_json::to_value(riposte::api::contract()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            documented.insert((method.to_ascii_uppercase(), path.clone()));
            // The contract says who may too: an operation without `security` needs an API key or an access token.
            let security = operation.get("security").cloned();
            let (.., who, _, _, _) = OPERATIONS
                .iter()
                .find(|(m, p, ..)| m.eq_ignore_ascii_case(method) && p == path)
                .unwrap_or_else(|| panic!("{method} {path} is not in the table of this test: who may call it?"));
            match who {
                Who::Anybody | Who::TokenHolders => assert_eq!(security, Some(json!([{}])), "{method} {path}"),
                Who::Agents => assert_eq!(security, Some(json!([{"agent_token": []}])), "{method} {path}"),
                Who::Roles(_) => assert_eq!(security, None, "{method} {path}"),
            }
        }
    }
    let tested: BTreeSet<(String, String)> =
        OPERATIONS.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!((tested.len(), &tested), (OPERATIONS.len(), &documented));
    assert_eq!(contract["security"], json!([{"api_key": []}, {"access_token": []}]));
}

/// Creates fresh, numbered objects for operations.
pub(super) struct Stage {
    pub(super) app: TestApp,
    pub(super) admin: Client,
    pub(super) agent: FakeAgent,
    made: u32,
}

async fn create_feed(admin: &Client, target: &str, form: &str) -> String {
    let feed = json!({"name": format!("f-{}", target.replace('.', "-")), "form": form});
    admin.post("/v1/feeds", &feed).await.is(201)["name"].as_str().unwrap().to_owned()
}

async fn create_webhook(admin: &Client, target: &str) -> String {
    let name = format!("w-{}", target.replace('.', "-"));
    admin.post("/v1/webhooks", &webhook(&name)).await.is(201);
    name
}

async fn report_forwarder(admin: &Client, name: String) -> String {
    admin.put(&format!("/v1/forwarders/{name}"), &json!({"version": "0.1.0"}), None).await.is(204);
    name
}

/// A webhook that is sent nothing; its name has an address that is never called.
fn webhook(name: &str) -> Value {
    json!({"name": name, "url": "https://localhost:9/", "settings": {"is_disabled": true}})
}

impl Stage {
    pub(super) async fn set() -> Self {
        let (app, admin) =
            TestApp::start_with(Database::sqlite(), |config| config.oidc = vec![silent_provider()]).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        for (name, more) in [("waits", "mode"), ("acts-first", "approval")] {
            let mut policy = drop_policy(name);
            policy["match"] = json!([{"rule_ids": [name]}]);
            policy[more] = if more == "mode" { json!("approve") } else { json!({"undo_unless_confirmed": "1h"}) };
            admin.policy(&policy).await;
        }
        Self { app, admin, agent, made: 0 }
    }

    /// Returns an address that no other call has had.
    fn target(&mut self) -> String {
        self.made += 1;
        format!("10.1.{}.{}", self.made / 256, self.made % 256)
    }

    fn response(&mut self) -> Value {
        json!({"action": "firewall-drop", "target": self.target(), "agents": ["web-01"], "reason": "seen"})
    }

    /// An alert that was not taken in, because its sender may not speak for its host. Returns its id.
    async fn rejected(&mut self) -> String {
        let admin = self.admin.clone();
        let name = format!("k-{}", self.target());
        let scope = json!({"agents": {"labels": {"env": "elsewhere"}}});
        let made = json!({"name": name, "role": "ingest", "scope": scope});
        let key = admin.post("/v1/api-keys", &made).await.is(201)["key"].as_str().unwrap().to_owned();
        let target = self.target();
        admin.with_key(&key).post("/v1/alerts", &brute_force(&target, &target)).await.is_problem(422);
        admin.list("/v1/rejected").await[0]["id"].as_str().unwrap().to_owned()
    }

    /// Creates an object and returns its id.
    pub(super) async fn fresh(&mut self, on: On) -> String {
        let admin = self.admin.clone();
        let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
        match on {
            On::Nothing => String::new(),
            On::OneKey | On::Rotation => {
                // There is at most one: the call before may have left it.
                admin.delete("/v1/signing-key/rotation", None).await;
                if on == On::Rotation {
                    admin.post("/v1/signing-key/rotation", &json!({})).await.is(201);
                }
                String::new()
            }
            On::Alert => {
                self.alert().await;
                id(&admin.get("/v1/alerts?limit=1").await.is(200)["items"][0])
            }
            On::Policy => {
                let name = format!("p-{}", self.target().replace('.', "-"));
                admin.policy(&drop_policy_that_never_fires(&name)).await;
                name
            }
            On::Stopped => {
                let name = format!("p-{}", self.target().replace('.', "-"));
                let mut policy = drop_policy(&name);
                policy["match"] = json!([{"rule_ids": [name]}]);
                policy["breaker"] = json!({"undone": "50%", "at_least": 1});
                admin.policy(&policy).await;
                for _ in 0..2 {
                    let target = self.target();
                    let mut alert = brute_force(&target, &target);
                    alert["rule"]["id"] = json!(name);
                    let answer = admin.post("/v1/alerts", &alert).await.is(202);
                    let path = format!("/v1/responses/{}/lift", answer["responses"][0].as_str().unwrap());
                    admin.post(&path, &json!({"reason": "wrong"})).await;
                }
                name
            }
            On::Action => {
                let name = format!("a-{}", self.target().replace('.', "-"));
                admin.post("/v1/actions", &custom_action(&name)).await.is(201);
                name
            }
            On::Response | On::Effect | On::Command => {
                let asked = self.response();
                let response = admin.post("/v1/responses", &asked).await.is(201);
                match on {
                    On::Response => id(&response),
                    On::Effect => id(&response["effects"][0]),
                    _ => id(&response["commands"][0]),
                }
            }
            On::Agent => {
                let name = format!("host-{}", self.target());
                self.app.enrol(&admin, &name, &json!({})).await.id.to_string()
            }
            On::Token => id(&admin.post("/v1/enrollment-tokens", &json!({})).await.is(201)),
            On::Protected => {
                let value = self.target();
                let asked = json!({"kind": "ip", "value": value, "reason": "why"});
                id(&admin.post("/v1/protected", &asked).await.is(201))
            }
            On::Waiting | On::Unconfirmed => {
                let target = self.target();
                let policy = if on == On::Waiting { "waits" } else { "acts-first" };
                let mut alert = brute_force(&target, &target);
                alert["rule"]["id"] = json!(policy);
                let answer = admin.post("/v1/alerts", &alert).await.is(202);
                answer["responses"][0].as_str().unwrap().to_owned()
            }
            On::LegalHold => {
                let target = self.target();
                let asked = json!({"name": target, "reason": "why", "kind": "target", "value": target});
                id(&admin.post("/v1/holds", &asked).await.is(201))
            }
            On::Rejected => self.rejected().await,
            On::Secret => {
                let name = format!("s-{}", self.target());
                let set = json!({"value": "x", "actions": ["log-only"]});
                admin.put(&format!("/v1/secrets/{name}"), &set, None).await.is(204);
                name
            }
            On::Webhook => create_webhook(&admin, &self.target()).await,
            On::Forwarder => report_forwarder(&admin, self.target()).await,
            On::Feed => create_feed(&admin, &self.target(), "plain").await,
            On::Collection => create_feed(&admin, &self.target(), "taxii").await,
            On::User => {
                let name = format!("u-{}", self.target());
                admin.post("/v1/users", &json!({"name": name, "role": "viewer"})).await.is(201);
                name
            }
            On::Linked => {
                let name = format!("u-{}", self.target());
                admin.post("/v1/users", &json!({"name": name, "role": "viewer"})).await.is(201);
                let path = format!("/v1/users/{name}/identities/corp");
                admin.put(&path, &json!({"subject": name}), None).await.is(200);
                name
            }
            On::Key => id(&admin.post("/v1/api-keys", &json!({"name": "k", "role": "viewer"})).await.is(201)),
        }
    }

    async fn alert(&mut self) {
        let target = self.target();
        self.admin.post("/v1/alerts", &brute_force(&target, &target)).await.is(202);
    }

    /// Returns a body that the operation accepts.
    pub(super) async fn body(&mut self, method: &str, path: &str, thing: &str) -> Option<Value> {
        let target = self.target();
        Some(match (method, path) {
            ("POST", "/v1/alerts") => brute_force(&target, &target),
            ("POST", "/v1/policies") => drop_policy_that_never_fires(&format!("p-{}", target.replace('.', "-"))),
            ("PUT", "/v1/policies/{name}") => drop_policy_that_never_fires(thing),
            ("POST", "/v1/policies/{name}/rollback") => json!({"version": 1}),
            ("POST", "/v1/policies/{name}/reset") => json!({"reason": "looked at it"}),
            ("POST", "/v1/policies/import") => {
                let name = format!("c-{}", target.replace('.', "-"));
                json!(format!(
                    "<ossec_config><command><name>{name}</name><executable>{name}.sh</executable></command>
                    <active-response><command>{name}</command><location>local</location><level>7</level>
                    </active-response></ossec_config>"
                ))
            }
            ("POST", "/v1/policies/backtest") => json!({"policy": drop_policy("draft")}),
            ("POST", "/v1/actions") => custom_action(&format!("a-{}", target.replace('.', "-"))),
            ("PUT", "/v1/actions/{name}") => custom_action(thing),
            ("POST", "/v1/responses") => self.response(),
            ("POST", "/openc2" | "/.well-known/openc2") => {
                json!({"action": "query", "target": {"features": ["versions"]}})
            }
            ("PUT", "/wazuh/active-response") => {
                json!({"command": "firewall-drop600", "arguments": [], "alert": {"data": {"srcip": target}}})
            }
            (
                "POST",
                "/v1/responses/{id}/lift"
                | "/v1/responses/{id}/approve"
                | "/v1/responses/{id}/reject"
                | "/v1/responses/{id}/confirm"
                | "/v1/commands/{id}/cancel",
            ) => json!({"reason": "over"}),
            ("PATCH", "/v1/agents/{id}") => json!({"labels": {"env": "prod"}}),
            ("POST", "/v1/agents/enroll") => {
                let token = self.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
                let asked = enrollment(token["token"].as_str().unwrap(), &format!("host-{target}"), &new_key());
                serde_json::to_value(asked).unwrap()
            }
            ("POST", "/v1/enrollment-tokens" | "/v1/webhooks/{name}/replay") => json!({}),
            ("POST", "/v1/signing-key/recovery-key") => json!({"public_key": new_key().verifying_key().text()}),
            ("PUT", "/v1/signing-key/revocation") => json!({"statement": "a.b.c"}),
            ("POST", "/v1/signing-key/rotation/finish") => json!({"force": true}),
            ("POST", "/v1/responses/lift") => {
                let all = json!({"everything": true, "dry_run": true, "reason": "over"});
                let count = self.admin.post(path, &all).await.is(200)["count"].clone();
                json!({"everything": true, "count": count, "reason": "over"})
            }
            ("POST", "/v1/holds") => json!({"name": target, "reason": "why", "kind": "target", "value": target}),
            ("PUT", "/v1/forwarders/{name}") => json!({"version": "0.1.0"}),
            ("POST", "/v1/webhooks") => webhook(&format!("w-{}", target.replace('.', "-"))),
            ("PUT", "/v1/webhooks/{name}") => json!({"settings": {"types": ["freeze.on"], "is_disabled": true}}),
            ("PUT", "/v1/responses/{id}/case") => json!({"case": target}),
            ("POST", "/v1/feeds") => json!({"name": format!("f-{}", target.replace('.', "-"))}),
            ("PUT", "/v1/feeds/{name}") => json!({"name": thing, "note": "why"}),
            ("PUT", "/v1/secrets/{name}") => json!({"value": "x", "actions": ["log-only"]}),
            ("PUT", "/v1/wazuh-agents") => json!({"manager": "wazuh-1", "agents": [{"id": "5", "name": "web-01"}]}),
            ("PUT", "/v1/freeze") => json!({"frozen": true, "reason": "night"}),
            ("POST", "/v1/protected") => json!({"kind": "ip", "value": target, "reason": "why"}),
            ("POST", "/v1/users") => json!({"name": format!("u-{target}"), "role": "viewer"}),
            ("PATCH", "/v1/users/{name}") => json!({"is_disabled": true}),
            ("PUT", "/v1/users/{name}/identities/{provider}") => json!({"subject": format!("subject of {thing}")}),
            ("POST", "/v1/users/{name}/reset-password") => json!({"remove_totp": true}),
            ("POST", "/v1/webhooks/{name}/agreement") => json!({"code": "0000-0000-0000-0000"}),
            ("POST" | "DELETE", "/v1/auth/totp/confirm" | "/v1/auth/totp") => json!({"code": "000000"}),
            ("POST", "/v1/auth/token" | "/v1/auth/password") => {
                let name = format!("u-{target}");
                let user = json!({"name": name, "role": "viewer", "password": PASSWORD});
                self.admin.post("/v1/users", &user).await.is(201);
                let mut body = json!({"username": name, "password": PASSWORD});
                if path == "/v1/auth/password" {
                    body["new_password"] = json!("staple battery horse");
                }
                body
            }
            ("POST", "/v1/api-keys") => json!({"name": "k", "role": "viewer"}),
            ("POST", "/v1/agent/key") => json!({"by_old": "a.b.c", "by_new": "a.b.c"}),
            ("POST", "/v1/agent/poll") => {
                serde_json::to_value(PollRequest { max: 1, ..PollRequest::default() }).unwrap()
            }
            _ => return None,
        })
    }

    async fn newest_entry(&self) -> Value {
        self.admin.get("/v1/audit?limit=1").await.is(200)["items"][0].clone()
    }

    async fn last_seq(&self) -> i64 {
        self.newest_entry().await["seq"].as_i64().unwrap()
    }

    /// Returns the verbs of the entries after `seq`.
    async fn verbs_since(&self, seq: i64) -> Vec<(String, String)> {
        let entries = self.admin.get("/v1/audit?limit=500").await.is(200)["items"].clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entries = entries.as_array().unwrap().iter().filter(|entry| entry["seq"].as_i64().unwrap() > seq);
        entries.map(|entry| (text(&entry["actor"]), text(&entry["verb"]))).collect()
    }
}

/// Calls an operation on `thing`.
pub(super) async fn call(client: &Client, operation: Operation, thing: &str, body: Option<&Value>) -> Answer {
    let (method, path, _, on, ..) = operation;
    let address = path.replace("{id}", thing).replace("{name}", thing).replace("{provider}", "corp");
    let address = address.replace("{kind}", "ip").replace("{value}", "203.0.113.7");
    let mut request = client.request(method.parse().unwrap(), &address);
    if path == "/v1/events" {
        // A stream has no end.
        request = request.header("accept", "application/json");
    }
    if matches!(on, On::Policy | On::Action | On::User | On::Feed) && method != "GET" {
        request = request.header("if-match", "\"1\"");
    }
    if let Some(body) = body {
        request = with_body(request, body);
    }
    Answer::to(request).await
}

/// A string is sent as XML, anything else as JSON.
fn with_body(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
    match body {
        Value::String(xml) => request.header("content-type", "application/xml").body(xml.clone()),
        json => request.json(json),
    }
}

fn custom_action(name: &str) -> Value {
    json!({"name": name, "summary": "Looks.", "executable": "look.sh"})
}

fn drop_policy_that_never_fires(name: &str) -> Value {
    let mut policy = drop_policy(name);
    policy["match"] = json!([{"rule_ids": ["1"]}]);
    policy
}

#[tokio::test]
async fn every_role_can_do_what_it_may_and_nothing_else_and_it_is_audited() {
    let mut stage = Stage::set().await;
    let (mut clients, mut people) = (BTreeMap::new(), BTreeMap::new());
    for role in ROLES {
        clients.insert(*role, stage.app.client_with_role(&stage.admin, role).await);
        if *role != "ingest" {
            people.insert(*role, stage.app.person(&stage.admin, role, role).await);
        }
    }
    for operation in OPERATIONS {
        let (method, path, who, on, right, verb) = *operation;
        let Who::Roles(may) = who else { continue };
        for (role, client) in &clients {
            // Only people approve.
            let person = people.get(role).filter(|_| path.ends_with("/approve"));
            let key = format!("key:{}", client.key().split('_').nth(1).unwrap());
            let (client, key) = person.map_or((client, key), |person| (person, format!("user:{role}")));
            // The object is made before the audit log is read, and by another client.
            let thing = stage.fresh(on).await;
            let body = stage.body(method, path, &thing).await;
            let before = stage.last_seq().await;
            let answer = call(client, *operation, &thing, body.as_ref()).await;
            let since = stage.verbs_since(before).await;
            if may.contains(role) {
                assert_eq!(answer.status, right, "{method} {path} as {role}: {}", answer.text);
                match verb {
                    // A policy decides about an alert, not the key that sent it.
                    Some(verb) if path == "/v1/alerts" || path.ends_with("/resend") => {
                        assert!(since.contains(&("policy:drop".into(), verb.into())), "{since:?}");
                    }
                    Some(verb) => assert!(since.contains(&(key, verb.into())), "{method} {path} as {role}: {since:?}"),
                    None => assert_eq!(since, [], "{method} {path} changed something"),
                }
            } else {
                let problem = answer.is_error_of(path, 403);
                assert!(problem["detail"].as_str().unwrap().contains(role), "{problem}");
                assert_eq!(since, [], "{method} {path} as {role} changed something");
            }
        }
    }
    assert_eq!(stage.admin.get("/v1/audit/verify").await.is(200)["intact"], true);
}

#[tokio::test]
async fn a_forbidden_caller_is_refused_before_the_request_is_read() {
    let mut stage = Stage::set().await;
    let ingest = stage.app.client_with_role(&stage.admin, "ingest").await;
    for operation in
        OPERATIONS.iter().filter(|(_, _, who, ..)| matches!(who, Who::Roles(may) if !may.contains(&"ingest")))
    {
        let (method, path, ..) = *operation;
        // An unknown object and an invalid body: still 403, not 404 or 422.
        let address =
            path.replace("{id}", &Uuid::nil().to_string()).replace("{name}", "gone").replace("{provider}", "corp");
        let request = ingest.request(method.parse().unwrap(), &address).header("content-type", "text/xml");
        Answer::to(request.body("<no/>")).await.is_error_of(path, 403);
    }
    stage.alert().await;
}

#[tokio::test]
async fn an_unknown_path_and_an_unsupported_method_are_problems_too() {
    let (_app, admin) = TestApp::start().await;
    for path in ["/v1/alert", "/v2/alerts", "/nothing", "/v1/alerts/not-an-id", "/v1/responses/7"] {
        admin.get(path).await.is_problem(404);
    }
    admin.delete("/v1/alerts", None).await.is_problem(405);
    Answer::to(admin.request(Method::PATCH, "/livez")).await.is_problem(405);
}
