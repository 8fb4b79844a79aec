//! People who are forgotten: their names are gone from the ledger, which stays whole and verifiable.

use std::path::Path;

use riposte::domain::actor::Actor;
use riposte::domain::audit;
use riposte::domain::forgotten::ForgettingKey;
use riposte::store::database::Bind;
use riposte::store::ledger::forgotten::{self, Forgetting};
use riposte::store::seals::whole;
use riposte::views::audit::AuditRow;
use serde_json::{Value, json};

use crate::retention::riposte;
use crate::support::alert::{brute_force, drop_policy};
use crate::support::app::{NOW, PASSWORD, ledger_key};
use crate::support::{Client, Database, TestApp, eventually};

/// A manager on which alice has logged in, made a policy, ordered a block, approved one of bob's and made a key, and was
/// deleted.
async fn without_alice(database: Database) -> (TestApp, Client) {
    let (app, admin) = TestApp::start_on(database).await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let alice = app.session(&admin, "alice", "engineer").await;
    let bob = app.session(&admin, "bob", "analyst").await;
    admin.post("/v1/auth/token", &json!({"username": "alice", "password": "wrong password"})).await.is(401);
    let waits = waiting(&admin, "1", 1).await;
    alice.post(&format!("/v1/responses/{waits}/approve"), &json!({"reason": "I agree"})).await.is(200);
    alice.policy(&drop_policy("drop")).await;
    for (who, target) in [(&alice, "203.0.113.7"), (&bob, "203.0.113.8")] {
        let block =
            json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": "10m", "reason": "seen"});
        who.post("/v1/responses", &block).await.is(201);
    }
    let key = alice.personal_key("laptop of alice", "viewer").await;
    key.get("/v1/whoami").await.is(200);
    admin.delete("/v1/users/alice", None).await.is(204);
    // The name is not written down again.
    admin.post("/v1/auth/token", &json!({"username": "alice", "password": "wrong password"})).await.is(401);
    key.get("/v1/whoami").await.is(401);
    let why = admin.post("/v1/users/alice/forget", &json!({})).await.is(409);
    assert!(why["detail"].as_str().unwrap().contains("deleted for 5 minutes"), "{why}");
    app.advance(301);
    (app, admin)
}

/// A response that waits for approvals, to the alert with this id.
async fn waiting(admin: &Client, id: &str, quorum: u32) -> String {
    let mut policy = drop_policy(&format!("asks-{id}"));
    policy["match"] = json!([{"rule_ids": [id]}]);
    policy["mode"] = json!("approve");
    policy["approval"] = json!({"quorum": quorum, "within": "1h"});
    admin.policy(&policy).await;
    let mut alert = brute_force(id, "203.0.113.9");
    alert["rule"]["id"] = json!(id);
    let answer = admin.post("/v1/alerts", &alert).await.is(202);
    answer["responses"][0].as_str().unwrap().to_owned()
}

