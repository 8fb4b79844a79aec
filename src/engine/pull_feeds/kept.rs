//! What this manager keeps of feeds between two requests: the last list of each with what it was worked out from,
//! and the fetches that are not written yet. It decides nothing; `lists.rs` and `marks.rs` use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use riposte_protocol::time::Timestamp;

use crate::domain::feed::FeedSpec;
use crate::domain::feed_list::FeedList;
use crate::domain::fleet::Fleet;
use crate::domain::protected::ProtectedSet;
use crate::store::ledger::feeds::{ConsumerRow, LedgerMark};

/// What this manager keeps of feeds between two requests.
#[derive(Debug, Default)]
pub struct PullFeeds {
    /// Cache: feeds by name.
    pub(in crate::engine) specs: ArcSwap<BTreeMap<String, Arc<FeedSpec>>>,
    pub(in crate::engine) lists: Lists,
    pub(in crate::engine) marks: Marks,
}

/// A list as it is served.
#[derive(Clone, Debug)]
pub struct ServedList {
    /// The feed as it is defined.
    pub spec: Arc<FeedSpec>,
    /// The list.
    pub list: Arc<FeedList>,
    /// Number of the last event that it takes into account.
    pub event: i64,
    /// The number of entries that there would be, if they are more than the feed may hold. Then the list is an
    /// earlier one and is given to no consumer.
    pub too_many: Option<usize>,
    /// Since when.
    pub over_since: Option<Timestamp>,
}

/// What the last list was worked out from.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    pub(super) mark: LedgerMark,
    pub(super) fleet: Arc<Fleet>,
    pub(super) protected: Arc<ProtectedSet>,
    pub(super) version: i64,
    pub(super) is_held_back: bool,
    pub(super) at: Timestamp,
    pub(super) next_change: Option<Timestamp>,
}

/// A feed's list with what it was worked out from; none before the first look.
pub(super) type Kept = Arc<tokio::sync::Mutex<Option<(ServedList, Basis)>>>;

/// The lists of all feeds.
#[derive(Debug, Default)]
pub struct Lists(Mutex<HashMap<String, Kept>>);

impl Lists {
    pub(super) fn of(&self, feed: &str) -> Kept {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lists.entry(feed.to_owned()).or_default())
    }

    /// Forgets a feed: one of the same name may follow.
    pub(in crate::engine) fn forget(&self, feed: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(feed);
    }

    /// Forgets the feeds that are not known any more.
    pub(super) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|feed, _| is_known(feed));
    }
}

/// A feed and one of its consumers.
type Place = (String, String);

#[derive(Debug, Default)]
struct Fetches {
    last: BTreeMap<Place, ConsumerRow>,
    unwritten: BTreeSet<Place>,
}

/// The last fetch of each consumer at this manager.
#[derive(Debug, Default)]
pub struct Marks(Mutex<Fetches>);

impl Marks {
    pub(super) fn note(&self, fetch: ConsumerRow) {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (fetch.feed.clone(), fetch.consumer.clone());
        fetches.unwritten.insert(place.clone());
        fetches.last.insert(place, fetch);
    }

    /// The newer one of what is noted here and what is stored.
    pub(super) fn newest(&self, feed: &str, consumer: &str, stored: Option<ConsumerRow>) -> Option<ConsumerRow> {
        let fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = fetches.last.get(&(feed.to_owned(), consumer.to_owned()));
        match (noted, stored) {
            (Some(noted), Some(stored)) if noted.last_at >= stored.last_at => {
                let ConsumerRow { silent_since, metrics, metrics_at, .. } = stored;
                Some(ConsumerRow { silent_since, metrics, metrics_at, ..noted.clone() })
            }
            (Some(noted), None) => Some(noted.clone()),
            (_, stored) => stored,
        }
    }

    /// Takes the fetches that are not written yet.
    pub(super) fn take(&self) -> Vec<ConsumerRow> {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = std::mem::take(&mut fetches.unwritten);
        places.into_iter().filter_map(|place| fetches.last.get(&place).cloned()).collect()
    }

    /// These could not be written: they are tried again.
    pub(super) fn put_back(&self, fetches: &[ConsumerRow]) {
        let places = fetches.iter().map(|fetch| (fetch.feed.clone(), fetch.consumer.clone()));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unwritten.extend(places);
    }

    /// Forgets the feeds that are not known any more.
    pub(in crate::engine) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let mut fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.last.retain(|(feed, _), _| is_known(feed));
        fetches.unwritten.retain(|(feed, _)| is_known(feed));
    }

    /// The consumers of a feed whose fetches are noted here.
    pub(super) fn of(&self, feed: &str) -> Vec<String> {
        let fetches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.last.keys().filter(|(own, _)| own == feed).map(|(_, consumer)| consumer.clone()).collect()
    }
}
