//! Legal holds: what they cover stays, until they are released.

use std::time::Duration;

use serde_json::{Value, json};

use super::retention::{Kept, riposte};
use crate::support::Database;
use crate::support::alert::brute_force;

const DAY: u64 = 86_400;
const HOUR: u64 = 3600;

on_both_databases! {
    async fn a_legal_hold_keeps_what_it_covers_until_it_is_released(database: Database) {
        let kept = Kept::start(database).await;
        let held = kept.over("held", "203.0.113.7").await;
        let free = kept.over("free", "203.0.113.8").await;
        for (name, more) in [
            ("response", json!({"kind": "response", "value": held})),
            ("policy", json!({"kind": "policy", "value": "HELD"})),
            ("target", json!({"kind": "target", "value": "::ffff:203.0.113.7"})),
        ] {
            kept.hold(name, &more).await;
        }
        kept.sign().await;
        kept.app.advance(40 * DAY);
        kept.removed("the other one is gone", async || (!kept.is_there(&free).await).then_some(())).await;
        assert!(kept.is_there(&held).await);
        let alerts = async || kept.admin.list("/v1/alerts").await.len();
        kept.removed("the other alert is gone", async || (alerts().await == 1).then_some(())).await;
        // One hold after the other: the last one counts.
        let holds = kept.admin.list("/v1/holds").await;
        assert_eq!(holds.len(), 3);
        for hold in &holds {
            kept.app.advance(HOUR + 60);
            kept.settled().await;
            assert!(kept.is_there(&held).await, "{hold}");
            kept.admin.delete(&format!("/v1/holds/{}", hold["id"].as_str().unwrap()), None).await.is(204);
        }
        let history = kept.admin.list("/v1/audit?noun=legal_hold").await;
        let verbs: Vec<&str> = history.iter().map(|entry| entry["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, [["released"; 3], ["placed"; 3]].concat());
        assert!(history[5]["detail"].as_str().unwrap().starts_with("response: response "), "{history:?}");
        kept.removed("it goes when it is released", async || (!kept.is_there(&held).await).then_some(())).await;
        kept.removed("and its alert", async || (alerts().await == 0).then_some(())).await;
    }

    async fn while_a_hold_was_deleted_in_the_database_nothing_is_removed(database: Database) {
        let kept = Kept::start(database).await;
        let held = kept.over("held", "203.0.113.7").await;
        let free = kept.over("free", "203.0.113.8").await;
        kept.hold("policy", &json!({"kind": "policy", "value": "held"})).await;
        kept.app.execute("CREATE TABLE removed AS SELECT * FROM legal_holds").await;
        assert_eq!(kept.app.execute("DELETE FROM legal_holds").await, 1);
        kept.age().await;
        let ledger = kept.admin.list("/v1/audit?noun=ledger").await;
        assert!(ledger.iter().any(|entry| entry["noun_id"] == "legal_holds"), "{ledger:?}");
        assert!(kept.is_there(&held).await && kept.is_there(&free).await);
        assert_eq!((kept.first().await, kept.admin.list("/v1/alerts").await.len()), (1, 2));
        // It is back: what is not under it goes.
        kept.app.execute("INSERT INTO legal_holds SELECT * FROM removed").await;
        kept.removed("the other one is gone", async || (!kept.is_there(&free).await).then_some(())).await;
        assert!(kept.is_there(&held).await);
    }

    async fn a_hold_on_an_agent_or_a_time_keeps_too(database: Database) {
        let kept = Kept::start(database).await;
        kept.app.enrol(&kept.admin, "db-01", &json!({})).await;
        let held = kept.over("held", "203.0.113.7").await;
        kept.hold("agent", &json!({"kind": "agent", "value": "web-01"})).await;
        let now = kept.app.clock.now();
        let until = now.plus(Duration::from_hours(1));
        let time = json!({"kind": "time", "since": now.minus(Duration::from_hours(1)), "until": until});
        kept.hold("time", &time).await;
        // An alert without a response is held by the time alone.
        kept.admin.post("/v1/alerts", &brute_force("quiet", "203.0.113.20")).await.is(202);
        kept.app.advance(2 * HOUR);
        let mut later = brute_force("later", "203.0.113.21");
        later["timestamp"] = json!(kept.app.clock.now());
        kept.admin.post("/v1/alerts", &later).await.is(202);
        kept.age().await;
        let left = async || {
            let alerts = kept.admin.list("/v1/alerts").await;
            alerts.iter().map(|alert| alert["pipeline_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        kept.removed("the later alert is gone", async || (left().await == ["quiet", "203.0.113.7"]).then_some(())).await;
        assert!(kept.is_there(&held).await);
        assert_eq!(kept.first().await, 1, "the audit log is kept from the earliest entry that is covered on");
        assert!(kept.newest().await.begins.is_none_or(|begins| begins.seq < 3));
        for hold in kept.admin.list("/v1/holds").await {
            kept.admin.delete(&format!("/v1/holds/{}", hold["id"].as_str().unwrap()), None).await.is(204);
        }
        kept.app.advance(2 * DAY);
        kept.admin.post("/v1/enrollment-tokens", &json!({})).await.is(201);
        kept.removed("the log loses its beginning", async || (kept.first().await > 1).then_some(())).await;
    }

    async fn a_hold_that_comes_after_the_beginning_was_signed_still_keeps_the_entries(database: Database) {
        let kept = Kept::start(database).await;
        let begun = kept.app.clock.now();
        kept.over("old", "203.0.113.7").await;
        kept.age().await;
        let begins = kept.newest().await.begins.unwrap();
        assert_eq!(kept.first().await, 1, "the rows go with the next sweep");
        let hold = kept.hold("time", &json!({"kind": "time", "since": begun})).await;
        for _ in 0..5 {
            kept.app.advance(HOUR + 1);
            kept.settled().await;
        }
        // What was before that time goes, and no more.
        assert!(kept.first().await < begins.seq);
        assert_eq!(kept.admin.get("/v1/audit/verify").await.is(200)["intact"], true);
        kept.admin.delete(&format!("/v1/holds/{hold}"), None).await.is(204);
        kept.removed("the entries go", async || (kept.first().await > begins.seq).then_some(())).await;
    }

    async fn holds_are_placed_by_administrators_and_shown_within_a_scope(database: Database) {
        let kept = Kept::start(database).await;
        let response = kept.over("web", "203.0.113.7").await;
        let cases = [
            (json!({"kind": "response", "value": "0192"}), "/value"),
            (json!({"kind": "policy", "value": "absent"}), "/value"),
            (json!({"kind": "agent", "value": "absent"}), "/value"),
            (json!({"kind": "target"}), "/value"),
            (json!({"kind": "time"}), "/since"),
            (json!({"kind": "time", "value": "x", "since": "2026-01-01T00:00:00Z"}), "/value"),
            (json!({"kind": "time", "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}), "/until"),
            (json!({"kind": "policy", "value": "web", "until": "2026-01-01T00:00:00Z"}), "/until"),
            (json!({"kind": "user", "value": "x"}), "/kind"),
            (json!({"kind": "policy", "value": "web", "reason": " "}), "/reason"),
            (json!({"kind": "policy", "value": "web", "name": ""}), "/name"),
        ];
        for (more, pointer) in cases {
            let mut asked = json!({"name": "n", "reason": "r"});
            asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = kept.admin.post("/v1/holds", &asked).await;
            answer.is_problem(422);
            assert_eq!(answer.points_at(), [pointer], "{asked}");
        }
        let policy = kept.hold("policy", &json!({"kind": "policy", "value": "web"})).await;
        let agent = kept.hold("agent", &json!({"kind": "agent", "value": "web-01"})).await;
        let target = kept.hold("target", &json!({"kind": "target", "value": "203.0.113.7"})).await;
        let one = kept.hold("one", &json!({"kind": "response", "value": response})).await;
        let twice = json!({"name": "one", "reason": "r", "kind": "policy", "value": "web"});
        kept.admin.post("/v1/holds", &twice).await.is_problem(409);
        let once = json!({"name": "once", "reason": "r", "kind": "policy", "value": "web"});
        let first = kept.admin.post_once("/v1/holds", &once, "key-1").await.is(201);
        assert_eq!(kept.admin.post_once("/v1/holds", &once, "key-1").await.is(201), first);
        kept.admin.delete(&format!("/v1/holds/{}", first["id"].as_str().unwrap()), None).await.is(204);

        let seen = async |scope: Value| {
            let asked = json!({"name": "k", "role": "viewer", "scope": scope});
            let made = kept.admin.post("/v1/api-keys", &asked).await.is(201);
            let client = kept.admin.with_key(made["key"].as_str().unwrap());
            let listed = client.list("/v1/holds").await;
            for id in [&policy, &agent, &target, &one] {
                let is_listed = listed.iter().any(|hold| hold["id"] == id.as_str());
                assert_eq!(client.get(&format!("/v1/holds/{id}")).await.status == 200, is_listed);
            }
            let mut names: Vec<String> = listed.iter().map(|hold| hold["name"].as_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(seen(json!({"policies": ["web"]})).await, ["one", "policy"]);
        assert_eq!(seen(json!({"policies": ["other"]})).await, Vec::<String>::new());
        assert_eq!(seen(json!({"agents": {"ids": [kept.agent.id]}})).await, ["agent", "one"]);
        let asked = json!({"name": "k", "role": "admin", "scope": {"policies": ["web"]}});
        let made = kept.admin.post("/v1/api-keys", &asked).await;
        if made.status == 201 {
            let key = made.is(201)["key"].as_str().unwrap().to_owned();
            let limited = kept.admin.with_key(&key);
            let other = json!({"name": "x", "reason": "r", "kind": "policy", "value": "web"});
            limited.post("/v1/holds", &other).await.is_problem(403);
            limited.delete(&format!("/v1/holds/{one}"), None).await.is_problem(403);
        }
        // By the command line.
        let key = kept.app.data_dir().join("admin.key");
        let at = ["--manager", &kept.app.base, "--key-file", key.to_str().unwrap()];
        let add = [&["hold", "add", "case 7", "--reason", "r", "--since", "2026-01-01T00:00:00Z"], &at[..]].concat();
        let (is_done, said) = riposte(&add).await;
        assert!(is_done && said.contains("no retention removes the time 2026-01-01T00:00:00"), "{said}");
        let (_, said) = riposte(&[&["hold", "list"], &at[..]].concat()).await;
        assert!(said.contains("case 7") && said.contains("web"), "{said}");
        assert!(riposte(&[&["hold", "release", "case 7"], &at[..]].concat()).await.0);
        assert!(!riposte(&[&["hold", "release", "case 7"], &at[..]].concat()).await.0);
    }
}
