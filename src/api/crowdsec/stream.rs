//! `/crowdsec/v1/decisions/stream`: everything at the start of a bouncer, then what has changed since it last asked.
//!
//! A bouncer cannot say what it has received. So each change is in two answers, one after the other: an answer that
//! is lost on its way loses nothing, and what is told twice does nothing.

use axum::extract::State;
use axum::http::Method;
use serde::Deserialize;

use super::caller::Bouncer;
use crate::api::front::error::ApiResult;
use crate::api::front::extract::Query;
use crate::api::state::AppState;
use crate::compat::crowdsec::{DecisionFilter, changes as changed, in_force};
use crate::views::crowdsec::{CrowdsecDecision, CrowdsecStream};

/// What a bouncer asks for. Parameters that are not known are ignored: every bouncer has its own.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AskChanges {
    /// `true` for everything in force, at the start of a bouncer.
    startup: Option<String>,
    /// Scopes, separated by commas.
    scopes: Option<String>,
    /// Origins, separated by commas; every decision has `riposte`.
    origins: Option<String>,
    /// Texts of which the scenario must have one, separated by commas.
    scenarios_containing: Option<String>,
    /// Texts of which the scenario must have none, separated by commas.
    scenarios_not_containing: Option<String>,
}

/// Returns everything in force (`startup=true`), or what has changed since the key last asked
///
/// The key is in the header `X-Api-Key`, and is bound to a feed of the form `crowdsec`. A decision that is extended is
/// in `deleted` and in `new`. Each change is told twice, because an answer may be lost.
#[utoipa::path(get, operation_id = "stream", path = "/crowdsec/v1/decisions/stream", tag = "crowdsec", params(AskChanges),
    security(()), responses((status = 200, body = CrowdsecStream), (status = 403)))]
pub(super) async fn changes(
    Query(asked): Query<AskChanges>,
    bouncer: Bouncer,
    State(state): State<AppState>,
    method: Method,
) -> ApiResult<axum::Json<CrowdsecStream>> {
    let engine = &state.engine;
    let is_start = asked.startup.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("true") || word == "1");
    let AskChanges { scopes, origins, scenarios_containing, scenarios_not_containing, .. } = asked;
    let filter = DecisionFilter {
        scopes,
        origins,
        containing: scenarios_containing,
        not_containing: scenarios_not_containing,
        ..DecisionFilter::default()
    };
    let served = bouncer.list(&state).await?;
    let (before, now) = (engine.feed_consumer(&bouncer.spec.name, &bouncer.name).await?, engine.clock.now());
    let told = if is_start {
        let all = served.list.listed().filter_map(|(value, entry)| in_force(value, entry, &filter, now));
        let all: Vec<CrowdsecDecision> = all.collect();
        CrowdsecStream { new: (!all.is_empty()).then_some(all), deleted: None }
    } else {
        // Of a bouncer that is not known, nothing is known either: it gets everything.
        let from = before.as_ref().map_or(i64::MIN, |row| row.before);
        changed(served.list.since(from), &filter, now)
    };
    // A HEAD is no fetch.
    if method == Method::GET {
        let Bouncer { name, address, .. } = &bouncer;
        if is_start {
            engine.note_start(&served, name, before.as_ref(), *address);
        } else {
            engine.note_fetch(&served, name, before.as_ref(), *address);
        }
    }
    Ok(axum::Json(told))
}
