//! The backup that a manager makes before it migrates the ledger of an earlier version, and the way back from it. Real
//! managers on ledgers that end at an earlier migration.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::json;
use sqlx::ConnectOptions as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use uuid::Uuid;

use crate::processes::{Agent, FakeAgent, Manager, PATIENCE, ended, manager_program, require, signal, tied};

/// The last migration of the version before.
const BEFORE: i64 = 24;

/// Makes the ledger of an earlier version in `data`, with a protected entry.
async fn earlier_ledger(data: &Path) {
    std::fs::create_dir_all(data).unwrap();
    let migrations = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).await.unwrap();
    let ledger = SqliteConnectOptions::new().filename(data.join("riposte.db")).create_if_missing(true);
    let mut ledger = ledger.connect().await.unwrap();
    migrations.run_to(BEFORE, &mut ledger).await.unwrap();
    protect(data, "192.0.2.0/24");
}

/// Writes a protected entry as another program would: past the manager.
fn protect(data: &Path, network: &str) {
    let ledger = rusqlite::Connection::open(data.join("riposte.db")).unwrap();
    let sql = "INSERT INTO protected_entries (id, kind, value, reason, policies, created_at, created_by)
        VALUES (?1, 'ip', ?2, 'why', '[]', 0, 'a test')";
    ledger.execute(sql, (Uuid::now_v7().to_string(), network)).unwrap();
}

/// The schema of a ledger, and its protected entries.
fn contents(data: &Path) -> (i64, Vec<String>) {
    let ledger = rusqlite::Connection::open(data.join("riposte.db")).unwrap();
    let schema = ledger.query_row("SELECT MAX(version) FROM _sqlx_migrations", [], |row| row.get(0)).unwrap();
    let mut protected = ledger.prepare("SELECT value FROM protected_entries ORDER BY value").unwrap();
    let protected = protected.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    (schema, protected)
}

