//! People: users, logins, sessions and their tokens. Personal keys and quorums are in `quorums.rs`.

use std::process::Command;
use std::time::Duration;

use riposte_protocol::jws;
use serde_json::{Value, json};

use crate::support::agent::new_key;
use crate::support::app::PASSWORD;
use crate::support::{Answer, Client, Database, TestApp};

const NEW: &str = "staple battery horse";

async fn log_in(client: &Client, name: &str, password: &str) -> Answer {
    client.post("/v1/auth/token", &json!({"username": name, "password": password})).await
}

async fn refresh(client: &Client, token: &Value) -> Answer {
    client.post("/v1/auth/token", &json!({"refresh_token": token})).await
}

fn detail(problem: &Value) -> String {
    problem["detail"].as_str().unwrap().to_owned()
}

on_both_databases! {
    async fn a_person_gets_in_with_a_temporary_password_and_stays_after_a_restart(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let anonymous = Client::anonymous(&app.base);
        let made = admin.post("/v1/users", &json!({"name": "alice", "role": "analyst"})).await.is(201);
        let temporary = made["temporary_password"].as_str().unwrap();
        assert_eq!(made["must_change_password"], true);
        let problem = log_in(&anonymous, "alice", temporary).await.is_problem(403);
        assert_eq!(problem["type"], "urn:riposte:problem:password-change-required");
        let change = |new: &str| json!({"username": "alice", "password": temporary, "new_password": new});
        for weak in ["alice", "eleven char", temporary] {
            let answer = anonymous.post("/v1/auth/password", &change(weak)).await;
            assert_eq!(answer.points_at(), ["/new_password"], "{weak}");
        }
        anonymous.post("/v1/auth/password", &change(NEW)).await.is(204);
        log_in(&anonymous, "alice", temporary).await.is_problem(401);
        let tokens = log_in(&anonymous, "alice", NEW).await.is(200);
        assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
        assert_eq!(tokens["refresh_expires_at"], "2026-11-24T22:00:00.000Z");
        let alice = anonymous.with_key(tokens["access_token"].as_str().unwrap());
        let who = alice.get("/v1/whoami").await.is(200);
        assert_eq!((&who["principal"], &who["kind"], &who["via"]), (&json!("user:alice"), &json!("user"), &json!("session")));
        assert_eq!((&who["role"], &who["address"]), (&json!("analyst"), &json!("127.0.0.1")));
        assert_eq!(tokens["scope"], "read pull_feeds respond approve own_keys identify");
        alice.get("/v1/users").await.is_problem(403);
        let (app, admin) = app.restart().await;
        let alice = Client::anonymous(&app.base).with_key(alice.key());
        alice.get("/v1/whoami").await.is(200);
        alice.delete("/v1/auth/token", None).await.is(204);
        let ended = alice.get("/v1/whoami").await.is_problem(401);
        assert!(detail(&ended).contains("log in again"), "{ended}");
        refresh(&alice, &tokens["refresh_token"]).await.is_problem(401);
        let history = admin.history("user", "alice").await;
        let verbs: Vec<&str> = history.iter().map(|(_, verb)| verb.as_str()).collect();
        // What failed is written at the latest when the manager stops.
        assert_eq!(verbs, ["created", "changed the password", "logged in", "failed to log in", "logged out"]);
        assert_eq!(history[2].0, "user:alice");
    }

    async fn a_refresh_token_is_valid_once_and_a_copy_ends_the_session(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.session(&admin, "alice", "viewer").await;
        let first = log_in(&admin, "alice", PASSWORD).await.is(200);
        let second = refresh(&admin, &first["refresh_token"]).await.is(200);
        app.advance(10);
        let problem = refresh(&admin, &first["refresh_token"]).await.is_problem(409);
        assert!(detail(&problem).contains("already refreshed"), "{problem}");
        let third = refresh(&admin, &second["refresh_token"]).await.is(200);
        let alice = admin.with_key(third["access_token"].as_str().unwrap());
        alice.get("/v1/whoami").await.is(200);
        app.advance(1);
        // The first one is two generations old, and is still known as a copy.
        refresh(&admin, &first["refresh_token"]).await.is_problem(401);
        alice.get("/v1/whoami").await.is_problem(401);
        refresh(&admin, &third["refresh_token"]).await.is_problem(401);
        let history = admin.history("user", "alice").await;
        assert_eq!(history.last().unwrap(), &("riposte".to_owned(), "reused a refresh token".to_owned()));
        // Two at the same time: one continues, the other hears of it.
        let tokens = log_in(&admin, "alice", PASSWORD).await.is(200);
        let both = tokio::join!(refresh(&admin, &tokens["refresh_token"]), refresh(&admin, &tokens["refresh_token"]));
        let mut statuses = [both.0.status, both.1.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }

    async fn a_disabled_user_is_out_at_once_and_a_name_is_never_given_again(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let session = app.session(&admin, "alice", "analyst").await;
        let key = session.personal_key("k", "analyst").await;
        for client in [&session, &key] {
            client.get("/v1/alerts").await.is(200);
        }
        admin.patch("/v1/users/alice", &json!({"is_disabled": true}), "\"7\"").await.is_problem(412);
        Answer::to(admin.request(reqwest::Method::PATCH, "/v1/users/alice").json(&json!({}))).await.is_problem(428);
        let answer = admin.patch("/v1/users/alice", &json!({"is_disabled": true}), "\"1\"").await;
        assert_eq!(answer.header("etag"), Some("\"2\""));
        for client in [&session, &key] {
            client.get("/v1/alerts").await.is_problem(401);
        }
        log_in(&admin, "alice", PASSWORD).await.is_problem(401);
        admin.patch("/v1/users/alice", &json!({"is_disabled": false, "role": "viewer"}), "\"2\"").await.is(200);
        session.get("/v1/alerts").await.is_problem(401);
        // The key is there again, with the rights that the person has now.
        assert_eq!(key.get("/v1/whoami").await.is(200)["role"], "viewer");
        let tokens = log_in(&admin, "alice", PASSWORD).await.is(200);
        let session = admin.with_key(tokens["access_token"].as_str().unwrap());
        admin.patch("/v1/users/alice", &json!({"role": "engineer"}), "\"3\"").await.is(200);
        // The role is the one of now, whatever the token says.
        assert_eq!(session.get("/v1/whoami").await.is(200)["role"], "engineer");
        admin.delete("/v1/users/alice", None).await.is(204);
        session.get("/v1/whoami").await.is_problem(401);
        key.get("/v1/whoami").await.is_problem(401);
        admin.post("/v1/users", &json!({"name": "alice", "role": "viewer"})).await.is_problem(409);
        admin.patch("/v1/users/alice", &json!({"is_disabled": false}), "\"5\"").await.is_problem(404);
        admin.post("/v1/users/alice/reset-password", &json!({})).await.is_problem(404);
        admin.delete("/v1/users/alice", None).await.is_problem(404);
    }

    async fn a_one_time_code_is_needed_after_it_was_confirmed_and_each_is_used_once(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let alice = app.session(&admin, "alice", "viewer").await;
        let offered = alice.post("/v1/auth/totp", &json!({})).await.is(200);
        let secret = offered["secret"].as_str().unwrap().to_owned();
        assert!(offered["otpauth_uri"].as_str().unwrap().contains(&format!("secret={secret}&")), "{offered}");
        log_in(&admin, "alice", PASSWORD).await.is(200);
        let code = || totp(&secret, &app);
        alice.post("/v1/auth/totp/confirm", &json!({"code": "abc"})).await.is_problem(422);
        alice.post("/v1/auth/totp/confirm", &json!({"code": code()})).await.is(204);
        alice.post("/v1/auth/totp", &json!({})).await.is_problem(409);
        let login = |code: &str| json!({"username": "alice", "password": PASSWORD, "totp": code});
        let problem = log_in(&admin, "alice", PASSWORD).await.is_problem(401);
        assert_eq!(problem["type"], "urn:riposte:problem:totp-required");
        // The code that confirmed is used up.
        admin.post("/v1/auth/token", &login(&code())).await.is_problem(401);
        app.advance(30);
        let used = code();
        admin.post("/v1/auth/token", &login(&used)).await.is(200);
        admin.post("/v1/auth/token", &login(&used)).await.is_problem(401);
        let remove = |code: String| {
            Answer::to(alice.request(reqwest::Method::DELETE, "/v1/auth/totp").json(&json!({"code": code})))
        };
        assert_eq!(remove(used).await.points_at(), ["/code"]);
        app.advance(30);
        remove(code()).await.is(204);
        log_in(&admin, "alice", PASSWORD).await.is(200);
        // A person who lost the device.
        let offered = alice.post("/v1/auth/totp", &json!({})).await.is(200);
        let secret = offered["secret"].as_str().unwrap().to_owned();
        app.advance(30);
        alice.post("/v1/auth/totp/confirm", &json!({"code": totp(&secret, &app)})).await.is(204);
        let reset = admin.post("/v1/users/alice/reset-password", &json!({"remove_totp": true})).await.is(200);
        let temporary = reset["temporary_password"].as_str().unwrap();
        alice.get("/v1/whoami").await.is_problem(401);
        let change = json!({"username": "alice", "password": temporary, "new_password": NEW});
        admin.post("/v1/auth/password", &change).await.is(204);
        log_in(&admin, "alice", NEW).await.is(200);
    }
}

/// The code of now, by Python's standard library: another implementation of RFC 6238.
pub(crate) fn totp(secret: &str, app: &TestApp) -> String {
    let program = "import base64, hmac, struct, sys
secret, secs = sys.argv[1], int(sys.argv[2])
digest = hmac.digest(base64.b32decode(secret + '=' * (-len(secret) % 8)), struct.pack('>q', secs // 30), 'sha1')
offset = digest[-1] & 15
print('%06d' % ((struct.unpack('>I', digest[offset:offset + 4])[0] & 0x7fffffff) % 1000000))";
    let now = app.clock.now().as_secs().to_string();
    let out = Command::new("python3").args(["-c", program, secret, &now]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// The person, the password, the state of the user: the answer to a failed login tells none apart.
#[tokio::test]
async fn a_failed_login_says_the_same_whatever_the_reason() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |_| ()).await;
    app.session(&admin, "alice", "viewer").await;
    app.session(&admin, "gone", "viewer").await;
    admin.delete("/v1/users/gone", None).await.is(204);
    let mut said = Vec::new();
    for (name, password) in
        [("alice", "wrong"), ("gone", PASSWORD), ("mallory", PASSWORD), ("", ""), ("not a name", PASSWORD)]
    {
        said.push(log_in(&admin, name, password).await.is_problem(401));
        // Each from the beginning, so that no address is locked.
        app.advance(3600);
    }
    assert!(said.iter().all(|problem| *problem == said[0]), "{said:?}");
    for body in [json!({}), json!({"username": "alice"}), json!({"refresh_token": "x", "username": "alice"})] {
        assert_eq!(admin.post("/v1/auth/token", &body).await.points_at(), [""]);
    }
    refresh(&admin, &json!("rir_x")).await.is_problem(401);
}

#[tokio::test]
async fn failures_lock_a_user_elsewhere_and_never_where_the_user_works() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        config.server.trusted_proxies = vec!["127.0.0.1/32".into()];
    })
    .await;
    app.session(&admin, "alice", "viewer").await;
    let from = async |address: &str, password: &str| {
        let login = json!({"username": "alice", "password": password});
        let request = admin.request(reqwest::Method::POST, "/v1/auth/token").json(&login);
        Answer::to(request.header("x-forwarded-for", address)).await
    };
    from("192.0.2.1", PASSWORD).await.is(200);
    let failed = from("198.51.100.1", "wrong").await.is_problem(401);
    for n in 2..=5 {
        from(&format!("198.51.100.{n}"), "wrong").await.is_problem(401);
    }
    // Locked for all new addresses, in the same words; the known one is not concerned.
    assert_eq!(from("203.0.113.1", PASSWORD).await.is_problem(401), failed);
    from("192.0.2.1", PASSWORD).await.is(200);
    app.advance(2);
    from("203.0.113.1", PASSWORD).await.is(200);
    // One address as such: five failures are free.
    for n in 0..5 {
        let login = json!({"username": format!("invented-{n}"), "password": "wrong"});
        let request = admin.request(reqwest::Method::POST, "/v1/auth/token").json(&login);
        Answer::to(request.header("x-forwarded-for", "198.51.100.77")).await.is_problem(401);
    }
    let locked = from("198.51.100.77", PASSWORD).await;
    locked.is_problem(429);
    assert_eq!(locked.header("retry-after"), Some("1"));
    app.advance(1);
    from("198.51.100.77", PASSWORD).await.is(200);
    // In the audit log: once a minute for each user and address, and no invented name.
    let entries = app
        .in_time("failed logins are in the audit log", async || {
            let entries = admin.list("/v1/audit?noun=user").await;
            let failed = |entry: &&Value| entry["verb"] == "failed to log in";
            let of_unknown = entries.iter().filter(failed).any(|entry| entry["noun_id"] == "(unknown)");
            of_unknown.then_some(entries)
        })
        .await;
    let of = |verb: &str| entries.iter().filter(|entry| entry["verb"] == verb).collect::<Vec<_>>();
    assert!(of("failed to log in").iter().any(|entry| entry["detail"] == "1 times from 198.51.100.1"), "{entries:?}");
    assert_eq!(of("locked out").len(), 1, "{entries:?}");
    assert!(!entries.iter().any(|entry| entry.to_string().contains("invented")), "{entries:?}");
}

