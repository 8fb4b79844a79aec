//! Recorded exchanges, replayed: what an earlier agent sent, to this manager, and what an earlier
//! manager sent, to this agent. The answers must be the recorded ones byte for byte, except ids,
//! times and signatures (`recording.rs`).

use riposte_protocol::message::{FromAgent, PollResponse, ToAgent};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::delivery::{lift, start};
use super::super::processes::{Api, FakeAgent, PATIENCE, Stream, alert, eventually, now};
use super::super::real_agent::{FakeManager, FakeStream, KID};
use super::recording::{Names, lines, seal, unseal};

const STREAM: &str = include_str!("../../data/exchange/stream.txt");
/// The same, of an agent that learns keys of the manager.
const STREAM_KEYS: &str = include_str!("../../data/exchange/stream-keys.txt");
const POLL: &str = include_str!("../../data/exchange/poll.txt");

/// What an agent says it can do; which actions it names depends on its host.
const CAPABILITIES: &str = r#"[{"action":"log-only","available":true,"reason":null}]"#;

fn agents_names(agent: &FakeAgent) -> Names {
    Names::of([
        ("agent", agent.id.to_string()),
        ("kid", agent.pinned[0].0.clone()),
        ("run", Uuid::now_v7().to_string()),
        ("capabilities", CAPABILITIES.into()),
    ])
}

/// Does what the recorded client did. Returns the response.
async fn ask(api: &Api, what: &str, response: Option<String>) -> String {
    match (what, response) {
        ("alert", None) => api.answer_to(&alert(1, "203.0.113.7", "web-01")).await.0,
        ("lift", Some(response)) => {
            lift(api, &response).await;
            response
        }
        (what, response) => panic!("{what} of {response:?}"),
    }
}

async fn is_lifted(api: &Api, response: &str) {
    eventually("the response has ended and its commands are done", PATIENCE, async || {
        let row = api.response(response).await;
        let commands: Vec<&Value> = row["commands"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        (row["state"] == "ended" && commands == ["succeeded"; 2]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_recorded_agent_is_served_over_a_stream_as_it_was_then() {
    for recorded in [STREAM, STREAM_KEYS] {
        is_served(recorded).await;
    }
}

async fn is_served(recorded: &'static str) {
    let (_manager, api, agent) = start().await;
    let mut names = agents_names(&agent);
    let mut stream = agent.try_connect().await.unwrap();
    let mut response = None;
    for line in lines(recorded) {
        match line.speaker {
            "agent" => stream.say_text(names.fill(&line)).await,
            "manager" => names.read(&line, &managers_frame(&mut stream).await),
            _ => response = Some(ask(&api, &names.fill(&line), response).await),
        }
    }
    is_lifted(&api, &response.unwrap()).await;
}

/// The next frame of the manager; its commands are verified.
async fn managers_frame(stream: &mut Stream<'_>) -> String {
    let frame = stream.hear_text().await;
    let ToAgent::Commands { commands } = serde_json::from_str(&frame).unwrap() else { return frame };
    stream.agent.open(&commands);
    unseal(&frame, &commands)
}

#[tokio::test]
async fn a_recorded_agent_is_served_over_polls_as_it_was_then() {
    let (_manager, api, agent) = start().await;
    let mut names = agents_names(&agent);
    let (mut request, mut response) = (String::new(), None);
    for line in lines(POLL) {
        match line.speaker {
            "agent" => request = names.fill(&line),
            "manager" => {
                let (status, body) = agent.exchange_text(std::mem::take(&mut request)).await;
                assert_eq!(status, 200, "{body}");
                let PollResponse { commands, .. } = serde_json::from_str(&body).unwrap();
                agent.open(&commands);
                names.read(&line, &unseal(&body, &commands));
            }
            _ => response = Some(ask(&api, &names.fill(&line), response).await),
        }
    }
    is_lifted(&api, &response.unwrap()).await;
}

#[tokio::test]
async fn a_recorded_manager_is_obeyed_over_a_stream_as_it_was_then() {
    let mut manager = FakeManager::start();
    manager.agent.run(&["--transport", "stream"]);
    let id = || Uuid::now_v7().to_string();
    let seconds = now().as_secs();
    let mut names = Names::of([
        ("agent", manager.agent_id.to_string()),
        ("kid", KID.into()),
        ("apply", id()),
        ("revert", id()),
        ("effect", id()),
        ("response", id()),
        ("applied", seconds.to_string()),
        ("apply-before", (seconds + 600).to_string()),
        ("reverted", seconds.to_string()),
        ("revert-before", (seconds + 600).to_string()),
        ("until", now().plus(std::time::Duration::from_hours(1)).to_string()),
    ]);
    let mut stream = manager.connect().await;
    for line in lines(STREAM_KEYS) {
        match line.speaker {
            "agent" => names.read(&line, &agents_frame(&mut stream).await),
            "manager" => stream.send_text(seal(&names.fill(&line), &manager.key, KID)).await,
            // What a client asks of a manager shows in its commands.
            _ => {}
        }
    }
    eventually("the agent holds nothing", PATIENCE, async || {
        (manager.agent.status()["effects"] == json!([])).then_some(())
    })
    .await;
    let log = manager.agent.log();
    assert_eq!((log.matches("log-only: applied").count(), log.matches("log-only: reverted").count()), (1, 1), "{log}");
}

/// The next frame of the agent that does not depend on time alone.
async fn agents_frame(stream: &mut FakeStream) -> String {
    loop {
        let frame = stream.hear_text().await;
        match serde_json::from_str(&frame).unwrap() {
            FromAgent::Heartbeat | FromAgent::Clock { .. } => {}
            _ => return frame,
        }
    }
}
