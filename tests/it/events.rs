//! The feed of events: every change once, in the order of the commits, to those who may see it.

use std::collections::BTreeSet;

use riposte::domain::audit::AuditEvent;
use riposte::domain::event::EventType;
use riposte_protocol::message::Outcome;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, Follower, TestApp, Told};

/// Types of events that are no entry of the audit log.
const LOOSE: [EventType; 12] = [
    EventType::EffectActive,
    EventType::EffectLifted,
    EventType::AgentConnected,
    EventType::AgentAway,
    EventType::NodeStarted,
    EventType::NodeStopped,
    EventType::WebhookFailing,
    EventType::WebhookRecovered,
    EventType::WebhookGaveUp,
    EventType::WebhookMissed,
    EventType::IncidentForwarderSilent,
    EventType::IncidentForwarderBack,
];

/// A service key with a scope.
async fn scoped(admin: &Client, scope: &Value) -> Client {
    let asked = json!({"name": "scoped", "role": "analyst", "scope": scope});
    admin.with_key(admin.post("/v1/api-keys", &asked).await.is(201)["key"].as_str().unwrap())
}

/// Types and subjects of the events that the audit log demands, in its order.
async fn demanded(admin: &Client) -> Vec<(String, String)> {
    let mut entries = admin.list("/v1/audit").await;
    entries.reverse();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let of = |entry: &Value| {
        let (noun, verb, id) = (text(entry, "noun"), text(entry, "verb"), text(entry, "noun_id"));
        let kinds = EventType::of(AuditEvent::parse(&noun, &verb).unwrap());
        kinds.iter().map(|kind| (kind.as_str().to_owned(), format!("{noun}/{id}"))).collect::<Vec<_>>()
    };
    entries.iter().flat_map(of).collect()
}

/// Types and subjects of these events, without those that are no entry of the audit log.
fn said<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<(String, String)> {
    let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
    let all = events
        .into_iter()
        .map(|event| (text(event, "type").strip_prefix("riposte.").unwrap().to_owned(), text(event, "subject")));
    all.filter(|(kind, _)| !LOOSE.iter().any(|loose| loose.as_str() == kind)).collect()
}

fn kinds(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.event.as_str()).collect()
}

/// Posts an alert that fires, and lets the agent of it block the address.
async fn block(admin: &Client, agent: &crate::support::FakeAgent, id: &str, source: &str) -> Value {
    let intake = admin.post("/v1/alerts", &brute_force(id, source)).await.is(202);
    agent.answer(Outcome::Succeeded, Some(true)).await;
    intake
}

