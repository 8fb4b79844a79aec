//! Databases that a manager cannot use: at the start it says why in a sentence and exits with code 1, and
//! changes nothing; later it answers 503 until the database is well again. Real managers.

use std::path::Path;

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use crate::processes::{Manager, PATIENCE, copy_keys, ended, eventually, manager_program, signal, tied};
use crate::support::Database;

/// Starts a manager that must end by itself with exit code 1; returns the last line that it says.
fn refused(data_dir: &Path, url: &str) -> String {
    let output = tied(Path::new("timeout"))
        .arg("30")
        .arg(manager_program())
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir"])
        .arg(data_dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{url}: {said}");
    said.lines().last().unwrap_or_default().to_owned()
}

/// Runs statements as the superuser.
async fn run(url: &str, statements: &[String]) {
    let mut db = PgConnection::connect(url).await.unwrap();
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut db)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    db.close().await.unwrap();
}

fn texts(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|statement| (*statement).to_owned()).collect()
}

/// A stopped manager, for its data directory.
async fn stopped(flags: &[&str]) -> Manager {
    let mut manager = Manager::start_with(flags).await;
    signal(&manager.child, "TERM");
    assert!(ended(&mut manager.child, PATIENCE).await.unwrap().success(), "{}", manager.log());
    manager
}

/// Ledgers that another build, an upgrade or a restore has left: what is done to them, and what is said.
const SPOILT: [(&str, &str, &str); 5] = [
    (
        "newer",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, 'x', 1)",
        "a newer version of Riposte has written this ledger: it has schema 9999",
    ),
    (
        "halfway",
        "UPDATE _sqlx_migrations SET success = FALSE WHERE version = 26",
        "stopped in the middle of migration 26",
    ),
    (
        "other_build",
        "UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 3",
        "migration 3 of this ledger is not the one",
    ),
    ("incomplete", "DROP TABLE holds", "the ledger is incomplete: 6 columns are missing, such as holds.response_id"),
    (
        "other_program",
        "UPDATE _sqlx_migrations SET description = 'init' WHERE version = 1",
        "belongs to another program: it has the tables _sqlx_migrations, actions",
    ),
];

#[tokio::test]
async fn a_postgresql_that_cannot_be_used_is_refused_in_a_sentence() {
    let database = Database::postgresql().await;
    let url = database.url();
    let at = |name: &str| url.replacen("/postgres?", &format!("/{name}?"), 1);
    let manager = stopped(&["--database-url", &{
        run(&url, &texts(&["CREATE DATABASE good"])).await;
        at("good")
    }])
    .await;
    let dir = manager.data_dir();
    for (name, spoil, words) in SPOILT {
        run(&url, &[format!("CREATE DATABASE {name} TEMPLATE good")]).await;
        run(&at(name), &[spoil.replace("'x'", "'\\x00'")]).await;
        let said = refused(&dir, &at(name));
        assert!(said.contains(words), "{name}: {said}");
    }
    // A server that says so of itself: the functions of this schema come before PostgreSQL's own.
    let says = |name: &str, function: &str| {
        texts(&[
            "CREATE SCHEMA fake",
            &format!("CREATE FUNCTION fake.{function}"),
            &format!("ALTER DATABASE {name} SET search_path = fake, pg_catalog"),
        ])
    };
    let of_old = "current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT CASE $1 WHEN 'server_version_num' THEN '130022' ELSE 'UTF8' END $$";
    let cases: [(&str, &str, Vec<String>, &str); 7] = [
        (
            "foreign_one",
            "",
            texts(&["CREATE TABLE customers (id INT)"]),
            "another program: it has the tables customers. Create a database",
        ),
        (
            "read_only",
            "",
            texts(&["ALTER DATABASE read_only SET default_transaction_read_only = on"]),
            "default_transaction_read_only is on",
        ),
        ("old", "", says("old", of_old), "Riposte needs PostgreSQL 14 or newer, and this server is PostgreSQL"),
        (
            "standby",
            "",
            says("standby", "pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT TRUE'"),
            "is a standby, which cannot be written: use the address of the primary",
        ),
        ("latin", "ENCODING 'LATIN1' TEMPLATE template0", Vec::new(), "has the encoding LATIN1; Riposte needs UTF8"),
        ("rightless", "", texts(&["CREATE ROLE weak LOGIN PASSWORD 'right'"]), "the database's user lacks a right"),
        ("extended", "", texts(&["CREATE EXTENSION pg_trgm"]), ""),
    ];
    for (name, how, statements, words) in cases {
        run(&url, &[format!("CREATE DATABASE {name} {how}")]).await;
        run(&at(name), &statements).await;
        let fresh = TempDir::new().unwrap();
        if words.is_empty() {
            stopped(&["--database-url", &at(name)]).await;
            continue;
        }
        let user = if name == "rightless" { "weak" } else { "postgres" };
        let said = refused(fresh.path(), &at(name).replacen("postgres@", &format!("{user}@"), 1));
        assert!(said.contains(words), "{name}: {said}");
    }
    // Nothing was created in the database of another program.
    let mut db = PgConnection::connect(&at("foreign_one")).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(tables, 1);
    // Who may come in.
    let asks_weak = "COPY (VALUES ('local all weak scram-sha-256'), ('local all all trust'))";
    let mut db = PgConnection::connect(&url).await.unwrap();
    let hba: String = sqlx::query_scalar("SHOW hba_file").fetch_one(&mut db).await.unwrap();
    run(&url, &[format!("{asks_weak} TO '{hba}'"), "SELECT pg_reload_conf()".to_owned()]).await;
    let nowhere = TempDir::new().unwrap();
    for (url, words) in [
        (
            at("good").replacen("postgres@", "weak:wrong@", 1),
            "the database refuses this user or password (password authentication failed for user \"weak\")",
        ),
        (at("good").replacen("postgres@", "stranger@", 1), "the database refuses this user"),
        (at("missing"), "the database does not exist (database \"missing\" does not exist)"),
        (
            format!("postgres://postgres@localhost/x?host={}", nowhere.path().display()),
            "the database cannot be reached (",
        ),
        ("postgres://postgres@127.0.0.1:1/x".to_owned(), "the database cannot be reached (Connection refused"),
    ] {
        let said = refused(&dir, &url);
        assert!(said.starts_with("riposte: cannot open the database: ") && said.contains(words), "{said}");
        assert!(!said.contains("wrong"), "the password is shown: {said}");
    }
}

