//! `/wazuh/` and `/wazuh/manager/info`: what clients ask to find out which version of Wazuh they talk to.

use axum::extract::State;

use super::agents::PlainQuery;
use super::caller::WazuhCaller;
use crate::api::front::auth::Read;
use crate::api::front::extract::Query;
use crate::api::state::AppState;
use crate::compat::wazuh_api::FOLLOWED_VERSION;
use crate::views::wazuh::{WazuhAbout, WazuhApiInfo, WazuhManager, WazuhManagerData, WazuhManagerInfo};

/// Says which version of Wazuh's API this one follows
#[utoipa::path(get, path = "/wazuh/", tag = "wazuh", params(PlainQuery), responses((status = 200, body = WazuhAbout)))]
pub(super) async fn api(
    _: WazuhCaller<Read>,
    State(state): State<AppState>,
    _: Query<PlainQuery>,
) -> axum::Json<WazuhAbout> {
    let data = WazuhApiInfo {
        title: "Wazuh API of Riposte".to_owned(),
        api_version: FOLLOWED_VERSION.to_owned(),
        revision: "0".to_owned(),
        license_name: "Apache-2.0".to_owned(),
        license_url: "https://www.apache.org/licenses/LICENSE-2.0".to_owned(),
        hostname: "riposte".to_owned(),
        timestamp: state.engine.clock.now(),
    };
    axum::Json(WazuhAbout { data, error: 0 })
}

/// Says which version of Wazuh's manager this one follows
#[utoipa::path(get, path = "/wazuh/manager/info", tag = "wazuh", params(PlainQuery),
    responses((status = 200, body = WazuhManager)))]
pub(super) async fn manager(_: WazuhCaller<Read>, _: Query<PlainQuery>) -> axum::Json<WazuhManager> {
    let version = format!("v{FOLLOWED_VERSION}");
    let info = WazuhManagerInfo {
        path: String::new(),
        version: version.clone(),
        kind: "server".to_owned(),
        max_agents: "unlimited".to_owned(),
        openssl_support: "yes".to_owned(),
        tz_offset: "+0000".to_owned(),
        tz_name: "UTC".to_owned(),
    };
    let data = WazuhManagerData {
        // Clients compare it with "4" without the "v".
        version: FOLLOWED_VERSION.to_owned(),
        affected_items: vec![info],
        total_affected_items: 1,
        total_failed_items: 0,
        failed_items: Vec::new(),
    };
    axum::Json(WazuhManager { data, message: "Basic information was successfully read".to_owned(), error: 0 })
}
