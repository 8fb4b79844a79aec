//! The real program against a simulated manager: enrolment, the stream and the polls, over real
//! sockets.

use riposte_protocol::command::Command;
use riposte_protocol::identity;
use riposte_protocol::key::SigningKey;
use riposte_protocol::message::{FromAgent, Outcome, PollRequest, PollResponse, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::support::{AGENT, Manager, PROMPT, agent, ids, stop};

#[tokio::test]
async fn a_result_is_sent_again_until_the_manager_has_it() {
    let (manager, public_key) = Manager::with_agent().await;
    let mut running = manager.run(&[]);
    let mut stream = manager.accept().await;
    let now = Timestamp::from_millis(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap());
    identity::check(&stream.bearer, &public_key, AGENT, now).unwrap();
    assert_eq!(stream.hello().await, (0, 0));
    stream.send(&ToAgent::Commands { commands: vec![manager.command(5, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[5]));
    let first = stream.results().await;
    assert_eq!((first[0].outcome, first[0].verified), (Outcome::Succeeded, Some(true)));
    drop(stream);

    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (5, 1), "the cursor and the effect are remembered");
    assert_eq!(stream.results().await, first);
    // The manager delivers again, as if the acknowledgement had been lost: the command is not
    // executed again.
    stream.send(&ToAgent::Commands { commands: vec![manager.command(5, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[5]));
    assert_eq!(stream.results().await, first);
    drop(stream);
    // Waits for the end of the process: it would still hold the lock.
    running.kill().await.unwrap();

    // The journal of a killed agent still has it.
    let running = manager.run(&[]);
    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (5, 1));
    assert_eq!(stream.results().await, first);
    stream.send(&ToAgent::ResultAck { command_ids: ids(&[5]) }).await;
    let FromAgent::Effects { effects, .. } = stream.next().await else {
        panic!("what is held is told after the result")
    };
    assert_eq!(effects.len(), 1);
    stream.send(&ToAgent::Commands { commands: vec![manager.command(5, |_| ()), manager.command(6, |_| ())] }).await;
    assert_eq!(stream.ack().await, ids(&[5, 6]));
    assert_eq!(stream.results().await[0].command_id, Uuid::from_u128(6), "what is committed is not told again");
    assert_eq!(stop(running).await, 0);

    let status = agent(manager.state.path(), &["status", "--json"]).output().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["cursor"], &status["results_unsent"]), (&json!(6), &json!(1)));
    assert_eq!(status["effects"].as_array().unwrap().len(), 2, "stopping lifts nothing");
}

#[tokio::test]
async fn no_forged_order_is_acknowledged_and_every_refusal_is_reported() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    let stranger = SigningKey::from_seed(&[9; 32]).unwrap();
    let good = manager.command(1, |_| ());
    let forged = {
        let command = Command::open(&good, &[("k1".into(), manager.key.verifying_key())], AGENT).unwrap();
        [command.sign(&stranger, "k1").unwrap(), command.sign(&stranger, "k9").unwrap()]
    };
    let effect = Uuid::from_u128(77);
    let commands = vec![
        forged[0].clone(),
        forged[1].clone(),
        "not a token".into(),
        manager.command(1, |command| command.aud = Uuid::from_u128(2)),
        manager.command(3, |command| command.effect = effect),
        manager.command(2, |command| command.effect = effect),
        manager.command(4, |command| command.exp = 1),
        manager.command(5, |command| command.action = "make-tea".into()),
        manager.command(6, |command| command.target = Target::parse(TargetKind::Ip, "127.0.0.1").unwrap()),
    ];
    stream.send(&ToAgent::Commands { commands }).await;
    assert_eq!(stream.ack().await, ids(&[3, 2, 4, 5, 6]), "what is forged is not acknowledged");
    let mut results = Vec::new();
    while results.len() < 5 {
        results.extend(stream.results().await);
    }
    results.sort_by_key(|result| result.command_id);
    let told: Vec<_> = results.iter().map(|result| (result.outcome, result.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (Outcome::Refused, "a newer command of the same effect was received before this one"),
            (Outcome::Succeeded, "in force"),
            (Outcome::Refused, "expired before it could be executed"),
            (Outcome::Refused, "this agent does not know the action make-tea"),
            (Outcome::Refused, "the target is protected: a loopback address"),
        ]
    );
}

#[tokio::test]
async fn a_manager_that_falls_silent_is_left_and_found_again() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&["--transport", "stream"]);
    let mut silent = manager.accept().await;
    silent.hello().await;
    // The manager reads no more, so it answers no ping: after three heartbeats of a second the
    // agent reconnects.
    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (0, 0));
    stream.send(&ToAgent::Bye { retry_after: 0 }).await;
    let mut stream = manager.accept().await;
    assert_eq!(stream.hello().await, (0, 0));
    drop(silent);
}

