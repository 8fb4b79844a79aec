//! Single sign-on against a real provider: people, their roles, links, and who a person is. What a
//! hostile provider or browser tries is in `attacks/sign_on.rs`.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::app::PASSWORD;
use crate::support::openid::{
    Browser, OpenIdProvider, PROGRAM, VERIFIER, challenge, exchange, manager_at_now, manager_with, refusal, session,
    start_url, told,
};
use crate::support::{Answer, Client, Database};

fn client(admin: &Client, tokens: &Value) -> Client {
    admin.with_key(tokens["access_token"].as_str().unwrap())
}

async fn link(admin: &Client, name: &str, body: &Value) -> Answer {
    admin.put(&format!("/v1/users/{name}/identities/corp"), body, None).await
}

on_both_databases! {
    async fn a_person_who_logs_in_at_the_provider_becomes_a_user(database: Database) {
        let mut provider = OpenIdProvider::start();
        let (app, admin) = manager_with(database, &mut provider, |_| ()).await;
        provider.people(&json!({"alice": {"groups": ["staff", "soc"]}}));
        let anonymous = Client::anonymous(&app.base);
        assert_eq!(anonymous.get("/v1/auth/oidc").await.is(200), json!({"providers": [{"name": "corp"}]}));
        let tokens = session(&anonymous, &app.base, "alice").await;
        assert_eq!((&tokens["username"], &tokens["expires_in"]), (&json!("alice"), &json!(900)));
        let alice = client(&anonymous, &tokens);
        let who = alice.get("/v1/whoami").await.is(200);
        assert_eq!((&who["principal"], &who["role"], &who["via"]), (&json!("user:alice"), &json!("analyst"), &json!("session")));
        let user = admin.get("/v1/users/alice").await.is(200);
        assert_eq!((&user["created_by"], &user["must_change_password"]), (&json!("user:alice"), &json!(false)));
        let listed = admin.get("/v1/users/alice/identities").await.is(200);
        let identity = &listed["identities"][0];
        assert_eq!((&identity["issuer"], &identity["subject"]), (&json!(provider.issuer), &json!("alice")));
        assert_eq!(identity["role_from_groups"], true);
        // A user without a password is refused as one with a wrong password is.
        for password in ["", PASSWORD] {
            let login = json!({"username": "alice", "password": password});
            anonymous.post("/v1/auth/token", &login).await.is_problem(401);
        }
        // The session is one like any other: refreshed, and ended with the way to end the provider's.
        let refresh = json!({"refresh_token": tokens["refresh_token"]});
        let tokens = anonymous.post("/v1/auth/token", &refresh).await.is(200);
        let ended = client(&anonymous, &tokens).delete("/v1/auth/token", None).await.is(200);
        let url = format!("{}/session/end?client_id=riposte", provider.issuer);
        assert_eq!(ended["end_session_url"], url);
        alice.get("/v1/whoami").await.is_problem(401);
        // The second login is of the same user, also in a browser that the provider remembers.
        session(&anonymous, &app.base, "alice").await;
        let history = admin.history("user", "alice").await;
        let verbs: Vec<&str> =
            history.iter().map(|(_, verb)| verb.as_str()).filter(|verb| *verb != "failed to log in").collect();
        assert_eq!(verbs, ["created", "linked", "logged in", "logged out", "logged in"]);
    }

    async fn a_role_follows_the_groups_and_a_lost_group_ends_the_sessions(database: Database) {
        let mut provider = OpenIdProvider::start();
        let (app, admin) = manager_with(database, &mut provider, |_| ()).await;
        provider.people(&json!({"alice": {"groups": ["soc"]}}));
        let alice = client(&admin, &session(&admin, &app.base, "alice").await);
        // Set by hand it would be overwritten by the next login.
        let problem = admin.patch("/v1/users/alice", &json!({"role": "admin"}), "\"1\"").await.is_problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("follows the groups"), "{problem}");
        provider.people(&json!({"alice": {"groups": ["leads", "soc"]}}));
        session(&admin, &app.base, "alice").await;
        assert_eq!(alice.get("/v1/whoami").await.is(200)["role"], "engineer");
        provider.people(&json!({"alice": {"groups": ["soc"]}}));
        session(&admin, &app.base, "alice").await;
        assert_eq!(alice.get("/v1/whoami").await.is(200)["role"], "analyst");
        provider.people(&json!({"alice": {"groups": ["others"]}}));
        let why = refusal(&app.base, "alice").await;
        assert!(why.contains("none of the person's groups (claim groups)"), "{why}");
        alice.get("/v1/whoami").await.is_problem(401);
        let entries = admin.list("/v1/audit?noun=user&noun_id=alice").await;
        let details: Vec<&str> = entries.iter().map(|entry| entry["detail"].as_str().unwrap()).collect();
        assert!(details.iter().any(|text| text.contains("role engineer instead of analyst, by the groups at corp")), "{details:?}");
        assert!(details[0].contains("at corp from 127.0.0.1") && details[0].contains("none of the person's groups"), "{details:?}");
        // A user with a scope becomes no administrator, who could give away more than the scope.
        let version = admin.get("/v1/users/alice").await;
        let scope = json!({"scope": {"actions": ["firewall-drop"]}});
        admin.patch("/v1/users/alice", &scope, version.header("etag").unwrap()).await.is(200);
        provider.people(&json!({"alice": {"groups": ["admins"]}}));
        let why = refusal(&app.base, "alice").await;
        assert!(why.contains("a user with a scope cannot have"), "{why}");
        // A disabled user stays out, whatever the groups.
        provider.people(&json!({"alice": {"groups": ["soc"]}}));
        let version = admin.get("/v1/users/alice").await;
        admin.patch("/v1/users/alice", &json!({"is_disabled": true}), version.header("etag").unwrap()).await.is(200);
        assert!(refusal(&app.base, "alice").await.contains("alice is disabled"));
    }

    async fn a_name_that_is_taken_is_linked_by_an_administrator_alone(database: Database) {
        let mut provider = OpenIdProvider::start();
        let (app, admin) = manager_with(database, &mut provider, |_| ()).await;
        provider.people(&json!({
            "7": {"preferred_username": "alice", "groups": ["soc"]}, "8": {"preferred_username": "alice", "groups": ["soc"]},
        }));
        app.session(&admin, "alice", "viewer").await;
        let why = refusal(&app.base, "7").await;
        assert!(why.contains("riposte user link alice --provider corp --subject 7"), "{why}");
        let linked = link(&admin, "alice", &json!({"subject": "7"})).await.is(200);
        assert_eq!(linked["identities"][0]["subject"], "7");
        link(&admin, "alice", &json!({"subject": "7"})).await.is(200);
        let tokens = session(&admin, &app.base, "7").await;
        // An administrator set the role, and the groups do not change it.
        assert_eq!((&tokens["username"], &tokens["scope"]), (&json!("alice"), &json!("read pull_feeds own_keys identify")));
        assert!(refusal(&app.base, "8").await.contains("alice exists and is not linked"));
        admin.post("/v1/users", &json!({"name": "bob", "role": "viewer"})).await.is(201);
        for (name, body) in [("bob", json!({"subject": "7"})), ("alice", json!({"subject": "8"}))] {
            let problem = link(&admin, name, &body).await.is_problem(409);
            assert!(problem["detail"].as_str().unwrap().contains("riposte user unlink alice"), "{problem}");
        }
        for subject in ["", "a\u{7}", &"7".repeat(256)] {
            assert_eq!(link(&admin, "bob", &json!({"subject": subject})).await.points_at(), ["/subject"]);
        }
        link(&admin, "carol", &json!({"subject": "9"})).await.is_problem(404);
        admin.put("/v1/users/bob/identities/other", &json!({"subject": "9"}), None).await.is_problem(404);
        let alice = client(&admin, &tokens);
        admin.delete("/v1/users/alice/identities/corp", None).await.is(204);
        alice.get("/v1/whoami").await.is_problem(401);
        assert!(refusal(&app.base, "7").await.contains("alice exists and is not linked"));
        admin.delete("/v1/users/alice/identities/corp", None).await.is_problem(404);
        // Linked with the role of the groups.
        link(&admin, "alice", &json!({"subject": "7", "role_from_groups": true})).await.is(200);
        let tokens = session(&admin, &app.base, "7").await;
        assert_eq!(tokens["scope"], "read pull_feeds respond approve own_keys identify");
        let history = admin.history("user", "alice").await;
        let verbs: Vec<&str> = history.iter().map(|(_, verb)| verb.as_str()).filter(|verb| verb.contains("link")).collect();
        assert_eq!(verbs, ["linked", "unlinked", "linked"]);
        // A deleted user's name is never given again, by a login either.
        admin.delete("/v1/users/bob", None).await.is(204);
        provider.people(&json!({"bob": {"groups": ["soc"]}}));
        assert!(refusal(&app.base, "bob").await.contains("bob exists"));
    }

    async fn a_person_who_was_forgotten_stays_out_and_no_other_gets_the_name(database: Database) {
        let mut provider = OpenIdProvider::start();
        let (app, admin) = manager_with(database, &mut provider, |_| ()).await;
        provider.people(&json!({"alice": {"groups": ["soc"]}, "other": {"preferred_username": "alice", "groups": ["soc"]}}));
        session(&Client::anonymous(&app.base), &app.base, "alice").await;
        admin.delete("/v1/users/alice", None).await.is(204);
        app.advance(301);
        let pseudonym = admin.post("/v1/users/alice/forget", &json!({})).await.is(200)["pseudonym"].clone();
        let pseudonym = pseudonym.as_str().unwrap();
        let refused = refusal(&app.base, "alice").await;
        assert!(refused.contains(&format!("{pseudonym} is disabled")), "{refused}");
        // The same subject with another name is the same person.
        provider.people(&json!({"alice": {"preferred_username": "al", "groups": ["soc"]}}));
        let refused = refusal(&app.base, "alice").await;
        assert!(refused.contains(&format!("{pseudonym} is disabled")), "{refused}");
        provider.people(&json!({"other": {"preferred_username": "alice", "groups": ["soc"]}}));
        let refused = refusal(&app.base, "other").await;
        assert!(refused.contains("a name is never given again"), "{refused}");
        let names = admin.list("/v1/users").await;
        assert_eq!(names.len(), 1, "{names:?}");
    }

    async fn a_person_by_password_key_and_provider_is_one_in_a_quorum(database: Database) {
        let mut provider = OpenIdProvider::start();
        let (app, admin) = manager_with(database, &mut provider, |_| ()).await;
        provider.people(&json!({"7": {"groups": ["soc"]}, "bob": {"groups": ["soc"]}}));
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("asks");
        policy["mode"] = json!("approve");
        policy["approval"] = json!({"quorum": 2, "within": "1h"});
        admin.policy(&policy).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202);
        let response = answer["responses"][0].as_str().unwrap();
        let by_password = app.session(&admin, "alice", "analyst").await;
        let by_key = by_password.personal_key("k", "analyst").await;
        link(&admin, "alice", &json!({"subject": "7"})).await.is(200);
        let by_provider = client(&admin, &session(&admin, &app.base, "7").await);
        let approve = async |client: &Client| {
            client.post(&format!("/v1/responses/{response}/approve"), &json!({"reason": "right"})).await
        };
        approve(&by_provider).await.is(200);
        for again in [&by_password, &by_key] {
            approve(again).await.is_problem(409);
        }
        let state = async || admin.get(&format!("/v1/responses/{response}")).await.is(200)["state"].clone();
        assert_eq!(state().await, "awaiting_approval");
        approve(&client(&admin, &session(&admin, &app.base, "bob").await)).await.is(200);
        assert_eq!(state().await, "active");
    }
}

