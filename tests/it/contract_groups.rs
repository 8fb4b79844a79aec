//! Parts of the comparison of answers with the contract: one function for each group of operations.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client};

/// Webhooks and forwarders.
pub(crate) async fn check_webhooks(admin: &Client, check: &mut impl FnMut(&str, &str, Answer) -> Value) {
    let report = json!({"version": "0.1.0", "behind_bytes": 7, "last_alert_at": "2026-01-01T00:00:00Z"});
    admin.put("/v1/forwarders/wazuh-1", &report, None).await.is(204);
    check("get", "/v1/forwarders", admin.get("/v1/forwarders").await);
    let webhook = json!({"name": "tickets", "url": "https://localhost:9/", "settings": {"types": ["freeze.off"], "fields": ["policy"]}});
    check("post", "/v1/webhooks", admin.post("/v1/webhooks", &webhook).await);
    check("get", "/v1/webhooks", admin.get("/v1/webhooks").await);
    check("get", "/v1/webhooks/{name}", admin.get("/v1/webhooks/tickets").await);
    let changed = json!({"settings": {"ceiling": "red", "is_disabled": true, "note": "a test"}});
    check("put", "/v1/webhooks/{name}", admin.put("/v1/webhooks/tickets", &changed, None).await);
    let none = json!({});
    check("post", "/v1/webhooks/{name}/secret", admin.post("/v1/webhooks/tickets/secret", &none).await);
    check("post", "/v1/webhooks/{name}/test", admin.post("/v1/webhooks/tickets/test", &none).await);
    check("post", "/v1/webhooks/{name}/replay", admin.post("/v1/webhooks/tickets/replay", &none).await);
    check("get", "/v1/webhooks/{name}/messages", admin.get("/v1/webhooks/tickets/messages").await);
}

/// Wazuh's API: what a login and its client get.
pub(crate) async fn check_wazuh(
    anonymous: &Client,
    admin: &Client,
    check: &mut impl FnMut(&str, &str, Answer) -> Value,
) {
    const LOGIN: &str = "/wazuh/security/user/authenticate";
    for (method, name) in [(Method::POST, "post"), (Method::GET, "get")] {
        let request = anonymous.request(method, LOGIN).basic_auth("any", Some(admin.key()));
        check(name, LOGIN, Answer::to(request).await);
    }
    let order = json!({"command": "log-only60"});
    let run = admin.put("/wazuh/active-response?agents_list=005,006", &order, None).await;
    check("put", "/wazuh/active-response", run);
    check("get", "/wazuh/agents", admin.get("/wazuh/agents?agents_list=005,006").await);
    for path in ["/wazuh/agents/summary/status", "/wazuh/manager/info", "/wazuh/"] {
        check("get", path, admin.get(path).await);
    }
    check("delete", LOGIN, admin.delete(LOGIN, None).await);
}

/// Feeds, and `CrowdSec`'s API over one of them.
pub(crate) async fn check_feeds(admin: &Client, check: &mut impl FnMut(&str, &str, Answer) -> Value) {
    const DECISIONS: &str = "/crowdsec/v1/decisions";
    const STREAM: &str = "/crowdsec/v1/decisions/stream";
    let feed = json!({"name": "edge", "form": "crowdsec", "min_left": "1m", "policies": ["drop"]});
    check("post", "/v1/feeds", admin.post("/v1/feeds", &feed).await);
    check("put", "/v1/feeds/{name}", admin.put("/v1/feeds/edge", &feed, Some("\"1\"")).await);
    let scope = json!({"rights": ["pull_feeds"], "feeds": ["edge"]});
    let made = json!({"name": "bouncer", "role": "viewer", "scope": scope});
    let made = admin.post("/v1/api-keys", &made).await.is(201);
    let ask =
        |method: Method, path: &str| admin.request(method, path).header("x-api-key", made["key"].as_str().unwrap());
    check("get", DECISIONS, Answer::to(ask(Method::GET, DECISIONS)).await);
    check("get", STREAM, Answer::to(ask(Method::GET, &format!("{STREAM}?startup=true"))).await);
    let kept = ask(Method::POST, "/crowdsec/v1/usage-metrics").json(&json!({"remediation_components": []}));
    Answer::to(kept).await.is(201);
    let refused = admin.post("/crowdsec/v1/usage-metrics", &json!({})).await;
    check("post", "/crowdsec/v1/usage-metrics", refused);
    check("get", "/v1/feeds", admin.get("/v1/feeds").await);
    let shown = check("get", "/v1/feeds/{name}", admin.get("/v1/feeds/edge").await);
    assert_eq!(shown["consumers"][0]["metrics"], json!({"remediation_components": []}), "{shown}");
}