#[tokio::test]
async fn an_agent_that_can_not_stream_polls() {
    let (manager, _) = Manager::with_agent().await;
    let running = manager.run(&[]);
    for _ in 0..2 {
        manager
            .exchange(|path, _| {
                assert_eq!(path, "GET /v1/agent/stream");
                (404, (), String::new())
            })
            .await;
    }
    let poll = |commands: Vec<String>, result_acks: Vec<Uuid>| {
        let answer =
            serde_json::to_string(&PollResponse { commands, result_acks, settings: PROMPT, key_statements: vec![] })
                .unwrap();
        manager.exchange(move |path, body| {
            assert_eq!(path, "POST /v1/agent/poll");
            (200, serde_json::from_str::<PollRequest>(&body).unwrap(), answer)
        })
    };
    let first = poll(vec![manager.command(5, |_| ())], vec![]).await;
    assert_eq!((first.cursor, first.effects, first.capabilities.is_some()), (0, Some(vec![]), true));
    let mut second = poll(vec![], vec![]).await;
    assert_eq!((second.cursor, second.acks), (5, ids(&[5])));
    while second.results.is_empty() {
        second = poll(vec![], vec![]).await;
    }
    assert_eq!(second.results[0].outcome, Outcome::Succeeded);
    assert!(second.capabilities.is_none(), "told once");
    // An exchange that fails loses nothing.
    manager.exchange(|_, _| (503, (), String::new())).await;
    let again = poll(vec![], ids(&[5])).await;
    assert_eq!(again.results, second.results);
    let last = poll(vec![], vec![]).await;
    assert!(last.results.is_empty());
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn promise_10_results_that_wait_are_told_before_what_is_held_and_nothing_new_is_taken_before_that() {
    let (manager, _) = Manager::with_agent().await;
    let running = manager.run(&["--transport", "stream"]);
    let mut stream = manager.accept().await;
    stream.hello().await;
    let commands = (1..=70).map(|seq| manager.command(seq, |_| ())).collect();
    stream.send(&ToAgent::Commands { commands }).await;
    stream.ack().await;
    let mut told = 0;
    while told < 70 {
        told += stream.results().await.len();
    }
    drop(stream);
    assert_eq!(stop(running).await, 0);

    let running = manager.run(&["--transport", "poll"]);
    let poll = |result_acks: Vec<Uuid>| {
        let answer = PollResponse { commands: vec![], result_acks, settings: PROMPT, key_statements: vec![] };
        let answer = serde_json::to_string(&answer).unwrap();
        manager.exchange(move |_, body| (200, serde_json::from_str::<PollRequest>(&body).unwrap(), answer))
    };
    let first = poll(vec![]).await;
    assert_eq!((first.results.len(), &first.effects, first.max), (70, &None, 0));
    assert!(first.capabilities.is_some());
    let second = poll(first.results.iter().map(|result| result.command_id).collect()).await;
    assert_eq!((second.results.len(), second.effects.as_ref(), second.max), (70, None, 0), "not confirmed yet");
    let third = poll(vec![]).await;
    assert_eq!((third.results.len(), third.effects.map(|effects| effects.len()), third.max), (0, Some(70), 64));
    assert_eq!(stop(running).await, 0);
}

#[tokio::test]
async fn a_refused_enrolment_reports_the_reason_and_leaves_no_identity() {
    let manager = Manager::start().await;
    let enrolling = agent(manager.state.path(), &["enroll", "--manager", &manager.url, "--token", "old"]).output();
    let problem = r#"{"type":"x","title":"Unauthorized","detail":"the enrolment token has expired"}"#;
    let (enrolled, ()) = tokio::join!(enrolling, manager.exchange(|_, _| (401, (), problem.into())));
    let enrolled = enrolled.unwrap();
    let said = String::from_utf8_lossy(&enrolled.stderr);
    assert_eq!(enrolled.status.code(), Some(1));
    assert!(said.contains("the enrolment token has expired"), "{said}");
    let ran = agent(manager.state.path(), &["run"]).output().await.unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("not enrolled"));
}

#[tokio::test]
async fn one_state_directory_has_one_running_agent() {
    let (manager, _) = Manager::with_agent().await;
    let _running = manager.run(&[]);
    manager.accept().await.hello().await;
    let second = agent(manager.state.path(), &["run"]).output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another riposte-agent is running"));
}
