//! SQL is in the store, and only there.

use crate::{code, sources};

/// Returns whether a line holds SQL: its keywords are in upper case.
fn is_sql(line: &str) -> bool {
    let has = |word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let open = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            open(line[..at].chars().next_back()) && open(line[at + word.len()..].chars().next())
        })
    };
    has("SELECT")
        || has("INSERT INTO")
        || has("DELETE FROM")
        || (has("UPDATE") && has("SET"))
        || has("CREATE TABLE")
        || has("ON CONFLICT")
}

#[test]
fn sql_is_in_the_store_and_only_there() {
    assert!(
        is_sql("const A: &str = \"SELECT 1\";")
            && is_sql("UPDATE t SET a = 1")
            && !is_sql("let SELECTED = 1; // UPDATE=1")
    );
    for folder in ["src", "protocol/src", "agent/src"] {
        for (path, text) in sources(folder) {
            if path.starts_with("src/store/") {
                continue;
            }
            for (number, line) in code(&text).lines().enumerate() {
                assert!(!is_sql(line), "{path}:{}: SQL outside src/store: {}", number + 1, line.trim());
                assert!(!line.contains("sqlx::query"), "{path}:{}: a query outside src/store", number + 1);
            }
        }
    }
    let statements = sources("src/store")
        .iter()
        .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| is_sql(line))
        .count();
    assert!(statements > 50, "only {statements} statements were found: this test no longer finds them");
}
