//! `CrowdSec`'s API for bouncers, as its bouncers were recorded to use it.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::feeds::{block, key_of, lift, with_agent};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Answer, Client, Database, TestApp};

/// Asks as a bouncer does, below `/crowdsec`.
async fn ask(app: &TestApp, key: &str, method: Method, path: &str) -> Answer {
    let request = Client::anonymous(&app.base).request(method, &format!("/crowdsec/v1/{path}"));
    let request = request.header("x-api-key", key).header("user-agent", "crowdsec-firewall-bouncer/-");
    Answer::to(request).await
}

async fn decisions(app: &TestApp, key: &str, path: &str) -> Value {
    let answer = ask(app, key, Method::GET, path).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.is(200)
}

/// The values of a list, with what is left of each.
fn values(list: &Value) -> BTreeMap<String, String> {
    let text = |decision: &Value, field: &str| decision[field].as_str().unwrap().to_owned();
    list.as_array().into_iter().flatten().map(|one| (text(one, "value"), text(one, "duration"))).collect()
}

fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(value, left)| ((*value).to_owned(), (*left).to_owned())).collect()
}

async fn with_bouncer(database: Database, more: &Value) -> (TestApp, Client, crate::support::FakeAgent, String) {
    let (app, admin, agent) = with_agent(database).await;
    let mut feed = json!({"name": "bouncers", "form": "crowdsec"});
    feed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    admin.post("/v1/feeds", &feed).await.is(201);
    let key = key_of(&admin, "bouncer-1", "bouncers").await;
    (app, admin, agent, key)
}

