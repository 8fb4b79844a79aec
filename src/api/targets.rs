//! `/v1/targets`: what is blocked, one row per target, and everything known of one target. The store counts effects
//! by outcome; this puts a row together of what the caller may see.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use riposte_protocol::target::{Target, TargetKind};
use serde::Deserialize;
use uuid::Uuid;

use super::front::auth::{Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Path, Query};
use super::front::page::{limit, page_until};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::outcomes;
use super::state::AppState;
use crate::domain::canonical;
use crate::domain::fault::Fault;
use crate::domain::outcome::{EffectOutcome, HoldFacts, of_effect};
use crate::store::configured::protected;
use crate::store::database::columns::id;
use crate::store::ledger::targets::{self, Before, Counted, HoldingRow, NewestEffect, StandingEffect, TargetFilter};
use crate::store::ledger::{alerts, responses};
use crate::views::effects::HolderRow;
use crate::views::page::Page;
use crate::views::protected::ProtectedRow;
use crate::views::targets::{HolderRule, TargetEffect, TargetHolder, TargetRow, TargetView};

/// Active responses shown with a target.
const HOLDERS: usize = 5;
/// Active responses of a target that are read: some may be hidden from the caller.
const HOLDERS_READ: i64 = 50;
/// Effects shown of one target.
const EFFECTS: i64 = 500;
/// Responses shown of one target.
const RESPONSES: i64 = 50;
/// Stands in a path for the target of a kind that has no value.
const NO_VALUE: &str = "-";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list)).with(operations!(find))
}

/// Filter of a list of targets.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListTargets {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Target; an address in any notation.
    target: Option<String>,
    /// Kind of the target: `ip`, `user`, `file`, `process`, `host` or `none`.
    kind: Option<String>,
    /// Name of the action of an effect.
    action: Option<String>,
    /// Policy of a response that holds an effect.
    policy: Option<String>,
    /// Agent of an effect.
    agent_id: Option<Uuid>,
    /// What became of an effect: `in_force`, `unverified`, `pending`, `failed`, `drifted`, `reverting` or `failing`.
    state: Option<String>,
}

