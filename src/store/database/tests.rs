//! A full disk, and the detection of full table scans.

use super::{Db, binds, reads_whole};

#[tokio::test]
async fn promise_11_the_store_recovers_after_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let row = "INSERT INTO sightings (policy, counted, alert_id, at) VALUES ('p', $1, '', 0)";
    for _ in 0..3 {
        let mut tx = db.begin().await.unwrap();
        tx.execute("PRAGMA max_page_count = 1", vec![]).await.unwrap();
        let full = tx.execute(row, binds!["x".repeat(1 << 20)]).await.unwrap_err();
        assert!(std::error::Error::source(&full).unwrap().to_string().contains("full"), "{full:?}");
        drop(tx);
    }
    let mut tx = db.begin().await.expect("the next transaction begins");
    tx.execute(row, binds!["y"]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_full_table_scan_is_detected() {
    let found = reads_whole("SELECT response_id FROM holds WHERE until IN (VALUES {1})").await;
    assert_eq!(found, ["SCAN holds"]);
}
