//! `/approval/{link}`: the page that a link in a message opens. It shows what a response will do, and posts the person's decision;
//! to open it decides nothing. It needs no script and nothing from elsewhere, and works on a phone.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use serde::Deserialize;

use super::auth::ClientOrigin;
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Path, Payload, Query};
use super::front::table::{Table, operations};
use super::responses::decide_as;
use super::state::AppState;
use crate::domain::approval_link::ApprovalLink;
use crate::domain::principal::Principal;
use crate::domain::response::{Decision, ResponseState};
use crate::domain::right::Right;
use crate::engine::webhooks::news::{WaitingResponse, what_waits};
use crate::engine::webhooks::notice::clean;
use crate::store::StoreError;
use crate::store::ledger::responses;
use crate::views::responses::{ApprovalForm, ResponseRow};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(show, decide))
}

/// Nothing from elsewhere, no script, no frame; the style is in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// What the page looks like, light and dark, from 320 pixels on.
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:38rem;padding:1rem;color:#111;background:#fff}\
    h1{font-size:1.25rem}dl{margin:0}dt{font-weight:600;margin-top:.5rem}dd{margin:0;overflow-wrap:anywhere}\
    label{display:block;margin:1rem 0 .25rem}textarea{width:100%;box-sizing:border-box;font:inherit;padding:.5rem}\
    button{font:inherit;padding:.75rem 1.25rem;margin:1rem .5rem 0 0;border:1px solid #111;border-radius:.4rem;background:#fff;color:#111}\
    button[value=approve]{background:#07733c;color:#fff;border-color:#07733c}button[value=reject]{background:#b00;color:#fff;border-color:#b00}\
    .note{border-left:.25rem solid #b70;padding-left:.75rem}\
    @media(prefers-color-scheme:dark){body{color:#eee;background:#111}button{background:#222;color:#eee;border-color:#888}}";

/// Limit of the form, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// What is said where a link does not open.
const NOT_GOOD: &str =
    "This link is not good any more, or never was. Ask for a new one, or decide by riposte response approve.";

/// Which button the message had.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Chosen {
    /// `approve` or `reject`: the button that comes first.
    choice: Option<String>,
}

/// Shows what a response that waits will do
///
/// A link of a message opens this page. It decides nothing by itself.
#[utoipa::path(get, path = "/approval/{link}", tag = "approval", security(()), params(("link" = String, Path), Chosen),
    responses((status = 200, content_type = "text/html"), (status = 404, content_type = "text/html")))]
pub async fn show(
    State(state): State<AppState>,
    ClientOrigin(origin): ClientOrigin,
    Path(text): Path<String>,
    Query(Chosen { choice }): Query<Chosen>,
) -> Response {
    let opened = match open(&state, &text).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return refused(&state, origin.address),
        Err(error) => return broken(&error),
    };
    match waiting_page(&state, &opened, choice.as_deref()).await {
        Ok(page) => html(StatusCode::OK, &page),
        Err(error) => broken(&error),
    }
}

/// Approves or rejects a response as the person of a link
///
/// The form of the page sends this. A decision counts once.
#[utoipa::path(post, path = "/approval/{link}", tag = "approval", security(()), params(("link" = String, Path)),
    request_body(content = ApprovalForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, content_type = "text/html"), (status = 404, content_type = "text/html"),
        (status = 409, content_type = "text/html"), (status = 422, content_type = "text/html")))]
pub async fn decide(
    State(state): State<AppState>,
    ClientOrigin(origin): ClientOrigin,
    Path(text): Path<String>,
    request: Request,
) -> Response {
    let ApprovalForm { choice, reason } = match read(request, &state).await {
        Ok(decided) => decided,
        Err(error) => return failed(error),
    };
    let opened = match open(&state, &text).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return refused(&state, origin.address),
        Err(error) => return broken(&error),
    };
    let decision = match choice.as_str() {
        "approve" => Decision::Approve,
        "reject" => Decision::Reject,
        _ => return html(StatusCode::UNPROCESSABLE_ENTITY, &message("Choose to approve or to reject.")),
    };
    let principal = Principal { address: Some(origin.address), ..opened.principal };
    // An administrator who set up the webhook could read the link: the record says by which one it came.
    let reason = if reason.trim().is_empty() { reason } else { format!("{reason} ({})", principal.via) };
    tracing::info!(response = %opened.link.response, principal = %principal.actor, via = %principal.via, "decided by a link");
    match decide_as(&state, &principal, opened.link.response, decision, (reason, false)).await {
        Ok(()) => {
            let done = if decision == Decision::Approve { "You have approved it." } else { "You have rejected it." };
            html(StatusCode::OK, &message(done))
        }
        Err(error) => failed(error),
    }
}

