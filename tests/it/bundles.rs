//! Incident bundles: one response as a file that proves itself without the manager.

use std::path::{Path, PathBuf};

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use super::responses::with_agent;
use crate::processes::tied;
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, TestApp, eventually};

async fn riposte(arguments: &[&str]) -> (bool, String) {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    command.args(arguments);
    let output = tokio::process::Command::from(command).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Verifies a bundle, with no manager at hand.
async fn verify(bundle: &Value, more: &[&str]) -> (bool, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle");
    std::fs::write(&file, bundle.to_string()).unwrap();
    let arguments = [&["audit", "verify", "--json", "--bundle", file.to_str().unwrap()], more].concat();
    let (is_right, said) = riposte(&arguments).await;
    (is_right, serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}")))
}

/// Once all entries of the response are under checkpoints, its bundle.
async fn bundle(app: &TestApp, admin: &Client, id: &str) -> Value {
    eventually("every entry is under a checkpoint", || async {
        app.advance(60);
        let bundle = admin.get(&format!("/v1/responses/{id}/bundle")).await.is(200);
        let contents: Value = serde_json::from_str(bundle["contents"].as_str().unwrap()).unwrap();
        let count = |key: &str| contents[key].as_array().unwrap().len();
        (count("proofs") == count("audit")).then_some(bundle)
    })
    .await
}

/// The bundle with a change of its contents.
fn changed(bundle: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut contents: Value = serde_json::from_str(bundle["contents"].as_str().unwrap()).unwrap();
    change(&mut contents);
    let mut bundle = bundle.clone();
    bundle["contents"] = json!(contents.to_string());
    bundle
}

on_both_databases! {
    async fn a_bundle_proves_an_incident_without_the_manager(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("drop")).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let id = answer["responses"][0].as_str().unwrap().to_owned();
        agent.answer(Outcome::Succeeded, Some(true)).await;
        // Other things happen in the same minute, and are not in the file.
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        bundle(&app, &admin, &id).await;
        admin.post(&format!("/v1/responses/{id}/lift"), &json!({"reason": "over"})).await.is(200);
        let found = bundle(&app, &admin, &id).await;
        let contents: Value = serde_json::from_str(found["contents"].as_str().unwrap()).unwrap();
        assert_eq!(contents["alert"]["pipeline_id"], "1");
        assert!(contents["alert"]["raw"].is_object(), "{contents}");
        assert_eq!(contents["response"]["id"], id.as_str());
        let verbs: Vec<&str> = contents["audit"].as_array().unwrap().iter().map(|row| row["verb"].as_str().unwrap()).collect();
        assert!(verbs.starts_with(&["created"]) && verbs.contains(&"succeeded") && verbs.contains(&"ended"), "{verbs:?}");
        assert!(!found.to_string().contains("203.0.113.8"), "another incident is in it");
        assert!(contents["checkpoints"].as_array().unwrap().len() >= 2);

        let (is_right, said) = verify(&found, &[]).await;
        assert!(is_right, "{said}");
        assert_eq!((&said["entries"], &said["proven"]), (&json!(verbs.len()), &json!(verbs.len())));
        assert_eq!(said["key_is_trusted"], false);
        let keys = admin.get("/v1/audit/verify").await.is(200)["keys"].clone();
        let key = keys[0]["public_key"].as_str().unwrap();
        let (is_right, said) = verify(&found, &["--public-key", key]).await;
        assert!(is_right && said["key_is_trusted"] == true, "{said}");

        // The command writes the same, for its owner only, and overwrites nothing.
        let file: PathBuf = app.data_dir().join("incident.json");
        let key_file = app.data_dir().join("admin.key");
        let (output, key_file) = (file.to_str().unwrap(), key_file.to_str().unwrap());
        let export =
            ["audit", "bundle", &id, "--manager", &app.base, "--key-file", key_file, "--output", output];
        let (is_right, said) = riposte(&export).await;
        assert!(is_right && said.contains("of them under a signed checkpoint"), "{said}");
        let (is_right, said) = riposte(&["audit", "verify", "--bundle", output]).await;
        assert!(is_right && said.starts_with("intact: the response") && said.contains("not proven: "), "{said}");
        let (is_right, said) = riposte(&export).await;
        assert!(!is_right && said.contains("cannot create"), "{said}");
    }

    async fn a_changed_bundle_and_one_of_another_key_are_refused(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("drop")).await;
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        agent.answer(Outcome::Succeeded, Some(true)).await;
        let found = bundle(&app, &admin, answer["responses"][0].as_str().unwrap()).await;
        let refused = async |bundle: Value, why: &str, more: &[&str]| {
            let (is_right, said) = verify(&bundle, more).await;
            assert!(!is_right && said["why"].as_str().unwrap().contains(why), "{why}: {said}");
        };
        let edits: [fn(&mut Value); 3] = [
            |contents| contents["response"]["note"] = json!("another reason"),
            |contents| contents["audit"][0]["actor"] = json!("user:mallory"),
            |contents| drop(contents["audit"].as_array_mut().unwrap().pop()),
        ];
        for edit in edits {
            refused(changed(&found, edit), "the contents were changed", &[]).await;
        }
        let mut forged = found.clone();
        let seal = found["seal"].as_str().unwrap();
        let middle = seal.len() / 2;
        let other = if seal.as_bytes()[middle] == b'A' { "B" } else { "A" };
        forged["seal"] = json!(format!("{}{other}{}", &seal[..middle], &seal[middle + 1..]));
        refused(forged, "the seal is forged", &[]).await;
        let (_other, stranger, _) = with_agent(Database::sqlite()).await;
        let keys = stranger.get("/v1/audit/verify").await.is(200)["keys"].clone();
        let key = keys[0]["public_key"].as_str().unwrap();
        refused(found.clone(), "sealed with another key", &["--public-key", key]).await;

        // A log that was changed before the bundle was made has no proof: the checkpoint says otherwise.
        assert!(app.execute("UPDATE audit SET detail = 'harmless' WHERE noun = 'response'").await > 0);
        let id = answer["responses"][0].as_str().unwrap();
        let late = admin.get(&format!("/v1/responses/{id}/bundle")).await.is(200);
        let (_, said) = verify(&late, &[]).await;
        assert!(said["proven"].as_u64() < said["entries"].as_u64(), "{said}");
    }

    async fn a_caller_with_a_scope_gets_the_bundle_of_a_response_wholly_within_it(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        for (name, env) in [("web-01", "dev"), ("web-02", "prod")] {
            app.enrol(&admin, name, &json!({"env": env})).await;
        }
        let asked = json!({"name": "scoped", "role": "viewer", "scope": {"agents": {"labels": {"env": "dev"}}}});
        let scoped = admin.with_key(admin.post("/v1/api-keys", &asked).await.is(201)["key"].as_str().unwrap());
        for (agents, status) in [(json!(["web-01"]), 200), (json!(["web-01", "web-02"]), 403), (json!(["web-02"]), 404)] {
            let asked = json!({"action": "firewall-drop", "target": "203.0.113.7", "agents": agents, "for": "1h", "reason": "x"});
            let made = admin.post("/v1/responses", &asked).await.is(201);
            let path = format!("/v1/responses/{}/bundle", made["id"].as_str().unwrap());
            assert_eq!(scoped.get(&path).await.status, status, "{agents}");
            admin.get(&path).await.is(200);
        }
    }
}
