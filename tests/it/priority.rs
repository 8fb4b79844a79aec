//! What goes first: a person's commands, then reverts, then the applies of policies; and never a later command of an effect
//! before an earlier one (promise 4). On both databases.

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{Outcome, PollRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::alert::{brute_force, drop_policy, ndjson};
use crate::support::{Client, Database, FakeAgent, TestApp};

/// More than may be under way to one agent.
const BACKLOG: usize = 300;

/// An agent that is owed the block of 203.0.113.7 and a long backlog behind it.
async fn with_backlog(database: Database) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    admin.policy(&drop_policy("drop")).await;
    let sources = std::iter::once("203.0.113.7".to_owned())
        .chain((0..BACKLOG).map(|n| format!("198.51.{}.{}", n / 200, 1 + n % 200)));
    let alerts: Vec<Value> = sources.enumerate().map(|(n, source)| brute_force(&format!("1.{n}"), &source)).collect();
    let taken = admin.alerts("application/x-ndjson", ndjson(&alerts)).await.is(202);
    assert_eq!(taken["accepted"], BACKLOG + 1);
    (app, admin, agent)
}

async fn by_hand(admin: &Client, target: &str, lasts: &str) {
    let asked = json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": lasts, "reason": "x"});
    admin.post("/v1/responses", &asked).await.is(201);
}

/// Does the first command and says so; then it can be lifted.
async fn obey_the_first(agent: &FakeAgent) -> Command {
    let first = agent.owed().await.remove(0);
    agent.acknowledge(&[&first]).await;
    agent.report(vec![agent.result(first.jti, Outcome::Succeeded, Some(true))]).await;
    first
}

async fn lift(admin: &Client, command: &Command) {
    admin.post(&format!("/v1/responses/{}/lift", command.response), &json!({"reason": "over"})).await.is(200);
}

/// The first `count` that it is sent: what they are, and at which target.
async fn first(agent: &FakeAgent, count: usize) -> Vec<(Op, bool, String)> {
    let owed = agent.owed().await;
    owed.iter().take(count).map(|command| (command.op, command.urgent, command.target.value().to_owned())).collect()
}

on_both_databases! {
    async fn what_a_person_asks_for_and_then_reverts_go_before_a_backlog(database: Database) {
        let (_app, admin, agent) = with_backlog(database).await;
        let blocked = obey_the_first(&agent).await;
        assert_eq!((blocked.target.value(), blocked.urgent), ("203.0.113.7", false));
        lift(&admin, &blocked).await;
        by_hand(&admin, "203.0.113.200", "1h").await;
        let expected = [
            (Op::Apply, true, "203.0.113.200".to_owned()),
            (Op::Revert, false, "203.0.113.7".to_owned()),
            (Op::Apply, false, "198.51.0.1".to_owned()),
        ];
        assert_eq!(first(&agent, 3).await, expected);
    }

    async fn promise_4_an_urgent_command_takes_the_earlier_ones_of_its_effect_along(database: Database) {
        let (_app, admin, agent) = with_backlog(database).await;
        // The last of the backlog, which could not be sent yet.
        by_hand(&admin, "198.51.1.100", "1h").await;
        let expected = [
            (Op::Apply, false, "198.51.1.100".to_owned()),
            (Op::Apply, true, "198.51.1.100".to_owned()),
            (Op::Apply, false, "203.0.113.7".to_owned()),
        ];
        assert_eq!(first(&agent, 3).await, expected);
    }

    async fn a_freeze_holds_up_no_revert_however_many_applies_wait(database: Database) {
        let (_app, admin, agent) = with_backlog(database).await;
        let blocked = obey_the_first(&agent).await;
        for n in 0..BACKLOG {
            by_hand(&admin, "203.0.113.201", &format!("{}m", n + 1)).await;
        }
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "night"}), None).await.is(200);
        assert_eq!(first(&agent, 9).await, []);
        lift(&admin, &blocked).await;
        assert_eq!(first(&agent, 9).await, [(Op::Revert, false, "203.0.113.7".to_owned())]);
        // Of one effect, all of it frozen but the last.
        let filter = json!({"target": "203.0.113.201", "reason": "over"});
        admin.post("/v1/responses/lift", &filter).await.is(200);
        let reverts = first(&agent, 9).await;
        assert!(reverts.contains(&(Op::Revert, true, "203.0.113.201".to_owned())), "{reverts:?}");
        admin.put("/v1/freeze", &json!({"frozen": false, "reason": "morning"}), None).await.is(200);
        assert_eq!(agent.owed().await.len(), 256, "and then everything");
    }

    async fn promise_4_a_host_set_back_is_not_sent_what_a_newer_command_had_overtaken(database: Database) {
        let (_app, admin, agent) = with_backlog(database).await;
        let blocked = agent.owed().await.remove(0);
        assert_eq!(blocked.target.value(), "203.0.113.7");
        lift(&admin, &blocked).await;
        let owed = agent.owed().await;
        assert_eq!((owed[0].jti, owed[1].op), (blocked.jti, Op::Revert), "what is sent again keeps its place");
        // The acknowledgement of the apply was lost, that of its revert was not.
        agent.acknowledge(&[&owed[1]]).await;
        agent.report(vec![agent.result(owed[1].jti, Outcome::Succeeded, Some(true))]).await;
        let state = async || admin.get(&format!("/v1/commands/{}", blocked.jti)).await.is(200)["state"].clone();
        let hello = |cursor| PollRequest {
            effects: Some(vec![]), run: Some(Uuid::from_u128(1)), cursor, max: 0, ..PollRequest::default()
        };
        agent.poll(&hello(owed[1].seq)).await;
        assert_eq!(state().await, "delivered", "it remembers the revert, and would refuse the apply");
        agent.poll(&hello(0)).await;
        assert_eq!(state().await, "expired");
        assert!(agent.owed().await.iter().all(|command| command.effect != blocked.effect));
        let history = admin.history("command", &blocked.jti.to_string()).await;
        assert!(history.iter().any(|(_, verb)| verb == "expired"), "{history:?}");
        // It had been done after all: the agent's own word counts.
        agent.report(vec![agent.result(blocked.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(state().await, "succeeded");
        assert_eq!(admin.get(&format!("/v1/effects?target={}", "203.0.113.7")).await.is(200)["items"][0]["actual"], "absent");
    }
}