on_both_databases! {
    async fn every_entry_is_an_event_once_and_in_commit_order(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let mut follower = Follower::open(&admin, "?after=0", None).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let mut waits = drop_policy("waits");
        waits["mode"] = json!("approve");
        waits["approval"] = json!({"quorum": 1, "within": "1h"});
        waits["match"] = json!([{"rule_ids": ["5712"]}]);
        admin.policy(&waits).await;
        let mut writers = JoinSet::new();
        for writer in 0..4_u8 {
            let admin = admin.clone();
            writers.spawn(async move {
                for number in 0..12_u8 {
                    let id = format!("{writer}.{number}");
                    match number % 3 {
                        0 => {
                            let entry = json!({"kind": "ip", "value": format!("198.51.{writer}.{number}"), "reason": "x"});
                            admin.post("/v1/protected", &entry).await.is(201);
                        }
                        1 => drop(admin.policy(&drop_policy(&format!("p-{writer}-{number}"))).await),
                        _ => {
                            let alert = brute_force(&id, &format!("203.0.{writer}.{number}"));
                            admin.post("/v1/alerts", &alert).await.is(202);
                        }
                    }
                }
            });
        }
        writers.join_all().await;
        agent.obey().await;
        let mut alert = brute_force("waits", "203.0.113.99");
        alert["rule"]["id"] = json!("5712");
        admin.post("/v1/alerts", &alert).await.is(202);
        let waiting = admin.list("/v1/responses?state=awaiting_approval").await;
        let person = app.person(&admin, "alice", "analyst").await;
        let id = waiting[0]["id"].as_str().unwrap();
        person.post(&format!("/v1/responses/{id}/reject"), &json!({"reason": "no"})).await.is(200);
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "stop"}), None).await.is(200);

        let told = follower.up_to(|told| told.event == "freeze.on").await;
        let numbers: Vec<i64> = told.iter().map(|told| told.id).collect();
        assert_eq!(numbers, (1..=i64::try_from(told.len()).unwrap()).collect::<Vec<_>>(), "without a gap");
        let demanded = demanded(&admin).await;
        assert_eq!(said(told.iter().map(|told| &told.data)), demanded);
        assert!(demanded.len() > 100, "{}", demanded.len());
        let listed = admin.list("/v1/events?follow=false").await;
        // The list may be longer by now, and knows the name of an agent that has just enrolled.
        let nameless = |mut event: Value| {
            event["data"].as_object_mut().unwrap().remove("agent");
            event
        };
        let listed: Vec<Value> = listed.into_iter().take(told.len()).map(nameless).collect();
        assert_eq!(listed, told.iter().map(|told| nameless(told.data.clone())).collect::<Vec<_>>());
        let active = told.iter().filter(|told| told.event == "effect.active").count();
        assert_eq!(active, admin.list("/v1/effects?actual=in_force").await.len());
        for kind in ["approval.requested", "approval.answered", "response.rejected", "response.submitted"] {
            assert!(told.iter().any(|told| told.event == kind), "{kind}");
        }
        for told in &told {
            assert_eq!(told.data["id"], told.id.to_string());
            assert_eq!(told.data["type"], format!("riposte.{}", told.event));
        }
    }

    async fn a_follower_goes_on_where_it_was_also_after_a_restart(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let mut follower = Follower::open(&admin, "", None).await;
        admin.policy(&drop_policy("one")).await;
        let told = follower.next().await.unwrap();
        assert_eq!(told.event, "policy.created");
        drop(follower);
        admin.policy(&drop_policy("two")).await;
        let (_app, admin) = app.restart().await;
        admin.policy(&drop_policy("three")).await;
        let mut follower = Follower::open(&admin, "", Some(told.id)).await;
        let missed = follower.up_to(|told| told.data["subject"] == "policy/three").await;
        assert_eq!(kinds(&missed), ["policy.created", "node.stopped", "node.started", "policy.created"]);
        assert_eq!(missed.iter().map(|told| told.id - missed[0].id).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(missed[0].id, told.id + 1);
        // A stream that loses its connection before the first event has a number all the same.
        let quiet = Follower::open(&admin, "?type=breaker.*", None).await;
        assert_eq!(quiet.last, missed[3].id);
    }

    async fn followers_choose_types_policies_agents_and_targets(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let mut live = Follower::open(&admin, "?type=effect.*,response.ended&target=203.0.113.2", None).await;
        block(&admin, &agent, "1", "203.0.113.1").await;
        block(&admin, &agent, "2", "203.0.113.2").await;
        app.advance(601);
        app.in_time("both are reverted", async || {
            agent.obey().await;
            let gone = admin.list("/v1/effects?actual=absent").await.len() == 2;
            gone.then_some(())
        })
        .await;
        let told = live.up_to(|told| told.event == "effect.lifted").await;
        assert_eq!(kinds(&told), ["effect.active", "response.ended", "effect.lifted"]);

        let list = async |query: &str| {
            let events = admin.list(&format!("/v1/events?follow=false&{query}")).await;
            let kind = |event: &Value| event["type"].as_str().unwrap().trim_start_matches("riposte.").to_owned();
            events.iter().map(kind).collect::<Vec<_>>()
        };
        let own = ["response.created", "effect.active", "response.ended", "effect.lifted"];
        assert_eq!(list("target=203.0.113.2").await, own);
        assert_eq!(list("target=203.0.113.2&type=riposte.response.*").await, ["response.created", "response.ended"]);
        assert_eq!(list("policy=drop&type=response.*").await.len(), 4);
        assert_eq!(list("policy=other").await, Vec::<String>::new());
        let (by_name, by_id) = (list("agent=web-01").await, list(&format!("agent={}", agent.id)).await);
        assert_eq!((&by_name, by_name[0].as_str()), (&by_id, "agent.enrolled"));
        assert_eq!(by_name.iter().filter(|kind| !kind.starts_with("agent.")).count(), 8, "{by_name:?}");
        assert_eq!(list("agent=00000000-0000-0000-0000-000000000001").await, Vec::<String>::new());
    }

    async fn a_scope_hides_events_from_streams_and_lists(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let dev = app.enrol(&admin, "dev-01", &json!({"wazuh_id": "001", "env": "dev"})).await;
        let prod = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
        let by_agent = scoped(&admin, &json!({"agents": {"labels": {"env": ["dev"]}}})).await;
        let by_policy = scoped(&admin, &json!({"policies": ["team-*"]})).await;
        let mut agents = Follower::open(&by_agent, "?after=0", None).await;
        let mut policies = Follower::open(&by_policy, "?after=0", None).await;
        admin.policy(&drop_policy("drop")).await;
        let mut team = drop_policy("team-a");
        team["match"] = json!([{"rule_ids": ["5712"]}]);
        admin.policy(&team).await;
        block(&admin, &prod, "1", "203.0.113.1").await;
        let mut alert = brute_force("2", "203.0.113.2");
        alert["agent"] = json!({"id": "001", "name": "dev-01"});
        admin.post("/v1/alerts", &alert).await.is(202);
        dev.answer(Outcome::Succeeded, Some(true)).await;
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "stop"}), None).await.is(200);
        admin.post("/v1/protected", &json!({"kind": "ip", "value": "198.51.100.1", "reason": "x"})).await.is(201);

        let own = |told: &Told| told.data["data"]["agent_id"] == dev.id.to_string();
        let told = agents.what_is_there().await;
        assert!(told.iter().filter(|told| own(told)).count() >= 3, "{:?}", kinds(&told));
        for told in &told {
            let is_response = told.event.starts_with("response.") && told.data["data"]["target_value"] == "203.0.113.2";
            assert!(own(told) || is_response || told.event.starts_with("policy."), "{}", told.text);
        }
        let everything = format!("{told:?}");
        assert!(!everything.contains("203.0.113.1\"") && !everything.contains(&prod.id.to_string()), "{everything}");
        let listed = by_agent.list("/v1/events?follow=false").await;
        assert_eq!(listed, told.iter().map(|told| told.data.clone()).collect::<Vec<_>>());

        let told = policies.what_is_there().await;
        let of: BTreeSet<String> = told.iter().map(|told| told.data["data"]["policy"].to_string()).collect();
        assert_eq!(of, ["\"team-a\"", "null"].map(str::to_owned).into(), "{told:?}");
        assert!(kinds(&told).iter().all(|kind| !kind.starts_with("freeze.") && !kind.starts_with("protected.")));
        // What a caller cannot see it cannot ask for by name either.
        assert_eq!(by_agent.get("/v1/events?follow=false&agent=web-01").await.points_at(), ["/agent"]);
    }

    async fn a_stream_ends_when_its_caller_may_no_longer_read_as_before(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let key = admin.post("/v1/api-keys", &json!({"name": "k", "role": "viewer"})).await.is(201);
        let service = admin.with_key(key["key"].as_str().unwrap());
        let session = app.session(&admin, "alice", "analyst").await;
        let narrowed = app.session(&admin, "bob", "analyst").await;
        let mut streams = vec![];
        for client in [&service, &session, &narrowed, &admin] {
            streams.push(Follower::open(client, "?type=policy.*", None).await);
        }
        admin.delete(&format!("/v1/api-keys/{}", key["id"].as_str().unwrap()), None).await.is(204);
        session.delete("/v1/auth/token", None).await.is(204);
        let scope = json!({"scope": {"policies": ["team-*"]}});
        admin.patch("/v1/users/bob", &scope, "\"1\"").await.is(200);
        let mut own = streams.pop().unwrap();
        for mut stream in streams {
            let last = stream.next_of_any_kind().await.unwrap();
            assert!(last.text.contains("connect again"), "{}", last.text);
            assert!(stream.next_of_any_kind().await.is_none());
        }
        admin.policy(&drop_policy("drop")).await;
        assert_eq!(own.next().await.unwrap().event, "policy.created");
        admin.with_key(service.key()).get("/v1/events").await.is_problem(401);
        app.client_with_role(&admin, "ingest").await.get("/v1/events").await.is_problem(403);
    }

    async fn agents_that_come_and_go_are_told_of_once(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        let mut follower = Follower::open(&admin, "?type=agent.connected,agent.away", None).await;
        let stream = agent.stream(0).await;
        let next = async |follower: &mut Follower, app: &TestApp| {
            let told = async { follower.next().await.unwrap() };
            let clock = async {
                loop {
                    app.advance(5);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            tokio::select! { told = told => told, () = clock => unreachable!("it runs for ever") }
        };
        let told = next(&mut follower, &app).await;
        assert_eq!((told.event.as_str(), &told.data["data"]["agent"]), ("agent.connected", &json!("web-01")));
        // It comes back after a restart, which nothing tells of; then it goes for good.
        drop(stream);
        let (app, admin) = app.restart().await;
        let agent = agent.moved_to(&app);
        let mut follower = Follower::open(&admin, "?type=agent.connected,agent.away", Some(told.id)).await;
        let stream = agent.stream(0).await;
        for _ in 0..30 {
            app.advance(5);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(kinds(&follower.what_is_there().await), Vec::<&str>::new());
        drop(stream);
        let told = next(&mut follower, &app).await;
        assert_eq!((told.event.as_str(), &told.data["subject"]), ("agent.away", &json!(format!("agent/{}", agent.id))));
    }
}

#[tokio::test]
async fn a_message_is_a_cloud_event() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        config.server.public_url = "https://riposte.example.org".into();
    })
    .await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    admin.policy(&drop_policy("drop")).await;
    let mut follower = Follower::open(&admin, "", None).await;
    block(&admin, &agent, "1", "203.0.113.7").await;
    let told = follower.up_to(|told| told.event == "effect.active").await;
    let mut text = told.iter().map(|told| told.text.as_str()).collect::<Vec<_>>().join("\n\n");
    let response = told[0].data["data"]["response_id"].as_str().unwrap().to_owned();
    let alert = told[0].data["data"]["alert_id"].as_str().unwrap().to_owned();
    let effect = told[1].data["data"]["effect_id"].as_str().unwrap().to_owned();
    for (id, name) in [(response, "RESPONSE"), (alert, "ALERT"), (effect, "EFFECT"), (agent.id.to_string(), "AGENT")] {
        text = text.replace(&id, name);
    }
    insta::assert_snapshot!(text);
    // Schemas of the standard: these attributes must be there, and have these forms.
    for told in &told {
        for attribute in ["specversion", "id", "source", "type", "subject", "time", "datacontenttype"] {
            assert!(told.data[attribute].as_str().is_some_and(|text| !text.is_empty()), "{attribute}: {}", told.text);
        }
        assert_eq!(told.data["specversion"], "1.0");
    }
}

