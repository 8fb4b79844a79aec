//! Every operation of the contract, called by every caller that may not: without credentials, with
//! forged, expired or revoked ones, as an agent, or as another agent. A denial names the missing
//! right, and changes nothing.
//!
//! The table of operations is in `auth.rs`; an operation that is missing there fails that test.

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::identity;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::{Stage, call};
use super::operations::{OPERATIONS, Who};
use crate::support::Client;

/// Callers without valid credentials.
const STRANGERS: [&str; 6] =
    ["anonymous", "garbage", "a forged key", "a wrong secret", "an expired key", "a revoked key"];
/// Callers with tokens of agents.
const AGENTS: [&str; 4] = ["an agent", "a revoked agent", "an agent with another's name", "an agent with an old token"];

/// Returns the status that an operation answers a caller, or `None` if the caller may use it.
fn denied(who: Who, caller: &str) -> Option<u16> {
    match who {
        Who::Anybody | Who::TokenHolders => None,
        Who::Agents if caller == AGENTS[0] => None,
        // The agent is known, so it gets the reason: after a 401 it would retry for ever.
        Who::Agents if caller == AGENTS[1] => Some(403),
        Who::Agents | Who::Roles(_) => Some(401),
    }
}

async fn callers(stage: &Stage) -> Vec<(&'static str, Client)> {
    let (app, admin, agent) = (&stage.app, &stage.admin, &stage.agent);
    let anonymous = Client::anonymous(&app.base);
    let brief = json!({"name": "brief", "role": "admin", "expires_in": "1s"});
    let brief = admin.post("/v1/api-keys", &brief).await.is(201)["key"].as_str().unwrap().to_owned();
    let revoked = app.client_with_role(admin, "admin").await;
    admin.delete(&format!("/v1/api-keys/{}", revoked.key().split('_').nth(1).unwrap()), None).await.is(204);
    let gone = app.enrol(admin, "gone-01", &json!({})).await;
    let gone_token = gone.token();
    admin.delete(&format!("/v1/agents/{}", gone.id), None).await.is(204);
    let other = app.enrol(admin, "other-01", &json!({})).await;
    let issue = |key, id, at| identity::issue(key, id, Uuid::from_u128(1), at, Duration::from_mins(5)).unwrap();
    let old = issue(&agent.key, agent.id, app.clock.now().minus(Duration::from_mins(30)));
    // The key with a lifetime of one second has expired.
    app.advance(2);
    let now = app.clock.now();
    let keys = [
        ("garbage", "x%00{}".to_owned()),
        ("a forged key", format!("rip_0123456789abcdef_{}", "a".repeat(43))),
        ("a wrong secret", format!("{}x", admin.key())),
        ("an expired key", brief),
        ("a revoked key", revoked.key().to_owned()),
        ("an agent", issue(&agent.key, agent.id, now)),
        ("a revoked agent", gone_token),
        ("an agent with another's name", issue(&other.key, agent.id, now)),
        ("an agent with an old token", old),
    ];
    let mut callers = vec![("anonymous", anonymous.clone())];
    callers.extend(keys.into_iter().map(|(name, key)| (name, anonymous.with_key(&key))));
    callers
}

/// Returns everything that the API shows of the ledger, except when an agent was last seen.
async fn picture(admin: &Client) -> BTreeMap<&'static str, Value> {
    const LISTS: [&str; 12] = [
        "/v1/alerts",
        "/v1/policies",
        "/v1/actions",
        "/v1/responses",
        "/v1/effects",
        "/v1/commands",
        "/v1/agents",
        "/v1/enrollment-tokens",
        "/v1/api-keys",
        "/v1/users",
        "/v1/protected",
        "/v1/audit",
    ];
    let mut picture = BTreeMap::from([("/v1/freeze", admin.get("/v1/freeze").await.is(200))]);
    for path in LISTS {
        // The first page is enough: it shows every change while the tables of this test are small.
        let mut page =
            admin.get(&format!("{path}?limit=500").replace("/v1/actions?limit=500", "/v1/actions")).await.is(200);
        for item in page["items"].as_array_mut().unwrap() {
            for moving in ["last_seen_at", "last_used_at"] {
                item.as_object_mut().unwrap().remove(moving);
            }
        }
        picture.insert(path, page);
    }
    picture
}

#[tokio::test]
async fn a_caller_without_the_right_is_refused_and_changes_nothing() {
    let mut stage = Stage::set().await;
    let callers = callers(&stage).await;
    let named: Vec<&str> = callers.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, STRANGERS.into_iter().chain(AGENTS).collect::<Vec<_>>());
    // The audit entries of allowed callers arrive a moment later, so the denied callers come first.
    for (nth, operation) in OPERATIONS.iter().enumerate() {
        if nth == OPERATIONS.len() / 3 || nth == OPERATIONS.len() * 2 / 3 {
            // Another minute: an address may fail 600 times in one.
            for _ in 0..13 {
                // In steps, so that no deadline of the manager is missed.
                stage.app.advance(5);
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            }
        }
        let (method, path, who, on, ..) = *operation;
        let thing = stage.fresh(on).await;
        let body = stage.body(method, path, &thing).await;
        let before = picture(&stage.admin).await;
        for (name, client) in callers.iter().filter(|(name, _)| denied(who, name).is_some()) {
            let answer = call(client, *operation, &thing, body.as_ref()).await;
            answer.is_error_of(path, denied(who, name).unwrap());
            let is_asked = answer.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer"));
            assert_eq!(is_asked, answer.status == 401, "{method} {path} as {name}");
        }
        if who == Who::Agents {
            // An administrator is no agent.
            call(&stage.admin, *operation, &thing, body.as_ref()).await.is_problem(401);
        }
        let after = picture(&stage.admin).await;
        for (list, before) in &before {
            assert_eq!(&after[list], before, "a denial of {method} {path} changed {list}");
        }
    }
    for operation in OPERATIONS {
        let (method, path, who, _, right, _) = *operation;
        for (name, client) in callers.iter().filter(|(name, _)| denied(who, name).is_none()) {
            // An enrolment token is for one agent.
            let body = stage.body(method, path, "").await;
            // An agent's token is for one request.
            let agent = (*name == "an agent").then(|| client.with_key(&stage.agent.token()));
            let answer = call(agent.as_ref().unwrap_or(client), *operation, "", body.as_ref()).await;
            assert_eq!(answer.status, right, "{method} {path} as {name}: {}", answer.text);
        }
    }
}
