//! Keys and tokens: how long they are valid and for which agent, the limit on guessing, and who can
//! read them.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use riposte_protocol::identity::{self, AgentToken};
use riposte_protocol::jws;
use riposte_protocol::message::PollRequest;
use serde_json::json;
use uuid::Uuid;

use super::operations::{OPERATIONS, On};
use crate::support::agent::{enrollment, new_key};
use crate::support::{Client, Database, FakeAgent, TestApp};

#[tokio::test]
async fn a_key_counts_until_it_expires_or_is_revoked() {
    let (app, admin) = TestApp::start().await;
    let made = admin.post("/v1/api-keys", &json!({"name": "k", "role": "viewer", "expires_in": "1h"})).await.is(201);
    assert_eq!(made["expires_at"], "2026-11-24T11:00:00.000Z");
    let brief = admin.with_key(made["key"].as_str().unwrap());
    let lasting = app.client_with_role(&admin, "viewer").await;
    app.advance(3599);
    brief.get("/v1/alerts").await.is(200);
    app.advance(1);
    brief.get("/v1/alerts").await.is_problem(401);
    lasting.get("/v1/alerts").await.is(200);
    let id = lasting.key().split('_').nth(1).unwrap().to_owned();
    admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
    lasting.get("/v1/alerts").await.is_problem(401);
    admin.delete(&format!("/v1/api-keys/{id}"), None).await.is_problem(404);
    // The key that a client revokes may be the only one that it has.
    let own = admin.key().split('_').nth(1).unwrap().to_owned();
    admin.delete(&format!("/v1/api-keys/{own}"), None).await.is_problem(409);
    admin.get("/v1/alerts").await.is(200);
    let bad = json!({"name": "", "role": "viewer"});
    assert_eq!(admin.post("/v1/api-keys", &bad).await.points_at(), ["/name"]);
    let bad = json!({"name": "k", "role": "root"});
    assert_eq!(admin.post("/v1/api-keys", &bad).await.points_at(), ["/role"]);
}

#[tokio::test]
async fn an_agent_is_believed_only_with_a_fresh_token_signed_by_its_own_key() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let other = app.enrol(&admin, "web-02", &json!({})).await;
    let request = PollRequest { max: 1, ..PollRequest::default() };
    let now = app.clock.now();
    let claims = |change: &dyn Fn(&mut AgentToken)| {
        let mut claims = AgentToken {
            iss: agent.id,
            sub: agent.id,
            aud: "riposte".into(),
            iat: now.as_secs(),
            exp: now.as_secs() + 300,
            jti: Uuid::now_v7().to_string(),
        };
        change(&mut claims);
        jws::sign(&agent.key, "JWT", "", &claims).unwrap()
    };
    let token = |key: &_, id| identity::issue(key, id, Uuid::from_u128(1), now, Duration::from_mins(5)).unwrap();
    agent.exchange(&claims(&|_| ()), &request).await.is(200);
    let unsigned = {
        let token = claims(&|_| ());
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let another_kind = jws::sign(
        &agent.key,
        "riposte-command+jwt",
        "",
        &json!({"iss": agent.id, "sub": agent.id, "aud": "riposte",
        "iat": now.as_secs(), "exp": now.as_secs() + 300, "jti": "1"}),
    )
    .unwrap();
    for (what, token) in [
        ("an agent that is not enrolled", token(&agent.key, Uuid::from_u128(7))),
        ("another agent's key", token(&other.key, agent.id)),
        ("a token that lives too long", claims(&|c| c.exp += 1)),
        ("a token for another audience", claims(&|c| c.aud = "other".into())),
        ("a token about another agent", claims(&|c| c.sub = other.id)),
        (
            "a token of the future",
            claims(&|c| {
                c.iat += 120;
                c.exp += 120;
            }),
        ),
        (
            "a token of the past",
            claims(&|c| {
                c.iat -= 400;
                c.exp -= 400;
            }),
        ),
        ("a token without a signature", unsigned),
        ("another kind of token", another_kind),
        ("no token", "x".into()),
    ] {
        let answer = agent.exchange(&token, &request).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text);
        answer.is_problem(401);
        let stream = Client::anonymous(&app.base).with_key(&token);
        assert_eq!(stream.get("/v1/agent/stream").await.status, 401, "{what}");
    }
    // One second longer than the clocks may differ.
    let (kept, late) = (agent.token(), agent.token());
    app.advance(360);
    agent.exchange(&late, &request).await.is(200);
    app.advance(1);
    agent.exchange(&kept, &request).await.is_problem(401);
    admin.delete(&format!("/v1/agents/{}", agent.id), None).await.is(204);
    agent.exchange(&agent.token(), &request).await.is_problem(403);
    other.exchange(&other.token(), &request).await.is(200);
}

