//! Chat and mail: people are told what they must know, with two links to decide by; a link decides nothing by being opened, counts
//! once, and only for its person. The next person is told only if none has acted.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::receiver::{Mood, Receiver};
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

async fn start(database: Database) -> (TestApp, Client) {
    TestApp::start_with(database, |config| {
        config.egress.allow = vec!["127.0.0.0/8".into()];
        config.server.public_url = "https://riposte.example.org/".into();
    })
    .await
}

async fn create(admin: &Client, name: &str, url: &str, settings: &Value) {
    admin.post("/v1/webhooks", &json!({"name": name, "url": url, "settings": settings})).await.is(201);
}

/// A policy whose responses wait for a person for a quarter of an hour.
fn waiting_policy(on_silence: &str) -> Value {
    let mut policy = drop_policy("ssh");
    policy["mode"] = json!("approve");
    policy["approval"] = json!({"quorum": 1, "within": "15m", "on_silence": on_silence});
    policy
}

/// Alice may approve; an agent is there; an alert makes a response that waits.
async fn waiting(app: &TestApp, admin: &Client, on_silence: &str) -> (FakeAgent, String, Client) {
    let alice = app.session(admin, "alice", "analyst").await;
    let agent = app.enrol(admin, "web-01", &json!({"wazuh_id": "001"})).await;
    admin.policy(&waiting_policy(on_silence)).await;
    let made = admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.9")).await.is(202);
    (agent, made["responses"][0].as_str().unwrap().to_owned(), alice)
}

/// The code in a message.
fn code(message: &str, name: &str) -> String {
    let (_, code) =
        message.split_once(&format!("riposte webhook agree {name} ")).unwrap_or_else(|| panic!("{message}"));
    code.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').collect()
}

/// A person agrees to decide by links in the messages of a webhook, with the code that a test message brings.
async fn agree(admin: &Client, receiver: &Receiver, name: &str, person: &Client) {
    admin.post(&format!("/v1/webhooks/{name}/test"), &json!({})).await.is(200);
    let code = code(&receiver.taken().last().unwrap().body, name);
    person.post(&format!("/v1/webhooks/{name}/agreement"), &json!({"code": code})).await.is(204);
    receiver.forget();
}

/// The path of a link, without the host that the manager believes to have.
fn path(link: &str) -> String {
    link.strip_prefix("https://riposte.example.org").unwrap_or_else(|| panic!("{link}")).to_owned()
}

async fn page(admin: &Client, path: &str) -> Answer {
    Answer::to(admin.with_key("").request(Method::GET, path)).await
}

async fn post(admin: &Client, path: &str, choice: &str, reason: &str) -> Answer {
    let form = format!("choice={choice}&reason={}", reason.replace(' ', "+"));
    let request = admin.with_key("").request(Method::POST, path);
    Answer::to(request.header("content-type", "application/x-www-form-urlencoded").body(form)).await
}

/// Changes the user alice.
async fn change(admin: &Client, body: &Value) {
    let version = admin.get("/v1/users/alice").await.header("etag").unwrap().to_owned();
    admin.patch("/v1/users/alice", body, &version).await.is(200);
}

async fn state(admin: &Client, response: &str) -> Value {
    admin.get(&format!("/v1/responses/{response}")).await.is(200)["state"].clone()
}