#[tokio::test]
async fn every_algorithm_and_kind_of_client_works_and_keys_may_change() {
    let mut provider = OpenIdProvider::start();
    provider.people(&json!({"alice": {"groups": ["soc"]}}));
    for (alg, auth, in_id_token) in [
        ("RS256", "client_secret_basic", false),
        ("PS256", "client_secret_post", false),
        ("ES256", "none", true),
        ("EdDSA", "client_secret_basic", true),
    ] {
        provider.set(&json!({"alg": alg, "auth": auth, "in_id_token": in_id_token}));
        let (app, admin) = manager_with(Database::sqlite(), &mut provider, |corp| {
            if auth == "none" {
                corp.client_secret_file = PathBuf::new();
            }
        })
        .await;
        session(&admin, &app.base, "alice").await;
        // New keys are read when a token names one of them, and at most every ten seconds.
        provider.set(&json!({"rotate": true}));
        let why = refusal(&app.base, "alice").await;
        assert!(why.contains("a key that the provider does not publish"), "{alg}: {why}");
        app.advance(10);
        session(&admin, &app.base, "alice").await;
    }
}

#[tokio::test]
async fn a_provider_that_is_away_stops_its_own_logins_only_and_is_named() {
    let mut provider = OpenIdProvider::start();
    let (app, admin) = manager_with(Database::sqlite(), &mut provider, |_| ()).await;
    let mut browser = Browser::new();
    let at_provider = browser.step(&start_url(&app.base)).await.unwrap();
    assert!(at_provider.starts_with(&provider.issuer), "{at_provider}");
    provider.stop();
    // It is known for an hour; what is asked of it then fails.
    let state = told(&at_provider)["state"].clone();
    let callback = format!("{}/v1/auth/oidc/corp/callback?state={state}&code=x&iss={}", app.base, provider.issuer);
    let back = told(&browser.step(&callback).await.unwrap());
    assert_eq!(back["error"], "temporarily_unavailable");
    app.advance(3600);
    let answer = browser.step(&start_url(&app.base)).await.unwrap_err();
    let problem = answer.is_problem(503);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("the OpenID provider corp ({}) does not answer", provider.issuer)), "{detail}");
    assert!(detail.contains("Logins with a password work"), "{detail}");
    assert!(answer.header("retry-after").is_some());
    app.session(&admin, "alice", "viewer").await.get("/v1/whoami").await.is(200);
}

