//! Several managers on one PostgreSQL: what is answered by one holds on all, agents are served by
//! whichever they talk to, and a manager that stops holds up no other. Real managers, a real
//! PostgreSQL, agents that speak the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{FromAgent, ToAgent};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;
use uuid::Uuid;

use crate::processes::{
    Api, FakeAgent, Heard, Manager, PATIENCE, Stream, alert, eventually, require, signal, succeeded, text,
};
use crate::support::Database;
use crate::support::receiver::{Mood, Receiver};

/// Well above what a hint takes on a busy machine, and below the shortest time between two looks at the ledger.
const HINTED: Duration = Duration::from_millis(900);
/// Longest time between two looks at the ledger, and a margin.
const LOOKED: Duration = Duration::from_secs(4);

/// Two managers on one database.
struct Pair {
    database: Database,
    one: Manager,
    other: Manager,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(flags: &[&str]) -> Self {
        let database = Database::postgresql().await;
        let url = database.url();
        let flags: Vec<&str> = ["--database-url", &url].into_iter().chain(flags.iter().copied()).collect();
        let one = Manager::start_with(&flags).await;
        let other = one.start_copy().await;
        // Each knows of the other after its next look.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Self { database, one, other }
    }

    fn apis(&self) -> [Api; 2] {
        [self.one.api(), self.other.api()]
    }
}

/// Orders a block by hand.
async fn block(api: &Api, agent: &FakeAgent, address: &str) -> String {
    let order = json!({"action": "firewall-drop", "target": address,
        "agents": [agent.id], "for": "10m", "reason": "a test"});
    text(&api.post("/v1/responses", &order).await, "id").to_owned()
}

/// A request to freeze or to thaw.
fn freeze(api: &Api, frozen: bool, reason: &str) -> reqwest::RequestBuilder {
    api.request(Method::PUT, "/v1/freeze").json(&json!({"frozen": frozen, "reason": reason}))
}

/// The next commands that arrive, whatever else does.
async fn commands(stream: &mut Stream<'_>, patience: Duration) -> Vec<Command> {
    let agent = stream.agent;
    let deadline = Instant::now() + patience;
    while let Some(heard) = stream.hear_within(deadline.saturating_duration_since(Instant::now())).await {
        match heard {
            Heard::Message(ToAgent::Commands { commands }) => return agent.open(&commands),
            Heard::Message(_) => {}
            other => panic!("the stream has ended: {other:?}"),
        }
    }
    Vec::new()
}

async fn next_op(stream: &mut Stream<'_>, patience: Duration) -> Option<Op> {
    commands(stream, patience).await.first().map(|command| command.op)
}

#[tokio::test]
async fn promise_9_a_command_ordered_at_one_manager_arrives_at_an_agent_of_the_other() {
    let pair = Pair::start().await;
    let [one, _] = pair.apis();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await.at(&pair.other);
    let mut stream = agent.connect(0).await;
    let (mut hinted, rounds) = (0, 6);
    for round in 0..rounds {
        let begun = Instant::now();
        let response = block(&one, &agent, &format!("203.0.113.{round}")).await;
        let commands = commands(&mut stream, LOOKED).await;
        assert_eq!(commands.len(), 1, "round {round}: the look is the guarantee");
        hinted += u32::from(begun.elapsed() < HINTED);
        stream.say(&FromAgent::Ack { command_ids: vec![commands[0].jti] }).await;
        stream.say(&FromAgent::Result { results: vec![succeeded(commands[0].jti)] }).await;
        // Lifted at the manager to which the agent does not talk.
        let begun = Instant::now();
        one.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "a test"})).await;
        assert_eq!(next_op(&mut stream, LOOKED).await, Some(Op::Revert));
        hinted += u32::from(begun.elapsed() < HINTED);
    }
    assert!(hinted > rounds, "hints arrive: {hinted} of {}", 2 * rounds);
    let shown = one.get(&format!("/v1/agents/{}", agent.id)).await;
    assert_eq!(shown["presence"], "streaming", "also where it is not connected: {shown}");
}

/// For poolers and relatives of PostgreSQL without `LISTEN`.
#[tokio::test]
async fn promise_9_without_hints_a_look_finds_what_is_new() {
    let pair = Pair::start_with(&["--peer-hints", "false"]).await;
    let [one, other] = pair.apis();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await.at(&pair.other);
    let mut stream = agent.connect(0).await;
    block(&one, &agent, "203.0.113.7").await;
    assert_eq!(next_op(&mut stream, LOOKED).await, Some(Op::Apply));
    // Changes of configuration are in force everywhere when they are answered all the same.
    let key = one.post("/v1/api-keys", &json!({"name": "passing", "role": "viewer"})).await;
    assert_eq!(other.with_key(text(&key, "key")).status(Method::GET, "/v1/policies").await, StatusCode::OK);
}

