//! `riposte export` and `riposte import`, with the real programs: a ledger moves from one database to the
//! other while its agents keep their journals, and an import that is killed, or given a bad file, leaves
//! nothing that a manager would start on.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;

use super::processes::{Agent, Api, Manager, PATIENCE, alert, ended, eventually, manager_program, signal, text, tied};
use crate::support::Database;

const PASSWORD: &str = "correct horse battery staple";

fn riposte(arguments: &[&str]) -> Output {
    tied(&manager_program()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command that must succeed; returns what it says.
fn done(arguments: &[&str]) -> String {
    let output = riposte(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// Runs a command that must fail with exit code 1; returns what it says.
fn fails(arguments: &[&str]) -> String {
    let output = riposte(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn sqlite(dir: &Path) -> String {
    format!("sqlite:{}", dir.join("riposte.db").display())
}

/// The lines of an export without its head and its end, sorted.
fn rows(file: &Path) -> Vec<String> {
    let text = zstd::stream::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    let mut lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
    let head: Value = serde_json::from_str(&lines.remove(0)).unwrap();
    let total: u64 = head["tables"].as_array().unwrap().iter().map(|table| table["rows"].as_u64().unwrap()).sum();
    lines.pop().unwrap();
    assert_eq!(lines.len() as u64, total, "{head}");
    lines.sort();
    lines
}

async fn stop(manager: &mut Manager) {
    signal(&manager.child, "TERM");
    assert!(ended(&mut manager.child, PATIENCE).await.unwrap().success(), "{}", manager.log());
}

async fn put(api: &Api, path: &str, body: &Value) {
    let answer = api.request(reqwest::Method::PUT, path).json(body).send().await.unwrap();
    assert!(answer.status().is_success(), "PUT {path}: {}", answer.text().await.unwrap());
}

async fn log_in(api: &Api) -> Value {
    api.post("/v1/auth/token", &json!({"username": "alice", "password": PASSWORD})).await
}

/// What people see of the ledger, without what changes by itself.
async fn seen(api: &Api) -> Vec<(&'static str, Vec<Value>)> {
    let lists = ["alerts", "policies", "responses", "protected", "users", "api-keys", "secrets", "holds"];
    let mut seen = Vec::new();
    for list in lists {
        let mut items = api.get(&format!("/v1/{list}?limit=100")).await["items"].as_array().unwrap().clone();
        for item in &mut items {
            let item = item.as_object_mut().unwrap();
            item.retain(|name, _| !name.starts_with("last_") && !name.contains("outcome"));
        }
        seen.push((list, items));
    }
    seen
}

#[tokio::test]
async fn a_manager_moves_to_postgresql_and_back_and_its_agents_notice_nothing() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let mut agent = Agent::start(&manager, "web-01").await;
    // In force, with a result; its end comes after the move.
    let (lasting, command) = api.answer_to(&alert(1, "203.0.113.1", "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
    let brief = json!({"action": "log-only", "agents": ["web-01"], "for": "25s", "reason": "seen", "target": {"kind": "ip", "value": "203.0.113.2"}});
    let brief = api.post("/v1/responses", &brief).await;
    api.command_is(text(&brief["commands"][0], "id"), "succeeded").await;
    let key = text(&api.post("/v1/api-keys", &json!({"name": "pipe", "role": "ingest"})).await, "key").to_owned();
    let made = api.post("/v1/users", &json!({"name": "alice", "role": "analyst"})).await;
    let change = json!({"username": "alice", "password": made["temporary_password"], "new_password": PASSWORD});
    let changed = api.request(reqwest::Method::POST, "/v1/auth/password").json(&change).send().await.unwrap();
    assert_eq!(changed.status(), 204);
    let session = log_in(&api).await;
    put(&api, "/v1/secrets/chat", &json!({"value": "hidden", "actions": ["log-only"]})).await;
    api.post("/v1/holds", &json!({"name": "case", "reason": "court", "kind": "response", "value": lasting})).await;
    api.post("/v1/protected", &json!({"kind": "ip", "value": "192.0.2.0/24", "reason": "ours \u{1f512} é"})).await;
    // The agent is away, and then everything is frozen: a command waits for both.
    agent.kill9();
    let (_, waiting) = api.answer_to(&alert(2, "203.0.113.3", "web-01")).await;
    put(&api, "/v1/freeze", &json!({"frozen": true, "reason": "move"})).await;
    let before = seen(&api).await;
    let journal = agent.identity();

    let work = TempDir::new().unwrap();
    let (first, second, third) = (work.path().join("a"), work.path().join("b"), work.path().join("c"));
    let [a, b, c] = [&first, &second, &third].map(|path| path.to_str().unwrap());
    let data_dir = manager.data_dir();
    let dir = data_dir.to_str().unwrap();
    let refused = fails(&["export", "--data-dir", dir, a]);
    assert!(refused.contains("stop the manager first") && refused.contains("another manager is running"), "{refused}");
    done(&["export", "--while-running", "--data-dir", dir, c]);
    stop(&mut manager).await;
    done(&["export", "--data-dir", dir, a]);
    let database = Database::postgresql().await;
    let url = database.url();
    let moved = done(&["import", "--data-dir", dir, "--database-url", &url, a]);
    assert!(
        moved.contains("every one is as it was") && moved.contains("the seals of rows that grant power fit"),
        "{moved}"
    );
    done(&["export", "--data-dir", dir, "--database-url", &url, b]);
    assert_eq!(rows(&first), rows(&second), "the databases differ");

    manager.add_flag("--database-url");
    manager.add_flag(&url);
    manager.start_again().await;
    let api = manager.api();
    assert_eq!(seen(&api).await, before);
    assert_eq!(api.get("/v1/freeze").await["frozen"], true);
    assert_eq!(
        Api { key, ..api.clone() }.post("/v1/alerts", &alert(1, "203.0.113.1", "web-01")).await["duplicates"],
        1
    );
    log_in(&api).await;
    api.post("/v1/auth/token", &json!({"refresh_token": session["refresh_token"]})).await;
    agent.run_again();
    api.agent_streams(&agent.id).await;
    // Reverts go out during a freeze; new blocks do not.
    eventually("the short response is undone on time", PATIENCE, || async {
        let response = api.response(text(&brief, "id")).await;
        let commands = response["commands"].as_array().unwrap();
        let undone = commands.iter().any(|command| command["op"] == "revert" && command["state"] == "succeeded");
        (response["state"] == "ended" && undone).then_some(())
    })
    .await;
    assert_eq!(api.command(text(&waiting, "id")).await["state"], "queued");
    put(&api, "/v1/freeze", &json!({"frozen": false, "reason": "moved"})).await;
    api.command_is(text(&waiting, "id"), "succeeded").await;
    assert_eq!(agent.identity(), journal, "the agent enrolled again");
    let refused = fails(&["import", "--database-url", &url, a]);
    assert!(refused.contains("the database is not empty") || refused.contains("another manager"), "{refused}");
    let refused =
        fails(&["export", "--data-dir", work.path().to_str().unwrap(), "--database-url", &url, "/dev/null/x"]);
    assert!(refused.contains("a manager runs on this ledger: host "), "{refused}");
    api.audit_is_intact().await;
    stop(&mut manager).await;
    let healthy = done(&["doctor", "--data-dir", dir, "--database-url", &url]);
    assert!(healthy.contains("healthy"), "{healthy}");

    // And back, into a file of another name.
    std::fs::remove_file(&second).unwrap();
    done(&["export", "--data-dir", dir, "--database-url", &url, b]);
    let back = format!("sqlite:{}", data_dir.join("back.db").display());
    done(&["import", "--data-dir", dir, "--database-url", &back, b]);
    std::fs::remove_file(&third).unwrap();
    done(&["export", "--data-dir", dir, "--database-url", &back, c]);
    assert_eq!(rows(&second), rows(&third));
    manager.add_flag("--database-url");
    manager.add_flag(&back);
}

/// Makes a ledger with many alerts, of a manager that has stopped. Returns its directory.
async fn many_alerts(count: u32) -> (Manager, String) {
    let mut manager = Manager::start().await;
    manager.api().make_policy("log-only", "1h").await;
    stop(&mut manager).await;
    let mut db = rusqlite::Connection::open(manager.data_dir().join("riposte.db")).unwrap();
    let tx = db.transaction().unwrap();
    {
        let insert = "INSERT INTO alerts (id, dedupe, pipeline, time, rule_id, rule_level, raw)
            VALUES (?1, ?2, 'p', 0, '1', 3, ?3)";
        let mut insert = tx.prepare(insert).unwrap();
        for nth in 0..count {
            let raw = [nth.to_be_bytes().as_slice(), &[0, 1, 2, 255]].concat().repeat(20);
            insert.execute((format!("{nth:032}"), nth.to_be_bytes(), raw)).unwrap();
        }
    }
    tx.commit().unwrap();
    let dir = manager.data_dir().to_str().unwrap().to_owned();
    (manager, dir)
}

/// How many rows an import has written, or none if it has not begun.
async fn rows_done(url: &str) -> Option<i64> {
    const DONE: &str = "SELECT rows_done FROM riposte_import";
    if let Some(path) = url.strip_prefix("sqlite:") {
        let db = rusqlite::Connection::open(path).ok()?;
        return db.query_row(DONE, [], |row| row.get(0)).ok();
    }
    let mut db = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(DONE).fetch_one(&mut db).await.ok()
}

/// Kills an import while it writes.
async fn kill_import(dir: &str, url: &str, file: &str) {
    let mut child = tied(&manager_program())
        .args(["import", "--data-dir", dir, "--database-url", url, file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the import writes", PATIENCE, async || rows_done(url).await.filter(|done| *done > 2000)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let done = rows_done(url).await;
    assert!(done.is_some_and(|done| done < 20_000), "it was faster than the test: {done:?}");
}

#[tokio::test]
async fn a_killed_import_goes_on_and_no_manager_starts_before_its_end() {
    let (manager, dir) = many_alerts(20_000).await;
    let work = TempDir::new().unwrap();
    let (file, again) = (work.path().join("file"), work.path().join("again"));
    let [path, other] = [&file, &again].map(|path| path.to_str().unwrap());
    done(&["export", "--data-dir", &dir, path]);
    let database = Database::postgresql().await;
    for url in [sqlite(work.path()), database.url()] {
        kill_import(&dir, &url, path).await;
        for command in [
            &["serve", "--listen", "127.0.0.1:0", "--data-dir", &dir, "--database-url", &url][..],
            &["doctor", "--data-dir", &dir, "--database-url", &url],
            &["export", "--data-dir", &dir, "--database-url", &url, other],
        ] {
            let refused = fails(command);
            let words = [
                "an import into this database has not ended",
                " rows are there, the last in alerts",
                "run `riposte import`",
            ];
            assert!(words.iter().all(|words| refused.contains(words)), "{refused}");
        }
        let other_file = done(&["export", "--data-dir", &dir, other]);
        assert!(other_file.contains(" rows in "), "{other_file}");
        let refused = fails(&["import", "--data-dir", &dir, "--database-url", &url, other]);
        assert!(refused.contains("an import of another file"), "{refused}");
        let resumed = done(&["import", "--data-dir", &dir, "--database-url", &url, path]);
        assert!(
            resumed.contains("rows are there already; going on") && resumed.contains("every one is as it was"),
            "{resumed}"
        );
        std::fs::remove_file(&again).unwrap();
        done(&["export", "--data-dir", &dir, "--database-url", &url, other]);
        assert_eq!(rows(&file), rows(&again));
        std::fs::remove_file(&again).unwrap();
    }
    // A row that is lost in between is missed at the end.
    let spoilt = TempDir::new().unwrap();
    kill_import(&dir, &sqlite(spoilt.path()), path).await;
    let db = rusqlite::Connection::open(spoilt.path().join("riposte.db")).unwrap();
    db.execute("DELETE FROM alerts WHERE id = (SELECT MIN(id) FROM alerts)", []).unwrap();
    drop(db);
    let refused = fails(&["import", "--data-dir", &dir, "--database-url", &sqlite(spoilt.path()), path]);
    assert!(refused.contains("alerts has 19999 rows instead of 20000"), "{refused}");
    let refused = fails(&["doctor", "--data-dir", &dir, "--database-url", &sqlite(spoilt.path())]);
    assert!(refused.contains("an import into this database has not ended"), "{refused}");
    drop(manager);
}

#[tokio::test]
async fn a_bad_file_is_refused_before_anything_is_done() {
    let (_manager, dir) = many_alerts(500).await;
    let work = TempDir::new().unwrap();
    let file = work.path().join("file");
    done(&["export", "--data-dir", &dir, file.to_str().unwrap()]);
    let whole = std::fs::read(&file).unwrap();
    let text = String::from_utf8(zstd::stream::decode_all(whole.as_slice()).unwrap()).unwrap();
    let packed = |text: &str| zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let schema = riposte::store::Db::known_schema();
    let with_schema =
        |other: i64| packed(&text.replacen(&format!("\"schema\":{schema}"), &format!("\"schema\":{other}"), 1));
    let last = text.trim_end().rfind('\n').unwrap();
    let damaged = "is damaged or was cut off";
    let mut cases = vec![
        ("empty", Vec::new(), "is no export of Riposte"),
        ("no export", b"{}".to_vec(), "is no export of Riposte"),
        ("newer", with_schema(schema + 1), "was written by a newer version"),
        ("older", with_schema(schema - 1), "was written by an older version"),
        (
            "newer format",
            packed(&text.replacen("\"riposte_export\":1", "\"riposte_export\":2", 1)),
            "by a newer version",
        ),
        ("a row changed", packed(&text.replacen("log-only", "log-onlY", 1)), damaged),
        ("cut at a line", packed(&text[..=last]), "its end is missing"),
        ("cut among the rows", packed(&text[..=text[..last].rfind('\n').unwrap()]), damaged),
        ("followed by another", [whole.clone(), whole.clone()].concat(), "more follows after its end"),
        ("followed by rubbish", [whole.as_slice(), b"rubbish"].concat(), damaged),
    ];
    for part in 1..8 {
        let at = whole.len() * part / 8;
        cases.push(("cut", whole[..at].to_vec(), damaged));
        cases.push(("flipped", flipped(at), damaged));
    }
    cases.push(("cut by one byte", whole[..whole.len() - 1].to_vec(), damaged));
    let (bad, target) = (work.path().join("bad"), work.path().join("riposte.db"));
    for (what, bytes, words) in cases {
        std::fs::write(&bad, bytes).unwrap();
        let refused =
            fails(&["import", "--data-dir", &dir, "--database-url", &sqlite(work.path()), bad.to_str().unwrap()]);
        // A bit in the head can also make it one of another version.
        let is_other = what == "flipped" && refused.contains("cannot be imported: its tables are not those");
        assert!(refused.contains(words) || refused.contains("or is damaged") || is_other, "{what}: {refused}");
        assert!(!target.exists(), "{what}: something was written");
    }
}

#[tokio::test]
async fn an_import_needs_an_empty_database_and_an_export_a_whole_ledger() {
    let (mut manager, dir) = many_alerts(10).await;
    let work = TempDir::new().unwrap();
    let file = work.path().join("file");
    let path = file.to_str().unwrap();
    let ledger = manager.data_dir().join("riposte.db");
    // No manager writes this; another program can.
    let db = rusqlite::Connection::open(&ledger).unwrap();
    db.execute("UPDATE alerts SET pipeline = 'a' || char(0) || 'b' WHERE rule_level = 3", []).unwrap();
    drop(db);
    let warned = done(&["export", "--data-dir", &dir, path]);
    assert!(warned.contains("U+0000 was replaced by U+FFFD in 10 rows of alerts, such as in pipeline"), "{warned}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let refused = fails(&["export", "--data-dir", &dir, path]);
    assert!(refused.contains("exists already"), "{refused}");
    let refused = fails(&["import", "--data-dir", &dir, path]);
    assert!(refused.contains("the database is not empty") && refused.contains("nothing was changed"), "{refused}");
    // The manager still starts on it.
    manager.start_again().await;
    let other = TempDir::new().unwrap();
    let dir_of_other = other.path().join("data");
    let refused = fails(&[
        "import",
        "--data-dir",
        dir_of_other.to_str().unwrap(),
        "--database-url",
        &sqlite(&manager.data_dir()),
        path,
    ]);
    assert!(refused.contains("stop the manager first"), "{refused}");
    stop(&mut manager).await;
    // Without the keys the rows come, and the command says what was not checked.
    let database = Database::postgresql().await;
    let said = done(&["import", "--data-dir", dir_of_other.to_str().unwrap(), "--database-url", &database.url(), path]);
    assert!(said.contains("seals were not checked") && said.contains("has no signing.key"), "{said}");
    // A ledger that another program has changed is not taken over unseen.
    std::fs::remove_file(&file).unwrap();
    let db = rusqlite::Connection::open(&ledger).unwrap();
    db.execute("UPDATE api_keys SET role = 'viewer'", []).unwrap();
    drop(db);
    let warned = done(&["export", "--data-dir", &dir, path]);
    assert!(warned.contains("`riposte import` will refuse this ledger: another program has changed rows"), "{warned}");
    let target = sqlite(work.path());
    let refused = fails(&["import", "--data-dir", &dir, "--database-url", &target, path]);
    assert!(refused.contains("no manager starts on it") && refused.contains("mend it there"), "{refused}");
    let refused = fails(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &dir, "--database-url", &target]);
    assert!(refused.contains("an import into this database has not ended"), "{refused}");
}