#[tokio::test]
async fn lists_are_paged_and_faults_are_named() {
    let (_app, admin) = TestApp::start().await;
    for name in ["one", "two", "three"] {
        admin.policy(&drop_policy(name)).await;
    }
    let page = admin.get("/v1/events?follow=false&type=policy.*&limit=2").await;
    let items = page.is(200);
    assert_eq!(items["items"].as_array().unwrap().len(), 2);
    let next = page.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    let rest = admin.get(&next).await.is(200);
    assert_eq!(rest["items"][0]["subject"], "policy/three");
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    let json = admin.request(reqwest::Method::GET, "/v1/events").header("accept", "application/json");
    let json = crate::support::Answer::to(json).await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.is(200)["items"][0]["type"], "riposte.audit.signing_key_adopted");
    let last = rest["items"][0]["id"].as_str().unwrap();
    assert_eq!(admin.get(&format!("/v1/events?follow=false&after={last}")).await.is(200)["items"], json!([]));

    for (query, pointers) in [
        ("type=response.create", vec!["/type"]),
        ("type=*.created", vec!["/type"]),
        ("agent=nowhere", vec!["/agent"]),
        ("after=-1", vec!["/after"]),
        ("limit=3", vec!["/limit"]),
        ("follow=true&limit=3&cursor=1", vec!["/limit", "/cursor"]),
        ("follow=false&cursor=x", vec!["/cursor"]),
        ("follow=false&limit=501", vec!["/limit"]),
    ] {
        assert_eq!(admin.get(&format!("/v1/events?{query}")).await.points_at(), pointers, "{query}");
    }
    let near = admin.get("/v1/events?type=response.create").await.text;
    assert!(near.contains("response.created"), "{near}");
    let unknown = admin.get("/v1/events?kind=response.created").await.is_problem(400);
    assert!(unknown["detail"].as_str().unwrap().contains("kind"), "{unknown}");
    let wrong = admin.request(reqwest::Method::GET, "/v1/events").header("last-event-id", "x1");
    crate::support::Answer::to(wrong).await.is_problem(400);
}

#[test]
fn the_page_about_events_lists_every_type_in_the_words_of_the_code() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md")).unwrap();
    let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| `") && line.contains('.')).collect();
    let rows = documented
        .iter()
        .filter(|line| EventType::ALL.iter().any(|kind| line.contains(&format!("| `{}` |", kind.as_str()))));
    let code: Vec<String> =
        EventType::ALL.iter().map(|kind| format!("| `{}` | {} |", kind.as_str(), kind.meaning())).collect();
    assert_eq!(rows.copied().collect::<Vec<_>>(), code);
}
