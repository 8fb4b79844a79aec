//! A receiver of a webhook that behaves badly in turns: away, slow, broken, answering nonsense. At the end it is well, and must
//! have got every event: once, or more often with one id. A chat beside it never takes anything: it holds up nothing, and is seen to
//! fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Api;
use crate::random::Random;
use crate::verify::Verdict;

/// How long it behaves in one way.
const PHASE: Duration = Duration::from_secs(3);
/// How slow it is when it is slow.
const SLOW: Duration = Duration::from_millis(700);
/// Time limit for what is left at the end: the longest wait between two tries is reached only after many.
const REST: Duration = Duration::from_mins(3);
/// Largest request.
const MAX_REQUEST: usize = 256 * 1024;
/// The events that it asks for.
const TYPES: &str = "response.created";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Slow,
    /// Answers 500.
    Broken,
    /// Closes the connection.
    Away,
    /// Answers what is no HTTP.
    Babbling,
    /// Takes the message, and closes without an answer: it comes again.
    Forgetful,
}

/// The ids that came for each event.
type Seen = Arc<Mutex<BTreeMap<i64, BTreeSet<String>>>>;

/// The receiver.
pub(crate) struct Endpoint {
    seen: Seen,
    is_well: Arc<Mutex<bool>>,
    mark: i64,
    _serving: JoinSet<()>,
}

impl Endpoint {
    /// Starts it, with a webhook of the manager behind `api`.
    ///
    /// # Errors
    /// If it cannot listen, or the manager refuses.
    pub(crate) async fn start(api: &Api, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (seen, is_well) = (Seen::default(), Arc::new(Mutex::new(false)));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Random::new(seed, 77), Arc::clone(&seen), Arc::clone(&is_well)));
        api.post("/v1/webhooks", &json!({"name": "chaos", "url": url, "settings": {"types": [TYPES]}})).await?;
        let chat = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/people", chat.local_addr()?);
        serving.spawn(refuse(chat));
        let settings = json!({"types": [TYPES], "form": "ntfy"});
        api.post("/v1/webhooks", &json!({"name": "chat", "url": url, "settings": settings})).await?;
        let mark = api.get("/v1/webhooks/chaos").await?["mark"].as_i64().context("no mark")?;
        Ok(Self { seen, is_well, mark, _serving: serving })
    }

    /// It is well from now on; waits until it has every event of the feed, and says whether it has.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub(crate) async fn finish(self, api: &Api) -> anyhow::Result<Verdict> {
        *self.is_well.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let mut events = BTreeSet::new();
        let path = format!("/v1/events?follow=false&type={TYPES}&after={}", self.mark);
        api.each(&path, |event| events.extend(event["id"].as_str().and_then(|id| id.parse::<i64>().ok()))).await?;
        let deadline = Instant::now() + REST;
        while Instant::now() < deadline && !self.has_all(&events) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut verdict = Verdict::of("13. a webhook misses no event, and a message that comes twice has one id");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for event in &events {
            let ids = seen.get(event).map_or(0, BTreeSet::len);
            verdict.check(ids == 1, || format!("event {event} came with {ids} ids"));
        }
        let view = api.get("/v1/webhooks/chaos").await?;
        let figures = ["missed", "dead"].map(|name| view[name].as_i64());
        verdict.check(figures == [Some(0), Some(0)], || format!("the webhook has given up: {view}"));
        let chat = api.get("/v1/webhooks/chat").await?;
        let is_seen = chat["state"] == "failing" && chat["delivered"] == 0 && !chat["fault"].is_null();
        verdict.check(is_seen, || format!("a chat that takes nothing is shown as if it did: {chat}"));
        Ok(verdict)
    }

    fn has_all(&self, events: &BTreeSet<i64>) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().all(|event| seen.contains_key(event))
    }
}

/// Answers nonsense at once, or nothing for a while, in turns.
async fn refuse(listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut is_silent = false;
    while let Ok((mut stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        is_silent = !is_silent;
        connections.spawn(async move {
            if is_silent {
                tokio::time::sleep(PHASE).await;
            }
            // A client that goes away is the manager's business.
            let _ = stream.write_all(b"\x00\xffthis is no HTTP\r\n\r\n").await;
        });
    }
}

async fn serve(listener: TcpListener, mut random: Random, seen: Seen, is_well: Arc<Mutex<bool>>) {
    let mut connections = JoinSet::new();
    let (mut mood, mut until) = (Mood::Well, Instant::now() + PHASE);
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if Instant::now() > until {
            const MOODS: [Mood; 8] = [
                Mood::Well,
                Mood::Well,
                Mood::Well,
                Mood::Slow,
                Mood::Broken,
                Mood::Away,
                Mood::Babbling,
                Mood::Forgetful,
            ];
            let which = usize::try_from(random.between(0, 7)).unwrap_or(0);
            (mood, until) = (MOODS[which], Instant::now() + PHASE);
        }
        if *is_well.lock().unwrap_or_else(PoisonError::into_inner) {
            mood = Mood::Well;
        }
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            // A client that goes away is the manager's business.
            let _ = answer(stream, mood, &seen).await;
        });
    }
}

/// Answers one request; the connection ends with it.
async fn answer(mut stream: TcpStream, mood: Mood, seen: &Seen) -> anyhow::Result<()> {
    if mood == Mood::Away {
        return Ok(());
    }
    let (id, event) = read(&mut stream).await?;
    let is_taken = matches!(mood, Mood::Well | Mood::Slow | Mood::Forgetful);
    if is_taken {
        seen.lock().unwrap_or_else(PoisonError::into_inner).entry(event).or_default().insert(id);
    }
    let text: &[u8] = match mood {
        Mood::Well | Mood::Slow => b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        Mood::Broken => b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        Mood::Babbling => b"\x00\xffthis is no HTTP\r\n\r\n",
        Mood::Away | Mood::Forgetful => b"",
    };
    if mood == Mood::Slow {
        tokio::time::sleep(SLOW).await;
    }
    stream.write_all(text).await?;
    stream.shutdown().await?;
    Ok(())
}

/// The id of the message and the number of its event.
async fn read(stream: &mut TcpStream) -> anyhow::Result<(String, i64)> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 8192];
        let count = stream.read(&mut part).await?;
        anyhow::ensure!(count > 0 && bytes.len() < MAX_REQUEST, "no whole request");
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            let mut named =
                lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned());
            named.next()
        };
        let length: usize = header("content-length").context("no length")?.parse()?;
        if bytes.len() < end + 4 + length {
            continue;
        }
        let event: Value = serde_json::from_slice(&bytes[end + 4..end + 4 + length])?;
        let number = event["id"].as_str().context("no id")?.parse()?;
        return Ok((header("webhook-id").context("no webhook-id")?, number));
    }
}
