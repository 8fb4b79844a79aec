//! A client of `/v1/events` that reads the stream message by message.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::{Client, PATIENCE};

/// A message of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) id: i64,
    /// Type; empty for a heartbeat or the first message.
    pub(crate) event: String,
    pub(crate) data: Value,
    /// The text as it came.
    pub(crate) text: String,
}

/// An open stream.
pub(crate) struct Follower {
    response: reqwest::Response,
    text: String,
    told: VecDeque<Told>,
    /// Number of the last message.
    pub(crate) last: i64,
    is_over: bool,
}

impl Follower {
    /// Follows with this query, such as `?type=response.*`, from `last` on; returns once the stream is open.
    pub(crate) async fn open(client: &Client, query: &str, last: Option<i64>) -> Self {
        let mut request = client.request(reqwest::Method::GET, &format!("/v1/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut follower = Self { response, text: String::new(), told: VecDeque::new(), last: 0, is_over: false };
        let hello = follower.next_of_any_kind().await.unwrap();
        assert_eq!((hello.event.as_str(), hello.text.contains("retry: ")), ("", true), "{}", hello.text);
        follower
    }

    async fn read(&mut self) {
        match self.response.chunk().await {
            Ok(Some(bytes)) => self.text.push_str(std::str::from_utf8(&bytes).unwrap()),
            // A manager that was killed breaks the connection.
            Ok(None) | Err(_) => self.is_over = true,
        }
        while let Some((message, rest)) = self.text.split_once("\n\n") {
            let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            let id = field("id").map_or(self.last, |id| id.parse().unwrap());
            let data = field("data").map_or(Value::Null, |data| serde_json::from_str(data).unwrap());
            let event = field("event").unwrap_or_default().to_owned();
            self.told.push_back(Told { id, event, data, text: message.to_owned() });
            self.last = id;
            self.text = String::from(rest);
        }
    }

    /// The next message, with heartbeats; `None` at the end of the stream.
    pub(crate) async fn next_of_any_kind(&mut self) -> Option<Told> {
        let reading = async {
            while self.told.is_empty() && !self.is_over {
                self.read().await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a message");
        self.told.pop_front()
    }

    /// The next event or gap; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            match self.next_of_any_kind().await {
                Some(told) if told.event.is_empty() => {}
                other => return other,
            }
        }
    }

    /// The events up to that one.
    pub(crate) async fn up_to(&mut self, is_last: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            let told = self.next().await.expect("the stream goes on");
            let is_done = is_last(&told);
            all.push(told);
            if is_done {
                return all;
            }
        }
    }

    /// What comes until nothing has come for a while.
    pub(crate) async fn what_is_there(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            let quiet = tokio::time::timeout(Duration::from_millis(700), async {
                while self.told.is_empty() && !self.is_over {
                    self.read().await;
                }
            });
            if quiet.await.is_err() || self.told.is_empty() {
                return all;
            }
            all.extend(self.told.drain(..).filter(|told| !told.event.is_empty()));
        }
    }
}