#[tokio::test]
async fn promise_6_what_one_manager_has_answered_is_in_force_on_the_other() {
    let pair = Pair::start().await;
    let apis = pair.apis();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await.at(&pair.other);
    let mut stream = agent.connect(0).await;
    for round in 0..6_u64 {
        let (here, there) = (&apis[usize::from(round % 2 == 1)], &apis[usize::from(round % 2 == 0)]);
        // A policy.
        let name = format!("block-{round}");
        let policy = json!({"name": name, "mode": "enforce", "match": [{"rule_ids": ["5763"]}],
            "respond": {"action": "firewall-drop", "target": "source.ip", "on": "origin", "for": "10m"}});
        here.post("/v1/policies", &policy).await;
        let source = format!("198.51.100.{round}");
        let taken = there.post("/v1/alerts", &alert(round * 10, &source, "web-01")).await;
        assert_eq!(taken["responses"].as_array().map(Vec::len), Some(1), "round {round}: the policy decides: {taken}");
        assert_eq!(next_op(&mut stream, LOOKED).await, Some(Op::Apply));
        // A protected entry: the effect is lifted, and an alert spares it.
        here.post("/v1/protected", &json!({"kind": "ip", "value": source, "reason": "a test"})).await;
        let taken = there.post("/v1/alerts", &alert(round * 10 + 1, &source, "web-01")).await;
        let spared = there.response(taken["responses"][0].as_str().unwrap()).await;
        assert_eq!(spared["state"], "spared", "{spared}");
        assert_eq!(next_op(&mut stream, LOOKED).await, Some(Op::Revert));
        let deleted = here.request(Method::DELETE, &format!("/v1/policies/{name}")).header("if-match", "\"1\"");
        assert_eq!(deleted.send().await.unwrap().status(), StatusCode::NO_CONTENT);
        let taken = there.post("/v1/alerts", &alert(round * 10 + 2, "198.51.100.99", "web-01")).await;
        assert_eq!(taken["responses"].as_array().map_or(0, Vec::len), 0, "round {round}: it is deleted: {taken}");
        // A key.
        let key = here.post("/v1/api-keys", &json!({"name": format!("k{round}"), "role": "viewer"})).await;
        let caller = there.with_key(text(&key, "key"));
        assert_eq!(caller.status(Method::GET, "/v1/policies").await, StatusCode::OK);
        assert_eq!(
            here.status(Method::DELETE, &format!("/v1/api-keys/{}", text(&key, "id"))).await,
            StatusCode::NO_CONTENT
        );
        assert_eq!(caller.status(Method::GET, "/v1/policies").await, StatusCode::UNAUTHORIZED, "round {round}");
    }
    // The freeze: nothing is delivered after its answer.
    let [one, other] = &apis;
    assert_eq!(freeze(one, true, "a test").send().await.unwrap().status(), StatusCode::OK);
    block(one, &agent, "203.0.113.50").await;
    block(other, &agent, "203.0.113.51").await;
    assert_eq!(next_op(&mut stream, Duration::from_secs(3)).await, None, "frozen");
    assert_eq!(freeze(one, false, "a test").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(next_op(&mut stream, LOOKED).await, Some(Op::Apply), "thawed at the one, delivered by the other");
    // A revoked agent.
    assert_eq!(one.status(Method::DELETE, &format!("/v1/agents/{}", agent.id)).await, StatusCode::NO_CONTENT);
    assert!(agent.try_connect().await.is_err(), "revoked everywhere");
    one.audit_is_intact().await;
}

#[tokio::test]
async fn promise_7_a_limit_holds_for_all_managers_together() {
    let pair = Pair::start().await;
    let apis = pair.apis();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await;
    let policy = json!({"name": "few", "mode": "enforce", "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "firewall-drop", "target": "source.ip", "on": "origin", "for": "10m"},
        "limits": {"responses": "7/10m", "over_limit": "drop"}});
    apis[0].post("/v1/policies", &policy).await;
    let posts = (0..160_u64).map(|number| {
        let alert = alert(number, &format!("198.51.100.{number}"), "web-01");
        let api = &apis[usize::from(number % 2 == 0)];
        async move { api.post("/v1/alerts", &alert).await }
    });
    join_all(posts).await;
    let active = apis[1].get("/v1/responses?state=active&limit=200").await;
    assert_eq!(active["items"].as_array().unwrap().len(), 7);
    drop(agent);
    apis[0].audit_is_intact().await;
}

#[tokio::test]
async fn promise_3_the_newest_stream_of_an_agent_counts_on_whichever_manager() {
    let pair = Pair::start().await;
    let [one, other] = pair.apis();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await;
    let mut older = agent.connect(0).await;
    block(&one, &agent, "203.0.113.7").await;
    let command = commands(&mut older, PATIENCE).await.remove(0);
    let moved = agent.at(&pair.other);
    let mut newer = moved.connect(0).await;
    // It may not have been told to close yet: the transaction refuses it.
    let result = FromAgent::Result { results: vec![succeeded(command.jti)] };
    let _ = older.try_say(&result).await;
    loop {
        match older.hear_within(PATIENCE).await {
            Some(Heard::Closed(_) | Heard::Broken(_)) => break,
            Some(Heard::Message(ToAgent::ResultAck { .. })) => panic!("a result by an older stream was believed"),
            Some(_) => {}
            None => panic!("the older stream stays open"),
        }
    }
    let stored = other.command(&command.jti.to_string()).await;
    assert_ne!(stored["state"], "succeeded", "{stored}");
    newer.say(&result).await;
    other.command_is(&command.jti.to_string(), "succeeded").await;
}

#[tokio::test]
async fn promise_3_one_identity_on_two_hosts_is_seen_across_managers() {
    let pair = Pair::start().await;
    let [one, _] = pair.apis();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await;
    let copy = agent.at(&pair.other);
    let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
    let poll = |run: Uuid| json!({"cursor": 0, "run": run, "wait_seconds": 0});
    // A restart is no copy, nor is a late message of the former run.
    for (agent, run) in [(&agent, first), (&copy, second), (&agent, first), (&copy, second)] {
        agent.poll(poll(run)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = one.get(&format!("/v1/agents/{}", agent.id)).await;
    assert_eq!(shown["incident"], Value::Null, "{shown}");
    for (agent, run) in [(&agent, first), (&copy, second), (&agent, first)] {
        let _ = agent.exchange(&poll(run)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the copy is seen", PATIENCE, async || {
        let shown = one.get(&format!("/v1/agents/{}", agent.id)).await;
        (shown["incident"] != Value::Null).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_manager_with_another_signing_key_does_not_start_beside_the_others() {
    let database = Database::postgresql().await;
    let first = Manager::start_with(&["--database-url", &database.url()]).await;
    let dir = TempDir::new().unwrap();
    let said = crate::nodes::refused(&dir.path().join("data"), &database.url()).await;
    assert!(said.contains("signing.key"), "{said}");
    assert_eq!(first.api().status(Method::GET, "/v1/policies").await, StatusCode::OK);
    // A rotation would leave the other without the new key.
    let second = first.start_copy().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = first.api().request(Method::POST, "/v1/signing-key/rotation").json(&json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let said = refused.text().await.unwrap();
    assert!(said.contains(&format!("process {}", second.child.id())) && said.contains("copy signing.key"), "{said}");
    let listed = first.api().get("/v1/nodes").await;
    let listed = listed["items"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().all(|node| node["state"] == "serving" && node["changes_behind"] == 0), "{listed:?}");
    assert_eq!((&listed[0]["asked"], &listed[1]["asked"]), (&json!(true), &json!(false)));
    assert_eq!(listed[0]["duties"].as_array().map(Vec::len), Some(4), "it started first: {listed:?}");
    let (shown, said) = first.command(&["node", "list"]);
    assert!(shown && said.contains("(asked)") && said.contains(&second.address.to_string()), "{said}");
}

/// Stopped in the middle of a transaction, with the head of the audit chain in its hands.
#[tokio::test]
async fn promise_14_a_manager_that_stands_still_holds_up_no_other() {
    let pair = Pair::start().await;
    let [one, other] = pair.apis();
    let mut watcher = sqlx::PgConnection::connect(&pair.database.url()).await.unwrap();
    let mut holds_head = async || {
        let sql = "SELECT COUNT(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE relation = 'audit_head'::regclass AND mode = 'RowExclusiveLock' AND state LIKE 'idle in transaction%'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut watcher).await.unwrap() > 0
    };
    let mut is_caught = false;
    for attempt in 0..200_u64 {
        let posts = (0..8_u64).map(|nth| {
            let asked = freeze(&one, true, &format!("{attempt} {nth}")).timeout(Duration::from_millis(40));
            async move { drop(asked.send().await) }
        });
        let ((), _) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(2 + attempt % 17)).await;
                signal(&pair.one.child, "STOP");
            },
            join_all(posts)
        );
        if holds_head().await {
            is_caught = true;
            break;
        }
        signal(&pair.one.child, "CONT");
    }
    assert!(is_caught, "it was never stopped within a transaction");
    let begun = Instant::now();
    eventually("the other goes on", Duration::from_secs(12), async || {
        let asked = freeze(&other, true, "stop").send().await.unwrap();
        assert!([200, 503].contains(&asked.status().as_u16()), "{asked:?}");
        (asked.status() == StatusCode::OK).then_some(())
    })
    .await;
    // The transaction is ended after 5 s, and a lease lasts as long.
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    signal(&pair.one.child, "CONT");
    eventually("it serves again", PATIENCE, async || {
        let shown = one.request(Method::GET, "/v1/freeze").send().await.unwrap();
        (shown.status() == StatusCode::OK && shown.text().await.unwrap().contains("stop")).then_some(())
    })
    .await;
    other.audit_is_intact().await;
}

/// Whichever manager has the duty dies with it; the next one undoes on time.
#[tokio::test]
async fn promise_5_an_undo_is_on_time_when_the_manager_that_owes_it_is_killed() {
    let mut pair = Pair::start().await;
    let other = pair.other.api();
    let agent = FakeAgent::enroll(&pair.one, "web-01").await.at(&pair.other);
    let mut stream = agent.connect(0).await;
    let order = json!({"action": "firewall-drop", "target": "203.0.113.7",
        "agents": [agent.id], "for": "8s", "reason": "a test"});
    other.post("/v1/responses", &order).await;
    let begun = Instant::now();
    let command = commands(&mut stream, PATIENCE).await.remove(0);
    stream.say(&FromAgent::Ack { command_ids: vec![command.jti] }).await;
    stream.say(&FromAgent::Result { results: vec![succeeded(command.jti)] }).await;
    // It started first, so it has the duties.
    pair.one.kill9();
    assert_eq!(next_op(&mut stream, PATIENCE).await, Some(Op::Revert));
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    other.audit_is_intact().await;
}

/// One manager sends to webhooks. When it dies, the next one goes on: a message comes once, or twice with one id, never not at all.
#[tokio::test]
async fn a_webhook_misses_no_event_when_the_manager_that_sends_is_killed() {
    const ROUNDS: usize = 40;
    let mut pair = Pair::start_with(&["--egress-allow", "127.0.0.0/8"]).await;
    let [one, other] = pair.apis();
    let receiver = Receiver::start(Mood::Answers(200)).await;
    let asked = json!({"name": "a", "url": receiver.url("/"), "settings": {"types": ["protected.created"]}});
    other.post("/v1/webhooks", &asked).await;
    for round in 0..ROUNDS {
        // It started first, so it has the duty.
        if round == ROUNDS / 2 {
            eventually("it sends", PATIENCE, async || (receiver.taken().len() > 3).then_some(())).await;
            pair.one.kill9();
        }
        let api = if round < ROUNDS / 2 && round % 2 == 0 { &one } else { &other };
        api.post("/v1/protected", &json!({"kind": "user", "value": format!("user{round}"), "reason": "a test"})).await;
    }
    let events = other.get("/v1/events?follow=false&type=protected.created&limit=500").await;
    let expected: BTreeSet<&str> =
        events["items"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(expected.len(), ROUNDS);
    eventually("every event was taken", PATIENCE, async || {
        let taken = receiver.taken();
        let numbers: BTreeSet<String> = taken.iter().map(|message| text(&message.json(), "id").to_owned()).collect();
        expected.iter().all(|number| numbers.contains(*number)).then_some(())
    })
    .await;
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in receiver.taken() {
        ids.entry(text(&message.json(), "id").to_owned()).or_default().insert(message.header("webhook-id").to_owned());
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "one id for each event: {ids:?}");
    assert!(receiver.taken().len() < 2 * ROUNDS, "{} messages of {ROUNDS} events", receiver.taken().len());
}

#[tokio::test]
async fn promise_11_a_manager_whose_clock_is_off_says_so_and_takes_no_duties() {
    require(&[("faketime", "faketime")]);
    let database = Database::postgresql().await;
    let first = Manager::start_with(&["--database-url", &database.url()]).await;
    // faketime starts it as a child of its own, which has to end with it too.
    let fast = first.start_copy_in(&["faketime", "-f", "+10m", "setpriv", "--pdeathsig", "SIGKILL", "--"]).await;
    let shown = async || first.api().get("/v1/nodes").await["items"].as_array().unwrap().clone();
    let off = eventually("its clock is compared", PATIENCE, async || {
        let nodes = shown().await;
        nodes.iter().find(|node| node["clock_off_millis"].as_i64().is_some_and(|off| off > 500_000)).cloned()
    })
    .await;
    assert_eq!(off["asked"], false);
    assert!(fast.log().contains("apart from the database's"), "{}", fast.log());
    drop(first);
    // The duties of the first one are free now, and stay so.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut watcher = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let sql = "SELECT COUNT(*) FROM duties JOIN nodes ON nodes.id = duties.owner WHERE nodes.clock_off > 5000";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut watcher).await.unwrap(), 0);
    let (status, said, _) = fast.ask("/readyz").await;
    assert!(status == StatusCode::OK || said.contains("clock"), "{status}: {said}");
}