on_both_databases! {
    async fn a_person_approves_by_a_link_once_and_to_open_it_decides_nothing(database: Database) {
        let (app, admin) = start(database).await;
        let slack = Receiver::start(Mood::Answers(200)).await;
        app.person(&admin, "bob", "analyst").await;
        app.person(&admin, "early", "analyst").await;
        create(&admin, "alice-dm", &slack.url("/T0/B0/secret"), &json!({"form": "slack", "person": "early"})).await;
        let (agent, response, alice) = waiting(&app, &admin, "reject").await;
        admin.put("/v1/webhooks/alice-dm", &json!({"settings": {"form": "slack", "person": "alice"}}), None).await.is(200);
        agree(&admin, &slack, "alice-dm", &alice).await;
        let message = app.in_time("alice is told", || async { slack.taken().first().cloned() }).await.json();
        let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
        for words in ["firewall-drop 203.0.113.9 on 1 agent waits for approval", "Agents: web-01", "Policy: ssh", "For: 10m from the approval on", "Alert: rule 5763", "it is rejected."] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let buttons = message["blocks"][1]["elements"].as_array().unwrap();
        assert_eq!(buttons.len(), 2);
        let links: Vec<String> = buttons.iter().map(|button| path(button["url"].as_str().unwrap())).collect();
        // Scanners open links, also many times.
        for link in links.iter().chain(&links) {
            let page = page(&admin, link).await;
            assert_eq!(page.status, 200, "{}", page.text);
            assert!(page.text.contains("203.0.113.9") && page.text.contains("<form method=post>"), "{}", page.text);
            assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
            assert_eq!(page.header("cache-control"), Some("no-store"));
        }
        Answer::to(admin.with_key("").request(Method::HEAD, &links[0])).await;
        assert_eq!(state(&admin, &response).await, "awaiting_approval");
        assert!(agent.owed().await.is_empty());
        let link = links[0].split('?').next().unwrap();
        let empty = post(&admin, link, "approve", "").await;
        assert_eq!(empty.status, 422, "{}", empty.text);
        assert_eq!(post(&admin, link, "maybe", "x").await.status, 422);
        assert_eq!(state(&admin, &response).await, "awaiting_approval");
        let done = post(&admin, link, "approve", "it is an attack").await;
        assert!(done.status == 200 && done.text.contains("You have approved it"), "{}", done.text);
        assert_eq!(state(&admin, &response).await, "active");
        assert_eq!(agent.owed().await.len(), 1);
        let again = post(&admin, link, "reject", "no").await;
        assert_eq!(again.status, 409, "{}", again.text);
        assert_eq!(state(&admin, &response).await, "active");
        assert!(page(&admin, link).await.text.contains("does not wait any more"));
        let history = admin.history("response", &response).await;
        assert!(history.iter().any(|(actor, verb)| actor == "user:alice" && verb == "approved"), "{history:?}");
        let told = admin.list(&format!("/v1/audit?noun=response&noun_id={response}")).await;
        assert!(told.iter().any(|entry| entry["detail"].as_str().unwrap().contains("link of webhook alice-dm")), "{told:?}");
    }

    async fn a_link_is_only_for_its_person_while_the_person_may(database: Database) {
        let (app, admin) = start(database).await;
        let slack = Receiver::start(Mood::Answers(200)).await;
        let alice = app.session(&admin, "alice", "analyst").await;
        create(&admin, "dm", &slack.url("/"), &json!({"form": "slack", "person": "alice"})).await;
        agree(&admin, &slack, "dm", &alice).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "001"})).await;
        admin.policy(&waiting_policy("enforce")).await;
        let made = admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.9")).await.is(202);
        let response = made["responses"][0].as_str().unwrap().to_owned();
        let message = app.in_time("alice is told", || async { slack.taken().first().cloned() }).await;
        assert!(message.body.contains("it is carried out."), "what silence does: {}", message.body);
        let link = path(message.json()["blocks"][1]["elements"][1]["url"].as_str().unwrap());
        let link = link.split('?').next().unwrap().to_owned();
        // Another response, another person, another time: nothing of it can be changed.
        for forged in [link.replacen(&link[10..14], "0000", 1), format!("{link}x"), "/approval/a.b.c.d".into(), "/approval/%00".into()] {
            let answer = post(&admin, &forged, "approve", "x").await;
            assert!(answer.status == 404, "{forged}: {} {}", answer.status, answer.text);
        }
        admin.put("/v1/webhooks/dm", &json!({"settings": {"form": "slack"}}), None).await.is(200);
        assert_eq!(post(&admin, &link, "reject", "x").await.status, 404, "the webhook is not alice's any more");
        admin.put("/v1/webhooks/dm", &json!({"settings": {"form": "slack", "person": "alice"}}), None).await.is(200);
        assert_eq!(post(&admin, &link, "reject", "x").await.status, 404, "alice has not agreed to what was set up since");
        agree(&admin, &slack, "dm", &alice).await;
        change(&admin, &json!({"is_disabled": true})).await;
        assert_eq!(post(&admin, &link, "reject", "x").await.status, 404, "a disabled user decides nothing");
        change(&admin, &json!({"is_disabled": false})).await;
        change(&admin, &json!({"role": "viewer"})).await;
        assert_eq!(post(&admin, &link, "reject", "x").await.status, 404, "a viewer decides nothing");
        change(&admin, &json!({"role": "analyst"})).await;
        assert_eq!(state(&admin, &response).await, "awaiting_approval");
        app.advance(16 * 60);
        assert_eq!(post(&admin, &link, "reject", "x").await.status, 404, "its time is over");
    }

    async fn the_next_person_is_told_only_if_none_has_acted(database: Database) {
        let (app, admin) = start(database).await;
        let (first, second) = (Receiver::start(Mood::Answers(200)).await, Receiver::start(Mood::Answers(200)).await);
        let bob = app.session(&admin, "bob", "analyst").await;
        create(&admin, "first", &first.url("/topic-a"), &json!({"form": "ntfy"})).await;
        create(&admin, "second", &second.url("/topic-b"), &json!({"form": "ntfy", "person": "bob", "after": "10m"})).await;
        agree(&admin, &second, "second", &bob).await;
        let (_agent, response, _alice) = waiting(&app, &admin, "reject").await;
        let told = app.in_time("the first is told", || async { first.taken().first().cloned() }).await;
        assert_eq!((told.path.as_str(), &told.json()["topic"]), ("/", &json!("topic-a")));
        assert!(told.body.contains(&format!("riposte response approve {response}")), "without a person, words: {}", told.body);
        assert_eq!(told.json()["priority"], 5);
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        assert!(second.seen().is_empty(), "not before ten minutes");
        app.advance(600);
        let told = app.in_time("the second is told", || async { second.taken().first().cloned() }).await;
        assert_eq!(told.json()["actions"].as_array().unwrap().len(), 2);
        // Another one, which the first person settles.
        let made = admin.post("/v1/alerts", &brute_force("1.2", "203.0.113.10")).await.is(202);
        let settled = made["responses"][0].as_str().unwrap().to_owned();
        app.in_time("the first is told again", || async { (first.taken().len() == 2).then_some(()) }).await;
        let alice = app.session(&admin, "carol", "analyst").await;
        alice.post(&format!("/v1/responses/{settled}/reject"), &json!({"reason": "no"})).await.is(200);
        app.advance(601);
        let mark = admin.get("/v1/events?follow=false&limit=500").await.is(200)["items"].as_array().unwrap().len();
        assert!(mark > 0);
        app.in_time("the second has looked", || async {
            let view = admin.get("/v1/webhooks/second").await.is(200);
            app.advance(30);
            (view["behind"].as_i64().unwrap() <= 1).then_some(())
        }).await;
        assert_eq!(second.taken().len(), 1, "{:?}", second.taken().iter().map(|one| one.body.clone()).collect::<Vec<_>>());
    }

    async fn a_link_decides_for_no_person_who_has_not_agreed(database: Database) {
        let (app, admin) = start(database).await;
        let ntfy = Receiver::start(Mood::Answers(200)).await;
        let (alice, bob) = (app.session(&admin, "alice", "analyst").await, app.session(&admin, "bob", "analyst").await);
        let key = alice.personal_key("k", "analyst").await;
        create(&admin, "dm", &ntfy.url("/topic"), &json!({"form": "ntfy", "person": "alice"})).await;
        let made = admin.list("/v1/audit?noun=webhook&noun_id=dm").await;
        assert!(made[0]["detail"].as_str().unwrap().contains("user:alice decides"), "{made:?}");
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "001"})).await;
        admin.policy(&waiting_policy("reject")).await;
        admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.9")).await.is(202);
        let told = app.in_time("it is told", || async { ntfy.taken().first().cloned() }).await;
        assert!(told.json()["actions"].as_array().unwrap().is_empty() && !told.body.contains("/approval/"), "{}", told.body);
        let agreement = "/v1/webhooks/dm/agreement";
        let good = json!({"code": code(&told.body, "dm")});
        for (client, body, status) in [
            // Neither the key that set it up, nor another person, nor a program of alice's; and not without the code.
            (&admin, &good, 403),
            (&bob, &good, 404),
            (&key, &good, 403),
            (&alice, &json!({"code": "0000-0000-0000-0000"}), 422),
            (&alice, &json!({"place": "x"}), 422),
        ] {
            client.post(agreement, body).await.is_problem(status);
        }
        assert_eq!(admin.get("/v1/webhooks/dm").await.is(200)["agreed_by"], Value::Null);
        alice.post(agreement, &good).await.is(204);
        assert_eq!(admin.get("/v1/webhooks/dm").await.is(200)["agreed_by"], "alice");
        let (app, admin) = app.restart().await;
        admin.post("/v1/alerts", &brute_force("1.2", "203.0.113.10")).await.is(202);
        let told = app.in_time("now with links", || async { ntfy.taken().get(1).cloned() }).await;
        assert_eq!(told.json()["actions"].as_array().unwrap().len(), 2, "{}", told.body);
        // A webhook that is moved elsewhere has no agreement; a note changes nothing of it.
        let settings = json!({"form": "ntfy", "person": "alice", "note": "x"});
        admin.put("/v1/webhooks/dm", &json!({"settings": settings}), None).await.is(200);
        assert_eq!(admin.get("/v1/webhooks/dm").await.is(200)["agreed_by"], "alice");
        let moved = json!({"url": ntfy.url("/another"), "settings": settings});
        admin.put("/v1/webhooks/dm", &moved, None).await.is(200);
        assert_eq!(admin.get("/v1/webhooks/dm").await.is(200)["agreed_by"], Value::Null);
        // What another program writes into the database is no agreement.
        app.execute("UPDATE webhooks SET agreed_by = 'alice' WHERE name = 'dm'").await;
        assert_eq!(post(&admin, &path(told.json()["actions"][0]["url"].as_str().unwrap()), "approve", "x").await.status, 404);
    }

    async fn a_person_is_told_of_what_is_in_the_scope_alone_and_a_late_message_only_while_it_is_news(database: Database) {
        let (app, admin) = start(database).await;
        let (alices, bobs) = (Receiver::start(Mood::Answers(503)).await, Receiver::start(Mood::Answers(200)).await);
        app.session(&admin, "bob", "analyst").await;
        let version = admin.get("/v1/users/bob").await.header("etag").unwrap().to_owned();
        admin.patch("/v1/users/bob", &json!({"scope": {"policies": ["other"]}}), &version).await.is(200);
        let settings = |person: &str| json!({"form": "ntfy", "person": person, "types": ["approval.requested"]});
        create(&admin, "bob", &bobs.url("/b"), &settings("bob")).await;
        let (_agent, response, alice) = waiting(&app, &admin, "reject").await;
        create(&admin, "alice", &alices.url("/a"), &settings("alice")).await;
        // Another one, so that both have something to be told of.
        admin.post("/v1/alerts", &brute_force("1.2", "203.0.113.10")).await.is(202);
        app.in_time("it waits to be sent again", || async {
            let view = admin.get("/v1/webhooks/alice").await.is(200);
            (view["waiting"] == 1).then_some(())
        }).await;
        let caught_up = app.in_time("the other has looked", || async {
            let view = admin.get("/v1/webhooks/bob").await.is(200);
            (view["behind"] == 0).then_some(view)
        }).await;
        assert!(bobs.seen().is_empty(), "not what bob may neither see nor decide: {caught_up}");
        for one in admin.list("/v1/responses?state=awaiting_approval").await {
            alice.post(&format!("/v1/responses/{}/reject", one["id"].as_str().unwrap()), &json!({"reason": "no"})).await.is(200);
        }
        assert_eq!(state(&admin, &response).await, "rejected");
        alices.becomes(Mood::Answers(200));
        app.in_time("it is dropped", || async {
            app.advance(30);
            let view = admin.get("/v1/webhooks/alice").await.is(200);
            (view["waiting"] == 0).then_some(())
        }).await;
        assert!(alices.taken().is_empty(), "it waits no more: {:?}", alices.taken());
    }

    async fn people_are_told_what_they_must_know_together_and_nothing_else(database: Database) {
        let (app, admin) = start(database).await;
        let teams = Receiver::start(Mood::Answers(202)).await;
        create(&admin, "channel", &teams.url("/workflows/x"), &json!({"form": "teams"})).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "001"})).await;
        admin.policy(&drop_policy("plain")).await;
        // Usual work is no news.
        admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.9")).await.is(202);
        agent.answer(riposte_protocol::message::Outcome::Succeeded, Some(true)).await;
        admin.put("/v1/freeze", &json!({"frozen": true, "reason": "<at>all</at> [x](http://evil)"}), None).await.is(200);
        let told = app.in_time("the channel is told of the freeze", || async { teams.taken().first().cloned() }).await;
        let card = &told.json()["attachments"][0]["content"];
        assert_eq!(card["type"], "AdaptiveCard");
        let lines: Vec<&str> = card["body"].as_array().unwrap().iter().map(|block| block["inlines"][0]["text"].as_str().unwrap()).collect();
        assert!(lines.contains(&"Freeze: on"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("[x](http://evil)")), "shown as it is: {lines:?}");
        assert!(!told.body.contains("203.0.113.9"), "a block that works is no news: {}", told.body);
        // The agent is gone, and a block is in force there.
        agent.poll(&riposte_protocol::message::PollRequest::default()).await;
        app.in_time("it was here", || async {
            let events = admin.list("/v1/events?follow=false&type=agent.connected").await;
            (!events.is_empty()).then_some(())
        }).await;
        app.advance(70);
        app.in_time("the channel is told", || async {
            teams.taken().iter().any(|one| one.body.contains("The agent web-01 is away, and 1 effect is in force there")).then_some(())
        }).await;
    }
}

