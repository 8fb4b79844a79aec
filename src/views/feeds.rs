//! `/v1/feeds`: lists of addresses in force that firewalls and bouncers fetch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::columns::{JsonText, Millis};
use crate::domain::duration::Span;
use crate::domain::feed::FeedForm;

/// A feed to create, or to replace one.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedDocument {
    /// Unique name, which is in the URL.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,63}$", example = "edge")]
    pub name: String,
    /// The form in which it is served.
    #[serde(default)]
    pub form: FeedForm,
    /// Policies whose blocks are listed, by name; `*` stands for any characters. Empty: all, and responses by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub policies: Vec<String>,
    /// Labels that the agent of a block must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Actions that count as blocks; empty: the built-in ones that block an address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub actions: Vec<String>,
    /// Entries that end sooner are not listed; at most `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5m")]
    pub min_left: Option<Span>,
    /// Whether networks are listed, and not only single addresses; by default they are, but for `crowdsec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<bool>,
    /// Most entries. With more the feed is an error, never a shorter list. The default depends on the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub max_entries: Option<u32>,
    /// Longest time between two fetches of a consumer that works; `10m` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "duration-text", example = "10m")]
    pub expected_interval: Option<Span>,
    /// Why it exists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 2000, format = "lines")]
    pub note: String,
}

/// A feed, its list and its consumers.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeedView {
    /// Unique name.
    pub name: String,
    /// The form in which it is served.
    pub form: FeedForm,
    /// Policies whose blocks are listed; empty: all, and responses by hand.
    pub policies: Vec<String>,
    /// Labels that the agent of a block must have.
    pub labels: BTreeMap<String, String>,
    /// Actions that count as blocks.
    pub actions: Vec<String>,
    /// Entries that end sooner are not listed.
    #[schema(value_type = Option<String>)]
    pub min_left: Option<Span>,
    /// Whether networks are listed.
    pub networks: bool,
    /// Most entries.
    pub max_entries: u32,
    /// Longest time between two fetches of a consumer that works.
    #[schema(value_type = String)]
    pub expected_interval: Span,
    /// Why it exists.
    pub note: String,
    /// Its version, from 1.
    pub version: i64,
    /// Creation time.
    pub created_at: Millis,
    /// Time of the last change of its definition.
    pub updated_at: Millis,
    /// Principal that made it.
    pub updated_by: String,
    /// Number of entries; of those that there would be while there are more than `max_entries`.
    pub entries: i64,
    /// Number of the last event that the list takes into account.
    pub sequence: i64,
    /// Since when there are more entries than `max_entries`, so that no consumer gets the list.
    pub too_long_since: Option<Millis>,
    /// Its consumers, by name.
    pub consumers: Vec<FeedConsumer>,
}

/// A consumer of a feed: the keys of one name that are bound to it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeedConsumer {
    /// Name of its keys.
    pub name: String,
    /// Number of its valid keys: two while one replaces the other.
    pub keys: i64,
    /// Time of the first fetch; absent if it has never fetched.
    pub first_at: Option<Millis>,
    /// Time of the last fetch.
    pub last_at: Option<Millis>,
    /// Client address of the last fetch.
    pub address: Option<String>,
    /// Number of the last event that the list it has takes into account.
    pub sequence: Option<i64>,
    /// Entries that are new or changed since its last fetch.
    pub owed_new: i64,
    /// Removals since its last fetch.
    pub owed_removed: i64,
    /// Since when it is an incident that it does not fetch while a removal is owed to it.
    pub silent_since: Option<Millis>,
    /// What it last said of itself (`CrowdSec`'s usage metrics).
    #[schema(value_type = Option<Object>)]
    pub metrics: Option<JsonText>,
    /// When it said so.
    pub metrics_at: Option<Millis>,
}
