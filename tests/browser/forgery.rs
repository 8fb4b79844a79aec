//! Forms that another site, or another session, sends; the cookies; the end of a session.

use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::json;

use crate::browser::Browser;
use crate::programs::Manager;

/// The token of the forms of the browser's session.
pub(crate) async fn form_token(browser: &Browser) -> String {
    browser.open("/").await;
    let token = browser.run("return document.querySelector('form[action=\"/logout\"] [name=form_token]').value").await;
    token.as_str().unwrap().to_owned()
}

/// A client that follows no redirect.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

async fn send(base: &str, path: &str, cookies: &str, token: Option<&str>, site: &str) -> Response {
    let mut fields = vec![("frozen", "true"), ("reason", "An attack")];
    fields.extend(token.map(|token| ("form_token", token)));
    let request = client().post(format!("{base}{path}")).header("sec-fetch-site", site).header("cookie", cookies);
    request.form(&fields).send().await.unwrap()
}

async fn is_frozen(manager: &Manager) -> bool {
    manager.api.get("/v1/freeze").await["frozen"] == true
}

#[tokio::test]
async fn a_form_of_another_site_or_session_changes_nothing() {
    let manager = Manager::start().await;
    manager.people(&["anna:analyst", "otto:analyst"]).await;
    let (anna, otto) = (Browser::of(&manager.base, "anna").await, Browser::of(&manager.base, "otto").await);
    let (token, foreign) = (form_token(&anna).await, form_token(&otto).await);
    let cookies = anna.cookie_header().await;
    let base = &manager.base;
    for (token, site) in [
        (None, "same-origin"),
        (Some(""), "same-origin"),
        (Some("AAAA"), "same-origin"),
        (Some(foreign.as_str()), "same-origin"),
        (Some(token.as_str()), "cross-site"),
        (Some(token.as_str()), "same-site"),
    ] {
        let answer = send(base, "/freeze", &cookies, token, site).await;
        assert_eq!(answer.status(), 403, "{token:?} from {site}");
        assert!(!is_frozen(&manager).await, "{token:?} from {site}");
    }
    // Browsers send no cookie with a form of another site, so it looks like the form of an ended session. Its
    // fields must not be kept for the next login: one click would send them.
    let answer = send(base, "/freeze", "", None, "cross-site").await;
    assert_eq!(answer.status(), 403);
    assert!(!answer.text().await.unwrap().contains("An attack"));
    // The same form with its own token is carried out.
    assert_eq!(send(base, "/freeze", &cookies, Some(&token), "same-origin").await.status(), 303);
    assert!(is_frozen(&manager).await);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_send_a_form_or_frame_the_console() {
    let manager = Manager::start().await;
    manager.people(&["anna:analyst"]).await;
    let browser = Browser::of(&manager.base, "anna").await;
    // The same host by another name is another site.
    let elsewhere = manager.base.replace("127.0.0.1", "localhost");
    browser.driver.open(&format!("{elsewhere}/login")).await.unwrap();
    let script = r"const form = document.createElement('form');
        form.method = 'post';
        form.action = arguments[0] + '/freeze';
        form.innerHTML = '<input name=frozen value=true><input name=reason value=attack>';
        document.body.append(form);
        form.submit();";
    // The policy of the console's own pages forbids this form, so it is sent from a page without one.
    browser.driver.open("data:text/html,<body>elsewhere").await.unwrap();
    browser.driver.run(script, &[json!(manager.base)]).await.unwrap();
    browser.sees("Another site sent this form").await;
    assert!(!is_frozen(&manager).await);
    let answer = client().get(format!("{}/login", manager.base)).send().await.unwrap();
    assert_eq!(answer.headers()["x-frame-options"], "DENY");
}

#[tokio::test]
async fn cookies_are_out_of_reach_of_scripts_and_a_logout_ends_the_session_at_the_manager() {
    let manager = Manager::start().await;
    manager.people(&["anna:analyst"]).await;
    let browser = Browser::of(&manager.base, "anna").await;
    let cookies = browser.driver.cookies().await.unwrap();
    let mut names: Vec<&str> = cookies.iter().map(|cookie| cookie["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["riposte_access", "riposte_refresh"]);
    for cookie in &cookies {
        assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Lax")), "{cookie}");
    }
    assert_eq!(browser.run("return document.cookie").await, "");
    let stolen = browser.cookie_header().await;
    let asked = async || client().get(&manager.base).header("cookie", &stolen).send().await.unwrap().status();
    assert_eq!(asked().await, 200);
    browser.press("Log out").await;
    browser.is_at("/login").await;
    assert_eq!(asked().await, 303, "the session goes on after the logout");
    assert!(browser.driver.cookies().await.unwrap().is_empty());
}
