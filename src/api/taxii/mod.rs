//! `/taxii2`: TAXII 2.1, to read. Each feed of the form `taxii` is a collection of indicators.
//!
//! `discovery.rs` says which collections there are, `objects.rs` serves what is in one. What the words mean is in
//! `src/compat/taxii.rs`. [`worded`] puts every error below `/taxii2` into TAXII's form.

mod answer;
mod discovery;
mod objects;
pub mod worded;

use axum::middleware::{from_fn, map_response};

use self::answer::negotiate;
use super::pull::challenged;
use crate::api::front::table::{Table, operations};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(discovery::server))
        .with(operations!(discovery::root))
        .with(operations!(discovery::collections))
        .with(operations!(discovery::collection))
        .with(operations!(objects::list))
        .with(operations!(objects::one))
        .with(operations!(objects::versions))
        .with(operations!(objects::manifest))
        .layer(from_fn(negotiate))
        .layer(map_response(challenged))
}
