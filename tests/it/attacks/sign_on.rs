//! Attacks on single sign-on: forged and swapped ID tokens of a hostile provider, which the test
//! plays, and browsers that did not begin the login.

use std::sync::{Arc, Mutex};

use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use riposte::config::OidcProvider;
use riposte_protocol::jws;
use riposte_protocol::key::SigningKey;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::agent::new_key;
use crate::support::openid::{
    Browser, OpenIdProvider, PROGRAM, VERIFIER, exchange, manager_at_now, manager_with, refusal, silent_provider,
    start_url, told,
};
use crate::support::{Client, Database, TestApp};

/// What the hostile provider answers.
#[derive(Clone, Default)]
struct Script {
    discovery: Value,
    keys: Value,
    tokens: Value,
    user_info: Value,
}

/// A provider that sends what the test wants.
struct HostileProvider {
    issuer: String,
    key: SigningKey,
    script: Arc<Mutex<Script>>,
    _serving: JoinSet<()>,
}

impl HostileProvider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let answer = |part: fn(&Script) -> Value| {
            let script = Arc::clone(&script);
            move || async move { Json(part(&script.lock().unwrap())) }
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(answer(|script| script.discovery.clone())))
            .route("/keys", get(answer(|script| script.keys.clone())))
            .route("/token", post(answer(|script| script.tokens.clone())))
            .route("/me", get(answer(|script| script.user_info.clone())));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let key = new_key();
        {
            let mut script = script.lock().unwrap();
            script.discovery = json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
                "userinfo_endpoint": format!("{issuer}/me"),
                "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
            });
            script.keys = json!({"keys": [public(&key, "one")]});
        }
        Self { issuer, key, script, _serving: serving }
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    async fn manager(&self) -> (TestApp, Client) {
        let corp = OidcProvider { issuer: self.issuer.clone(), ..silent_provider() };
        manager_at_now(Database::sqlite(), |config| config.oidc = vec![corp]).await
    }

    /// The claims of a right ID token.
    fn claims(&self, app: &TestApp, nonce: &str) -> Value {
        let now = app.clock.now().as_secs();
        json!({
            "iss": self.issuer, "sub": "mallory", "aud": "riposte", "exp": now + 300, "iat": now, "nonce": nonce,
            "preferred_username": "mallory", "groups": [],
        })
    }

    fn sign(&self, claims: &Value) -> String {
        jws::sign(&self.key, "JWT", "one", claims).unwrap()
    }
}

fn public(key: &SigningKey, kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": key.verifying_key().text(), "kid": kid, "use": "sig"})
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Begins a login; returns the browser, and what it takes to the provider.
async fn begin(base: &str) -> (Browser, std::collections::BTreeMap<String, String>) {
    let mut browser = Browser::new();
    let at_provider = browser.step(&start_url(base)).await.unwrap();
    (browser, told(&at_provider))
}

/// Where the provider sends the browser back to.
fn callback(base: &str, state: &str, more: &str) -> String {
    format!("{base}/v1/auth/oidc/corp/callback?state={state}{more}")
}

/// A login for which the provider sends the ID token that `forge` makes; returns what the program
/// is told.
async fn attempt(
    provider: &HostileProvider,
    app: &TestApp,
    forge: impl FnOnce(&HostileProvider, Value) -> String,
) -> std::collections::BTreeMap<String, String> {
    let (mut browser, asked) = begin(&app.base).await;
    let token = forge(provider, provider.claims(app, &asked["nonce"]));
    provider.change(|script| script.tokens = json!({"id_token": token, "access_token": "x"}));
    told(&browser.step(&callback(&app.base, &asked["state"], "&code=x")).await.unwrap())
}

#[tokio::test]
async fn an_id_token_is_refused_unless_all_of_it_is_right() {
    let provider = HostileProvider::start().await;
    let (app, admin) = provider.manager().await;
    let now = app.clock.now().as_secs();
    type Forge = Box<dyn FnOnce(&HostileProvider, Value) -> String>;
    let with = |claim: &'static str, value: Value| -> Forge {
        Box::new(move |provider, mut claims| {
            claims[claim] = value;
            provider.sign(&claims)
        })
    };
    let without = |claim: &'static str| -> Forge {
        Box::new(move |provider, mut claims| {
            claims.as_object_mut().unwrap().remove(claim);
            provider.sign(&claims)
        })
    };
    let unsigned =
        |header: Value| -> Forge { Box::new(move |_, claims| format!("{}.{}.", encode(&header), encode(&claims))) };
    let forged: Vec<(&str, &str, Forge)> = vec![
        ("another audience", "claim aud", with("aud", json!("other"))),
        ("audiences without azp", "claim azp", with("aud", json!(["riposte", "other"]))),
        ("the token of another client", "claim azp", with("azp", json!("other"))),
        ("another issuer", "claim iss", with("iss", json!("http://127.0.0.1:1"))),
        ("another login's nonce", "claim nonce", with("nonce", json!("AAAA"))),
        ("no nonce", "claim nonce", without("nonce")),
        ("no subject", "malformed", without("sub")),
        ("an empty subject", "claim sub", with("sub", json!(""))),
        ("no expiry", "malformed", without("exp")),
        ("expired", "not valid now (exp)", with("exp", json!(now - 60))),
        ("dated ahead", "not valid now (iat)", with("iat", json!(now + 61))),
        ("alg none", "algorithm", unsigned(json!({"alg": "none", "kid": "one"}))),
        ("alg none, the other way", "algorithm", unsigned(json!({"alg": "None"}))),
        ("no signature", "signature", unsigned(json!({"alg": "EdDSA", "kid": "one"}))),
        (
            "HS256 with the public key",
            "algorithm",
            Box::new(|provider, claims| {
                let signed = format!("{}.{}", encode(&json!({"alg": "HS256", "kid": "one"})), encode(&claims));
                let mut mac = Hmac::<Sha256>::new_from_slice(provider.key.verifying_key().text().as_bytes()).unwrap();
                mac.update(signed.as_bytes());
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
            }),
        ),
        (
            "another key with the right id",
            "signature",
            Box::new(|_, claims| jws::sign(&new_key(), "JWT", "one", &claims).unwrap()),
        ),
        (
            "a key that is not published",
            "does not publish",
            Box::new(|_, claims| jws::sign(&new_key(), "JWT", "two", &claims).unwrap()),
        ),
        (
            "claims of another token",
            "signature",
            Box::new(|provider, claims| {
                let token = provider.sign(&claims);
                let parts: Vec<&str> = token.split('.').collect();
                let mut other = claims;
                other["sub"] = json!("alice");
                format!("{}.{}.{}", parts[0], encode(&other), parts[2])
            }),
        ),
        ("no token at all", "algorithm", Box::new(|_, _| "x".to_owned())),
    ];
    for (what, words, forge) in forged {
        let told = attempt(&provider, &app, forge).await;
        let why = &told["error_description"];
        assert!(why.contains(words) && !told.contains_key("code"), "{what}: {told:?}");
    }
    assert_eq!(admin.list("/v1/users").await.len(), 0);
    // The same provider with a right token: the refusals above have their reasons.
    let told = attempt(&provider, &app, |provider, claims| provider.sign(&claims)).await;
    exchange(&admin, &told["code"], VERIFIER).await.is(200);
    let told = attempt(&provider, &app, |provider, mut claims| {
        claims["aud"] = json!(["riposte", "other"]);
        claims["azp"] = json!("riposte");
        provider.sign(&claims)
    })
    .await;
    exchange(&admin, &told["code"], VERIFIER).await.is(200);
}

