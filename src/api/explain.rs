//! `/v1/alerts/{id}/explain`: why each policy does or does not match an alert now, beside the
//! responses decided at intake.

use axum::extract::State;

use super::alerts;
use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::Path;
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::outcomes;
use super::state::AppState;
use crate::domain::fleet::Origin;
use crate::domain::index::{Seen, why_not};
use crate::domain::policy::Mode;
use crate::domain::response::Verdict;
use crate::engine::decide::{Ages, Circumstances, decide};
use crate::store::database::columns;
use crate::store::ledger::alerts as stored;
use crate::store::ledger::responses::{self, ResponseFilter};
use crate::views::explain::{Explanation, PolicyVerdict, SelectorVerdict};

/// Maximum number of stored responses shown; an alert has one per matching policy.
const SHOWN: i64 = 500;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(explain))
}

/// Explains how policies decide an alert
///
/// `id` is Riposte's id or the pipeline's.
#[utoipa::path(get, path = "/v1/alerts/{id}/explain", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = Explanation), (status = 409)))]
pub async fn explain(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(word): Path<String>,
) -> ApiResult<axum::Json<Explanation>> {
    let engine = &state.engine;
    let visible = Visible::to(&caller, engine);
    let row = alerts::named(&state, &visible, &word).await?;
    let id = columns::id(&row.id)?;
    let raw = row.text()?;
    let alert = row.alert(&raw, &engine.mappings);
    let alert = alert.received(stored::received(&id));
    let filter = ResponseFilter { alert: Some(id), ..ResponseFilter::default() };
    let decided = responses::list(&engine.db, filter, None, SHOWN).await?;
    let decided = outcomes::judge(&state, &visible, decided, outcomes::LISTED).await?;
    let (policies, actions) = (engine.policies.load(), engine.actions.load());
    let (fleet, protected) = (engine.fleet.load(), engine.protected.load());
    let now = engine.clock.now();
    let circumstances = Circumstances {
        policies: &policies,
        actions: &actions,
        fleet: &fleet,
        protected: &protected,
        now,
        // The age at intake counts, so that an old alert is not explained as too old.
        ages: Ages::Judged { received: alert.received, max_age: engine.rules.max_age },
        trace: None,
    };
    let responses = decide(id, &alert, &raw, circumstances).responses;
    let origin = fleet.origin(&alert.agent);
    let from = || origin.agent().map(AsRef::as_ref);
    let seen = Seen::new(&alert, &raw, &from);
    let shown = policies.policies().iter().filter(|versioned| visible.policy(&versioned.policy.name));
    let verdicts = shown.map(|versioned| {
        let (policy, version) = (&versioned.policy, versioned.version);
        let selectors = policy.selectors.iter().map(|selector| {
            let because = match alert.rule.level {
                0 => Some("alerts of level 0 fire nothing".to_owned()),
                _ => why_not(selector, &seen).map(|why| why.text().into_owned()),
            };
            SelectorVerdict { holds: because.is_none(), because }
        });
        let response =
            responses.iter().find(|response| response.policy.as_ref().is_some_and(|(name, _)| *name == policy.name));
        let (verdict, reason) = match response.map(|response| &response.verdict) {
            None => (None, None),
            Some(Verdict::Act | Verdict::Await(_)) if policy.mode == Mode::Approve => (Some("ask"), None),
            Some(Verdict::Act | Verdict::Await(_)) => (Some("act"), None),
            Some(Verdict::Observe(_)) => (Some("observe"), None),
            Some(Verdict::Spare(spared)) => (Some("spare"), Some(spared.detail())),
        };
        let (policy, fires) = (policy.name.clone(), response.is_some());
        let (selectors, verdict) = (selectors.collect(), verdict.map(str::to_owned));
        PolicyVerdict { policy, version, fires, selectors, verdict, reason }
    });
    let verdicts = verdicts.collect();
    let origin_ambiguous = if let Origin::Ambiguous(why) = &origin { Some(why.clone()) } else { None };
    let origin = origin.agent().map(|agent| agent.id);
    Ok(axum::Json(Explanation { alert_id: id, origin, origin_ambiguous, decided, now: verdicts }))
}
