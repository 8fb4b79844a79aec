//! The contract: `openapi.yaml` is what the program says of itself, and the program does what it says.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::Method;
use riposte_protocol::message::{Outcome, PollRequest};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::support::agent::{enrollment, new_key};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, TestApp};

fn contract() -> Value {
    riposte::api::contract()
}

/// `UPDATE=1 cargo nextest run --test it contract` writes the file anew.
#[test]
fn openapi_yaml_is_what_the_program_says_of_itself() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml");
    let yaml = riposte::api::contract_yaml();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &yaml).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let first = committed.lines().zip(yaml.lines()).position(|(a, b)| a != b).map_or(0, |line| line + 1);
    assert!(
        committed == yaml,
        "openapi.yaml is not what the program says, from line {first} on; UPDATE=1 writes it anew"
    );
}

#[test]
fn the_contract_is_openapi_3_1_and_every_operation_is_described() {
    let contract = contract();
    assert!(contract["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{place} has no summary");
            assert!(!operation["tags"].as_array().unwrap().is_empty(), "{place} has no tag");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{place}: the operationId {id} is not unique");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status < &"300".to_owned()), "{place} never succeeds");
            // What is said of every status at once says nothing of any.
            assert!(!responses.contains_key("default"), "{place}");
            let takes = |status: &str| {
                let response = responses.get(status)?;
                let shared = response["$ref"].as_str().map(|name| name.trim_start_matches('#'));
                let error = shared.map_or(response, |pointer| contract.pointer(pointer).unwrap());
                Some(error["content"]["application/problem+json"]["schema"]["$ref"].clone())
            };
            let is_open = operation["security"] == json!([{}]);
            let mut needed = vec!["500", "503"];
            needed.extend(["401", "403", "429"].into_iter().filter(|_| !is_open));
            needed.extend(
                ["400", "408", "413", "415", "422"].into_iter().filter(|_| operation["requestBody"].is_object()),
            );
            needed.extend(["404"].into_iter().filter(|_| path.contains('{')));
            for status in needed {
                assert_eq!(takes(status), Some(json!("#/components/schemas/Problem")), "{place}: {status}");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{place}: parameters of the path");
        }
    }
    // Every reference leads somewhere.
    let text = contract.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(contract.pointer(pointer).is_some(), "{pointer} is nowhere");
    }
}

#[tokio::test]
async fn every_operation_of_the_contract_is_there_and_the_server_shows_the_same_contract() {
    let (_app, admin) = TestApp::start().await;
    let served = admin.get("/openapi.json").await;
    assert_eq!(served.header("content-type"), Some("application/json"));
    let contract = served.is(200);
    assert_eq!(contract, self::contract());
    for (path, item) in contract["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_ascii_uppercase().parse().unwrap();
            let address = path.replace("{id}", &Uuid::nil().to_string()).replace("{name}", "gone");
            let answer = Answer::to(admin.request(method.clone(), &address)).await;
            let nowhere = answer.status == 404 && answer.text.contains("the path does not exist");
            assert!(!nowhere && answer.status != 405, "{method} {path}: {}", answer.text);
            assert!(answer.status < 500, "{method} {path}: {}", answer.text);
        }
        // What is not in the contract is not taken either.
        for method in ["get", "post", "put", "patch", "delete"].into_iter().filter(|method| item.get(*method).is_none())
        {
            let address = path.replace("{id}", &Uuid::nil().to_string()).replace("{name}", "gone");
            let answer = Answer::to(admin.request(method.to_ascii_uppercase().parse().unwrap(), &address)).await;
            answer.is_problem(405);
        }
    }
}

