//! Backup while it runs, restore, and the doctor: with the real programs. A ledger that was restored is older than what its
//! agents have seen; they must obey it all the same.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::processes::{Agent, Manager, PATIENCE, alert, eventually, text};

fn riposte(arguments: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_riposte"));
    command.args(arguments);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn findings(data_dir: &Path) -> Vec<String> {
    let output = riposte(&["doctor", "--json"], &[("--data-dir", data_dir)]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    report["findings"].as_array().unwrap().iter().map(|finding| text(finding, "what").to_owned()).collect()
}

async fn acted_on(manager: &Manager, number: u64) {
    let api = manager.api();
    let (_, command) = api.answer_to(&alert(number, &format!("203.0.113.{number}"), "web-01")).await;
    api.command_is(text(&command, "id"), "succeeded").await;
}

#[tokio::test]
async fn a_backup_made_under_load_is_whole_and_its_agents_obey_the_restored_ledger() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let _agent = Agent::start(&manager, "web-01").await;
    acted_on(&manager, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let (backup, data_dir) = (folder.path().join("backup"), manager.data_dir());
    let load = async {
        for number in 1000..1400 {
            api.post("/v1/alerts", &alert(number, "198.51.100.7", "somebody-else")).await;
        }
    };
    let copy = tokio::task::spawn_blocking({
        let (backup, data_dir) = (backup.clone(), data_dir.clone());
        move || riposte(&["backup"], &[("--data-dir", &data_dir), ("--to", &backup)])
    });
    let ((), output) = tokio::join!(load, copy);
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // What comes after the backup is lost with the disk; the agent has seen it.
    for number in 2..8 {
        acted_on(&manager, number).await;
    }
    assert_eq!(findings(&data_dir), Vec::<String>::new());
    manager.kill9();
    std::fs::remove_dir_all(&data_dir).unwrap();
    let output = riposte(&["restore"], &[("--from", &backup), ("--data-dir", &data_dir)]);
    assert!(output.status.success(), "{}", said(&output));
    manager.start_again().await;
    let api = manager.api();
    api.audit_is_intact().await;
    assert_eq!(findings(&data_dir), Vec::<String>::new());
    eventually("the agent is seen to be ahead", PATIENCE, || async {
        let audit = api.get("/v1/audit?limit=100").await;
        audit["items"].as_array().unwrap().iter().any(|entry| entry["verb"] == "advanced").then_some(())
    })
    .await;
    acted_on(&manager, 9).await;
    // Again into the same place is refused, and so is a copy that was changed.
    let output = riposte(&["restore"], &[("--from", &backup), ("--data-dir", &data_dir)]);
    assert!(!output.status.success() && said(&output).contains("another manager is running"), "{}", said(&output));
    std::fs::write(backup.join("signing.key"), "x").unwrap();
    let output = riposte(&["restore"], &[("--from", &backup), ("--data-dir", &folder.path().join("new"))]);
    assert!(!output.status.success() && said(&output).contains("signing.key is not as it was"), "{}", said(&output));
}

#[tokio::test]
async fn the_doctor_names_what_contradicts_itself() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let _agent = Agent::start(&manager, "web-01").await;
    acted_on(&manager, 1).await;
    manager.kill9();
    let ledger = manager.data_dir().join("riposte.db");
    let damages = [
        ("UPDATE holds SET released_at = 1", "an active response holds nothing and has no wave to come"),
        ("UPDATE holds SET released_at = 1", "an effect is wanted in force and no response holds it"),
        ("UPDATE effects SET until = 1", "an effect does not end when its longest hold does"),
        ("UPDATE agents SET last_seq = 0", "a command has a number that its agent has not come to"),
        ("DELETE FROM results", "a command has ended by a result that is not there"),
        ("DELETE FROM alerts", "a live response refers to an alert that is gone"),
        ("UPDATE responses SET until = 1", "a response is active long after its end"),
        ("UPDATE audit SET detail = 'nothing happened' WHERE seq = 2", "the audit log was edited, or is not whole"),
        ("UPDATE agents SET incident = 'two hosts'", "two hosts speak with one agent's identity"),
    ];
    // What was committed last stands in the log beside the file until somebody moves it over.
    rusqlite::Connection::open(&ledger).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let whole = std::fs::read(&ledger).unwrap();
    for (sql, expected) in damages {
        let db = rusqlite::Connection::open(&ledger).unwrap();
        assert!(db.execute(sql, []).unwrap() > 0, "{sql} changes nothing");
        db.close().unwrap();
        let found = findings(&manager.data_dir());
        assert!(found.contains(&expected.to_owned()), "{sql}: {found:?}");
        for side in ["riposte.db-wal", "riposte.db-shm"] {
            let _ = std::fs::remove_file(manager.data_dir().join(side));
        }
        std::fs::write(&ledger, &whole).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_ledger_is_named_at_the_start_and_left_alone() {
    let mut manager = Manager::start().await;
    manager.kill9();
    let ledger = manager.data_dir().join("riposte.db");
    for side in ["riposte.db-wal", "riposte.db-shm"] {
        let _ = std::fs::remove_file(manager.data_dir().join(side));
    }
    let whole = std::fs::read(&ledger).unwrap();
    let mut headless = whole.clone();
    headless[..64].fill(0x5a);
    let mut holed = whole.clone();
    // A page in the middle: the header is right, and what it leads to is not.
    let middle = whole.len() / 2 / 4096 * 4096;
    holed[middle..middle + 4096].fill(0x5a);
    for damaged in [headless, holed] {
        std::fs::write(&ledger, &damaged).unwrap();
        let output = riposte(&["serve", "--listen", "127.0.0.1:0"], &[("--data-dir", &manager.data_dir())]);
        assert!(!output.status.success() && said(&output).contains("the ledger is damaged"), "{}", said(&output));
        assert!(std::fs::read(&ledger).unwrap() == damaged, "it was changed");
    }
}

#[tokio::test]
async fn who_is_asked_says_how_the_owners_of_deadlines_are_doing() {
    let manager = Manager::start().await;
    let api = manager.api();
    let ready = eventually("both stages have come", PATIENCE, || async {
        let ready = api.get("/readyz?verbose").await;
        (ready["stages"].as_object().unwrap().len() == 2).then_some(ready)
    })
    .await;
    assert_eq!((&ready["frozen"], &ready["stages"]["sweep"]["late_millis"]), (&json!(false), &json!(0)), "{ready}");
    assert!(ready["stages"]["undo"]["last_finished_at"].is_string());
    let plain = api.request(reqwest::Method::GET, "/readyz").send().await.unwrap().text().await.unwrap();
    assert_eq!(plain, "ok\n");
}