#[tokio::test]
async fn an_access_token_is_refused_unless_all_of_it_is_right() {
    let (app, admin) = TestApp::start().await;
    let alice = app.session(&admin, "alice", "admin").await;
    alice.get("/v1/users").await.is(200);
    let (header, payload) = parts(alice.key());
    let set = admin.get("/.well-known/jwks.json").await.is(200);
    let x = set["keys"][1]["x"].as_str().unwrap();
    assert_eq!(header["kid"], set["keys"][1]["kid"]);
    let agent = app.enrol(&admin, "web-01", &json!({})).await;
    let forger = new_key();
    let forge = |typ: &str, claims: &Value| jws::sign(&forger, typ, header["kid"].as_str().unwrap(), claims).unwrap();
    let signature = alice.key().rsplit_once('.').unwrap().1;
    let with_header = |header: &Value| {
        let middle = alice.key().split('.').nth(1).unwrap();
        format!("{}.{middle}.{signature}", encode(header))
    };
    let confused = hs256(x, &json!({"alg": "HS256", "typ": "at+jwt", "kid": header["kid"]}), &payload);
    let none = json!({"alg": "none", "typ": "at+jwt", "kid": header["kid"]});
    let mut crit = header.clone();
    crit["crit"] = json!(["b64"]);
    for (what, token) in [
        ("no signature", format!("{}.{}.", encode(&none), encode(&payload))),
        ("alg none with the signature", with_header(&none)),
        ("HS256 with the public key", confused),
        ("crit", with_header(&crit)),
        ("another key", forge("at+jwt", &payload)),
        ("an agent's token", agent.token()),
        ("a command", forge("riposte-command+jwt", &payload)),
        ("too large", format!("{}.{}.{signature}", encode(&header), "A".repeat(5000))),
        ("a refresh token", "rir_00000000000000000000000000000000_x".to_owned()),
    ] {
        admin.with_key(&token).get("/v1/whoami").await.is_problem(401);
        println!("refused: {what}");
    }
    app.advance(899);
    alice.get("/v1/whoami").await.is(200);
    app.advance(1);
    let expired = alice.get("/v1/whoami").await.is_problem(401);
    assert!(detail(&expired).contains("expired"), "{expired}");
}

