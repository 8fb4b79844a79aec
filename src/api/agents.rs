//! `/v1/agents` and `/v1/enrollment-tokens`: enrolment, labels and revocation of agents.

use crate::engine::agents::{AskedToken, MadeToken};
use crate::engine::peers::Elsewhere;
use crate::engine::refusal::Refusal;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use riposte_protocol::enrolment::EnrolmentToken;
use riposte_protocol::key::VerifyingKey;
use riposte_protocol::message;
use riposte_protocol::message::{EnrollRequest, EnrollResponse};
use riposte_protocol::time::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::front::address;
use super::front::auth::{Caller, ManageAgents, Read, certified};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Json, Path, Query};
use super::front::page::{cursor_id, limit, page};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::agent::{is_name, reason_words};
use crate::domain::enrolment_token;
use crate::domain::fault::Fault;
use crate::domain::formats::wazuh::canonical_agent_id;
use crate::domain::presence::Presence;
use crate::store::configured::agents;
use crate::store::configured::wazuh_agents::WaitingClaim;
use crate::store::ledger::resync::REJECTS_FOR;
use crate::views::agents::{AgentRow, AgentView, ChangeAgent, CreateToken, CreatedToken, TokenRow, WazuhClaim};
use crate::views::columns::Millis;
use crate::views::page::Page;

/// Maximum number of capabilities per agent.
const MAX_CAPABILITIES: usize = 256;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(list))
        .with(operations!(find, change, revoke))
        .with(operations!(enroll))
        .with(operations!(rotate_key))
        .with(operations!(list_tokens, create_token))
        .with(operations!(delete_token))
}

fn view(
    state: &AppState,
    elsewhere: &Elsewhere,
    claims: &HashMap<String, WaitingClaim>,
    mut agent: AgentRow,
) -> AgentView {
    let (hub, now) = (&state.engine.hub, state.engine.clock.now());
    let id = agent.id.parse::<Uuid>().ok();
    let presence = id.map_or(Presence::Away, |id| state.engine.presence(id, elsewhere, now));
    // The stored contact is written in batches; the hub knows later ones.
    agent.last_seen_at = id.and_then(|id| hub.last_heard(id)).map(Millis::from).max(agent.last_seen_at);
    let away_since = (presence == Presence::Away).then(|| agent.last_seen_at.unwrap_or(agent.enrolled_at));
    let is_rejecting = agent.rejected_at.is_some_and(|at| Timestamp::from(at) > now.minus(REJECTS_FOR));
    let why = agent.rejected_reason.as_deref().filter(|_| is_rejecting).map(reason_words);
    let rejecting = why.map(|why| format!("it rejects this manager's commands: {why}"));
    let claim = claims.get(&agent.id);
    let wazuh_claim = claim.map(|WaitingClaim { number, name, doubt, .. }| WazuhClaim {
        id: number.clone(),
        name: name.clone(),
        doubt: doubt.clone(),
    });
    AgentView { agent, streaming: presence == Presence::Streaming, presence, away_since, rejecting, wazuh_claim }
}

/// Filter of an agent list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAgents {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Name of the agent.
    name: Option<String>,
    /// Include revoked agents.
    #[serde(default)]
    revoked: bool,
}

/// Lists agents in the order of enrolment
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(ListAgents),
    responses((status = 200, body = Page<AgentView>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListAgents>,
    uri: Uri,
) -> ApiResult<Response> {
    let visible = Visible::to(&caller, &state.engine);
    let (elsewhere, claims) = (state.engine.elsewhere().await?, state.engine.waiting_claims().await?);
    let mut page = visible.filling(limit(query.limit)?, query.cursor);
    while let Some((cursor, count)) = page.wants() {
        let after = cursor_id(cursor.as_deref())?;
        let rows = agents::list(&state.engine.db, query.name.as_deref(), query.revoked, after, count).await?;
        let shown =
            |row: AgentRow| (row.id.clone(), visible.agent(&row.id).then(|| view(&state, &elsewhere, &claims, row)));
        page.add(rows.into_iter().map(shown).collect());
    }
    Ok(page.page(&uri))
}

async fn stored(state: &AppState, id: Uuid) -> ApiResult<AgentView> {
    let row = agents::find(&state.engine.db, id).await?;
    let (elsewhere, claims) = (state.engine.elsewhere().await?, state.engine.waiting_claims().await?);
    Ok(view(state, &elsewhere, &claims, row.ok_or_else(|| ApiError::not_found("the agent does not exist"))?))
}

/// Returns one agent
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = Uuid, Path)),
    responses((status = 200, body = AgentView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<axum::Json<AgentView>> {
    if !Visible::to(&caller, &state.engine).agent(&id.to_string()) {
        return Err(ApiError::not_found("the agent does not exist"));
    }
    Ok(axum::Json(stored(&state, id).await?))
}

/// Changes an agent's labels
#[utoipa::path(patch, path = "/v1/agents/{id}", tag = "agents", params(("id" = Uuid, Path)), request_body = ChangeAgent,
    responses((status = 200, body = AgentView), (status = 409)))]
