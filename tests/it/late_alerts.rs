//! Alerts that came later than `max_age`, counted over kills of the manager and over several
//! pipelines.

use std::fs;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::processes::{Manager, now};
use crate::support::alert::brute_force;
use crate::support::{Client, Database, TestApp};

/// An alert of ten days ago.
fn late(id: &str) -> Value {
    let mut alert = brute_force(id, "203.0.113.1");
    alert["timestamp"] = json!(now().minus(std::time::Duration::from_hours(240)));
    alert
}

/// The entries about late alerts: of which pipeline, and how many there were.
async fn announced(admin: &Client) -> Vec<(String, String)> {
    let events = admin.list("/v1/audit").await.into_iter();
    let late = events.filter(|entry| entry["noun"] == "pipeline" && entry["verb"] == "late");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    late.map(|entry| (text(&entry["noun_id"]), text(&entry["detail"]).split(" from ").next().unwrap().to_owned()))
        .collect()
}

#[tokio::test]
async fn late_alerts_of_before_a_kill_are_announced_with_those_of_after_it_once() {
    let mut manager = Manager::start().await;
    let first = [late("1"), late("2"), late("3")];
    manager.api().post("/v1/alerts", &json!(first)).await;
    manager.kill9();
    // Its ledger goes on in this process, whose clock the test moves.
    let (app, _) = TestApp::start_at(now(), Database::sqlite(), |config| config.alerts.max_age = "1h".into()).await;
    let continued = async |_, data: std::path::PathBuf| {
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for file in fs::read_dir(manager.data_dir()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), data.join(file.file_name())).unwrap();
        }
    };
    let (app, admin) = app.restart_after(continued).await;
    // The pipeline had no answer to the last one, and sends it again.
    admin.post("/v1/alerts", &json!([first[2], late("4"), late("5")])).await.is(202);
    app.advance(61);
    let once = [("wazuh".to_owned(), "5 alerts".to_owned())];
    app.in_time("the entry", async || (announced(&admin).await == once).then_some(())).await;
    // Neither another round nor another start announces them again.
    let (app, admin) = app.restart().await;
    app.advance(90);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(announced(&admin).await, once);
}

#[tokio::test]
async fn late_alerts_that_several_managers_take_are_one_count() {
    let database = Database::postgresql().await;
    let first = Manager::start_with(&["--database-url", &database.url()]).await;
    let second = first.start_copy().await;
    let post = async |number: usize| {
        let manager = if number.is_multiple_of(2) { &first } else { &second };
        // Of three pipelines, in another order each time.
        let of = |nth: usize| {
            json!({"pipeline": format!("p{}", (number + nth) % 3), "id": format!("{number}.{nth}"), "time": "2025-01-01T00:00:00Z",
                "rule": {"id": "1", "level": 3}})
        };
        manager.api().post("/v1/alerts", &json!([of(0), of(1), of(2)])).await;
    };
    join_all((0..60).map(post)).await;
    let mut ledger = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let counted = sqlx::query_as::<_, (String, i64)>("SELECT pipeline, count FROM late_alerts ORDER BY pipeline");
    let counted = counted.fetch_all(&mut ledger).await.unwrap();
    assert_eq!(counted, ["p0", "p1", "p2"].map(|pipeline| (pipeline.to_owned(), 60)));
}

#[tokio::test]
async fn pipelines_with_late_alerts_are_bounded_and_every_alert_is_counted() {
    let (app, admin) = TestApp::start_at(now(), Database::sqlite(), |config| config.alerts.max_age = "1h".into()).await;
    let time = now().minus(std::time::Duration::from_hours(240));
    for half in [0..50, 40..100] {
        let of = |nth: u64| json!({"pipeline": format!("p{nth}"), "id": format!("{}.{nth}", half.start), "time": time, "rule": {"id": "1", "level": 3}});
        let alerts: Vec<Value> = half.clone().map(of).collect();
        admin.post("/v1/alerts", &json!(alerts)).await.is(202);
    }
    app.advance(61);
    app.in_time("the entries", async || (!announced(&admin).await.is_empty()).then_some(())).await;
    let announced = announced(&admin).await;
    let count = |count: &str| count.split(' ').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(announced.iter().map(|(_, alerts)| count(alerts)).sum::<u64>(), 110);
    // 64 by their names; of those after them there were 36.
    assert_eq!(announced.len(), 65);
    assert!(announced.contains(&("others".to_owned(), "36 alerts".to_owned())), "{announced:?}");
}
