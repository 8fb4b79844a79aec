//! `/v1/policies/import`: converts a Wazuh manager's `ossec.conf` into policies, custom actions and
//! protected entries, in one transaction. `dry_run=true` shows the result, and everything that
//! cannot be converted.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Map;

use super::front::auth::{Caller, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{Payload, Query};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::compat::ossec::{self, Imported, Load};
use crate::domain::fault::Fault;
use crate::domain::labels::{WAZUH_MANAGER, parse_labels};
use crate::views::import::{Import, Level};

/// Maximum size of a configuration, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Name of a single body in reports.
const FILE: &str = "ossec.conf";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(run))
}

/// Query of an import.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HowToImport {
    /// Only return the result, without storing it.
    #[serde(default)]
    dry_run: bool,
    /// The Wazuh manager that the configuration is of, as agents' label `wazuh_manager` says it. Agents that it names by
    /// number are then that manager's.
    #[param(value_type = Option<String>, min_length = 1, max_length = 256)]
    wazuh_manager: Option<String>,
}

/// Imports a Wazuh manager's ossec.conf
///
/// Several files may be concatenated, because Wazuh's file may have several roots. A configuration
/// that Wazuh would refuse gets 422; one with names that already exist gets 409. Otherwise
/// everything is stored in one transaction, unless `dry_run` is set.
#[utoipa::path(post, operation_id = "import", path = "/v1/policies/import", tag = "policies", params(HowToImport),
    request_body(content((String = "application/xml"), (String = "text/xml"))),
    responses((status = 200, description = "A dry run", body = Import), (status = 201, body = Import), (status = 409)))]
pub async fn run(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Query(how): Query<HowToImport>,
    request: Request,
) -> ApiResult<(StatusCode, axum::Json<Import>)> {
    caller.unlimited("an import is for all agents")?;
    let HowToImport { dry_run, wazuh_manager } = how;
    let wazuh_manager = wazuh_manager.map(|name| named(&name)).transpose()?;
    let payload = Payload::read(request, MAX_BYTES, &state.memory.people).await?;
    if !["application/xml", "text/xml"].contains(&payload.media_type.as_str()) {
        return Err(ApiError::unsupported("Content-Type must be application/xml"));
    }
    let bytes = Vec::from(payload.bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::malformed("the body contains no configuration"));
    }
    let read =
        tokio::task::spawn_blocking(move || ossec::import(&[(FILE.to_owned(), bytes)], wazuh_manager.as_deref())).await;
    let Imported { answer: import, wazuh, .. } = read.map_err(|error| ApiError::internal(&error))?;
    if dry_run {
        return Ok((StatusCode::OK, axum::Json(import)));
    }
    if wazuh.load == Load::Error {
        return Err(refused(&import));
    }
    let Import { actions, policies, protected, .. } = &import;
    state.engine.import(actions, policies, protected, &caller.principal).await?;
    Ok((StatusCode::CREATED, axum::Json(import)))
}

/// The name of a Wazuh manager, as a label can hold it.
fn named(name: &str) -> ApiResult<String> {
    let label = Map::from_iter([(WAZUH_MANAGER.to_owned(), name.into())]);
    let mut labels = parse_labels(&label).map_err(|_| {
        ApiError::malformed(
            "the query's wazuh_manager names no Wazuh manager: it is 1 to 256 characters, none of them a control character",
        )
    })?;
    Ok(labels.remove(WAZUH_MANAGER).unwrap_or_default())
}

fn refused(import: &Import) -> ApiError {
    let errors = import.report.iter().filter(|note| note.level == Level::Error).map(|note| {
        let line = note.line.map_or_else(String::new, |line| format!("line {line}"));
        let column = note.column.map_or_else(String::new, |column| format!(", column {column}"));
        let place = if line.is_empty() { String::new() } else { format!("{line}{column}: ") };
        Fault::at("", format!("{place}{}", note.message))
    });
    ApiError::invalid(errors.collect())
}
