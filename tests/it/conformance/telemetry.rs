//! Debian's Prometheus scrapes a manager with the rules of `deploy/prometheus`, and a collector made of
//! the published definitions of OTLP reads what the manager exports.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{python, root};
use crate::processes::{FakeAgent, Manager, PATIENCE, alert, eventually, succeeded, tied};
use crate::prometheus::program;
use crate::support::Database;

/// A program and the lines that it has printed.
struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let pipes: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines() {
                    lines.lock().unwrap().push(line.unwrap());
                }
            });
        }
        Self { child, lines }
    }

    /// Waits for what `find` makes of a line.
    async fn find<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        eventually(what, PATIENCE, || async { self.lines.lock().unwrap().iter().find_map(|line| find(line)) }).await
    }
}

async fn manager(database: &Database, more: &[&str]) -> Manager {
    let url = database.url();
    let mut flags = if url.is_empty() { Vec::new() } else { vec!["--database-url", &*url] };
    flags.extend(more);
    Manager::start_with(&flags).await
}

/// An alert, its block, and its undo by hand.
async fn block_and_lift(manager: &Manager) {
    let (api, agent) = (manager.api(), FakeAgent::enroll(manager, "web-01").await);
    api.make_policy("firewall-drop", "10m").await;
    let intake = api.post("/v1/alerts", &alert(1, "203.0.113.7", "web-01")).await;
    let results = async || {
        let commands = agent.poll(json!({"cursor": 0, "max": 10, "wait_seconds": 5})).await;
        let results: Vec<_> = commands.iter().map(|command| succeeded(command.jti)).collect();
        agent.poll(json!({"cursor": u64::MAX >> 1, "max": 0, "wait_seconds": 0, "results": results})).await;
        assert_eq!(results.len(), 1);
    };
    results().await;
    let response = intake["responses"][0].as_str().unwrap();
    api.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "a test"})).await;
    results().await;
}

on_both_databases! {
    async fn a_real_prometheus_scrapes_a_manager_and_its_rules_judge_it(database: Database) {
        let manager = manager(&database, &[]).await;
        block_and_lift(&manager).await;
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [root().join("deploy/prometheus/riposte.rules.yml")],
            "scrape_configs": [{"job_name": "riposte", "static_configs": [{"targets": [manager.address.to_string()]}]}],
        });
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = tied(&program("prometheus"));
        command.arg(format!("--config.file={}", file.display())).arg("--web.listen-address=127.0.0.1:0");
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        let prometheus = Running::start(&mut command);
        let address = prometheus
            .find("Prometheus listens", |line| {
                let (_, rest) = line.split_once("msg=\"Listening on\" address=")?;
                rest.split(' ').next().map(str::to_owned)
            })
            .await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |path: &str, query: &str| -> Value {
            let url = format!("http://{address}/api/v1/{path}");
            let url = reqwest::Url::parse_with_params(&url, [("query", query)]).unwrap();
            let Ok(answer) = http.get(url).send().await else { return Value::Null };
            serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default()
        };
        let value = async |query: &str| {
            eventually(query, PATIENCE, || async {
                let answer = ask("query", query).await;
                answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
            })
            .await
        };
        assert_eq!(value("up{job=\"riposte\"}").await, "1");
        assert_eq!(value("riposte_alerts_total{outcome=\"accepted\"}").await, "1");
        let contained = "riposte_time_to_contain_seconds_count{policy=\"answer\",action=\"firewall-drop\"}";
        assert_eq!(value(contained).await, "1");
        assert_eq!(value("sum(riposte_responses_ended_total{outcome=\"lifted\"})").await, "1");
        // It asks for OpenMetrics, whose descriptions it keeps.
        let metadata = ask("metadata", "").await;
        assert_eq!(metadata["data"]["riposte_alerts"][0]["type"], "counter", "{metadata}");
        let rules = eventually("the rules were judged", PATIENCE, || async {
            let rules = ask("rules", "").await["data"]["groups"][0]["rules"].as_array().cloned()?;
            rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
        })
        .await;
        assert!(rules.len() > 20 && rules.iter().all(|rule| rule["state"] == "inactive"), "{rules:?}");
    }

    async fn a_collector_of_published_definitions_sees_one_trace(database: Database) {
        let mut command = tied(&python("python"));
        command.arg(root().join("tests/conformance/otlp_receiver.py")).env("PYTHONDONTWRITEBYTECODE", "1");
        let collector = Running::start(&mut command);
        let read = |line: &str| serde_json::from_str::<Value>(line).ok();
        let port = collector.find("the collector listens", |line| read(line)?["port"].as_u64()).await;
        let endpoint = format!("http://127.0.0.1:{port}");
        let manager = manager(&database, &["--otlp-endpoint", &endpoint, "--otlp-interval", "200ms"]).await;
        block_and_lift(&manager).await;
        let named = |name: &'static str| move |line: &str| read(line).filter(|span| span["span"] == name);
        let mut spans = BTreeMap::new();
        let names = ["alert", "decide", "commit", "response answer", "apply firewall-drop", "undo answer",
            "revert firewall-drop"];
        for name in names {
            spans.insert(name, collector.find(name, named(name)).await);
        }
        let traces: BTreeSet<&str> = spans.values().map(|span| span["trace"].as_str().unwrap()).collect();
        assert_eq!(traces.len(), 1, "{spans:#?}");
        for (name, parent) in [("decide", "alert"), ("commit", "alert"), ("response answer", "alert"),
            ("apply firewall-drop", "response answer"), ("undo answer", "response answer"),
            ("revert firewall-drop", "undo answer")] {
            assert_eq!(spans[name]["parent"], spans[parent]["id"], "{name}");
        }
        let apply = &spans["apply firewall-drop"];
        assert_eq!((&apply["kind"], &apply["status"]), (&json!("SPAN_KIND_CLIENT"), &json!("STATUS_CODE_UNSET")));
        assert_eq!((&apply["attributes"]["riposte.verified"], &apply["events"][0]), (&json!(true), &json!("delivered")));
        assert_eq!((&spans["alert"]["parent"], &spans["alert"]["kind"]), (&json!(""), &json!("SPAN_KIND_SERVER")));
        assert_eq!(apply["resource"]["service.name"], "riposte");
        let metric = |name: &'static str| move |line: &str| read(line).filter(|metric| metric["metric"] == name);
        let histogram = collector.find("the histogram", metric("riposte_time_to_contain_seconds")).await;
        assert_eq!((&histogram["kind"], &histogram["unit"]), (&json!("histogram"), &json!("s")));
        let counter = collector.find("a counter", metric("riposte_alerts")).await;
        assert_eq!((&counter["kind"], &counter["points"]), (&json!("sum"), &json!(3)));
        // A fault of a request would be a line that is no JSON.
        let lines = collector.lines.lock().unwrap();
        assert!(lines.iter().all(|line| read(line).is_some()), "{lines:?}");
    }
}
