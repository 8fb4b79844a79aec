//! Leases of the managers that share a ledger: one that stood still serves nothing before it has
//! caught up, and commits nothing without a lease. Real managers, a real PostgreSQL, a real
//! `PgBouncer`.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::processes::{Manager, PATIENCE, alert, ended, eventually, signal, text, tied};
use crate::support::Database;

/// Runs a manager until it exits, within [`PATIENCE`]; returns its output.
pub(crate) async fn refused(data_dir: &Path, database: &str) -> String {
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

/// A manager that was stopped for longer than its lease serves nothing before it has read what others have changed.
#[tokio::test]
async fn field_20_a_manager_that_stood_still_goes_by_what_was_changed_meanwhile() {
    let database = Database::postgresql().await;
    let first = Manager::start_with(&["--database-url", &database.url()]).await;
    let second = first.start_copy().await;
    takes_alerts(&first, 1).await;
    let key = second.api().post("/v1/api-keys", &json!({"name": "soon-revoked", "role": "viewer"})).await;
    let revoked = first.api().with_key(text(&key, "key"));
    assert_eq!(revoked.status(Method::GET, "/v1/policies").await, 200, "made there, good here");
    signal(&first.child, "STOP");
    let begun = Instant::now();
    let path = format!("/v1/api-keys/{}", text(&key, "id"));
    // If it was stopped within a transaction, the first try may wait for its locks in vain.
    let deleted = async || (second.api().status(Method::DELETE, &path).await == 204).then_some(());
    eventually("the key is deleted", PATIENCE, deleted).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "it waits for a lease at most: {:?}", begun.elapsed());
    signal(&first.child, "CONT");
    let said = revoked.status(Method::GET, "/v1/policies").await;
    assert!([401, 503].contains(&said.as_u16()), "never 200: {said}");
    let refused = async || (revoked.status(Method::GET, "/v1/policies").await == 401).then_some(());
    eventually("the key is refused", PATIENCE, refused).await;
    takes_alerts(&first, 2).await;
    takes_alerts(&second, 3).await;
    second.api().audit_is_intact().await;
}

/// A commit is refused once the lease has ended, also before the manager has noticed.
#[tokio::test]
async fn field_20_a_manager_without_a_lease_cannot_commit() {
    use riposte::domain::actor::Actor;
    use riposte::store::StoreError;
    use riposte::store::configured::freeze;
    use riposte::store::database::Db;
    use riposte::store::database::nodes::{Lease, TTL};
    use riposte::store::ledger::audit::LedgerTx;
    let database = Database::postgresql().await;
    let (one, other) = (Db::open(&database.url()).await.unwrap(), Db::open(&database.url()).await.unwrap());
    let _kept = Lease::take(&one, "one").await.unwrap();
    let lease = Lease::take(&other, "other").await.unwrap();
    let freeze = async |db: &Db| {
        let mut ledger = LedgerTx::begin(db).await.unwrap();
        freeze::set(&mut ledger, true, "a test", &Actor::Riposte, riposte::clock::Clock::system().now()).await.unwrap();
        ledger.commit().await
    };
    freeze(&one).await.unwrap();
    freeze(&other).await.unwrap();
    // Neither renews.
    tokio::time::sleep(TTL + Duration::from_millis(100)).await;
    assert!(matches!(freeze(&other).await.unwrap_err(), StoreError::LeaseLost));
    assert!(!lease.is_held());
}

/// A duty that another node has taken over cannot be done by the former owner's fence.
#[tokio::test]
async fn promise_11_a_former_owner_of_a_duty_changes_nothing() {
    use std::sync::Arc;

    use riposte::clock::Clock;
    use riposte::store::StoreError;
    use riposte::store::database::Db;
    use riposte::store::database::duties::Duty;
    use riposte::store::database::nodes::Lease;
    use riposte::store::writer::{SweepStep, Writer};
    use tokio_util::sync::CancellationToken;
    let database = Database::postgresql().await;
    let (one, other) = (Db::open(&database.url()).await.unwrap(), Db::open(&database.url()).await.unwrap());
    let (first, second) = (Lease::take(&one, "one").await.unwrap(), Lease::take(&other, "other").await.unwrap());
    first.caught_up(0).await.unwrap();
    second.caught_up(0).await.unwrap();
    let fence =
        async |lease: &Lease| lease.claim().await.unwrap().own.get(&Duty::Sweep).and_then(|claim| claim.fence.clone());
    let former = fence(&first).await;
    assert!(former.is_some());
    let seen = second.claim().await.unwrap();
    assert!(seen.own.is_empty() && seen.elsewhere == Duty::ALL.into(), "{seen:?}");
    let (writer, work) = Writer::start(one, Clock::system(), Arc::new(|_: &[uuid::Uuid]| {}), CancellationToken::new());
    let tries = async {
        let step = SweepStep::ForgetChanges(Clock::system().now());
        writer.sweep(step, 1, former.clone()).await.unwrap();
        first.resign().await.unwrap();
        let now = fence(&second).await;
        assert!(now.is_some() && now != former);
        let late = writer.sweep(step, 1, former.clone()).await.unwrap_err();
        assert_eq!(late.in_words(), StoreError::LeaseLost.to_string());
        drop(writer);
    };
    tokio::join!(work, tries);
}

/// A transaction may check duties in any order, while their owner renews its claims.
#[tokio::test]
async fn field_20_a_renewed_claim_and_a_transaction_of_two_duties_do_not_wait_for_each_other() {
    use riposte::store::database::Db;
    use riposte::store::database::nodes::Lease;
    use sqlx::Connection as _;
    let database = Database::postgresql().await;
    let db = Db::open(&database.url()).await.unwrap();
    let lease = Lease::take(&db, "one").await.unwrap();
    lease.caught_up(0).await.unwrap();
    let names: Vec<_> = lease.claim().await.unwrap().own.keys().map(|duty| duty.as_str()).collect();
    for first in &names {
        let mut connection = sqlx::PgConnection::connect(&database.url()).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        const CHECK: &str = "SELECT fence FROM duties WHERE name = $1 FOR SHARE";
        sqlx::query(CHECK).bind(first).fetch_one(&mut *transaction).await.unwrap();
        let checks = async {
            // The claim waits for the row that is held here.
            tokio::time::sleep(Duration::from_millis(300)).await;
            for other in &names {
                let checked = sqlx::query(CHECK).bind(other).fetch_one(&mut *transaction).await;
                assert!(checked.is_ok(), "{first}, then {other}: {checked:?}");
            }
            transaction.commit().await.unwrap();
        };
        let (renewed, ()) = tokio::join!(lease.claim(), checks);
        assert_eq!(renewed.unwrap().own.len(), names.len());
    }
}

/// A manager of before several could share a database has a row of its own, and goes on writing.
#[tokio::test]
async fn field_20_a_manager_of_an_earlier_version_is_not_joined() {
    use sqlx::Connection as _;
    let database = Database::postgresql().await;
    riposte::store::database::Db::open(&database.url()).await.unwrap().close().await;
    let mut earlier = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let row = "INSERT INTO nodes (id, incarnation, name, started_at, lease_until)
        VALUES ('manager', 'x', 'host old, process 7', 0, 9000000000000)";
    sqlx::raw_sql(row).execute(&mut earlier).await.unwrap();
    let dir = TempDir::new().unwrap();
    let said = refused(&dir.path().join("data"), &database.url()).await;
    assert!(said.contains("a manager of an earlier version runs on this ledger: host old, process 7, since"), "{said}");
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
