//! Feeds that firewalls and bouncers fetch. [`lists`] works out what a feed lists and keeps it in the ledger,
//! [`marks`] is which consumer was given which revision, [`consumers`] what they still owe, and [`watch`] what
//! the sweep looks after: fetches into the store, and consumers that are silent. `feed.rs` is another feed,
//! that of events.

pub mod consumers;
pub mod lists;
pub mod marks;
pub(super) mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lists::Lists;
use marks::Marks;

use crate::domain::feed::FeedSpec;

/// What this manager keeps of feeds between two requests.
#[derive(Debug, Default)]
pub struct PullFeeds {
    /// Cache: feeds by name.
    pub(super) specs: ArcSwap<BTreeMap<String, Arc<FeedSpec>>>,
    pub(super) lists: Lists,
    pub(super) marks: Marks,
}
