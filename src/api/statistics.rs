//! `/v1/statistics`: how many alerts, responses and failures there were over time.

use std::time::Duration;

use axum::extract::State;
use serde::Deserialize;

use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::Query;
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::duration::Span;
use crate::store::ledger::statistics;
use crate::views::statistics::{Statistics, StatisticsStep};

/// Default range.
const DEFAULT_WITHIN: Duration = Duration::from_hours(24);
/// Default length of a step.
const DEFAULT_STEP: Duration = Duration::from_hours(1);
/// Longest range: a longer one is cut.
const LONGEST_RANGE: Duration = Duration::from_hours(92 * 24);
/// Most steps of a range.
const MOST_STEPS: u32 = 200;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(find))
}

/// Range of the counts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RangeOfTime {
    /// Length of the range, which ends now; default 24h. At most 92 days are counted.
    #[param(value_type = Option<String>, example = "24h")]
    within: Option<Span>,
    /// Length of a step; default 1h. It is made longer if more than 200 would fit in the range, and the range holds whole steps.
    #[param(value_type = Option<String>, example = "1h")]
    step: Option<Span>,
}

/// Counts alerts, responses and failed commands over time
///
/// Of what is stored: retention removes the oldest. Needs an unlimited scope.
#[utoipa::path(get, path = "/v1/statistics", tag = "statistics", params(RangeOfTime),
    responses((status = 200, body = Statistics)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<RangeOfTime>,
) -> ApiResult<axum::Json<Statistics>> {
    caller.unlimited("these counts are of all agents")?;
    let within = query.within.map_or(DEFAULT_WITHIN, Span::duration).min(LONGEST_RANGE);
    let step = query.step.map_or(DEFAULT_STEP, Span::duration).max(within / MOST_STEPS).min(within);
    let count = within.as_millis().checked_div(step.as_millis()).unwrap_or(1);
    let count = u32::try_from(count).unwrap_or(MOST_STEPS).clamp(1, MOST_STEPS);
    let (db, until) = (&state.engine.db, state.engine.clock.now());
    let since = until.minus(step * count);
    let mut steps = Vec::new();
    for number in 0..count {
        let at = since.plus(step * number);
        let end = at.plus(step);
        let responses = statistics::responses(db, at, end).await?;
        let responses = responses.into_iter().map(|row| (row.state.as_str().to_owned(), row.count));
        steps.push(StatisticsStep {
            at,
            alerts: statistics::alerts(db, at, end).await?,
            responses: responses.collect(),
        });
    }
    let failures = statistics::failures(db, since, until).await?;
    Ok(axum::Json(Statistics { since, until, steps, failures }))
}
