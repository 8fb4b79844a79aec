//! People who are forgotten: their names are gone from the ledger, which stays whole and verifiable.

use std::path::Path;

use serde_json::{Value, json};

use crate::retention::riposte;
use crate::support::alert::drop_policy;
use crate::support::app::PASSWORD;
use crate::support::{Client, Database, TestApp, eventually};

/// A manager on which alice has logged in, made a policy, ordered a block, approved one of bob's and made a key, and was
/// deleted.
async fn without_alice(database: Database) -> (TestApp, Client) {
    let (app, admin) = TestApp::start_on(database).await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let alice = app.session(&admin, "alice", "engineer").await;
    let bob = app.session(&admin, "bob", "analyst").await;
    admin.post("/v1/auth/token", &json!({"username": "alice", "password": "wrong password"})).await.is(401);
    alice.policy(&drop_policy("drop")).await;
    let block = |target: &str, reason: &str| {
        json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": "10m", "reason": reason})
    };
    alice.post("/v1/responses", &block("203.0.113.7", "seen by me")).await.is(201);
    let mut long = block("203.0.113.8", "for long");
    long["for"] = json!("10d");
    let waits = bob.post("/v1/responses", &long).await.is(201);
    assert_eq!(waits["state"], "awaiting_approval", "{waits}");
    let approve = format!("/v1/responses/{}/approve", waits["id"].as_str().unwrap());
    alice.post(&approve, &json!({"reason": "alice agrees"})).await.is(200);
    alice.personal_key("laptop of alice", "viewer").await;
    admin.delete("/v1/users/alice", None).await.is(204);
    (app, admin)
}

/// The rows of an export that hold this text.
async fn rows_with(database: &str, data_dir: &Path, text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.export");
    let (file, data_dir) = (file.to_str().unwrap(), data_dir.to_str().unwrap());
    let (is_done, said) =
        riposte(&["export", "--database-url", database, "--data-dir", data_dir, file]).await;
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
        assert!(before.iter().any(|entry| entry["actor"] == "user:alice" && entry["salt"].is_string()));
        assert_eq!(proof(&admin).await["forgotten"], 0);
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
        assert!(after.iter().filter(theirs).all(|entry| entry["detail"] == "" && entry["commitment"].is_string()));

        let (url, dir) = (app.config.server.database_url.clone(), app.data_dir());
        let url = if url.is_empty() { format!("sqlite:{}", dir.join("riposte.db").display()) } else { url };
        let (app, admin) = app.restart_after(async |db, dir| {
            drop(db);
            let rows = rows_with(&url, &dir, "alice").await;
            // What is kept for days at most.
            let rows: Vec<_> = rows.iter().filter(|row| !row.contains("\"events\"") && !row.contains("\"idempotency\"")).collect();
            assert_eq!(rows, Vec::<&String>::new());
        }).await;
        assert_eq!(proof(&admin).await, told, "and after a restart");
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
        admin.post("/v1/users/alice/forget", &json!({})).await.is(404);
        drop(app);
    }

    async fn a_person_is_forgotten_only_after_the_deletion_and_not_under_a_hold(database: Database) {
        let (_app, admin) = without_alice(database).await;
        let why = admin.post("/v1/users/bob/forget", &json!({})).await.is(409);
        assert!(why["detail"].as_str().unwrap().contains("is not deleted"), "{why}");
        admin.post("/v1/users/carol/forget", &json!({})).await.is(404);
        let hold = json!({"name": "case 7", "reason": "court", "kind": "policy", "value": "drop"});
        let hold = admin.post("/v1/holds", &hold).await.is(201);
        let why = admin.post("/v1/users/alice/forget", &json!({})).await.is(409);
        assert!(why["detail"].as_str().unwrap().contains("legal hold"), "{why}");
        assert_eq!(proof(&admin).await["forgotten"], 0, "nothing is half-done");
        admin.delete(&format!("/v1/holds/{}", hold["id"].as_str().unwrap()), None).await.is(204);
        admin.post("/v1/users/alice/forget", &json!({})).await.is(200);
    }

    async fn texts_that_an_intruder_removes_are_found(database: Database) {
        let (app, admin) = without_alice(database).await;
        admin.post("/v1/users/alice/forget", &json!({})).await.is(200);
        let entries = admin.list("/v1/audit").await;
        let pseudonym = entries.iter().find(|entry| entry["verb"] == "forgotten").unwrap()["noun_id"].as_str().unwrap();
        let of_bob = entries.iter().find(|entry| entry["actor"] == "user:bob").unwrap();
        // As the manager does it, for another person: with the right commitment.
        let text = |field: &str| of_bob[field].as_str().unwrap();
        let salt: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&text("salt")[at..at + 2], 16).unwrap()).collect();
        let committed = riposte::domain::audit::commitment(&salt, [text("actor"), text("noun_id"), text("detail")]);
        let committed: String = committed.iter().map(|byte| format!("{byte:02x}")).collect();
        let seq = of_bob["seq"].as_i64().unwrap();
        let literal = if app.config.server.database_url.starts_with("postgres") {
            format!("decode('{committed}', 'hex')")
        } else {
            format!("X'{committed}'")
        };
        let sql = format!(
            "UPDATE audit SET actor = 'user:{pseudonym}', detail = '', salt = NULL, commitment = {literal} WHERE seq = {seq}"
        );
        assert_eq!(app.execute(Box::leak(sql.into_boxed_str())).await, 1);
        let told = proof(&admin).await;
        assert_eq!((&told["intact"], &told["broken_at"]), (&json!(false), &json!(seq)), "{told}");
    }

    async fn what_a_manager_began_to_forget_is_finished_by_the_next_one(database: Database) {
        let (app, _) = without_alice(database).await;
        app.execute("UPDATE users SET pseudonym = 'forgotten-0000000000000007' WHERE name = 'alice'").await;
        // Of a living person it means nothing.
        app.execute("UPDATE users SET pseudonym = 'forgotten-0000000000000008' WHERE name = 'bob'").await;
        let (app, admin) = app.restart_after(async |db, _| drop(db)).await;
        eventually("alice is forgotten", || async {
            app.advance(900);
            let names = admin.list("/v1/users").await;
            let has = |name: &str| names.iter().any(|user| user["name"] == name);
            (has("forgotten-0000000000000007") && !has("alice")).then_some(())
        })
        .await;
        assert_eq!(admin.get("/v1/users/bob").await.is(200)["name"], "bob");
        assert_eq!(proof(&admin).await["intact"], true);
    }
}
