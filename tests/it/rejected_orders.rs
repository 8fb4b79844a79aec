//! An agent that rejects its manager's commands protects nothing: the manager must detect, report
//! and name it. Both transports, the real programs.

use riposte_protocol::message::{Outcome, PollRequest, RejectedOrders};
use serde_json::json;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Database, TestApp};

use crate::processes::{Agent, Manager, PATIENCE, alert, eventually};

async fn check(transport: &str) {
    let mut manager = Manager::start().await;
    let api = manager.api();
    let mut agent = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    api.make_policy("log-only", "10m").await;
    let url = format!("/v1/agents/{}", agent.id);
    assert_eq!(api.get(&url).await["rejecting"], json!(null));
    std::fs::write(manager.data_dir().join("signing.key"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n").unwrap();
    manager.add_flag("--adopt-signing-key");
    manager.start_again().await;
    agent.run(&["--transport", transport]);
    let (_, command) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    let row = eventually("the manager knows", PATIENCE, async || {
        let row = api.get(&url).await;
        row["rejecting"].is_string().then_some(row)
    })
    .await;
    assert!(row["rejecting"].as_str().unwrap().contains("signed with a key that the agent does not know"), "{row}");
    assert_eq!(row["rejected_reason"], "unknown_key");
    assert!(row["rejected_orders"].as_i64().unwrap() >= 1 && row["rejected_at"].is_string(), "{row}");
    assert_eq!(api.command(command["id"].as_str().unwrap()).await["state"], "delivered");
    assert!(manager.log().contains("agent web-01 rejects this manager's commands"), "{}", manager.log());
    let (_, list) = manager.command(&["agent", "list"]);
    assert!(list.contains("INCIDENT: it rejects this manager's commands"), "{list}");
    let (_, verbose, _) = manager.ask("/readyz?verbose").await;
    assert!(verbose.contains("\"agents_rejecting\":1"), "{verbose}");
    let (_, metrics, _) = manager.ask("/metrics").await;
    assert!(metrics.contains("riposte_agents_rejecting 1"), "{metrics}");
    assert!(metrics.contains("riposte_orders_rejected_total{reason=\"unknown_key\"} "), "{metrics}");
    let audit = api.get(&format!("/v1/audit?noun=agent&noun_id={}", agent.id)).await;
    assert!(audit.to_string().contains("\"rejected orders\""), "{audit}");
    let (is_healthy, doctor) = manager.command(&["doctor", "--data-dir", manager.data_dir().to_str().unwrap()]);
    assert!(is_healthy && doctor.contains("incident: an agent rejects this manager's commands"), "{doctor}");
    let named = format!("web-01 (agent {0}): signed with a key that the agent does not know", agent.id);
    assert!(doctor.contains(&named) && doctor.contains(&format!("`DELETE /v1/agents/{}`", agent.id)), "{doctor}");
}

#[tokio::test]
async fn promise_14_an_agent_that_rejects_orders_is_an_incident_by_stream() {
    check("stream").await;
}

#[tokio::test]
async fn promise_14_an_agent_that_rejects_orders_is_an_incident_by_poll() {
    check("poll").await;
}

on_both_databases! {
    /// Orders that expire on a slow network look like those of a wrong clock, until one arrives in time.
    async fn promise_14_an_agent_that_carries_orders_out_does_not_reject_them(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let expired = RejectedOrders { reason: "expired".into(), count: 2, kid: None };
        agent.poll(&PollRequest { rejected: vec![expired], ..PollRequest::default() }).await;
        let rejecting = async || admin.get(&format!("/v1/agents/{}", agent.id)).await.is(200)["rejecting"].clone();
        assert!(rejecting().await.as_str().unwrap().contains("expired before they arrived"));
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        agent.answer(Outcome::Refused, None).await;
        assert!(rejecting().await.is_string(), "a refusal is no proof");
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        agent.answer(Outcome::Succeeded, Some(true)).await;
        assert_eq!(rejecting().await, json!(null));
        let said = admin.history("agent", &agent.id.to_string()).await;
        assert_eq!(said.iter().filter(|(_, verb)| verb == "accepted orders again").count(), 1, "{said:?}");
    }
}
