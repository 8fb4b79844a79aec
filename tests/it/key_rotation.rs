//! The signing key rotates while agents work: the old key introduces the new one, each agent is
//! ordered with a key that it has confirmed, and the old key ends when all have.

use std::collections::BTreeSet;

use riposte_protocol::command;
use riposte_protocol::jws::Unverified;
use riposte_protocol::key::VerifyingKey;
use riposte_protocol::key_statement::{KeyStatement, KeyTrust, StatementError};
use riposte_protocol::message::{FromAgent, PollRequest, PollResponse, ToAgent};
use serde_json::{Value, json};

use crate::processes::{self, Agent, Manager, PATIENCE, eventually};
use crate::support::agent::{enrollment, new_key};
use crate::support::alert::{brute_force, drop_policy, from_agent};
use crate::support::{Client, Database, FakeAgent, TestApp};

const ROTATION: &str = "/v1/signing-key/rotation";

async fn kid(admin: &Client) -> String {
    admin.get("/v1/signing-key").await.is(200)["kid"].as_str().unwrap().to_owned()
}

/// One poll of an agent that has accepted statement `keys`.
async fn poll(agent: &FakeAgent, keys: u64) -> PollResponse {
    agent.poll(&PollRequest { keys: Some(keys), max: 64, ..PollRequest::default() }).await
}

fn signers(answer: &PollResponse) -> BTreeSet<String> {
    let kid = |token: &String| Unverified::parse(token, command::TYP, false).unwrap().header.kid.unwrap();
    answer.commands.iter().map(kid).collect()
}

fn trusted(keys: &[riposte_protocol::command::ManagerKey]) -> Vec<(String, VerifyingKey)> {
    keys.iter().map(|key| (key.kid.clone(), VerifyingKey::parse(&key.public_key).unwrap())).collect()
}

/// Opens a statement as an agent without a recovery key does.
fn open(token: &str, keys: &[(String, VerifyingKey)], number: u64) -> Result<KeyStatement, StatementError> {
    KeyStatement::open(token, &KeyTrust { keys, number, recovery: None, revocations: 0 })
}

async fn orders(admin: &Client, names: &[&str], target: &str) {
    for name in names {
        admin
            .post("/v1/alerts", &from_agent(brute_force(&format!("{target}-{name}"), target), "005", name))
            .await
            .is(202);
    }
}

fn waiting(rotation: &Value) -> Vec<&str> {
    rotation["waiting"].as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap()).collect()
}

