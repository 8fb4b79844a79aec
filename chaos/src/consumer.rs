//! A consumer of a feed, by TAXII: it asks for what has changed since the last answer, loses answers, and is away for a while. At the
//! end it must hold exactly what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Api;
use crate::clock::now_ms;
use crate::random::Random;
use crate::verify::Verdict;

/// Interval between two requests.
const PACE: Duration = Duration::from_millis(700);
/// Time limit for what is left at the end.
const REST: Duration = Duration::from_mins(2);
/// The feed.
const FEED: &str = "chaos";
/// Objects of a page: small, so that there are several.
const PAGE: usize = 40;

/// What it holds: the end of each address, in milliseconds.
type Held = Arc<Mutex<BTreeMap<String, i64>>>;

/// The consumer.
pub(crate) struct Consumer {
    held: Held,
    answers: Arc<Mutex<usize>>,
    _asking: JoinSet<()>,
}

impl Consumer {
    /// Starts it, with a feed and a key of the manager behind `api`; it asks at `base`.
    ///
    /// # Errors
    /// If the manager refuses.
    pub(crate) async fn start(api: &Api, base: &str, seed: u64) -> anyhow::Result<Self> {
        let feed = json!({"name": FEED, "form": "taxii", "actions": ["log-only"], "max_entries": 1_000_000});
        api.post("/v1/feeds", &feed).await?;
        let scope = json!({"rights": ["pull_feeds"], "feeds": [FEED]});
        let made = api.post("/v1/api-keys", &json!({"name": "consumer", "role": "viewer", "scope": scope})).await?;
        let key = made["key"].as_str().context("no key")?.to_owned();
        let (held, answers) = (Held::default(), Arc::<Mutex<usize>>::default());
        let client = Api { base: base.to_owned(), key, ..api.clone() };
        let mut asking = JoinSet::new();
        asking.spawn(follow(client, Random::new(seed, 78), Arc::clone(&held), Arc::clone(&answers)));
        Ok(Self { held, answers, _asking: asking })
    }

    /// Waits until it holds what is in force, and says whether it does.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub(crate) async fn finish(self, api: &Api) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::of("13. a consumer that follows a feed holds what is in force, and nothing else");
        let deadline = Instant::now() + REST;
        let (mut listed, mut held) = (BTreeSet::new(), BTreeSet::new());
        while Instant::now() < deadline {
            listed = listed_now(api).await?;
            let now = now_ms();
            let known = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
            held = known.into_iter().filter(|(_, until)| *until > now).map(|(value, _)| value).collect();
            if listed == held {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        verdict.checked = listed.len();
        for value in listed.symmetric_difference(&held) {
            let what = if held.contains(value) { "holds, and it was lifted" } else { "does not have" };
            verdict.check(false, || format!("the consumer {what}: {value}"));
        }
        let answers = *self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        verdict.check(answers > 0, || "no request of the consumer was answered".to_owned());
        Ok(verdict)
    }
}

/// What the feed lists, as a caller that is no consumer reads it.
async fn listed_now(api: &Api) -> anyhow::Result<BTreeSet<String>> {
    let text = api.text(&format!("/feeds/{FEED}")).await?;
    Ok(text.lines().map(str::to_owned).collect())
}

async fn follow(client: Api, mut random: Random, held: Held, answers: Arc<Mutex<usize>>) {
    let mut since: Option<String> = None;
    loop {
        // Now and then it is away for longer than anything between two requests.
        let pause = if random.between(0, 40) == 0 { PACE * 8 } else { PACE };
        tokio::time::sleep(pause).await;
        // An answer that fails is asked for again.
        let Ok((told, last)) = whole(&client, since.as_deref()).await else { continue };
        // One that is lost on its way too.
        if random.between(0, 5) == 0 {
            continue;
        }
        *answers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(told);
        since = last.or(since);
    }
}

/// All pages of what has changed since a time, and the time of the last object.
async fn whole(client: &Api, since: Option<&str>) -> anyhow::Result<(Vec<(String, i64)>, Option<String>)> {
    let (mut told, mut last, mut next) = (Vec::new(), None, None::<String>);
    let after = since.map_or_else(String::new, |since| format!("&added_after={since}"));
    loop {
        let more = next.as_deref().map_or_else(String::new, |next| format!("&next={next}"));
        let path = format!("/taxii2/riposte/collections/{FEED}/objects/?limit={PAGE}{after}{more}");
        let page: Value = serde_json::from_str(&client.text(&path).await?)?;
        for object in page["objects"].as_array().into_iter().flatten() {
            let text = |field: &str| object[field].as_str().with_context(|| format!("no {field}: {object}"));
            let until: Timestamp = text("valid_until")?.parse().map_err(|_| anyhow::anyhow!("no time: {object}"))?;
            told.push((text("name")?.to_owned(), until.as_millis()));
            last = Some(text("modified")?.to_owned());
        }
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            return Ok((told, last));
        }
    }
}