/// Sends recorded requests one after the other on one connection; returns the status and the body of each answer.
async fn replay(app: &TestApp, key: &str, recorded: &str) -> Vec<(String, Value)> {
    let address = app.base.trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(&address).await.unwrap();
    let mut answers = Vec::new();
    for request in recorded.split_inclusive("\n\n") {
        let request = request.replace("MANAGER", &address).replace("KEY", key).replace('\n', "\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            connection.read_exact(&mut byte).await.unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.unwrap();
        assert!(head.contains("content-type: application/json\r\n") && !head.contains("content-encoding"), "{head}");
        answers.push((head.lines().next().unwrap().to_owned(), serde_json::from_slice(&body).unwrap()));
    }
    answers
}

const START: &str = "decisions/stream?startup=true";
/// The bare question mark is what a bouncer sends.
const NEXT: &str = "decisions/stream?";

on_both_databases! {
    async fn a_bouncer_gets_everything_and_then_what_changed(database: Database) {
        let (app, admin, agent, key) = with_bouncer(database, &json!({})).await;
        let nothing = decisions(&app, &key, START).await;
        assert_eq!(nothing, json!({"new": null, "deleted": null}));
        let first = block(&admin, "203.0.113.7", &json!({"for": "4h"})).await;
        let told = decisions(&app, &key, NEXT).await;
        assert_eq!(values(&told["new"]), of(&[("203.0.113.7", "4h0m0s")]));
        let decision = &told["new"][0];
        let fields = ["origin", "scenario", "scope", "type"].map(|field| decision[field].as_str().unwrap());
        assert_eq!(fields, ["riposte", "riposte/by-hand", "Ip", "ban"]);
        assert!(decision["id"].as_i64().unwrap() > 0);
        agent.obey().await;
        // Told twice, with what is left now; then not again.
        app.advance(2);
        let again = decisions(&app, &key, NEXT).await;
        assert_eq!(values(&again["new"]), of(&[("203.0.113.7", "3h59m58s")]));
        assert_eq!(decisions(&app, &key, NEXT).await, nothing);
        // An extension is deleted and new in one answer: a set would keep the earlier end.
        block(&admin, "203.0.113.7", &json!({"for": "8h"})).await;
        let extended = decisions(&app, &key, NEXT).await;
        assert_eq!(values(&extended["deleted"]), of(&[("203.0.113.7", "-1s")]));
        assert_eq!(values(&extended["new"]), of(&[("203.0.113.7", "8h0m0s")]));
        decisions(&app, &key, NEXT).await;
        // The shorter hold ends: nothing changes. The longer one ends: it is deleted.
        lift(&admin, &first).await;
        agent.obey().await;
        assert_eq!(decisions(&app, &key, NEXT).await, nothing);
        let all = json!({"target": "203.0.113.7", "reason": "over", "count": 1});
        admin.post("/v1/responses/lift", &all).await.is(200);
        let gone = decisions(&app, &key, NEXT).await;
        assert_eq!((values(&gone["deleted"]), &gone["new"]), (of(&[("203.0.113.7", "-1s")]), &Value::Null));
        // An end by time.
        block(&admin, "203.0.113.8", &json!({"for": "1m"})).await;
        decisions(&app, &key, NEXT).await;
        app.advance(61);
        let over = decisions(&app, &key, NEXT).await;
        assert_eq!((values(&over["deleted"]).contains_key("203.0.113.8"), &over["new"]), (true, &Value::Null));
    }

    async fn recorded_requests_of_real_bouncers_are_answered_as_they_were(database: Database) {
        let (app, admin, _agent, key) = with_bouncer(database, &json!({})).await;
        block(&admin, "203.0.113.7", &json!({"for": "4h"})).await;
        for recorded in [
            include_str!("../data/bouncers/crowdsec-firewall-bouncer.txt"),
            include_str!("../data/bouncers/crowdsec-custom-bouncer.txt"),
        ] {
            let answers = replay(&app, &key, recorded).await;
            assert_eq!(answers.len(), 2);
            assert!(answers.iter().all(|(status, _)| status == "http/1.1 200 ok"), "{answers:?}");
            let start = &answers[0].1;
            assert_eq!((values(&start["new"]), &start["deleted"]), (of(&[("203.0.113.7", "4h0m0s")]), &Value::Null));
            assert_eq!(answers[1].1, json!({"new": null, "deleted": null}));
        }
    }

    async fn a_bouncer_that_starts_twice_is_told_of_removals_all_the_same(database: Database) {
        let (app, admin, agent, key) = with_bouncer(database, &json!({})).await;
        let first = block(&admin, "203.0.113.1", &json!({})).await;
        agent.obey().await;
        decisions(&app, &key, START).await;
        decisions(&app, &key, NEXT).await;
        lift(&admin, &first).await;
        // Its set survives both starts, and neither answer names a removal. A look at the list tells it nothing.
        decisions(&app, &key, START).await;
        decisions(&app, &key, START).await;
        Client::anonymous(&app.base).with_key(&key).get("/feeds/bouncers").await.is(200);
        let told = decisions(&app, &key, NEXT).await;
        assert_eq!(values(&told["deleted"]), of(&[("203.0.113.1", "-1s")]), "{told}");
    }

    async fn a_lost_answer_or_a_restart_loses_no_change(database: Database) {
        let (app, admin, agent, key) = with_bouncer(database, &json!({})).await;
        let kept = block(&admin, "203.0.113.1", &json!({})).await;
        agent.obey().await;
        decisions(&app, &key, START).await;
        block(&admin, "203.0.113.2", &json!({})).await;
        lift(&admin, &kept).await;
        let lost = decisions(&app, &key, NEXT).await;
        let expected = (of(&[("203.0.113.1", "-1s"), ("203.0.113.2", "-1s")]), vec!["203.0.113.2".to_owned()]);
        let told = |answer: &Value| (values(&answer["deleted"]), values(&answer["new"]).into_keys().collect::<Vec<_>>());
        assert_eq!(told(&lost), expected);
        // A HEAD takes nothing away, and neither does a question about one address.
        ask(&app, &key, Method::HEAD, NEXT).await;
        decisions(&app, &key, "decisions?ip=203.0.113.2").await;
        assert_eq!(told(&decisions(&app, &key, NEXT).await), expected, "the answer before may have been lost");
        // What changes while the manager is away is told after its restart, and so is what was told last.
        block(&admin, "203.0.113.3", &json!({})).await;
        let (app, admin) = app.restart().await;
        let told_after = decisions(&app, &key, NEXT).await;
        assert!(values(&told_after["new"]).contains_key("203.0.113.3"), "{told_after}");
        let everything = json!({"everything": true, "count": 2, "reason": "over"});
        admin.post("/v1/responses/lift", &everything).await.is(200);
        let (app, _admin) = app.restart().await;
        let gone = decisions(&app, &key, NEXT).await;
        assert!(["203.0.113.2", "203.0.113.3"].iter().all(|value| values(&gone["deleted"]).contains_key(*value)), "{gone}");
        assert_eq!(gone["new"], Value::Null);
        // A bouncer that starts gets what is in force, and no deletions.
        assert_eq!(decisions(&app, &key, START).await, json!({"new": null, "deleted": null}));
    }

    async fn a_bouncer_that_is_not_known_any_more_is_told_everything(database: Database) {
        let (app, admin, agent, key) = with_bouncer(database, &json!({})).await;
        let gone = block(&admin, "203.0.113.1", &json!({})).await;
        block(&admin, "203.0.113.2", &json!({})).await;
        agent.obey().await;
        decisions(&app, &key, START).await;
        lift(&admin, &gone).await;
        decisions(&app, &key, NEXT).await;
        // Another key: no start was seen of it.
        let other = key_of(&admin, "bouncer-2", "bouncers").await;
        let told = decisions(&app, &other, NEXT).await;
        let expected = of(&[("203.0.113.1", "-1s"), ("203.0.113.2", "-1s")]);
        assert_eq!((values(&told["deleted"]), values(&told["new"]).len()), (expected, 1));
    }

    async fn filters_networks_and_questions_about_one_address(database: Database) {
        let (app, admin, _agent, key) = with_bouncer(database, &json!({})).await;
        let wide = json!({"name": "wide", "form": "crowdsec", "networks": true});
        admin.post("/v1/feeds", &wide).await.is(201);
        let wide = key_of(&admin, "custom", "wide").await;
        block(&admin, "203.0.113.7", &json!({})).await;
        let mut policy = drop_policy("net-ssh");
        policy["respond"]["network"] = json!({"v4": 24});
        admin.policy(&policy).await;
        admin.post("/v1/alerts", &brute_force("1", "198.51.100.9")).await.is(202);
        assert_eq!(decisions(&app, &key, "decisions").await.as_array().unwrap().len(), 1, "plain addresses only");
        let both = decisions(&app, &wide, START).await;
        let scopes: Vec<&str> = both["new"].as_array().unwrap().iter().map(|one| one["scope"].as_str().unwrap()).collect();
        assert_eq!(scopes, ["Range", "Ip"]);
        for (path, count) in [
            ("decisions?ip=203.0.113.7", 1),
            ("decisions?ip=198.51.100.9&type=ban", 1),
            ("decisions?ip=192.0.2.1", 0),
            ("decisions?scope=Ip&value=203.0.113.7", 1),
            ("decisions?scopes=range", 1),
            ("decisions?range=203.0.113.0/24", 1),
            ("decisions?type=captcha", 0),
            ("decisions?origins=crowdsec,cscli", 0),
            ("decisions?unknown=x", 2),
        ] {
            let found = decisions(&app, &wide, path).await;
            assert_eq!(found.as_array().map_or(0, Vec::len), count, "{path}: {found}");
            assert_eq!(found.is_null(), count == 0, "{path}: null when there are none");
        }
        let of_the_stream = |filter: &str| format!("decisions/stream?{filter}&startup=true");
        for (filter, count) in [
            ("origins=riposte&scenarios_containing=hand,ssh&scenarios_not_containing=http", 2),
            ("scenarios_containing=ssh", 1),
            ("scenarios_containing=http", 0),
            ("scenarios_not_containing=hand", 1),
            ("scopes=Ip", 1),
        ] {
            let found = decisions(&app, &wide, &of_the_stream(filter)).await;
            assert_eq!(found["new"].as_array().map_or(0, Vec::len), count, "{filter}: {found}");
        }
    }

    async fn faults_have_crowdsecs_form_and_metrics_are_kept_within_bounds(database: Database) {
        let (app, admin, _agent, key) = with_bouncer(database, &json!({"max_entries": 1})).await;
        let viewer = app.client_with_role(&admin, "viewer").await;
        for wrong in ["", "x", viewer.key(), admin.key()] {
            let refused = ask(&app, wrong, Method::GET, START).await.is_crowdsec_error(403);
            assert!(refused["message"].as_str().unwrap().starts_with("access forbidden"), "{refused}");
        }
        admin.post("/v1/feeds", &json!({"name": "plain"})).await.is(201);
        let plain = key_of(&admin, "fw", "plain").await;
        let refused = ask(&app, &plain, Method::GET, START).await.is_crowdsec_error(403);
        assert!(refused["message"].as_str().unwrap().contains("has the form plain"), "{refused}");
        let none = key_of(&admin, "fw-2", "gone").await;
        ask(&app, &none, Method::GET, START).await.is_crowdsec_error(403);
        for path in ["decisions?ip=x", "decisions?range=1.2.3", "decisions?ip=%00"] {
            ask(&app, &key, Method::GET, path).await.is_crowdsec_error(400);
        }
        ask(&app, &key, Method::GET, "nothing").await.is_crowdsec_error(404);
        ask(&app, &key, Method::DELETE, "decisions").await.is_crowdsec_error(405);
        let report = async |key: &str, body: &Value| {
            let request = admin.request(Method::POST, "/crowdsec/v1/usage-metrics").header("x-api-key", key).json(body);
            Answer::to(request).await
        };
        report(&key, &json!({"remediation_components": [{"type": "crowdsec-firewall-bouncer"}]})).await.is(201);
        report(&key, &json!({"remediation_components": [{"version": "2"}]})).await.is(201);
        report(&key, &json!(["x"])).await.is_crowdsec_error(400);
        report(&key, &json!({"x": "y".repeat(70_000)})).await.is_crowdsec_error(413);
        report("x", &json!({})).await.is_crowdsec_error(403);
        let shown = admin.get("/v1/feeds/bouncers").await.is(200);
        let consumer = &shown["consumers"][0];
        assert_eq!(consumer["metrics"], json!({"remediation_components": [{"version": "2"}]}), "{shown}");
        assert_eq!(consumer["last_at"], Value::Null, "it has not fetched");
        // Over the maximum: an error, never a shorter list.
        block(&admin, "203.0.113.1", &json!({})).await;
        decisions(&app, &key, START).await;
        block(&admin, "203.0.113.2", &json!({})).await;
        let refused = ask(&app, &key, Method::GET, NEXT).await.is_crowdsec_error(503);
        assert!(refused["message"].as_str().unwrap().contains("has 2 entries and may hold 1"), "{refused}");
    }
}
