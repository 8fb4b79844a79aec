//! Enrolment and the stream over TLS, with an authority that only this agent trusts.

use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::{Manager, PATIENCE, agent};

/// A self-signed certificate for `localhost` with these basic constraints, and its key, made in
/// `directory`.
fn certify(directory: &std::path::Path, constraints: &str) -> TlsAcceptor {
    let (cert, key) = (directory.join("server.pem"), directory.join("server.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", &format!("basicConstraints=critical,{constraints}")])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let certificates = CertificateDer::pem_file_iter(&cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor) -> std::io::Result<TlsStream<TcpStream>> {
    let (socket, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    timeout(PATIENCE, acceptor.accept(socket)).await.unwrap()
}

#[tokio::test]
async fn an_agent_trusts_only_its_pinned_authority() {
    let manager = Manager::start().await;
    let acceptor = certify(manager.state.path(), "CA:FALSE");
    let port = manager.listener.local_addr().unwrap().port();
    let url = format!("https://localhost:{port}");
    let state = manager.state.path().join("agent");
    let enroll = |more: &[&str]| {
        let arguments = [&["enroll", "--manager", &url, "--name", "web-1"], more].concat();
        agent(&state, &arguments).env("RIPOSTE_TOKEN", "secret").output()
    };

    let (enrolled, handshake) = tokio::join!(enroll(&[]), accept(&manager.listener, &acceptor));
    let enrolled = enrolled.unwrap();
    assert_eq!(enrolled.status.code(), Some(1), "the system does not know this authority");
    let said = String::from_utf8_lossy(&enrolled.stderr);
    assert!(said.contains("give the authority's file with --ca (RIPOSTE_CA)"), "{said}");
    assert!(handshake.is_err() || handshake.unwrap().read(&mut [0; 1]).await.map_or(true, |length| length == 0));

    let ca = manager.state.path().join("server.pem");
    let enrolling = enroll(&["--ca", ca.to_str().unwrap()]);
    let answering = async {
        let mut socket = accept(&manager.listener, &acceptor).await.unwrap();
        let mut head = vec![0; 16 * 1024];
        let mut length = 0;
        while !String::from_utf8_lossy(&head[..length]).contains("\"capabilities\"") {
            length += timeout(PATIENCE, socket.read(&mut head[length..])).await.unwrap().unwrap();
        }
        let body = manager
            .enrolment()
            .replace("http://127.0.0.1", "https://localhost")
            .replace("ws://127.0.0.1", "wss://localhost");
        let text = format!("HTTP/1.1 201 x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(text.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
    };
    let (enrolled, ()) = tokio::join!(enrolling, answering);
    let enrolled = enrolled.unwrap();
    assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));

    // The authority was stored: the stream needs no flag. A poll connects as enrolment does.
    let _running = agent(&state, &["run", "--transport", "stream"]).spawn().unwrap();
    let mut socket = accept(&manager.listener, &acceptor).await.unwrap();
    let mut head = [0; 24];
    timeout(PATIENCE, socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"GET /v1/agent/stream HTT");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_believed_is_told_in_plain_words() {
    let manager = Manager::start().await;
    let port = manager.listener.local_addr().unwrap().port();
    let state = manager.state.path().join("agent");
    for (host, constraints, told) in [
        ("localhost", "CA:TRUE", "the server's certificate is itself a CA: make one with basicConstraints CA:FALSE"),
        ("127.0.0.1", "CA:FALSE", "its certificate is for another name"),
    ] {
        let acceptor = certify(manager.state.path(), constraints);
        let ca = manager.state.path().join("server.pem");
        let url = format!("https://{host}:{port}");
        let arguments = ["enroll", "--manager", &url, "--name", "web-1", "--ca", ca.to_str().unwrap()];
        let enrolling = agent(&state, &arguments).env("RIPOSTE_TOKEN", "secret").output();
        let (refused, _) = tokio::join!(enrolling, accept(&manager.listener, &acceptor));
        let said = String::from_utf8(refused.unwrap().stderr).unwrap();
        assert!(said.contains(told), "{said}");
    }
}
