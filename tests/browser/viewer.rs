//! A viewer reads every page, and can change nothing: no page shows a button that would be refused,
//! and a form that is sent nevertheless is refused.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::browser::Browser;
use crate::forgery::{client, form_token};
use crate::seed::Night;

/// What could change something: forms that are posted, except the one of the logout, and links to
/// plans.
const POWERS: &str = r"
    const forms = [...document.querySelectorAll('form[method=post]')].filter(form => form.getAttribute('action') !== '/logout');
    return [...forms.map(form => form.getAttribute('action')),
        ...[...document.querySelectorAll('main a[data-plan]')].map(link => link.getAttribute('href'))];";

/// Where the links of a page lead in the console.
const LINKS: &str = "return [...document.querySelectorAll('a[href^=\"/\"]')].map(link => link.getAttribute('href'));";

#[tokio::test]
async fn a_viewer_reads_every_page_and_finds_no_button_that_changes_anything() {
    let night = Night::begin().await;
    let browser = Browser::of(&night.manager.base, "vera").await;
    let mut links = BTreeSet::new();
    for (name, path) in night.pages() {
        browser.open(&path).await;
        let text = browser.text().await;
        assert!(!text.contains("Not allowed") && !text.contains("Not found"), "{name}: {text}");
        let powers = browser.run(POWERS).await;
        // One's own password, codes and keys are every person's.
        let foreign = |power: &&Value| !power.as_str().unwrap().starts_with("/account");
        let powers: Vec<&Value> = powers.as_array().unwrap().iter().filter(foreign).collect();
        assert!(powers.is_empty(), "{name} at {path} offers {powers:?}");
        browser.has_no_errors(&[]).await;
        let places = browser.run(LINKS).await;
        links.extend(places.as_array().unwrap().iter().map(|place| place.as_str().unwrap().to_owned()));
    }
    let cookies = browser.cookie_header().await;
    let http = client();
    for link in &links {
        let answer = http.get(format!("{}{link}", night.manager.base)).header("cookie", &cookies).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(status < 400, "a page links to {link}, which is {status}");
    }
    assert!(links.len() > 20, "{links:?}");
    // The same person sees the powers of the same page with another role, so the search finds them.
    let browser = Browser::of(&night.manager.base, "anna").await;
    browser.open("/").await;
    assert!(!browser.run(POWERS).await.as_array().unwrap().is_empty());
}

/// What the forms ask for.
const FIELDS: [(&str, &str); 13] = [
    ("reason", "I try"),
    ("frozen", "true"),
    ("count", "1"),
    ("uses", "1"),
    ("expires_in", "1h"),
    ("labels", "env=test"),
    ("kind", "ip"),
    ("value", "203.0.113.99"),
    ("seen", "yes"),
    ("mode", "observe"),
    ("name", "mallory"),
    ("role", "admin"),
    ("configuration", "<ossec_config></ossec_config>"),
];

#[tokio::test]
async fn a_viewer_is_refused_at_every_form_whose_address_is_typed_in() {
    let night = Night::begin().await;
    let browser = Browser::of(&night.manager.base, "vera").await;
    let token = form_token(&browser).await;
    let cookies = browser.cookie_header().await;
    let http = client();
    for (name, path) in night.plans() {
        browser.open(&path).await;
        let powers = browser.run(POWERS).await;
        assert_eq!(powers, serde_json::json!([]), "{name} at {path} shows a form that would be refused");
        let token = [("form_token", token.as_str())];
        let fields: Vec<(&str, &str)> = token.into_iter().chain(FIELDS).collect();
        let url = format!("{}{path}", night.manager.base);
        let answer = http.post(url).header("cookie", &cookies).form(&fields).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(status, 403, "{name} at {path}: {text}");
    }
    let log = night.manager.api.get("/v1/audit?limit=500").await;
    let entries = log["items"].as_array().unwrap();
    let deeds: Vec<&Value> =
        entries.iter().filter(|entry| entry["actor"] == "user:vera").map(|entry| &entry["verb"]).collect();
    assert!(deeds.iter().all(|deed| ["denied", "logged in"].contains(&deed.as_str().unwrap())), "{deeds:?}");
}
