//! Wazuh's API below `/wazuh`: logins, active responses, lists, and the form of every error. What real clients
//! send is in `recorded.rs` as bytes; the clients themselves are in `conformance.rs`.

mod active_response;
mod errors;
mod lists;
mod login;
mod page;
mod recorded;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, TestApp};

/// Where clients log in.
const LOGIN: &str = "/wazuh/security/user/authenticate";

/// Logs in with Basic authentication.
async fn log_in(app: &TestApp, name: &str, password: &str) -> Answer {
    let request = Client::anonymous(&app.base).request(Method::POST, LOGIN);
    Answer::to(request.basic_auth(name, Some(password))).await
}

/// A client with the token of a login.
async fn logged_in(app: &TestApp, name: &str, password: &str) -> Client {
    let answer = log_in(app, name, password).await.is(200);
    Client::anonymous(&app.base).with_key(answer["data"]["token"].as_str().unwrap())
}

/// A client with a token of a new service key of `role`.
async fn service(app: &TestApp, admin: &Client, role: &str) -> Client {
    logged_in(app, "shuffle", app.client_with_role(admin, role).await.key()).await
}

/// Runs an active response on the agents of the query.
async fn run(client: &Client, query: &str, body: &Value) -> Answer {
    client.put(&format!("/wazuh/active-response{query}"), body, None).await
}

/// The body of an active response against an address.
fn block(command: &str, address: &str) -> Value {
    json!({"command": command, "arguments": [], "alert": {"data": {"srcip": address}}})
}

/// The answer of an active response.
fn report(affected: &[&str], failed: &Value, message: &str, error: u32) -> Value {
    let ids = failed.as_array().unwrap().iter().map(|item| item["id"].as_array().unwrap().len());
    json!({"data": {"affected_items": affected, "total_affected_items": affected.len(),
        "total_failed_items": ids.sum::<usize>(), "failed_items": failed}, "message": message, "error": error})
}

/// Three agents: 005, 006, and the Wazuh manager's own host.
async fn fleet(app: &TestApp, admin: &Client) -> [crate::support::FakeAgent; 3] {
    let web = app.enrol(admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
    let db = app.enrol(admin, "db-01", &json!({"wazuh_id": "006", "env": "dev"})).await;
    let siem = app.enrol(admin, "siem-1", &json!({"wazuh_id": "000", "wazuh_manager": "siem-1"})).await;
    [web, db, siem]
}
