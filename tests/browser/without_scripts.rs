//! Without scripts every page is readable and every form works, by plan pages of their own.

use serde_json::json;

use crate::browser::Browser;
use crate::programs::eventually;
use crate::seed::{BLOCKED, Night};

#[tokio::test]
async fn every_page_is_read_and_a_response_is_lifted_without_scripts() {
    let night = Night::begin().await;
    let browser = Browser::without_scripts(&night.manager.base).await;
    browser.log_in("root").await;
    // What a script would show is hidden, so none runs.
    let keys = browser.driver.select("#keys-help").await.unwrap();
    assert!(!browser.driver.is_displayed(&keys[0]).await.unwrap(), "a script has run");
    for (name, path) in night.pages().into_iter().chain(Night::administrators_pages()).chain(night.plans()) {
        browser.open(&path).await;
        let heading = browser.driver.select("main h1").await.unwrap();
        let heading = heading.first().unwrap_or_else(|| panic!("{name} at {path} has no heading"));
        let heading = browser.driver.text(heading).await.unwrap();
        assert!(
            !["Not allowed", "Not found", "The manager cannot answer now"].contains(&heading.as_str()),
            "{path}: {heading}"
        );
    }
    browser.open("/").await;
    browser.press_in(BLOCKED, "Lift…").await;
    browser.is_at(&format!("/lift?target={BLOCKED}")).await;
    browser.sees("2 effects on 2 agents").await;
    browser.fill("reason", "A customer behind a shared address").await;
    browser.press("Lift").await;
    browser.sees("1 response lifted").await;
    eventually("the response has ended", async || {
        let shown = night.manager.api.get(&format!("/v1/responses/{}", night.active)).await;
        (shown["state"] == "ended").then_some(())
    })
    .await;
    // Fields of a form that was refused keep what was typed.
    browser.open("/block").await;
    browser.choose("action", "log-only").await;
    browser.fill("target", "no address").await;
    browser.fill("agents", "web-01").await;
    browser.fill("reason", "A test of the form").await;
    browser.press("Show what it does…").await;
    browser.sees("Nothing was changed").await;
    assert_eq!(browser.value_of("reason").await, "A test of the form");
    browser.fill("target", "203.0.113.77").await;
    browser.press("Show what it does…").await;
    browser.sees("1 agent").await;
    browser.press("Respond").await;
    browser.sees("Ordered").await;
    let made = night.manager.api.get("/v1/responses?target=203.0.113.77").await;
    assert_eq!(made["items"][0]["requested_by"], json!("user:root"), "{made}");
    browser.press("Log out").await;
    browser.is_at("/login").await;
}