#[tokio::test]
async fn a_provider_that_comes_late_holds_up_no_start() {
    let mut provider = OpenIdProvider::start();
    let mut corp = provider.configuration();
    provider.stop();
    corp.default_role = "viewer".into();
    let (app, _) = manager_at_now(Database::sqlite(), |config| config.oidc = vec![corp]).await;
    Browser::new().step(&start_url(&app.base)).await.unwrap_err().is_problem(503);
}

#[tokio::test]
async fn a_login_code_is_good_once_for_a_minute_and_for_its_verifier() {
    let mut provider = OpenIdProvider::start();
    let (app, admin) = manager_with(Database::sqlite(), &mut provider, |_| ()).await;
    provider.people(&json!({"alice": {"groups": ["soc"]}}));
    let code = async || Browser::new().log_in(&app.base, "alice").await["code"].clone();
    let used = code().await;
    exchange(&admin, &used, VERIFIER).await.is(200);
    exchange(&admin, &used, VERIFIER).await.is_problem(401);
    let tried = code().await;
    exchange(&admin, &tried, "another").await.is_problem(401);
    exchange(&admin, &tried, VERIFIER).await.is_problem(401);
    let late = code().await;
    app.advance(59);
    exchange(&admin, &late, VERIFIER).await.is(200);
    let late = code().await;
    app.advance(60);
    exchange(&admin, &late, VERIFIER).await.is_problem(401);
    let disabled = code().await;
    admin.patch("/v1/users/alice", &json!({"is_disabled": true}), "\"1\"").await.is(200);
    exchange(&admin, &disabled, VERIFIER).await.is_problem(401);
    for body in [json!({"login_code": "x"}), json!({"login_code": "x", "code_verifier": "y", "username": "alice"})] {
        assert_eq!(admin.post("/v1/auth/token", &body).await.points_at(), [""]);
    }
}

