//! Clients that published generators make of `openapi.yaml` compile and work: openapi-python-client makes
//! one in Python, openapi-generator one in TypeScript. Each sends alerts as lines, imports a configuration
//! in XML, repeats requests by `Idempotency-Key`, and reads every list by pages from a real manager.
//!
//! Only `make conformance` runs this: it takes minutes. `scripts/test-deps.sh clients` installs the generators from
//! `PyPI` into `target/clients`; the test installs from npm what the client in TypeScript needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::python_of;
use crate::processes::{Api, FakeAgent, Manager, PATIENCE, eventually, require, tied};
use crate::support::alert::brute_force;

/// The lists of the contract, and whether each is read by pages.
fn lists(contract: &Value) -> BTreeMap<String, bool> {
    let items = contract["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    let pages = operations.filter(|operation| {
        let schema = operation.pointer("/responses/200/content/application~1json/schema/$ref");
        schema.and_then(Value::as_str).is_some_and(|name| name.starts_with("#/components/schemas/Page_"))
    });
    let takes = |operation: &Value, name: &str| {
        operation["parameters"].as_array().is_some_and(|all| all.iter().any(|parameter| parameter["name"] == name))
    };
    pages.map(|list| (list["operationId"].as_str().unwrap().to_owned(), takes(list, "cursor"))).collect()
}

/// A program of the environment of the generators.
fn generator(program: &str) -> std::path::PathBuf {
    python_of("clients", program)
}

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/clients").join(name)
}

fn run(what: &str, folder: &Path, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = tied(program);
    // openapi-python-client starts ruff, which is beside it.
    let path = format!("{}:{}", generator("python").parent().unwrap().display(), std::env::var("PATH").unwrap());
    command
        .args(arguments)
        .current_dir(folder)
        .env("PATH", path)
        .env("NO_PROXY", "*")
        .envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{what}: {said}");
    output
}