/// The rows of an export that hold this text.
async fn rows_with(database: &str, data_dir: &Path, text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.export");
    let (file, data_dir) = (file.to_str().unwrap(), data_dir.to_str().unwrap());
    let (is_done, said) = riposte(&["export", "--database-url", database, "--data-dir", data_dir, file]).await;
    assert!(is_done, "{said}");
    let lines = zstd::stream::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    String::from_utf8(lines).unwrap().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

async fn proof(client: &Client) -> Value {
    client.get("/v1/audit/verify").await.is(200)
}

on_both_databases! {
    async fn a_forgotten_person_is_in_no_row_and_the_log_stays_verifiable(database: Database) {
        let (app, admin) = without_alice(database).await;
        let before = admin.list("/v1/audit").await;
        assert!(before.iter().any(|entry| entry["actor"] == "user:alice" && entry["commitments"].is_string()));
        assert_eq!(proof(&admin).await["forgotten"], 0);
        // What the manager still remembers when it stops is written down then.
        admin.post("/v1/auth/token", &json!({"username": "alice", "password": "wrong password"})).await.is(401);
        let pseudonym = admin.post("/v1/users/alice/forget", &json!({})).await.is(200)["pseudonym"].clone();
        let pseudonym = pseudonym.as_str().unwrap().to_owned();
        assert!(pseudonym.starts_with("forgotten-"), "{pseudonym}");

        // The same entries, with the same hashes.
        let after = admin.list("/v1/audit").await;
        let hashes = |entries: &[Value]| -> Vec<Value> {
            entries[entries.len() - before.len()..].iter().map(|entry| entry["hash"].clone()).collect()
        };
        assert_eq!(hashes(&after), hashes(&before));
        let told = proof(&admin).await;
        assert!(told["intact"] == true && told["forgotten"].as_i64().unwrap() > 5, "{told}");
        let of_bob = after.iter().filter(|entry| entry["actor"] == "user:bob").count();
        assert!(of_bob > 0 && !json!(after).to_string().contains("alice"), "{after:?}");
        let theirs = |entry: &&Value| entry["actor"] == json!(format!("user:{pseudonym}"));
        assert!(after.iter().filter(theirs).all(|entry| entry["detail"] == "" && entry["commitments"].is_string()));

        let keys = admin.list("/v1/api-keys").await;
        let key = keys.iter().find(|key| key["user"] == pseudonym.as_str()).unwrap();
        assert_eq!((&key["name"], &key["last_used_from"]), (&json!(pseudonym), &Value::Null), "{key}");

        let (url, dir) = (app.config.server.database_url.clone(), app.data_dir());
        let url = if url.is_empty() { format!("sqlite:{}", dir.join("riposte.db").display()) } else { url };
        let (app, admin) = app.restart_after(async |db, dir| {
            drop(db);
            let rows = rows_with(&url, &dir, "alice").await;
            // Events are kept for days at most.
            let is_event = |row: &&String| {
                let row: Value = serde_json::from_str(row).unwrap();
                row.as_array().is_some_and(|row| row.len() == 15 && row[2].as_str().is_some_and(|kind| kind.contains('.')))
            };
            let (events, others): (Vec<&String>, Vec<&String>) = rows.iter().partition(is_event);
            assert!(!events.is_empty(), "names are found");
            assert_eq!(others, Vec::<&String>::new());
        }).await;
        let again = proof(&admin).await;
        assert_eq!((&again["intact"], &again["forgotten"]), (&told["intact"], &told["forgotten"]), "and after a restart");
        let ledger = admin.list("/v1/audit?noun=ledger").await;
        assert!(ledger.iter().all(|entry| entry["verb"] != "breached"), "{ledger:?}");

        // What was decided stays, by the pseudonym.
        let responses = admin.list("/v1/responses").await;
        let requested: Vec<&str> = responses.iter().map(|one| one["requested_by"].as_str().unwrap()).collect();
        assert!(requested.contains(&format!("user:{pseudonym}").as_str()) && requested.contains(&"user:bob"), "{requested:?}");
        assert_eq!(admin.get("/v1/policies/drop").await.is(200)["name"], "drop");

        // The name is not free, and no person can take the pseudonym.
        let user = |name: &str| json!({"name": name, "role": "viewer", "password": PASSWORD});
        let why = admin.post("/v1/users", &user("alice")).await.is(409);
        assert!(why["detail"].as_str().unwrap().contains("was given before"), "{why}");
        admin.post("/v1/users", &user("forgotten-7")).await.is(422);
        admin.post(&format!("/v1/users/{pseudonym}/forget"), &json!({})).await.is(409);
        let why = admin.post("/v1/users/alice/forget", &json!({})).await.is(404);
        assert!(why["detail"].as_str().unwrap().contains("has been forgotten already"), "{why}");
        drop(app);
    }

    async fn a_person_is_forgotten_only_after_the_deletion_and_not_under_a_hold(database: Database) {
        let (_app, admin) = without_alice(database).await;
        let why = admin.post("/v1/users/bob/forget", &json!({})).await.is(409);
        assert!(why["detail"].as_str().unwrap().contains("must have been deleted"), "{why}");
        admin.post("/v1/users/carol/forget", &json!({})).await.is(404);
        let hold = json!({"name": "case 7", "reason": "court", "kind": "policy", "value": "drop"});
        let hold = admin.post("/v1/holds", &hold).await.is(201);
        let why = admin.post("/v1/users/alice/forget", &json!({})).await.is(409);
        assert!(why["detail"].as_str().unwrap().contains("legal hold"), "{why}");
        assert_eq!(proof(&admin).await["forgotten"], 0, "nothing is half-done");
        admin.delete(&format!("/v1/holds/{}", hold["id"].as_str().unwrap()), None).await.is(204);
        admin.post("/v1/users/alice/forget", &json!({})).await.is(200);
    }

    async fn a_person_whose_decision_counts_is_forgotten_when_it_is_decided(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let alice = app.session(&admin, "alice", "analyst").await;
        let waits = waiting(&admin, "2", 2).await;
        alice.post(&format!("/v1/responses/{waits}/approve"), &json!({"reason": "right"})).await.is(200);
        admin.delete("/v1/users/alice", None).await.is(204);
        app.advance(301);
        let why = admin.post("/v1/users/alice/forget", &json!({})).await.is(409);
        assert!(why["detail"].as_str().unwrap().contains("waits for approval"), "{why}");
        app.advance(3600);
        app.in_time("no other person agreed", || async {
            (admin.get(&format!("/v1/responses/{waits}")).await.is(200)["state"] == "lapsed").then_some(())
        })
        .await;
        admin.post("/v1/users/alice/forget", &json!({})).await.is(200);
    }

    async fn texts_that_an_intruder_removes_or_replaces_are_found(database: Database) {
        let (app, admin) = without_alice(database).await;
        admin.post("/v1/users/alice/forget", &json!({})).await.is(200);
        let db = app.db().await;
        let rows = async || -> Vec<AuditRow> {
            let all = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, commitments FROM audit ORDER BY seq";
            db.all(all, vec![]).await.unwrap()
        };
        let all = rows().await;
        let pseudonym = all.iter().find(|row| row.verb == "forgotten").unwrap().noun_id.clone();
        let broken_at = async || {
            let told = proof(&admin).await;
            (told["intact"] == false).then(|| told["broken_at"].as_i64().unwrap())
        };
        assert_eq!(broken_at().await, None);
        let put = async |row: &AuditRow| {
            let binds = vec![
                Bind::from(row.seq),
                Bind::from(row.actor.as_str()),
                Bind::from(row.noun_id.as_str()),
                Bind::from(row.detail.as_str()),
                Bind::from(row.commitments.clone()),
            ];
            let mut tx = db.begin().await.unwrap();
            let sql = "UPDATE audit SET actor = $2, noun_id = $3, detail = $4, commitments = $5 WHERE seq = $1";
            assert_eq!(tx.execute(sql, binds).await.unwrap(), 1);
            tx.commit().await.unwrap();
        };

        // Other texts in the place of removed ones.
        let lost = all.iter().find(|row| row.pseudonyms().is_some()).unwrap();
        for (actor, noun_id, detail) in [
            ("user:bob", lost.noun_id.as_str(), ""),
            ("user:forgotten-7", lost.noun_id.as_str(), ""),
            (lost.actor.as_str(), lost.noun_id.as_str(), "as I say"),
            (lost.actor.as_str(), "bob", ""),
        ] {
            let (actor, noun_id, detail) = (actor.to_owned(), noun_id.to_owned(), detail.to_owned());
            put(&AuditRow { actor, noun_id, detail, ..lost.clone() }).await;
            assert_eq!(broken_at().await, Some(lost.seq));
        }
        put(lost).await;
        assert_eq!(broken_at().await, None);

        // As the manager does it, for another person: with the right commitments.
        let of_bob = all.iter().find(|row| row.actor == "user:bob").unwrap();
        let mut stored = of_bob.commitments().unwrap();
        stored.remove(0, &of_bob.actor);
        stored.remove(2, &of_bob.detail);
        let (actor, commitments) = (format!("user:{pseudonym}"), Some(stored.to_bytes()));
        put(&AuditRow { actor, detail: String::new(), commitments, ..of_bob.clone() }).await;
        assert_eq!(broken_at().await, Some(of_bob.seq));

        // And with a list of them at the end, which no other program can make.
        let end = all.last().unwrap();
        let list = all.iter().find(|row| row.verb == "removed texts").unwrap();
        let code = list.detail.rsplit_once("; ").unwrap().1;
        let listed = AuditRow { seq: end.seq + 1, detail: format!("{}; {code}", of_bob.seq), ..list.clone() };
        let hash: [u8; 32] = end.hash.clone().try_into().unwrap();
        let hash = audit::hash(&hash, listed.seq, &listed.entry()).to_vec();
        let mut tx = db.begin().await.unwrap();
        let copied = "INSERT INTO audit (seq, at, actor, verb, noun, noun_id, detail, hash)
            SELECT $1, at, actor, verb, noun, noun_id, $2, $3 FROM audit WHERE seq = $4";
        let binds = vec![listed.seq.into(), listed.detail.as_str().into(), hash.clone().into(), list.seq.into()];
        assert_eq!(tx.execute(copied, binds).await.unwrap(), 1);
        tx.execute("UPDATE audit_head SET seq = $1, hash = $2", vec![listed.seq.into(), hash.into()]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(broken_at().await, Some(of_bob.seq), "the chain is whole, and the list is not the manager's");
    }

    async fn what_a_manager_began_to_forget_is_finished_and_no_other_program_begins_it(database: Database) {
        let (app, admin) = without_alice(database).await;
        // Another program deletes a person, and writes the order: the row is not the manager's.
        app.execute("UPDATE users SET deleted_at = created_at, disabled_at = created_at WHERE name = 'bob'").await;
        let why = admin.post("/v1/users/bob/forget", &json!({})).await;
        assert!([409, 503].contains(&why.status), "{}", why.text);
        assert_eq!(proof(&admin).await["forgotten"], 0);
        app.execute("UPDATE users SET deleted_at = NULL, disabled_at = NULL WHERE name = 'bob'").await;

        // A manager that ends after the order and a part of the work.
        let key = ForgettingKey::new(&ledger_key(&app.data_dir()).derive("forgetting").unwrap());
        let who = Forgetting::of("alice", &key);
        let (app, admin) = app.restart_after(async |db, dir| {
            whole::arm(&db, &ledger_key(&dir), None, NOW.parse().unwrap()).await.unwrap();
            let before = "2027-01-01T00:00:00Z".parse().unwrap();
            let mut ledger = forgotten::begin(&db, &who, before).await.unwrap().unwrap();
            forgotten::order(&mut ledger, &who, &Actor::Riposte, NOW.parse().unwrap()).await.unwrap();
            assert_eq!(forgotten::remove_texts(&mut ledger, &who, &key, 2, NOW.parse().unwrap()).await.unwrap(), 2);
            ledger.commit().await.unwrap();
        }).await;
        let names = eventually("alice is forgotten", || async {
            app.advance(900);
            let users = admin.list("/v1/users").await;
            let names: Vec<String> = users.iter().map(|user| user["name"].as_str().unwrap().to_owned()).collect();
            (!names.contains(&"alice".to_owned())).then_some(names)
        })
        .await;
        assert_eq!(names, ["bob", &key.pseudonym("alice")]);
        let told = proof(&admin).await;
        assert!(told["intact"] == true && told["forgotten"].as_i64().unwrap() > 5, "{told}");
        let orders = admin.list("/v1/audit?noun=user").await.into_iter();
        assert_eq!(orders.filter(|entry| entry["verb"] == "forgetting").count(), 1);
    }

    async fn two_requests_at_once_forget_a_person_once(database: Database) {
        let (app, admin) = without_alice(database).await;
        let empty = json!({});
        let forget = || admin.post("/v1/users/alice/forget", &empty);
        let (one, two, three) = tokio::join!(forget(), forget(), forget());
        let names: Vec<Value> = [&one, &two, &three]
            .into_iter()
            .filter(|answer| answer.status == 200)
            .map(|answer| serde_json::from_str::<Value>(&answer.text).unwrap()["pseudonym"].clone())
            .collect();
        assert!(!names.is_empty() && names.iter().all(|name| *name == names[0]), "{names:?}");
        let history = admin.list("/v1/audit?noun=user").await;
        let count = |verb: &str| history.iter().filter(|entry| entry["verb"] == verb).count();
        assert_eq!((count("forgetting"), count("forgotten")), (1, 1));
        assert_eq!(proof(&admin).await["intact"], true);
        drop(app);
    }

    async fn a_row_that_another_program_changed_keeps_no_name_and_gets_no_seal(database: Database) {
        let (app, admin) = without_alice(database).await;
        app.execute("UPDATE answers SET seal = NULL WHERE principal = 'user:alice'").await;
        let pseudonym = admin.post("/v1/users/alice/forget", &json!({})).await.is(200)["pseudonym"].clone();
        let left = app.execute("UPDATE answers SET reason = 'x' WHERE principal = 'user:alice' OR seal IS NOT NULL").await;
        assert_eq!(left, 0, "{pseudonym}");
    }
}
