//! An unreachable manager: the command line says why, and what to do next. Real sockets, the real
//! program.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::processes::tied;

/// Returns what `riposte status` prints about `manager`; it must fail.
async fn says(manager: &str) -> String {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    command.args(["status", "--manager", manager]);
    let output = tokio::process::Command::from(command).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_unreachable_manager_is_reported_with_what_to_do() {
    let nothing = says("http://127.0.0.1:1").await;
    assert!(nothing.contains("nothing listens at http://127.0.0.1:1; is it running? Its log"), "{nothing}");
    let no_name = says("http://no-such-host.invalid:8480").await;
    assert!(no_name.contains("the name in http://no-such-host.invalid:8480 cannot be resolved"), "{no_name}");

    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", closing.local_addr().unwrap());
    let closed = async {
        let (mut peer, _) = closing.accept().await.unwrap();
        let mut head = [0; 16];
        peer.read_exact(&mut head).await.unwrap();
        drop(peer);
    };
    let (said, ()) = tokio::join!(says(&address), closed);
    assert!(said.contains("ended the connection without an answer"), "{said}");
    assert!(said.trim_end().ends_with("; if this port speaks TLS, write https://"), "{said}");

    // A server that accepts the request and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begun = Instant::now();
    let said = says(&format!("http://{}", silent.local_addr().unwrap())).await;
    assert!(said.contains("within 5 s; is it running? Its log"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// Answers every connection in the same way.
async fn answering(answer: String) -> (String, JoinSet<()>) {
    use tokio::io::AsyncWriteExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let _ = peer.read(&mut [0; 4096]).await;
            let _ = peer.write_all(answer.as_bytes()).await;
            let _ = peer.shutdown().await;
        }
    });
    (address, server)
}

#[tokio::test]
async fn a_port_that_is_no_manager_is_called_so_by_every_command() {
    for (status, kind, body) in [
        ("404 Not Found", "text/html", "<html>nothing here</html>"),
        ("200 OK", "text/html", "<html>hello</html>"),
        ("200 OK", "application/json", r#"{"hello": "world"}"#),
        ("401 Unauthorized", "application/json", r#"{"detail": "log in at the portal"}"#),
        ("502 Bad Gateway", "text/plain", ""),
    ] {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close");
        let (address, _server) = answering(format!("{head}\r\n\r\n{body}")).await;
        let expected = format!("what answers at {address} is not a Riposte manager");
        let said = says(&address).await;
        assert!(said.starts_with(&expected), "status, {status}: {said}");
        for words in ["agent list", "alert list", "response list", "audit verify", "policy list"] {
            let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
            command.args(words.split(' ')).args(["--manager", &address]).env("RIPOSTE_KEY", "rip_x");
            let output = tokio::process::Command::from(command).output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(1) && said.contains(&expected), "{words}, {status}: {said}");
        }
    }
}