/// Lists the targets that are wanted or in force, the one that was wanted last first
///
/// A target is listed if one effect meets the whole filter; its numbers count all its effects.
#[utoipa::path(get, path = "/v1/targets", tag = "targets", params(ListTargets),
    responses((status = 200, body = Page<TargetRow>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListTargets>,
    uri: Uri,
) -> ApiResult<Response> {
    let ListTargets { limit: asked, cursor, target, kind, action, policy, agent_id, state: outcome } = query;
    let kind = kind.map(|word| TargetKind::parse(&word).ok_or_else(not_a_kind)).transpose()?;
    let not_outcome = || ApiError::invalid(vec![Fault::at("/state", "is not the outcome of an effect")]);
    let outcome = outcome.map(|word| EffectOutcome::parse(&word).ok_or_else(not_outcome)).transpose()?;
    let (action, policy) = (action.map(|name| canonical::name(&name)), policy.map(|name| canonical::name(&name)));
    let filter =
        TargetFilter { agent: agent_id, action, policy, outcome, kind: kind.map(|kind| kind.as_str().to_owned()) };
    let visible = Visible::to(&caller, &state.engine);
    let (mut page, db) = (visible.filling(limit(asked)?, cursor), &state.engine.db);
    if let Some(text) = target {
        // One text is at most one target of each kind.
        let found = targets::of_value(db, &filter, &canonical::target(&text)).await?;
        let rows = rows(&state, &visible, &filter, found).await?;
        return Ok(page_until(rows.into_iter().flatten().collect::<Vec<_>>(), None, &uri));
    }
    while let Some((cursor, count)) = page.wants() {
        let found = targets::walk(db, &filter, before(cursor.as_deref())?, count).await?;
        let cursors: Vec<String> = found.iter().map(NewestEffect::cursor).collect();
        page.add(cursors.into_iter().zip(rows(&state, &visible, &filter, found).await?).collect());
    }
    Ok(page.page(&uri))
}

fn not_a_kind() -> ApiError {
    ApiError::invalid(vec![Fault::at("/kind", "must be ip, user, file, process, host or none")])
}

fn before(cursor: Option<&str>) -> ApiResult<Option<Before>> {
    let not_cursor = || ApiError::invalid(vec![Fault::at("/cursor", "is not a cursor of this API")]);
    cursor.map(|text| Before::parse(text).ok_or_else(not_cursor)).transpose()
}

/// Returns everything known of one target
///
/// A target that nothing is known of has empty lists. The value of a kind without one is `-`.
#[utoipa::path(get, path = "/v1/targets/{kind}/{value}", tag = "targets",
    params(("kind" = String, Path, description = "Kind of the target."),
        ("value" = String, Path, description = "Target; an address in any notation.")),
    responses((status = 200, body = TargetView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path((kind, value)): Path<(String, String)>,
) -> ApiResult<axum::Json<TargetView>> {
    let kind = TargetKind::parse(&kind);
    let kind = kind.ok_or_else(|| ApiError::not_found("a target is an ip, user, file, process, host or none"))?;
    let value = if value == NO_VALUE { "" } else { value.as_str() };
    let target = Target::named(kind, value).map_err(|error| ApiError::not_found(format!("no such target: {error}")))?;
    let visible = Visible::to(&caller, &state.engine);
    Ok(axum::Json(view(&state, &visible, &target).await?))
}

/// Everything that the caller may know of a target.
///
/// # Errors
/// If the store cannot be read.
pub(super) async fn view(state: &AppState, visible: &Visible<'_>, target: &Target) -> ApiResult<TargetView> {
    let (db, value) = (&state.engine.db, target.value());
    let filter = TargetFilter { kind: Some(target.kind().as_str().to_owned()), ..TargetFilter::default() };
    let found = targets::of_value(db, &filter, value).await?;
    let row = rows(state, visible, &filter, found).await?.into_iter().flatten().next();
    let row = match row {
        Some(row) => row,
        // Responses may be active although nothing is wanted yet: their first wave is pending.
        None => {
            let (kind, value) = (target.kind().as_str().to_owned(), value.to_owned());
            let mut row = TargetRow { kind, value, ..TargetRow::default() };
            hold(state, visible, std::slice::from_mut(&mut row)).await?;
            row
        }
    };
    let history = responses::of_target(db, target, RESPONSES).await?;
    let is_address = target.kind() == TargetKind::Ip;
    Ok(TargetView {
        target: row,
        effects: effects(state, visible, target).await?,
        responses: outcomes::judge(state, visible, history, outcomes::LISTED).await?,
        protected: covering(state, target).await?,
        feeds: if is_address { state.engine.feeds_of_target(value).await? } else { Vec::new() },
    })
}

async fn effects(state: &AppState, visible: &Visible<'_>, target: &Target) -> ApiResult<Vec<TargetEffect>> {
    let mut found = targets::effects(&state.engine.db, target, EFFECTS).await?;
    found.retain(|row| visible.agent(&row.effect.agent_id));
    let mut holders: HashMap<String, Vec<HolderRow>> = HashMap::new();
    for holder in targets::holders(&state.engine.db, &found).await? {
        let row = HolderRow { response_id: holder.response_id, until: holder.until };
        holders.entry(holder.effect_id).or_default().push(row);
    }
    let shown = found.into_iter().map(|StandingEffect { effect, agent, under_way }| {
        let facts = HoldFacts {
            desired: effect.desired,
            actual: effect.actual,
            last_apply: effect.last_apply,
            under_way,
            is_revoked: effect.agent_revoked,
            released: None,
        };
        let outcome = (!effect.agent_revoked).then(|| of_effect(&facts, effect.failed_reverts));
        let held_by = holders.remove(&effect.id).unwrap_or_default();
        TargetEffect { effect, agent, outcome, held_by }
    });
    Ok(shown.collect())
}

async fn covering(state: &AppState, target: &Target) -> ApiResult<Vec<ProtectedRow>> {
    let set = state.engine.protected.load();
    let mut found = Vec::new();
    for entry in set.covering(target, state.engine.clock.now()) {
        // A concurrent deletion leaves out the entry.
        found.extend(protected::find(&state.engine.db, entry.id).await?);
    }
    Ok(found)
}

/// The rows of these targets; `None` for one that is hidden, or that an earlier page has.
async fn rows(
    state: &AppState,
    visible: &Visible<'_>,
    filter: &TargetFilter,
    found: Vec<NewestEffect>,
) -> ApiResult<Vec<Option<TargetRow>>> {
    let by_agent = visible.hides_agents();
    let counted = targets::counted(&state.engine.db, filter, &found, by_agent).await?;
    let mut by_target: HashMap<(String, String), Vec<Counted>> = HashMap::new();
    for row in counted {
        if !by_agent || visible.agent(&row.agent) {
            let key = (row.target_kind.clone(), row.target_value.clone());
            by_target.entry(key).or_default().push(row);
        }
    }
    let mut rows = Vec::new();
    for target in &found {
        let key = (target.target_kind.clone(), target.target_value.clone());
        // A target that was wanted at several instants comes several times; removing it keeps the newest.
        let counts = by_target.remove(&key).filter(|counts| !counts.iter().any(|row| row.is_newer(target)));
        rows.push(counts.map(|counts| summed(target, &counts)).transpose()?);
    }
    if !by_agent {
        count_agents(state, &found, &mut rows).await?;
    }
    let mut shown: Vec<TargetRow> = rows.iter().flatten().cloned().collect();
    hold(state, visible, &mut shown).await?;
    let mut shown = shown.into_iter();
    Ok(rows.into_iter().map(|row| row.and_then(|_| shown.next())).collect())
}

/// Counts the agents of those targets that have several actions; with one action, each effect is on another agent.
async fn count_agents(state: &AppState, found: &[NewestEffect], rows: &mut [Option<TargetRow>]) -> ApiResult<()> {
    let several = |row: &Option<TargetRow>| row.as_ref().is_some_and(|row| row.actions.len() > 1);
    let asked: Vec<NewestEffect> =
        found.iter().zip(rows.iter()).filter(|(_, row)| several(row)).map(|(target, _)| target.clone()).collect();
    for counted in targets::agents(&state.engine.db, &asked).await? {
        let is_it = |row: &&mut TargetRow| row.kind == counted.target_kind && row.value == counted.target_value;
        if let Some(row) = rows.iter_mut().flatten().find(is_it) {
            row.agents = counted.count;
        }
    }
    Ok(())
}

fn summed(target: &NewestEffect, counts: &[Counted]) -> ApiResult<TargetRow> {
    let (kind, value) = (target.target_kind.clone(), target.target_value.clone());
    let mut row = TargetRow { kind, value, ..TargetRow::default() };
    let (mut actions, mut agents, mut is_by_hand) = (BTreeSet::new(), BTreeSet::new(), false);
    for counted in counts {
        let number = match counted.outcome()? {
            EffectOutcome::InForce => &mut row.in_force,
            EffectOutcome::Unverified => &mut row.unverified,
            EffectOutcome::Pending => &mut row.pending,
            EffectOutcome::Failed => &mut row.failed,
            EffectOutcome::Drifted => &mut row.drifted,
            EffectOutcome::Failing => {
                row.failing += counted.count;
                &mut row.reverting
            }
            EffectOutcome::Reverting => &mut row.reverting,
        };
        *number += counted.count;
        row.effects += counted.count;
        row.until = row.until.max(counted.until);
        row.changed_at = row.changed_at.max(Some(counted.changed_at));
        is_by_hand |= counted.is_by_hand();
        actions.insert(counted.action.clone());
        agents.insert(counted.agent.as_str());
    }
    if is_by_hand {
        row.until = None;
    }
    row.actions = actions.into_iter().collect();
    let is_by_agent = agents.iter().any(|agent| !agent.is_empty());
    row.agents = if is_by_agent { i64::try_from(agents.len()).unwrap_or(i64::MAX) } else { row.effects };
    Ok(row)
}

/// Adds the active responses to rows.
async fn hold(state: &AppState, visible: &Visible<'_>, rows: &mut [TargetRow]) -> ApiResult<()> {
    let keys: Vec<(&str, &str)> = rows.iter().map(|row| (row.kind.as_str(), row.value.as_str())).collect();
    let mut found = Vec::new();
    for row in targets::holding(&state.engine.db, &keys, HOLDERS_READ).await? {
        let is_visible = row.policy.as_deref().is_none_or(|policy| visible.policy(policy));
        if is_visible && visible.any_agent(&row.agents)? {
            found.push(row);
        }
    }
    let mut by_target: HashMap<(String, String), Vec<HoldingRow>> = HashMap::new();
    for row in found {
        by_target.entry((row.target_kind.clone(), row.target_value.clone())).or_default().push(row);
    }
    let due_to = by_target.values().flat_map(|held| held.iter().take(HOLDERS));
    let alerts = due_to.filter_map(|row| row.alert_id.as_deref()).map(id).collect::<Result<BTreeSet<_>, _>>()?;
    let rules = rules(state, alerts).await?;
    for row in rows {
        let Some(held) = by_target.remove(&(row.kind.clone(), row.value.clone())) else { continue };
        let visible_ones = i64::try_from(held.len()).unwrap_or(i64::MAX);
        row.responses = if visible.hides() { visible_ones } else { held.first().map_or(0, |first| first.total) };
        row.held_by = held.into_iter().take(HOLDERS).map(|holding| holder(holding, &rules)).collect();
    }
    Ok(())
}

fn holder(row: HoldingRow, rules: &HashMap<String, HolderRule>) -> TargetHolder {
    TargetHolder {
        rule: row.alert_id.as_ref().and_then(|alert| rules.get(alert)).cloned(),
        response_id: row.id,
        policy: row.policy,
        requested_by: row.requested_by,
        action: row.action,
        note: row.note,
        until: row.until,
        created_at: row.created_at,
    }
}

/// The rules of these alerts, by the alert's id; without those that retention removed.
async fn rules(state: &AppState, of: BTreeSet<Uuid>) -> ApiResult<HashMap<String, HolderRule>> {
    let mut rules = HashMap::new();
    for row in alerts::named(&state.engine.db, of).await? {
        let rule = row.alert(&row.text()?, &state.engine.mappings).rule;
        let rule = HolderRule { id: rule.id, level: rule.level, description: rule.description };
        rules.insert(row.id.clone(), rule);
    }
    Ok(rules)
}
