//! `riposte login --sso`: the real command, a real provider, and a browser that follows the address
//! that the command prints.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::login_cli::Account;
use crate::processes::Manager;
use crate::support::openid::{Browser, OpenIdProvider};

/// A manager process with this provider.
async fn manager(provider: &mut OpenIdProvider, account: &Account) -> Manager {
    let corp = provider.configuration();
    let mut text = String::from("[[oidc]]\nname = \"corp\"\nclient_id = \"riposte\"\nroles = { soc = \"analyst\" }\n");
    writeln!(text, "issuer = \"{}\"", corp.issuer).unwrap();
    writeln!(text, "client_secret_file = \"{}\"", corp.client_secret_file.display()).unwrap();
    let config = account.write("config.toml", &text);
    let manager = Manager::start_with(&["--config", &config]).await;
    provider.set(&json!({"redirect_uri": format!("{}/v1/auth/oidc/corp/callback", manager.base())}));
    provider.people(&json!({"alice": {"groups": ["soc"]}, "bob": {}}));
    manager
}

/// Runs the login; returns whether it succeeded, and its output.
async fn log_in(account: &Account, base: &str, person: &str) -> (bool, String) {
    let mut command = account.command(&["login", "--manager", base, "--sso"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let url = &line[line.find("http://").unwrap()..];
    // The last page is the command's own.
    let page = Browser::new().walk(url.trim(), person, "never").await.unwrap_err();
    assert!(page.status == 200 && page.text.contains("Go back to the terminal"), "{}: {}", page.status, page.text);
    let output = child.wait_with_output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    told.read_to_string(&mut text).unwrap();
    (output.status.success(), text)
}

#[tokio::test]
async fn a_person_logs_in_with_a_browser_and_out_again() {
    let (mut provider, account) = (OpenIdProvider::start(), Account::new());
    let manager = manager(&mut provider, &account).await;
    let base = manager.base();
    let (is_done, said) = log_in(&account, &base, "alice").await;
    assert!(is_done && said.contains("as alice"), "{said}");
    let who: Value = serde_json::from_str(&account.done(&["whoami", "--json"])).unwrap();
    assert_eq!((&who["principal"], &who["via"]), (&json!("user:alice"), &json!("session")));
    let out = account.done(&["logout"]);
    assert!(out.contains(&format!("end it at {}/session/end", provider.issuer)), "{out}");
    let (is_done, said) = log_in(&account, &base, "bob").await;
    assert!(!is_done && said.contains("none of the person's groups"), "{said}");
    // An administrator links another person, and unlinks.
    assert!(manager.command(&["user", "add", "robert", "--role", "viewer"]).0);
    let link = ["user", "link", "robert", "--provider", "corp", "--subject", "bob"];
    assert!(manager.command(&link).0);
    provider.people(&json!({"bob": {"groups": ["soc"]}}));
    let (is_done, said) = log_in(&account, &base, "bob").await;
    assert!(is_done && said.contains("as robert"), "{said}");
    assert!(manager.command(&["user", "unlink", "robert", "--provider", "corp"]).0);
    assert!(account.refused(&["whoami"]).contains("401"));
    // Before any browser is opened, the command says why there is no login.
    provider.stop();
    let said = account.refused(&["login", "--manager", &base, "--sso", "other"]);
    assert!(said.contains("no OpenID provider is called \"other\""), "{said}");
}

#[tokio::test]
async fn a_provider_that_cannot_be_used_as_configured_stops_the_start_with_the_key() {
    let (provider, account) = (OpenIdProvider::start(), Account::new());
    let (issuer, secret) = (provider.issuer.clone(), account.write("exposed", "secret\n"));
    let block = |more: &str| format!("[[oidc]]\nname = \"corp\"\nclient_id = \"riposte\"\n{more}\n");
    for (text, words) in [
        (block(&format!("issuer = \"{issuer}\"")), "[[oidc]] corp: roles"),
        (block("issuer = \"http://login.example.org\"\ndefault_role = \"viewer\""), "[[oidc]] corp: issuer"),
        (block(&format!("issuer = \"{issuer}\"\ndefault_role = \"ingest\"")), "default_role is \"ingest\""),
        (
            block(&format!("issuer = \"{issuer}\"\ndefault_role = \"viewer\"\nclient_secret_file = \"{secret}\"")),
            "run `chmod 600",
        ),
        (
            block(&format!("issuer = \"{issuer}\"\ndefault_role = \"viewer\"\nca = \"{secret}\"")),
            "holds no certificate",
        ),
        (block(&format!("issuer = \"{issuer}\"\ngroup = \"x\"")), "unknown field"),
    ] {
        let (config, data) = (account.write("config.toml", &text), account.write("file", ""));
        let said = account.refused(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &format!("{data}-dir"),
            "--config",
            &config,
        ]);
        assert!(said.contains(words), "{words}: {said}");
        assert!(!std::path::Path::new(&format!("{data}-dir")).exists(), "nothing is created before");
    }
}
