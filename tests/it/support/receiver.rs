//! A receiver of what the manager sends elsewhere: it keeps every request, and answers as the test says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What it does with a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mood {
    /// Answers with this status.
    Answers(u16),
    /// Answers 429 and asks for this wait, in seconds.
    AsksToWait(u64),
    /// Takes the request, and never answers.
    Silent,
    /// Answers 200, with a body of this many bytes that are no JSON.
    Babbles(usize),
    /// Answers 200 with the text of the first of these beginnings that a path has, and 404 elsewhere.
    Says(&'static [(&'static str, &'static str)]),
    /// Answers 500 to every body that holds this, and 200 to all others.
    Chokes(&'static str),
    /// Answers 400 to every body that holds this, and 200 to all others.
    Refuses(&'static str),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Whether it was answered with a 2xx.
    pub(crate) is_taken: bool,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

struct Inside {
    mood: Mood,
    seen: Vec<Received>,
}

type Shared = Arc<Mutex<Inside>>;

/// The receiver, until it is dropped.
pub(crate) struct Receiver {
    inside: Shared,
    address: std::net::SocketAddr,
    _serving: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Mutex::new(Inside { mood, seen: Vec::new() }));
        let router = Router::new().fallback(take).with_state(Arc::clone(&inside));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { inside, address, _serving: serving }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn becomes(&self, mood: Mood) {
        self.inside.lock().unwrap().mood = mood;
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Received> {
        self.inside.lock().unwrap().seen.clone()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget(&self) {
        self.inside.lock().unwrap().seen.clear();
    }

    /// Those that were answered with a 2xx.
    pub(crate) fn taken(&self) -> Vec<Received> {
        self.seen().into_iter().filter(|request| request.is_taken).collect()
    }
}

async fn take(
    State(inside): State<Shared>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let mood = inside.lock().unwrap().mood.clone();
    let mut answer_headers = HeaderMap::new();
    let path = uri.to_string();
    let (status, text) = match &mood {
        Mood::Says(answers) => match answers.iter().find(|(beginning, _)| path.starts_with(beginning)) {
            Some((_, text)) => (200, (*text).to_owned()),
            None => (404, String::new()),
        },
        Mood::Answers(status) => (*status, String::new()),
        Mood::AsksToWait(seconds) => {
            answer_headers.insert("retry-after", HeaderValue::from(*seconds));
            (429, String::new())
        }
        Mood::Silent => (0, String::new()),
        Mood::Babbles(bytes) => (200, "<".repeat(*bytes)),
        Mood::Refuses(what) => (if body.contains(what) { 400 } else { 200 }, String::new()),
        Mood::Chokes(what) => (if body.contains(what) { 500 } else { 200 }, String::new()),
    };
    let is_taken = (200..300).contains(&status);
    inside.lock().unwrap().seen.push(Received { path, headers, body, is_taken });
    if mood == Mood::Silent {
        std::future::pending::<()>().await;
    }
    (StatusCode::from_u16(status).unwrap(), answer_headers, text)
}