#[tokio::test]
async fn a_name_that_is_no_user_name_is_refused_with_its_claim() {
    let mut provider = OpenIdProvider::start();
    let (app, admin) = manager_with(Database::sqlite(), &mut provider, |corp| {
        corp.username_domain = "example.org".into();
        corp.default_role = "viewer".into();
    })
    .await;
    provider.people(&json!({
        "1": {"preferred_username": "Alice"}, "2": {"preferred_username": "alice@example.com"},
        "3": {"preferred_username": null}, "4": {"preferred_username": "alice@example.org"},
    }));
    for (person, words) in
        [("1", "preferred_username holds \"Alice\""), ("2", "alice@example.com"), ("3", "no claim preferred_username")]
    {
        let why = refusal(&app.base, person).await;
        assert!(why.contains(words), "{person}: {why}");
    }
    assert_eq!(session(&admin, &app.base, "4").await["username"], "alice");
}

#[tokio::test]
async fn a_login_begins_only_for_a_program_on_this_host() {
    let mut provider = OpenIdProvider::start();
    let (_app, admin) = manager_with(Database::sqlite(), &mut provider, |_| ()).await;
    let start = async |redirect_uri: &str, challenge: &str| {
        let query = [("redirect_uri", redirect_uri), ("code_challenge", challenge)];
        let url = reqwest::Url::parse_with_params("http://x/v1/auth/oidc/corp/start", query).unwrap();
        admin.get(&format!("{}?{}", url.path(), url.query().unwrap())).await
    };
    let right = challenge(VERIFIER);
    for address in
        ["https://evil.example/", "http://127.0.0.1.evil.example:9/", "http://localhost:9/", "//127.0.0.1:9/"]
    {
        assert_eq!(start(address, &right).await.points_at(), ["/redirect_uri"], "{address}");
    }
    assert_eq!(start(PROGRAM, "plain").await.points_at(), ["/code_challenge"]);
    admin.get("/v1/auth/oidc/other/start?redirect_uri=x&code_challenge=y").await.is_problem(404);
    // One address begins a bounded number of logins in a minute.
    // Two more are allowed each second, however long the test takes.
    let mut is_limited = false;
    for _ in 0..2000 {
        let answer = start(PROGRAM, "plain").await;
        is_limited = answer.status == 429 && answer.header("retry-after").is_some();
        if is_limited {
            break;
        }
        answer.is_problem(422);
    }
    assert!(is_limited);
    let answer = Answer::to(admin.request(Method::GET, "/v1/auth/oidc")).await;
    answer.is(200);
}
