//! Control characters in what people and programs send: refused with a 4xx that names the field, on
//! every route. On both databases: PostgreSQL cannot store a NUL.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, TestApp};

/// A valid value for a part of a path.
const SOME_ID: &str = "01980f00-0000-7000-8000-000000000001";

/// Returns a schema with its reference resolved.
fn resolved<'a>(contract: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(place) => contract.pointer(place.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Returns whether the schema accepts a string.
fn takes_text(contract: &Value, schema: &Value) -> bool {
    let schema = resolved(contract, schema);
    let is_text = |kind: &Value| kind == "string";
    is_text(&schema["type"])
        || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_text))
        || ["oneOf", "anyOf"]
            .iter()
            .any(|key| schema[key].as_array().is_some_and(|all| all.iter().any(|one| takes_text(contract, one))))
}

async fn answer(client: &Client, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = client.request(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), path);
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    };
    Answer::to(request).await
}

on_both_databases! {
    async fn a_control_character_is_refused_on_every_route_and_its_field_is_named(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let contract = admin.get("/openapi.json").await.is(200);
        let (mut paths, mut queries, mut bodies) = (0, 0, 0);
        for (template, item) in contract["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let of = |place: &str| -> Vec<(String, Value)> {
                    let here = parameters.iter().filter(|parameter| parameter["in"] == place);
                    here.map(|one| (one["name"].as_str().unwrap().to_owned(), one["schema"].clone())).collect()
                };
                let path_with = |bad: &str| {
                    of("path").iter().fold(template.clone(), |path, (name, _)| {
                        path.replace(&format!("{{{name}}}"), if name == bad { "a%00b" } else { SOME_ID })
                    })
                };
                let what = format!("{method} {template}");
                let refused = |answer: Answer, name: &str| {
                    assert!((400..500).contains(&answer.status), "{what}, {name}: {} {}", answer.status, answer.text);
                    answer.is_error_of(template, answer.status);
                    assert!(answer.text.contains(name), "{what}, {name}: {}", answer.text);
                };
                for (name, _) in of("path") {
                    refused(answer(&admin, method, &path_with(&name), Some(json!({}))).await, &name);
                    paths += 1;
                }
                for (name, schema) in of("query").into_iter().filter(|(_, schema)| takes_text(&contract, schema)) {
                    for bad in ["a%00b", "%1b%5B31m", "%C2%85"] {
                        let path = format!("{}?{name}={bad}", path_with(""));
                        refused(answer(&admin, method, &path, None).await, &name);
                    }
                    assert!(!schema.is_null());
                    queries += 1;
                }
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let schema = resolved(&contract, schema);
                let fields = schema["properties"].as_object().cloned().unwrap_or_default();
                // An agent's report is kept, even if a program printed control characters. What agents send is
                // refused here for the caller, before it is read.
                let is_report = template.starts_with("/v1/agent/");
                for (name, _) in fields.iter().filter(|(_, schema)| takes_text(&contract, schema) && !is_report) {
                    refused(answer(&admin, method, &path_with(""), Some(json!({name: "a\0b"}))).await, &format!("/{name}"));
                    bodies += 1;
                }
            }
        }
        assert!(paths >= 15 && queries >= 15 && bodies >= 15, "only {paths}, {queries}, {bodies} were tried");
        // Line breaks and tabs are allowed in prose.
        let entry = json!({"kind": "ip", "value": "192.0.2.1", "reason": "one\n\ttwo"});
        assert_eq!(admin.post("/v1/protected", &entry).await.is(201)["value"], "192.0.2.1");
        let once = admin.request(Method::POST, "/v1/alerts").header("idempotency-key", "a\tb");
        Answer::to(once.header("content-type", "application/json").body("{}")).await.is_problem(400);
    }

    async fn an_agents_text_is_kept_without_its_nul(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        let by_hand = json!({"action": "log-only", "agents": ["h1"], "reason": "a try"});
        let made = admin.post("/v1/responses", &by_hand).await.is(201);
        let command = agent.owed_one().await;
        agent.acknowledge(&[&command]).await;
        let mut result = agent.result(command.jti, riposte_protocol::message::Outcome::Succeeded, Some(true));
        (result.output, result.message) = ("a\0b \u{1b}[31m".into(), "c\0d".into());
        assert_eq!(agent.report(vec![result.clone()]).await, [command.jti]);
        let shown = admin.get(&format!("/v1/responses/{}", made["id"].as_str().unwrap())).await.is(200);
        assert_eq!(shown["results"][0]["output"], "a\u{fffd}b \u{1b}[31m");
    }
}
