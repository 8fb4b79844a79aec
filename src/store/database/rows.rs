//! Many-row statements: one text per number of rows, in few sizes.

use super::bind::Bind;

/// Up to this number of rows, a statement has exactly that many: small groups dominate latency.
const EXACT_ROWS: usize = 32;
/// Maximum rows per statement; with 18 columns this stays far below both databases' limit of bind
/// values.
const MAX_ROWS: usize = 256;

/// A many-row statement as it is written: `VALUES {4}` stands for rows of 4 values each.
struct ManyRows<'a> {
    before: &'a str,
    columns: usize,
    /// Whether the rows are the list of an `IN`: of a list with one value SQLite makes no table, and of `VALUES` it does.
    is_list: bool,
    after: &'a str,
}

/// What the number of columns follows.
const ROWS: &str = "VALUES ";

impl<'a> ManyRows<'a> {
    /// Splits the text at its rows. Returns nothing for a statement without rows.
    fn parse(sql: &'a str) -> Option<Self> {
        // By the brace, which is found faster than a word: every statement comes by here.
        let brace = sql.match_indices('{').map(|(at, _)| at).find(|at| sql[..*at].ends_with(ROWS))?;
        let (columns, after) = sql[brace + 1..].split_once('}')?;
        let before = &sql[..brace - ROWS.len()];
        let columns = columns.parse().ok()?;
        Some(Self { before, columns, is_list: columns == 1 && before.ends_with("IN ("), after })
    }
}

/// Splits `rows` into statements whose sizes are small or powers of two, so that few texts stay
/// prepared. Of a text without rows, the database reports a syntax error.
pub(super) fn in_chunks(
    sql: &'static str,
    rows: Vec<Vec<Bind>>,
    first: &[Bind],
    named: bool,
) -> Vec<(String, Vec<Bind>)> {
    let ManyRows { before, columns, is_list, after } =
        ManyRows::parse(sql).unwrap_or(ManyRows { before: sql, columns: 0, is_list: false, after: "" });
    let (values, opens, closes) = if is_list { ("", "", "") } else { (ROWS, "(", ")") };
    debug_assert!(rows.iter().all(|row| row.len() == columns), "rows of {columns} values: {sql}");
    let mut statements = Vec::new();
    // Named and unnamed parameters must not mix: sqlx would number the unnamed ones from 1 again.
    let named = named || !first.is_empty();
    let mut rows = rows.into_iter();
    while rows.len() > 0 {
        let left = rows.len();
        let size = if left <= EXACT_ROWS { left } else { MAX_ROWS.min(1 << left.ilog2()) };
        let mut binds = first.to_vec();
        let mut sql = String::with_capacity(before.len() + after.len() + size * 48);
        sql.push_str(before);
        sql.push_str(values);
        for (nth, row) in rows.by_ref().take(size).enumerate() {
            if nth > 0 {
                sql.push_str(", ");
            }
            sql.push_str(opens);
            for (column, bind) in row.into_iter().enumerate() {
                binds.push(bind);
                if column > 0 {
                    sql.push_str(", ");
                }
                if named {
                    sql.push('$');
                    sql.push_str(&binds.len().to_string());
                } else {
                    sql.push('?');
                }
            }
            sql.push_str(closes);
        }
        sql.push_str(after);
        statements.push((sql, binds));
    }
    statements
}

/// A statement with `rows` rows of sample values, where it has rows.
pub(super) fn sample(sql: &'static str, rows: usize) -> (String, Vec<Bind>) {
    let bind = Bind::from(1_i64);
    let numbers = sql.split('$').skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    let first = vec![bind.clone(); numbers.max().unwrap_or(0)];
    match ManyRows::parse(sql) {
        Some(ManyRows { columns, .. }) => in_chunks(sql, vec![vec![bind; columns]; rows], &first, true).remove(0),
        None => (sql.to_owned(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::binds;

    #[test]
    fn many_rows_share_statements_of_few_sizes() {
        let rows = (0..707_i64).map(|n| binds![n, "x"]).collect();
        let statements =
            in_chunks("INSERT INTO t (a, b) VALUES {2} ON CONFLICT DO NOTHING", rows, &[Bind::from(9_i64)], false);
        let sizes: Vec<usize> = statements.iter().map(|(_, binds)| (binds.len() - 1) / 2).collect();
        assert_eq!(sizes, [256, 256, 128, 64, 3]);
        let (sql, _) = &statements[4];
        assert_eq!(sql, "INSERT INTO t (a, b) VALUES ($2, $3), ($4, $5), ($6, $7) ON CONFLICT DO NOTHING");
        let (sql, _) = &in_chunks("INSERT INTO t (a, b) VALUES {2}", vec![binds![1_i64, "x"]], &[], false)[0];
        assert_eq!(sql, "INSERT INTO t (a, b) VALUES (?, ?)");
        let ids = || vec![binds!["x"], binds!["y"]];
        let (sql, _) = &in_chunks("SELECT a FROM t WHERE b = '{}' AND a IN (VALUES {1})", ids(), &[], false)[0];
        assert_eq!(sql, "SELECT a FROM t WHERE b = '{}' AND a IN (?, ?)");
        let (sql, _) = &in_chunks("SELECT a FROM (VALUES {1}) AS v", ids(), &[], false)[0];
        assert_eq!(sql, "SELECT a FROM (VALUES (?), (?)) AS v");
    }
}
