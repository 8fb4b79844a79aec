//! `/taxii2`: the bodies of TAXII 2.1, and the indicators of STIX 2.1 in them.

use serde::{Deserialize, Serialize};

use super::columns::Millis;

/// What this server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiDiscovery {
    /// For people.
    pub title: String,
    /// What it serves.
    pub description: String,
    /// The API root.
    pub default: String,
    /// All API roots: this one.
    pub api_roots: Vec<String>,
}

/// What an API root is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiRoot {
    /// For people.
    pub title: String,
    /// What it serves.
    pub description: String,
    /// Media types of its answers.
    pub versions: Vec<String>,
    /// Longest body of a request, in bytes; it takes none.
    pub max_content_length: i64,
}

/// A collection: a feed of the form `taxii`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiCollection {
    /// A UUID that follows from the name of the feed.
    pub id: String,
    /// Name of the feed.
    pub title: String,
    /// What it lists.
    pub description: String,
    /// Name of the feed, which can stand in the path instead of the id.
    pub alias: String,
    /// Always true.
    pub can_read: bool,
    /// Always false.
    pub can_write: bool,
    /// Media type of its objects.
    pub media_types: Vec<String>,
}

/// The collections that the caller may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiCollections {
    /// By the name of the feed; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<TaxiiCollection>,
}

/// An address or network that is blocked, as an indicator of STIX 2.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StixIndicator {
    /// Always `indicator`.
    pub r#type: String,
    /// Always `2.1`.
    pub spec_version: String,
    /// The same for all versions.
    pub id: String,
    /// When it was first listed.
    pub created: Millis,
    /// When it was changed last.
    pub modified: Millis,
    /// The address or network.
    pub name: String,
    /// Which policy blocks it.
    pub description: String,
    /// Always `malicious-activity`.
    pub indicator_types: Vec<String>,
    /// A pattern of STIX.
    pub pattern: String,
    /// Always `stix`.
    pub pattern_type: String,
    /// When it was first listed.
    pub valid_from: Millis,
    /// When the block ends; for one that was lifted, when that was.
    pub valid_until: Millis,
}

/// Some objects of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiEnvelope {
    /// Whether there are more: ask again with `next`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The objects; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<StixIndicator>,
}

/// What is known of an object without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiRecord {
    /// Id of the object.
    pub id: String,
    /// When this version came into the collection.
    pub date_added: Millis,
    /// The version: when it was changed last.
    pub version: Millis,
    /// Media type of the object.
    pub media_type: String,
}

/// Some objects of a collection, without their content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiManifest {
    /// Whether there are more: ask again with `next`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The objects; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<TaxiiRecord>,
}

/// The versions of an object: the last one is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiVersions {
    /// The version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Millis>,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaxiiError {
    /// What kind of error it is, in words.
    pub title: String,
    /// What happened, and what to do.
    pub description: String,
    /// The same as a type that stays.
    pub error_code: String,
    /// The status, as a text.
    pub http_status: String,
}
