//! `/taxii2`: TAXII 2.1, to read. Each feed of the form `taxii` is a collection of indicators.
//!
//! `discovery.rs` says which collections there are, `objects.rs` serves what is in one. What the words mean is in
//! `src/compat/taxii.rs`. [`worded`] puts every error below `/taxii2` into TAXII's form.

mod answer;
mod discovery;
mod objects;
pub mod worded;

use axum::middleware::{from_fn, map_response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answer::negotiate;
use super::pull::challenged;
use super::state::AppState;

/// The operations of this resource.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(discovery::server))
        .routes(routes!(discovery::root))
        .routes(routes!(discovery::collections))
        .routes(routes!(discovery::collection))
        .routes(routes!(objects::list))
        .routes(routes!(objects::one))
        .routes(routes!(objects::versions))
        .routes(routes!(objects::manifest))
        .layer(from_fn(negotiate))
        .layer(map_response(challenged))
}
