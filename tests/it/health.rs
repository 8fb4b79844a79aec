//! Ready means that alerts can be committed. A full disk and a stalled database are reported within
//! 2 seconds, and cleared when they are over. Real disks, a real PostgreSQL.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::processes::{Manager, PATIENCE, alert, eventually};
use crate::support::Database;

/// Deadline of `/readyz`, with some margin for a busy machine.
const SOON: Duration = Duration::from_secs(3);

async fn is_not_ready(manager: &Manager, why: &str) {
    eventually(&format!("it says {why:?}"), PATIENCE, async || {
        let (status, text, took) = manager.ask("/readyz").await;
        assert!(took < SOON, "{took:?}: {text}");
        let is_said = text.contains("alerts cannot be committed") && text.contains(why);
        (status == StatusCode::SERVICE_UNAVAILABLE && is_said).then_some(())
    })
    .await;
    let (status, text, took) = manager.ask("/readyz?verbose").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && took < SOON, "{status} after {took:?}");
    let verbose: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(verbose["ready"], false);
    assert!(verbose["problems"][0].as_str().unwrap().contains(why), "{verbose}");
    let (is_ready, said) = manager.command(&["status"]);
    assert!(!is_ready && said.contains("not ready: ") && said.contains(why), "{said}");
    assert_eq!(manager.ask("/livez").await.0, StatusCode::OK, "it lives");
}

async fn is_ready_again(manager: &Manager) {
    eventually("it is ready again", PATIENCE, async || {
        (manager.ask("/readyz").await.0 == StatusCode::OK).then_some(())
    })
    .await;
    let (_, text, _) = manager.ask("/readyz?verbose").await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["problems"], serde_json::json!([]));
    assert!(manager.command(&["status"]).0);
    let taken = manager.api().post("/v1/alerts", &alert(9999, "203.0.113.7", "web-01")).await;
    assert_eq!(taken["accepted"], 1, "{taken}");
}

#[tokio::test]
async fn promise_14_a_full_disk_is_not_ready() {
    let manager = Manager::start_on_small_disk(12).await;
    let filler = manager.data_dir().join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    is_not_ready(&manager, "the disk is full").await;
    // Alerts are indeed refused: SQLite soon uses up the pages that it has allocated.
    eventually("an alert is refused", PATIENCE, async || {
        let mut alert = alert(getrandom::u64().unwrap(), "203.0.113.7", "web-01");
        let noise: Vec<u64> = (0..2000).map(|_| getrandom::u64().unwrap()).collect();
        alert["data"]["noise"] = serde_json::json!(noise);
        let answer = manager.api().request(Method::POST, "/v1/alerts").json(&alert).send().await.unwrap();
        if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["detail"], "the disk that holds the ledger is full: make room on it");
        Some(())
    })
    .await;
    is_not_ready(&manager, "the disk is full").await;
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    is_ready_again(&manager).await;
}

#[tokio::test]
async fn promise_14_a_database_that_stands_still_is_not_ready() {
    let database = Database::postgresql().await;
    let manager = Manager::start_with(&["--database-url", &database.url()]).await;
    database.server().signal("STOP");
    // The log says it also without a request.
    eventually("the log says it", PATIENCE, async || {
        manager.log().contains("not ready: alerts cannot be committed: PostgreSQL cannot be used").then_some(())
    })
    .await;
    is_not_ready(&manager, "PostgreSQL").await;
    let begun = std::time::Instant::now();
    let alert = alert(1, "203.0.113.7", "web-01");
    let answer = manager.api().request(Method::POST, "/v1/alerts").json(&alert).send().await.unwrap();
    let (status, problem): (_, Value) = (answer.status(), answer.json().await.unwrap());
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    let said = problem["detail"].as_str().unwrap();
    let is_told = |text: &str| said.contains(text);
    assert!(
        is_told("the database does not answer: it gives no connection")
            || is_told("no lease on the ledger at the moment: PostgreSQL cannot be used"),
        "{said}"
    );
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    // Deadlines that are missed meanwhile are one clause, for their cause is said.
    let said = eventually("deadlines are missed", Duration::from_mins(1), async || {
        let (_, text, _) = manager.ask("/readyz?verbose").await;
        text.contains("deadlines are missed").then_some(text)
    })
    .await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["problems"].as_array().unwrap().len(), 2, "{said}");
    assert!(said["problems"][1].as_str().unwrap().starts_with("deadlines are missed for the same cause: "), "{said}");
    database.server().signal("CONT");
    eventually("the log says that it is over", PATIENCE, async || manager.log().contains("ready again").then_some(()))
        .await;
    is_ready_again(&manager).await;
    let log = manager.log();
    assert_eq!((log.matches("not ready: ").count(), log.matches("ready again").count()), (1, 1), "one line a change");
}
