//! The life of a command: cancelled, or sent until it is acknowledged, and answered once, out of
//! order, or never.

use riposte_protocol::command::Op;
use riposte_protocol::message::{Outcome, PollRequest};
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::responses::{after, command, drop_by_hand, effect, lift, path, with_agent};
use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Database, eventually};

on_both_databases! {
    async fn a_command_can_be_called_back_until_it_is_sent(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let cancel = |command: &Value| format!("{}/cancel", path("commands", command));
        let queued = response["commands"][0].clone();
        assert_eq!(admin.post(&cancel(&queued), &json!({"reason": ""})).await.points_at(), ["/reason"]);
        let cancelled = admin.post(&cancel(&queued), &json!({"reason": "a mistake"})).await.is(200);
        assert_eq!((&cancelled["state"], &cancelled["detail"]), (&json!("cancelled"), &json!("a mistake")));
        assert_eq!(agent.owed().await, []);
        let problem = admin.post(&cancel(&queued), &json!({"reason": "again"})).await.is_problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("cancelled"), "{problem}");
        // The agent may be executing it already.
        let response = drop_by_hand(&admin, "203.0.113.8", "10m").await;
        let sent = agent.owed_one().await;
        eventually("the command counts as delivered", || async {
            (command(&admin, sent.jti).await["state"] == "delivered").then_some(())
        })
        .await;
        admin.post(&cancel(&json!({"id": sent.jti})), &json!({"reason": "too late"})).await.is_problem(409);
        // A revert is owed whatever the agent reports.
        agent.obey().await;
        let lifted = lift(&admin, &response).await;
        assert_eq!(lifted["commands"][0]["op"], "revert");
        admin.post(&cancel(&lifted["commands"][0]), &json!({"reason": "no"})).await.is_problem(409);
        assert_eq!(agent.owed_one().await.op, Op::Revert);
        admin.post(&cancel(&json!({"id": Uuid::nil()})), &json!({"reason": "x"})).await.is_problem(404);
    }

    /// A cancelled command is not in force, so the next response sends its own.
    async fn a_response_after_one_that_was_called_back_is_sent(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let first = drop_by_hand(&admin, "203.0.113.7", "30m").await;
        admin
            .post(&format!("{}/cancel", path("commands", &first["commands"][0])), &json!({"reason": "a mistake"}))
            .await
            .is(200);
        let second = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(second["commands"].as_array().unwrap().len(), 1, "the agent never heard of the first one");
        assert_eq!(agent.owed_one().await.op, Op::Apply);
    }

    /// An agent whose disk is full refuses and reports it. It crashes, forgets the refusal, and
    /// gets the command once more.
    async fn promise_9_a_refusal_lost_in_a_crash_is_replaced_by_the_later_result(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        for together in [false, true] {
            drop_by_hand(&admin, if together { "203.0.113.8" } else { "203.0.113.7" }, "10m").await;
            // The response to the first is over, since its agent refused: what is in force is lifted, sooner or later.
            let sent = agent.owed().await.into_iter().find(|command| command.op == Op::Apply).unwrap();
            let refused = agent.result(sent.jti, Outcome::Refused, None);
            let done = agent.result(sent.jti, Outcome::Succeeded, Some(true));
            let messages = if together { vec![vec![refused.clone(), done]] } else { vec![vec![refused.clone()], vec![done]] };
            for results in messages {
                assert_eq!(agent.report(results).await.first(), Some(&sent.jti));
            }
            // A late repetition takes nothing back.
            agent.report(vec![refused]).await;
            let command = command(&admin, sent.jti).await;
            let effects = admin.list(&format!("/v1/effects?target={}", sent.target.value())).await;
            assert_eq!((&command["state"], &command["result"]["outcome"]), (&json!("succeeded"), &json!("succeeded")));
            assert_eq!(command["result"]["verified"], true);
            assert_eq!(effects[0]["actual"], "in_force");
        }
    }

    async fn a_result_that_is_repeated_or_of_another_agents_command_changes_nothing(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let other = app.enrol(&admin, "web-02", &json!({})).await;
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let sent = agent.owed_one().await;
        other.acknowledge(&[&sent]).await;
        other.report(vec![other.result(sent.jti, Outcome::Succeeded, Some(true))]).await;
        eventually("the command counts as delivered", || async {
            (command(&admin, sent.jti).await["state"] == "delivered").then_some(())
        })
        .await;
        assert_eq!(
            (&command(&admin, sent.jti).await["result"], &effect(&admin).await["actual"]),
            (&Value::Null, &json!("unknown"))
        );

        agent.acknowledge(&[&sent]).await;
        let result = agent.result(sent.jti, Outcome::Succeeded, Some(true));
        assert_eq!(agent.report(vec![result.clone(), result.clone()]).await, [sent.jti, sent.jti]);
        let settled = command(&admin, sent.jti).await;
        let history = admin.history("command", &sent.jti.to_string()).await;
        assert_eq!(settled["state"], "succeeded");
        app.advance(5);
        // A repeated result, also with another outcome, is acknowledged and changes nothing.
        assert_eq!(agent.report(vec![result]).await, [sent.jti]);
        assert_eq!(agent.report(vec![agent.result(sent.jti, Outcome::Failed, Some(false))]).await, [sent.jti]);
        agent.acknowledge(&[&sent]).await;
        assert_eq!(command(&admin, sent.jti).await, settled);
        assert_eq!(admin.history("command", &sent.jti.to_string()).await, history);
        assert_eq!(effect(&admin).await["actual"], "in_force");
        // A command that never existed.
        assert_eq!(agent.report(vec![agent.result(Uuid::max(), Outcome::Failed, None)]).await, [Uuid::max()]);
    }

    /// Promise 4: the newest command's result counts, whichever arrives last.
    async fn promise_4_results_out_of_order_do_not_bring_a_lifted_block_back(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let apply = agent.owed_one().await;
        agent.acknowledge(&[&apply]).await;
        lift(&admin, &response).await;
        let revert = agent.owed_one().await;
        agent.report(vec![agent.result(revert.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(effect(&admin).await["actual"], "absent");
        agent.report(vec![agent.result(apply.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(effect(&admin).await["actual"], "absent");
        assert_eq!(command(&admin, apply.jti).await["state"], "succeeded");
        assert_eq!(agent.owed().await, []);
    }

    /// Promise 4, first test.
    async fn promise_4_commands_of_one_effect_arrive_in_the_order_of_their_numbers(database: Database) {
        let (_app, admin, agent) = with_agent(database).await;
        for _ in 0..5 {
            let response = drop_by_hand(&admin, "203.0.113.7", "10m").await;
            lift(&admin, &response).await;
        }
        let owed = agent.owed().await;
        let order: Vec<(u64, Op)> = owed.iter().map(|command| (command.seq, command.op)).collect();
        let expected: Vec<(u64, Op)> = (1..).zip([Op::Apply, Op::Revert].into_iter().cycle()).take(10).collect();
        assert_eq!(order, expected);
        assert!(owed.iter().all(|command| command.effect == owed[0].effect));
        let again: Vec<u64> = agent.owed().await.iter().map(|command| command.seq).collect();
        assert_eq!(
            again,
            (1..=10).collect::<Vec<u64>>(),
            "all unacknowledged commands are sent again, in order"
        );
    }

    /// Promise 11: every state has a deadline, and a task that enforces it.
    async fn promise_11_a_command_that_was_acknowledged_and_never_answered_times_out(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let response = drop_by_hand(&admin, "203.0.113.7", "2h").await;
        let apply = agent.owed_one().await;
        agent.acknowledge(&[&apply]).await;
        assert_eq!(command(&admin, apply.jti).await["state"], "acknowledged");
        app.advance(599);
        let timed_out = app
            .in_time("it times out", || async {
                let seen = command(&admin, apply.jti).await;
                (seen["state"] == "timed_out").then_some(seen)
            })
            .await;
        let at: Timestamp = serde_json::from_value(timed_out["finished_at"].clone()).unwrap();
        assert!((after(600)..after(610)).contains(&at), "{at}");
        assert_eq!(effect(&admin).await["actual"], "drifted");
        let last = admin.history("command", &apply.jti.to_string()).await.pop().unwrap();
        assert_eq!(last, ("riposte".to_owned(), "timed_out".to_owned()));
        // The agent's result counts more than the time-out, however late it is.
        agent.report(vec![agent.result(apply.jti, Outcome::Succeeded, Some(true))]).await;
        assert_eq!(
            (&command(&admin, apply.jti).await["state"], &effect(&admin).await["actual"]),
            (&json!("succeeded"), &json!("in_force"))
        );
        // A revert that gets no result is tried again.
        lift(&admin, &response).await;
        let revert = agent.owed_one().await;
        agent.acknowledge(&[&revert]).await;
        app.advance(599);
        let again = app.in_time("the revert is tried again", || async { agent.owed().await.pop() }).await;
        assert!(again.op == Op::Revert && again.jti != revert.jti);
        assert_eq!(admin.list("/v1/effects?failing=true").await.len(), 1);
    }

    /// Promise 11, first test.
    async fn promise_11_an_expired_command_is_never_delivered(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let endless = drop_by_hand(&admin, "203.0.113.7", "").await;
        let brief = drop_by_hand(&admin, "203.0.113.8", "1h").await;
        app.advance(3599);
        let targets: Vec<String> = agent.owed().await.iter().map(|c| c.target.value().to_owned()).collect();
        assert_eq!(targets, ["203.0.113.7", "203.0.113.8"]);
        // A delivery is recorded just after the answer. One that is not recorded was not sent, as far as the ledger knows.
        for response in [&endless, &brief] {
            app.in_time("the delivery is recorded", || async {
                let seen = admin.get(&path("commands", &response["commands"][0])).await.is(200);
                (seen["state"] == "delivered").then_some(())
            })
            .await;
        }
        // The lease of that delivery must end before the command can expire.
        app.advance(1);
        let applies = agent.owed().await.into_iter().filter(|command| command.op == Op::Apply);
        assert_eq!(applies.map(|command| command.target.value().to_owned()).collect::<Vec<_>>(), ["203.0.113.7"]);
        app.in_time("the apply has expired", || async {
            let seen = admin.get(&path("commands", &brief["commands"][0])).await.is(200);
            (seen["state"] == "expired").then_some(())
        })
        .await;
        // A command without an end waits for a day.
        app.advance(23 * 3600 - 60);
        let sent = |commands: Vec<riposte_protocol::command::Command>| {
            commands.iter().any(|c| c.op == Op::Apply && c.target.value() == "203.0.113.7")
        };
        assert!(sent(agent.owed().await));
        app.advance(60);
        assert!(!sent(agent.owed().await), "it had expired, whether or not the sweep has run");
        let expired = app
            .in_time("the other apply has expired", || async {
                let seen = admin.get(&path("commands", &endless["commands"][0])).await.is(200);
                (seen["state"] == "expired").then_some(seen)
            })
            .await;
        assert!(!expired["detail"].as_str().unwrap().is_empty());
        assert!(!sent(agent.owed().await));
        let failed = admin.get(&path("responses", &endless)).await.is(200);
        assert_eq!((&failed["state"], &failed["outcome"]), (&json!("ended"), &json!("failed")), "{failed}");
        let owed: Vec<Op> = agent.owed().await.iter().map(|command| command.op).collect();
        assert_eq!(owed, [Op::Revert, Op::Revert], "both were sent: the agent may have executed them");
    }

    /// It is unknown whether the effect is in force, so the next response sends its own command.
    async fn a_response_after_one_that_was_never_answered_is_sent(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        drop_by_hand(&admin, "203.0.113.7", "2h").await;
        let first = agent.owed_one().await;
        agent.acknowledge(&[&first]).await;
        app.advance(599);
        app.in_time("it times out", || async {
            (command(&admin, first.jti).await["state"] == "timed_out").then_some(())
        })
        .await;
        let second = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(second["commands"].as_array().unwrap().len(), 1, "the agent may have died in the middle of it");
        let owed: Vec<Op> = agent.owed().await.iter().map(|command| command.op).collect();
        assert_eq!(owed, [Op::Revert, Op::Apply], "the first response is over, and its remains are reverted");
    }

    /// An expired command is not in force, so the next response sends its own.
    async fn a_response_after_one_that_expired_is_sent(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        let first = drop_by_hand(&admin, "203.0.113.7", "").await;
        app.advance(24 * 3600);
        app.in_time("the apply has expired", || async {
            let seen = admin.get(&path("commands", &first["commands"][0])).await.is(200);
            (seen["state"] == "expired").then_some(())
        })
        .await;
        let second = drop_by_hand(&admin, "203.0.113.7", "10m").await;
        assert_eq!(second["commands"].as_array().unwrap().len(), 1, "the agent never heard of the first one");
        assert_eq!(agent.owed_one().await.op, Op::Apply);
    }

    /// Promise 3: a command that was sent and not acknowledged is owed, on a stream as on a poll.
    async fn promise_3_a_command_stays_owed_until_it_is_acknowledged(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        drop_by_hand(&admin, "203.0.113.7", "10m").await;
        let mut stream = agent.stream(0).await;
        let first = stream.commands(&agent).await;
        // No acknowledgement came, so after the lease it is sent again, on this stream and on
        // another one at once.
        app.advance(31);
        assert_eq!(stream.commands(&agent).await, first);
        let mut second = agent.stream(0).await;
        assert_eq!(second.commands(&agent).await, first);
        assert_eq!(stream.hear().await, None, "a newer stream takes the older one's place");
        second.say(&riposte_protocol::message::FromAgent::Ack { command_ids: vec![first[0].jti] }).await;
        eventually("the acknowledgement is committed", || async {
            (command(&admin, first[0].jti).await["state"] == "acknowledged").then_some(())
        })
        .await;
        app.advance(31);
        assert_eq!(agent.owed().await, []);
        // A result is acknowledged when it is durable.
        let result = agent.result(first[0].jti, Outcome::Succeeded, Some(true));
        second.say(&riposte_protocol::message::FromAgent::Result { results: vec![result] }).await;
        let answer = second.hear().await.unwrap();
        assert_eq!(answer, riposte_protocol::message::ToAgent::ResultAck { command_ids: vec![first[0].jti] });
        assert_eq!(command(&admin, first[0].jti).await["state"], "succeeded");
    }

    async fn an_agent_that_waits_hears_of_a_command_as_soon_as_it_is_committed(database: Database) {
        let (app, admin, agent) = with_agent(database).await;
        admin.policy(&drop_policy("drop")).await;
        // The clock stands still: a poll that is not woken would wait for ever.
        let request = PollRequest { wait_seconds: 30, max: 10, ..PollRequest::default() };
        let alert = brute_force("1", "203.0.113.7");
        let (answer, _) = tokio::join!(agent.poll(&request), admin.post("/v1/alerts", &alert));
        assert_eq!(answer.commands.len(), 1);
        let mut stream = agent.stream(0).await;
        stream.commands(&agent).await;
        admin.post("/v1/alerts", &brute_force("2", "203.0.113.8")).await.is(202);
        assert_eq!(stream.commands(&agent).await[0].target.value(), "203.0.113.8");
        // A poll without commands ends at its deadline.
        agent.obey().await;
        let (answer, ()) = tokio::join!(agent.poll(&request), async {
            app.in_time("the poll ends", || async { (app.clock.now() >= after(32)).then_some(()) }).await;
        });
        assert!(answer.commands.is_empty());
    }
}
