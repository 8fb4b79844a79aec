//! Agents replace their own keys: a request that both keys sign, the new key alone from then on, and an
//! incident where the old one is used afterwards.

use reqwest::Method;
use riposte_protocol::identity;
use riposte_protocol::key::SigningKey;
use riposte_protocol::key_change::{KeyChange, KeyChangeRequest};
use riposte_protocol::message::{PollRequest, ToAgent};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

use crate::processes::{self, Agent, Manager, PATIENCE, eventually};
use crate::support::agent::new_key;
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

/// The change that both keys sign.
fn change(app: &TestApp, agent: &FakeAgent, new: &SigningKey) -> KeyChangeRequest {
    let claims = KeyChange::new(agent.id, &agent.key.verifying_key(), &new.verifying_key(), app.clock.now());
    claims.sign(&agent.key, new).unwrap()
}

/// Asks for it, with a token that `speaker` signs.
async fn ask(app: &TestApp, agent: &FakeAgent, speaker: &SigningKey, asked: &KeyChangeRequest) -> Answer {
    let token = identity::issue(speaker, agent.id, Uuid::now_v7(), app.clock.now(), Duration::from_mins(5)).unwrap();
    Answer::to(Client::anonymous(&app.base).with_key(&token).request(Method::POST, "/v1/agent/key").json(asked)).await
}

async fn polls(agent: &FakeAgent) -> Answer {
    agent.exchange(&agent.token(), &PollRequest::default()).await
}

async fn shown(admin: &Client, agent: &FakeAgent) -> Value {
    admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200)
}

async fn verbs(admin: &Client) -> Vec<String> {
    let audit = admin.list("/v1/audit?noun=agent").await;
    // The newest entry comes first.
    audit
        .iter()
        .rev()
        .map(|entry| entry["verb"].as_str().unwrap().to_owned())
        .filter(|verb| verb.contains("key"))
        .collect()
}

