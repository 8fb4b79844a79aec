//! What holds for every registered statement.

use super::database::reads_whole;
use super::statements;

#[tokio::test]
async fn no_statement_of_many_rows_reads_a_whole_table() {
    let mut seen = 0;
    for (name, sql) in statements().filter(|(_, sql)| sql.contains("VALUES {")) {
        assert_eq!(reads_whole(sql).await, Vec::<String>::new(), "{name}: {sql}");
        seen += 1;
    }
    assert!(seen > 30, "only {seen} statements of many rows were found: this test no longer finds them");
}
