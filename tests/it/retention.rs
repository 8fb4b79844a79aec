//! Retention by age: what is over goes, what is needed or under a legal hold stays, and the audit log can
//! be verified from where it begins.

use std::path::{Path, PathBuf};

use riposte::domain::checkpoint::{Checkpoint, LogBeginning};
use riposte::store::database::Bind;
use riposte_protocol::key::SigningKey;
use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use super::responses::drop_by_hand;
use crate::processes::tied;
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, FakeAgent, TestApp, eventually};

pub(super) const DAY: u64 = 86_400;
const HOUR: u64 = 3600;

/// What `riposte` prints, and whether it succeeded.
pub(super) async fn riposte(arguments: &[&str]) -> (bool, String) {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    command.args(arguments);
    let output = tokio::process::Command::from(command).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// A manager that keeps alerts, responses and the audit log for 30 days.
pub(super) struct Kept {
    pub(super) app: TestApp,
    pub(super) admin: Client,
    pub(super) agent: FakeAgent,
    pub(super) dir: tempfile::TempDir,
}

impl Kept {
    pub(super) async fn start(database: Database) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (app, admin) = TestApp::start_with(database, |config| {
            config.alerts.alert_retention_days = 30;
            config.retention.response_retention_days = 30;
            config.retention.audit_retention_days = 30;
            config.audit.audit_checkpoint_file = dir.path().join("checkpoints");
        })
        .await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        Self { app, admin, agent, dir }
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    /// A response to an alert of a policy with this name that is over: in force, and lifted again.
    pub(super) async fn over(&self, policy: &str, target: &str) -> String {
        let mut document = drop_policy(policy);
        document["match"] = json!([{"rule_ids": [policy]}]);
        self.admin.post("/v1/policies", &document).await;
        let mut alert = brute_force(target, target);
        alert["rule"]["id"] = json!(policy);
        let answer = self.admin.post("/v1/alerts", &alert).await.is(202);
        let id = answer["responses"][0].as_str().unwrap().to_owned();
        self.answer(target, Outcome::Succeeded).await;
        self.admin.post(&format!("/v1/responses/{id}/lift"), &json!({"reason": "over"})).await.is(200);
        self.answer(target, Outcome::Succeeded).await;
        id
    }

    /// Answers the command about a target.
    async fn answer(&self, target: &str, outcome: Outcome) {
        let command = eventually("the command is owed", || async {
            self.app.advance(1);
            self.agent.owed().await.into_iter().find(|command| command.target.value() == target)
        })
        .await;
        self.agent.acknowledge(&[&command]).await;
        let verified = (outcome == Outcome::Succeeded).then_some(true);
        self.agent.report(vec![self.agent.result(command.jti, outcome, verified)]).await;
    }

    /// Signs a checkpoint of all that there is.
    pub(super) async fn sign(&self) -> i64 {
        eventually("the last checkpoint covers the log", || async {
            self.app.advance(60);
            let head = self.head().await;
            let covered = std::fs::read_to_string(self.checkpoints()).ok()?;
            (Checkpoint::peek(covered.lines().last()?)?.seq == head).then_some(head)
        })
        .await
    }

    async fn head(&self) -> i64 {
        self.admin.get("/v1/audit?limit=1").await.is(200)["items"][0]["seq"].as_i64().unwrap()
    }

    /// Lets 40 days pass, and two checkpoints after them: the first one moves the beginning, to the last
    /// one but one.
    pub(super) async fn age(&self) {
        self.sign().await;
        self.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
        self.sign().await;
        self.app.advance(40 * DAY);
        self.settled().await;
        self.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
        self.sign().await;
        self.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
        self.sign().await;
    }

    /// Waits until the sweep has removed what it can.
    pub(super) async fn removed<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        eventually(what, || async {
            self.app.advance(HOUR / 4);
            look().await
        })
        .await
    }

    /// Waits until the sweep has run since the clock was moved.
    pub(super) async fn settled(&self) {
        let now = self.app.clock.now();
        eventually("the sweep runs", || async {
            let ready: Value = serde_json::from_str(&self.admin.get("/readyz?verbose").await.text).unwrap();
            let last = ready["stages"]["retention"]["last_finished_at"].as_str()?;
            (last.parse::<riposte_protocol::time::Timestamp>().ok()? >= now).then_some(())
        })
        .await;
    }

    pub(super) async fn first(&self) -> i64 {
        let entries = self.admin.list("/v1/audit").await;
        entries.last().unwrap()["seq"].as_i64().unwrap()
    }

    async fn proof(&self) -> Value {
        self.admin.get("/v1/audit/verify").await.is(200)
    }

    /// What a check of the audit log says: by the manager, and by the ledger itself.
    async fn verify(&self) -> (bool, String) {
        let (key, file) = (self.app.data_dir().join("admin.key"), self.checkpoints());
        let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
        let online = ["audit", "verify", "--manager", &self.app.base, "--key-file", key, "--checkpoint", file];
        let online = riposte(&online).await;
        let (dir, url) = (self.app.data_dir(), self.app.config.server.database_url.clone());
        let mut arguments = vec!["audit", "verify", "--data-dir", dir.to_str().unwrap(), "--checkpoint", file];
        if !url.is_empty() {
            arguments.extend(["--database-url", &url]);
        }
        let offline = riposte(&arguments).await;
        let first = |said: &str| said.lines().next().map(str::to_owned);
        assert_eq!((online.0, first(&online.1)), (offline.0, first(&offline.1)));
        assert!(!online.0 || online == offline, "{online:?}: {offline:?}");
        online
    }

    /// The entries about removals, newest first.
    async fn removals(&self, kind: &str) -> Vec<String> {
        let entries = self.admin.list(&format!("/v1/audit?noun=retention&noun_id={kind}")).await;
        entries.iter().map(|entry| entry["detail"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) async fn is_there(&self, response: &str) -> bool {
        self.admin.get(&format!("/v1/responses/{response}")).await.status == 200
    }

    pub(super) async fn hold(&self, name: &str, more: &Value) -> String {
        let mut asked = json!({"name": name, "reason": "a court asks"});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.admin.post("/v1/holds", &asked).await.is(201)["id"].as_str().unwrap().to_owned()
    }

    /// The newest stored checkpoint.
    pub(super) async fn newest(&self) -> Checkpoint {
        let rows: Vec<Token> = self
            .app
            .db()
            .await
            .all("SELECT token FROM audit_checkpoints ORDER BY seq DESC LIMIT 1", vec![])
            .await
            .unwrap();
        Checkpoint::peek(&rows[0].token).unwrap()
    }

    /// Puts another token in the place of the newest stored checkpoint, and deletes the others.
    async fn replace(&self, checkpoint: &Checkpoint, key: &SigningKey) {
        let mut tx = self.app.db().await.begin().await.unwrap();
        tx.execute("DELETE FROM audit_checkpoints", vec![]).await.unwrap();
        let binds = vec![Bind::from(checkpoint.seq), Bind::from(1_i64), Bind::from(checkpoint.sign(key).unwrap())];
        tx.execute("INSERT INTO audit_checkpoints (seq, at, token) VALUES ($1, $2, $3)", binds).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[derive(sqlx::FromRow)]
struct Token {
    token: String,
}

on_both_databases! {
    async fn an_effect_that_is_in_force_or_waits_for_its_revert_keeps_its_response_without_any_command(database: Database) {
        let kept = Kept::start(database).await;
        let in_force = kept.over("force", "203.0.113.7").await;
        let waits = kept.over("waits", "203.0.113.8").await;
        let free = kept.over("free", "203.0.113.9").await;
        for changed in [
            "UPDATE effects SET actual = 'in_force' WHERE target_value = '203.0.113.7'",
            "UPDATE effects SET next_revert_at = 9000000000000000 WHERE target_value = '203.0.113.8'",
        ] {
            assert_eq!(kept.app.execute(changed).await, 1, "{changed}");
        }
        kept.age().await;
        kept.removed("the other one is gone", async || (!kept.is_there(&free).await).then_some(())).await;
        assert!(kept.is_there(&in_force).await, "its effect is in force");
        assert!(kept.is_there(&waits).await, "its effect waits for its revert");
    }

    async fn a_response_that_is_over_goes_with_all_that_belongs_to_it_and_what_is_needed_stays(database: Database) {
        let kept = Kept::start(database).await;
        let old = kept.over("old", "203.0.113.7").await;
        // In force without an end, and one whose agent never answered.
        let standing = drop_by_hand(&kept.admin, "203.0.113.8", "").await;
        kept.agent.answer(Outcome::Succeeded, Some(true)).await;
        let mut policy = drop_policy("unsettled");
        policy["match"] = json!([{"rule_ids": ["unsettled"]}]);
        policy["respond"]["for"] = json!("1h");
        kept.admin.policy(&policy).await;
        let mut alert = brute_force("unsettled", "203.0.113.9");
        alert["rule"]["id"] = json!("unsettled");
        let answer = kept.admin.post("/v1/alerts", &alert).await.is(202);
        let unsettled = answer["responses"][0].as_str().unwrap().to_owned();
        kept.agent.answer(Outcome::Succeeded, Some(true)).await;
        // Its revert fails, again and again.
        kept.app.advance(2 * HOUR);
        kept.answer("203.0.113.9", Outcome::Failed).await;
        kept.app.advance(29 * DAY);
        let young = kept.over("young", "203.0.113.10").await;
        assert!(kept.is_there(&old).await);
        kept.app.advance(2 * DAY);
        kept.removed("the old response is gone", async || (!kept.is_there(&old).await).then_some(())).await;
        for response in [standing["id"].as_str().unwrap(), &unsettled, &young] {
            assert!(kept.is_there(response).await, "{response}");
        }
        let left: Vec<Value> = kept.admin.list("/v1/commands").await;
        assert!(left.iter().all(|command| command["response_id"] != old.as_str()), "{left:?}");
        assert_eq!(kept.admin.list("/v1/effects").await.len(), 3);
        let alerts = async || {
            let alerts = kept.admin.list("/v1/alerts").await;
            alerts.iter().map(|alert| alert["pipeline_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        kept.removed("the old alert is gone", async || (alerts().await.len() == 2).then_some(())).await;
        assert_eq!(alerts().await, ["203.0.113.10", "unsettled"], "the alert of what is being undone stays");
        let said = kept.removals("responses").await;
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("1 responses, made from ") && said[0].contains(&old), "{said:?}");
        assert!(said[0].ends_with("with 2 commands, 2 results, 0 decisions and 1 effects"), "{said:?}");
        // The host is as it was: the next response to the target acts again.
        let again = kept.over("old", "203.0.113.7").await;
        assert!(kept.is_there(&again).await);
        assert_eq!(kept.proof().await["intact"], true);
    }

    async fn the_audit_log_is_verified_from_where_it_begins(database: Database) {
        let kept = Kept::start(database).await;
        let id = kept.over("old", "203.0.113.7").await;
        let last = kept.sign().await;
        let bundle = kept.admin.get(&format!("/v1/responses/{id}/bundle")).await.is(200);
        kept.age().await;
        let first = kept.removed("the beginning is removed", async || {
            let first = kept.first().await;
            (first > last).then_some(first)
        })
        .await;
        let proof = kept.proof().await;
        assert_eq!((&proof["intact"], &proof["begins"]["after"]), (&json!(true), &json!(first - 1)), "{proof}");
        let said = kept.removals("audit").await;
        assert!(said[0].contains(&format!("1 to {}; it begins after {}", first - 1, first - 1)), "{said:?}");
        kept.sign().await;
        let (is_right, said) = kept.verify().await;
        assert!(is_right, "{said}");
        assert!(said.contains(&format!("verified from entry {first} on, retention removed the earlier ones on 20")), "{said}");
        assert!(said.contains("it is what all "), "{said}");
        // A bundle of before proves what it did.
        let file = kept.dir.path().join("bundle");
        std::fs::write(&file, bundle.to_string()).unwrap();
        let (is_right, said) = riposte(&["audit", "verify", "--bundle", file.to_str().unwrap()]).await;
        assert!(is_right, "{said}");
        // One of now too.
        let young = kept.over("young", "203.0.113.8").await;
        kept.sign().await;
        let bundle = kept.admin.get(&format!("/v1/responses/{young}/bundle")).await.is(200);
        std::fs::write(&file, bundle.to_string()).unwrap();
        let (is_right, said) = riposte(&["audit", "verify", "--json", "--bundle", file.to_str().unwrap()]).await;
        let found: Value = serde_json::from_str(&said).unwrap();
        assert!(is_right && found["proven"] == found["entries"], "{said}");

        // After a restart, and after the signing key is replaced.
        let Kept { app, agent, dir, .. } = kept;
        let (app, admin) = app.restart().await;
        let kept = Kept { agent: agent.moved_to(&app), app, admin, dir };
        assert_eq!(kept.proof().await["intact"], true);
        let old = kept.proof().await["keys"][0]["kid"].clone();
        kept.admin.post("/v1/signing-key/rotation", &json!({})).await.is(201);
        kept.agent.owed().await;
        kept.admin.post("/v1/signing-key/rotation/finish", &json!({"force": true})).await.is(200);
        let proof = kept.proof().await;
        assert!(proof["intact"] == true && proof["keys"][0]["kid"] != old, "{proof}");
        kept.sign().await;
        let proof = kept.proof().await;
        assert!(proof["intact"] == true && proof["begins"]["after"] == first - 1, "{proof}");
        let (is_right, said) = kept.verify().await;
        assert!(is_right, "{said}");
    }

    /// That the ledger was sealed is an entry of the log, which retention removes too.
    async fn a_ledger_without_its_first_entries_is_never_sealed_anew(database: Database) {
        let kept = Kept::start(database).await;
        let last = kept.sign().await;
        kept.age().await;
        kept.removed("the beginning is removed", async || (kept.first().await > last).then_some(())).await;
        assert_eq!(kept.app.execute("DELETE FROM seals").await, 1);
        let (_app, admin) = kept.app.restart().await;
        let refused = admin.get("/v1/audit").await;
        assert!(refused.status == 503 && refused.text.contains("the record of the seals was removed"), "{}", refused.text);
    }

    async fn a_beginning_that_the_manager_has_not_signed_is_a_broken_chain(database: Database) {
        let kept = Kept::start(database).await;
        kept.over("old", "203.0.113.7").await;
        kept.sign().await;
        let genuine = kept.newest().await;
        let key = SigningKey::from_seed(&[9; 32]).unwrap();
        kept.app.execute("DELETE FROM audit WHERE seq <= 3").await;
        let broken = async |why: &str| {
            let proof = kept.proof().await;
            assert!(proof["intact"] == false && proof["broken_at"] == 1, "{proof}");
            assert!(proof["why"].as_str().unwrap().contains(why), "{why}: {proof}");
            let (is_right, said) = kept.verify().await;
            assert!(!is_right && said.contains(why), "{why}: {said}");
        };
        broken("no checkpoint of this manager says that retention removed them").await;
        // The running manager notices it, and removes nothing itself.
        kept.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
        eventually("the manager warns", || async {
            kept.app.advance(60);
            let ready: Value = serde_json::from_str(&kept.admin.get("/readyz?verbose").await.text).unwrap();
            ready["warnings"].to_string().contains("before 4 are missing").then_some(())
        })
        .await;
        // A statement under a key of the intruder's, and one with the id of the right key.
        let rows: Vec<Hash> =
            kept.app.db().await.all("SELECT hash FROM audit WHERE seq = 4", vec![]).await.unwrap();
        let hash = riposte::domain::checkpoint::ChainHash(rows[0].hash.clone().try_into().unwrap());
        let begins = Some(LogBeginning { seq: 3, hash, at: 1 });
        let forged = Checkpoint { from: 3, begins, ..genuine.clone() };
        kept.replace(&forged, &key).await;
        broken("which is not this manager's").await;
        kept.app.execute("DELETE FROM audit_checkpoints").await;
        broken("no checkpoint says that retention removed them").await;
    }

    async fn an_old_statement_of_the_beginning_hides_no_later_entry(database: Database) {
        let kept = Kept::start(database).await;
        kept.over("old", "203.0.113.7").await;
        let last = kept.sign().await;
        kept.age().await;
        kept.removed("the beginning is removed", async || (kept.first().await > last).then_some(())).await;
        // The intruder removes more, and leaves the statement as it is.
        let begins = kept.newest().await.begins.unwrap();
        let first = kept.first().await;
        assert_eq!(first, begins.seq + 1);
        assert_eq!(kept.app.execute("DELETE FROM audit WHERE seq = (SELECT MIN(seq) FROM audit)").await, 1);
        let proof = kept.proof().await;
        assert_eq!((&proof["intact"], &proof["broken_at"]), (&json!(false), &json!(first)), "{proof}");
        assert!(!kept.verify().await.0);
        // Nor does the next removal make up for it.
        kept.age().await;
        kept.app.advance(2 * HOUR);
        kept.settled().await;
        assert_eq!(kept.proof().await["intact"], false);
    }
}

#[derive(sqlx::FromRow)]
struct Hash {
    hash: Vec<u8>,
}
