//! Forwarders report themselves; one that falls silent is told of once, and so is its return.

use serde_json::{Value, json};

use crate::support::{Client, Database, TestApp};

async fn report(client: &Client, name: &str) {
    let said = json!({"version": "0.1.0", "behind_bytes": 4096, "last_alert_at": "2026-11-24T09:59:00Z"});
    client.put(&format!("/v1/forwarders/{name}"), &said, None).await.is(204);
}

async fn told(admin: &Client) -> Vec<(String, String)> {
    let events = admin.list("/v1/events?follow=false&type=incident.*").await;
    let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
    events.iter().map(|event| (text(event, "type"), text(event, "subject"))).collect()
}

on_both_databases! {
    async fn the_silence_of_a_forwarder_is_told_once_and_so_is_its_return(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let pipeline = app.client_with_role(&admin, "ingest").await;
        report(&pipeline, "wazuh-1").await;
        report(&pipeline, "wazuh-2").await;
        let listed = admin.list("/v1/forwarders").await;
        assert_eq!((&listed[0]["name"], &listed[0]["behind_bytes"], &listed[0]["is_silent"]), (&json!("wazuh-1"), &json!(4096), &json!(false)));
        app.advance(290);
        report(&pipeline, "wazuh-2").await;
        app.advance(15);
        app.in_time("the first is silent", || async {
            (admin.list("/v1/forwarders").await[0]["is_silent"] == true).then_some(())
        }).await;
        admin.metrics_show("riposte_forwarders_silent 1", true).await;
        assert_eq!(told(&admin).await, [("riposte.incident.forwarder_silent".to_owned(), "forwarder/wazuh-1".to_owned())]);
        // Neither another round nor a restart tells of it again.
        let (app, admin) = app.restart().await;
        app.advance(20);
        let pipeline = app.client_with_role(&admin, "ingest").await;
        report(&pipeline, "wazuh-2").await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        report(&pipeline, "wazuh-1").await;
        let events = told(&admin).await;
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[1].0, "riposte.incident.forwarder_back");
        admin.delete("/v1/forwarders/wazuh-1", None).await.is(204);
        admin.delete("/v1/forwarders/wazuh-1", None).await.is_problem(404);
        // Its silence is told no more, so the record says who did that.
        assert_eq!(admin.history("forwarder", "wazuh-1").await.len(), 1);
        // While the manager is away, no forwarder can report: that is no silence of theirs.
        let clock = app.clock.clone();
        let (app, admin) = app.restart_after(async |_, _| clock.advance(std::time::Duration::from_hours(1))).await;
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!(told(&admin).await.len(), 2);
        report(&app.client_with_role(&admin, "ingest").await, "wazuh-2").await;
        app.advance(320);
        app.in_time("but later it is", || async { (told(&admin).await.len() == 3).then_some(()) }).await;
        assert_eq!(admin.list("/v1/forwarders").await.len(), 1);
    }
}

#[tokio::test]
async fn a_report_speaks_only_for_what_its_key_is_bound_to() {
    let (_app, admin) = TestApp::start().await;
    let asked = json!({"name": "bound", "role": "ingest", "scope": {"wazuh_managers": ["wazuh-1"]}});
    let bound = admin.with_key(admin.post("/v1/api-keys", &asked).await.is(201)["key"].as_str().unwrap());
    report(&bound, "wazuh-1").await;
    let said = json!({"version": "0.1.0"});
    bound.put("/v1/forwarders/wazuh-2", &said, None).await.is_problem(403);
    let long = admin.put("/v1/forwarders/wazuh-1", &json!({"version": "x".repeat(65)}), None).await;
    assert_eq!(long.points_at(), ["/version"]);
    admin.put(&format!("/v1/forwarders/{}", "x".repeat(257)), &said, None).await.is_problem(422);
}
