//! The way in: a password or an API key becomes a token, under the limits of every other login.

use reqwest::Method;
use serde_json::json;

use super::{LOGIN, log_in, logged_in};
use crate::support::app::PASSWORD;
use crate::support::{Answer, Client, Database, TestApp};

on_both_databases! {
    async fn a_person_logs_in_with_a_password_for_15_minutes_or_until_the_logout(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "alice", "analyst").await;
        let answer = log_in(&app, "alice", PASSWORD).await.is(200);
        let token = answer["data"]["token"].as_str().unwrap();
        assert_eq!(answer, json!({"data": {"token": token}, "error": 0}));
        let alice = Client::anonymous(&app.base).with_key(token);
        assert_eq!(alice.get("/v1/whoami").await.is(200)["principal"], "user:alice");
        alice.get("/wazuh/agents").await.is(200);
        // As text, by GET, and with Python's idea of a flag.
        let anonymous = Client::anonymous(&app.base);
        for (method, query) in [(Method::POST, "?raw=true"), (Method::GET, "?raw=True&wait_for_complete=false")] {
            let request = anonymous.request(method, &format!("{LOGIN}{query}")).basic_auth("alice", Some(PASSWORD));
            let answer = Answer::to(request).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
            anonymous.with_key(&answer.text).get("/wazuh/").await.is(200);
        }
        let answer = alice.delete(LOGIN, None).await.is(200);
        assert_eq!(answer, json!({"message": "User alice was successfully logged out", "error": 0}));
        alice.get("/wazuh/agents").await.is_wazuh_problem(401);
        // A session without a logout is over after its one token.
        let second = logged_in(&app, "alice", PASSWORD).await;
        app.advance(899);
        second.get("/wazuh/agents").await.is(200);
        app.advance(1);
        second.get("/wazuh/agents").await.is_wazuh_problem(401);
        let verbs: Vec<String> = admin.history("user", "alice").await.into_iter().map(|(_, verb)| verb).collect();
        assert_eq!(verbs.iter().filter(|verb| *verb == "logged out").count(), 1, "{verbs:?}");
    }

    async fn an_api_key_is_the_password_beside_any_name_and_its_tokens_end_with_it(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let service = app.client_with_role(&admin, "analyst").await;
        let id = service.key().split('_').nth(1).unwrap().to_owned();
        let first = logged_in(&app, "shuffle", service.key()).await;
        first.get("/wazuh/agents").await.is(200);
        // It is for Wazuh's API only.
        first.get("/v1/agents").await.is_problem(401);
        first.alerts("application/json", "{}").await.is_problem(401);
        // A logout ends every token of the key, and not the key.
        let other = logged_in(&app, "", service.key()).await;
        first.delete(LOGIN, None).await.is(200);
        for ended in [&first, &other] {
            let problem = ended.get("/wazuh/agents").await.is_wazuh_problem(401);
            assert!(problem["detail"].as_str().unwrap().contains("log in again"), "{problem}");
        }
        service.get("/v1/agents").await.is(200);
        assert!(admin.history("api_key", &id).await.contains(&(format!("key:{id}"), "logged out".into())));
        let third = logged_in(&app, "shuffle", service.key()).await;
        let (app, admin) = app.restart().await;
        let third = Client::anonymous(&app.base).with_key(third.key());
        third.get("/wazuh/agents").await.is(200);
        app.advance(900);
        third.get("/wazuh/agents").await.is_wazuh_problem(401);
        let service = Client::anonymous(&app.base).with_key(service.key());
        let fourth = logged_in(&app, "shuffle", service.key()).await;
        admin.delete(&format!("/v1/api-keys/{id}"), None).await.is(204);
        fourth.get("/wazuh/agents").await.is_wazuh_problem(401);
        log_in(&app, "shuffle", service.key()).await.is_wazuh_problem(401);
        // A token lives no longer than its key.
        let brief = json!({"name": "brief", "role": "analyst", "expires_in": "5m"});
        let brief = admin.post("/v1/api-keys", &brief).await.is(201)["key"].as_str().unwrap().to_owned();
        let fifth = logged_in(&app, "shuffle", &brief).await;
        app.advance(299);
        fifth.get("/wazuh/agents").await.is(200);
        app.advance(1);
        fifth.get("/wazuh/agents").await.is_wazuh_problem(401);
    }

    async fn a_personal_key_logs_in_as_its_person_and_ends_when_the_person_is_disabled(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let key = app.person(&admin, "alice", "analyst").await;
        let alice = logged_in(&app, "alice", key.key()).await;
        alice.get("/wazuh/agents").await.is(200);
        admin.patch("/v1/users/alice", &json!({"is_disabled": true}), "\"1\"").await.is(200);
        alice.get("/wazuh/agents").await.is_wazuh_problem(401);
        log_in(&app, "alice", key.key()).await.is_wazuh_problem(401);
        log_in(&app, "alice", PASSWORD).await.is_wazuh_problem(401);
    }

    async fn every_failed_login_gets_the_same_words_and_counts_against_the_lockouts_of_all_doors(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "alice", "analyst").await;
        let anonymous = Client::anonymous(&app.base);
        let words = json!({"title": "Unauthorized", "detail": "Invalid credentials"});
        let wrong_key = format!("rip_0123456789abcdef_{}", "a".repeat(43));
        let cases = [("alice", "wrong"), ("mallory", PASSWORD), ("shuffle", &wrong_key), ("a\0b", PASSWORD), ("alice", "")];
        for (name, password) in cases {
            let answer = log_in(&app, name, password).await;
            assert_eq!(answer.is_wazuh_problem(401), words, "{name:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"riposte\""));
        }
        assert_eq!(Answer::to(anonymous.request(Method::POST, LOGIN)).await.is_wazuh_problem(401), words);
        let bearer = anonymous.with_key(admin.key()).request(Method::POST, LOGIN);
        assert_eq!(Answer::to(bearer).await.is_wazuh_problem(401), words, "a login needs Basic authentication");
        // Three passwords have failed; with two more the address is blocked, at this door and at the other.
        for _ in 0..2 {
            assert_eq!(log_in(&app, "alice", "wrong").await.is_wazuh_problem(401), words);
        }
        let blocked = log_in(&app, "alice", PASSWORD).await;
        assert_eq!(blocked.is_wazuh_problem(403)["error"], 6000);
        assert_eq!(blocked.header("retry-after"), Some("1"));
        let login = json!({"username": "alice", "password": PASSWORD});
        anonymous.post("/v1/auth/token", &login).await.is_problem(429);
        // A key is no password that could be guessed.
        logged_in(&app, "shuffle", app.client_with_role(&admin, "viewer").await.key()).await;
        app.advance(1);
        logged_in(&app, "alice", PASSWORD).await;
        // And the other way round.
        for _ in 0..5 {
            anonymous.post("/v1/auth/token", &json!({"username": "alice", "password": "x"})).await.is_problem(401);
        }
        assert_eq!(log_in(&app, "alice", PASSWORD).await.is_wazuh_problem(403)["error"], 6000);
        app.advance(61);
        let failed = app.in_time("failed logins are in the audit log", || async {
            let history = admin.history("user", "alice").await;
            history.iter().any(|(_, verb)| verb == "failed to log in").then_some(())
        });
        failed.await;
    }

    async fn a_person_with_one_time_codes_or_a_temporary_password_is_told_what_to_do(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let made = admin.post("/v1/users", &json!({"name": "bob", "role": "analyst"})).await.is(201);
        let problem = log_in(&app, "bob", made["temporary_password"].as_str().unwrap()).await.is_wazuh_problem(401);
        assert!(problem["detail"].as_str().unwrap().contains("temporary"), "{problem}");
        let alice = app.session(&admin, "alice", "analyst").await;
        let key = alice.personal_key("soar", "analyst").await;
        let offered = alice.post("/v1/auth/totp", &json!({})).await.is(200);
        let code = crate::people::totp(offered["secret"].as_str().unwrap(), &app);
        alice.post("/v1/auth/totp/confirm", &json!({"code": code})).await.is(204);
        let problem = log_in(&app, "alice", PASSWORD).await.is_wazuh_problem(401);
        assert!(problem["detail"].as_str().unwrap().contains("API key"), "{problem}");
        logged_in(&app, "alice", key.key()).await.get("/wazuh/").await.is(200);
    }
}

#[tokio::test]
async fn many_bad_tokens_and_keys_from_one_address_get_429_with_wazuhs_number() {
    let (app, admin) = TestApp::start().await;
    let guess = Client::anonymous(&app.base).with_key("a.b.c");
    for _ in 0..600 {
        guess.get("/wazuh/agents").await.is_wazuh_problem(401);
    }
    let answer = guess.get("/wazuh/agents").await;
    assert_eq!(answer.is_wazuh_problem(429)["error"], 6001);
    assert_eq!(answer.header("retry-after"), Some("60"));
    let key = format!("rip_0123456789abcdef_{}", "a".repeat(43));
    assert_eq!(log_in(&app, "shuffle", &key).await.is_wazuh_problem(429)["error"], 6001);
    logged_in(&app, "shuffle", admin.key()).await.get("/wazuh/agents").await.is(200);
}
