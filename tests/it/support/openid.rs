//! A real OpenID provider, npm's certified `oidc-provider` as a process on loopback
//! (`tests/oidc/provider.mjs`), and a browser that fills in its forms.
//! `scripts/test-deps.sh` installs the provider into `target/oidc`.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Response, Url};
use riposte::clock::Clock;
use riposte::config::{Config, OidcProvider};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{Answer, Client, Database, TestApp};
use crate::processes::{require, tied};

/// Where a program listens that a person logs in with. Nothing listens there: a test reads the
/// address that the browser is sent to.
pub(crate) const PROGRAM: &str = "http://127.0.0.1:9/done";
/// A verifier of that program.
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// The secret of the client at the provider; form-encoded it is another text.
const SECRET: &str = "a secret: with+signs&of=forms";
/// Redirects and forms of one login.
const STEPS: usize = 20;

/// The provider.
pub(crate) struct OpenIdProvider {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) issuer: String,
    dir: TempDir,
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        // It may have been stopped by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OpenIdProvider {
    /// Starts a provider that has no client yet.
    pub(crate) fn start() -> Self {
        require(&[("node", "nodejs")]);
        let target = Path::new(env!("CARGO_BIN_EXE_riposte")).ancestors().nth(2).unwrap().join("oidc");
        assert!(
            target.join("node_modules/oidc-provider").is_dir(),
            "oidc-provider is missing: run scripts/test-deps.sh"
        );
        let program = include_str!("../../oidc/provider.mjs");
        let mut command = tied(Path::new("node"));
        command.args(["--input-type=module", "--eval", program]).current_dir(target);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let issuer = answer(&mut output)["issuer"].as_str().unwrap().to_owned();
        Self { child, input, output, issuer, dir }
    }

    /// Changes the provider's configuration; see `provider.mjs`.
    pub(crate) fn set(&mut self, changes: &Value) {
        writeln!(self.input, "{changes}").unwrap();
        assert_eq!(answer(&mut self.output), json!({"done": true}));
    }

    /// Sets the claims of people.
    pub(crate) fn people(&mut self, accounts: &Value) {
        self.set(&json!({"accounts": accounts}));
    }

    /// Stops it, as if its host were away.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The configuration of a manager for it: the group `soc` are analysts, `leads` engineers, `admins`
    /// administrators.
    pub(crate) fn configuration(&self) -> OidcProvider {
        let secret = self.dir.path().join("secret");
        if !secret.exists() {
            let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&secret);
            writeln!(file.unwrap(), "{SECRET}").unwrap();
        }
        let roles = [("soc", "analyst"), ("leads", "engineer"), ("admins", "admin")];
        OidcProvider {
            name: "corp".into(),
            issuer: self.issuer.clone(),
            client_id: "riposte".into(),
            client_secret_file: secret,
            roles: roles.map(|(group, role)| (group.into(), role.into())).into(),
            ..OidcProvider::default()
        }
    }
}

fn answer(output: &mut impl std::io::BufRead) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// The configuration of a provider `corp` that no test asks.
pub(crate) fn silent_provider() -> OidcProvider {
    OidcProvider {
        name: "corp".into(),
        issuer: "http://127.0.0.1:1".into(),
        client_id: "riposte".into(),
        default_role: "viewer".into(),
        ..OidcProvider::default()
    }
}

/// Starts a manager that has the provider `corp`, whose configuration `change` completes. Its clock
/// begins now, because the provider has a clock of its own.
pub(crate) async fn manager_with(
    database: Database,
    provider: &mut OpenIdProvider,
    change: impl FnOnce(&mut OidcProvider),
) -> (TestApp, Client) {
    let mut corp = provider.configuration();
    change(&mut corp);
    let (app, admin) = manager_at_now(database, |config| config.oidc = vec![corp]).await;
    provider.set(&json!({"redirect_uri": format!("{}/v1/auth/oidc/corp/callback", app.base)}));
    (app, admin)
}

/// Starts a manager whose clock begins now.
pub(crate) async fn manager_at_now(database: Database, configure: impl FnOnce(&mut Config)) -> (TestApp, Client) {
    TestApp::start_at(Clock::system().now(), database, configure).await
}

