//! What agents and a manager promise each other on the wire, tested with the real manager and a
//! fake agent. The real agent's half is in `real_agent.rs`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::{Inbox, Receipt};
use riposte_protocol::message::{CommandResult, FromAgent, Outcome, ToAgent};
use serde_json::json;
use uuid::Uuid;

use super::processes::{
    Api, FakeAgent, Heard, Manager, PATIENCE, Stream, alert, eventually, now, random_below, succeeded, text,
};

/// Short enough to count as "at once" on a busy machine, and far below the lease of 30 s.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);
/// How long the line must stay silent before a test takes it that nothing comes.
pub(super) const SILENT: Duration = Duration::from_millis(700);

/// A manager with a policy, and an enrolled fake agent.
pub(super) async fn start() -> (Manager, Api, FakeAgent) {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let agent = FakeAgent::enroll(&manager, "web-01").await;
    (manager, api, agent)
}

pub(super) async fn lift(api: &Api, response: &str) {
    api.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "a test"})).await;
}

pub(super) fn ids(commands: &[Command]) -> Vec<String> {
    commands.iter().map(|command| command.jti.to_string()).collect()
}

// Promise 3: at least once to the agent.

#[tokio::test]
async fn promise_3_an_unacknowledged_command_is_sent_again_at_once_on_reconnect() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    let first = stream.commands_within(AT_ONCE).await;
    assert_eq!(ids(&first), [text(&command, "id")]);
    drop(stream);
    let again = agent.connect(0).await.commands_within(AT_ONCE).await;
    assert_eq!(
        ids(&again),
        ids(&first),
        "the frame may have been lost, so it is sent again although its lease has not ended"
    );
    // Over the other transport too, and again until it is acknowledged.
    for _ in 0..3 {
        assert_eq!(ids(&agent.poll(json!({"cursor": 0})).await), ids(&first));
    }
    // The delivery is recorded a moment later.
    eventually("every delivery is counted", PATIENCE, async || {
        let command = api.command_is(&ids(&first)[0], "delivered").await;
        (command["deliveries"].as_u64() == Some(5)).then_some(())
    })
    .await;

    // An acknowledged command is owed no longer.
    assert_eq!(agent.poll(json!({"cursor": 0, "acks": [first[0].jti]})).await, []);
    assert!(agent.connect(0).await.hear_within(SILENT).await.is_none());
}

#[tokio::test]
async fn promise_3_a_queued_command_survives_the_manager_and_is_sent_when_the_agent_comes() {
    let (mut manager, api, agent) = start().await;
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    manager.start_again().await;
    let sent = agent.connect(0).await.commands_within(AT_ONCE).await;
    assert_eq!(ids(&sent), [text(&command, "id")]);
    manager.start_again().await;
    assert_eq!(ids(&agent.connect(0).await.commands_within(AT_ONCE).await), ids(&sent));
}

/// About 31 s: the lease uses real time.
#[tokio::test]
async fn promise_3_an_unacknowledged_command_is_sent_again_when_its_lease_ends() {
    let (manager, api, agent) = start().await;
    let other = FakeAgent::enroll(&manager, "web-02").await;
    api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    api.answer_to(&alert(2, "10.0.0.1", &other.name)).await;
    let mut stream = agent.connect(0).await;
    let first = stream.commands_within(AT_ONCE).await;
    // The other agent has journaled its command; the connection broke before its acknowledgement.
    let others = other.connect(0).await.commands_within(AT_ONCE).await;
    let mut others_stream = other.connect(others[0].seq).await;
    // A third agent acknowledges the second of its two commands and never the first.
    let third = FakeAgent::enroll(&manager, "web-03").await;
    api.answer_to(&alert(3, "10.0.0.1", &third.name)).await;
    api.answer_to(&alert(4, "10.0.0.2", &third.name)).await;
    let mut thirds_stream = third.connect(0).await;
    let thirds = thirds_stream.commands_within(AT_ONCE).await;
    thirds_stream.say(&FromAgent::Ack { command_ids: vec![thirds[1].jti] }).await;
    let sent = Instant::now();
    let (again, others_again, thirds_again) =
        tokio::join!(lease_ends(&mut stream), lease_ends(&mut others_stream), lease_ends(&mut thirds_stream));
    let waited = sent.elapsed();
    // All leases end in the future again, so there is nothing to do.
    let before = manager.cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = manager.cpu_time().saturating_sub(before);

    assert!(waited > Duration::from_secs(25), "sent again before the lease was over: {waited:?}");
    let came = [("none acknowledged", again), ("the acknowledgement lost", others_again), ("one of two", thirds_again)];
    let due = [
        ("none acknowledged", ids(&first)),
        ("the acknowledgement lost", ids(&others)),
        ("one of two", ids(&thirds[..1])),
    ];
    assert_eq!(
        (came, spent < Duration::from_millis(500)),
        (due, true),
        "the manager was busy for {spent:?} of two idle seconds"
    );
}

