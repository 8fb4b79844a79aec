//! The order of delivery: commands by hand, then reverts, then the applies of policies. A later
//! command of an effect never precedes an earlier one (promise 4). On both databases.

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::{FromAgent, Outcome, PollRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::alert::{brute_force, drop_policy, ndjson};
use crate::support::{Client, Database, FakeAgent, TestApp};

/// More commands than may be in progress for one agent.
const BACKLOG: usize = 300;

/// The sources of the backlog, all from one agent's alerts.
fn source(n: usize) -> String {
    format!("198.51.{}.{}", n / 200, 1 + n % 200)
}

async fn alerts_of(admin: &Client, round: usize, sources: impl Iterator<Item = String>) {
    let alerts: Vec<Value> =
        sources.enumerate().map(|(n, source)| brute_force(&format!("{round}.{n}"), &source)).collect();
    let taken = admin.alerts("application/x-ndjson", ndjson(&alerts)).await.is(202);
    assert_eq!(taken["accepted"], alerts.len());
}

/// An agent that has applied a block of 203.0.113.7 for `lasts`, and is owed a long backlog.
async fn with_backlog(database: Database, lasts: &str) -> (TestApp, Client, FakeAgent, Command) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    by_hand(&admin, "203.0.113.7", lasts).await;
    let blocked = agent.answer(Outcome::Succeeded, Some(true)).await;
    admin.policy(&drop_policy("drop")).await;
    alerts_of(&admin, 1, (0..BACKLOG).map(source)).await;
    (app, admin, agent, blocked)
}

async fn by_hand(admin: &Client, target: &str, lasts: &str) {
    let asked = json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": lasts, "reason": "x"});
    admin.post("/v1/responses", &asked).await.is(201);
}

async fn lift(admin: &Client, command: &Command) {
    admin.post(&format!("/v1/responses/{}/lift", command.response), &json!({"reason": "over"})).await.is(200);
}

/// Returns the first `count` commands that it is sent, with their targets.
async fn first(agent: &FakeAgent, count: usize) -> Vec<(Op, bool, String)> {
    let owed = agent.owed().await;
    owed.iter().take(count).map(|command| (command.op, command.urgent, command.target.value().to_owned())).collect()
}

