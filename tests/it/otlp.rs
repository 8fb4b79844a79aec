//! Traces and metrics over OTLP/HTTP: one trace from the alert to the undo, across managers and restarts,
//! and a collector that is away costs nothing but spans. The receiver here reads protobuf by itself;
//! `make conformance` reads with the published definitions.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use riposte_protocol::message::Outcome;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::processes::{self, Manager, succeeded};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, TestApp, eventually};

/// A field of a protobuf message.
#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message: its fields by number.
#[derive(Clone, Debug, Default)]
struct Message(BTreeMap<u64, Vec<Field>>);

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a whole varint");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

impl Message {
    fn read(mut bytes: &[u8]) -> Self {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)),
                1 => {
                    let (eight, rest) = bytes.split_first_chunk::<8>().unwrap();
                    bytes = rest;
                    Field::Number(u64::from_le_bytes(*eight))
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (inner, rest) = bytes.split_at(length);
                    bytes = rest;
                    Field::Bytes(inner.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            message.0.entry(key >> 3).or_default().push(field);
        }
        message
    }

    fn all(&self, field: u64) -> Vec<Self> {
        self.bytes(field).iter().map(|bytes| Self::read(bytes)).collect()
    }

    fn bytes(&self, field: u64) -> Vec<&[u8]> {
        let fields = self.0.get(&field).into_iter().flatten();
        fields
            .map(|field| match field {
                Field::Bytes(bytes) => bytes.as_slice(),
                Field::Number(number) => panic!("{number} is no bytes"),
            })
            .collect()
    }

    fn text(&self, field: u64) -> String {
        self.bytes(field).first().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).unwrap_or_default()
    }

    fn number(&self, field: u64) -> u64 {
        match self.0.get(&field).and_then(|fields| fields.first()) {
            Some(Field::Number(number)) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    fn attributes(&self, field: u64) -> BTreeMap<String, String> {
        let value = |any: &Self| match any.0.iter().next().unwrap() {
            (1, _) => any.text(1),
            (field, _) => any.number(*field).to_string(),
        };
        self.all(field).iter().map(|pair| (pair.text(1), value(&pair.all(2)[0]))).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span, as it arrived.
#[derive(Clone, Debug)]
struct Span {
    node: String,
    trace: String,
    id: String,
    parent: String,
    name: String,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
    events: Vec<String>,
    fault: Option<String>,
}

fn spans_of(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in Message::read(body).all(1) {
        let resource = of_resource.all(1)[0].attributes(1);
        assert_eq!(resource["service.name"], "riposte");
        for span in of_resource.all(2).iter().flat_map(|of_scope| of_scope.all(2)) {
            let id = |field| span.bytes(field).first().map(|bytes| hex(bytes)).unwrap_or_default();
            let (trace, id, parent) = (id(1), id(2), id(4));
            assert_eq!((trace.len(), id.len()), (32, 16), "{span:?}");
            let fault = span.all(15).first().map(|status| status.text(2));
            let events = span.all(11).iter().map(|event| event.text(2)).collect();
            let (name, attributes) = (span.text(5), span.attributes(9));
            let (node, start, end) = (resource["service.instance.id"].clone(), span.number(7), span.number(8));
            assert!(start > 0 && start <= end, "{span:?}");
            spans.push(Span { node, trace, id, parent, name, start, end, attributes, events, fault });
        }
    }
    spans
}

/// What a collector got, and what it answers.
#[derive(Debug)]
struct Collector {
    status: StatusCode,
    spans: Vec<Span>,
    metrics: Vec<Vec<u8>>,
    headers: HeaderMap,
}

type Shared = Arc<Mutex<Collector>>;

async fn take(
    State(collector): State<Shared>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut collector = collector.lock().unwrap();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    if collector.status.is_success() {
        match uri.path() {
            "/otlp/v1/traces" => collector.spans.extend(spans_of(&body)),
            "/otlp/v1/metrics" => collector.metrics.push(body.to_vec()),
            other => panic!("{other} is no path of OTLP"),
        }
        collector.headers = headers;
    }
    collector.status
}

/// Starts a collector; returns its base URL.
async fn collector() -> (String, Shared, JoinSet<()>) {
    let status = StatusCode::OK;
    let collector = Collector { status, spans: Vec::new(), metrics: Vec::new(), headers: HeaderMap::new() };
    let collector = Arc::new(Mutex::new(collector));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/otlp/", listener.local_addr().unwrap());
    let router = Router::new().fallback(take).with_state(Arc::clone(&collector));
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, collector, serving)
}

/// Waits for a span whose name begins so.
async fn span(collector: &Shared, name: &str) -> Span {
    eventually(name, || async {
        let collector = collector.lock().unwrap();
        collector.spans.iter().find(|span| span.name.starts_with(name)).cloned()
    })
    .await
}

fn write_headers(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("otlp.headers");
    let mut options = std::fs::OpenOptions::new();
    let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&file).unwrap();
    std::io::Write::write_all(&mut open, text.as_bytes()).unwrap();
    file
}

async fn start(database: Database, url: &str, ratio: &str) -> (TestApp, Client) {
    TestApp::start_with(database, |config| {
        config.telemetry.otlp_endpoint = url.into();
        config.telemetry.otlp_interval = "100ms".into();
        config.telemetry.otlp_sample_ratio = ratio.parse().unwrap();
    })
    .await
}

async fn post(admin: &Client, alert: &Value, traceparent: &str) -> Value {
    let request = admin.request(reqwest::Method::POST, "/v1/alerts").header("traceparent", traceparent);
    Answer::to(request.json(alert)).await.is(202)
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

on_both_databases! {
    async fn one_trace_shows_an_alert_its_response_its_command_and_its_undo(database: Database) {
        let (url, collector, _serving) = collector().await;
        let dir = tempfile::tempdir().unwrap();
        let headers = write_headers(dir.path(), "authorization: Bearer of the collector\nx-tenant: 7\n");
        let (app, admin) = TestApp::start_with(database, |config| {
            config.telemetry.otlp_endpoint = url;
            config.telemetry.otlp_headers_file = headers;
            config.telemetry.otlp_interval = "100ms".into();
            // The caller decides.
            config.telemetry.otlp_sample_ratio = "0".parse().unwrap();
        })
        .await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        post(&admin, &brute_force("1", "203.0.113.7"), &format!("00-{TRACE}-b7ad6b7169203331-01")).await;
        let command = agent.owed().await.remove(0);
        agent.acknowledge(&[&command]).await;
        app.advance(2);
        agent.report(vec![agent.result(command.jti, Outcome::Succeeded, Some(true))]).await;
        let apply = span(&collector, "apply firewall-drop").await;
        app.advance(700);
        app.in_time("the revert", async || (!agent.owed().await.is_empty()).then_some(())).await;
        agent.answer(Outcome::Failed, Some(false)).await;
        let revert = span(&collector, "revert firewall-drop").await;
        let alert = span(&collector, "alert").await;
        let (decide, commit) = (span(&collector, "decide").await, span(&collector, "commit").await);
        let (response, undo) = (span(&collector, "response drop").await, span(&collector, "undo drop").await);
        let all = [&alert, &decide, &commit, &response, &apply, &undo, &revert];
        assert!(all.iter().all(|span| span.trace == TRACE), "{all:#?}");
        assert_eq!(alert.parent, "b7ad6b7169203331");
        for (span, parent) in [(&decide, &alert), (&commit, &alert), (&response, &alert), (&apply, &response),
            (&undo, &response), (&revert, &undo)] {
            assert_eq!(span.parent, parent.id, "{} is below {}", span.name, parent.name);
        }
        assert!(alert.start == decide.start && decide.end == commit.start && commit.end == alert.end);
        assert_eq!(apply.events, ["delivered", "acknowledged"]);
        assert_eq!((apply.end - apply.start) / 1_000_000, 2000, "{apply:?}");
        let attributes = [("riposte.agent.name", "web-01"), ("riposte.verified", "1"), ("riposte.policy", "drop"),
            ("riposte.command.state", "succeeded"), ("riposte.command.deliveries", "1")];
        for (key, value) in attributes {
            assert_eq!(apply.attributes[key], value, "{apply:?}");
        }
        assert_eq!((apply.fault.as_deref(), revert.fault.as_deref()), (None, Some("failed")));
        assert_eq!(undo.attributes["riposte.reason"], "elapsed");
        // What an alert or a host says is not exported.
        assert!(!format!("{all:?}").contains("203.0.113.7"));
        let collector = collector.lock().unwrap();
        assert_eq!(collector.headers["authorization"], "Bearer of the collector");
        assert_eq!(collector.headers["x-tenant"], "7");
        assert!(!format!("{:?}", app.config).contains("Bearer"), "a file names them");
    }
}

#[tokio::test]
async fn a_response_that_waits_is_one_span_until_a_person_has_decided() {
    let (url, collector, _serving) = collector().await;
    let (app, admin) = start(Database::sqlite(), &url, "1").await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let mut policy = drop_policy("ask");
    (policy["mode"], policy["approval"]) = (json!("approve"), json!({"quorum": 1, "within": "1h"}));
    admin.policy(&policy).await;
    let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
    let id = answer["responses"][0].as_str().unwrap().to_owned();
    let alert = span(&collector, "alert").await;
    app.advance(60);
    admin.post(&format!("/v1/responses/{id}/reject"), &json!({"reason": "ours"})).await.is(200);
    let response = span(&collector, "response ask").await;
    assert_eq!((response.end - response.start) / 1_000_000_000, 60, "{response:?}");
    assert_eq!((&response.parent, response.attributes["riposte.change"].as_str()), (&alert.id, "rejected"));
    // Without a traceparent the trace begins with the alert.
    assert_eq!((alert.parent.as_str(), &alert.trace), ("", &response.trace));
}

#[tokio::test]
async fn only_the_share_of_the_traces_is_exported_that_is_asked_for() {
    let (url, collector, _serving) = collector().await;
    let (app, admin) = start(Database::sqlite(), &url, "0").await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    admin.policy(&drop_policy("drop")).await;
    admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202);
    post(&admin, &brute_force("2", "203.0.113.2"), &format!("00-{TRACE}-b7ad6b7169203331-00")).await;
    post(&admin, &brute_force("3", "203.0.113.3"), &format!("00-{TRACE}-b7ad6b7169203331-01")).await;
    span(&collector, "response drop").await;
    span(&collector, "alert").await;
    let spans = collector.lock().unwrap().spans.clone();
    assert_eq!(spans.iter().filter(|span| span.name == "alert").count(), 1, "{spans:?}");
}

#[tokio::test]
async fn the_metrics_of_the_collector_are_those_of_the_page() {
    let (url, collector, _serving) = collector().await;
    let (app, admin) = start(Database::sqlite(), &url, "1").await;
    super::metrics::use_everything(&app, &admin).await;
    let body = eventually("metrics with a containment", || async {
        let metrics = collector.lock().unwrap().metrics.clone();
        let name = b"riposte_time_to_contain_seconds";
        let has_it = |body: &&Vec<u8>| body.windows(name.len()).any(|bytes| bytes == name);
        metrics.iter().rfind(has_it).cloned()
    })
    .await;
    let metrics: BTreeMap<String, Message> = Message::read(&body)
        .all(1)
        .iter()
        .flat_map(|resource| resource.all(2))
        .flat_map(|scope| scope.all(2))
        .map(|metric| (metric.text(1), metric))
        .collect();
    let documented = super::metrics::documented();
    for (name, metric) in &metrics {
        let (counter, kind) = (format!("{name}_total"), |field| !metric.all(field).is_empty());
        let (kind, name) = if kind(7) {
            ("counter", &counter)
        } else if kind(9) {
            ("histogram", name)
        } else {
            ("gauge", name)
        };
        assert_eq!(documented.get(name).map(|(kind, _)| kind.as_str()), Some(kind), "{name}");
    }
    assert!(metrics.len() > 20, "{:?}", metrics.keys());
    let histogram = &metrics["riposte_time_to_contain_seconds"].all(9)[0];
    let point = &histogram.all(1)[0];
    assert_eq!((point.number(4), histogram.number(2)), (1, 2));
    let of = |field: u64| point.bytes(field)[0].chunks(8).map(|eight| u64::from_le_bytes(eight.try_into().unwrap()));
    assert_eq!((of(6).sum::<u64>(), of(6).count()), (1, of(7).count() + 1));
    assert_eq!(point.attributes(9)["policy"], "drop");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (url, collector, _serving) = collector().await;
    collector.lock().unwrap().status = StatusCode::BAD_REQUEST;
    let (app, admin) = start(Database::sqlite(), &url, "1").await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    admin.policy(&drop_policy("drop")).await;
    let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
    assert_eq!(answer["responses"].as_array().unwrap().len(), 1);
    agent.answer(Outcome::Succeeded, Some(true)).await;
    let has_dropped = |text: &str| !text.contains("riposte_telemetry_dropped_total{signal=\"traces\"} 0\n");
    let ready = eventually("a warning and a count", || async {
        let dropped = has_dropped(&admin.get("/metrics").await.text);
        let ready = admin.get("/readyz?verbose").await;
        let ready: Value = serde_json::from_str(&ready.text).unwrap();
        let warning = ready["warnings"].to_string();
        (dropped && warning.contains("does not take traces: it answered 400")).then_some(ready)
    })
    .await;
    assert_eq!(ready["ready"], true, "{ready}");
    assert!(!ready.to_string().contains("/otlp"), "a path may be a secret: {ready}");
    assert!(collector.lock().unwrap().spans.is_empty());
    collector.lock().unwrap().status = StatusCode::OK;
    admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
    span(&collector, "response drop").await;
    eventually("the warning ends", || async {
        let ready = admin.get("/readyz?verbose").await;
        (!ready.text.contains("does not take")).then_some(())
    })
    .await;
    assert!(admin.get("/metrics").await.text.contains("riposte_telemetry_exported_total{signal=\"traces\"}"));
}

#[tokio::test]
async fn a_trace_goes_on_after_a_crash_and_at_another_manager() {
    let (url, collector, _serving) = collector().await;
    let database = Database::postgresql().await;
    let database_url = database.url();
    let flags = ["--database-url", &database_url, "--otlp-endpoint", &url, "--otlp-interval", "100ms"];
    let mut first = Manager::start_with(&flags).await;
    let second = first.start_copy().await;
    let (api, agent) = (first.api(), processes::FakeAgent::enroll(&first, "web-01").await);
    api.make_policy("firewall-drop", "10m").await;
    api.post("/v1/alerts", &processes::alert(1, "203.0.113.7", "web-01")).await;
    let (alert, response) = (span(&collector, "alert").await, span(&collector, "response answer").await);
    assert_eq!((&response.trace, &response.parent, &response.node), (&alert.trace, &alert.id, &alert.node));
    // Killed between the alert and the result, which the other manager gets.
    first.kill9();
    let agent = agent.at(&second);
    let commands = agent.poll(json!({"cursor": 0, "max": 10, "wait_seconds": 0})).await;
    let results = json!([succeeded(commands[0].jti)]);
    agent.poll(json!({"cursor": 1, "max": 0, "wait_seconds": 0, "results": results})).await;
    let apply = span(&collector, "apply firewall-drop").await;
    assert_eq!((&apply.trace, &apply.parent), (&alert.trace, &response.id));
    assert_ne!(apply.node, alert.node);
    // The first one is back, and ends it.
    first.start_again().await;
    let lift = format!("/v1/responses/{}/lift", response.attributes["riposte.response.id"]);
    api.post(&lift, &json!({"reason": "a test"})).await;
    let undo = span(&collector, "undo answer").await;
    assert_eq!((&undo.trace, &undo.parent), (&alert.trace, &response.id));
    let nodes = [&alert.node, &apply.node];
    assert!(!nodes.contains(&&undo.node), "another run: {nodes:?}");
}

#[tokio::test]
async fn the_commands_of_the_page_do_what_they_say() {
    let (url, collector, _serving) = collector().await;
    let page = include_str!("../../docs/integrations/opentelemetry.md");
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let of = |kind: &str| -> String { blocks.iter().filter_map(|block| block.strip_prefix(kind)).collect() };
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("telemetry.toml"), of("toml\n")).unwrap();
    let interval = ["--otlp-endpoint", &url, "--otlp-interval", "100ms"];
    let manager = Manager::start_with(&interval).await;
    let (api, _agent) = (manager.api(), processes::FakeAgent::enroll(&manager, "web-01").await);
    api.make_policy("firewall-drop", "10m").await;
    std::fs::write(here.path().join("alert.json"), processes::alert(1, "203.0.113.7", "web-01").to_string()).unwrap();
    std::os::unix::fs::symlink(processes::manager_program(), here.path().join("riposte")).unwrap();
    let mut shell = processes::tied(Path::new("sh"));
    shell.args(["-c", &format!("set -eu\n{}", of("sh\n"))]).current_dir(here.path());
    let path = format!("{}:{}", here.path().display(), std::env::var("PATH").unwrap());
    let output = shell.env("PATH", path).env("riposte", manager.base()).env("key", &api.key).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("telemetry.toml is valid"), "{said}");
    let alert = span(&collector, "alert").await;
    assert_eq!((alert.trace.as_str(), alert.parent.as_str()), (TRACE, "b7ad6b7169203331"));
    // Each attribute that is exported is on the page.
    span(&collector, "response answer").await;
    for key in collector.lock().unwrap().spans.iter().flat_map(|span| span.attributes.keys()) {
        let last = key.rsplit('.').next().unwrap();
        assert!(page.contains(&format!("`{key}`")) || page.contains(&format!("`.{last}`")), "{key}");
    }
}