fn encode(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
}

fn parts(token: &str) -> (Value, Value) {
    use base64::Engine as _;
    let decode = |part: &str| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut parts = token.split('.');
    (decode(parts.next().unwrap()), decode(parts.next().unwrap()))
}

/// A token signed by HMAC with the text of the public key, as a confused verifier would accept it.
fn hs256(key: &str, header: &Value, payload: &Value) -> String {
    use base64::Engine as _;
    let signed = format!("{}.{}", encode(header), encode(payload));
    let program = "import hashlib, hmac, sys
sys.stdout.write(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), hashlib.sha256).hexdigest())";
    let out = Command::new("python3").args(["-c", program, key, &signed]).output().unwrap();
    let hex = String::from_utf8(out.stdout).unwrap();
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let signature = [bytes.clone(), bytes].concat();
    format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature))
}

/// The token and the key set are those of the standards: `PyJWT` verifies them.
#[tokio::test]
async fn another_program_verifies_an_access_token_by_the_key_set() {
    let (app, admin) = TestApp::start().await;
    let alice = app.session(&admin, "alice", "analyst").await;
    let set = Client::anonymous(&app.base).get("/.well-known/jwks.json").await;
    let kids: Vec<Value> = set.is(200)["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
    let program = "import json, sys, jwt
keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(sys.argv[1]).keys}
header = jwt.get_unverified_header(sys.argv[2])
assert header['typ'] == 'at+jwt', header
key = keys[header['kid']]
# The test's clock stands still at a time that may not be now.
options = {'verify_exp': False, 'verify_iat': False, 'verify_nbf': False, 'require': ['exp', 'iat', 'jti', 'sub']}
claims = jwt.decode(sys.argv[2], key, algorithms=['EdDSA'], audience='riposte', issuer='riposte', options=options)
print(json.dumps(claims))";
    let python = crate::conformance::python("python");
    let out = Command::new(python).args(["-c", program, &set.text, alice.key()]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let claims: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["scope"]),
        (&json!("alice"), &json!("read pull_feeds respond approve own_keys identify"))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    // A period later the current key is the previous one, and the next one was announced before.
    app.advance(30 * 86_400);
    let later = admin.get("/.well-known/jwks.json").await.is(200);
    let later: Vec<Value> = later["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(later[..2], kids[1..]);
}

/// Ten logins hash passwords for a quarter of a second and more; other requests do not wait.
#[tokio::test]
async fn logins_do_not_hold_up_other_requests() {
    let (app, admin) = TestApp::start().await;
    app.session(&admin, "alice", "viewer").await;
    let logins = async { futures_util::future::join_all((0..10).map(|_| log_in(&admin, "alice", PASSWORD))).await };
    let others = async {
        for _ in 0..50 {
            tokio::time::timeout(Duration::from_secs(2), admin.get("/v1/whoami")).await.unwrap().is(200);
        }
    };
    let (logins, ()) = tokio::join!(logins, others);
    assert!(logins.iter().all(|answer| answer.status == 200));
}

/// Guesses at the same time: those that are under way when the user is locked are refused, also a right
/// one, and do not prolong the wait.
#[tokio::test]
async fn a_burst_of_guesses_gets_no_more_than_the_free_ones() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        config.server.trusted_proxies = vec!["127.0.0.1/32".into()];
    })
    .await;
    app.session(&admin, "alice", "viewer").await;
    let guess = async |n: u32| {
        let password = if n == 19 { PASSWORD } else { "wrong" };
        let login = json!({"username": "alice", "password": password});
        let request = admin.request(reqwest::Method::POST, "/v1/auth/token").json(&login);
        Answer::to(request.header("x-forwarded-for", format!("198.51.100.{n}"))).await.status
    };
    let statuses = futures_util::future::join_all((0..19).map(guess)).await;
    assert_eq!(statuses, [401; 19]);
    assert_eq!(guess(19).await, 401);
    app.advance(1);
    assert_eq!(guess(19).await, 200);
}