#[tokio::test]
async fn the_docs_come_out_of_the_program_and_load_nothing_from_elsewhere() {
    let (_app, admin) = TestApp::start().await;
    for (path, media_type) in [
        ("/docs", "text/html"),
        ("/docs/docs.js", "text/javascript"),
        ("/docs/docs.css", "text/css"),
        ("/openapi.json", "application/json"),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(media_type), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        let rules: BTreeMap<&str, &str> = policy.split("; ").map(|rule| rule.split_once(' ').unwrap()).collect();
        assert_eq!((rules["default-src"], rules["frame-ancestors"]), ("'none'", "'none'"), "{path}");
        for source in ["script-src", "style-src", "connect-src"] {
            assert_eq!(rules[source], "'self'", "{path}");
        }
        if path != "/openapi.json" {
            assert!(
                !answer.text.contains("http://")
                    && !answer.text.contains("https://")
                    && !answer.text.contains("src=\"//"),
                "{path}"
            );
        }
    }
    let page = admin.get("/docs").await.text;
    let mut loaded: Vec<&str> = page.split(['"', '\'']).filter(|text| text.starts_with('/')).collect();
    loaded.sort_unstable();
    assert_eq!(loaded, ["/docs/docs.css", "/docs/docs.js", "/openapi.json"]);
    assert!(
        !page.contains("<style") && !page.contains(" style=") && !page.contains("onload="),
        "the policy would stop that"
    );
}

/// What is wrong with `value` by `schema`, a part of the contract.
fn faults(contract: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = contract["components"].clone();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Every property that the answer has is one that the schema names: what is not documented is not promised.
fn undocumented(contract: &Value, schema: &Value, value: &Value) -> Vec<String> {
    fn properties(contract: &Value, schema: &Value, into: &mut Map<String, Value>) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            return properties(contract, contract.pointer(reference.trim_start_matches('#')).unwrap(), into);
        }
        let mut open = schema.get("additionalProperties").is_some();
        for part in ["allOf", "oneOf", "anyOf"].iter().filter_map(|keyword| schema[*keyword].as_array()).flatten() {
            open |= properties(contract, part, into);
        }
        into.extend(schema["properties"].as_object().cloned().unwrap_or_default());
        open || (schema["type"] == "object" && schema.get("properties").is_none())
    }
    let mut known = Map::new();
    let open = properties(contract, schema, &mut known);
    let names = value.as_object().into_iter().flatten().map(|(name, _)| name);
    names.filter(|name| !open && !known.contains_key(*name)).cloned().collect()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one operation after the other")]
