//! Accounts as targets: names that a host can have, names that a directory can have, and how both
//! are protected in every spelling.

use serde_json::{Value, json};

use crate::support::{Client, Database, TestApp};

/// Names as Office 365, Windows, a cloud and a directory write them.
const NAMES: [&str; 8] = [
    "CORP\\alice",
    "alice+tag@example.org",
    "John Smith",
    "m\u{fc}ller",
    "WEB01$",
    "0f0f0f0f-1111-2222-3333-444455556666",
    "1001",
    "arn:aws:iam::123456789012:user/alice",
];

fn alert(id: usize, user: &str) -> Value {
    json!({"timestamp": "2026-11-24T09:59:58.345+0000", "id": format!("1.{id}"), "agent": {"id": "001", "name": "h1"},
        "manager": {"name": "wm"}, "rule": {"id": "5763", "level": 10, "groups": ["u"]}, "data": {"srcuser": user}})
}

/// Creates an action for accounts, and a policy that runs it.
async fn armed(admin: &Client, name: &str, user: Option<&str>) {
    let mut action = json!({"name": name, "executable": "suspend.sh", "target_kinds": ["user"], "undoable": true});
    if let Some(user) = user {
        action["user"] = json!(user);
    }
    let made = admin.post("/v1/actions", &action).await.is(201);
    assert_eq!(made.get("user"), user.filter(|user| *user == "any").map(|_| json!("any")).as_ref());
    admin
        .policy(&json!({"name": name, "match": [{"rule_groups": ["u"]}],
        "respond": {"action": name, "target": "source.user", "for": "10m"}}))
        .await;
}

async fn spared(admin: &Client, policy: &str) -> Vec<String> {
    let mut responses = admin.list(&format!("/v1/responses?state=spared&policy={policy}")).await;
    responses.reverse();
    responses.iter().map(|response| response["reason"].as_str().unwrap().to_owned()).collect()
}

on_both_databases! {
    async fn field_13_a_custom_action_for_a_directory_gets_its_names(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        armed(&admin, "suspend", Some("any")).await;
        armed(&admin, "suspend-local", None).await;
        for (n, name) in NAMES.iter().enumerate() {
            admin.post("/v1/alerts", &alert(n, name)).await.is(202);
        }
        let commands = agent.owed().await;
        let of = |action: &str| -> Vec<&str> {
            commands.iter().filter(|command| command.action == action).map(|command| command.target.value()).collect()
        };
        assert_eq!(of("suspend"), NAMES);
        // By default an account is one that a host can have.
        assert_eq!(of("suspend-local"), ["WEB01$"]);
        assert_eq!(spared(&admin, "suspend-local").await, ["target_invalid"; 7]);
        // An invisible character is not part of a name, and root is root.
        for (n, name) in ["a\u{202e}b", "x\ty", "-rf", "HOST\\root"].into_iter().enumerate() {
            admin.post("/v1/alerts", &alert(100 + n, name)).await.is(202);
        }
        assert_eq!(spared(&admin, "suspend").await, ["target_invalid", "target_invalid", "target_invalid", "protected"]);
        // The same by hand.
        let by_hand = |action: &str| json!({"action": action, "target": {"kind": "user", "value": " CORP\\bob "}, "agents": ["h1"],
            "for": "10m", "reason": "left"});
        let made = admin.post("/v1/responses", &by_hand("suspend")).await.is(201);
        assert_eq!(made["target_value"], "CORP\\bob");
        for action in ["suspend-local", "disable-account"] {
            assert_eq!(admin.post("/v1/responses", &by_hand(action)).await.points_at(), ["/target/value"], "{action}");
        }
        // A lift finds them under the same name.
        let lifted = admin.post("/v1/responses/lift", &json!({"target": "CORP\\alice", "reason": "back"})).await.is(200);
        assert_eq!(lifted["count"], 1);
    }

    async fn field_13_a_protected_account_is_protected_however_it_is_written(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        armed(&admin, "suspend", Some("any")).await;
        admin.post("/v1/alerts", &alert(0, "CORP\\Alice")).await.is(202);
        let [active] = admin.list("/v1/responses?state=active").await.try_into().unwrap();
        // A new entry lifts the effects in force.
        let entry = json!({"kind": "user", "value": " ALICE ", "reason": "the pager"});
        let made = admin.post("/v1/protected", &entry).await.is(201);
        assert_eq!((&made["value"], &made["lifts"][0]["response_id"]), (&json!("alice"), &active["id"]));
        for (n, name) in ["alice", "CORP\\alice", "Alice@corp.example", "corp/ALICE"].into_iter().enumerate() {
            admin.post("/v1/alerts", &alert(10 + n, name)).await.is(202);
        }
        assert_eq!(spared(&admin, "suspend").await, ["protected"; 4]);
        admin.post("/v1/protected", &json!({"kind": "user", "value": "CORP\\Bob", "reason": "the other pager"})).await.is(201);
        for (n, name) in ["OTHER\\bob", "bob@corp.example"].into_iter().enumerate() {
            admin.post("/v1/alerts", &alert(20 + n, name)).await.is(202);
        }
        assert_eq!(spared(&admin, "suspend").await, ["protected"; 5]);
        let [active] = admin.list("/v1/responses?state=active").await.try_into().unwrap();
        assert_eq!(active["target_value"], "OTHER\\bob");
    }
}