/// Reads the form.
async fn read(request: Request, state: &AppState) -> ApiResult<ApprovalForm> {
    let payload = Payload::read(request, MAX_BYTES, &state.memory.people).await?;
    let mut decided = ApprovalForm::default();
    for (name, value) in form_urlencoded::parse(&payload.bytes) {
        match &*name {
            "choice" => decided.choice = value.into_owned(),
            // A text field sends its lines so.
            "reason" => decided.reason = value.replace("\r\n", "\n"),
            _ => {}
        }
    }
    Ok(decided)
}

fn failed(error: ApiError) -> Response {
    let problem = error.problem();
    let faults: Vec<&str> = problem.errors.iter().map(|fault| fault.detail.as_str()).collect();
    let why = if faults.is_empty() { problem.detail } else { format!("The reason {}.", faults.join(", ")) };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    html(status, &message(&why))
}

/// A link that is good now.
struct Opened {
    link: ApprovalLink,
    principal: Principal,
    response: ResponseRow,
}

/// Opens a link; `None` if it is not good: also when its webhook has another person now, or the person may not approve any more.
async fn open(state: &AppState, text: &str) -> Result<Option<Opened>, StoreError> {
    let engine = &state.engine;
    let Some(link) = engine.approval_links.open(text, engine.clock.now()) else { return Ok(None) };
    if engine.person_of_webhook(&link.webhook).await? != Some(link.person.clone()) {
        return Ok(None);
    }
    let principal =
        engine.principal_of_link(&link.webhook, &link.person).filter(|principal| principal.may(Right::Approve));
    let response = responses::find(&engine.db, link.response).await?;
    let sees =
        |(principal, response): &(Principal, ResponseRow)| engine.check_scope_of_response(response, principal).is_ok();
    Ok(principal.zip(response).filter(sees).map(|(principal, response)| Opened { link, principal, response }))
}

async fn waiting_page(state: &AppState, opened: &Opened, choice: Option<&str>) -> Result<String, StoreError> {
    let response = &opened.response;
    let WaitingResponse { lines, silence } = what_waits(&state.engine, opened.link.response, response).await?;
    let row = |line: &String| {
        let (name, text) = line.split_once(": ").unwrap_or(("", line.as_str()));
        ["<dt>", &escaped(name), "</dt><dd>", &escaped(text), "</dd>"].concat()
    };
    let rows: String = lines.iter().map(row).collect();
    let title = escaped(&format!("{} waits for you, {}", clean(&response.action), clean(&opened.link.person)));
    if response.state != ResponseState::AwaitingApproval {
        let state = response.state.as_str().replace('_', " ");
        return Ok(format!("<h1>It does not wait any more: it is {}.</h1><dl>{rows}</dl>", escaped(&state)));
    }
    let silence = silence.map(|words| format!("<p class=note>{}</p>", escaped(&words)));
    let button = |value: &str, words: &str| format!("<button name=choice value={value}>{words}</button>");
    let (approve, reject) = (button("approve", "Approve"), button("reject", "Reject"));
    let buttons = if choice == Some("reject") { reject + &approve } else { approve + &reject };
    Ok(format!(
        "<h1>{title}</h1><dl>{rows}</dl>{}<form method=post><label for=reason>Reason</label>\
         <textarea id=reason name=reason rows=3 required maxlength=1000></textarea>{buttons}</form>",
        silence.unwrap_or_default(),
    ))
}

fn message(text: &str) -> String {
    format!("<h1>{}</h1>", escaped(text))
}

fn refused(state: &AppState, origin: std::net::IpAddr) -> Response {
    // Links are tried as other credentials are: so many times from one address.
    let answer = ApiError::not_found(NOT_GOOD);
    let answer = state.auth_failures.count_from(&state.engine, origin, "/approval/{link}", answer).problem();
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::NOT_FOUND);
    html(status, &message(&answer.detail))
}

fn broken(error: &StoreError) -> Response {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(cause, "the page of a response that waits cannot be shown: {error}");
    html(StatusCode::SERVICE_UNAVAILABLE, &message("The manager cannot read its ledger now. Try again in a minute."))
}

fn html(status: StatusCode, body: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>\
         <meta name=robots content=noindex><title>Riposte: approval</title><style>{STYLE}</style><main>{body}</main></html>"
    );
    let mut response = (status, Html(page)).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        assert_eq!(escaped("<b a=\"1\" b='2'>&"), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;");
    }
}