/// A mail server that takes every mail; without TLS, as only a loopback address may be.
async fn mail_server(seen: Arc<Mutex<Vec<String>>>) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 test\r\n").await.unwrap();
            let (mut mail, mut is_data) = (String::new(), false);
            while let Ok(Some(line)) = lines.next_line().await {
                if is_data {
                    if line == "." {
                        is_data = false;
                        seen.lock().unwrap().push(std::mem::take(&mut mail));
                        write.write_all(b"250 taken\r\n").await.unwrap();
                    } else {
                        mail.push_str(&line);
                        mail.push('\n');
                    }
                    continue;
                }
                mail.push_str(&line);
                mail.push('\n');
                let answer: &[u8] = match line.get(..4).unwrap_or_default().to_uppercase().as_str() {
                    "EHLO" => b"250-test\r\n250 AUTH PLAIN\r\n",
                    "AUTH" => b"235 welcome\r\n",
                    "DATA" => {
                        is_data = true;
                        b"354 go on\r\n"
                    }
                    "QUIT" => b"221 bye\r\n",
                    _ => b"250 ok\r\n",
                };
                write.write_all(answer).await.unwrap();
            }
        }
    });
    (port, serving)
}

#[tokio::test]
async fn a_mail_reaches_its_mailbox_with_two_links() {
    let (app, admin) = start(Database::sqlite()).await;
    let mails = Arc::new(Mutex::new(Vec::new()));
    let (port, _serving) = mail_server(Arc::clone(&mails)).await;
    let url = format!("smtp://riposte:hunter2@127.0.0.1:{port}/?from=riposte@example.org&to=alice@example.org");
    let alice = app.session(&admin, "alice", "analyst").await;
    create(&admin, "mail", &url, &json!({"form": "mail", "person": "alice"})).await;
    let view = admin.get("/v1/webhooks/mail").await;
    assert_eq!(view.is(200)["place"], format!("smtp://127.0.0.1:{port}"));
    assert!(!view.text.contains("hunter2"));
    let trial = admin.post("/v1/webhooks/mail/test", &json!({})).await.is(200);
    assert_eq!(trial["is_taken"], true, "{trial}");
    let code = code(&mails.lock().unwrap()[0].replace("=\n", ""), "mail");
    alice.post("/v1/webhooks/mail/agreement", &json!({"code": code})).await.is(204);
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "001"})).await;
    admin.policy(&waiting_policy("reject")).await;
    admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.9")).await.is(202);
    let mail = app
        .in_time("alice gets a mail", || async {
            mails.lock().unwrap().iter().find(|mail| mail.contains("waits for")).cloned()
        })
        .await;
    assert!(mail.contains("RCPT TO:<alice@example.org>") && mail.contains("MAIL FROM:<riposte@example.org>"), "{mail}");
    assert!(mail.contains(".event_"), "{mail}");
    // Long lines may be folded by the encoding of the mail.
    let whole = mail.replace("=\n", "").replace("=3D", "=");
    assert!(
        whole.contains("Approve: https://riposte.example.org/approval/") && whole.contains("choice=reject"),
        "{mail}"
    );
}