/// Returns what arrives on the stream until shortly after a lease of 30 s has ended.
async fn lease_ends(stream: &mut Stream<'_>) -> Vec<String> {
    match stream.hear_within(Duration::from_secs(36)).await {
        None => vec![],
        Some(Heard::Message(ToAgent::Commands { commands })) => ids(&stream.agent.open(&commands)),
        Some(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn promise_3_a_stream_and_a_poll_at_once_bring_a_command_twice_and_it_counts_once() {
    let (_manager, api, agent) = start().await;
    let mut stream = agent.connect(0).await;
    let polling = agent.poll(json!({"cursor": 0, "wait_seconds": 20}));
    let posting = async {
        // The poll waits by then, or finds the command at once: both are fine.
        tokio::time::sleep(Duration::from_millis(200)).await;
        api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await
    };
    let (polled, (_, command)) = tokio::join!(polling, posting);
    let streamed = stream.commands_within(AT_ONCE).await;
    assert_eq!((ids(&polled), ids(&streamed)), (vec![text(&command, "id").into()], vec![text(&command, "id").into()]));
    let (id, seq) = (polled[0].jti, polled[0].seq);
    // An agent's inbox executes only one of the two.
    let mut inbox = Inbox::new();
    assert_eq!(inbox.receive(id, seq, polled[0].effect), Receipt::New);
    inbox.journaled(id, seq, polled[0].effect);
    assert_eq!(inbox.receive(streamed[0].jti, streamed[0].seq, streamed[0].effect), Receipt::Duplicate);

    // Both transports acknowledge and report the result; the ledger records it once.
    stream.say(&FromAgent::Ack { command_ids: vec![id] }).await;
    stream.say(&FromAgent::Result { results: vec![succeeded(id)] }).await;
    let failed = CommandResult { outcome: Outcome::Failed, ..succeeded(id) };
    match stream.hear().await {
        Heard::Message(ToAgent::ResultAck { command_ids }) => assert_eq!(command_ids, [id]),
        other => panic!("{other:?}"),
    }
    let (_, answer) = agent.exchange(&json!({"cursor": seq, "acks": [id], "results": [failed]})).await;
    assert_eq!(answer["result_acks"], json!([id]));
    let command = api.command(&id.to_string()).await;
    assert_eq!((&command["state"], &command["result"]["outcome"]), (&json!("succeeded"), &json!("succeeded")));
    let audit = api.get(&format!("/v1/audit?noun=command&noun_id={id}")).await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 3, "queued, acknowledged, succeeded: {audit}");
}

#[tokio::test]
async fn the_newest_stream_of_an_agent_replaces_the_older_one() {
    let (_manager, api, agent) = start().await;
    let mut older = agent.connect(0).await;
    let mut newer = agent.connect(0).await;
    let frame = older.end().await.expect("a reason");
    assert_eq!(u16::from(frame.code), 1008, "{frame:?}");
    let (_, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    assert_eq!(ids(&newer.commands_within(AT_ONCE).await), [text(&command, "id")]);
    api.agent_streams(&agent.id.to_string()).await;
}

// Promise 4: in order.

#[tokio::test]
async fn promise_4_a_revert_never_overtakes_its_apply_when_the_answer_to_a_poll_was_lost() {
    let (_manager, api, agent) = start().await;
    let (response, _) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    // The manager believes that the apply was delivered; the agent never saw it.
    let lost = agent.poll(json!({"cursor": 0})).await;
    assert_eq!(lost.len(), 1);
    lift(&api, &response).await;
    let one = agent.poll(json!({"cursor": 0, "max": 1})).await;
    assert_eq!(ids(&one), ids(&lost), "the apply comes first although its lease is not over");
    let both = agent.poll(json!({"cursor": 0})).await;
    assert_eq!(both.iter().map(|command| command.op).collect::<Vec<_>>(), [Op::Apply, Op::Revert]);
    assert!(both[0].seq < both[1].seq && both[0].effect == both[1].effect);
    // Each is signed anew for its delivery, maybe in another second.
    let streamed = agent.connect(0).await.commands_within(AT_ONCE).await;
    assert_eq!((ids(&streamed), streamed[1].seq), (ids(&both), both[1].seq));
    // The apply is in the journal: only the revert is owed. The ledger hears of deliveries a moment later.
    api.command_is(&both[0].jti.to_string(), "delivered").await;
    let rest = agent.poll(json!({"cursor": both[0].seq})).await;
    assert_eq!(ids(&rest), ids(&both[1..]));
    assert_eq!(agent.poll(json!({"cursor": both[1].seq, "acks": [both[0].jti, both[1].jti]})).await, []);
}

/// An agent with bad luck: connections break at random, acknowledgements get lost, transports
/// change.
#[tokio::test]
async fn promise_4_commands_of_an_effect_arrive_in_order_whatever_reconnects_happen() {
    const ALERTS: u64 = 60;
    let (_manager, api, agent) = start().await;
    let mut inbox = Inbox::new();
    let mut journal: Vec<Command> = Vec::new();
    let (mut standing, mut next) = (Vec::new(), 1);
    while next <= ALERTS || !standing.is_empty() {
        for _ in 0..=random_below(3) {
            if next <= ALERTS {
                let (response, _) = api.answer_to(&alert(next, &format!("10.0.0.{next}"), &agent.name)).await;
                standing.push(response);
                next += 1;
            }
        }
        while !standing.is_empty() && (random_below(2) == 0 || next > ALERTS) {
            let response = standing.swap_remove(usize::try_from(random_below(standing.len() as u64)).unwrap());
            lift(&api, &response).await;
        }
        let received = if random_below(2) == 0 {
            agent.poll(json!({"cursor": inbox.cursor(), "max": 1 + random_below(4)})).await
        } else {
            let mut stream = agent.connect(inbox.cursor()).await;
            match stream.hear_within(Duration::from_millis(50)).await {
                Some(Heard::Message(ToAgent::Commands { commands })) => agent.open(&commands),
                _ => vec![],
            }
        };
        // The connection broke before the last of them arrived.
        let arrived = usize::try_from(random_below(received.len() as u64 + 1)).unwrap();
        take_in(&mut inbox, &mut journal, &received[..arrived]);
        if random_below(3) == 0 {
            let acks: Vec<Uuid> = received[..arrived].iter().map(|command| command.jti).collect();
            let more = agent.poll(json!({"cursor": inbox.cursor(), "acks": acks})).await;
            take_in(&mut inbox, &mut journal, &more);
        }
    }
    loop {
        let rest = agent.poll(json!({"cursor": inbox.cursor()})).await;
        if rest.is_empty() {
            break;
        }
        take_in(&mut inbox, &mut journal, &rest);
    }
    let mut of_effect: HashMap<Uuid, Vec<Op>> = HashMap::new();
    for command in &journal {
        of_effect.entry(command.effect).or_default().push(command.op);
    }
    for ops in of_effect.values() {
        assert!(matches!(ops.as_slice(), [Op::Apply, Op::Revert] | [Op::Revert]), "{ops:?}");
    }
    let pairs = of_effect.values().filter(|ops| ops.len() == 2).count();
    assert!(pairs > 10, "only {pairs} effects were applied and reverted: too few to prove anything");
    // Every command has arrived, and nothing else.
    let ordered = api.newer_than("/v1/commands", |_| false).await;
    let ordered: HashSet<&str> = ordered
        .iter()
        .filter(|command| !["cancelled", "expired"].contains(&text(command, "state")))
        .map(|command| text(command, "id"))
        .collect();
    let arrived: HashSet<String> = ids(&journal).into_iter().collect();
    let lost: Vec<_> = ordered.iter().filter(|id| !arrived.contains(**id)).collect();
    assert!(lost.is_empty(), "never arrived: {lost:?}");
}

fn take_in(inbox: &mut Inbox, journal: &mut Vec<Command>, received: &[Command]) {
    for command in received {
        let (id, seq, effect) = (command.jti, command.seq, command.effect);
        match inbox.receive(id, seq, effect) {
            Receipt::New => {
                inbox.journaled(id, seq, effect);
                journal.push(command.clone());
            }
            Receipt::Duplicate => {}
            Receipt::Overtaken | Receipt::TooLate => {
                panic!("a later command of the effect was sent first: {command:?} after {journal:?}")
            }
        }
    }
}

// Promise 8: no forged command.

#[tokio::test]
async fn promise_8_commands_are_signed_by_the_pinned_key_addressed_and_expiring() {
    let (mut manager, api, agent) = start().await;
    let stranger = FakeAgent::enroll(&manager, "db-01").await;
    let (response, command) = api.answer_to(&alert(1, "10.0.0.1", &agent.name)).await;
    // The key survives a restart.
    manager.start_again().await;
    let (_, answer) = agent.exchange(&json!({"cursor": 0})).await;
    let tokens: Vec<String> = serde_json::from_value(answer["commands"].clone()).unwrap();
    let order = Command::open(&tokens[0], &agent.pinned, agent.id).unwrap();
    assert_eq!(agent.pinned, stranger.pinned);
    assert!(Command::open(&tokens[0], &stranger.pinned, stranger.id).is_err(), "it is addressed to one agent");
    assert_eq!((order.jti.to_string(), order.response.to_string()), (text(&command, "id").into(), response.clone()));
    assert_eq!((order.iss.as_str(), order.op, order.target.value()), (MANAGER, Op::Apply, "10.0.0.1"));
    let now = now().as_secs();
    assert!((now - 60..=now).contains(&order.iat), "{order:?}");
    assert!(now < order.exp && order.exp <= order.until.unwrap().as_secs(), "useless after the end: {order:?}");
    lift(&api, &response).await;
    let revert = agent.poll(json!({"cursor": order.seq, "acks": [order.jti]})).await.remove(0);
    assert!(revert.op == Op::Revert && now < revert.exp && revert.exp <= now + 86_400 + 60, "{revert:?}");
    // No agent receives, acknowledges or answers another agent's command.
    assert_eq!(stranger.poll(json!({"cursor": 0})).await, []);
    stranger.exchange(&json!({"cursor": 0, "acks": [revert.jti], "results": [succeeded(revert.jti)]})).await;
    assert_eq!(api.command(&revert.jti.to_string()).await["state"], "delivered");
}
