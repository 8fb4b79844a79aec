//! The feed of events at its limits: retention, gaps, slow followers, silence, and the end of the manager.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::support::alert::drop_policy;
use crate::support::app::execute_all;
use crate::support::{Client, Database, Follower, TestApp, eventually};

/// The number of the last event.
async fn last(admin: &Client) -> i64 {
    let events = admin.list("/v1/events?follow=false").await;
    events.last().unwrap()["id"].as_str().unwrap().parse().unwrap()
}

/// Moves the clock by eight days, and waits until the events up to `last` are removed.
async fn removed(app: &TestApp, admin: &Client, last: i64) {
    app.advance(8 * 86_400);
    app.in_time("retention has removed the events", async || {
        (admin.get(&format!("/v1/events?follow=false&after={}", last - 1)).await.status == 410).then_some(())
    })
    .await;
}

on_both_databases! {
    async fn what_is_not_kept_is_410_and_a_number_of_another_ledger_too(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        admin.policy(&drop_policy("one")).await;
        let number = last(&admin).await;
        removed(&app, &admin, number).await;
        let gone = admin.get("/v1/events?after=0").await.is_problem(410);
        let detail = gone["detail"].as_str().unwrap();
        assert!(detail.contains("the events from 1 to") && detail.contains("after="), "{detail}");
        let asked = admin.request(reqwest::Method::GET, "/v1/events").header("last-event-id", "0");
        assert_eq!(asked.send().await.unwrap().status(), 410);
        let beyond = admin.get("/v1/events?after=1000000").await.is_problem(410);
        assert!(beyond["detail"].as_str().unwrap().contains("restored from a backup"), "{beyond}");
        // The numbers go on, and a client that has the last event misses nothing.
        let end: i64 = admin.get("/v1/events?follow=false").await.is(200)["items"]
            .as_array()
            .and_then(|items| items.last().map(|item| item["id"].as_str().unwrap().parse().unwrap()))
            .unwrap_or(number);
        let mut follower = Follower::open(&admin, "?type=policy.*", Some(end)).await;
        admin.policy(&drop_policy("two")).await;
        let told = follower.next().await.unwrap();
        assert_eq!((told.event.as_str(), told.id > number), ("policy.created", true));
    }

    async fn a_slow_follower_is_told_of_its_gap_and_holds_up_no_other(database: Database) {
        /// More than the buffers of a connection hold.
        const MANY: &[&str] = &[
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 25000)
             INSERT INTO events (seq, at, type, subject, actor, detail)
                SELECT audit_head.events + n, 1795514400000, 'policy.updated', 'policy/x', 'riposte',
                    '----------------------------------------------------------------------------------------------------
                     ----------------------------------------------------------------------------------------------------
                     ----------------------------------------------------------------------------------------------------'
                FROM numbers, audit_head",
            "UPDATE audit_head SET events = events + 25000",
        ];
        let (app, _) = TestApp::start_on(database).await;
        let (app, admin) = app.restart_after(async |db, _| { execute_all(&db, MANY).await; }).await;
        let mut slow = {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(8192).unwrap();
            let address = app.base.trim_start_matches("http://").parse().unwrap();
            let mut slow = socket.connect(address).await.unwrap();
            let head = format!(
                "GET /v1/events HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 0\r\nAuthorization: Bearer {}\r\n\r\n",
                admin.key()
            );
            slow.write_all(head.as_bytes()).await.unwrap();
            slow
        };
        let mut start = vec![0; 1024];
        slow.read_exact(&mut start).await.unwrap();
        let number = last(&admin).await;
        // The buffers fill up.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut quick = Follower::open(&admin, "?type=policy.created", None).await;
        admin.policy(&drop_policy("now")).await;
        assert_eq!(quick.next().await.unwrap().event, "policy.created", "it does not wait for the slow one");
        removed(&app, &admin, number).await;
        let mut text = start;
        let mut piece = vec![0; 256 * 1024];
        let until = tokio::time::Instant::now() + crate::support::PATIENCE;
        while !String::from_utf8_lossy(&text).contains("event: gap") {
            let count = tokio::time::timeout_at(until, slow.read(&mut piece)).await.expect("the gap is told").unwrap();
            assert!(count > 0, "the stream has ended");
            text.extend_from_slice(&piece[..count]);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let ids: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        let before: Vec<i64> = text.split("event: gap").next().unwrap().lines()
            .filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        // The last number before the gap is the gap's own.
        let known = before[before.len() - 2];
        assert_eq!(before[..before.len() - 1].to_vec(), (0..=known).collect::<Vec<_>>(), "no gap before it");
        assert!(known < number, "the follower was not slow: {known} of {number}; {} ids", ids.len());
        let data = text.split("event: gap\ndata: ").nth(1).unwrap().lines().next().unwrap();
        if let Ok(gap) = serde_json::from_str::<serde_json::Value>(data) {
            assert_eq!(gap["from"], json!(known + 1));
            assert!(gap["to"].as_i64().unwrap() >= number, "{gap}");
        }
    }
}

#[tokio::test]
async fn silence_is_broken_by_heartbeats_with_the_number_of_the_last_event() {
    let (app, admin) = TestApp::start().await;
    let mut follower = Follower::open(&admin, "?type=breaker.*", None).await;
    admin.policy(&drop_policy("one")).await;
    let number = last(&admin).await;
    assert_eq!(follower.last, number - 1);
    // It has looked at the event, which is not for it, by the time of one of these.
    for _ in 0..50 {
        app.advance(15);
        let beat = follower.next_of_any_kind().await.unwrap();
        assert_eq!((beat.event.as_str(), beat.text.starts_with(": heartbeat")), ("", true), "{}", beat.text);
        if beat.id >= number {
            return;
        }
    }
    panic!("the heartbeats have number {}, and the last event {number}", follower.last);
}

#[tokio::test]
async fn streams_end_when_the_manager_stops() {
    let (app, admin) = TestApp::start().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(Follower::open(&admin, "", None).await);
    }
    // `restart` fails if the manager does not stop in time.
    let (_app, _admin) = app.restart().await;
    for mut stream in streams {
        while stream.next_of_any_kind().await.is_some() {}
    }
}

#[tokio::test]
async fn one_key_has_a_bounded_number_of_streams() {
    let (_app, admin) = TestApp::start().await;
    let mut streams = Vec::new();
    for _ in 0..250 {
        streams.push(Follower::open(&admin, "?type=breaker.*", None).await);
    }
    let full = admin.get("/v1/events").await;
    full.is_problem(429);
    assert_eq!(full.header("retry-after"), Some("10"));
    streams.pop();
    eventually("a stream that has ended makes room", async || {
        let request = admin.request(reqwest::Method::GET, "/v1/events?type=breaker.*");
        (request.send().await.unwrap().status() == 200).then_some(())
    })
    .await;
}
