//! Login at an OpenID provider: npm's certified `oidc-provider` as a process on loopback
//! (`tests/oidc/provider.mjs`), whose forms the person fills in.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::browser::{Browser, target};
use crate::programs::{Manager, require, tied};

/// The secret of the client at the provider.
const SECRET: &str = "a secret: with+signs&of=forms";

struct Provider {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    issuer: String,
}

impl Provider {
    fn start() -> Self {
        require(&[("node", "nodejs")]);
        let folder = target("oidc");
        let is_there = folder.join("node_modules/oidc-provider").is_dir();
        assert!(is_there, "oidc-provider is missing: run scripts/test-deps.sh");
        let mut command = tied(Path::new("node"));
        command.args(["--input-type=module", "--eval", include_str!("../oidc/provider.mjs")]).current_dir(folder);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut started = Self { process, input, output, issuer: String::new() };
        started.answer()["issuer"].as_str().unwrap().clone_into(&mut started.issuer);
        started
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn set(&mut self, changes: &Value) {
        writeln!(self.input, "{changes}").unwrap();
        assert_eq!(self.answer(), json!({"done": true}));
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_person_logs_in_at_the_provider_and_comes_to_the_page_that_was_asked_for() {
    let mut provider = Provider::start();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&secret).unwrap();
    writeln!(file, "{SECRET}").unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[[oidc]]\nname = \"corp\"\nclient_id = \"riposte\"\nroles = {{ soc = \"analyst\" }}\nissuer = \"{}\"\n\
         client_secret_file = \"{}\"\n",
        provider.issuer,
        secret.display()
    );
    std::fs::write(&config, text).unwrap();
    let manager = Manager::start_with(&["--config", config.to_str().unwrap()]).await;
    provider.set(&json!({"redirect_uri": format!("{}/v1/auth/oidc/corp/callback", manager.base)}));
    provider.set(&json!({"accounts": {"alice": {"groups": ["soc"]}, "bob": {}}}));
    manager.people(&["root:admin"]).await;

    let browser = Browser::start(&manager.base).await;
    browser.open("/responses").await;
    browser.press("Log in with corp").await;
    browser.fill("login", "alice").await;
    browser.fill("password", "any").await;
    browser.press("Sign-in").await;
    browser.press("Continue").await;
    browser.is_at("/responses").await;
    browser.sees("alice").await;
    browser.press("Log out").await;
    browser.sees("You are still logged in at the provider").await;
    browser.open("/responses").await;
    browser.is_at("/login?next=%2Fresponses").await;

    // A person without a role there is told why.
    let browser = Browser::start(&manager.base).await;
    browser.open("/login").await;
    browser.press("Log in with corp").await;
    browser.fill("login", "bob").await;
    browser.fill("password", "any").await;
    browser.press("Sign-in").await;
    browser.press("Continue").await;
    browser.sees("none of the person's groups").await;
}
