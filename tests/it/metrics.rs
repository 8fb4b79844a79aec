//! `/metrics`: exactly the families that docs/operations.md lists, in `OpenMetrics`' text format, and
//! one reading of the ledger however many scrapes come.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use riposte_protocol::message::{Outcome, PollRequest, RejectedOrders};
use serde_json::json;
use tokio::task::JoinSet;

use super::feeds::{fetch, key_of};
use super::support::alert::{brute_force, drop_policy};
use super::support::{Answer, Client, Database, TestApp, eventually};

/// A family: its type, and the names of its labels.
pub(super) type Family = (String, BTreeSet<String>);

/// The families of the table in the documentation, by their names there.
pub(super) fn documented() -> BTreeMap<String, Family> {
    let docs = include_str!("../../docs/operations.md");
    let (_, table) = docs.split_once("| metric | type | labels | |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else { panic!("{row}") };
        // A word in backticks that is no label has brackets.
        let is_label = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let labels = labels.split('`').skip(1).step_by(2).filter(is_label).map(str::to_owned).collect();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels))
    })
    .collect()
}

/// Parses the whole exposition: each family is described once, each sample belongs to the family
/// before it and is there once, and nothing follows the end. Counters are named as their samples.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    let (mut families, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let (mut name, mut helped) = (String::new(), String::new());
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (family, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
            family.clone_into(&mut helped);
            continue;
        }
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (family, kind) = described.split_once(' ').unwrap();
            assert_eq!(family, helped, "described and typed together");
            name = if kind == "counter" { format!("{family}_total") } else { family.to_owned() };
            let known = families.insert(name.clone(), (kind.to_owned(), BTreeSet::new()));
            assert!(known.is_none(), "{family} is described twice");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        value.parse::<f64>().unwrap_or_else(|_| panic!("no value: {line}"));
        assert!(samples.insert(sample.to_owned()), "{sample} is there twice");
        let (metric, labels) = match sample.split_once('{') {
            Some((metric, labels)) => (metric, labels.strip_suffix('}').unwrap()),
            None => (sample, ""),
        };
        let (kind, names) = families.get_mut(&name).unwrap_or_else(|| panic!("of no family: {line}"));
        let is_histogram = kind == "histogram";
        let suffix = metric.strip_prefix(&*name).unwrap_or_else(|| panic!("{line} is listed under {name}"));
        assert!(suffix.is_empty() != is_histogram, "{line}");
        assert!(!is_histogram || ["_sum", "_count", "_bucket"].contains(&suffix), "{line}");
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (label, _) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            if !(is_histogram && label == "le") {
                names.insert(label.to_owned());
            }
        }
    }
    families
}

/// The metrics, as Prometheus asks for them.
async fn open_metrics(admin: &Client) -> Answer {
    let asked = admin.request(reqwest::Method::GET, "/metrics").header("accept", "application/openmetrics-text");
    Answer::to(asked).await
}

/// Makes each family have a value.
pub(super) async fn use_everything(app: &TestApp, admin: &Client) {
    let agent = app.enrol(admin, "web-01", &json!({"wazuh_id": "005"})).await;
    // An internal host is never called, so this fails.
    admin.post("/v1/webhooks", &json!({"name": "tickets", "url": "https://localhost:9/"})).await.is(201);
    admin.post("/v1/feeds", &json!({"name": "edge"})).await.is(201);
    let key = key_of(admin, "fw-1", "edge").await;
    fetch(app, "edge", &key, &[]).await;
    admin.policy(&drop_policy("drop")).await;
    let when = json!({"rule_ids": ["5763"], "when": "data.url.contains('x')"});
    admin.policy(&json!({"name": "missing", "match": [when], "respond": {"action": "log-only"}})).await;
    for n in 0..2 {
        admin.post("/v1/alerts", &brute_force(&n.to_string(), &format!("203.0.113.{n}"))).await.is(202);
    }
    // One command waits, and one has a result.
    let command = agent.owed().await.remove(0);
    agent.acknowledge(&[&command]).await;
    let rejected = RejectedOrders { reason: "expired".into(), count: 1, kid: None };
    let results = vec![agent.result(command.jti, Outcome::Succeeded, Some(true))];
    let report = PollRequest { results, rejected: vec![rejected], cursor: u64::MAX >> 1, ..PollRequest::default() };
    agent.poll(&PollRequest { max: 0, ..report }).await;
}

on_both_databases! {
    async fn the_metrics_are_those_of_the_documentation(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let documented = documented();
        assert!(documented.len() > 20, "the table was found: {documented:?}");
        // A family without values has no labels to compare, and may be left out.
        for (name, (kind, _)) in parse(&open_metrics(&admin).await.text) {
            assert_eq!(documented.get(&name).map(|(kind, _)| kind), Some(&kind), "{name}");
        }
        use_everything(&app, &admin).await;
        let families = eventually("each family has a value", async || {
            let metrics = open_metrics(&admin).await;
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            assert_eq!((metrics.status, metrics.header("content-type")), (200, Some(content_type)));
            let names = ["riposte_effects{", "riposte_webhook_messages_total{", "riposte_feed_fetched_timestamp_seconds{"];
            names.iter().all(|name| metrics.text.contains(name)).then(|| parse(&metrics.text))
        })
        .await;
        assert_eq!(families, documented);
    }
}

/// Promise 11: `/metrics` needs no key, so its cost must not grow with the number of requests.
#[tokio::test]
async fn promise_11_concurrent_scrapes_read_the_ledger_once() {
    const SCRAPES: usize = 40;
    const READS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM effects%GROUP BY%'";
    let (app, admin) = TestApp::start_on(Database::postgresql().await).await;
    let db = app.db().await;
    let reads = async || db.optional::<(i64,)>(READS, vec![]).await.unwrap().unwrap().0;
    let mut lock = db.begin().await.unwrap();
    lock.execute("LOCK TABLE effects IN ACCESS EXCLUSIVE MODE", vec![]).await.unwrap();
    let mut scrapes = JoinSet::new();
    for _ in 0..SCRAPES {
        let admin = admin.clone();
        scrapes.spawn(async move { admin.get("/metrics").await });
    }
    eventually("a scrape reads the ledger", async || (reads().await == 1).then_some(())).await;
    // Each scrape would hold a connection of its own; there is a request after them that is served.
    let readers = join_all((0..SCRAPES).map(|_| admin.get("/v1/policies"))).await;
    assert!(readers.iter().all(|answer| answer.status == 200));
    assert_eq!(reads().await, 1, "the other scrapes wait for it");
    lock.commit().await.unwrap();
    let answers = scrapes.join_all().await;
    assert!(answers.len() == SCRAPES && answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.text.contains("riposte_effects_failing 0\n")));
}
