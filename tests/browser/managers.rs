//! The console of several managers on one PostgreSQL: a session of one is a session of all, and a
//! page shows what happens at the others.

use serde_json::json;

use crate::browser::Browser;
use crate::forgery::form_token;
use crate::postgres::Postgres;
use crate::programs::{Manager, eventually};

#[tokio::test]
async fn a_person_who_has_logged_in_at_one_manager_sees_and_acts_at_the_other() {
    let postgres = Postgres::start().await;
    let url = postgres.url();
    let mut first = Manager::start_with(&["--database-url", &url]).await;
    let second = Manager::beside(&first, &["--database-url", &url]).await;
    first.people(&["anna:analyst"]).await;
    first.agent("web-01", json!({})).await;
    first.api.policy("log-ssh", "5712", &json!({})).await;
    eventually("the other manager knows the person and the policy", async || {
        let known = second.api.get("/v1/policies/log-ssh").await;
        (known["name"] == "log-ssh").then_some(())
    })
    .await;

    // A browser sends the cookies of a host to each of its ports, so one login is enough.
    let browser = Browser::of(&first.base, "anna").await;
    let other = Browser { base: second.base.clone(), ..browser };
    other.open("/").await;
    other.is_at("/").await;
    other.sees("Nothing is in force").await;
    other.mark().await;
    let at_first = first.api.alert("5712", "203.0.113.7").await;
    other.sees("203.0.113.7").await;
    second.api.alert("5712", "203.0.113.8").await;
    other.is_offered("1 new").await;
    assert!(!other.is_unloaded_since_mark().await);
    other.press("1 new").await;
    other.press_in("203.0.113.7", "Lift…").await;
    other.fill("reason", "Asked for at the other manager").await;
    other.press("Lift").await;
    other.sees("1 response lifted").await;
    eventually("the response has ended at the first", async || {
        let shown = first.api.get(&format!("/v1/responses/{at_first}")).await;
        (shown["state"] == "ended").then_some(())
    })
    .await;
    // A form that was opened at one manager is taken by the other.
    let token = form_token(&other).await;
    let back = Browser { base: first.base.clone(), ..other };
    assert_eq!(form_token(&back).await, token);
    back.sees("203.0.113.8").await;
    back.press("Log out").await;
    back.is_at("/login").await;
    let gone = Browser { base: second.base.clone(), ..back };
    gone.open("/responses").await;
    gone.is_at("/login?next=%2Fresponses").await;
}
