//! How every page looks: screenshots of all, in light and dark, on a screen and on a phone, in
//! `target/screenshots`; and what axe-core finds on each, with the browser's own log of errors.

use serde_json::{Value, json};

use crate::browser::{Browser, PHONE, WIDE, target};
use crate::programs::Manager;
use crate::seed::Night;

/// Findings of axe-core that count.
const SERIOUS: [&str; 2] = ["serious", "critical"];
/// Runs axe-core on the page; the last argument is `WebDriver`'s.
const AXE: &str = "const done = arguments[arguments.length - 1];
    axe.run(document, { resultTypes: ['violations'] }).then(found => done(found.violations.map(one => (
        { id: one.id, impact: one.impact, nodes: one.nodes.map(node => node.target.join(' ') + ': ' + node.failureSummary) }
    ))), why => done(String(why)));";

fn axe() -> String {
    let program = target("axe/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(program).expect("axe-core is missing: run scripts/test-deps.sh browser")
}

/// Looks at the page in the browser; adds what is wrong with it.
async fn look(browser: &Browser, axe: &str, name: &str, view: &str, width: u32, faults: &mut Vec<String>) {
    let folder = target("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}-{view}-{width}.png")), browser.driver.picture().await.unwrap()).unwrap();
    let wide = browser.run("return document.documentElement.scrollWidth").await.as_u64().unwrap();
    if wide > u64::from(width) {
        faults.push(format!("{name} {view} {width}: the page is {wide} pixels wide"));
    }
    browser.driver.run(axe, &[]).await.unwrap();
    let found = browser.driver.run_to_end(AXE, &[]).await.unwrap();
    let found = found.as_array().unwrap_or_else(|| panic!("axe-core failed at {name}: {found}"));
    let serious = |one: &&Value| SERIOUS.iter().any(|impact| one["impact"] == *impact);
    faults.extend(found.iter().filter(serious).map(|one| format!("{name} {view} {width}: {one:#}")));
}

async fn look_at_all(is_dark: bool, width: u32) {
    let (axe, view) = (axe(), if is_dark { "dark" } else { "light" });
    let mut faults = Vec::new();
    let empty = Manager::start().await;
    let browser = Browser::start(&empty.base).await;
    browser.looks(is_dark, width).await;
    browser.open("/login").await;
    look(&browser, &axe, "login-first", view, width, &mut faults).await;
    empty.people(&["root:admin"]).await;
    browser.open("/login").await;
    look(&browser, &axe, "login", view, width, &mut faults).await;
    browser.log_in("root").await;
    for (name, path) in [("empty-now", "/"), ("empty-waiting", "/waiting"), ("empty-policies", "/policies")] {
        browser.open(path).await;
        look(&browser, &axe, name, view, width, &mut faults).await;
    }
    browser.has_no_errors(&[]).await;

    let night = Night::begin().await;
    let browser = Browser::start(&night.manager.base).await;
    browser.looks(is_dark, width).await;
    browser.log_in("root").await;
    for (name, path) in night.pages().into_iter().chain(Night::administrators_pages()).chain(night.plans()) {
        browser.open(&path).await;
        look(&browser, &axe, name, view, width, &mut faults).await;
        browser.has_no_errors(&[]).await;
    }
    browser.open("/").await;
    browser.press("Freeze…").await;
    browser.sees("No agent gets any new command").await;
    look(&browser, &axe, "plan-over-now", view, width, &mut faults).await;
    browser.open("/agents/enrol").await;
    browser.press("Make the token").await;
    browser.sees("riposte-agent enroll --manager").await;
    look(&browser, &axe, "enrol-shown-once", view, width, &mut faults).await;
    browser.open("/responses/00000000-0000-7000-8000-000000000000").await;
    look(&browser, &axe, "not-found", view, width, &mut faults).await;
    browser.has_no_errors(&["404"]).await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn every_page_is_usable_by_all_light_and_wide() {
    look_at_all(false, WIDE).await;
}

#[tokio::test]
async fn every_page_is_usable_by_all_dark_and_wide() {
    look_at_all(true, WIDE).await;
}

#[tokio::test]
async fn every_page_is_usable_by_all_light_on_a_phone() {
    look_at_all(false, PHONE).await;
}

#[tokio::test]
async fn every_page_is_usable_by_all_dark_on_a_phone() {
    look_at_all(true, PHONE).await;
}

/// The search for faults finds one.
#[tokio::test]
async fn a_page_with_a_fault_is_noticed() {
    let manager = Manager::start().await;
    let browser = Browser::start(&manager.base).await;
    browser.looks(false, PHONE).await;
    browser.open("/login").await;
    let fault = "const image = document.createElement('img');
        image.src = arguments[0];
        image.width = 900;
        document.body.append(image);";
    browser.driver.run(fault, &[json!("data:image/gif;base64,R0lGODlhAQABAAAAACw=")]).await.unwrap();
    let mut faults = Vec::new();
    look(&browser, &axe(), "fault", "light", PHONE, &mut faults).await;
    assert!(faults.iter().any(|fault| fault.contains("image-alt")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains("pixels wide")), "{faults:?}");
    let log = browser.driver.log().await.unwrap();
    assert!(log.iter().any(|entry| entry["message"].as_str().unwrap().contains("Content Security Policy")), "{log:?}");
    std::fs::remove_file(target("screenshots/fault-light-390.png")).unwrap();
}
