//! The load: posts alerts at a steady rate, as a careful client does, and records which were
//! acknowledged. An alert without an acknowledgement is posted again, after the manager's
//! `Retry-After`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::plan::{AlertKind, Plan};
use crate::random::Random;

/// Number of concurrent requests.
const POSTERS: usize = 24;
/// Limit of alerts in a request while the load keeps up.
const MOST: u64 = 20;
/// Limit of alerts in a request during a backlog: it is sent in larger requests, as log shippers
/// do. Not much larger: all posters' requests are one transaction, which a fault rolls back as a
/// whole.
const MOST_BEHIND: u64 = 80;
/// A backlog begins when alerts wait for longer than this.
const BEHIND: Duration = Duration::from_millis(500);
/// Time limit of a request before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(12);

/// The client's view of the run.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Numbers of the acknowledged alerts.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Number of requests by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Responses that a client must never receive.
    pub(crate) wrong: Vec<String>,
    /// Time from the first post to the acknowledgement of a request, in milliseconds; without
    /// requests that were posted again.
    pub(crate) latencies_ms: Vec<u32>,
}

/// State that the posters share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    url: String,
    key: String,
    rate: f64,
    begun: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    again: Mutex<VecDeque<Vec<u64>>>,
    seen: Mutex<Seen>,
    endless: Arc<AtomicUsize>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn again(&self) -> MutexGuard<'_, VecDeque<Vec<u64>>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running posters.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    posters: JoinSet<()>,
}

impl Load {
    /// Starts posting `rate` alerts a second to `base`.
    ///
    /// # Errors
    /// If the client cannot be made.
    pub(crate) fn start(plan: Plan, base: &str, key: &str, rate: f64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            plan,
            url: format!("{base}/v1/alerts"),
            key: key.into(),
            rate,
            begun: Instant::now(),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            again: Mutex::default(),
            seen: Mutex::default(),
            endless: Arc::default(),
        });
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(3)).build()?;
        let mut posters = JoinSet::new();
        for poster in 0..POSTERS {
            let random = Random::new(shared.plan.seed, 0x7057 + poster as u64);
            posters.spawn(run(Arc::clone(&shared), http.clone(), random));
        }
        Ok(Self { shared, posters })
    }

    /// Number of alerts that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.seen().acknowledged.len()
    }

    /// Counter of the acknowledged alerts of kind [`AlertKind::Endless`].
    pub(crate) fn endless(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.shared.endless)
    }

    /// Accepts no new alerts, and continues until every old one is acknowledged or `patience` has
    /// passed. Returns the client's view.
    pub(crate) async fn finish(mut self, patience: Duration) -> Seen {
        self.shared.stop.store(true, Ordering::SeqCst);
        let all = async { while self.posters.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(patience, all).await.is_ok();
        let mut seen = std::mem::take(&mut *self.shared.seen());
        if !in_time {
            seen.wrong.push("alerts could not be posted although every fault had ended".into());
        }
        seen
    }
}

async fn run(shared: Arc<Shared>, http: reqwest::Client, mut random: Random) {
    loop {
        let retried = shared.again().pop_front();
        let is_first = retried.is_none();
        let numbers = match retried {
            Some(numbers) => numbers,
            None if shared.stop.load(Ordering::SeqCst) => return,
            None => take(&shared, &mut random).await,
        };
        if numbers.is_empty() {
            continue;
        }
        let begun = Instant::now();
        match post(&shared, &http, &numbers).await {
            Ok(()) => {
                let endless =
                    numbers.iter().filter(|number| shared.plan.of(**number).kind == AlertKind::Endless).count();
                shared.endless.fetch_add(endless, Ordering::SeqCst);
                let mut seen = shared.seen();
                if is_first {
                    seen.latencies_ms.push(u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX));
                }
                seen.acknowledged.extend(numbers);
            }
            Err((word, pause)) => {
                *shared.seen().outcomes.entry(word).or_default() += 1;
                shared.again().push_back(numbers);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Returns the next numbers when they are due.
async fn take(shared: &Shared, random: &mut Random) -> Vec<u64> {
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let due = |number: u64| Duration::from_secs_f64(number as f64 / shared.rate);
    let is_behind = shared.begun.elapsed() > due(shared.next.load(Ordering::SeqCst)) + BEHIND;
    let count = random.between(1, if is_behind { MOST_BEHIND } else { MOST });
    let first = shared.next.fetch_add(count, Ordering::SeqCst);
    tokio::time::sleep(due(first).saturating_sub(shared.begun.elapsed())).await;
    (first..first + count).collect()
}

/// Posts these alerts; on failure returns the word of the outcome, and how long to wait.
async fn post(shared: &Shared, http: &reqwest::Client, numbers: &[u64]) -> Result<(), (String, Duration)> {
    let alerts: Vec<Value> = numbers.iter().map(|number| shared.plan.alert(*number)).collect();
    let request = http.post(&shared.url).bearer_auth(&shared.key).timeout(PATIENCE).json(&alerts);
    let lost = |error: reqwest::Error| {
        let word = if error.is_timeout() { "no answer in time" } else { "connection lost" };
        (word.to_owned(), Duration::from_millis(200))
    };
    let answer = request.send().await.map_err(lost)?;
    let status = answer.status().as_u16();
    let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let text = answer.text().await.map_err(lost)?;
    if status == 202 {
        let intake: Value = serde_json::from_str(&text).unwrap_or_default();
        let count = |field: &str| intake[field].as_u64().unwrap_or(0);
        if count("accepted") + count("duplicates") != numbers.len() as u64 {
            shared.seen().wrong.push(format!("{} alerts were posted, and answered {text}", numbers.len()));
        }
        *shared.seen().outcomes.entry("202".into()).or_default() += 1;
        return Ok(());
    }
    if !matches!(status, 429 | 503 | 507) || wait.is_none() {
        let what = format!("a good alert was answered {status}, Retry-After {wait:?}: {text}");
        let mut seen = shared.seen();
        if seen.wrong.len() < 20 {
            seen.wrong.push(what);
        }
    }
    Err((status.to_string(), Duration::from_secs(wait.unwrap_or(1)).min(Duration::from_secs(3))))
}
