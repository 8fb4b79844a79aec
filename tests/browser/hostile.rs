//! Everything that others write, with markup, scripts and terminal escapes in it, is shown as text:
//! fields of alerts, names and labels of agents, notes and reasons, what a script prints, what the
//! receiver of a webhook answers.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::programs::{Manager, eventually};
use crate::seed::asking;

/// Ends attributes, tags and texts; runs a script in several ways; ends with terminal escapes.
const MARK: &str = "mark\"'><img src=x onerror=alert(1)><script>alert(2)</script></textarea></pre><b class=injected>b</b>\
    <svg onload=alert(3)>{{7*7}}javascript:alert(4)\u{1b}[31m\u{1b}]0;title\u{7}";
/// The same without the escapes, for fields that refuse them.
const TAME: &str = "mark\"'><img src=x onerror=alert(1)><script>alert(2)</script><b class=injected>b</b>";
/// A part of it that a page shows when it shows it as text.
const SHOWN: &str = "<img src=x onerror=alert(1)>";
/// What must not be on any page.
const INJECTED: &str =
    "return document.querySelectorAll('.injected, img[src=x], svg[onload], script:not([src])').length
    + [...document.querySelectorAll('a[href], form[action]')].filter(one =>
        /^\\s*(javascript|data):/i.test(one.getAttribute('href') || one.getAttribute('action'))).length";

/// An alert with the mark in every field of Wazuh's that is a text, and in fields of its own.
fn hostile_alert() -> Value {
    json!({
        "rule": {"level": 12, "id": "5712", "description": MARK, "groups": [MARK], "mitre": {"id": [MARK], "tactic": [MARK], "technique": [MARK]}},
        "agent": {"id": "001", "name": MARK, "ip": MARK}, "manager": {"name": MARK}, "decoder": {"name": MARK, "parent": MARK},
        "location": MARK, "full_log": MARK, "previous_output": MARK, MARK: MARK,
        "data": {"srcip": "203.0.113.66", "dstuser": MARK, "srcuser": MARK, "url": MARK, "file": MARK, MARK: {MARK: [MARK]}},
        "syscheck": {"path": MARK, "uname_after": MARK},
    })
}

/// Prints the mark, as a program that an attacker has got hold of might.
const SCRIPT: &str =
    "#!/bin/sh\ncat > /dev/null\ncat \"$(dirname \"$0\")/../mark\"\ncat \"$(dirname \"$0\")/../mark\" >&2\n";
const CONF: &str = "<ossec_config>
  <command><name>print</name><executable>print.sh</executable><timeout_allowed>yes</timeout_allowed></command>
  <active-response><command>print</command><location>all</location><rules_id>5712</rules_id><timeout>600</timeout></active-response>
</ossec_config>";

/// Listens on loopback and answers every request with the mark.
fn rude_receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!("Answered by a receiver: {MARK}");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut vec![0; 65_536]);
            let body = format!(
                "HTTP/1.1 500 {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                "No",
                answer.len()
            );
            let _ = stream.write_all(body.as_bytes());
        }
    });
    format!("http://{address}/hook")
}