on_both_databases! {
    async fn a_rotation_ends_by_itself_once_every_agent_has_confirmed_the_new_key(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let one = app.enrol(&admin, "web-01", &json!({})).await;
        let two = app.enrol(&admin, "web-02", &json!({})).await;
        admin.policy(&drop_policy("drop")).await;
        let old = kid(&admin).await;
        let started = admin.post(ROTATION, &json!({})).await.is(201);
        let new = started["rotation"]["kid"].as_str().unwrap().to_owned();
        assert_eq!((started["kid"].as_str().unwrap(), waiting(&started["rotation"])), (old.as_str(), vec!["web-01", "web-02"]));
        admin.post(ROTATION, &json!({})).await.is_problem(409);
        let refused = admin.post(&format!("{ROTATION}/finish"), &json!({})).await.is_problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("web-01, web-02"), "{refused}");

        // The old key introduces the new one, and signs for agents that have not confirmed it.
        orders(&admin, &["web-01", "web-02"], "203.0.113.7").await;
        let told = poll(&one, 0).await;
        assert_eq!((told.key_statements.len(), signers(&told)), (1, BTreeSet::from([old.clone()])));
        let statement = open(&told.key_statements[0], one.pinned(), 0).unwrap();
        assert_eq!(statement.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), [&old, &new]);
        assert_eq!(signers(&poll(&one, 1).await), BTreeSet::from([new.clone()]));
        assert_eq!(signers(&poll(&two, 0).await), BTreeSet::from([old.clone()]));
        let status = admin.get("/v1/signing-key").await.is(200);
        assert_eq!((waiting(&status["rotation"]), &status["rotation"]["confirmed"]), (vec!["web-02"], &json!(1)));

        // A restart in between forgets nothing; the agents say again what they have.
        let (app, admin) = app.restart().await;
        let (one, two) = (one.moved_to(&app), two.moved_to(&app));
        assert_eq!(kid(&admin).await, old);
        assert_eq!(signers(&poll(&one, 1).await), BTreeSet::from([new.clone()]));
        poll(&two, 1).await;
        app.in_time("the rotation ends", || async {
            let view = admin.get("/v1/signing-key").await.is(200);
            (view["kid"] == new.as_str() && view["rotation"].is_null()).then_some(())
        })
        .await;

        // Agents drop the old key by a statement of the new one.
        let told = poll(&two, 1).await;
        let end = open(&told.key_statements[0], &trusted(&statement.keys[1..]), 1).unwrap();
        assert_eq!((end.number, end.keys.len(), &end.keys[0].kid), (2, 1, &new));
        assert!(poll(&two, 2).await.key_statements.is_empty());
        // Written after the end of the rotation is committed.
        app.in_time("the old key is gone", || async {
            let file = std::fs::read_to_string(app.data_dir().join("signing.key")).unwrap();
            (file.lines().filter(|line| !line.starts_with("ledger ")).count() == 1).then_some(())
        })
        .await;

        // An agent that enrols now pins the new key, and needs no statement.
        let token = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
        let asked = enrollment(token["token"].as_str().unwrap(), "web-03", &new_key());
        let enrolled = admin.post("/v1/agents/enroll", &serde_json::to_value(asked).unwrap()).await.is(201);
        assert_eq!((&enrolled["key_number"], &enrolled["manager_keys"][0]["kid"]), (&json!(2), &json!(new)));
        let (_app, admin) = app.restart().await;
        assert_eq!(kid(&admin).await, new);
        let audit = admin.list("/v1/audit?noun=signing_key").await;
        let verbs: Vec<&str> = audit.iter().map(|entry| entry["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, ["adopted", "rotation_started", "adopted"]);
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    async fn an_agent_that_was_away_for_the_whole_rotation_learns_the_key_before_it_gets_commands(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let away = app.enrol(&admin, "web-01", &json!({})).await;
        let old_version = app.enrol(&admin, "web-02", &json!({})).await;
        admin.policy(&drop_policy("drop")).await;
        let old = kid(&admin).await;
        admin.post(ROTATION, &json!({})).await.is(201);
        // An agent of an old version ignores what it does not know, and is listed.
        old_version.poll(&PollRequest::default()).await;
        let status = admin.get("/v1/signing-key").await.is(200);
        let reason = status["rotation"]["waiting"][1]["reason"].as_str().unwrap();
        assert!(reason.contains("update riposte-agent"), "{status}");
        let finished = admin.post(&format!("{ROTATION}/finish"), &json!({"force": true})).await.is(200);
        assert_eq!(finished["left_behind_count"], 2, "{finished}");
        let new = kid(&admin).await;
        assert_ne!(new, old);

        orders(&admin, &["web-01"], "203.0.113.7").await;
        let first = poll(&away, 0).await;
        assert_eq!((first.key_statements.len(), first.commands.len()), (2, 0), "it could not verify them yet");
        let one = open(&first.key_statements[0], away.pinned(), 0).unwrap();
        let two = open(&first.key_statements[1], &trusted(&one.keys), 1).unwrap();
        assert_eq!(two.keys[0].kid, new);
        assert_eq!(signers(&poll(&away, 2).await), BTreeSet::from([new.clone()]));
        // By stream, after a restart: the commands follow the confirmation.
        let (app, admin) = app.restart().await;
        let away = away.moved_to(&app);
        let mut stream = away.stream_with_keys(0, Some(0)).await;
        let statements = loop {
            match stream.hear().await.unwrap() {
                ToAgent::Keys { statements } => break statements,
                ToAgent::Settings { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(statements, first.key_statements);
        stream.say(&FromAgent::Keys { number: 2 }).await;
        let ToAgent::Commands { commands } = stream.hear().await.unwrap() else { panic!("no commands") };
        assert_eq!(Unverified::parse(&commands[0], command::TYP, false).unwrap().header.kid, Some(new));
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    async fn a_cancelled_rotation_leaves_the_old_key_and_a_second_one_works(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        let old = kid(&admin).await;
        admin.delete(ROTATION, None).await.is_problem(409);
        admin.post(&format!("{ROTATION}/finish"), &json!({"force": true})).await.is_problem(409);
        admin.post(ROTATION, &json!({})).await.is(201);
        poll(&agent, 1).await;
        admin.delete(ROTATION, None).await.is(204);
        let told = poll(&agent, 1).await;
        let back = open(&told.key_statements[0], agent.pinned(), 1).unwrap();
        assert_eq!(back.keys.iter().map(|key| &key.kid).collect::<Vec<_>>(), [&old]);
        let (app, admin) = app.restart().await;
        let agent = agent.moved_to(&app);
        assert_eq!(kid(&admin).await, old);
        let second = admin.post(ROTATION, &json!({})).await.is(201);
        poll(&agent, 3).await;
        app.in_time("the rotation ends", || async { (kid(&admin).await != old).then_some(()) }).await;
        assert_eq!(kid(&admin).await, second["rotation"]["kid"].as_str().unwrap());
    }

    async fn sessions_and_the_key_set_go_over_with_an_overlap(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let alice = app.session(&admin, "alice", "viewer").await;
        let keys = async |admin: &Client| -> BTreeSet<String> {
            let set = admin.get("/.well-known/jwks.json").await.is(200);
            set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
        };
        let before = keys(&admin).await;
        admin.post(ROTATION, &json!({})).await.is(201);
        let during = keys(&admin).await;
        assert!(during.is_superset(&before) && during.len() == 2 * before.len(), "{during:?}");
        admin.post(&format!("{ROTATION}/finish"), &json!({"force": true})).await.is(200);
        assert_eq!(keys(&admin).await, during, "the old ones still verify");
        alice.get("/v1/whoami").await.is(200);
        let bob = app.session(&admin, "bob", "viewer").await;
        bob.get("/v1/whoami").await.is(200);
        app.advance(16 * 60);
        alice.get("/v1/whoami").await.is_problem(401);
    }
}

/// Every step of a rotation, with the manager and the agents killed at each: by stream and by poll,
/// and commands before, during and after it.
#[tokio::test]
async fn promise_8_a_rotation_survives_killed_managers_and_agents_with_nothing_lost() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agents = Vec::new();
    for (name, flags) in [("web-01", vec!["--transport", "stream"]), ("web-02", vec!["--transport", "poll"])] {
        let mut agent = Agent::enroll(&api.base, &api.make_token().await, name);
        agent.run(&flags);
        agents.push(agent);
    }
    let mut number = 0;
    let mut acted = async |manager: &Manager| {
        let api = manager.api();
        for name in ["web-01", "web-02"] {
            number += 1;
            let alert = processes::alert(number, &format!("203.0.113.{number}"), name);
            let (_, command) = api.answer_to(&alert).await;
            api.command_is(processes::text(&command, "id"), "succeeded").await;
        }
    };
    acted(&manager).await;
    let file = manager.data_dir().join("signing.key");
    let old = std::fs::read_to_string(&file).unwrap();
    let old_kid = api.get("/v1/signing-key").await["kid"].clone();

    // Started and killed at once; the agents are killed while they learn.
    agents.iter_mut().for_each(Agent::kill9);
    let (is_ok, said) = manager.command(&["signing-key", "rotate"]);
    assert!(is_ok && said.contains("Waiting for web-01: it is away"), "{said}");
    manager.start_again().await;
    let (is_ok, said) = manager.command(&["signing-key", "status"]);
    assert!(is_ok && said.contains("0 agents have confirmed, 2 have not"), "{said}");
    for agent in &mut agents {
        agent.run_again();
        eventually("the agent learns the key", PATIENCE, async || {
            (agent.identity()["key_number"].as_u64() >= Some(1)).then_some(())
        })
        .await;
        agent.run_again();
    }
    manager.start_again().await;
    acted(&manager).await;
    let api = manager.api();
    let ended = |view: &Value| (view["rotation"].is_null() && view["kid"] != old_kid).then_some(());
    eventually("the rotation ends", PATIENCE, || async { ended(&api.get("/v1/signing-key").await) }).await;
    manager.start_again().await;
    // Killed between the commit and the file: the old key is still there, and is taken out.
    let new = std::fs::read_to_string(&file).unwrap();
    assert_ne!(old, new);
    manager.kill9();
    std::fs::write(&file, format!("{old}{new}")).unwrap();
    manager.start_again().await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), new);
    for agent in &mut agents {
        eventually("the agent drops the old key", PATIENCE, async || {
            (agent.identity()["key_number"] == 2).then_some(())
        })
        .await;
        assert_eq!(agent.identity()["manager_keys"].as_array().unwrap().len(), 1);
        agent.run_again();
    }
    acted(&manager).await;
    let agents = manager.api().get("/v1/agents").await;
    assert!(agents["items"].as_array().unwrap().iter().all(|agent| agent["rejecting"].is_null()), "{agents}");
    manager.api().audit_is_intact().await;
}

/// A thief has the signing key, and has given the agents another one, under the highest number.
#[tokio::test]
async fn the_recovery_key_revokes_a_stolen_signing_key_and_no_other_key_does() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agents = [Agent::start(&manager, "web-01").await, Agent::start(&manager, "web-02").await];
    let folder = tempfile::tempdir().unwrap();
    let (recovery, other) = (folder.path().join("recovery"), folder.path().join("other"));
    let (is_ok, said) = manager.command(&["signing-key", "revoke", "--recovery-key-file", recovery.to_str().unwrap()]);
    assert!(!is_ok && said.contains("cannot read"), "{said}");
    let (is_ok, said) = manager.command(&["signing-key", "recovery-key", "--out", recovery.to_str().unwrap()]);
    assert!(is_ok, "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&recovery).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (is_ok, said) = manager.command(&["signing-key", "recovery-key", "--out", other.to_str().unwrap()]);
    assert!(!is_ok && said.contains("there is a recovery key already"), "{said}");
    for agent in &agents {
        eventually("the agent learns the recovery key", PATIENCE, async || {
            agent.identity()["recovery_key"].is_string().then_some(())
        })
        .await;
    }
    // One that enrols now learns it too.
    let third = Agent::start(&manager, "web-03").await;
    eventually("the new agent learns the recovery key", PATIENCE, async || {
        third.identity()["recovery_key"].is_string().then_some(())
    })
    .await;

    // What the thief did to one agent, while the other was away.
    let stolen = api.get("/v1/signing-key").await["kid"].clone();
    agents.iter_mut().for_each(Agent::kill9);
    let thief = new_key().verifying_key();
    let mut identity = agents[0].identity();
    identity["manager_keys"] = json!([{"kid": "thief", "public_key": thief.text()}]);
    identity["key_number"] = json!(u64::MAX);
    agents[0].set_identity(&identity);
    let (is_ok, said) = manager.command(&["signing-key", "revoke", "--recovery-key-file", other.to_str().unwrap()]);
    assert!(!is_ok && said.contains("is not the recovery key"), "{said}");
    let (is_ok, said) = manager.command(&["signing-key", "revoke", "--recovery-key-file", recovery.to_str().unwrap()]);
    assert!(is_ok && said.contains("revoked"), "{said}");
    manager.start_again().await;
    let api = manager.api();
    let now = api.get("/v1/signing-key").await;
    assert!(now["kid"] != stolen && now["recovery_key"].is_string(), "{now}");
    let file = std::fs::read_to_string(manager.data_dir().join("signing.key")).unwrap();
    assert_eq!(file.lines().filter(|line| !line.starts_with("ledger ")).count(), 1, "the stolen key is gone");
    agents.iter_mut().for_each(Agent::run_again);
    for (number, name) in (1..).zip(["web-01", "web-02", "web-03"]) {
        let (_, command) = api.answer_to(&processes::alert(number, &format!("203.0.113.{number}"), name)).await;
        api.command_is(processes::text(&command, "id"), "succeeded").await;
    }
    for agent in &agents {
        let keys = agent.identity()["manager_keys"].clone();
        assert_eq!((keys.as_array().unwrap().len(), &keys[0]["kid"]), (1, &now["kid"]));
    }
    // An agent that enrols after it, and a rotation after it.
    let fourth = Agent::start(&manager, "web-04").await;
    let (is_ok, said) = manager.command(&["signing-key", "rotate"]);
    assert!(is_ok, "{said}");
    eventually("the rotation ends", PATIENCE, || async {
        (api.get("/v1/signing-key").await["kid"] != now["kid"]).then_some(())
    })
    .await;
    assert!(fourth.identity()["recovery_key"].is_string());
    let audit = api.get("/v1/audit?noun=signing_key&limit=50").await;
    let verbs: BTreeSet<&str> =
        audit["items"].as_array().unwrap().iter().map(|entry| processes::text(entry, "verb")).collect();
    assert!(verbs.is_superset(&BTreeSet::from(["recovery_key_set", "revoked"])), "{audit}");
    api.audit_is_intact().await;
}