fn backups(data: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(data.join("backups"));
    let mut found: Vec<_> = folder.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

async fn stop(manager: &mut Manager) {
    signal(&manager.child, "TERM");
    assert!(ended(&mut manager.child, PATIENCE).await.unwrap().success(), "{}", manager.log());
}

fn restore(from: &Path, data: &Path) -> String {
    let output = Command::new(manager_program())
        .args(["restore", "--from"])
        .arg(from)
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// Starts a manager that must end by itself with exit code 1; returns the last line that it says.
fn refused(wrapper: &[&str], data: &Path) -> String {
    let program = manager_program();
    let words: Vec<&str> = wrapper.iter().copied().chain([program.to_str().unwrap()]).collect();
    let output = tied(Path::new("timeout"))
        .arg("30")
        .args(words)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_upgrade_leaves_a_verified_backup_from_which_the_version_before_can_go_on() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    earlier_ledger(&data).await;
    let mut manager = Manager::start_on(directory, &[]).await;
    let entries = manager.api().get("/v1/protected").await;
    assert_eq!(entries["items"][0]["value"], "192.0.2.0/24", "{entries}");
    manager.api().post("/v1/protected", &json!({"kind": "ip", "value": "198.51.100.0/24", "reason": "later"})).await;
    // A start without an upgrade makes none.
    manager.start_again().await;
    stop(&mut manager).await;
    let [backup] = <[PathBuf; 1]>::try_from(backups(&data)).unwrap();
    assert!(backup.file_name().unwrap().to_str().unwrap().starts_with("before-0"), "{}", backup.display());
    // The keys stay where they are.
    let mut files: Vec<_> =
        std::fs::read_dir(&backup).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["backup.json", "riposte.db"]);
    let old = (BEFORE, vec!["192.0.2.0/24".to_owned()]);
    assert_eq!(contents(&backup), old);
    let (schema, protected) = contents(&data);
    assert!(schema > BEFORE && protected.len() == 2, "{schema}: {protected:?}");
    // Back to the version before, in place, as docs/upgrade.md says. The keys are there.
    let aside = data.join("newer");
    std::fs::create_dir(&aside).unwrap();
    for name in ["riposte.db", "riposte.db-wal", "riposte.db-shm"] {
        if data.join(name).exists() {
            std::fs::rename(data.join(name), aside.join(name)).unwrap();
        }
    }
    let said = restore(&backup, &data);
    assert!(!said.contains("Put copies of these in place"), "{said}");
    assert_eq!(contents(&data), old);
    // And forward again: another backup, because the ledger has changed since.
    protect(&data, "203.0.113.0/24");
    manager.start_again().await;
    stop(&mut manager).await;
    assert_eq!(backups(&data).len(), 2);
    let elsewhere = data.join("elsewhere");
    let said = restore(&backups(&data)[1], &elsewhere);
    assert!(said.contains("Put copies of these in place") && said.contains("signing.key"), "{said}");
    assert_eq!(contents(&elsewhere).1, ["192.0.2.0/24", "203.0.113.0/24"]);
}

#[tokio::test]
async fn an_upgrade_whose_backup_fails_changes_nothing_and_says_what_to_do() {
    require(&[("unshare", "util-linux"), ("mount", "mount")]);
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    earlier_ledger(&data).await;
    std::fs::create_dir(data.join("backups")).unwrap();
    // A disk that is too small for the copy.
    let mount = format!(r#"mount -t tmpfs -o size=64k,mode=700 none {}/backups && exec "$@""#, data.display());
    let said = refused(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &mount, "sh"], &data);
    for words in [
        format!("the ledger stays at schema {BEFORE}, because the backup before its upgrade to "),
        "make room in".to_owned(),
        "backup_before_upgrade = false".to_owned(),
        "disk is full".to_owned(),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
    assert_eq!(contents(&data), (BEFORE, vec!["192.0.2.0/24".to_owned()]));
    // No folder at all.
    std::fs::remove_dir(data.join("backups")).unwrap();
    std::fs::write(data.join("backups"), "a file").unwrap();
    let said = refused(&[], &data);
    assert!(said.contains(&format!("the ledger stays at schema {BEFORE}")), "{said}");
    // The operator's own decision.
    let mut manager = Manager::start_on(directory, &["--backup-before-upgrade", "false"]).await;
    assert!(manager.log().contains("without a backup"), "{}", manager.log());
    stop(&mut manager).await;
    assert!(contents(&data).0 > BEFORE);
}

#[tokio::test]
async fn the_newest_three_backups_are_kept_and_a_leftover_is_removed() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    earlier_ledger(&data).await;
    for name in [
        "before-0021-20260101T000000Z",
        "before-0022-20260201T000000Z",
        "before-0024-20260301T000000Z",
        "unfinished",
        "of-my-own",
    ] {
        std::fs::create_dir_all(data.join("backups").join(name)).unwrap();
    }
    let mut manager = Manager::start_on(directory, &[]).await;
    stop(&mut manager).await;
    let names: Vec<String> =
        backups(&data).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names[..2], ["before-0022-20260201T000000Z", "before-0024-20260301T000000Z"]);
    assert!(names[2].starts_with("before-00") && names[3..] == ["of-my-own"], "{names:?}");
}

#[tokio::test]
async fn the_agents_of_another_version_than_the_manager_are_listed() {
    let manager = Manager::start().await;
    let api = manager.api();
    // A real agent has this version, and an imitation version 0.
    let current = Agent::enroll(&api.base, &api.make_token().await, "web-01");
    let _outdated = FakeAgent::enroll(&manager, "web-02").await;
    let revoked = FakeAgent::enroll(&manager, "web-03").await;
    api.request(Method::DELETE, &format!("/v1/agents/{}", revoked.id))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let (worked, all) = manager.command(&["agent", "list"]);
    assert!(worked && all.contains(&current.name) && all.contains("web-02"), "{all}");
    let (worked, listed) = manager.command(&["agent", "list", "--outdated"]);
    assert!(worked && listed.contains("web-02"), "{listed}");
    assert!(!listed.contains("web-01") && !listed.contains("web-03"), "{listed}");
    let (worked, json) = manager.command(&["agent", "list", "--outdated", "--json"]);
    assert!(worked && json.lines().count() == 1 && json.contains(r#""version":"0""#), "{json}");
}
