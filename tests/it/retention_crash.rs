//! Removals that are killed between two batches.

use std::time::Duration;

use riposte::domain::checkpoint::{Checkpoint, LogBeginning};
use serde_json::{Value, json};

use super::retention::{DAY, Kept, riposte};
use crate::processes::{Manager, PATIENCE, eventually, now};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Database, TestApp};

/// Numbers of the first and the last entry of a ledger that a manager uses.
fn span(ledger: &rusqlite::Connection) -> (i64, i64) {
    let numbers = "SELECT MIN(seq), MAX(seq) FROM audit";
    ledger.query_row(numbers, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// Where the newest stored checkpoint says that the log begins.
fn begins(ledger: &rusqlite::Connection) -> Option<LogBeginning> {
    let newest = "SELECT token FROM audit_checkpoints ORDER BY seq DESC LIMIT 1";
    let token: String = ledger.query_row(newest, [], |row| row.get(0)).unwrap();
    Checkpoint::peek(&token).unwrap().begins
}

/// A ledger of a year ago, in a folder of its own, without its manager.
async fn ledger_of_last_year(alerts: usize) -> tempfile::TempDir {
    let past = now().minus(Duration::from_secs(400 * DAY));
    let dir = tempfile::tempdir().unwrap();
    let (app, admin) = TestApp::start_at(past, Database::sqlite(), |config| {
        config.audit.audit_checkpoint_file = dir.path().join("checkpoints");
    })
    .await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let kept = Kept { app, admin, agent, dir };
    kept.admin.policy(&drop_policy("drop")).await;
    let address = |n: usize| format!("10.0.{}.{}", n / 250, n % 250);
    let batch: Vec<Value> = (0..alerts).map(|n| brute_force(&n.to_string(), &address(n))).collect();
    kept.admin.post("/v1/alerts", &json!(batch)).await.is(202);
    kept.sign().await;
    kept.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
    kept.sign().await;
    let copy = tempfile::tempdir().unwrap();
    let data = copy.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for file in std::fs::read_dir(kept.app.data_dir()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_str().is_some_and(|name| !name.starts_with("riposte.db") && !name.ends_with("lock")) {
            std::fs::copy(file.path(), data.join(file.file_name())).unwrap();
        }
    }
    let source = kept.app.data_dir().join("riposte.db");
    let ledger = rusqlite::Connection::open(source).unwrap();
    ledger.execute("VACUUM INTO ?1", [data.join("riposte.db").to_str().unwrap()]).unwrap();
    let ledger = rusqlite::Connection::open(data.join("riposte.db")).unwrap();
    ledger.execute("DELETE FROM nodes", []).unwrap();
    copy
}

#[tokio::test]
async fn a_removal_that_is_killed_between_two_batches_goes_on_at_the_next_start() {
    let directory = ledger_of_last_year(6000).await;
    let file = directory.path().join("data/riposte.db");
    let ledger = rusqlite::Connection::open(&file).unwrap();
    ledger.busy_timeout(Duration::from_secs(30)).unwrap();
    let (_, old) = span(&ledger);
    let flags = ["--audit-retention-days", "30", "--response-retention-days", "30"];
    let mut manager = Manager::start_on(directory, &flags).await;
    // An entry, so that there is something to sign at the next start.
    manager.api().make_token().await;
    manager.start_again().await;
    eventually("the beginning is signed", PATIENCE, || async { begins(&ledger).map(drop) }).await;
    let proof = manager.api().get("/v1/audit/verify").await;
    assert_eq!(proof["intact"], true, "{proof}");
    let (mut kills, mut first) = (0, span(&ledger).0);
    while first <= begins(&ledger).unwrap().seq && kills < 20 {
        manager.start_again().await;
        // Six thousand responses go first. A look without a pause would take the manager's time.
        let deadline = std::time::Instant::now() + PATIENCE * 4;
        while span(&ledger).0 == first {
            assert!(std::time::Instant::now() < deadline, "nothing is removed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        manager.kill9();
        kills += 1;
        first = span(&ledger).0;
        // The rest of what the manager had begun to remove does not break the chain.
        let dir = manager.data_dir();
        let (is_right, said) = riposte(&["audit", "verify", "--data-dir", dir.to_str().unwrap()]).await;
        assert!(is_right && (first > old || said.contains("verified from entry")), "{said}");
    }
    assert!(kills > 1, "it was never killed in the middle");
    manager.start_again().await;
    let left = begins(&ledger).unwrap().seq + 1;
    eventually("the beginning is removed", PATIENCE, || async { (span(&ledger).0 == left).then_some(()) }).await;
    let proof = manager.api().get("/v1/audit/verify").await;
    assert!(proof["intact"] == true && proof["begins"]["after"] == left - 1, "{proof}");
    // The entries about the removals add up to all of it: none is counted twice, none is missing.
    let sum = "SELECT SUM(CAST(substr(detail, 1, instr(detail, ' ') - 1) AS INTEGER)) FROM audit
        WHERE noun = 'retention' AND noun_id = 'audit'";
    let sum: i64 = ledger.query_row(sum, [], |row| row.get(0)).unwrap();
    assert_eq!(sum, left - 1);
    let dir = manager.data_dir();
    let (is_healthy, said) = riposte(&["doctor", "--data-dir", dir.to_str().unwrap()]).await;
    assert!(is_healthy || !said.contains("audit"), "{said}");
}
