//! Real input: the corpus beside the repository, if it is there, and a small one in `tests/data/`
//! always. Both go through the same checks. Every alert is accepted; policies match what an
//! independent reader of the same files says; every broken or hostile body gets its expected
//! outcome.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use riposte::domain::formats::{self, AlertMappings};
use riposte::domain::index::{Seen, holds};
use riposte::store::Db;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::policy_library::{at_address, library, rules};
use crate::support::{Answer, Client, Database, TestApp};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Returns a file of the reduced set.
fn ours(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

/// Returns a file of the corpus; prints a note if there is none.
fn corpus(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus").join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!("corpus not present: ../shared/corpus/{file}; only the reduced set in tests/data was checked");
    None
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

// -------------------------------------------------------------------------------------------------
// Alerts

/// Every alert is accepted, in every format that a pipeline may use.
async fn every_alert_is_accepted(path: &Path, database: Database) {
    let (_app, admin) = TestApp::start_on(database).await;
    let text = std::fs::read_to_string(path).unwrap();
    let count = text.lines().count();
    let all = |answer: Answer, key: &str| {
        let answer = answer.is(202);
        assert_eq!(answer["rejected"], json!([]));
        assert_eq!(
            (&answer[key], answer["accepted"].as_u64().unwrap() + answer["duplicates"].as_u64().unwrap()),
            (&json!(count), count as u64)
        );
    };
    all(admin.alerts(NDJSON, text.clone()).await, "accepted");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let zstd = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    for (encoding, body) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        let request = admin.request(Method::POST, "/v1/alerts").header("content-type", NDJSON);
        all(Answer::to(request.header("content-encoding", encoding).body(body)).await, "duplicates");
    }
    let array = format!("[{}]", text.lines().collect::<Vec<_>>().join(","));
    all(admin.alerts(JSON, array).await, "duplicates");
    for line in text.lines().step_by(count.div_ceil(50)) {
        assert_eq!(admin.alerts(JSON, line.to_owned()).await.is(202)["duplicates"], 1);
    }
    assert_eq!(admin.list("/v1/alerts").await.len(), count);
}

on_both_databases! {
    async fn every_alert_of_the_reduced_set_is_accepted(database: Database) {
        every_alert_is_accepted(&ours("alerts.ndjson"), database).await;
    }

    async fn every_alert_of_the_corpus_is_accepted(database: Database) {
        let Some(path) = corpus("alerts-sample.ndjson") else { return };
        assert_eq!(lines(&path).len(), 2500);
        every_alert_is_accepted(&path, database).await;
    }
}

#[tokio::test]
async fn an_alert_of_the_corpus_is_returned_byte_for_byte() {
    let paths = [Some(ours("alerts.ndjson")), corpus("alerts-sample.ndjson")];
    for path in paths.into_iter().flatten() {
        let (_app, admin) = TestApp::start().await;
        let sent = lines(&path);
        admin.alerts(NDJSON, sent.join("\n")).await.is(202);
        // Newest first; ids rise within a request.
        let listed = admin.list("/v1/alerts").await;
        for (alert, line) in listed.iter().rev().zip(&sent).step_by(sent.len().div_ceil(60)) {
            let one = admin.get(&format!("/v1/alerts/{}", alert["id"].as_str().unwrap())).await;
            assert!(one.text.contains(line), "{line:.200}");
        }
    }
}

// -------------------------------------------------------------------------------------------------
// Policies

/// Translates a policy of the sample into Riposte's format. There, an id alone is enough, and level
/// and group must both match; here that is two selectors.
fn translate(policy: &Value) -> Value {
    let list = |key: &str| policy[key].as_array().cloned().unwrap_or_default();
    let agents: Vec<Value> = list("agents");
    let groups = list("rule_groups");
    let groups: Vec<&str> = groups.iter().map(|group| group.as_str().unwrap().trim_end_matches(',')).collect();
    let mut selectors = Vec::new();
    if !list("rule_ids").is_empty() {
        selectors.push(json!({"rule_ids": list("rule_ids")}));
    }
    let mut general = serde_json::Map::new();
    if let Some(level) = policy["min_level"].as_u64().filter(|level| *level > 0) {
        general.insert("min_level".into(), json!(level));
    }
    if !groups.is_empty() {
        general.insert("rule_groups".into(), json!(groups));
    }
    if !general.is_empty() {
        selectors.push(Value::Object(general));
    }
    if !agents.is_empty() {
        for selector in &mut selectors {
            selector["agents"] = json!({"ids": agents});
        }
    }
    json!({"name": policy["id"], "mode": "observe", "match": selectors, "respond": {"action": "log-only"}})
}

/// Returns which policies answered each alert of a file, in the file's order.
async fn answers(policies: &Path, alerts: &Path) -> Vec<Vec<String>> {
    let (app, admin) = TestApp::start().await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let policies: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(policies).unwrap()).unwrap();
    for policy in &policies {
        admin.policy(&translate(policy)).await;
    }
    let answer = admin.alerts(NDJSON, std::fs::read_to_string(alerts).unwrap()).await.is(202);
    let mut ids: Vec<String> =
        admin.list("/v1/alerts").await.iter().map(|alert| alert["id"].as_str().unwrap().to_owned()).collect();
    // Ids ascend in the order of the alerts in the request.
    ids.reverse();
    let mut by_alert: BTreeMap<String, Vec<String>> = ids.iter().map(|id| (id.clone(), Vec::new())).collect();
    let responses = admin.list("/v1/responses").await;
    assert_eq!(answer["responses"].as_array().unwrap().len(), responses.len());
    for response in responses {
        assert!(matches!(response["state"].as_str(), Some("observed" | "spared")), "{response}");
        let policy = response["policy"].as_str().unwrap().to_owned();
        by_alert.get_mut(response["alert_id"].as_str().unwrap()).unwrap().push(policy);
    }
    // Filtered queries return the same as the whole list.
    for policy in &policies {
        let name = policy["id"].as_str().unwrap();
        let count = by_alert.values().flatten().filter(|fired| *fired == name).count();
        assert_eq!(admin.list(&format!("/v1/responses?policy={name}")).await.len(), count, "{name}");
    }
    ids.iter()
        .map(|id| by_alert.remove(id).unwrap())
        .map(|mut fired| {
            fired.sort();
            fired
        })
        .collect()
}