async fn answers_are_of_the_shape_that_the_contract_promises() {
    let (app, admin) = TestApp::start().await;
    let contract = contract();
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let mut checked = Vec::new();
    let mut check = |method: &str, path: &str, answer: Answer| {
        let operation = &contract["paths"][path][method];
        let promised = &operation["responses"][answer.status.to_string()]["content"]["application/json"]["schema"];
        assert!(
            promised.is_object(),
            "{method} {path} answers {}, which is not in the contract: {}",
            answer.status,
            answer.text
        );
        let body: Value = serde_json::from_str(&answer.text).unwrap();
        let found = faults(&contract, promised, &body);
        assert!(found.is_empty(), "{method} {path}: {found:?}");
        assert_eq!(undocumented(&contract, promised, &body), Vec::<String>::new(), "{method} {path}");
        checked.push(format!("{method} {path}"));
        body
    };
    check("post", "/v1/policies", admin.post("/v1/policies", &drop_policy("drop")).await);
    let mut changed = drop_policy("drop");
    changed["note"] = json!("why");
    check("put", "/v1/policies/{name}", admin.put("/v1/policies/drop", &changed, Some("\"1\"")).await);
    check("get", "/v1/policies/{name}", admin.get("/v1/policies/drop").await);
    check("get", "/v1/policies/{name}/versions", admin.get("/v1/policies/drop/versions").await);
    let batch = json!([brute_force("1", "203.0.113.7"), {"id": 7}, brute_force("2", "127.0.0.1")]);
    let intake = check("post", "/v1/alerts", admin.post("/v1/alerts", &batch).await);
    agent.answer(Outcome::Succeeded, Some(true)).await;
    check(
        "get",
        "/v1/responses/{id}",
        admin.get(&format!("/v1/responses/{}", intake["responses"][0].as_str().unwrap())).await,
    );
    let asked = json!({"action": "log-only", "agents": ["web-01"], "for": "1h", "reason": "seen"});
    let made = check("post", "/v1/responses", admin.post("/v1/responses", &asked).await);
    let (response, effect, command) = (
        made["id"].as_str().unwrap(),
        made["effects"][0]["id"].as_str().unwrap(),
        made["commands"][0]["id"].as_str().unwrap(),
    );
    check("get", "/v1/effects/{id}", admin.get(&format!("/v1/effects/{effect}")).await);
    check(
        "post",
        "/v1/commands/{id}/cancel",
        admin.post(&format!("/v1/commands/{command}/cancel"), &json!({"reason": "x"})).await,
    );
    check(
        "post",
        "/v1/responses/{id}/lift",
        admin.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "x"})).await,
    );
    let done = admin.get("/v1/commands?state=succeeded").await.is(200)["items"][0]["id"].as_str().unwrap().to_owned();
    let command = check("get", "/v1/commands/{id}", admin.get(&format!("/v1/commands/{done}")).await);
    assert!(command["result"].is_object());
    let alert = admin.get("/v1/alerts?limit=1").await.is(200)["items"][0]["id"].as_str().unwrap().to_owned();
    check("get", "/v1/alerts/{id}", admin.get(&format!("/v1/alerts/{alert}")).await);
    check("get", "/v1/agents/{id}", admin.get(&format!("/v1/agents/{}", agent.id)).await);
    let labels =
        admin.request(Method::PATCH, &format!("/v1/agents/{}", agent.id)).json(&json!({"labels": {"env": "prod"}}));
    check("patch", "/v1/agents/{id}", Answer::to(labels).await);
    check(
        "post",
        "/v1/api-keys",
        admin.post("/v1/api-keys", &json!({"name": "k", "role": "viewer", "expires_in": "1h"})).await,
    );
    let token = check(
        "post",
        "/v1/enrollment-tokens",
        admin.post("/v1/enrollment-tokens", &json!({"labels": {"env": "prod"}})).await,
    );
    let owed = json!({"action": "log-only", "agents": ["web-01"], "for": "1h", "reason": "seen"});
    admin.post("/v1/responses", &owed).await.is(201);
    let asked = serde_json::to_value(enrollment(token["token"].as_str().unwrap(), "web-02", &new_key())).unwrap();
    check("post", "/v1/agents/enroll", admin.post("/v1/agents/enroll", &asked).await);
    let request = PollRequest { max: 5, ..PollRequest::default() };
    let poll = check("post", "/v1/agent/poll", agent.exchange(&agent.token(), &request).await);
    assert!(!poll["commands"].as_array().unwrap().is_empty());
    check("get", "/v1/audit/verify", admin.get("/v1/audit/verify").await);
    check("get", "/v1/alerts/{id}/explain", admin.get(&format!("/v1/alerts/{alert}/explain")).await);
    for (word, change) in [
        ("approve", json!({"mode": "approve"})),
        ("reject", json!({"mode": "approve"})),
        ("confirm", json!({"approval": {"undo_unless_confirmed": "1h"}})),
    ] {
        let mut policy = drop_policy(word);
        policy["match"] = json!([{"rule_ids": [word]}]);
        policy.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        admin.policy(&policy).await;
        let mut alert = brute_force(word, "198.51.100.9");
        alert["rule"]["id"] = json!(word);
        let made = admin.post("/v1/alerts", &alert).await.is(202)["responses"][0].as_str().unwrap().to_owned();
        let answer = admin.post(&format!("/v1/responses/{made}/{word}"), &json!({"reason": "x"})).await;
        check("post", &format!("/v1/responses/{{id}}/{word}"), answer);
    }
    let rollback = admin.request(Method::POST, "/v1/policies/drop/rollback").json(&json!({"version": 1}));
    check("post", "/v1/policies/{name}/rollback", Answer::to(rollback.header("if-match", "\"2\"")).await);
    check("get", "/v1/policies/{name}/counts", admin.get("/v1/policies/drop/counts").await);
    let xml = "<ossec_config><global><white_list>192.0.2.1</white_list></global><command><name>scan</name>
        <executable>scan2.sh</executable></command><active-response><command>scan</command><location>all</location>
        <rules_id>1</rules_id></active-response></ossec_config>";
    let import = |query: &str| {
        let request = admin.request(Method::POST, &format!("/v1/policies/import{query}"));
        Answer::to(request.header("content-type", "application/xml").body(xml))
    };
    check("post", "/v1/policies/import", import("?dry_run=true").await);
    let draft = json!({"policy": drop_policy("draft")});
    check("post", "/v1/policies/backtest", admin.post("/v1/policies/backtest", &draft).await);
    let mut breaks = drop_policy("breaks");
    breaks["match"] = json!([{"rule_ids": ["breaks"]}]);
    breaks["breaker"] = json!({"undone": "1%", "at_least": 1});
    admin.policy(&breaks).await;
    for n in 0..2 {
        let mut alert = brute_force(&format!("breaks {n}"), "198.51.100.10");
        alert["rule"]["id"] = json!("breaks");
        let made = admin.post("/v1/alerts", &alert).await.is(202)["responses"][0].as_str().unwrap().to_owned();
        admin.post(&format!("/v1/responses/{made}/lift"), &json!({"reason": "x"})).await;
    }
    check("get", "/v1/policies/{name}", admin.get("/v1/policies/breaks").await);
    let reset = admin.post("/v1/policies/breaks/reset", &json!({"reason": "x"})).await;
    check("post", "/v1/policies/{name}/reset", reset);
    let custom = json!({"name": "scan", "summary": "Scans.", "executable": "scan.sh"});
    check("post", "/v1/actions", admin.post("/v1/actions", &custom).await);
    check("get", "/v1/actions/{name}", admin.get("/v1/actions/scan").await);
    check("put", "/v1/actions/{name}", admin.put("/v1/actions/scan", &custom, Some("\"1\"")).await);
    check("get", "/readyz", admin.get("/readyz?verbose=true").await);
    check("get", "/v1/freeze", admin.get("/v1/freeze").await);
    check("put", "/v1/freeze", admin.put("/v1/freeze", &json!({"frozen": true, "reason": "x"}), None).await);
    check("get", "/v1/freeze", admin.get("/v1/freeze").await);
    let all = json!({"everything": true, "dry_run": true, "reason": "x"});
    check("post", "/v1/responses/lift", admin.post("/v1/responses/lift", &all).await);
    let entry = json!({"kind": "ip", "value": "203.0.113.0/24", "reason": "why", "expires_in": "1h"});
    check("post", "/v1/protected", admin.post("/v1/protected?dry_run=true", &entry).await);
    let entry = check("post", "/v1/protected", admin.post("/v1/protected", &entry).await);
    check("get", "/v1/protected/{id}", admin.get(&format!("/v1/protected/{}", entry["id"].as_str().unwrap())).await);
    for list in [
        "protected",
        "alerts",
        "policies",
        "actions",
        "responses",
        "effects",
        "commands",
        "agents",
        "enrollment-tokens",
        "api-keys",
        "audit",
    ] {
        let path = format!("/v1/{list}");
        let page = check("get", &path, admin.get(&path).await);
        assert!(!page["items"].as_array().unwrap().is_empty(), "an empty list promises little: {list}");
        // Entries of a list are documented to the last field as well.
        let schema =
            &contract["paths"][path.as_str()]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let page_schema = contract.pointer(schema["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
        for item in page["items"].as_array().unwrap() {
            assert_eq!(
                undocumented(&contract, &page_schema["properties"]["items"]["items"], item),
                Vec::<String>::new(),
                "{path}"
            );
        }
    }
    // Everything that answers with JSON was looked at.
    let mut all = Vec::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap().values();
            if answers.into_iter().any(|answer| answer["content"]["application/json"]["schema"].is_object()) {
                all.push(format!("{method} {path}"));
            }
        }
    }
    checked.sort();
    checked.dedup();
    all.sort();
    assert_eq!(checked, all);
    let problem = admin.post("/v1/policies", &json!({})).await.is_problem(422);
    assert_eq!(faults(&contract, &contract["components"]["schemas"]["Problem"], &problem), Vec::<String>::new());
}
