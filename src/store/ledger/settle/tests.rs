//! No statement reads a whole table.

use super::*;
use crate::store::database::reads_whole;

#[tokio::test]
async fn no_statement_of_many_rows_reads_a_whole_table() {
    let statements = [
        (FIND, 2, ")"),
        (FIND_OPEN, 1, ")"),
        (GIVE_UP, 5, GIVE_UP_AFTER),
        (DELIVERED, 4, DELIVERED_AFTER),
        (ACKNOWLEDGE, 3, ACKNOWLEDGE_AFTER),
        (SET_STATES, 4, SET_STATES_AFTER),
        (effects::STATES, 1, ")"),
        (effects::SET_STATES, 9, effects::SET_STATES_AFTER),
    ];
    for (before, columns, after) in statements {
        assert_eq!(reads_whole(before, columns, after, 0).await, Vec::<String>::new(), "{before}");
    }
}