#[tokio::test]
async fn a_symmetric_signature_of_a_real_provider_is_refused() {
    let mut provider = OpenIdProvider::start();
    let (app, _) = manager_with(Database::sqlite(), &mut provider, |_| ()).await;
    provider.set(&json!({"alg": "HS256", "accounts": {"alice": {"groups": ["soc"]}}}));
    let why = refusal(&app.base, "alice").await;
    assert!(why.contains("algorithm is not one that Riposte accepts"), "{why}");
}

#[tokio::test]
async fn a_login_is_finished_by_its_own_browser_and_once() {
    let provider = HostileProvider::start().await;
    let (app, admin) = provider.manager().await;
    // A victim's browser is sent to the end of the attacker's login.
    let (_, asked) = begin(&app.base).await;
    let forced = callback(&app.base, &asked["state"], "&code=x");
    Browser::new().step(&forced).await.unwrap_err().is_problem(403);
    // Another login of the same browser does not stand in for it.
    let (mut browser, first) = begin(&app.base).await;
    let (_, second) = begin(&app.base).await;
    browser.step(&callback(&app.base, &second["state"], "&code=x")).await.unwrap_err().is_problem(403);
    let token = provider.sign(&provider.claims(&app, &first["nonce"]));
    provider.change(|script| script.tokens = json!({"id_token": token}));
    let right = callback(&app.base, &first["state"], "&code=x");
    let location = browser.step(&right).await.unwrap();
    assert!(location.starts_with(PROGRAM) && told(&location).contains_key("code"), "{location}");
    browser.step(&right).await.unwrap_err().is_problem(403);
    for state in ["", "x", &"x".repeat(4000)] {
        browser.step(&callback(&app.base, state, "&code=x")).await.unwrap_err().is_problem(403);
    }
    // Ten minutes are enough for a person.
    let (mut browser, asked) = begin(&app.base).await;
    app.advance(600);
    browser.step(&callback(&app.base, &asked["state"], "&code=x")).await.unwrap_err().is_problem(403);
    let entries = app
        .in_time("the failures are in the audit log", async || {
            let entries = admin.list("/v1/audit?noun=user").await;
            entries.iter().any(|entry| entry["verb"] == "failed to log in").then_some(entries)
        })
        .await;
    assert!(
        entries.iter().all(|entry| entry["noun_id"] == "(unknown)" || entry["noun_id"] == "mallory"),
        "{entries:?}"
    );
}

