//! SQLite's query plans, for tests that no statement reads a whole table.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::Sqlite;

use super::bind::{Bind, bind_all};
use super::db::Db;
use super::rows::sample;

/// SQLite's query plan; of a many-row statement, with three rows.
pub(in crate::store) async fn plan(sql: &'static str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let Db::Sqlite { write, .. } = &db else { unreachable!("a file") };
    let (sql, binds) = sample(sql, 3);
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let query = bind_all!(sqlx::query_as::<Sqlite, (i64, i64, i64, String)>(sql), binds);
    query.fetch_all(write).await.unwrap().into_iter().map(|step| step.3).collect()
}

/// A table with a handful of rows, each of which is asked by its own kind.
const FEW_ROWS: &str = "legal_holds";

/// Tables that SQLite scans in full for a statement, without the values and the results of its own
/// subqueries.
pub(in crate::store) async fn reads_whole(sql: &'static str) -> Vec<String> {
    let is_own = |name: &str| {
        [format!(") AS {name}"), format!("WITH {name} AS"), format!(" {name} AS MATERIALIZED (")]
            .iter()
            .any(|own| sql.contains(own))
    };
    let plan = plan(sql).await.into_iter();
    let scans = plan.filter(|step| {
        let name = step.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap_or(rest));
        name.is_some_and(|name| name != FEW_ROWS && !is_own(name) && !name.starts_with("(subquery"))
            && !step.contains("VALUES CLAUSE")
            && !step.ends_with("CONSTANT ROWS")
    });
    scans.collect()
}