fn counts(answers: &[Vec<String>]) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for policy in answers.iter().flatten() {
        *counts.entry(policy.as_str()).or_insert(0) += 1;
    }
    counts
}

fn expected_counts(path: &Path) -> BTreeMap<String, u64> {
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let counts: BTreeMap<String, u64> = serde_json::from_value(expected["exact_word_groups"].clone()).unwrap();
    assert!(counts.values().any(|count| *count > 0));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn owned(counts: BTreeMap<&str, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(policy, count)| (policy.to_owned(), count)).collect()
}

#[tokio::test]
async fn policies_match_the_reduced_set_as_its_author_says() {
    let answers = answers(&ours("policies.json"), &ours("alerts.ndjson")).await;
    assert_eq!(owned(counts(&answers)), expected_counts(&ours("policies.expected.json")));
}

/// Policies of the corpus that name a group with a blank around it, or match an alert with one.
const WITH_BLANKS: [&str; 2] = ["p03-auth-fail-comma", "p18-leading-space-group"];

/// Trims every string of a list.
fn trim(list: &mut Value) {
    for item in list.as_array_mut().into_iter().flatten() {
        *item = json!(item.as_str().unwrap().trim());
    }
}

#[tokio::test]
async fn policies_match_the_corpus_exactly_as_the_oracle_says() {
    let (Some(policies), Some(alerts)) = (corpus("policies-sample.json"), corpus("alerts-sample.ndjson")) else {
        return;
    };
    let answers = answers(&policies, &alerts).await;
    // The oracle takes blanks around a group as part of its name; Riposte ignores them.
    let regardless = |counts: BTreeMap<String, u64>| -> BTreeMap<String, u64> {
        counts.into_iter().filter(|(policy, _)| !WITH_BLANKS.contains(&policy.as_str())).collect()
    };
    let expected = expected_counts(&corpus("policies-sample.expected.json").unwrap());
    assert_eq!(regardless(owned(counts(&answers))), regardless(expected));
    // And alert by alert, in files without blanks in groups.
    let dir = tempfile::tempdir().unwrap();
    let (trimmed_policies, trimmed_alerts) = (dir.path().join("policies.json"), dir.path().join("alerts.ndjson"));
    let mut documents: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&policies).unwrap()).unwrap();
    for policy in &mut documents {
        trim(&mut policy["rule_groups"]);
    }
    std::fs::write(&trimmed_policies, json!(documents).to_string()).unwrap();
    let trimmed = lines(&alerts).into_iter().map(|line| {
        let mut alert: Value = serde_json::from_str(&line).unwrap();
        trim(&mut alert["rule"]["groups"]);
        format!("{alert}\n")
    });
    std::fs::write(&trimmed_alerts, trimmed.collect::<String>()).unwrap();
    let mut oracle = Command::new("python3");
    oracle.arg(corpus("oracle.py").unwrap()).arg(&trimmed_policies).arg(&trimmed_alerts).args(["--groups", "exact"]);
    let output = oracle.output().expect("python3 is needed to run the corpus' oracle: apt-get install python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), answers.len());
    for (line, fired) in said.lines().zip(&answers) {
        let said: Value = serde_json::from_str(line).unwrap();
        let mut policies: Vec<String> = serde_json::from_value(said["policies"].clone()).unwrap();
        policies.sort();
        assert_eq!(fired, &policies, "{line}");
    }
}

