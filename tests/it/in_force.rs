//! What is committed is in force. A change and the manager's caches agree, even if the client hangs
//! up or a row cannot be read in between.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use riposte::domain::seal::{SealKey, SealedValue};
use riposte::store::database::Bind;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::app::ledger_key;
use crate::support::{Answer, Client, Database, FakeAgent, PATIENCE, TestApp, eventually};

/// Clients that hang up, each a little later than the one before: from before the change begins
/// until after it is committed.
const TRIALS: u32 = 60;
const STEP: Duration = Duration::from_micros(150);

async fn with_agent(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    admin.policy(&drop_policy("drop")).await;
    (app, admin, agent)
}

/// Returns the state of the response to an alert of this number from `source_ip`.
async fn state(admin: &Client, number: usize, source_ip: &str) -> String {
    let answer = admin.post("/v1/alerts", &brute_force(&format!("1.{number}"), source_ip)).await.is(202);
    let path = format!("/v1/responses/{}", answer["responses"][0].as_str().unwrap());
    admin.get(&path).await.is(200)["state"].as_str().unwrap().to_owned()
}

fn entry(value: &str) -> Value {
    json!({"kind": "ip", "value": value, "reason": "the bank"})
}

const UNREADABLE: &str =
    "INSERT INTO protected_entries (id, kind, value, policies, reason, created_at, created_by, seal)
    VALUES ('00000000-0000-0000-0000-000000000001', 'ip', 'no address', '[]', 'x', 0, 'x', $1)";
const READABLE_AGAIN: &str = "DELETE FROM protected_entries WHERE value = 'no address'";

/// Inserts an entry that this version cannot read, with the seal of a manager that could write it.
async fn make_unreadable(app: &TestApp) {
    let key = SealKey::new(&ledger_key(&app.data_dir())).unwrap();
    let text = |text: &str| SealedValue::Text(text.to_owned());
    let values =
        [text("00000000-0000-0000-0000-000000000001"), text("ip"), text("no address"), text("[]"), SealedValue::Null];
    let seal = key.seal("protected_entries", &values);
    let mut tx = app.db().await.begin().await.unwrap();
    assert_eq!(tx.execute(UNREADABLE, vec![Bind::from(seal)]).await.unwrap(), 1);
    tx.commit().await.unwrap();
}

on_both_databases! {
    /// Promise 7: a committed entry counts, at whichever instant its client hung up.
    async fn promise_7_an_entry_counts_although_its_client_went_away(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        let (alerts, mut committed) = (AtomicUsize::new(0), 0);
        for number in 0..TRIALS {
            let address = format!("203.0.113.{number}");
            // A connection of its own, which ends with the request.
            let client = Client::anonymous(&app.base).with_key(admin.key());
            let request = client.request(Method::POST, "/v1/protected").json(&entry(&address));
            let patience = if number + 1 < TRIALS { STEP * number } else { PATIENCE };
            let _ = tokio::time::timeout(patience, Answer::to(request)).await;
            drop(client);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let entries = admin.list("/v1/protected").await;
            if !entries.iter().any(|entry| entry["value"] == address.as_str()) {
                continue;
            }
            committed += 1;
            eventually(&format!("{address} is protected (trial {number})"), async || {
                let alert = alerts.fetch_add(1, Ordering::SeqCst);
                (state(&admin, alert, &address).await == "spared").then_some(())
            })
            .await;
        }
        assert!(committed > 0, "no client waited long enough");
    }

    /// Promise 7: no client is told that a target is protected before it is. A change that was
    /// committed without an answer counts within seconds.
    async fn promise_7_an_entry_that_could_not_be_answered_counts_before_it_is(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        let protect = async |address: &str| admin.post_once("/v1/protected", &entry(address), address).await;
        make_unreadable(&app).await;
        for address in ["203.0.113.1", "203.0.113.2"] {
            assert_eq!(protect(address).await.status, 500);
        }
        assert_eq!(app.execute(READABLE_AGAIN).await, 1);
        assert_eq!(state(&admin, 1, "203.0.113.1").await, "active", "the cache is unchanged, and no client was told so");
        protect("203.0.113.1").await.is(201);
        assert_eq!(state(&admin, 2, "203.0.113.1").await, "spared");

        make_unreadable(&app).await;
        assert_eq!(protect("203.0.113.3").await.status, 500);
        assert_eq!(app.execute(READABLE_AGAIN).await, 1);
        // The sweep's next round is in five seconds, or its last one is still running. The round
        // that reloads the caches anyway is a minute away.
        let mut rounds = 0;
        while state(&admin, 10 + rounds, "203.0.113.3").await != "spared" {
            assert!(rounds < 80, "the entry does not count");
            if rounds.is_multiple_of(10) {
                app.advance(5);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            rounds += 1;
        }
    }

    /// Promise 7: a lift that failed for a new entry is retried when the store works again, not a
    /// minute later.
    async fn promise_7_a_lift_that_failed_is_tried_at_every_round(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        assert_eq!(state(&admin, 1, "203.0.113.4").await, "active");
        app.execute("ALTER TABLE holds RENAME TO elsewhere").await;
        admin.post("/v1/protected", &entry("203.0.113.4")).await.is_problem(503);
        app.advance(5);
        eventually("a round has failed", async || {
            let stages = admin.get("/readyz?verbose").await.is(200)["stages"].clone();
            stages["reload"]["fault"].is_string().then_some(())
        })
        .await;
        app.execute("ALTER TABLE elsewhere RENAME TO holds").await;
        let mut rounds: u32 = 0;
        while admin.list("/v1/responses").await[0]["state"] != "ended" {
            assert!(rounds < 80, "the lift is not tried again");
            if rounds.is_multiple_of(20) {
                app.advance(5);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            rounds += 1;
        }
        assert_eq!(admin.list("/v1/responses").await[0]["reason"], "protected");
    }

    /// Promise 11: each cache is reloaded on its own.
    async fn promise_11_actions_that_cannot_be_read_keep_no_other_copy_old(database: Database) {
        let (app, admin, _agent) = with_agent(database).await;
        admin.post("/v1/protected", &entry("203.0.113.4")).await.is(201);
        app.execute("ALTER TABLE actions RENAME TO elsewhere").await;
        assert_eq!(app.execute("UPDATE protected_entries SET value = '203.0.113.5'").await, 1);
        app.in_time("the entry is read", async || {
            let ready = admin.get("/readyz?verbose").await.is(200);
            (ready["stages"]["reload"]["fault"].is_string() && ready["warnings"].to_string().contains("protected_entries"))
                .then_some(())
        })
        .await;
    }
}
