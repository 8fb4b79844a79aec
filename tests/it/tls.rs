//! TLS of the listener: certificates from files, their renewal, pinned enrolment, client
//! certificates.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode, Version};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::processes::{Agent, Api, Manager, PATIENCE, alert, ended, eventually, tied};

/// Runs `riposte tls self-signed` for the loopback address.
fn make_certificate(dir: &Path) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_riposte"))
        .args(["tls", "self-signed", "--name", "127.0.0.1", "--name", "localhost", "--dir"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

/// Starts a manager with a certificate of its own authority.
pub(crate) async fn start(dir: &Path, more: &[&str]) -> Manager {
    make_certificate(dir);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let flags = [&["--tls-cert", &certificate, "--tls-key", &key], more].concat();
    Manager::start_with(&flags).await
}

fn first_certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// The certificate that the manager shows to a new connection.
async fn shown(manager: &Manager) -> Vec<u8> {
    let http = manager_client(manager).tls_info(true).build().unwrap();
    let answer = http.get(format!("{}/livez", manager.base())).send().await.unwrap();
    answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
}

pub(crate) fn manager_client(_: &Manager) -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_an_alert_becomes_a_command_and_the_token_pins_the_authority() {
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &[]).await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let token = api.make_token().await;
    assert_eq!(token.split('.').count(), 3, "the secret, the signing key and the authority: {token}");
    // The agent is not told of the authority in any other way.
    let mut agent = Agent::enroll(&api.base, &token, "web-01");
    agent.run(&[]);
    api.agent_streams(&agent.id).await;
    let (_, command) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    api.command_is(command["id"].as_str().unwrap(), "succeeded").await;
    let (worked, told) = manager.command(&["agent", "list"]);
    assert!(worked && told.contains("web-01"), "the command line with --ca: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_and_1_are_spoken_and_browsers_are_told_to_stay_with_tls() {
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &[]).await;
    let answer = manager.api().http.get(format!("{}/livez", manager.base())).send().await.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert_eq!(answer.version(), Version::HTTP_11);
    crate::processes::require(&[("curl", "curl")]);
    let asked = |more: &[&str]| {
        let url = format!("{}/livez", manager.base());
        let output = tied(Path::new("curl"))
            .args(["--silent", "--show-error", "--cacert"])
            .arg(dir.path().join("ca.pem"))
            .args(["--write-out", "%{http_version} %{response_code}", "--output", "/dev/null"])
            .args(more)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(asked(&["--http2"]), "2 200");
    assert_eq!(asked(&["--http1.1"]), "1.1 200");
    assert_eq!(asked(&["--tlsv1.2", "--tls-max", "1.2"]), "2 200");
    assert!(asked(&["--tls-max", "1.1"]).contains("000"), "older versions are refused");
    // HTTP/2 has no Host header, and the addresses of an enrolment come from it.
    let token = manager.api().make_token().await;
    let key = riposte_protocol::key::SigningKey::from_seed(&[9; 32]).unwrap().verifying_key().text();
    let asked_for = json!({"token": token, "name": "web-01", "public_key": key, "version": "1",
        "platform": {"os": "linux", "arch": "x86_64", "version": ""}, "capabilities": []});
    let enrolled = tied(Path::new("curl"))
        .args(["--silent", "--http2", "--json", &asked_for.to_string(), "--cacert"])
        .arg(dir.path().join("ca.pem"))
        .arg(format!("{}/v1/agents/enroll", manager.base()))
        .output()
        .unwrap();
    let enrolled: Value = serde_json::from_slice(&enrolled.stdout).unwrap();
    assert_eq!(enrolled["stream_url"], format!("wss://{}/v1/agent/stream", manager.address), "{enrolled}");
    // Plain HTTP at this port is not answered, and breaks nothing.
    assert!(reqwest::get(format!("http://{}/livez", manager.address)).await.is_err());
    assert_eq!(manager.ask("/readyz").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_without_dropping_a_stream_and_agents_of_the_authority_stay() {
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &[]).await;
    let api = manager.api();
    let mut agent = Agent::start(&manager, "web-01").await;
    let streams = agent.log().matches("connected").count();
    let before = shown(&manager).await;
    assert!(make_certificate(dir.path()).starts_with("Renewed"));
    let renewed = first_certificate(&dir.path().join("cert.pem"));
    eventually("new connections get the new certificate", PATIENCE, async || {
        (shown(&manager).await == renewed.as_ref()).then_some(())
    })
    .await;
    assert_ne!(before, renewed.as_ref());
    assert_eq!(agent.log().matches("connected").count(), streams, "the stream stays:\n{}", agent.log());
    agent.run_again();
    api.make_policy("log-only", "1h").await;
    let (_, command) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    api.command_is(command["id"].as_str().unwrap(), "succeeded").await;
}

/// Posts alerts until `stop`, each until it is accepted. Returns the responses.
async fn post_until(api: Api, agent: String, stop: Arc<AtomicBool>) -> Vec<String> {
    let (mut responses, mut number) = (Vec::new(), 0);
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let body = alert(number, &format!("203.0.{}.{}", number / 250, number % 250 + 1), &agent);
        let accepted = eventually("an alert is accepted", PATIENCE, async || {
            let answer = api.request(Method::POST, "/v1/alerts").json(&body).send().await.ok()?;
            if answer.status() == StatusCode::ACCEPTED { answer.json::<Value>().await.ok() } else { None }
        });
        // An alert whose answer was lost is a duplicate, with the responses of the first time.
        responses
            .extend(accepted.await["responses"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(number > 20, "there was no load: {number} alerts");
    responses
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_8_a_renewal_two_rotations_and_a_killed_manager_under_load_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let mut manager = start(dir.path(), &[]).await;
    let (api, agent) = (manager.api(), Agent::start(&manager, "web-01").await);
    api.make_policy("log-only", "1h").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    load.spawn(post_until(api.clone(), "web-01".to_owned(), Arc::clone(&stop)));
    let pause = async || tokio::time::sleep(Duration::from_millis(500)).await;
    pause().await;
    assert!(make_certificate(dir.path()).starts_with("Renewed"));
    let before = api.get("/v1/signing-key").await;
    api.post("/v1/signing-key/rotation", &json!({})).await;
    let id = agent.identity()["agent_id"].as_str().unwrap().to_owned();
    api.post(&format!("/v1/agents/{id}/rotate-key"), &json!({})).await;
    manager.kill9();
    pause().await;
    assert!(make_certificate(dir.path()).starts_with("Renewed"));
    manager.start_again().await;
    api.agent_streams(&id).await;
    let after = eventually("both keys are replaced", PATIENCE, async || {
        let key = api.get("/v1/signing-key").await;
        let shown = api.get(&format!("/v1/agents/{id}")).await;
        (key["rotation"].is_null() && shown["key_ordered_at"].is_null()).then_some(key)
    });
    assert_ne!(after.await["kid"], before["kid"]);
    pause().await;
    stop.store(true, Ordering::SeqCst);
    let responses = load.join_next().await.unwrap().unwrap();
    for response in &responses {
        let command = api.response(response).await["commands"][0]["id"].as_str().unwrap().to_owned();
        api.command_is(&command, "succeeded").await;
    }
    assert_eq!(api.get(&format!("/v1/agents/{id}")).await["incident"], Value::Null);
    api.audit_is_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_stop_the_start_and_leave_a_running_manager_as_it_is() {
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &[]).await;
    let other = TempDir::new().unwrap();
    make_certificate(other.path());
    let before = shown(&manager).await;
    std::fs::copy(other.path().join("key.pem"), dir.path().join("key.pem")).unwrap();
    let warned = eventually("the manager says that the files do not fit", PATIENCE, async || {
        let (status, text, _) = manager.ask("/readyz?verbose").await;
        let told: Value = serde_json::from_str(&text).unwrap();
        (told["warnings"] != json!([])).then_some((status, told))
    });
    let (status, told) = warned.await;
    let warning = told["warnings"][0].as_str().unwrap();
    assert!(status == StatusCode::OK && warning.contains("key.pem does not belong"), "{status} {warning}");
    assert!(manager.log().contains("the certificate before stays"));
    assert_eq!(shown(&manager).await, before);

    let path = |name: &str| dir.path().join(name);
    for (name, content, told) in [
        ("broken.pem", "no certificate", "holds no certificate"),
        ("half.pem", "-----BEGIN CERTIFICATE-----\nMIIB", "not PEM"),
        ("garbage.pem", "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n", "cannot be read"),
    ] {
        std::fs::write(path(name), content).unwrap();
        let said = refused(&path(name), &path("key.pem")).await;
        assert!(said.contains(name) && said.contains(told), "{said}");
    }
    let said = refused(&path("cert.pem"), &path("missing.pem")).await;
    assert!(said.contains("missing.pem"), "{said}");
    let said = refused(&path("cert.pem"), &path("key.pem")).await;
    assert!(said.contains("does not belong to the certificate"), "{said}");
    std::fs::write(path("old.pem"), expired()).unwrap();
    let said = refused(&path("old.pem"), &path("key.pem")).await;
    assert!(said.contains("old.pem") && said.contains("expired at 2020-"), "{said}");
}

/// A certificate that ended in 2020.
fn expired() -> String {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// Starts a manager with these files; returns why it did not start.
async fn refused(certificate: &Path, key: &Path) -> String {
    let data = TempDir::new().unwrap();
    let mut child = tied(Path::new(env!("CARGO_BIN_EXE_riposte")))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path().join("data"))
        .arg("--tls-cert")
        .arg(certificate)
        .arg("--tls-key")
        .arg(key)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let status = ended(&mut child, PATIENCE).await;
    assert!(status.is_some_and(|status| !status.success()), "{status:?}");
    assert!(!data.path().join("data").exists(), "nothing was created");
    std::io::read_to_string(child.stderr.take().unwrap()).unwrap()
}

/// A server in the manager's place, with a certificate of another authority; it counts the bytes
/// that clients send after the handshake.
async fn impostor(dir: &Path) -> (u16, Arc<AtomicUsize>, JoinSet<()>) {
    make_certificate(dir);
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&heard);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                counter.fetch_add(count, Ordering::SeqCst);
            }
        }
    });
    (port, heard, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_refuses_to_enrol_through_a_proxy_with_another_certificate_and_sends_it_nothing() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let manager = start(dir.path(), &[]).await;
    let api = manager.api();
    let token = api.make_token().await;
    let (port, heard, _serving) = impostor(other.path()).await;
    let url = format!("https://127.0.0.1:{port}");
    let refused = tokio::task::block_in_place(|| Agent::try_enroll(&url, &token, "web-01", &[])).unwrap_err();
    assert!(refused.contains("is of another authority. Nothing was sent"), "{refused}");
    assert_eq!(heard.load(Ordering::SeqCst), 0, "not one byte of the token");
    // The token is still good at the manager itself.
    drop(Agent::enroll(&api.base, &token, "web-01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_refuses_a_manager_that_signs_with_another_key_than_its_token_names() {
    let manager = Manager::start().await;
    let other = Manager::start().await;
    let (token, others) = (manager.api().make_token().await, other.api().make_token().await);
    let secret = token.split('.').next().unwrap();
    let pin = others.split('.').nth(1).unwrap();
    let refused = Agent::try_enroll(&manager.api().base, &format!("{secret}.{pin}"), "web-01", &[]).unwrap_err();
    assert!(refused.contains("it signs with another key"), "{refused}");
    let damaged = Agent::try_enroll(&manager.api().base, &token[..token.len() - 1], "web-01", &[]).unwrap_err();
    assert!(damaged.contains("is not whole"), "{damaged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_none_gets_no_certificate() {
    for name in ["https://riposte.example.org", "riposte.example.org:8480", "a b", ""] {
        let dir = TempDir::new().unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_riposte"))
            .args(["tls", "self-signed", "--name", name, "--dir"])
            .arg(dir.path().join("tls"))
            .output()
            .unwrap();
        assert!(!made.status.success() && !dir.path().join("tls").exists(), "{name}");
        assert!(String::from_utf8_lossy(&made.stderr).contains("is neither a host name nor an address"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_closed_over_tls_and_not_answered_in_plain_text() {
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &["--max-connections", "1"]).await;
    let _held = tokio::net::TcpStream::connect(manager.address).await.unwrap();
    let mut refused = tokio::net::TcpStream::connect(manager.address).await.unwrap();
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(Duration::from_secs(5), refused.read_to_end(&mut heard)).await.expect("an end");
    assert_eq!(heard, b"");
}

/// About 40 s: these limits use real time.
#[tokio::test(flavor = "multi_thread")]
async fn promise_11_every_wait_over_tls_has_an_end() {
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &[]).await;
    let no_handshake = async {
        let mut silent = tokio::net::TcpStream::connect(manager.address).await.unwrap();
        (closed(&mut silent, Duration::from_secs(20)).await, "no handshake")
    };
    let asks_nothing = async |protocol: &'static str| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.path().join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let socket = tokio::net::TcpStream::connect(manager.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect("127.0.0.1".try_into().unwrap(), socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        (closed(&mut stream, Duration::from_secs(70)).await, protocol)
    };
    let ends = tokio::join!(no_handshake, asks_nothing("http/1.1"), asks_nothing("h2"));
    for (is_closed, what) in [ends.0, ends.1, ends.2] {
        assert!(is_closed, "{what}");
    }
}

/// Whether the other side closes within `patience`.
async fn closed(stream: &mut (impl tokio::io::AsyncRead + Unpin), patience: Duration) -> bool {
    let mut bytes = [0; 1024];
    let end = async { while let Ok(1..) = stream.read(&mut bytes).await {} };
    tokio::time::timeout(patience, end).await.is_ok()
}

/// A certificate for this name and use, its key, and the authority that has signed it, as PEM.
pub(crate) fn issued(name: &str, usage: rcgen::ExtendedKeyUsagePurpose) -> [String; 3] {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    [certificate.pem(), key.serialize_pem(), authority.pem()]
}

/// A client certificate and its key in one file, and its authority in another.
fn make_client_certificate(dir: &Path) {
    let [certificate, key, authority] = issued("web-01", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::write(dir.join("clients.pem"), authority).unwrap();
    std::fs::write(dir.join("client.pem"), format!("{certificate}{key}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_pipelines_without_a_client_certificate_are_refused_where_one_is_wanted() {
    let (dir, clients) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    make_client_certificate(clients.path());
    let authority = clients.path().join("clients.pem");
    let manager = start(dir.path(), &["--tls-client-ca", authority.to_str().unwrap()]).await;
    // A person's key needs none.
    let api = manager.api();
    let token = api.make_token().await;
    let pipeline = api.post("/v1/api-keys", &json!({"name": "wazuh", "role": "ingest"})).await;
    let send = async |http: reqwest::Client| {
        let sent = http.post(format!("{}/v1/alerts", api.base)).bearer_auth(pipeline["key"].as_str().unwrap());
        sent.json(&alert(1, "203.0.113.7", "web-01")).send().await.unwrap().status()
    };
    assert_eq!(send(api.http.clone()).await, StatusCode::UNAUTHORIZED);
    let own = clients.path().join("client.pem");
    let identity = reqwest::Identity::from_pem(&std::fs::read(&own).unwrap()).unwrap();
    let certified = manager_client(&manager).identity(identity).build().unwrap();
    assert_eq!(send(certified).await, StatusCode::ACCEPTED);

    let refused = Agent::try_enroll(&api.base, &token, "web-01", &[]).unwrap_err();
    assert!(refused.contains("must show a client certificate"), "{refused}");
    let mut agent = Agent::try_enroll(&api.base, &token, "web-01", &["--client-cert", own.to_str().unwrap()]).unwrap();
    agent.run(&[]);
    api.agent_streams(&agent.id).await;
    let mut polling = agent;
    polling.run(&["--transport", "poll"]);
    api.make_policy("log-only", "1h").await;
    let (_, command) = api.answer_to(&alert(2, "203.0.113.8", "web-01")).await;
    api.command_is(command["id"].as_str().unwrap(), "succeeded").await;
}
