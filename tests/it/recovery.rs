//! Online backup, restore, and the doctor, with the real programs. A restored ledger is older than
//! the agents' journals; the agents must obey it all the same.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::alert::{brute_force, drop_policy};

use super::processes::{Agent, FakeAgent, Manager, PATIENCE, alert, eventually, text};

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
    let data_dir = manager.data_dir();
    // Eight pipelines, a real agent that executes and answers, and meanwhile three backups in turn.
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let pipelines = (0..8_u64).map(|pipeline| {
        let (api, answered, is_over) = (&api, &answered, &is_over);
        async move {
            for number in (1000 + pipeline * 1000).. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let source = format!("198.51.{}.{}", 10 + pipeline, number % 200);
                api.post("/v1/alerts", &alert(number, &source, "web-01")).await;
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let copies = async {
        let mut copies = Vec::new();
        for nth in 0..3 {
            let (backup, from) = (folder.path().join(format!("backup-{nth}")), data_dir.clone());
            let before = answered.load(Ordering::SeqCst);
            let to = backup.clone();
            let copy = move || riposte(&["backup"], &[("--data-dir", &from), ("--to", &to)]);
            let output = tokio::task::spawn_blocking(copy).await.unwrap();
            assert!(output.status.success(), "{}", said(&output));
            copies.push((backup, before));
        }
        is_over.store(true, Ordering::SeqCst);
        copies
    };
    let (_, copies) = tokio::join!(futures_util::future::join_all(pipelines), copies);
    assert!(answered.load(Ordering::SeqCst) > copies.last().unwrap().1, "nothing came while it was copied");
    for (nth, (backup, before)) in copies.iter().enumerate() {
        let restored = folder.path().join(format!("restored-{nth}"));
        let output = riposte(&["restore"], &[("--from", backup), ("--data-dir", &restored)]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(findings(&restored), Vec::<String>::new());
        let db = rusqlite::Connection::open(restored.join("riposte.db")).unwrap();
        let alerts: i64 = db.query_row("SELECT COUNT(*) FROM alerts", [], |row| row.get(0)).unwrap();
        assert!(alerts >= i64::try_from(*before).unwrap(), "{alerts} alerts, {before} had been answered before");
    }
    let backup = copies.into_iter().last().unwrap().0;
    // Alerts after the backup are lost with the disk; the agent has seen their commands.
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
    // A second restore into the same place is refused, and so is a changed copy.
    let output = riposte(&["restore"], &[("--from", &backup), ("--data-dir", &data_dir)]);
    assert!(!output.status.success() && said(&output).contains("another manager is running"), "{}", said(&output));
    std::fs::write(backup.join("signing.key"), "x").unwrap();
    let output = riposte(&["restore"], &[("--from", &backup), ("--data-dir", &folder.path().join("new"))]);
    assert!(!output.status.success() && said(&output).contains("signing.key has changed"), "{}", said(&output));
}

#[tokio::test]
async fn the_doctor_names_contradictions_in_the_ledger() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let _agent = Agent::start(&manager, "web-01").await;
    acted_on(&manager, 1).await;
    // And one command that no agent has fetched.
    let _away = FakeAgent::enroll(&manager, "web-02").await;
    api.answer_to(&alert(2, "203.0.113.2", "web-02")).await;
    manager.kill9();
    let ledger = manager.data_dir().join("riposte.db");
    let damages = [
        ("UPDATE holds SET released_at = 1", "an active response holds no effect and has no pending wave"),
        ("UPDATE holds SET released_at = 1", "an effect is wanted, and no response holds it"),
        ("UPDATE effects SET until = 1", "an effect does not end when its longest hold does"),
        ("UPDATE agents SET last_seq = 0", "a command's number exceeds its agent's sequence"),
        ("DELETE FROM results", "a command has ended by a result that is missing"),
        ("DELETE FROM alerts", "an open response refers to a deleted alert"),
        ("UPDATE responses SET until = 1", "a response is active long after its end"),
        ("UPDATE audit SET detail = 'nothing happened' WHERE seq = 2", "the audit log was edited, or is incomplete"),
        (
            "UPDATE effects SET desired = 'absent'",
            "an unwanted effect is in force and no command is on its way to lift it",
        ),
        ("UPDATE responses SET one_shot = TRUE", "an active one-shot response has no pending command"),
        (
            "UPDATE agents SET revoked_at = (SELECT 1 FROM commands WHERE state = 'queued')",
            "a command is pending for a revoked agent",
        ),
        ("INSERT INTO waves SELECT id, 2, agents, 1 FROM responses", "a wave of a response is long overdue"),
        ("UPDATE effects SET desired = 'absent', next_revert_at = 1", "the retry of a failed revert is long overdue"),
        (
            "UPDATE commands SET op = 'revert', created_at = 1 WHERE state = 'queued'",
            "a block outlasts its end: its agent has not fetched the revert for an hour",
        ),
        ("UPDATE agents SET incident = 'two hosts'", "two hosts use one agent's identity"),
        (
            "UPDATE effects SET desired = 'absent', failed_reverts = 3",
            "an effect cannot be lifted; the agent keeps trying",
        ),
    ];
    // The last commits stand in the WAL file beside the ledger until a checkpoint moves them over.
    rusqlite::Connection::open(&ledger).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let whole = std::fs::read(&ledger).unwrap();
    for (sql, expected) in damages {
        let db = rusqlite::Connection::open(&ledger).unwrap();
        assert!(db.execute(sql, []).unwrap() > 0, "{sql} changes nothing");
        db.close().unwrap();
        let found = findings(&manager.data_dir());
        assert!(found.contains(&expected.to_owned()), "{sql}: {found:?}");
        // What a finding is about is named, not only numbered, and so is what mends it.
        let told = said(&riposte(&["doctor"], &[("--data-dir", &manager.data_dir())]));
        if sql.contains("failed_reverts") {
            assert!(told.contains("  web-01: log-only ip 203.0.113.1 (effect 0"), "{told}");
            assert!(told.contains("; on web-01: `riposte-agent status`"), "{told}");
        }
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
    // A page in the middle: the header is intact, and the page that it leads to is not.
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
async fn promise_11_a_row_that_cannot_be_read_holds_up_nothing_else() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let mut waits = drop_policy("waits");
    waits["mode"] = json!("approve");
    waits["approval"] = json!({"on_silence": "enforce"});
    admin.policy(&waits).await;
    let mut acts = drop_policy("acts");
    acts["respond"]["for"] = json!("1h");
    acts["approval"] = json!({"undo_unless_confirmed": "5m"});
    admin.policy(&acts).await;
    for n in 1..=2 {
        admin.post("/v1/alerts", &brute_force(&n.to_string(), &format!("203.0.113.{n}"))).await.is(202);
    }
    assert_eq!(agent.owed().await.len(), 2);
    app.spoil("UPDATE commands SET target_kind = 'nonsense' WHERE seq = 1").await;
    let left: Vec<String> = agent.owed().await.iter().map(|command| command.target.value().to_owned()).collect();
    assert_eq!(left, ["203.0.113.2"]);
    app.spoil("UPDATE responses SET on_silence = 'nonsense' WHERE state = 'awaiting_approval'").await;
    app.advance(15 * 60 + 1);
    app.in_time("the others are undone", || async {
        let ended = admin.list("/v1/responses?state=ended").await;
        (ended.len() == 2 && ended.iter().all(|response| response["reason"] == "unconfirmed")).then_some(())
    })
    .await;
    // Whether it counts as ready depends on how late the stage is by now.
    let ready = admin.get("/readyz?verbose=true").await;
    let stages = serde_json::from_str::<Value>(&ready.text).unwrap()["stages"].clone();
    assert!(stages["silence"]["fault"].as_str().unwrap().contains("nonsense"), "{stages}");
    assert!(stages["silence"]["late_millis"].as_u64().unwrap() > 0, "{stages}");
    assert_eq!((&stages["unconfirmed"]["fault"], &stages["waves"]["fault"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn readyz_shows_the_last_round_of_every_stage_of_the_sweep() {
    let manager = Manager::start().await;
    let api = manager.api();
    // Caches are reloaded once a minute.
    let others = |stages: &serde_json::Map<String, Value>| {
        stages.iter().filter(|(name, _)| *name != "reload").all(|(_, round)| round["last_finished_at"].is_string())
    };
    let ready = eventually("every stage has run", PATIENCE, || async {
        let ready = api.get("/readyz?verbose").await;
        others(ready["stages"].as_object().unwrap()).then_some(ready)
    })
    .await;
    let stages = ready["stages"].as_object().unwrap();
    let names: Vec<&str> = stages.keys().map(String::as_str).collect();
    let all = [
        "breakers",
        "checkpoint",
        "clear",
        "denials",
        "expire",
        "feeds",
        "fetches",
        "forwarders",
        "keys",
        "late_alerts",
        "logins",
        "presence",
        "reload",
        "retention",
        "retry_reverts",
        "rotation",
        "seals",
        "silence",
        "time_out",
        "unconfirmed",
        "undo",
        "waves",
        "webhooks",
    ];
    assert_eq!(names, all);
    assert!(ready["frozen"] == false && stages.values().all(|round| round["late_millis"] == 0), "{ready}");
    let plain = api.request(reqwest::Method::GET, "/readyz").send().await.unwrap().text().await.unwrap();
    assert_eq!(plain, "ok\n");
}
