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

#[test]
fn transactions_are_opened_in_the_store_and_the_engine_only() {
    let opens = |line: &str| line.contains("LedgerTx::begin") || line.contains(".db.begin(");
    assert!(opens("let mut ledger = LedgerTx::begin(&engine.db).await?;"));
    for folder in ["src/api", "src/cli", "src/compat"] {
        for (path, text) in sources(folder) {
            let code = code(&text);
            // At the start, before there is an engine.
            let offline = path == "src/cli/signing.rs";
            let found = code.lines().position(|line| opens(line) && !offline);
            assert_eq!(found.map(|at| at + 1), None, "{path} opens a transaction: that is a use case of src/engine");
        }
    }
    let engine = sources("src/engine").into_iter().filter(|(_, text)| text.contains("LedgerTx::begin")).count();
    assert!(engine > 5, "only {engine} files of the engine open transactions: this test no longer finds them");
}

/// Statements of one database only, which cannot be prepared on the other.
const OF_ONE_DATABASE: &str = "src/store/database/";

#[test]
fn every_statement_is_registered_whole() {
    let registered = std::fs::read_to_string("src/store/mod.rs").unwrap();
    let mut modules = 0;
    for (path, text) in sources("src/store") {
        if path.ends_with("tests.rs") || path == "src/store/database/mod.rs" {
            continue;
        }
        let code = code(&text);
        if code.contains("statements! {") {
            let module = path.strip_prefix("src/store/").and_then(|path| path.strip_suffix(".rs")).unwrap();
            let listed = format!("        {}::STATEMENTS,", module.replace('/', "::"));
            assert!(registered.contains(&listed), "src/store/mod.rs does not list{listed}");
            modules += 1;
        }
        if path.starts_with(OF_ONE_DATABASE) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let is_call = line.contains("(\"") && !line.contains("concat!(");
            let is_elsewhere = is_sql(line) && (is_call || line.contains("const "));
            assert!(!is_elsewhere, "{path}:{}: a statement outside `statements!`", number + 1);
        }
    }
    assert!(modules > 25, "only {modules} modules with statements were found: this test no longer finds them");
}
