//! The writing connection: binds, rows, errors, and what an unfinished transaction leaves.

use super::*;
use crate::store::database::binds;

type Found = (i64, Option<String>, Vec<u8>, bool);

async fn open() -> (tempfile::TempDir, LocalConnection) {
    let dir = tempfile::tempdir().unwrap();
    let writer = LocalConnection::open(&dir.path().join("db"), "PRAGMA journal_mode = WAL").unwrap();
    let mut tx = writer.begin().await.unwrap();
    let table = "CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT, c BYTEA, d BOOLEAN)";
    tx.execute(table, &[]).unwrap();
    tx.commit().unwrap();
    (dir, writer)
}

#[tokio::test]
async fn values_are_bound_by_their_numbers_and_read_back() {
    let (_dir, writer) = open().await;
    let mut tx = writer.begin().await.unwrap();
    let binds = binds![true, None::<String>, 7_i64, vec![1_u8, 0]];
    assert_eq!(tx.execute("INSERT INTO t (d, c, b, a) VALUES ($1, $4, $2, $3)", &binds).unwrap(), 1);
    let binds = binds![8_i64, "x", vec![2_u8], false];
    assert_eq!(tx.execute("INSERT INTO t (a, b, c, d) VALUES (?, ?, ?, ?)", &binds).unwrap(), 1);
    let found: Vec<Found> = tx
        .all("SELECT a, b, c, d FROM t WHERE a >= $1 AND $1 < $2 ORDER BY a", &[Bind::from(7_i64), Bind::from(9_i64)])
        .unwrap();
    assert_eq!(found, [(7, None, vec![1, 0], true), (8, Some("x".into()), vec![2], false)]);
    assert_eq!(tx.execute("UPDATE t SET b = $1 RETURNING a", &[Bind::from("y")]).unwrap(), 2);
    let missing = tx.execute("DELETE FROM t WHERE a = $2", &[Bind::from(7_i64)]);
    assert!(missing.is_err(), "a statement without all its values does nothing");
    let other: Result<Vec<(String,)>> = tx.all("SELECT a FROM t", &[]);
    assert!(other.is_err(), "a number is no text");
}

#[tokio::test]
async fn a_transaction_that_is_not_committed_leaves_nothing() {
    let (_dir, writer) = open().await;
    let mut tx = writer.begin().await.unwrap();
    tx.execute("INSERT INTO t (a) VALUES (1)", &[]).unwrap();
    drop(tx);
    let mut tx = writer.begin().await.unwrap();
    assert_eq!(tx.all::<(i64,)>("SELECT a FROM t", &[]).unwrap(), []);
    tx.execute("INSERT INTO t (a) VALUES (1)", &[]).unwrap();
    let error = tx.execute("INSERT INTO t (a) VALUES (1)", &[]).unwrap_err();
    assert!(matches!(error, StoreError::Duplicate), "{error}");
    tx.commit().unwrap();
    writer.close().await;
    assert!(writer.begin().await.is_err());
}