on_both_databases! {
    async fn commands_by_hand_and_then_reverts_go_before_a_backlog(database: Database) {
        let (app, admin, agent, _blocked) = with_backlog(database, "1m").await;
        app.advance(61);
        let reverts = "/v1/commands?state=queued";
        app.in_time("the block is over", || async {
            admin.list(reverts).await.iter().any(|command| command["op"] == "revert").then_some(())
        })
        .await;
        by_hand(&admin, "203.0.113.200", "1h").await;
        let expected = [
            (Op::Apply, true, "203.0.113.200".to_owned()),
            (Op::Revert, false, "203.0.113.7".to_owned()),
            (Op::Apply, false, source(0)),
        ];
        assert_eq!(first(&agent, 3).await, expected);
    }

    async fn a_lift_by_hand_goes_first_too(database: Database) {
        let (_app, admin, agent, blocked) = with_backlog(database, "1h").await;
        lift(&admin, &blocked).await;
        let expected = [(Op::Revert, true, "203.0.113.7".to_owned()), (Op::Apply, false, source(0))];
        assert_eq!(first(&agent, 2).await, expected);
    }

    async fn promise_4_an_urgent_command_takes_the_earlier_ones_of_its_effect_along(database: Database) {
        let (_app, admin, agent, _blocked) = with_backlog(database, "1h").await;
        // The last command of the backlog, which could not be sent yet.
        let last = source(BACKLOG - 1);
        by_hand(&admin, &last, "1h").await;
        let expected = [(Op::Apply, true, last.clone()), (Op::Apply, true, last), (Op::Apply, false, source(0))];
        assert_eq!(first(&agent, 3).await, expected);
    }

    async fn promise_4_an_apply_waits_for_the_reverts_before_it_however_many_there_are(database: Database) {
        let (app, admin, agent, blocked) = with_backlog(database, "1h").await;
        while !agent.obey().await.is_empty() {}
        app.advance(601);
        app.in_time("all blocks are over", || async {
            let queued = admin.list("/v1/commands?state=queued").await;
            (queued.iter().filter(|command| command["op"] == "revert").count() == BACKLOG).then_some(())
        })
        .await;
        // The source whose revert is behind all others attacks again.
        let again = source(BACKLOG - 1);
        alerts_of(&admin, 2, std::iter::once(again.clone())).await;
        let (mut stream, mut came) = (agent.stream(blocked.seq).await, Vec::new());
        while came.len() < BACKLOG + 1 {
            let commands = stream.commands(&agent).await;
            let command_ids = commands.iter().map(|command| command.jti).collect();
            came.extend(commands);
            // A full window of commands has to arrive before the first acknowledgement.
            if came.len() >= 256 {
                let ids = came.iter().map(|command: &Command| command.jti).collect();
                stream.say(&FromAgent::Ack { command_ids: if came.len() < 320 { ids } else { command_ids } }).await;
            }
        }
        let of_it: Vec<Op> =
            came.iter().filter(|command| command.target.value() == again).map(|command| command.op).collect();
        assert_eq!(of_it, [Op::Revert, Op::Apply]);
    }

    async fn a_freeze_holds_up_no_revert_however_many_applies_wait(database: Database) {
        let (_app, admin, agent, blocked) = with_backlog(database, "1h").await;
        for n in 0..BACKLOG {
            by_hand(&admin, "203.0.113.201", &format!("{}m", n + 1)).await;
        }
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "night"}), None).await.is(200);
        assert_eq!(first(&agent, 9).await, []);
        lift(&admin, &blocked).await;
        assert_eq!(first(&agent, 9).await, [(Op::Revert, true, "203.0.113.7".to_owned())]);
        // Many commands of one effect, all frozen except the last.
        let filter = json!({"target": "203.0.113.201", "reason": "over"});
        admin.post("/v1/responses/lift", &filter).await.is(200);
        let reverts = first(&agent, 9).await;
        assert!(reverts.contains(&(Op::Revert, true, "203.0.113.201".to_owned())), "{reverts:?}");
        admin.put("/v1/freeze", &json!({"frozen": false, "reason": "morning"}), None).await.is(200);
        assert_eq!(agent.owed().await.len(), 256, "and then a full window");
    }

    async fn promise_4_a_restored_host_is_not_sent_an_overtaken_command(database: Database) {
        let (_app, admin, agent, _blocked) = with_backlog(database, "1h").await;
        let blocked = agent.owed().await.remove(0);
        assert_eq!(blocked.target.value(), source(0));
        lift(&admin, &blocked).await;
        let owed = agent.owed().await;
        assert_eq!((owed[0].jti, owed[1].op), (blocked.jti, Op::Revert), "a redelivered command keeps its place");
        // Neither was acknowledged. The agent reported the revert's result; the result of the apply
        // was lost.
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
        // The apply had been executed after all: the agent's own result counts.
        agent.report(vec![agent.result(blocked.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(state().await, "succeeded");
        let effects = admin.get(&format!("/v1/effects?target={}", source(0))).await.is(200);
        assert_eq!(effects["items"][0]["actual"], "absent");
    }

    async fn promise_10_an_effect_lost_on_a_restored_host_is_applied_again_after_overtaking(database: Database) {
        let (_app, admin, agent, _blocked) = with_backlog(database, "1h").await;
        let blocked = agent.owed().await.remove(0);
        by_hand(&admin, blocked.target.value(), "2h").await;
        let owed = agent.owed().await;
        let longer = owed.iter().find(|command| command.effect == blocked.effect && command.jti != blocked.jti).unwrap();
        // The first one may still arrive, as far as the manager knows.
        agent.report(vec![agent.result(longer.jti, Outcome::Succeeded, Some(true))]).await;
        let hello = PollRequest { effects: Some(vec![]), run: Some(Uuid::from_u128(1)), max: 0, ..PollRequest::default() };
        agent.poll(&hello).await;
        // It is behind the backlog, so it is not sent yet.
        let commands = admin.list(&format!("/v1/commands?effect_id={}", blocked.effect)).await;
        let states: Vec<_> = commands.iter().map(|command| (&command["op"], &command["state"])).collect();
        assert_eq!(json!(states), json!([["apply", "queued"], ["apply", "succeeded"], ["apply", "expired"]]));
        assert_eq!(commands[0]["until"], commands[1]["until"]);
    }
}