#[tokio::test]
async fn settings_for_people_are_checked() {
    let (app, admin) = start(Database::sqlite()).await;
    app.person(&admin, "vera", "viewer").await;
    for (url, settings, pointer) in [
        ("https://hooks.example.org/x", json!({"form": "slak"}), "/settings/form"),
        ("https://hooks.example.org/x", json!({"form": "slack", "person": "mallory"}), "/settings/person"),
        ("https://hooks.example.org/x", json!({"form": "slack", "person": "vera"}), "/settings/person"),
        ("https://hooks.example.org/x", json!({"person": "vera"}), "/settings/person"),
        ("https://hooks.example.org/x", json!({"after": "10m"}), "/settings/after"),
        ("https://hooks.example.org/x", json!({"form": "slack", "after": "25h"}), "/settings/after"),
        ("https://hooks.example.org/x", json!({"form": "slack", "fields": ["policy"]}), "/settings/fields"),
        ("https://ntfy.example.org/", json!({"form": "ntfy"}), "/url"),
        ("https://mail.example.org/", json!({"form": "mail"}), "/url"),
        ("smtps://10.0.0.1/?from=a@example.org&to=b@example.org", json!({"form": "mail"}), "/url"),
        ("smtps://mail.example.org/?from=a@example.org", json!({"form": "mail"}), "/url"),
    ] {
        let answer = admin.post("/v1/webhooks", &json!({"name": "a", "url": url, "settings": settings})).await;
        answer.is_problem(422);
        assert!(answer.points_at().contains(&pointer.to_owned()), "{settings}: {}", answer.text);
    }
    // Links are tried as other credentials are: not for ever.
    let mut last = 0;
    for _ in 0..700 {
        last = page(&admin, "/approval/x").await.status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
}