#[tokio::test]
async fn an_endpoint_on_another_internal_host_is_called_if_the_configuration_lists_it() {
    let (provider, keys) = (HostileProvider::start().await, HostileProvider::start().await);
    let port = keys.issuer.rsplit_once(':').unwrap().1.to_owned();
    let corp = OidcProvider { issuer: provider.issuer.clone(), ..silent_provider() };
    let (app, _) = manager_at_now(Database::sqlite(), |config| {
        config.oidc = vec![corp];
        config.egress.allow = vec![format!("127.0.0.1:{port}")];
    })
    .await;
    provider.change(|script| script.discovery["jwks_uri"] = json!(format!("{}/keys", keys.issuer)));
    let (_, asked) = begin(&app.base).await;
    assert!(asked.contains_key("state"), "{asked:?}");
}

#[tokio::test]
async fn a_provider_cannot_answer_for_another_or_send_the_manager_elsewhere() {
    let provider = HostileProvider::start().await;
    let (app, admin) = provider.manager().await;
    // Another issuer's discovery document, or endpoints of another scheme.
    let right = provider.script.lock().unwrap().discovery.clone();
    for (key, value, words) in [
        ("issuer", json!(format!("{}/", provider.issuer)), "calls itself"),
        ("token_endpoint", json!("file:///etc/passwd"), "is not https"),
        ("jwks_uri", json!("gopher://127.0.0.1/"), "is not https"),
        ("jwks_uri", json!("http://192.0.2.1/keys"), "is not https"),
        ("jwks_uri", json!(7), "invalid type"),
        ("authorization_endpoint", json!("javascript:alert(1)"), "is not https"),
    ] {
        provider.change(|script| {
            script.discovery = right.clone();
            script.discovery[key] = value;
        });
        let problem = Browser::new().step(&start_url(&app.base)).await.unwrap_err().is_problem(503);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{key}: {problem}");
        app.advance(5);
    }
    // Endpoints on this host and in its networks: what listens there is never asked.
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inner.local_addr().unwrap().port();
    for (url, words) in [
        (format!("http://127.0.0.1:{port}/keys"), "is internal (loopback"),
        (format!("https://127.0.0.1:{port}/keys"), "is internal (loopback"),
        (format!("https://localhost:{port}/keys"), "refusing to call localhost:"),
        (format!("https://[::ffff:127.0.0.1]:{port}/keys"), "is internal (loopback"),
        ("https://10.0.0.1/keys".to_owned(), "add \"10.0.0.1:443\" to allow in the configuration's [egress]"),
        ("https://169.254.169.254/latest/meta-data/".to_owned(), "no setting allows that"),
    ] {
        provider.change(|script| {
            script.discovery = right.clone();
            script.discovery["jwks_uri"] = json!(url);
        });
        let problem = Browser::new().step(&start_url(&app.base)).await.unwrap_err().is_problem(503);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{url}: {problem}");
        app.advance(5);
    }
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), inner.accept()).await;
    assert!(asked.is_err(), "the manager connected to {asked:?}");
    // A mixed-up response: `iss` names another provider, or is missing where it was announced.
    provider.change(|script| {
        script.discovery = right.clone();
        script.discovery["authorization_response_iss_parameter_supported"] = json!(true);
    });
    for more in ["&code=x", "&code=x&iss=http://127.0.0.1:1"] {
        let (mut browser, asked) = begin(&app.base).await;
        let told = told(&browser.step(&callback(&app.base, &asked["state"], more)).await.unwrap());
        assert!(told["error_description"].contains("not from this provider"), "{told:?}");
    }
    // The user info of another person, for a token whose claims lack the name.
    let more = format!("&code=x&iss={}", provider.issuer);
    let (mut browser, asked) = begin(&app.base).await;
    let mut claims = provider.claims(&app, &asked["nonce"]);
    claims.as_object_mut().unwrap().remove("preferred_username");
    let token = provider.sign(&claims);
    provider.change(|script| {
        script.tokens = json!({"id_token": token, "access_token": "x"});
        script.user_info = json!({"sub": "alice", "preferred_username": "alice"});
    });
    let back = told(&browser.step(&callback(&app.base, &asked["state"], &more)).await.unwrap());
    assert!(back["error_description"].contains("of another person"), "{back:?}");
    // A response beyond every need.
    let (mut browser, asked) = begin(&app.base).await;
    provider.change(|script| script.tokens = json!({"id_token": "x".repeat(2 * 1024 * 1024)}));
    let back = told(&browser.step(&callback(&app.base, &asked["state"], &more)).await.unwrap());
    assert!(back["error_description"].contains("more than 1048576 bytes"), "{back:?}");
    // What the provider says is shown, and no more of it than a few words.
    let (mut browser, asked) = begin(&app.base).await;
    let refused = format!("&error=access_denied{}&iss={}", "x".repeat(500), provider.issuer);
    let back = told(&browser.step(&callback(&app.base, &asked["state"], &refused)).await.unwrap());
    let why = &back["error_description"];
    assert!(why.contains("the provider says: access_denied") && why.len() < 150, "{why}");
    let steering = callback(&app.base, &asked["state"], "&error=%1b[31m");
    browser.step(&steering).await.unwrap_err().is_problem(422);
    assert_eq!(admin.list("/v1/users").await.len(), 0);
}
