//! A person's way through the console, from the first login to what a night shift does.

use serde_json::json;

use crate::browser::Browser;
use crate::programs::{Manager, eventually, password};

/// The first person logs in with the admin key, enrols an agent by the command that the page shows,
/// sees an alert's response appear, and lifts it. `make test` runs this one.
#[tokio::test]
async fn the_first_day_from_the_admin_key_to_a_lifted_response() {
    let mut manager = Manager::start().await;
    let browser = Browser::start(&manager.base).await;
    browser.open("/agents").await;
    browser.sees("Make the first person").await;
    browser.fill("key", manager.api.key()).await;
    browser.fill("username", "anna").await;
    browser.fill("password", &password("anna")).await;
    browser.press("Make the first person").await;
    browser.sees("Enrol the first agent").await;
    browser.has_no_errors(&[]).await;

    let token = enrol_by_the_page(&browser).await;
    manager.enrol("web-01", &token);
    browser.press("Watch it come in").await;
    browser.mark().await;
    manager.run_agent("web-01").await;
    browser.sees("web-01").await;
    browser.sees("connected").await;
    assert!(!browser.is_unloaded_since_mark().await, "the agent appeared by a load of the page");

    manager.api.policy("log-ssh", "5712", &json!({})).await;
    browser.open("/").await;
    browser.sees("Nothing is in force").await;
    browser.mark().await;
    let response = manager.api.alert("5712", "203.0.113.7").await;
    browser.sees("203.0.113.7").await;
    browser.sees("verified").await;
    assert!(!browser.is_unloaded_since_mark().await, "the response appeared by a load of the page");

    browser.press_in("203.0.113.7", "Lift…").await;
    browser.fill("reason", "A customer behind a shared address").await;
    browser.press("Lift").await;
    browser.sees("Lifted").await;
    eventually("the response has ended", async || {
        let shown = manager.api.get(&format!("/v1/responses/{response}")).await;
        (shown["state"] == "lifted").then_some(())
    })
    .await;
    browser.has_no_errors(&[]).await;
}

/// Makes a token on the page of agents; returns the one in the command that is to be copied.
async fn enrol_by_the_page(browser: &Browser) -> String {
    browser.open("/agents").await;
    browser.press("Enrol agents…").await;
    browser.fill("labels", "env=prod").await;
    browser.press("Make the token").await;
    browser.sees("riposte-agent enroll --manager").await;
    let text = browser.text().await;
    assert!(text.contains(&format!("--manager {}", browser.base)), "{text}");
    text.split_once("RIPOSTE_TOKEN='").unwrap().1.split_once('\'').unwrap().0.to_owned()
}
