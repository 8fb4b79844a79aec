//! The feed of events with real programs: a manager that is killed, and `riposte events`.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStderr, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::processes::{
    Api, FakeAgent, Manager, PATIENCE, alert, eventually, manager_program, random_below, text, tied,
};

/// Follows from `last` on until the connection breaks; adds what comes.
async fn follow(api: Api, mut last: i64) -> Vec<Value> {
    let mut events = Vec::new();
    let mut rest = String::new();
    let request = api.request(Method::GET, "/v1/events").header("last-event-id", last.to_string());
    let Ok(mut response) = request.send().await else { return events };
    assert_eq!(response.status(), StatusCode::OK);
    while let Ok(Some(bytes)) = response.chunk().await {
        rest.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((message, behind)) = rest.split_once("\n\n") {
            if let Some(data) = message.lines().find_map(|line| line.strip_prefix("data: ")) {
                let event: Value = serde_json::from_str(data).unwrap();
                let number: i64 = text(&event, "id").parse().unwrap();
                assert_eq!(number, last + 1, "lost or doubled: {event}");
                last = number;
                events.push(event);
            }
            rest = behind.to_owned();
        }
    }
    events
}

#[tokio::test]
async fn no_event_is_lost_or_doubled_whenever_the_manager_is_killed() {
    const ROUNDS: usize = 12;
    let mut manager = Manager::start().await;
    let api = manager.api();
    let _offline = FakeAgent::enroll(&manager, "web-01").await;
    api.make_policy("log-only", "7d").await;
    let (mut all, mut number) = (Vec::new(), 0_u64);
    for _ in 0..ROUNDS {
        let last = all.last().map_or(0, |event| text(event, "id").parse().unwrap());
        #[expect(clippy::disallowed_methods, reason = "the follower must read while the test posts and kills")]
        let reading = tokio::spawn(follow(api.clone(), last));
        let posting = tokio::time::timeout(Duration::from_micros(50_000 + random_below(250_000)), async {
            loop {
                number += 1;
                let alert = alert(number, &format!("10.0.{}.{}", number >> 8 & 255, number & 255), "web-01");
                let _ = api.request(Method::POST, "/v1/alerts").json(&alert).send().await;
            }
        });
        assert!(posting.await.is_err());
        manager.kill9();
        all.extend(reading.await.unwrap());
        manager.start_again().await;
    }
    // What was committed and could not be sent before a kill came after it.
    let responses = api.newer_than("/v1/responses", |_| false).await;
    let last_number = all.last().map_or(0, |event| text(event, "id").parse().unwrap());
    let rest = api.get(&format!("/v1/events?follow=false&limit=500&after={last_number}")).await;
    all.extend(rest["items"].as_array().unwrap().iter().cloned());
    let created: Vec<&str> = all
        .iter()
        .filter(|event| text(event, "type") == "riposte.response.created")
        .map(|event| text(event, "subject"))
        .collect();
    let unique: HashSet<&str> = created.iter().copied().collect();
    assert_eq!((created.len(), unique.len()), (responses.len(), responses.len()), "each response once");
    assert!(responses.len() > ROUNDS, "only {} responses", responses.len());
    for response in &responses {
        assert!(unique.contains(format!("response/{}", text(response, "id")).as_str()), "{response}");
    }
    let starts = all.iter().filter(|event| text(event, "type") == "riposte.node.started").count();
    assert_eq!(starts, ROUNDS + 1);
}

/// `riposte events` while it runs.
struct Running {
    child: std::process::Child,
    lines: mpsc::Receiver<String>,
    errors: Option<ChildStderr>,
}

impl Running {
    fn start(manager: &Manager, arguments: &[&str]) -> Self {
        let mut command = tied(&manager_program());
        command.args(["events", "--manager", &manager.base()]);
        command.arg("--key-file").arg(manager.data_dir().join("admin.key")).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = child.stderr.take();
        Self { child, lines, errors }
    }

    async fn line(&self, what: &str) -> String {
        eventually(what, PATIENCE, async || self.lines.try_iter().find(|line| line.contains(what))).await
    }

    fn end(mut self) -> String {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let mut said = String::new();
        self.errors.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

#[tokio::test]
async fn the_command_follows_across_a_restart_and_says_so() {
    let mut manager = Manager::start().await;
    let api = manager.api();
    let people = Running::start(&manager, &["--follow", "--type", "policy.*"]);
    let programs = Running::start(&manager, &["--follow", "--json", "--type", "policy.*,node.*"]);
    // Both are connected once they print.
    let protect = json!({"kind": "ip", "value": "198.51.100.1", "reason": "x"});
    let (mut number, mut both) = (0, (false, false));
    while both != (true, true) {
        number += 1;
        assert!(number < 60, "both follow: {both:?}");
        let name = format!("p-{number}");
        let policy = json!({"name": name, "match": [{"rule_ids": ["1"]}],
            "respond": {"action": "log-only", "target": "source.ip", "on": "origin", "for": "10m"}});
        api.post("/v1/policies", &policy).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let has = |running: &Running| running.lines.try_iter().any(|line| line.contains("policy/p-"));
        both = (both.0 || has(&people), both.1 || has(&programs));
    }
    api.post("/v1/protected", &protect).await;
    manager.kill9();
    manager.start_again().await;
    let policy = json!({"name": "after", "match": [{"rule_ids": ["1"]}],
        "respond": {"action": "log-only", "target": "source.ip", "on": "origin", "for": "10m"}});
    api.post("/v1/policies", &policy).await;
    let line = people.line("policy/after").await;
    assert!(line.contains("policy.created") && line.contains("by key:"), "{line}");
    let json = programs.line("policy/after").await;
    let event: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("riposte.policy.created")));
    for said in [people.end(), programs.end()] {
        assert!(said.contains("the stream of events has ended") && said.contains("connects again"), "{said}");
        assert!(said.contains("goes on after event"), "{said}");
    }

    let key_file = manager.data_dir().join("admin.key");
    let run = |more: &[&str]| {
        let base = manager.base();
        let mut arguments = vec!["events", "--manager", &base, "--key-file", key_file.to_str().unwrap()];
        arguments.extend(more);
        manager.command(&arguments)
    };
    let (is_done, listed) = run(&["--type", "protected.*"]);
    assert!(is_done && listed.contains("protected.created") && listed.lines().count() == 1, "{listed}");
    let (is_done, said) = run(&["--type", "policies.*"]);
    assert!(!is_done && said.contains("policies.*"), "{said}");
    let (is_done, said) = run(&["--follow", "--after", "100000"]);
    assert!(!is_done && said.contains("410") && said.contains("restored from a backup"), "{said}");
}
