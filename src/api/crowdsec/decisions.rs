//! `/crowdsec/v1/decisions`: which decisions there are, for bouncers that ask about each address. Such a question is
//! no fetch of the list.

use axum::extract::State;
use serde::Deserialize;

use super::caller::Bouncer;
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::Query;
use crate::api::state::AppState;
use crate::compat::crowdsec::{DecisionFilter, in_force};
use crate::domain::fault::Fault;
use crate::views::crowdsec::CrowdsecDecision;

/// What a bouncer asks for. Parameters that are not known are ignored: every bouncer has its own.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AskDecisions {
    /// An address: decisions about it, and about networks that have it.
    ip: Option<String>,
    /// A network.
    range: Option<String>,
    /// `ip` or `range`.
    scope: Option<String>,
    /// Scopes, separated by commas.
    scopes: Option<String>,
    /// The value of a decision.
    value: Option<String>,
    /// `ban`; there are no others.
    r#type: Option<String>,
    /// Origins, separated by commas; every decision has `riposte`.
    origins: Option<String>,
    /// Texts of which the scenario must have one, separated by commas.
    scenarios_containing: Option<String>,
    /// Texts of which the scenario must have none, separated by commas.
    scenarios_not_containing: Option<String>,
}

impl AskDecisions {
    fn filter(self) -> ApiResult<DecisionFilter> {
        let wrong =
            |at: &str, what: &str| ApiError::invalid(vec![Fault::at(format!("/{at}"), format!("is not {what}"))]);
        let ip = self.ip.filter(|text| !text.is_empty());
        let range = self.range.filter(|text| !text.is_empty());
        Ok(DecisionFilter {
            origins: self.origins,
            scopes: self.scopes.or(self.scope),
            types: self.r#type,
            containing: self.scenarios_containing,
            not_containing: self.scenarios_not_containing,
            value: self.value,
            ip: ip.map(|text| text.parse().map_err(|_| wrong("ip", "an address"))).transpose()?,
            range: range.map(|text| text.parse().map_err(|_| wrong("range", "a network"))).transpose()?,
        })
    }
}

/// Returns the decisions in force that a bouncer asks for; null if there are none
///
/// The key is in the header `X-Api-Key`, and is bound to a feed of the form `crowdsec`.
#[utoipa::path(get, operation_id = "decisions", path = "/crowdsec/v1/decisions", tag = "crowdsec", params(AskDecisions),
    security(()), responses((status = 200, body = Option<Vec<CrowdsecDecision>>), (status = 403)))]
pub(super) async fn list(
    Query(asked): Query<AskDecisions>,
    bouncer: Bouncer,
    State(state): State<AppState>,
) -> ApiResult<axum::Json<Option<Vec<CrowdsecDecision>>>> {
    let filter = asked.filter()?;
    let (served, now) = (bouncer.list(&state).await?, state.engine.clock.now());
    let found = served.list.listed().filter_map(|(value, entry)| in_force(value, entry, &filter, now));
    let found: Vec<CrowdsecDecision> = found.collect();
    Ok(axum::Json(if found.is_empty() { None } else { Some(found) }))
}
