//! SQLite's query plans, for tests that no statement reads a whole table.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::Sqlite;

use super::bind::{Bind, bind_all};
use super::db::Db;
use super::rows::in_chunks;

/// SQLite's query plan.
pub(in crate::store) async fn plan(sql: &str) -> Vec<String> {
    plan_with(sql.into(), vec![]).await
}

/// Tables that SQLite scans in full for a many-row statement, without the values themselves.
pub(in crate::store) async fn reads_whole(before: &str, columns: usize, after: &str, first: usize) -> Vec<String> {
    let plan = plan_of_rows(before, columns, after, first).await.into_iter();
    plan.filter(|step| step.starts_with("SCAN ") && step != "SCAN v" && !step.contains("VALUES CLAUSE")).collect()
}

/// SQLite's query plan of a many-row statement.
pub(in crate::store) async fn plan_of_rows(before: &str, columns: usize, after: &str, first: usize) -> Vec<String> {
    let rows = vec![vec![Bind::from(1_i64); columns]; 3];
    let (sql, binds) = in_chunks(before, rows, after, &vec![Bind::from(1_i64); first], false).remove(0);
    plan_with(sql, binds).await
}

async fn plan_with(sql: String, binds: Vec<Bind>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let Db::Sqlite { write, .. } = &db else { unreachable!("a file") };
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let query = bind_all!(sqlx::query_as::<Sqlite, (i64, i64, i64, String)>(sql), binds);
    query.fetch_all(write).await.unwrap().into_iter().map(|step| step.3).collect()
}