/// Makes something of every kind that has a list, three of each where the manager allows it.
async fn populate(manager: &Manager) -> Api {
    let api = manager.api();
    let agents = ["web-01", "web-02", "web-03"];
    for name in agents {
        FakeAgent::enroll(manager, name).await;
    }
    // Its address is never called, so each event is a message that is kept. It has the name of the policy below, which the clients
    // ask for.
    let webhook =
        json!({"name": "answer", "url": "https://localhost:9/", "settings": {"types": ["protected.created"]}});
    api.post("/v1/webhooks", &webhook).await;
    for name in ["other-1", "other-2"] {
        let silent = json!({"name": name, "url": "https://localhost:9/", "settings": {"is_disabled": true}});
        api.post("/v1/webhooks", &silent).await;
    }
    let answer = json!({"name": "answer", "mode": "enforce", "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "firewall-drop", "target": "source.ip", "on": "all", "for": "10m"}});
    api.post("/v1/policies", &answer).await;
    for duration in ["20m", "30m"] {
        let found = api.request(Method::GET, "/v1/policies/answer").send().await.unwrap();
        let tag = found.headers()["etag"].clone();
        let mut changed = answer.clone();
        changed["respond"]["for"] = json!(duration);
        let put = api.request(Method::PUT, "/v1/policies/answer").header("if-match", tag).json(&changed);
        assert!(put.send().await.unwrap().status().is_success());
    }
    for index in 1..=3 {
        let address = format!("203.0.113.{index}");
        let name = format!("person-{index}");
        api.post("/v1/protected", &json!({"kind": "ip", "value": address, "reason": "ours"})).await;
        api.post("/v1/holds", &json!({"name": name, "reason": "case", "kind": "policy", "value": "answer"})).await;
        let user = json!({"name": name, "role": "viewer", "password": "correct horse battery"});
        api.post("/v1/users", &user).await;
        api.post("/v1/api-keys", &json!({"name": format!("viewer-{index}"), "role": "viewer"})).await;
        let secret = json!({"value": "s3cret", "actions": ["firewall-drop"]});
        let put = api.request(Method::PUT, &format!("/v1/secrets/secret-{index}")).json(&secret).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
        let report =
            api.request(Method::PUT, &format!("/v1/forwarders/wazuh-{index}")).json(&json!({"version": "0.1.0"}));
        assert!(report.send().await.unwrap().status().is_success());
        api.post("/v1/feeds", &json!({"name": format!("edge-{index}")})).await;
        api.post("/v1/alerts", &brute_force(&format!("{index}"), &format!("198.51.100.{index}"))).await;
        let refused = json!({"pipeline": "demo", "id": index});
        let refused = api.request(Method::POST, "/v1/alerts").json(&refused).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 422);
    }
    eventually("messages are kept", PATIENCE, async || {
        let kept = api.get("/v1/webhooks/answer/messages").await;
        (kept["items"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    api.post("/v1/responses", &json!({"action": "log-only", "agents": agents, "reason": "drill"})).await;
    api
}

/// What a client is given, and what it must find.
fn given(of: &str) -> Value {
    let alert = |id: &str| {
        json!({"pipeline": "demo", "id": format!("{of}-{id}"), "time": riposte::clock::Clock::system().now(),
            "rule": {"id": "1", "level": 3}})
    };
    let xml = format!(
        "<ossec_config><command><name>tool-{of}</name><executable>tool-{of}.sh</executable></command>\
         <active-response><command>tool-{of}</command><location>local</location><level>7</level></active-response>\
         </ossec_config>"
    );
    json!({"lines": [alert("line-1"), alert("line-2")], "alerts": [alert("1"), alert("2")], "xml": xml,
        "parameters": {"name": "answer"}})
}

/// Compares what a client has seen with what the manager has.
async fn judge(api: &Api, contract: &Value, of: &str, output: &Output) {
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    // A repeated request gets the answer of the first: neither time are the alerts duplicates.
    for sent in told["lines"].as_array().unwrap() {
        assert_eq!((&sent["accepted"], &sent["duplicates"]), (&json!(2), &json!(0)), "{told}");
    }
    let (accepted, duplicates): (Vec<_>, Vec<_>) = told["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sent| (sent["accepted"].as_u64().unwrap(), sent["duplicates"].as_u64().unwrap()))
        .unzip();
    assert_eq!((accepted, duplicates), (vec![1, 1, 1], vec![0, 1, 1]), "{told}");
    assert_eq!(told["imported"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["on"], json!({"word": "OnWord", "agents": "OnAgents", "selector": "OnSelector"}), "{of}");
    let responses = told["responses"].as_array().unwrap();
    assert!(responses[0].is_string() && responses[0] == responses[1], "{told}");
    assert_eq!(told["problem"], json!(["Problem", 404]));
    let lists = lists(contract);
    let read = told["lists"].as_object().unwrap();
    assert_eq!(read.keys().collect::<Vec<_>>(), lists.keys().collect::<Vec<_>>(), "{of} does not read every list");
    for (name, by_pages) in lists {
        let texts = |part: &str| -> Vec<&str> {
            read[&name][part].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
        };
        let whole = texts("whole");
        assert!(!whole.is_empty() && whole.iter().all(|text| !["None", "undefined"].contains(text)), "{name}: {told}");
        if !by_pages {
            continue;
        }
        let items = texts("items");
        // Meanwhile a list of what happens may have grown.
        assert!(whole.iter().all(|item| items.contains(item)), "{name}: {told}");
        assert!(items.len() <= whole.len() + 2, "{name}: {told}");
        let expected = items.len().div_ceil(2);
        assert_eq!(read[&name]["pages"].as_u64(), u64::try_from(expected).ok(), "{name}: {told}");
        // There is one manager; of everything else there is more than a page.
        assert!(name == "nodes_list" || expected > 1, "{name} has one page: {told}");
    }
    let found = api.get(&format!("/v1/policies/{of}-selector")).await;
    assert_eq!(found["respond"]["on"], json!({"labels": {"env": "prod"}}));
}

/// Gives a client what it needs, runs it, and judges what it has seen.
async fn serve(of: &str, folder: &Path, program: &Path, arguments: &[&str]) {
    let manager = Manager::start().await;
    let api = populate(&manager).await;
    let sender = api.post("/v1/api-keys", &json!({"name": "sender", "role": "ingest"})).await;
    let given = given(of);
    let file = folder.join("given.json");
    std::fs::write(&file, given.to_string()).unwrap();
    let environment = [
        ("RIPOSTE_CLIENT_URL", &*api.base),
        ("RIPOSTE_CLIENT_KEY", &*api.key),
        ("RIPOSTE_CLIENT_SECRET", sender["key"].as_str().unwrap()),
        ("RIPOSTE_CLIENT_GIVEN", file.to_str().unwrap()),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    let output = run(of, folder, program, arguments, &environment);
    judge(&api, &riposte::api::contract(), of, &output).await;
}

/// Writes the contract into a folder of its own.
fn folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let contract = folder.path().join("openapi.yaml");
    std::fs::write(&contract, riposte::api::contract_yaml()).unwrap();
    (folder, contract.to_str().unwrap().to_owned())
}

/// The page for people has the command that the test runs.
fn told_on_the_page(program: &str, arguments: &[&str], contract: &str, settings: &str) {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api-clients.md")).unwrap();
    let name = |argument: &&str| match *argument {
        argument if argument == contract => "openapi.yaml".to_owned(),
        argument if argument == settings => "python.yml".to_owned(),
        argument => argument.to_owned(),
    };
    let command = format!("{program} {}", arguments.iter().map(name).collect::<Vec<_>>().join(" "));
    assert!(page.replace("\\\n  ", "").contains(&command), "docs/api-clients.md does not have: {command}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_is_made_of_the_contract_and_works() {
    let (folder, contract) = folder();
    let settings = file("python.yml");
    let made = ["generate", "--path", &contract, "--config", settings.to_str().unwrap(), "--output-path", "made"];
    told_on_the_page("openapi-python-client", &made, &contract, settings.to_str().unwrap());
    let output = run("openapi-python-client", folder.path(), &generator("openapi-python-client"), &made, &[]);
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    // A warning says what the client lacks. These media types are other names of those that it has.
    for part in said.split("WARNING").skip(1) {
        let place = part.lines().next().unwrap();
        assert!(part.contains("Missing schema"), "{said}");
        let known = ["POST /v1/alerts", "POST /v1/ingest/{secret}", "POST /v1/policies/import"];
        assert!(known.iter().any(|known| place.contains(known)), "{said}");
    }
    let made = folder.path().join("made");
    std::fs::copy(file("python_client.py"), made.join("python_client.py")).unwrap();
    run("mypy", &made, &generator("mypy"), &["riposte_client", "python_client.py"], &[]);
    serve("py", &made, &generator("python"), &["python_client.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_typescript_is_made_of_the_contract_and_works() {
    require(&[("node", "nodejs"), ("npm", "npm")]);
    let (folder, contract) = folder();
    for name in ["client.ts", "package.json", "package-lock.json", "tsconfig.json"] {
        std::fs::copy(file(name), folder.path().join(name)).unwrap();
    }
    let made = ["generate", "--generator-name", "typescript-axios", "--input-spec", &contract, "--output", "made"];
    let made = [&made[..], &["--additional-properties", "useSingleRequestParameter=true"]].concat();
    told_on_the_page("openapi-generator-cli", &made, &contract, "");
    run("openapi-generator-cli", folder.path(), &generator("openapi-generator-cli"), &made, &[]);
    let npm = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    run("npm ci", folder.path(), Path::new("npm"), &npm, &[]);
    run("tsc", folder.path(), Path::new("node_modules/.bin/tsc"), &["--noEmit", "--project", "."], &[]);
    run("tsc", folder.path(), Path::new("node_modules/.bin/tsc"), &["--project", "."], &[]);
    serve("ts", folder.path(), Path::new("node"), &["out/client.js"]).await;
}