#[tokio::test]
async fn an_enrolment_token_counts_for_as_many_agents_and_as_long_as_it_says() {
    let (app, admin) = TestApp::start().await;
    let made = admin
        .post("/v1/enrollment-tokens", &json!({"labels": {"env": "prod"}, "uses": 2, "expires_in": "1h"}))
        .await
        .is(201);
    let token = made["token"].as_str().unwrap();
    let anonymous = Client::anonymous(&app.base);
    let enroll = async |token: &str, name: &str| {
        let asked = serde_json::to_value(enrollment(token, name, &new_key())).unwrap();
        anonymous.post("/v1/agents/enroll", &asked).await
    };
    let first = enroll(token, "a").await.is(201);
    // A name that is taken costs no use of the token.
    enroll(token, "a").await.is_problem(409);
    let key = new_key();
    let asked = serde_json::to_value(enrollment(token, "b", &key)).unwrap();
    let second = anonymous.post("/v1/agents/enroll", &asked).await.is(201);
    enroll(token, "c").await.is_problem(401);
    // An agent that missed the answer retries and gets it; another agent by that name does not.
    let asked = serde_json::to_value(enrollment(token, "b", &key)).unwrap();
    assert_eq!(anonymous.post("/v1/agents/enroll", &asked).await.is(201)["agent_id"], second["agent_id"]);
    enroll(token, "b").await.is_problem(401);
    let other = admin.post("/v1/enrollment-tokens", &json!({"labels": {"env": "test"}})).await.is(201);
    let asked = serde_json::to_value(enrollment(other["token"].as_str().unwrap(), "b", &key)).unwrap();
    anonymous.post("/v1/agents/enroll", &asked).await.is_problem(409);
    let asked = serde_json::to_value(enrollment("rit_x", "b", &key)).unwrap();
    anonymous.post("/v1/agents/enroll", &asked).await.is_problem(401);
    let agent = admin.get(&format!("/v1/agents/{}", first["agent_id"].as_str().unwrap())).await.is(200);
    assert_eq!(agent["labels"], json!({"env": "prod"}));
    let made = admin.post("/v1/enrollment-tokens", &json!({"expires_in": "1h"})).await.is(201);
    app.advance(3600);
    enroll(made["token"].as_str().unwrap(), "c").await.is_problem(401);
    let made = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
    admin.delete(&format!("/v1/enrollment-tokens/{}", made["id"].as_str().unwrap()), None).await.is(204);
    enroll(made["token"].as_str().unwrap(), "c").await.is_problem(401);
    enroll("rit_x", "c").await.is_problem(401);
    assert_eq!(admin.list("/v1/agents").await.len(), 2);
    for (asked, places) in [
        (json!({"token": "t", "name": "a b", "public_key": "x"}), vec!["/name", "/public_key"]),
        (json!({"token": "t", "name": "a", "public_key": "AAAA", "version": "1\n2"}), vec!["/public_key", "/version"]),
    ] {
        assert_eq!(anonymous.post("/v1/agents/enroll", &asked).await.points_at(), places, "{asked}");
    }
    for (asked, place) in [
        (json!({"uses": 0}), "/uses"),
        (json!({"uses": 100_001}), "/uses"),
        (json!({"labels": {"Env": "x"}}), "/labels/Env"),
        (json!({"labels": {"wazuh_id": "x"}}), "/labels/wazuh_id"),
        (json!({"expires_in": "soon"}), "/expires_in"),
    ] {
        assert_eq!(admin.post("/v1/enrollment-tokens", &asked).await.points_at(), [place], "{asked}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_token_or_a_key_is_told_by_its_form_alone() {
    let (app, admin) = TestApp::start().await;
    let stranger = Client::anonymous(&app.base);
    let made = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
    // What follows after a dot names the manager, and is the agent's to check.
    let token = made["token"].as_str().unwrap().split('.').next().unwrap();
    let unknown = format!("rit_{}", "a".repeat(43));
    let enroll = async |token: &str| {
        let asked = serde_json::to_value(enrollment(token, "a", &new_key())).unwrap();
        let problem = stranger.post("/v1/agents/enroll", &asked).await.is_problem(401);
        problem["detail"].as_str().unwrap().to_owned()
    };
    for (given, told) in [
        (&token[..40], "the enrolment token has 40 of 47 characters; copy it whole"),
        // A part of a token that is not there is told the same.
        (&unknown[..40], "the enrolment token has 40 of 47 characters; copy it whole"),
        (&format!("{token}xy"), "the enrolment token is too long: 49 characters instead of 47"),
        (admin.key(), "this is an API key; an enrolment token begins with rit_"),
        (&unknown, "the enrolment token is not valid: unknown, used up or expired"),
    ] {
        assert_eq!(enroll(given).await, told);
    }
    let key = admin.key();
    for (given, told) in [
        (token, "this is an enrolment token; an API key begins with rip_"),
        (&format!("{key}xy"), "the key is too long: 45 characters after its id instead of 43"),
        (&key[..key.len() - 12], "the key has 31 of 43 characters"),
    ] {
        let problem = stranger.with_key(given).get("/v1/alerts").await.is_problem(401);
        assert!(problem["detail"].as_str().unwrap().contains(told), "{problem}");
    }
}

#[tokio::test]
async fn a_client_that_guesses_too_often_is_slowed_down_and_no_other_is() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let anonymous = Client::anonymous(&app.base);
    for _ in 0..200 {
        anonymous.get("/v1/alerts").await.is_problem(401);
        agent.exchange("guess", &PollRequest::default()).await.is_problem(401);
        let asked = serde_json::to_value(enrollment("rit_guess", "x", &new_key())).unwrap();
        anonymous.post("/v1/agents/enroll", &asked).await.is_problem(401);
    }
    app.advance(20);
    for answer in [anonymous.get("/v1/alerts").await, agent.exchange("guess", &PollRequest::default()).await] {
        answer.is_problem(429);
        assert_eq!(answer.header("retry-after"), Some("40"));
    }
    // The same address, with valid credentials.
    admin.get("/v1/alerts").await.is(200);
    agent.exchange(&agent.token(), &PollRequest { max: 1, ..PollRequest::default() }).await.is(200);
    app.advance(40);
    anonymous.get("/v1/alerts").await.is_problem(401);
}

#[tokio::test]
async fn a_secret_is_shown_once_and_its_files_are_for_their_owner_alone() {
    let (app, admin) = TestApp::start().await;
    let viewer = app.client_with_role(&admin, "viewer").await;
    let token = admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
    let token = token["token"].as_str().unwrap().to_owned();
    FakeAgent::enrol(&app, &token, "web-01", vec![]).await;
    let secret = |key: &str| key.splitn(3, '_').nth(2).unwrap().to_owned();
    let of_token = token.trim_start_matches("rit_").split('.').next().unwrap().to_owned();
    let secrets = [secret(admin.key()), secret(viewer.key()), of_token];
    assert!(secrets.iter().all(|secret| secret.len() == 43), "{secrets:?}");
    for (method, path, _, on, ..) in OPERATIONS.iter().filter(|(method, ..)| *method == "GET") {
        // These are for agents, for a login, and for the keys of bouncers.
        let others = ["/v1/agent/stream", "/wazuh/security/user/authenticate"];
        let is_shown = !others.contains(path) && !path.starts_with("/crowdsec/");
        if *on == On::Nothing && is_shown && !path.contains('{') {
            // As a list: the stream has no end.
            let list = if *path == "/v1/events" { "/v1/events?follow=false&limit=500" } else { path };
            let shown = admin.get(list).await;
            assert_eq!(shown.status, 200, "{method} {path}");
            for secret in &secrets {
                assert!(!shown.text.contains(secret), "{path} shows a secret");
            }
            assert!(!shown.text.contains("\"hash\":\"") || *path == "/v1/audit", "{path} shows a hash");
        }
    }
    let dir = app.data_dir();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in ["admin.key", "signing.key"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    let signing = std::fs::read_to_string(dir.join("signing.key")).unwrap();
    for path in ["/openapi.json", "/metrics", "/v1/audit", "/v1/agents"] {
        assert!(!admin.get(path).await.text.contains(signing.trim()), "{path}");
    }
}

on_both_databases! {
    async fn keys_and_revocations_outlive_a_restart(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let (kept, revoked) = (app.client_with_role(&admin, "viewer").await, app.client_with_role(&admin, "viewer").await);
        let id = revoked.key().split('_').nth(1).unwrap();
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        let agent = app.enrol(&admin, "web-01", &json!({})).await;
        admin.delete(&format!("/v1/agents/{}", agent.id), None).await.is(204);
        let (app, admin) = app.restart().await;
        admin.with_key(kept.key()).get("/v1/alerts").await.is(200);
        admin.with_key(revoked.key()).get("/v1/alerts").await.is_problem(401);
        let agent = agent.moved_to(&app);
        agent.exchange(&agent.token(), &PollRequest::default()).await.is_problem(403);
    }
}