#[tokio::test]
async fn a_sqlite_file_that_cannot_be_used_is_refused_in_a_sentence() {
    let manager = stopped(&[]).await;
    let ledger = manager.data_dir().join("riposte.db");
    let work = TempDir::new().unwrap();
    for (name, spoil, words) in SPOILT {
        let file = work.path().join(name);
        std::fs::copy(&ledger, &file).unwrap();
        rusqlite::Connection::open(&file).unwrap().execute_batch(&spoil.replace("'x'", "x'00'")).unwrap();
        let said = refused(&manager.data_dir(), &format!("sqlite:{}", file.display()));
        assert!(said.contains(words), "{name}: {said}");
    }
    let file = work.path().join("foreign");
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE customers (id INT)").unwrap();
    let before = std::fs::read(&file).unwrap();
    let said = refused(&manager.data_dir(), &format!("sqlite:{}", file.display()));
    assert!(said.contains("another program: it has the tables customers"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before, "the file was changed");
    let said = refused(&manager.data_dir(), &format!("sqlite:{}", work.path().display()));
    assert!(said.contains("cannot open ") && said.contains("Is a directory"), "{said}");
    // On a file system that is read-only.
    let dir = work.path().join("data");
    copy_keys(&manager.data_dir(), &dir);
    let script = r#"mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec timeout 30 "$0" serve --listen 127.0.0.1:0 --data-dir "$2" --database-url "sqlite:$1/riposte.db""#;
    let output = tied(Path::new("unshare"))
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([manager_program(), manager.data_dir(), dir])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("Read-only file system"), "{said}");
}

/// After a failover the connections may still lead to a server that is read-only now.
#[tokio::test]
async fn promise_14_a_database_that_turns_read_only_is_a_503_and_the_manager_recovers() {
    let database = Database::postgresql().await;
    let url = database.url();
    let manager = Manager::start_with(&["--database-url", &url]).await;
    let api = manager.api();
    let write = async || {
        let key = json!({"name": "k", "role": "viewer"});
        let answer = api.request(Method::POST, "/v1/api-keys").json(&key).send().await.unwrap();
        (answer.status().as_u16(), answer.headers().get("retry-after").cloned(), answer.text().await.unwrap())
    };
    assert_eq!(write().await.0, 201);
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'riposte' AND pid <> pg_backend_pid()";
    run(&url, &texts(&["ALTER DATABASE postgres SET default_transaction_read_only = on", end_sessions])).await;
    eventually("changes are refused", PATIENCE, async || {
        let (status, retry_after, text) = write().await;
        assert!(status == 503 && retry_after.is_some(), "{status}: {text}");
        text.contains("the database is read-only").then_some(())
    })
    .await;
    eventually("it is not ready", PATIENCE, async || (manager.ask("/readyz").await.0.as_u16() == 503).then_some(()))
        .await;
    // Sessions that began meanwhile stay read-only for good.
    let write_again = "SET default_transaction_read_only = off";
    run(&url, &texts(&[write_again, "ALTER DATABASE postgres RESET default_transaction_read_only"])).await;
    eventually("changes are taken again", PATIENCE, async || (write().await.0 == 201).then_some(())).await;
    eventually("it is ready again", PATIENCE, async || (manager.ask("/readyz").await.0.as_u16() == 200).then_some(()))
        .await;
    api.audit_is_intact().await;
}
