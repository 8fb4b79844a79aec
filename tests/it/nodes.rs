//! One manager per ledger: a second one is told which node holds it, a killed one recovers by
//! itself, and a superseded one writes nothing. Real managers, a real PostgreSQL, a real
//! `PgBouncer`.

use std::path::Path;
use std::time::{Duration, Instant};

use riposte_protocol::time::Timestamp;
use tempfile::TempDir;

use crate::processes::{Manager, PATIENCE, alert, copy_keys, ended, signal, tied};
use crate::support::Database;

/// Runs a manager until it exits, within [`PATIENCE`]; returns its output.
async fn refused(data_dir: &Path, database: &str) -> String {
    let log = TempDir::new().unwrap();
    let file = std::fs::File::create(log.path().join("log")).unwrap();
    let mut child = tied(Path::new(env!("CARGO_BIN_EXE_riposte")))
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", database, "--data-dir"])
        .arg(data_dir)
        .stdout(std::process::Stdio::null())
        .stderr(file)
        .spawn()
        .unwrap();
    let status = ended(&mut child, PATIENCE).await;
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let text = std::fs::read_to_string(log.path().join("log")).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{text}");
    text
}

async fn takes_alerts(manager: &Manager, number: u64) {
    let taken = manager.api().post("/v1/alerts", &alert(number, "203.0.113.7", "web-01")).await;
    assert_eq!(taken["accepted"], 1, "{taken}");
}

#[tokio::test]
async fn field_20_a_second_manager_on_one_database_is_told_who_holds_it() {
    let database = Database::postgresql().await;
    let mut first = Manager::start_with(&["--database-url", &database.url()]).await;
    let copy = TempDir::new().unwrap();
    let data_dir = copy.path().join("data");
    copy_keys(&first.data_dir(), &data_dir);
    let said = refused(&data_dir, &database.url()).await;
    let holder = format!("process {}, listening on {}", first.child.id(), first.address);
    assert!(said.contains("another manager runs on this ledger: host ") && said.contains(&holder), "{said}");
    takes_alerts(&first, 1).await;

    // A killed manager takes the ledger again as soon as its own lease has expired.
    let begun = Instant::now();
    first.start_again().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    takes_alerts(&first, 2).await;

    // A graceful stop releases the ledger at once.
    signal(&first.child, "TERM");
    assert!(ended(&mut first.child, PATIENCE).await.unwrap().success());
    let begun = Instant::now();
    let second = first.start_copy().await;
    assert!(!second.log().contains("waiting up to"), "it waited {:?}: {}", begun.elapsed(), second.log());
    takes_alerts(&second, 3).await;
    second.api().audit_is_intact().await;
}

#[tokio::test]
async fn field_20_a_manager_that_was_superseded_while_it_stood_still_writes_nothing_and_stops() {
    let database = Database::postgresql().await;
    let mut first = Manager::start_with(&["--database-url", &database.url()]).await;
    takes_alerts(&first, 1).await;
    signal(&first.child, "STOP");
    let second = first.start_copy().await;
    takes_alerts(&second, 2).await;
    signal(&first.child, "CONT");
    let status = ended(&mut first.child, PATIENCE).await.expect("it stops by itself");
    assert_eq!(status.code(), Some(1), "{}", first.log());
    let holder = format!("process {}, listening on {}", second.child.id(), second.address);
    assert!(first.log().contains("this manager stops: another manager runs on this ledger"), "{}", first.log());
    assert!(first.log().contains(&holder), "{}", first.log());
    takes_alerts(&second, 3).await;
    second.api().audit_is_intact().await;
}

/// Every open transaction of a superseded manager is refused, also before the manager has noticed.
#[tokio::test]
async fn field_20_a_superseded_manager_cannot_commit() {
    use riposte::store::StoreError;
    use riposte::store::database::Db;
    use riposte::store::database::nodes::Lease;
    use riposte::store::ledger::audit::LedgerTx;
    let database = Database::postgresql().await;
    let (old, new) = (Db::open(&database.url()).await.unwrap(), Db::open(&database.url()).await.unwrap());
    let lease = Lease::take(&old, "the old one").await.unwrap();
    LedgerTx::begin(&old).await.unwrap().commit().await.unwrap();
    // It does not renew, so its lease expires.
    let _lease = Lease::take(&new, "the new one").await.unwrap();
    assert!(matches!(LedgerTx::begin(&old).await.unwrap_err(), StoreError::Superseded));
    LedgerTx::begin(&new).await.unwrap().commit().await.unwrap();
    let lost = lease.keep().await.unwrap_err().to_string();
    assert!(lost.contains("the new one, since "), "{lost}");
    assert!(Timestamp::from_millis(0) < riposte::clock::Clock::system().now());
}

#[tokio::test]
async fn field_20_a_pooler_that_changes_connections_is_named() {
    let database = Database::postgresql().await;
    let pooler = database.server().pooler("transaction").await;
    let dir = TempDir::new().unwrap();
    let said = refused(&dir.path().join("data"), &pooler.url()).await;
    assert!(said.contains("PgBouncer") && said.contains("pool_mode=session"), "{said}");
    drop(pooler);
    let pooler = database.server().pooler("session").await;
    let manager = Manager::start_with(&["--database-url", &pooler.url()]).await;
    takes_alerts(&manager, 1).await;
}

#[tokio::test]
async fn one_file_has_one_manager_whatever_its_data_directory() {
    let first = Manager::start().await;
    let dir = TempDir::new().unwrap();
    let database = format!("sqlite:{}", first.data_dir().join("riposte.db").display());
    let said = refused(&dir.path().join("data"), &database).await;
    assert!(said.contains("another manager is running on the ledger"), "{said}");
    takes_alerts(&first, 1).await;
}
