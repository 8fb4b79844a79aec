//! What a person does not lose: the view, when the manager is away for a time; what was typed, when
//! the session has ended; a policy, when another person has stored a version meanwhile.

use reqwest::Method;
use serde_json::json;

use crate::browser::Browser;
use crate::programs::{Manager, eventually, password};

#[tokio::test]
async fn a_page_says_that_the_manager_is_away_and_goes_on_when_it_is_back() {
    let mut manager = Manager::start().await;
    manager.people(&["anna:analyst"]).await;
    manager.agent("web-01", json!({})).await;
    manager.api.policy("log-ssh", "5712", &json!({})).await;
    let browser = Browser::of(&manager.base, "anna").await;
    browser.sees("Nothing is in force").await;
    browser.mark().await;
    manager.kill();
    browser.sees("The connection to the manager is lost").await;
    manager.start_again().await;
    manager.api.alert("5712", "203.0.113.7").await;
    browser.sees("203.0.113.7").await;
    browser.sees_no_more("The connection to the manager is lost").await;
    manager.api.alert("5712", "203.0.113.8").await;
    browser.is_offered("1 new").await;
    assert!(!browser.is_unloaded_since_mark().await);
}

/// Ends the session of the browser at the manager.
async fn end_session(browser: &Browser) {
    let cookies = browser.cookie_header().await;
    let token = cookies.split("; ").find_map(|pair| pair.strip_prefix("riposte_access=")).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/auth/token", browser.base);
    let answer = http.request(Method::DELETE, url).bearer_auth(token).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[tokio::test]
async fn what_was_typed_before_the_session_ended_is_sent_after_the_login() {
    let manager = Manager::start().await;
    manager.people(&["anna:analyst"]).await;
    let browser = Browser::of(&manager.base, "anna").await;
    browser.open("/freeze").await;
    browser.fill("reason", "Line 1 <b>\nLine 2 \"&amp;").await;
    end_session(&browser).await;
    browser.press("Freeze").await;
    browser.sees("Your session has ended. What you typed is kept").await;
    browser.fill("username", "anna").await;
    browser.fill("password", "wrong").await;
    browser.press("Log in").await;
    browser.fill("username", "anna").await;
    browser.fill("password", &password("anna")).await;
    browser.press("Log in").await;
    browser.sees("Nothing was changed").await;
    assert_eq!(manager.api.get("/v1/freeze").await["frozen"], false);
    browser.press("Send it now").await;
    browser.sees("Frozen").await;
    let freeze = manager.api.get("/v1/freeze").await;
    assert_eq!(freeze["last_change"]["reason"], "Line 1 <b>\nLine 2 \"&amp;");
}

#[tokio::test]
async fn a_page_whose_session_has_ended_says_so() {
    let manager = Manager::start().await;
    manager.people(&["anna:analyst"]).await;
    let browser = Browser::of(&manager.base, "anna").await;
    browser.open("/responses").await;
    end_session(&browser).await;
    browser.sees("Your session has ended").await;
    browser.press("Log in again").await;
    browser.fill("username", "anna").await;
    browser.fill("password", &password("anna")).await;
    browser.press("Log in").await;
    browser.is_at("/responses").await;
}

#[tokio::test]
async fn a_policy_that_another_person_has_stored_meanwhile_is_shown_beside_ones_own() {
    let manager = Manager::start().await;
    manager.people(&["erik:engineer", "emma:engineer"]).await;
    manager.api.policy("log-ssh", "5712", &json!({"note": "first"})).await;
    let (erik, emma) = (Browser::of(&manager.base, "erik").await, Browser::of(&manager.base, "emma").await);
    for browser in [&erik, &emma] {
        browser.open("/policies/log-ssh/edit").await;
    }
    for (browser, note) in [(&erik, "by Erik"), (&emma, "by Emma")] {
        let text = browser.value_of("document").await.replace("note: first", &format!("note: {note}"));
        assert!(text.contains(note), "{text}");
        browser.fill("document", &text).await;
    }
    erik.press("See the difference, then store").await;
    erik.press("Store").await;
    erik.sees("Version 2").await;
    emma.press("See the difference, then store").await;
    emma.sees("Another person has stored version 2").await;
    let text = emma.text().await;
    assert!(text.contains("by Erik") && text.contains("by Emma"), "{text}");
    let stored = manager.api.get("/v1/policies/log-ssh").await;
    assert_eq!(stored["note"], "by Erik", "{stored}");
    emma.press("Store mine over it").await;
    eventually("hers is stored", async || {
        let stored = manager.api.get("/v1/policies/log-ssh").await;
        (stored["note"] == "by Emma").then_some(())
    })
    .await;
}
