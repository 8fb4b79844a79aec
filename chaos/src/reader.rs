//! A client that reads a list to its end, again and again, while network and manager fail (promise
//! 13). A page that fails is asked for again. A complete listing must hold everything that was
//! acknowledged before it began.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Page};
use crate::verify::Verdict;

/// Number of attempts for one page before the listing starts again.
const ATTEMPTS: usize = 20;
/// Pause before a page is requested again.
const PAUSE: Duration = Duration::from_millis(500);

/// Result of all listings.
#[derive(Debug)]
pub(crate) struct Listings {
    pub(crate) verdict: Verdict,
    /// Number of complete listings.
    pub(crate) whole: usize,
    /// Number of pages that failed with an error.
    pub(crate) failed_pages: usize,
}

/// The running reader.
#[derive(Debug)]
pub(crate) struct Reader {
    stop: CancellationToken,
    task: JoinSet<Listings>,
}

impl Reader {
    /// Starts reading all responses of the policy `endless` through `api`, with `pause` between two
    /// listings. `acknowledged` is the number that a listing must have at least.
    pub(crate) fn start(api: Api, acknowledged: Arc<AtomicUsize>, pause: Duration) -> Self {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(read(api, acknowledged, pause, stop.clone()));
        Self { stop, task }
    }

    /// Reads the list once more, and returns the result of all listings.
    ///
    /// # Errors
    /// If the task has panicked.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Listings> {
        self.stop.cancel();
        let mut listings = self.task.join_next().await.context("no reader is running")??;
        let whole = listings.whole;
        listings.verdict.check(whole > 0, || "no listing came to its end".into());
        Ok(listings)
    }
}

async fn read(api: Api, acknowledged: Arc<AtomicUsize>, pause: Duration, stop: CancellationToken) -> Listings {
    let verdict = Verdict::of("13. a listing that ends holds everything");
    let mut listings = Listings { verdict, whole: 0, failed_pages: 0 };
    loop {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none();
        let least = acknowledged.load(Ordering::SeqCst);
        if let Some(ids) = list(&api, &mut listings).await {
            listings.whole += 1;
            judge(&ids, least, &mut listings.verdict);
        }
        if is_last {
            return listings;
        }
    }
}

/// One listing; `None` if it does not come to its end.
async fn list(api: &Api, listings: &mut Listings) -> Option<Vec<String>> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let mut attempts = 0;
        let Page { items, next } = loop {
            match api.page("/v1/responses?policy=endless", cursor.as_deref()).await {
                Ok(page) => break page,
                Err(_) if attempts < ATTEMPTS => attempts += 1,
                Err(_) => return None,
            }
            listings.failed_pages += 1;
            tokio::time::sleep(PAUSE).await;
        };
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap_or_default().to_owned()));
        cursor = next;
        if cursor.is_none() {
            return Some(ids);
        }
    }
}

fn judge(ids: &[String], least: usize, verdict: &mut Verdict) {
    let different = ids.iter().collect::<HashSet<_>>().len();
    verdict.check(different == ids.len(), || format!("of {} items only {different} are different", ids.len()));
    verdict.check(different >= least, || format!("{different} items, and {least} were acknowledged before"));
    verdict.checked += ids.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_repeated_items_are_detected() {
        let broken = |ids: &[&str], least| {
            let mut verdict = Verdict::of("13");
            judge(&ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(), least, &mut verdict);
            verdict.broken
        };
        assert_eq!(broken(&["a", "b"], 2), 0);
        assert_eq!(broken(&["a", "b", "c"], 2), 0, "what came meanwhile");
        assert_eq!(broken(&["a"], 2), 1);
        assert_eq!(broken(&["a", "b", "b"], 2), 1);
    }
}