/// The S256 challenge of a verifier.
pub(crate) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Where a browser begins a login at the provider `corp` of the manager at `base`.
pub(crate) fn start_url(base: &str) -> String {
    let challenge = challenge(VERIFIER);
    format!("{base}/v1/auth/oidc/corp/start?redirect_uri={PROGRAM}&code_challenge={challenge}")
}

/// A browser with its cookies.
pub(crate) struct Browser {
    http: reqwest::Client,
    cookies: HashMap<String, BTreeMap<String, String>>,
}

impl Browser {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: http.build().unwrap(), cookies: HashMap::new() }
    }

    async fn send(&mut self, url: &Url, form: Option<&[(&str, &str)]>) -> Response {
        let request = match form {
            Some(form) => self.http.post(url.clone()).form(form),
            None => self.http.get(url.clone()),
        };
        let jar = self.cookies.entry(url.origin().ascii_serialization()).or_default();
        let pairs: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let response = request.header("cookie", pairs.join("; ")).send().await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let text = cookie.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            jar.insert(name.to_owned(), value.to_owned());
        }
        response
    }

    /// One request; returns where it leads to.
    pub(crate) async fn step(&mut self, url: &str) -> Result<String, Answer> {
        let url = Url::parse(url).unwrap();
        let response = self.send(&url, None).await;
        match response.headers().get("location") {
            Some(location) => Ok(url.join(location.to_str().unwrap()).unwrap().into()),
            None => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                Err(Answer { status, headers, text: response.text().await.unwrap() })
            }
        }
    }

    /// Goes from `url` to an address that begins with `stop`, and fills in the provider's forms as
    /// `person`. Returns that address, or the answer that leads nowhere.
    pub(crate) async fn walk(&mut self, url: &str, person: &str, stop: &str) -> Result<String, Answer> {
        let mut at = Url::parse(url).unwrap();
        let mut form = None;
        for _ in 0..STEPS {
            if at.as_str().starts_with(stop) {
                return Ok(at.into());
            }
            let fields: Option<Vec<(&str, &str)>> =
                form.as_deref().map(|prompt| vec![("prompt", prompt), ("login", person), ("password", "any")]);
            let response = self.send(&at, fields.as_deref()).await;
            if let Some(location) = response.headers().get("location") {
                at = at.join(location.to_str().unwrap()).unwrap();
                form = None;
                continue;
            }
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await.unwrap();
            let part = |before: &str| Some(text.split_once(before)?.1.split_once('"')?.0.to_owned());
            match (part("name=\"prompt\" value=\""), part("action=\"")) {
                (Some(prompt), Some(action)) if status == 200 && form.is_none() => {
                    at = at.join(&action).unwrap();
                    form = Some(prompt);
                }
                _ => return Err(Answer { status, headers, text }),
            }
        }
        panic!("the login does not end: {at}");
    }

    /// Logs `person` in; returns what the program that began the login is told.
    pub(crate) async fn log_in(&mut self, base: &str, person: &str) -> BTreeMap<String, String> {
        match self.walk(&start_url(base), person, PROGRAM).await {
            Ok(address) => told(&address),
            Err(answer) => panic!("{}: {}", answer.status, answer.text),
        }
    }
}

/// The query of an address.
pub(crate) fn told(address: &str) -> BTreeMap<String, String> {
    Url::parse(address).unwrap().query_pairs().into_owned().collect()
}

/// Exchanges a login code.
pub(crate) async fn exchange(client: &Client, code: &str, verifier: &str) -> Answer {
    client.post("/v1/auth/token", &json!({"login_code": code, "code_verifier": verifier})).await
}

/// Logs `person` in with a new browser; returns the tokens.
pub(crate) async fn session(client: &Client, base: &str, person: &str) -> Value {
    let told = Browser::new().log_in(base, person).await;
    let code = told.get("code").unwrap_or_else(|| panic!("{told:?}"));
    exchange(client, code, VERIFIER).await.is(200)
}

/// Logs `person` in with a new browser; returns why that is refused.
pub(crate) async fn refusal(base: &str, person: &str) -> String {
    let told = Browser::new().log_in(base, person).await;
    assert!(!told.contains_key("code"), "{told:?}");
    told["error_description"].clone()
}
