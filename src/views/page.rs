//! A page of a list.

use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// `cursor` of the next page; absent on the last page.
    pub next_cursor: Option<String>,
}
