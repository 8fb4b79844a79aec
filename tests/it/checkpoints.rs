//! Checkpoints of the audit log: signed each minute, sent elsewhere, and compared with the log by
//! `riposte audit verify`, with a manager and without.

use std::path::{Path, PathBuf};

use riposte::domain::audit::{EntryRef, GENESIS, hash};
use riposte::domain::checkpoint::Checkpoint;
use riposte::store::database::Bind;
use riposte::views::audit::AuditRow;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};

use crate::processes::tied;
use crate::support::alert::drop_policy;
use crate::support::{Client, Database, TestApp, eventually};

/// What `riposte audit verify` prints, and whether it found nothing wrong.
async fn verify(arguments: &[&str]) -> (bool, String) {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    command.args(["audit", "verify"]).args(arguments);
    let output = tokio::process::Command::from(command).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The warnings of a manager, ready or not: its clock jumps.
async fn warnings(client: &Client) -> String {
    let ready: Value = serde_json::from_str(&client.get("/readyz?verbose").await.text).unwrap();
    ready["warnings"].to_string()
}

/// A manager with a file of checkpoints that covers its whole log.
struct Kept {
    app: TestApp,
    admin: Client,
    dir: tempfile::TempDir,
}

impl Kept {
    async fn start(database: Database) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("checkpoints");
        let (app, admin) =
            TestApp::start_with(database, |config| config.audit.audit_checkpoint_file.clone_from(&file)).await;
        let kept = Self { app, admin, dir };
        let before = kept.lines(1).await.len();
        kept.admin.policy(&drop_policy("first")).await;
        let before = kept.lines(before + 1).await.len();
        kept.admin.policy(&drop_policy("second")).await;
        kept.lines(before + 1).await;
        // What a test changes then is the only thing that differs.
        kept.settled().await;
        kept
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap_or_default()
    }

    /// The lines of the file, once there are `count`.
    async fn lines(&self, count: usize) -> Vec<String> {
        eventually("the checkpoint is in the file", || async {
            self.app.advance(60);
            let lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// What a check finds, and the number of lines of the file, once its last line covers the whole log.
    async fn settled(&self) -> (Value, usize) {
        eventually("the last checkpoint covers the log", || async {
            self.app.advance(60);
            let proof = self.admin.get("/v1/audit/verify").await.is(200);
            let text = self.text();
            let covered = text.lines().last().and_then(Checkpoint::peek)?.seq;
            (proof["entries"] == covered).then(|| (proof, text.lines().count()))
        })
        .await
    }

    /// Verifies against a file of these checkpoints: by the manager, and by the ledger itself. Both must
    /// find the same.
    async fn verify(&self, checkpoints: &str) -> (bool, String) {
        let file = self.dir.path().join("given");
        std::fs::write(&file, checkpoints).unwrap();
        let key = self.app.data_dir().join("admin.key");
        let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
        let online = verify(&["--manager", &self.app.base, "--key-file", key, "--checkpoint", file]).await;
        let (dir, url) = (self.app.data_dir(), self.app.config.server.database_url.clone());
        let mut arguments = vec!["--data-dir", dir.to_str().unwrap(), "--checkpoint", file];
        if !url.is_empty() {
            arguments.extend(["--database-url", &url]);
        }
        let offline = verify(&arguments).await;
        assert_eq!(online, offline);
        online
    }

    /// Moves the head of the chain to the last entry, as an intruder does who knows of it.
    async fn hide(&self) {
        let head = "UPDATE audit_head SET seq = (SELECT MAX(seq) FROM audit),
            hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)";
        assert_eq!(self.app.execute(head).await, 1);
        self.app.execute("DELETE FROM audit_checkpoints").await;
        let proof = self.admin.get("/v1/audit/verify").await.is(200);
        assert_eq!(proof["intact"], true, "the database alone does not show it: {proof}");
    }
}

/// Changes an entry and recomputes every hash after it.
async fn rewrite(app: &TestApp) {
    let db = app.db().await;
    let rows: Vec<AuditRow> = db
        .all("SELECT seq, at, actor, verb, noun, noun_id, detail, hash, commitments FROM audit ORDER BY seq", vec![])
        .await
        .unwrap();
    let (mut previous, mut tx) = (GENESIS, db.begin().await.unwrap());
    for row in rows {
        let detail = if row.seq == 2 { "nothing to see" } else { &row.detail };
        previous = hash(&previous, row.seq, &EntryRef { detail, ..row.entry() });
        let binds = vec![Bind::from(detail), Bind::from(previous.to_vec()), Bind::from(row.seq)];
        tx.execute("UPDATE audit SET detail = $1, hash = $2 WHERE seq = $3", binds).await.unwrap();
    }
    tx.commit().await.unwrap();
}

on_both_databases! {
    async fn a_checkpoint_is_signed_each_minute_in_which_the_log_grew(database: Database) {
        let kept = Kept::start(database).await;
        let (proof, lines) = kept.settled().await;
        assert_eq!(proof["checkpoints"], lines, "{proof}");
        assert_eq!(proof["keys"].as_array().unwrap().len(), 1);
        // Nothing happens, so there is nothing to sign.
        for _ in 0..3 {
            kept.app.advance(60);
            kept.admin.get("/livez").await;
        }
        assert_eq!(kept.text().lines().count(), lines);
        let (is_right, said) = kept.verify(&kept.text()).await;
        assert!(is_right && said.starts_with("intact: ") && said.contains(&format!("all {lines} checkpoints")), "{said}");
        // An earlier file is right too: the log has grown since.
        let first = kept.text().lines().next().unwrap().to_owned();
        assert!(kept.verify(&first).await.0);

        // The file continues after a restart, and without a repetition.
        let Kept { app, dir, .. } = kept;
        let (app, admin) = app.restart().await;
        let kept = Kept { app, admin, dir };
        kept.admin.policy(&drop_policy("third")).await;
        let all = kept.lines(lines + 1).await;
        let mut single = all.clone();
        single.dedup();
        assert_eq!(single, all);
        assert!(kept.verify(&kept.text()).await.0);
    }

    async fn a_tail_that_is_cut_off_is_found_by_a_checkpoint_kept_elsewhere(database: Database) {
        let kept = Kept::start(database).await;
        assert_eq!(kept.app.execute("DELETE FROM audit WHERE seq = (SELECT MAX(seq) FROM audit)").await, 1);
        kept.hide().await;
        let (is_right, said) = kept.verify(&kept.text()).await;
        assert!(!is_right && said.contains("the end of the audit log is missing"), "{said}");
        // The running manager notices it too, and goes on.
        eventually("the manager warns", || async {
            kept.app.advance(60);
            warnings(&kept.admin).await.contains("the audit log is not what it was").then_some(())
        })
        .await;
    }

    async fn a_chain_that_is_recomputed_without_the_key_is_found_by_a_checkpoint(database: Database) {
        let kept = Kept::start(database).await;
        rewrite(&kept.app).await;
        // The stored checkpoints alone show it, until the intruder deletes them.
        let proof = kept.admin.get("/v1/audit/verify").await.is(200);
        assert_eq!(proof["intact"], false);
        assert!(proof["why"].as_str().unwrap().contains("says something else than the log"), "{proof}");
        kept.hide().await;
        let (is_right, said) = kept.verify(&kept.text()).await;
        assert!(!is_right && said.contains("the audit log was rewritten: entry"), "{said}");
    }

    async fn a_changed_checkpoint_and_one_of_another_manager_are_refused(database: Database) {
        let kept = Kept::start(database).await;
        let lines: Vec<String> = kept.text().lines().map(str::to_owned).collect();
        let mut forged = lines[1].clone().into_bytes();
        let middle = forged.len() / 2;
        forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
        let changed = [lines[0].clone(), String::from_utf8(forged).unwrap(), lines[2].clone()].join("\n");
        let (is_right, said) = kept.verify(&changed).await;
        assert!(!is_right && said.contains("line 2 is forged or was changed"), "{said}");
        let cut = format!("{}\n{}", lines[0], &lines[1][..60]);
        let (is_right, said) = kept.verify(&cut).await;
        assert!(!is_right && said.contains("line 2 is not a checkpoint"), "{said}");
        let (is_right, said) = kept.verify("").await;
        assert!(!is_right && said.contains("there is no checkpoint"), "{said}");

        let other = Kept::start(Database::sqlite()).await;
        let (is_right, said) = kept.verify(&other.text()).await;
        assert!(!is_right && said.contains("which is not this manager's"), "{said}");
        // A token that the same key has signed for something else is no checkpoint.
        let order = lines[1].replacen(lines[1].split('.').next().unwrap(), "eyJhbGciOiJFZERTQSJ9", 1);
        assert!(!kept.verify(&order).await.0);
    }

    async fn checkpoints_of_before_a_rotation_count_because_the_later_ones_name_them(database: Database) {
        let kept = Kept::start(database).await;
        let old = kept.admin.get("/v1/audit/verify").await.is(200)["keys"][0]["kid"].clone();
        kept.admin.post("/v1/signing-key/rotation", &json!({})).await.is(201);
        eventually("the rotation ends, as no agent has to confirm it", || async {
            kept.app.advance(5);
            let view = kept.admin.get("/v1/signing-key").await.is(200);
            (view["kid"] != old && view["rotation"].is_null()).then_some(())
        })
        .await;
        // Before and after the next checkpoint, which the new key signs.
        assert_eq!(kept.admin.get("/v1/audit/verify").await.is(200)["intact"], true);
        let count = kept.text().lines().count();
        kept.admin.policy(&drop_policy("third")).await;
        kept.lines(count + 1).await;
        let proof = eventually("the new key has signed a checkpoint", || async {
            kept.app.advance(60);
            let proof = kept.admin.get("/v1/audit/verify").await.is(200);
            assert_eq!(proof["intact"], true, "{proof}");
            (proof["checkpoints"] == json!(kept.text().lines().count())).then_some(proof)
        })
        .await;
        assert_ne!(proof["keys"][0]["kid"], old);
        let (is_right, said) = kept.verify(&kept.text()).await;
        assert!(is_right, "{said}");
        // Without the one that names them, they are those of an unknown key.
        let early: Vec<String> = kept.text().lines().take(3).map(str::to_owned).collect();
        let (is_right, said) = kept.verify(&early.join("\n")).await;
        assert!(!is_right && said.contains("name the public key of that time with --public-key"), "{said}");
    }
}

#[tokio::test]
async fn a_receiver_gets_every_checkpoint_as_a_syslog_message() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("udp://{}", receiver.local_addr().unwrap());
    let (app, admin) =
        TestApp::start_with(Database::sqlite(), |config| config.audit.audit_checkpoint_syslog = address).await;
    let next = async || {
        eventually("a message arrives", || async {
            app.advance(60);
            let mut buffer = [0; 4096];
            let (size, _) = receiver.try_recv_from(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..size].to_vec()).unwrap())
        })
        .await
    };
    let first = next().await;
    admin.policy(&drop_policy("drop")).await;
    let log = format!("{first}\n{}\n", next().await);
    for message in log.lines() {
        assert!(message.starts_with("<109>1 2026-11-24T1") && message.contains(" riposte "), "{message}");
    }
    let file = app.data_dir().join("syslog");
    std::fs::write(&file, log).unwrap();
    let dir = app.data_dir();
    let (is_right, said) =
        verify(&["--data-dir", dir.to_str().unwrap(), "--checkpoint", file.to_str().unwrap(), "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(is_right, "{said}");
    assert_eq!((&said["intact"], &said["compared"]), (&json!(true), &json!(2)));
}

#[tokio::test]
async fn a_receiver_that_is_down_delays_nothing_and_gets_its_checkpoints_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = listener.local_addr().unwrap();
    drop(listener);
    let nowhere = tempfile::tempdir().unwrap();
    let file = nowhere.path().join("not-mounted").join("checkpoints");
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        config.audit.audit_checkpoint_syslog = format!("tcp://{receiver}");
        config.audit.audit_checkpoint_file.clone_from(&file);
    })
    .await;
    let said = eventually("both are reported", || async {
        app.advance(60);
        let said = warnings(&admin).await;
        (said.contains("the syslog receiver tcp://") && said.contains("the file ")).then_some(said)
    })
    .await;
    assert!(said.contains("does not take checkpoints of the audit log"), "{said}");
    admin.policy(&drop_policy("works")).await;

    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let listener = TcpListener::bind(receiver).await.unwrap();
    eventually("all checkpoints are in the file", || async {
        app.advance(60);
        let lines = std::fs::read_to_string(&file).unwrap_or_default().lines().count();
        let stored = admin.get("/v1/audit/verify").await.is(200)["checkpoints"].clone();
        (stored == json!(lines)).then_some(())
    })
    .await;
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    let (length, message) = text.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), message.len(), "{text}");
    assert!(message.starts_with("<109>1 "), "{message}");
    drop(connection);
    // It takes the others too: a message counts when its connection is closed after its end.
    #[expect(clippy::disallowed_methods, reason = "the receiver is no task of the program under test")]
    let taking = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.read_to_end(&mut Vec::new()).await.unwrap();
        }
    });
    eventually("no warning is left", || async {
        app.advance(60);
        (warnings(&admin).await == "[]").then_some(())
    })
    .await;
    taking.abort();
}