/// The source of an alert, from the fields that the rules of the library use: its text and its address.
fn source(alert: &Value) -> Option<(String, IpAddr)> {
    let fields = ["/data/srcip", "/data/src_ip", "/data/win/eventdata/ipAddress"];
    let mut texts = fields.iter().filter_map(|field| alert.pointer(field)?.as_str());
    texts.find_map(|text| Some((text.to_owned(), text.parse::<IpAddr>().ok()?.to_canonical())))
}

fn is_public(address: IpAddr) -> bool {
    let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
    !private.map(|network| network.parse::<ipnet::IpNet>().unwrap()).iter().any(|network| network.contains(&address))
}

/// Each policy of the library judges each alert, as it is and from a public source: it fires exactly at the rules that
/// it names. The sample has no alert of the rules whose policies have more conditions.
#[test]
fn the_library_answers_exactly_the_rules_of_the_corpus_that_it_names() {
    let Some(path) = corpus("alerts-sample.ndjson") else { return };
    let mut alerts: Vec<Value> = lines(&path).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let conditional = ["86601", "87702", "87105", "550", "554"];
    assert!(!alerts.iter().any(|alert| conditional.contains(&alert["rule"]["id"].as_str().unwrap())));
    let moved = |alert: &Value| Some(at_address(alert, &source(alert)?.0, "203.0.113.9"));
    let public: Vec<Value> = alerts.iter().filter_map(moved).collect();
    assert!(public.len() > 300, "only {} alerts have a source", public.len());
    alerts.extend(public);
    let library = library();
    let mut fired: BTreeMap<String, usize> = BTreeMap::new();
    for alert in &alerts {
        let (raw, rule) = (alert.to_string(), alert["rule"]["id"].as_str().unwrap());
        let parsed = formats::parse(&raw, &AlertMappings::default(), None).unwrap();
        let seen = Seen::new(&parsed, &raw, &|| None);
        let is_from_outside = source(alert).is_some_and(|(_, address)| is_public(address));
        for (name, policy) in &library {
            let fires = policy.selectors.iter().any(|selector| holds(selector, &seen));
            assert_eq!(fires, rules(policy).contains(&rule) && is_from_outside, "{name}: {raw}");
            if fires {
                *fired.entry(name.clone()).or_default() += 1;
            }
        }
    }
    let expected = [
        ("ftp-bruteforce", 3),
        ("mail-bruteforce", 7),
        ("malicious-address", 12),
        ("missed-passwords", 1),
        ("ssh-bruteforce", 17),
        ("ssh-scan", 2),
        ("web-attacks", 1),
        ("web-error-scan", 4),
        ("web-exploit-probes", 19),
        ("web-login-bruteforce", 2),
        ("windows-malicious-address", 4),
    ];
    assert_eq!(fired, expected.map(|(name, count)| (name.to_owned(), count)).into());
}

// -------------------------------------------------------------------------------------------------
// Broken and hostile bodies

/// One broken or hostile body.
#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    why: String,
    /// The expected outcome.
    expect: String,
    /// Other allowed outcomes.
    also_ok: Vec<String>,
    /// Whether the expectation is certain, not a judgement call.
    firm: bool,
    /// The field that must not become a target, or null for none.
    target: Option<String>,
    /// The raw body in base64.
    body: String,
}

const ACCEPT: &str = "accept";
const REJECT: &str = "reject-400";
const NOT_EXECUTE: &str = "accept-but-must-not-execute";

