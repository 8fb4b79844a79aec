//! The forms of the messages on the wire.

use super::*;
use crate::target::TargetKind;

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn the_frames_of_a_stream_are_the_documented_ones() {
    let id = Uuid::from_u128(7);
    let at: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    let held = HeldEffect {
        effect: id,
        action: "firewall-drop".into(),
        target: Target::parse(TargetKind::Ip, "203.0.113.7").unwrap(),
        until: Some(at),
        actual: None,
        drifts: 0,
        failing: None,
        released: None,
    };
    let incident = HeldEffect {
        actual: Some(Actual::Drifted),
        drifts: 2,
        failing: Some("f".into()),
        released: Some("r".into()),
        ..held.clone()
    };
    let result = CommandResult {
        command_id: id,
        outcome: Outcome::TimedOut,
        exit_code: None,
        output: "x".into(),
        verified: Some(false),
        message: "m".into(),
        evidence: Some(Box::new(serde_json::json!({"kind": "process"}))),
        started_at: at,
        finished_at: at,
        observed: false,
    };
    let capability = Capability { action: "firewall-drop".into(), available: true, reason: None };
    let frames = [
        json(&FromAgent::Hello {
            cursor: 3,
            capabilities: vec![capability],
            effects: Some(vec![held]),
            run: Some(id),
            keys: Some(2),
        }),
        json(&FromAgent::Keys { number: 2 }),
        json(&FromAgent::Ack { command_ids: vec![id] }),
        json(&FromAgent::Result { results: vec![result] }),
        json(&FromAgent::Heartbeat),
        json(&FromAgent::Rejected {
            orders: vec![RejectedOrders { reason: "unknown_key".into(), count: 2, kid: Some("k".into()) }],
        }),
        json(&FromAgent::Effects { effects: vec![incident], ended: vec![id] }),
        json(&ToAgent::Commands { commands: vec!["a.b.c".into()] }),
        json(&ToAgent::ResultAck { command_ids: vec![id] }),
        json(&ToAgent::Keys { statements: vec!["a.b.c".into()] }),
        json(&ToAgent::Settings { settings: Settings::default() }),
        json(&ToAgent::Bye { retry_after: 5 }),
        json(&PollRequest { cursor: 3, wait_seconds: 30, max: 64, ..PollRequest::default() }),
        json(&PollResponse {
            commands: vec![],
            result_acks: vec![id],
            settings: Settings::default(),
            key_statements: vec![],
        }),
    ];
    insta::assert_snapshot!(frames.join("\n"), @r#"
    {"type":"hello","cursor":3,"capabilities":[{"action":"firewall-drop","available":true,"reason":null}],"effects":[{"effect":"00000000-0000-0000-0000-000000000007","action":"firewall-drop","target":{"kind":"ip","value":"203.0.113.7"},"until":"2026-11-24T10:00:00.000Z"}],"run":"00000000-0000-0000-0000-000000000007","keys":2}
    {"type":"keys","number":2}
    {"type":"ack","command_ids":["00000000-0000-0000-0000-000000000007"]}
    {"type":"result","results":[{"command_id":"00000000-0000-0000-0000-000000000007","outcome":"timed_out","exit_code":null,"output":"x","verified":false,"message":"m","evidence":{"kind":"process"},"started_at":"2026-11-24T10:00:00.000Z","finished_at":"2026-11-24T10:00:00.000Z"}]}
    {"type":"heartbeat"}
    {"type":"rejected","orders":[{"reason":"unknown_key","count":2,"kid":"k"}]}
    {"type":"effects","effects":[{"effect":"00000000-0000-0000-0000-000000000007","action":"firewall-drop","target":{"kind":"ip","value":"203.0.113.7"},"until":"2026-11-24T10:00:00.000Z","actual":"drifted","drifts":2,"failing":"f","released":"r"}],"ended":["00000000-0000-0000-0000-000000000007"]}
    {"type":"commands","commands":["a.b.c"]}
    {"type":"result_ack","command_ids":["00000000-0000-0000-0000-000000000007"]}
    {"type":"keys","statements":["a.b.c"]}
    {"type":"settings","heartbeat_seconds":30,"poll_interval_seconds":1,"reconnect_spread_seconds":5}
    {"type":"bye","retry_after":5}
    {"cursor":3,"acks":[],"results":[],"wait_seconds":30,"max":64}
    {"commands":[],"result_acks":["00000000-0000-0000-0000-000000000007"],"settings":{"heartbeat_seconds":30,"poll_interval_seconds":1,"reconnect_spread_seconds":5}}
    "#);
}

#[test]
fn fields_of_a_newer_peer_are_ignored() {
    let frame: FromAgent = serde_json::from_str(r#"{"type":"hello","cursor":1,"mood":"good"}"#).unwrap();
    assert_eq!(frame, FromAgent::Hello { cursor: 1, capabilities: vec![], effects: None, run: None, keys: None });
    let news: FromAgent = serde_json::from_str(r#"{"type":"mood","good":true}"#).unwrap();
    assert_eq!(news, FromAgent::Unknown);
    assert_eq!(serde_json::from_str::<ToAgent>(r#"{"type":"mood","good":true}"#).unwrap(), ToAgent::Unknown);
    let poll: PollRequest = serde_json::from_str(r#"{"cursor":0,"later":true}"#).unwrap();
    assert_eq!(poll.max, 64);
}
