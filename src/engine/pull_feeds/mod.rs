//! Feeds that firewalls and bouncers fetch. [`lists`] works out what a feed lists and keeps it in the ledger,
//! [`marks`] is which consumer was given which revision, [`consumers`] what they still owe, and [`watch`] what
//! the sweep looks after: fetches into the store, and consumers that are silent. [`gauges`] is what metrics show. [`kept`] is what of it stays in
//! memory. `feed.rs` is another feed, that of events.

pub mod consumers;
pub(super) mod gauges;
pub mod kept;
pub mod lists;
pub mod marks;
pub(super) mod watch;
