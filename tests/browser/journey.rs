//! A person's way through the console, from the first login to what a night shift does.

use serde_json::json;

use crate::browser::Browser;
use crate::programs::{Manager, eventually, password};
use crate::seed::{BLOCKED, Night};

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
    browser.sees("1 response lifted").await;
    eventually("the response has ended", async || {
        let shown = manager.api.get(&format!("/v1/responses/{response}")).await;
        (shown["state"] == "ended").then_some(())
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

#[tokio::test]
async fn new_rows_wait_until_they_are_asked_for_and_the_focus_stays() {
    let mut manager = Manager::start().await;
    manager.people(&["anna:analyst"]).await;
    manager.agent("web-01", json!({})).await;
    manager.api.policy("log-ssh", "5712", &json!({})).await;
    manager.api.alert("5712", "203.0.113.1").await;
    let browser = Browser::of(&manager.base, "anna").await;
    browser.sees("203.0.113.1").await;
    browser.sees("verified").await;
    browser.mark().await;
    browser.run("document.querySelector('[data-row] th a').focus()").await;
    for (address, words) in [("203.0.113.2", "1 new"), ("203.0.113.3", "2 new")] {
        manager.api.alert("5712", address).await;
        browser.is_offered(words).await;
        let text = browser.text().await;
        assert!(!text.contains(address), "the row moved in by itself: {text}");
    }
    assert_eq!(browser.run("return document.activeElement.textContent").await, "203.0.113.1");
    // A field that a person writes in is left alone too.
    browser.fill("target", "203").await;
    manager.api.alert("5712", "203.0.113.4").await;
    browser.is_offered("3 new").await;
    assert_eq!(browser.value_of("target").await, "203");
    browser.press("3 new").await;
    browser.sees("203.0.113.4").await;
    browser.is_offered_no_more("3 new").await;
    assert!(!browser.is_unloaded_since_mark().await);
    // Keys choose rows, and open the plan of the chosen one; Escape puts the focus back.
    browser.run("document.activeElement.blur()").await;
    let key = async |key: &str| {
        let body = browser.driver.select("body").await.unwrap();
        browser.driver.type_into(&body[0], key).await.unwrap();
    };
    key("j").await;
    let chosen = browser.run("return document.querySelector('[data-row].chosen th a').textContent").await;
    key("l").await;
    browser.sees(&format!("Lift everything on {}", chosen.as_str().unwrap())).await;
    browser.press("Cancel").await;
    browser.sees_no_more("Lift everything on").await;
    browser.has_no_errors(&[]).await;
}

#[tokio::test]
async fn a_night_shift_approves_freezes_protects_blocks_by_hand_and_revokes() {
    let night = Night::begin().await;
    let api = &night.manager.api;
    let browser = Browser::of(&night.manager.base, "anna").await;

    browser.press("Waiting 2 wait").await;
    browser.sees("Share of the fleet").await;
    browser.open(&format!("/waiting?id={}", night.waiting)).await;
    browser.press("Approve…").await;
    browser.fill("reason", "The logs agree").await;
    browser.press("Approve").await;
    night.is_verified(&night.waiting).await;
    browser.open(&format!("/responses/{}", night.waiting)).await;
    browser.sees("verified").await;
    browser.sees("The logs agree").await;
    browser.press("Lift…").await;
    browser.fill("reason", "It was our own scanner").await;
    browser.press("Lift").await;
    browser.sees("reverted").await;

    browser.open("/").await;
    browser.press("Freeze…").await;
    browser.fill("reason", "A deployment").await;
    browser.press("Freeze").await;
    browser.sees("Frozen.").await;
    let held = api.alert("5712", "203.0.113.50").await;
    browser.open(&format!("/responses/{held}")).await;
    browser.sees("queued").await;
    browser.open("/").await;
    browser.press("Resume…").await;
    browser.sees("2 commands").await;
    browser.fill("reason", "The deployment is over").await;
    browser.press("Resume").await;
    browser.sees("Resumed").await;
    night.is_verified(&held).await;

    browser.open("/block").await;
    browser.choose("action", "log-only").await;
    browser.fill("target", "198.51.100.99").await;
    browser.choose("on", "all").await;
    browser.fill("for", "1h").await;
    browser.fill("reason", "Seen in the proxy's log").await;
    browser.press("Show what it does…").await;
    browser.sees("2 agents of 2").await;
    browser.press("Respond").await;
    browser.sees("Ordered").await;
    browser.sees("verified").await;
    let made = api.get("/v1/responses?target=198.51.100.99").await;
    assert_eq!(made["items"][0]["requested_by"], "user:anna", "{made}");
    browser.has_no_errors(&[]).await;

    let browser = Browser::of(&night.manager.base, "root").await;
    browser.press_in(BLOCKED, "Protect…").await;
    browser.fill("reason", "A customer").await;
    browser.press("Protect").await;
    browser.open("/protected").await;
    browser.sees(BLOCKED).await;
    browser.open(&format!("/agents/{}", night.agent)).await;
    browser.press("Labels…").await;
    browser.fill("labels", "env=prod, role=web").await;
    browser.press("Set labels").await;
    browser.sees("role=web").await;
    browser.press("Revoke…").await;
    browser.press("Revoke").await;
    browser.sees("The agent is revoked").await;
    eventually("the agent is revoked", async || {
        let agent = api.get(&format!("/v1/agents/{}", night.agent)).await;
        agent["revoked_at"].is_string().then_some(())
    })
    .await;
    browser.has_no_errors(&[]).await;
}

#[tokio::test]
async fn a_policy_is_mended_tried_and_stored_and_an_ossec_conf_is_imported() {
    let night = Night::begin().await;
    let api = &night.manager.api;
    let browser = Browser::of(&night.manager.base, "erik").await;
    browser.open("/policies/new").await;
    let text = "name: stop-ssh\nmode: observe\nmatch:\n  - rule_ids: ['5712']\nrespond:\n  action: log-only\n  target: source.ip\n  on: all\n  for: FOR\n";
    browser.fill("document", &text.replace("FOR", "soon")).await;
    // The page says what is wrong while the text is written.
    browser.sees("/respond/for").await;
    browser.press("See the difference, then store").await;
    browser.sees("1 to mend").await;
    assert_eq!(browser.value_of("document").await, text.replace("FOR", "soon"));
    browser.fill("document", &text.replace("FOR", "20m")).await;
    browser.sees("No fault.").await;
    browser.press("Backtest").await;
    browser.sees("Over the stored alerts").await;
    browser.press("See the difference, then store").await;
    browser.sees("What would be stored").await;
    browser.press("Store").await;
    browser.sees("Version 1").await;
    let stored = api.get("/v1/policies/stop-ssh").await;
    assert_eq!(stored["respond"]["for"], "20m", "{stored}");

    browser.press("Change mode…").await;
    browser.choose("mode", "enforce").await;
    browser.press("Change the mode").await;
    eventually("it enforces", async || {
        let stored = api.get("/v1/policies/stop-ssh").await;
        (stored["mode"] == "enforce").then_some(())
    })
    .await;

    browser.open("/policies/import").await;
    let conf = "<ossec_config><command><name>firewall-drop</name><executable>firewall-drop</executable>\
        <timeout_allowed>yes</timeout_allowed></command><active-response><command>firewall-drop</command>\
        <location>local</location><rules_id>5763</rules_id><timeout>600</timeout></active-response></ossec_config>";
    browser.fill("configuration", conf).await;
    browser.press("See what it comes to").await;
    browser.sees("Nothing is stored yet").await;
    browser.press("Store all of it").await;
    browser.sees("firewall-drop").await;
    let listed = api.get("/v1/policies?limit=100").await;
    let names: Vec<&str> =
        listed["items"].as_array().unwrap().iter().filter_map(|policy| policy["name"].as_str()).collect();
    assert!(names.iter().any(|name| name.contains("firewall-drop")), "{names:?}");
    browser.has_no_errors(&["422"]).await;
}
