//! A syslog receiver: it takes messages with their length before them until the sender ends, and keeps them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What it does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SiemMood {
    /// Reads it to its end, and closes it.
    Reads,
    /// Closes it at once.
    HangsUp,
}

struct Inside {
    mood: SiemMood,
    messages: Vec<String>,
    hung_up: usize,
}

type Shared = Arc<Mutex<Inside>>;

/// The receiver, until it is dropped.
pub(crate) struct Siem {
    pub(crate) address: SocketAddr,
    inside: Shared,
    serving: JoinHandle<()>,
}

impl Siem {
    pub(crate) async fn start(mood: SiemMood, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside: Shared = Arc::new(Mutex::new(Inside { mood, messages: Vec::new(), hung_up: 0 }));
        let shared = Arc::clone(&inside);
        #[expect(clippy::disallowed_methods, reason = "the receiver is no task of the program under test")]
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if shared.lock().unwrap().mood == SiemMood::HangsUp {
                    shared.lock().unwrap().hung_up += 1;
                    continue;
                }
                match &tls {
                    None => take(stream, &shared).await,
                    // A sender that does not trust the certificate ends here.
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => take(stream, &shared).await,
                        Err(_) => shared.lock().unwrap().hung_up += 1,
                    },
                }
            }
        });
        Self { address, inside, serving }
    }

    pub(crate) fn set(&self, mood: SiemMood) {
        self.inside.lock().unwrap().mood = mood;
    }

    /// Connections that came to nothing.
    pub(crate) fn hung_up(&self) -> usize {
        self.inside.lock().unwrap().hung_up
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.inside.lock().unwrap().messages.clone()
    }

    /// The texts of the messages, which are JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = |message: &String| message.splitn(8, ' ').nth(7).unwrap().to_owned();
        self.messages().iter().map(|message| serde_json::from_str(&text(message)).unwrap()).collect()
    }
}

impl Drop for Siem {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let mut rest = String::from_utf8(bytes).unwrap();
    while !rest.is_empty() {
        let (length, after) = rest.split_once(' ').unwrap();
        let (message, after) = after.split_at(length.parse().unwrap());
        shared.lock().unwrap().messages.push(message.to_owned());
        rest = after.to_owned();
    }
}