pub async fn change(
    caller: Caller<ManageAgents>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    body: Json<ChangeAgent>,
) -> ApiResult<axum::Json<AgentView>> {
    let changed = state.engine.label_agent(id, body.value.labels, &caller.principal).await;
    changed.map_err(|refusal| match refusal {
        Refusal::Invalid(faults) => below("/labels", faults),
        other => other.into(),
    })?;
    Ok(axum::Json(stored(&state, id).await?))
}

fn below(place: &str, faults: Vec<Fault>) -> ApiError {
    let placed = faults.into_iter().map(|fault| Fault::at(format!("{place}{}", fault.pointer), fault.detail));
    ApiError::invalid(placed.collect())
}

/// Revokes an agent
///
/// Its stream is closed, its tokens are refused, and its queued commands are cancelled. A response
/// that cannot be in force on another agent ends as `failed`.
#[utoipa::path(delete, path = "/v1/agents/{id}", tag = "agents", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 409)))]
pub async fn revoke(
    caller: Caller<ManageAgents>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    state.engine.revoke_agent(id, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Orders an agent to replace its own key
///
/// It does when it is connected; `key_since` shows that it has. An agent of a version that cannot
/// keeps its key, and `key_ordered_at` stays.
#[utoipa::path(post, path = "/v1/agents/{id}/rotate-key", tag = "agents", params(("id" = Uuid, Path)),
    responses((status = 202, body = AgentView)))]
pub async fn rotate_key(
    caller: Caller<ManageAgents>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<(StatusCode, axum::Json<AgentView>)> {
    state.engine.order_agent_key(id, &caller.principal).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(stored(&state, id).await?)))
}

/// Enrols an agent
///
/// Needs an enrolment token instead of an API key. The agent pins the keys in the response. A
/// client that received no response may retry with the same token, name and key.
#[utoipa::path(post, path = "/v1/agents/enroll", tag = "agents", request_body = EnrollRequest, security(()),
    responses((status = 201, body = EnrollResponse), (status = 401), (status = 409), (status = 429)))]
pub async fn enroll(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Enrolling,
) -> ApiResult<(StatusCode, axum::Json<EnrollResponse>)> {
    let (peer, asked) = (state.proxies.origin(peer.ip(), &headers), body.0);
    check_enrollment(&asked)?;
    let base = base_url(&state, &headers)?;
    let engine = &state.engine;
    let mut asked = asked;
    // What pins this manager is for the agent, and of no use here.
    asked.token.truncate(asked.token.find('.').unwrap_or(asked.token.len()));
    let form_fault = enrolment_token::form_fault(&asked.token);
    let Some(id) = engine.enroll(asked).await? else {
        let refusal =
            form_fault.unwrap_or_else(|| "the enrolment token is not valid: unknown, used up or expired".to_owned());
        let answer = ApiError::unauthenticated(refusal);
        return Err(state.auth_failures.count_from(engine, peer, "/v1/agents/enroll", answer));
    };
    let (manager_keys, key_number) = engine.signer.enrolment();
    engine.confirm_enrolment(id, key_number);
    let answer = EnrollResponse {
        agent_id: id,
        manager_keys,
        key_number,
        // http becomes ws, https becomes wss.
        stream_url: format!("{}/v1/agent/stream", base.replacen("http", "ws", 1)),
        poll_url: format!("{base}/v1/agent/poll"),
    };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

/// A request for enrolment, from a client that is not known yet. It is read only if the address has not asked too often, and
/// never decompressed: what is compressed would cost the manager more than the sender.
pub struct Enrolling(EnrollRequest);

impl FromRequest<AppState> for Enrolling {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = state.proxies.origin(peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), request.headers());
        state.caller_limits.count_enrolment(peer)?;
        let (parts, body) = request.into_parts();
        certified(state, &parts)?;
        let request = Request::from_parts(parts, body);
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(ApiError::unsupported("an enrolment must not have a Content-Encoding"));
        }
        Ok(Self(Json::<EnrollRequest>::from_request(request, state).await?.value))
    }
}

