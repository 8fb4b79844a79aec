//! Open pages that follow the same events ask for the same lists at the same moment. Such reads are
//! made once for all of them: a read that has not begun yet is joined, so that what it returns is
//! never older than the question. Under a steady stream of events each list is read about once a
//! second, however many pages are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

/// Pause between the begin of two reads of one list; a read after a longer quiet begins at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Lists that are the same for everyone with the same rights and scope.
const SHARED: [&str; 4] = ["/v1/targets?", "/v1/responses?", "/v1/alerts?", "/v1/agents?"];

/// What a read returns; `None` if it failed, and then each asks by itself.
type Read = BoxFuture<'static, Option<Bytes>>;

/// Reads that are shared.
#[derive(Default)]
pub(super) struct SharedReads(Mutex<HashMap<Question, Slot>>);

/// A path, and what the person who asks may see.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    path: String,
    sight: Arc<str>,
}

#[derive(Default)]
struct Slot {
    begun: Option<Instant>,
    /// The next read, which is not begun yet.
    next: Option<WeakShared<Read>>,
}

impl Slot {
    fn next(&self) -> Option<Shared<Read>> {
        self.next.as_ref().and_then(WeakShared::upgrade)
    }
}

impl SharedReads {
    /// Whether this path is a list that can be shared.
    pub(super) fn takes(path: &str) -> bool {
        SHARED.iter().any(|list| path.starts_with(list))
    }

    /// What `path` returns to people with this `sight`, by a read that begins after this call: one
    /// that others wait for already, or else `read`.
    pub(super) async fn get(self: &Arc<Self>, path: &str, sight: &Arc<str>, read: Read) -> Option<Bytes> {
        let question = Question { path: path.to_owned(), sight: Arc::clone(sight) };
        self.join(question, read).await
    }

    fn join(self: &Arc<Self>, question: Question, read: Read) -> Shared<Read> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        slots.retain(|_, slot| slot.begun.is_some_and(|begun| now < begun + PAUSE) || slot.next().is_some());
        let slot = slots.entry(question.clone()).or_default();
        if let Some(next) = slot.next() {
            return next;
        }
        let begins = slot.begun.map_or(now, |begun| begun + PAUSE);
        let reads = Arc::clone(self);
        let next = async move {
            tokio::time::sleep_until(begins).await;
            reads.begin(&question);
            read.await
        };
        let next = next.boxed().shared();
        slot.next = next.downgrade();
        next
    }

    fn begin(&self, question: &Question) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.insert(question.clone(), Slot { begun: Some(Instant::now()), next: None });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// A read that returns its number, and the time that it takes.
    fn read(count: &Arc<AtomicUsize>) -> Read {
        let count = Arc::clone(count);
        async move {
            let number = count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            Some(Bytes::from(number.to_string()))
        }
        .boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn many_questions_are_one_read_and_none_is_older_than_its_question() {
        let (reads, count) = (Arc::new(SharedReads::default()), Arc::new(AtomicUsize::new(0)));
        let sight: Arc<str> = "all".into();
        let begun = Instant::now();
        let ask = async |after: u64| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let already = count.load(Ordering::SeqCst);
            let got = reads.get("/v1/targets?", &sight, read(&count)).await.unwrap();
            let number: usize = std::str::from_utf8(&got).unwrap().parse().unwrap();
            assert!(number >= already, "a read that had begun before");
            (number, begun.elapsed())
        };
        // The first is read at once; the others come while it is read, and share one read.
        let all = join_all((0..100).map(|n| ask(n * 5))).await;
        assert_eq!(all[0], (0, Duration::from_millis(30)));
        assert!(
            all[1..].iter().all(|(number, at)| *number == 1 && *at == PAUSE + Duration::from_millis(30)),
            "{all:?}"
        );
        assert_eq!(count.load(Ordering::SeqCst), 2);
        tokio::time::sleep(2 * PAUSE).await;
        let quiet = Instant::now();
        assert_eq!(ask(0).await.0, 2);
        assert_eq!(quiet.elapsed(), Duration::from_millis(30), "after a quiet time it is read at once");
        assert_eq!(reads.0.lock().unwrap().len(), 1, "what is over is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn another_sight_is_another_read_and_a_read_that_is_given_up_holds_up_no_other() {
        let (reads, count) = (Arc::new(SharedReads::default()), Arc::new(AtomicUsize::new(0)));
        let (all, some): (Arc<str>, Arc<str>) = ("all".into(), "some".into());
        let path = "/v1/targets?";
        let (one, other) = tokio::join!(reads.get(path, &all, read(&count)), reads.get(path, &some, read(&count)));
        assert_ne!(one, other);
        // The browser of the one that waits goes away; the next question does not wait for it.
        let given_up = tokio::time::timeout(Duration::from_millis(10), reads.get(path, &all, read(&count))).await;
        assert!(given_up.is_err());
        assert!(reads.get(path, &all, read(&count)).await.is_some());
    }
}