on_both_databases! {
    async fn a_changed_key_is_the_only_one_that_counts_and_a_lost_answer_is_repeated(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let mut agent = app.enrol(&admin, "web-01", &json!({})).await;
        let enrolled = shown(&admin, &agent).await;
        assert_eq!(enrolled["key_since"], enrolled["enrolled_at"]);
        let mut stream = agent.stream(0).await;
        assert!(matches!(stream.hear().await, Some(ToAgent::Settings { .. })));
        app.advance(60);
        let new = new_key();
        let asked = change(&app, &agent, &new);
        let done = ask(&app, &agent, &agent.key, &asked).await.is(200);
        // What the old key opened is over, and it opens nothing more.
        stream.hear_the_end().await;
        polls(&agent).await.is_problem(401);
        ask(&app, &agent, &agent.key, &asked).await.is_problem(401);
        // The answer was lost: the agent asks again with its new key.
        app.advance(60);
        assert_eq!(ask(&app, &agent, &new, &asked).await.is(200), done);
        let old = std::mem::replace(&mut agent.key, new);
        polls(&agent).await.is(200);
        let after = shown(&admin, &agent).await;
        assert_eq!((&after["key_since"], &after["public_key"]), (&done["key_since"], &json!(agent.key.verifying_key().text())));
        assert_ne!(after["key_since"], enrolled["key_since"]);
        assert_eq!(verbs(&admin).await, ["rotated its key"]);
        // A second rotation, and the first change once more: it changes nothing.
        let third = new_key();
        ask(&app, &agent, &agent.key, &change(&app, &agent, &third)).await.is(200);
        agent.key = third;
        ask(&app, &agent, &agent.key, &asked).await.is_problem(409);
        let (app, admin) = app.restart().await;
        let mut agent = agent.moved_to(&app);
        polls(&agent).await.is(200);
        agent.key = old;
        polls(&agent).await.is_problem(401);
        assert_eq!(shown(&admin, &agent).await["incident"], Value::Null);
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    async fn a_key_is_changed_only_by_both_keys_of_that_agent(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        let (new, before) = (new_key(), shown(&admin, &agent).await["public_key"].clone());
        let right = change(&app, &agent, &new);
        let of_other = change(&app, &other, &new);
        // Without the new key, without the old one, for another agent, and of a key that is not the agent's.
        let claims = KeyChange::new(agent.id, &agent.key.verifying_key(), &new.verifying_key(), app.clock.now());
        let stranger = new_key();
        for (asked, place) in [
            (claims.sign(&agent.key, &stranger).unwrap(), "/by_new"),
            (claims.sign(&stranger, &new).unwrap(), "/by_old"),
            (of_other.clone(), "/by_old"),
            (KeyChangeRequest { by_old: right.by_old.clone(), by_new: of_other.by_new }, "/by_old"),
            (KeyChangeRequest { by_old: agent.token(), by_new: right.by_new.clone() }, "/by_old"),
        ] {
            assert_eq!(ask(&app, &agent, &agent.key, &asked).await.points_at(), [place], "{asked:?}");
        }
        let foreign = KeyChange::new(agent.id, &stranger.verifying_key(), &new.verifying_key(), app.clock.now());
        ask(&app, &agent, &agent.key, &foreign.sign(&stranger, &new).unwrap()).await.is_problem(409);
        let anonymous = Client::anonymous(&app.base);
        anonymous.post("/v1/agent/key", &serde_json::to_value(&right).unwrap()).await.is_problem(401);
        ask(&app, &other, &other.key, &right).await.points_at();
        // One that was held back on the way is too old.
        app.advance(7 * 60);
        let late = ask(&app, &agent, &agent.key, &right).await.is_problem(401);
        assert_eq!(late["type"], "urn:riposte:problem:clock", "{late}");
        assert_eq!(shown(&admin, &agent).await["public_key"], before);
        assert!(verbs(&admin).await.is_empty());
    }

    async fn a_rotation_by_the_thief_of_a_key_is_an_incident_once_the_owner_comes(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let owner = app.enrol(&admin, "web-01", &json!({})).await;
        let thief = new_key();
        ask(&app, &owner, &owner.key, &change(&app, &owner, &thief)).await.is(200);
        // A token that was on its way shows nothing yet.
        let refused = polls(&owner).await.is_problem(401);
        assert!(refused["detail"].as_str().unwrap().contains("this agent's key was replaced at"), "{refused}");
        assert_eq!(shown(&admin, &owner).await["incident"], Value::Null);
        app.advance(121);
        ask(&app, &owner, &owner.key, &change(&app, &owner, &new_key())).await.is_problem(401);
        let after = shown(&admin, &owner).await;
        let incident = after["incident"].as_str().unwrap();
        assert!(incident.contains("its old key was used after the rotation of"), "{after}");
        assert_eq!(after["public_key"], thief.verifying_key().text(), "the refused request changed nothing");
        // It is said once.
        polls(&owner).await.is_problem(401);
        assert_eq!(verbs(&admin).await, ["rotated its key", "key copied"]);
        // A stranger's token is none of that.
        let mut stranger = app.enrol(&admin, "web-02", &json!({})).await;
        let first = std::mem::replace(&mut stranger.key, new_key());
        polls(&stranger).await.is_problem(401);
        stranger.key = first;
        assert_eq!(shown(&admin, &stranger).await["incident"], Value::Null);
    }

    async fn an_agent_is_told_to_replace_its_key_by_order_and_by_age(database: Database) {
        let age = |config: &mut riposte::config::Config| config.server.agent_key_max_age = "30d".into();
        let (app, admin) = TestApp::start_with(database, age).await;
        let mut agent = app.enrol(&admin, "web-01", &json!({})).await;
        let asks = async |agent: &FakeAgent| agent.poll(&PollRequest::default()).await.settings.rotate_key;
        assert_eq!(asks(&agent).await, None);
        let mut stream = agent.stream(0).await;
        assert!(matches!(stream.hear().await, Some(ToAgent::Settings { settings }) if settings.rotate_key.is_none()));
        let path = format!("/v1/agents/{}/rotate-key", agent.id);
        let ordered = admin.post(&path, &json!({})).await.is(202);
        assert!(ordered["key_ordered_at"].is_string(), "{ordered}");
        admin.post(&path, &json!({})).await.is(202);
        let present = Some(agent.key.verifying_key().text());
        let Some(ToAgent::Settings { settings }) = stream.hear().await else { panic!("no settings") };
        assert_eq!((&settings.rotate_key, &asks(&agent).await), (&present, &present));
        let new = new_key();
        ask(&app, &agent, &agent.key, &change(&app, &agent, &new)).await.is(200);
        agent.key = new;
        assert_eq!(asks(&agent).await, None);
        assert_eq!(shown(&admin, &agent).await["key_ordered_at"], Value::Null);
        assert_eq!(verbs(&admin).await, ["ordered to rotate its key", "rotated its key"]);
        app.advance(30 * 86_400 + 1);
        assert_eq!(asks(&agent).await, Some(agent.key.verifying_key().text()));
        admin.post(&format!("/v1/agents/{}/rotate-key", Uuid::now_v7()), &json!({})).await.is_problem(404);
    }

    /// The real agent, with itself and the manager killed at each step.
    async fn promise_8_an_agents_key_rotates_though_both_programs_are_killed_at_each_step(database: Database) {
        let url = database.url();
        let flags: &[&str] = if url.is_empty() { &[] } else { &["--database-url", &url] };
        let mut manager = Manager::start_with(flags).await;
        manager.api().make_policy("log-only", "1h").await;
        let mut number = 0;
        for transport in ["stream", "poll"] {
            let api = manager.api();
            let mut agent = Agent::enroll(&api.base, &api.make_token().await, &format!("web-{transport}"));
            agent.run(&["--transport", transport]);
            let mut acts = async |manager: &Manager, agent: &Agent| {
                number += 1;
                let alert = processes::alert(number, &format!("203.0.113.{number}"), &agent.name);
                let (_, command) = manager.api().answer_to(&alert).await;
                manager.api().command_is(processes::text(&command, "id"), "succeeded").await;
            };
            acts(&manager, &agent).await;
            let (key, next) = (agent.state("key"), agent.state("key.next"));
            let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();

            // By hand, beside the running agent, which goes on with the new key.
            let first = read(&key);
            let done = agent.order(&["rotate-key"]);
            assert!(done.status.success(), "{done:?}");
            let second = read(&key);
            assert!(first != second && !next.exists());
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
            acts(&manager, &agent).await;

            // The manager is killed before it can be asked: the next key waits, and the agent ends it.
            manager.kill9();
            let done = agent.order(&["rotate-key"]);
            assert!(!done.status.success() && next.exists() && read(&key) == second, "{done:?}");
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(said.contains("the key is not replaced yet") && said.contains("cannot reach"), "{said}");
            let third = read(&next);
            agent.kill9();
            manager.start_again().await;
            agent.run_again();
            eventually("the agent takes the next key", PATIENCE, async || (read(&key) == third).then_some(())).await;
            assert!(!next.exists());
            acts(&manager, &agent).await;

            // Killed between the manager's commit and the rename: both keys are there. So is the manager.
            agent.kill9();
            std::fs::copy(&key, &next).unwrap();
            std::fs::write(&key, &second).unwrap();
            manager.start_again().await;
            agent.run_again();
            eventually("the agent finds that it is done", PATIENCE, async || (read(&key) == third).then_some(())).await;
            assert!(!next.exists());
            acts(&manager, &agent).await;

            // By an operator's order.
            let (is_ok, said) = manager.command(&["agent", "rotate-key", &agent.name]);
            assert!(is_ok && said.contains("replaces its key"), "{said}");
            eventually("the agent obeys the order", PATIENCE, async || (read(&key) != third).then_some(())).await;
            eventually("the old key has gone", PATIENCE, async || (!next.exists()).then_some(())).await;
            acts(&manager, &agent).await;
            let view = manager.api().get(&format!("/v1/agents/{}", agent.id)).await;
            assert_eq!((&view["incident"], &view["key_ordered_at"]), (&Value::Null, &Value::Null), "{view}");
            let audit = manager.api().get("/v1/audit?noun=agent&limit=100").await;
            let is_rotation = |entry: &&Value| entry["verb"] == "rotated its key" && entry["noun_id"] == agent.id.as_str();
            assert_eq!(audit["items"].as_array().unwrap().iter().filter(is_rotation).count(), 3, "{audit}");
        }
        manager.api().audit_is_intact().await;
    }
}
