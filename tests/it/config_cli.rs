//! `riposte config check`: every fault of a configuration with its line, and the same verdict as a
//! start.

use crate::policy_cli::{alone, folder};

/// A file with a fault of each kind. Lines are counted from 1.
const FAULTY: &str = r#"max_batch = 5

[server]
listen = "0.0.0.0:8480"
listne = "127.0.0.1:1"
tls_key = "key.pem"
trusted_proxies = ["10.0.0.0/33"]

[alerts]
max_age = "soon"

[limits]
requests_per_minute = 0
max_body_bytes = "many"

[observables]
"source.pi" = ["data.client"]

[[oidc]]
name = "corp"
issuer = "http://login.example.org"
client_id = "riposte"
default_role = "viewer"
"#;

#[test]
fn every_fault_of_a_configuration_is_named_with_its_line() {
    let here = folder(&[("riposte.toml", FAULTY)]);
    let told = alone(here.path(), "config check --config riposte.toml").complains(1);
    let expected = [
        "riposte.toml:1: warning: max_batch belongs into [limits] now",
        "riposte.toml:4: refusing to serve plain HTTP on 0.0.0.0:8480",
        "riposte.toml:5: server.listne: unknown field",
        "riposte.toml:6: tls_cert is missing",
        "riposte.toml:7: trusted_proxies: 10.0.0.0/33 is neither an address nor a network",
        "riposte.toml:10: max_age is not a duration",
        "riposte.toml:13: requests_per_minute is 0",
        "riposte.toml:14: limits.max_body_bytes: invalid type",
        "riposte.toml:17: observables: source.pi must be one of",
        "riposte.toml:21: [[oidc]] corp: issuer must begin with https://",
        "riposte: 9 faults in riposte.toml",
    ];
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{expected}\n{told}");
    }
}

#[test]
fn a_valid_configuration_is_told_in_one_line_without_secrets() {
    let text =
        "[server]\ndatabase_url = \"postgres://riposte:hunter2@db.example.org/riposte\"\n[limits]\nmax_batch = 7\n";
    let here = folder(&[("riposte.toml", text), ("syntax.toml", "[server]\nlisten = \n")]);
    let run = |words: &str| alone(here.path(), &format!("config check {words}"));
    let told = run("--config riposte.toml").gives(0);
    assert_eq!(
        told,
        "riposte.toml is valid: listens on http://127.0.0.1:8480, keys in data, ledger \
         postgres://db.example.org/riposte, alerts kept 30 days; not at their defaults: server.database_url, \
         limits.max_batch\n"
    );
    assert!(run("").gives(0).ends_with("every key has its default\n"));
    // What a flag causes is no fault of the file.
    let told = run("--config riposte.toml --listen 0.0.0.0:8480").complains(1);
    assert!(told.starts_with("flags and variables: refusing to serve plain HTTP"), "{told}");
    assert!(run("--config syntax.toml").complains(1).starts_with("syntax.toml:2: "));
    assert!(run("--config none.toml").complains(1).contains("cannot read none.toml"));
}

#[test]
fn what_the_check_refuses_a_start_refuses_too() {
    let texts = [
        "[server]\nlistne = 1",
        "[server]\nagent_key_max_age = \"old\"",
        "[server]\nkey_passphrase_file = \"none\"",
        "[server]\ntls_cert = \"none.pem\"\ntls_key = \"none.pem\"",
        "[alerts]\nmax_age = \"soon\"",
        "[responses]\nsecond_person_within = \"soon\"",
        "[audit]\naudit_checkpoint_syslog = \"here\"",
        "[audit]\naudit_checkpoint_webhook = \"https://audit.example.org\"\naudit_checkpoint_webhook_secret_file = \"none\"",
        "[egress]\nallow = [\"10.0.0.0/99\"]",
        "[observables]\n\"source.pi\" = [\"data.client\"]",
        "[[oidc]]\nname = \"corp\"\nissuer = \"https://login.example.org\"\nclient_id = \"x\"\ndefault_role = \"king\"",
    ];
    for text in texts {
        let here = folder(&[("riposte.toml", text)]);
        let told = alone(here.path(), "config check --config riposte.toml").complains(1);
        assert!(told.starts_with("riposte.toml:"), "{text}\n{told}");
        let started = alone(here.path(), "serve --config riposte.toml --listen 127.0.0.1:0 --data-dir kept");
        assert_eq!(started.code, 1, "{text}\n{started:?}");
    }
}