fn check_enrollment(asked: &EnrollRequest) -> ApiResult<()> {
    let mut faults = Vec::new();
    if !is_name(&asked.name) {
        faults.push(Fault::at(
            "/name",
            "must be 1 to 253 characters of a-z, A-Z, 0-9, '.', '_' and '-', and must not end with a dot",
        ));
    }
    if VerifyingKey::parse(&asked.public_key).is_err() {
        faults.push(Fault::at("/public_key", "must be a raw 32-byte Ed25519 public key in base64url"));
    }
    let message::Platform { os, arch, version } = &asked.platform;
    for (pointer, text) in
        [("/version", &asked.version), ("/platform/os", os), ("/platform/arch", arch), ("/platform/version", version)]
    {
        if text.chars().count() > 256 || text.chars().any(char::is_control) {
            faults.push(Fault::at(pointer, "must be at most 256 characters without control characters"));
        }
    }
    if let Some(message::WazuhIdentity { id, name }) = &asked.wazuh {
        if canonical_agent_id(id).is_none() {
            faults.push(Fault::at("/wazuh/id", "must be one to ten digits"));
        }
        if !(1..=256).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            faults.push(Fault::at("/wazuh/name", "must be 1 to 256 characters without control characters"));
        }
    }
    faults.extend(capability_faults(&asked.capabilities));
    if faults.is_empty() { Ok(()) } else { Err(ApiError::invalid(faults)) }
}

/// The faults of a capability list.
pub fn capability_faults(capabilities: &[message::Capability]) -> Vec<Fault> {
    if capabilities.len() > MAX_CAPABILITIES {
        return vec![Fault::at("/capabilities", format!("has more than {MAX_CAPABILITIES} entries"))];
    }
    let mut faults = Vec::new();
    for (index, capability) in capabilities.iter().enumerate() {
        let reason = capability.reason.as_deref().unwrap_or_default();
        let action = &capability.action;
        let is_named = (1..=64).contains(&action.chars().count()) && !action.contains('\0');
        if !is_named || reason.chars().count() > 512 || reason.contains('\0') {
            let detail = "an action is 1 to 64 characters, a reason at most 512, without NUL";
            faults.push(Fault::at(format!("/capabilities/{index}"), detail));
        }
    }
    faults
}

fn base_url(state: &AppState, headers: &HeaderMap) -> ApiResult<String> {
    if !state.public_url.is_empty() {
        return Ok(state.public_url.trim_end_matches('/').to_owned());
    }
    if let Some(header) = address::of_proxy(headers) {
        return Err(ApiError::conflict(format!(
            "requests come through a proxy ({header}), and public_url is not set: set \
             public_url in its configuration (RIPOSTE_PUBLIC_URL), such as https://riposte.example.org, and enrol again"
        )));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.ok_or_else(|| ApiError::malformed("the Host header is missing"))?;
    let scheme = if state.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{host}"))
}

/// Creates an enrolment token
#[utoipa::path(post, path = "/v1/enrollment-tokens", tag = "agents",
    params(("Idempotency-Key" = Option<String>, Header)), request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = 409)))]
pub async fn create_token(
    caller: Caller<ManageAgents>,
    State(state): State<AppState>,
    body: Json<CreateToken>,
) -> ApiResult<(StatusCode, axum::Json<CreatedToken>)> {
    let once = body.once(&caller.principal);
    let CreateToken { labels, uses, expires_in } = body.value;
    let asked = AskedToken { labels, uses, lifetime: expires_in.duration() };
    let MadeToken { id, token, expires_at } = state.engine.create_token(asked, once, &caller.principal).await?;
    let authority = state.tls.as_ref().and_then(|tls| tls.private_authority());
    let signing_key = Some(state.engine.signer.fingerprint());
    let token = token.map(|token| EnrolmentToken { token: &token, signing_key, authority }.to_string());
    Ok((StatusCode::CREATED, axum::Json(CreatedToken { id, token, expires_at })))
}

/// Filter of a token list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListTokens {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists enrolment tokens, without their secrets
#[utoipa::path(get, path = "/v1/enrollment-tokens", tag = "agents", params(ListTokens),
    responses((status = 200, body = Page<TokenRow>)))]
pub async fn list_tokens(
    caller: Caller<ManageAgents>,
    State(state): State<AppState>,
    Query(query): Query<ListTokens>,
    uri: Uri,
) -> ApiResult<Response> {
    caller.unlimited("enrolment tokens are for all agents")?;
    let (limit, after) = (limit(query.limit)?, cursor_id(query.cursor.as_deref())?);
    let rows = agents::tokens(&state.engine.db, after, limit + 1).await?;
    Ok(page(rows, limit, &uri, |row| row.id.clone()))
}

/// Deletes an enrolment token
#[utoipa::path(delete, path = "/v1/enrollment-tokens/{id}", tag = "agents", params(("id" = Uuid, Path)),
    responses((status = 204)))]
pub async fn delete_token(
    caller: Caller<ManageAgents>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    caller.unlimited("enrolment tokens are for all agents")?;
    state.engine.delete_token(id, &caller.principal.at()).await?;
    Ok(StatusCode::NO_CONTENT)
}