#[tokio::test]
async fn what_others_write_is_shown_as_text_on_every_page() {
    let mut manager = Manager::start_with(&["--egress-allow", "127.0.0.0/8"]).await;
    manager.people(&["root:admin"]).await;
    let api = manager.api.clone();
    let home = manager.dir.path().join("wazuh");
    let programs = home.join("active-response/bin");
    std::fs::create_dir_all(&programs).unwrap();
    std::fs::write(home.join("active-response/mark"), format!("Printed by a script: {MARK}")).unwrap();
    std::fs::write(programs.join("print.sh"), SCRIPT).unwrap();
    std::fs::set_permissions(programs.join("print.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let token = api.post("/v1/enrollment-tokens", &json!({"labels": {"note": TAME}})).await;
    manager.enrol("web-01", token["token"].as_str().unwrap());
    let agent = manager.run_agent_with("web-01", &["--wazuh-home", home.to_str().unwrap()]).await;
    api.post("/v1/webhooks", &json!({"name": "rude", "url": rude_receiver(), "settings": {"note": TAME}})).await;
    api.import(CONF).await;
    api.policy("log-ssh", "5712", &json!({"note": TAME})).await;
    api.policy("ask-ssh", "5712", &asking(TAME)).await;
    api.post("/v1/protected", &json!({"kind": "ip", "value": "192.0.2.1", "reason": TAME})).await;
    api.alert_with("5712", "203.0.113.66", &hostile_alert()).await;
    assert_eq!(api.try_post("/v1/alerts", &json!({"rule": MARK, "timestamp": MARK})).await, 422);
    let waits = api.get("/v1/responses?state=awaiting_approval").await;
    let waiting = waits["items"][0]["id"].as_str().unwrap().to_owned();
    let printed = eventually("the script has printed", async || {
        let found = api.get("/v1/responses?action=print").await;
        let id = found["items"][0]["id"].as_str()?.to_owned();
        let shown = api.get(&format!("/v1/responses/{id}")).await;
        (shown["commands"][0]["state"] == "succeeded").then_some(id)
    })
    .await;
    eventually("the webhook was answered", async || api.get("/v1/webhooks/rude").await["fault"].as_str().map(drop))
        .await;
    let alert = api.get("/v1/alerts?limit=1").await["items"][0]["id"].as_str().unwrap().to_owned();
    let rejected = api.get("/v1/rejected?limit=1").await["items"][0]["id"].as_str().unwrap().to_owned();

    // With the escapes they are refused.
    for (path, body) in [
        ("/v1/enrollment-tokens", json!({"labels": {"note": MARK}})),
        ("/v1/protected", json!({"kind": "ip", "value": "192.0.2.2", "reason": MARK})),
        ("/v1/protected", json!({"kind": "user", "value": MARK, "reason": "a test"})),
    ] {
        assert_eq!(api.try_post(path, &body).await, 422, "{body}");
    }

    let browser = Browser::of(&manager.base, "root").await;
    for (path, words) in [
        ("/".to_owned(), ""),
        ("/targets/ip/203.0.113.66".to_owned(), ""),
        ("/waiting".to_owned(), SHOWN),
        (format!("/responses/{waiting}"), SHOWN),
        (format!("/responses/{waiting}/approve"), ""),
        ("/responses".to_owned(), ""),
        (format!("/responses/{printed}"), "Printed by a script: mark\"'><img"),
        ("/alerts".to_owned(), SHOWN),
        (format!("/alerts/{alert}"), SHOWN),
        ("/alerts/rejected".to_owned(), ""),
        (format!("/alerts/rejected/{rejected}"), SHOWN),
        ("/policies".to_owned(), SHOWN),
        ("/policies/log-ssh".to_owned(), SHOWN),
        ("/policies/log-ssh/edit".to_owned(), ""),
        ("/agents".to_owned(), SHOWN),
        (format!("/agents/{agent}"), SHOWN),
        (format!("/agents/{agent}/labels"), SHOWN),
        ("/protected".to_owned(), SHOWN),
        ("/integrations".to_owned(), ""),
        ("/integrations/webhooks/rude".to_owned(), "it answered 500 Internal Server Error"),
        ("/audit".to_owned(), SHOWN),
        ("/login?next=%22%3E%3Cb%20class=injected%3E".to_owned(), ""),
        (format!("/responses?target={}", "%22%3E%3Cb%20class=injected%3E"), ""),
        ("/targets/user/%22%3E%3Cb%20class=injected%3E".to_owned(), ""),
    ] {
        browser.open(&path).await;
        let text = browser.text().await;
        assert_eq!(browser.run(INJECTED).await, 0, "{path}: {text}");
        assert!(!text.contains("Answered by a receiver"), "{path}: what a receiver answers is kept nowhere: {text}");
        assert!(text.contains(words), "{path} does not show {words}: {text}");
        browser.has_no_errors(&["404", "400", "422"]).await;
    }
    // Rows that arrive by themselves are merged by the script.
    browser.open("/alerts").await;
    browser.mark().await;
    api.alert_with("5712", "203.0.113.67", &hostile_alert()).await;
    browser.is_offered("1 new").await;
    browser.press("1 new").await;
    assert_eq!(browser.run(INJECTED).await, 0);
    assert!(!browser.is_unloaded_since_mark().await);
}