impl Case {
    fn allows(&self, outcome: &str) -> bool {
        self.expect == outcome || self.also_ok.iter().any(|word| word == outcome)
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

async fn count(db: &Db, sql: &'static str) -> i64 {
    db.optional::<Count>(sql, vec![]).await.unwrap().unwrap().count
}

/// A manager whose policies drop the source and lock the account of every alert of rule 5763, with
/// one agent.
async fn armed(database: Database) -> (TestApp, Client, Db) {
    let (app, admin) = TestApp::start_on(database).await;
    app.enrol(&admin, "bastion-01", &json!({"wazuh_id": "005"})).await;
    for (name, action, target) in
        [("drop", "firewall-drop", "source.ip"), ("lock", "disable-account", "destination.user")]
    {
        let respond = json!({"action": action, "target": target, "on": "origin", "for": "10m"});
        admin.policy(&json!({"name": name, "match": [{"rule_ids": ["5763"]}], "respond": respond})).await;
    }
    let db = app.db().await;
    (app, admin, db)
}

/// Returns the outcome of one case, and its faults. Cleans up, so that no case depends on another.
async fn outcome(admin: &Client, db: &Db, case: &Case) -> (&'static str, Vec<String>) {
    let mut wrong = Vec::new();
    let media_type = if case.why.contains("NDJSON") { NDJSON } else { JSON };
    let answer = admin.alerts(media_type, STANDARD.decode(&case.body).unwrap()).await;
    let alerts = count(db, "SELECT COUNT(*) AS count FROM alerts").await;
    let drops = count(db, "SELECT COUNT(*) AS count FROM commands WHERE action = 'firewall-drop'").await;
    let locks = count(db, "SELECT COUNT(*) AS count FROM commands WHERE action = 'disable-account'").await;
    let others = count(db, "SELECT COUNT(*) AS count FROM responses").await;
    let outcome = match answer.status {
        400..=499 => {
            answer.is_problem(answer.status);
            if (alerts, others) != (0, 0) {
                wrong.push("refused, and something was stored".into());
            }
            REJECT
        }
        202 => {
            let (accepted, rejected) =
                (&answer.is(202)["accepted"], answer.is(202)["rejected"].as_array().unwrap().len());
            // An empty batch may be accepted; a valid alert must be stored afterwards.
            if accepted.as_i64() != Some(alerts) || (alerts == 0 && case.expect != REJECT) {
                wrong.push(format!("{accepted} accepted, {rejected} rejected, {alerts} stored"));
            }
            let executed = match case.target.as_deref() {
                Some("srcip") => drops,
                Some("dstuser") => locks,
                _ => drops + locks,
            };
            if executed == 0 { NOT_EXECUTE } else { ACCEPT }
        }
        other => {
            wrong.push(format!("answered {other}: {}", answer.text));
            "error"
        }
    };
    for sql in [
        "DELETE FROM alerts",
        "DELETE FROM responses",
        "DELETE FROM holds",
        "DELETE FROM effects",
        "DELETE FROM commands",
    ] {
        let mut tx = db.begin().await.unwrap();
        tx.execute(sql, vec![]).await.unwrap();
        tx.commit().await.unwrap();
    }
    (outcome, wrong)
}

/// Every case gets an allowed outcome; an accepted case that may execute may also execute nothing.
async fn every_case_is_handled(path: &Path, database: Database) -> Vec<Case> {
    let (_app, admin, db) = armed(database).await;
    let cases: Vec<Case> = lines(path).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut complaints, mut executed, mut refused, mut spared) = (Vec::new(), 0, 0, 0);
    for case in &cases {
        let (outcome, mut wrong) = outcome(&admin, &db, case).await;
        match outcome {
            ACCEPT => executed += 1,
            REJECT => refused += 1,
            _ => spared += 1,
        }
        // Where "accept" is expected, an alert of another rule, or without a target, is accepted
        // and executes nothing.
        let allowed = case.allows(outcome) || (outcome == NOT_EXECUTE && case.allows(ACCEPT));
        if !allowed {
            wrong.push(format!("became {outcome}"));
        }
        let Case { id, why, expect, also_ok, firm, .. } = case;
        complaints.extend(
            wrong.into_iter().map(|wrong| format!("{id} ({why}): {wrong}; {expect} or {also_ok:?}, firm: {firm}")),
        );
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    // The policies did fire where they should: otherwise the check above could not fail.
    assert!(executed > 0 && refused > 0 && spared > 0, "{executed} executed, {refused} refused, {spared} spared");
    let plain = cases.iter().find(|case| case.why.starts_with("control: a plain alert")).unwrap();
    assert_eq!(outcome(&admin, &db, plain).await.0, ACCEPT);
    cases
}

on_both_databases! {
    async fn every_broken_or_hostile_body_of_the_reduced_set_gets_its_expected_outcome(database: Database) {
        every_case_is_handled(&ours("malformed.ndjson"), database).await;
    }

    async fn every_broken_or_hostile_body_of_the_corpus_gets_its_expected_outcome(database: Database) {
        let Some(path) = corpus("malformed.ndjson") else { return };
        let cases = every_case_is_handled(&path, database).await;
        assert_eq!((cases.len(), cases.iter().filter(|case| case.firm).count()), (313, 208));
    }
}
