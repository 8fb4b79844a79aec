//! Feeds of several managers on one PostgreSQL: a bouncer asks any of them, and each change is told.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::processes::{FakeAgent, Manager, PATIENCE, eventually, signal, text};
use crate::support::{Answer, Client, Database};

async fn ask(manager: &Manager, key: &str, query: &str) -> Answer {
    let client = Client::anonymous(&manager.base());
    let request = client.request(Method::GET, &format!("/crowdsec/v1/decisions/stream?{query}"));
    Answer::to(request.header("x-api-key", key)).await
}

fn values(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|one| one["value"].as_str().unwrap()).collect()
}

async fn block(manager: &Manager, target: &str) -> String {
    let asked =
        json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": "1h", "reason": "seen"});
    text(&manager.api().post("/v1/responses", &asked).await, "id").to_owned()
}

#[tokio::test]
async fn each_change_is_told_whichever_manager_a_bouncer_asks_and_a_lease_is_waited_for() {
    let database = Database::postgresql().await;
    let first = Manager::start_with(&["--database-url", &database.url()]).await;
    let second = first.start_copy().await;
    let _agent = FakeAgent::enroll(&first, "web-01").await;
    first.api().post("/v1/feeds", &json!({"name": "edge", "form": "crowdsec"})).await;
    let scope = json!({"rights": ["pull_feeds"], "feeds": ["edge"]});
    let made = json!({"name": "bouncer", "role": "viewer", "scope": scope});
    let key = text(&first.api().post("/v1/api-keys", &made).await, "key").to_owned();
    // In force at both when it was answered.
    ask(&second, &key, "startup=true").await.is(200);
    let kept = block(&second, "203.0.113.1").await;
    assert_eq!(values(&ask(&first, &key, "").await.is(200)["new"]), ["203.0.113.1"]);
    block(&first, "203.0.113.2").await;
    let told = ask(&second, &key, "").await.is(200);
    assert!(values(&told["new"]).contains(&"203.0.113.2"), "{told}");
    first.api().post(&format!("/v1/responses/{kept}/lift"), &json!({"reason": "over"})).await;
    let gone = ask(&second, &key, "").await.is(200);
    assert!(values(&gone["deleted"]).contains(&"203.0.113.1"), "{gone}");
    assert!(!values(&gone["new"]).contains(&"203.0.113.1"), "{gone}");
    // Each manager shows the fetch at the other one, within seconds and never before it was.
    eventually("both show that nothing is owed", PATIENCE, async || {
        let (one, other) = (first.api().get("/v1/feeds/edge").await, second.api().get("/v1/feeds/edge").await);
        let owed = |feed: &Value| feed["consumers"][0]["owed_removed"].as_i64();
        (owed(&one) == Some(0) && owed(&other) == Some(0)).then_some(())
    })
    .await;

    // A manager that stood still has no lease for a moment. A bouncer would end by a 503 to its first request.
    signal(&second.child, "STOP");
    let asking = join_all((0..5).map(|_| ask(&second, &key, "startup=true")));
    let waking = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        signal(&second.child, "CONT");
    };
    let (answers, ()) = tokio::join!(asking, waking);
    for answer in answers {
        assert_eq!(values(&answer.is(200)["new"]), ["203.0.113.2"]);
    }
    second.api().audit_is_intact().await;
}
