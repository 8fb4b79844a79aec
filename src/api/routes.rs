//! The table of contents: every resource with its routes, and the contract that their annotations
//! give.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn, map_request};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, RefOr, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use super::front::compression;
use super::front::error::ApiError;
use super::front::table::Table;
use super::state::AppState;
use super::{
    actions, agent_key, agents, alerts, approval_page, audit, auth, backtest, bundle, commands, counts, crowdsec, docs,
    effects, events, explain, feeds, forwarders, freeze, health, holds, import, ingest, keys, lift, nodes, oidc,
    openc2, policies, poll, protected, pull, rejected, responses, secrets, signing_key, statistics, stream, targets,
    taxii, users, wazuh, wazuh_agents, webhooks, whoami,
};
use crate::views::crowdsec::CrowdsecError;
use crate::views::problem::Problem;
use crate::views::taxii::TaxiiError;
use crate::views::wazuh::WazuhProblem;

/// Time limit of a request, including the body, for which [`super::front::extract::BODY_TIMEOUT`] is the limit.
/// Streams and polls have their own limits.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
/// Time limit of a poll: the longest wait plus the processing before it.
const POLL_TIMEOUT: Duration = Duration::from_secs(85);

/// Time limit of operations that may read the whole ledger: a backtest, the audit chain, lifting
/// many responses.
const LONG_TIMEOUT: Duration = Duration::from_mins(10);

/// Every route with its documentation, by how long a request may take.
pub(super) fn routes<T: Table>() -> T {
    let quick: T = merged(vec![
        actions::routes(),
        agent_key::routes(),
        agents::routes(),
        alerts::routes(),
        approval_page::routes(),
        audit::routes(),
        auth::routes(),
        commands::routes(),
        counts::routes(),
        docs::routes(),
        effects::routes(),
        events::routes(),
        explain::routes(),
        feeds::routes(),
        forwarders::routes(),
        freeze::routes(),
        health::routes(),
        holds::routes(),
        nodes::routes(),
        import::routes(),
        ingest::routes(),
        keys::routes(),
        oidc::routes(),
        policies::routes(),
        protected::routes(),
        rejected::routes(),
        responses::routes(),
        secrets::routes(),
        signing_key::routes(),
        statistics::routes(),
        targets::routes(),
        users::routes(),
        wazuh_agents::routes(),
        webhooks::routes(),
        whoami::routes(),
    ]);
    let quick = quick.layer(compression::layer()).layer(map_request(compression::accept));
    let quick = quick.layer(from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    let long: T = merged(vec![audit::long_routes(), backtest::routes(), bundle::long_routes(), lift::routes()]);
    let long = long.layer(from_fn(|request, next| within(LONG_TIMEOUT, request, next)));
    let polls = poll::routes::<T>().layer(from_fn(|request, next| within(POLL_TIMEOUT, request, next)));
    // Its form is put around the answers, so these are not compressed.
    let wazuh = wazuh::routes::<T>().layer(from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    // Firewalls compare lists by their bytes, and the forms of CrowdSec and TAXII are put around their answers.
    let pulled: T = merged(vec![pull::routes(), crowdsec::routes(), taxii::routes()]);
    let pulled = pulled.layer(from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    let openc2 = openc2::routes::<T>().layer(from_fn(|request, next| within(REQUEST_TIMEOUT, request, next)));
    merged(vec![quick, long, polls, wazuh, openc2, pulled, stream::routes()])
}

fn merged<T: Table>(resources: Vec<T>) -> T {
    resources.into_iter().fold(T::new(), T::merge)
}

/// The contract from the handlers' annotations; `contract/` completes it.
pub(super) fn generated() -> OpenApi {
    let (_, mut api) = routes::<OpenApiRouter<AppState>>().split_for_parts();
    let info = InfoBuilder::new()
        .title("Riposte")
        .version("1")
        .description(Some(
            "Alerts in, commands out, every block lifted again. Errors are problem+json (RFC 9457); lists are paged by \
             cursor; times are RFC 3339 in UTC; durations are texts such as 10m; a POST that creates takes an Idempotency-Key. \
             A JSON body may have any media type application/…+json. Lists are compressed for clients that accept gzip. \
             Each response has an X-Request-Id: that of the request, \
             if it is 1 to 64 letters, digits, '-', '_' or '.', or else a new one. \
             What is not HTTP/1.1 at all is answered 400, 414 or 431 without a body.",
        ))
        .build();
    let mut components = api.components.take().unwrap_or_default();
    let schema = <Problem as utoipa::PartialSchema>::schema();
    components.schemas.insert("Problem".into(), schema);
    components.schemas.insert("WazuhProblem".into(), <WazuhProblem as utoipa::PartialSchema>::schema());
    components.schemas.insert("CrowdsecError".into(), <CrowdsecError as utoipa::PartialSchema>::schema());
    components.schemas.insert("TaxiiError".into(), <TaxiiError as utoipa::PartialSchema>::schema());
    components.schemas.insert("Fault".into(), <crate::domain::fault::Fault as utoipa::PartialSchema>::schema());
    for (name, format) in [("api_key", "rip_ID_SECRET"), ("access_token", "JWT"), ("agent_token", "JWT")] {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some(format.into());
        components.security_schemes.insert(name.into(), RefOr::T(SecurityScheme::Http(scheme)));
    }
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            // Handlers of different resources share names, but an operation's id must be unique.
            let tag = operation.tags.as_ref().and_then(|tags| tags.first()).map_or("api", String::as_str);
            let own = operation.operation_id.clone().unwrap_or_default();
            operation.operation_id = Some(format!("{}_{own}", tag.replace(' ', "_")));
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    response.description = "Done".into();
                }
            }
        }
    }
    let security = ["api_key", "access_token"].map(|scheme| SecurityRequirement::new(scheme, Vec::<String>::new()));
    OpenApiBuilder::from(api).info(info).components(Some(components)).security(Some(security)).build()
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unanswered().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use tower_service::Service as _;

    use super::*;

    /// Promise 11: a request that timed out gets a 503 that says that it may have been carried out,
    /// with `Retry-After`.
    #[tokio::test]
    async fn promise_11_a_timed_out_request_gets_503_and_retry_after() {
        let never = || std::future::pending::<()>();
        let within = from_fn(|request, next| within(Duration::from_millis(10), request, next));
        let mut router: Router = Router::new().route("/", axum::routing::get(never)).layer(within);
        let answer = router.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "5");
    }
}
