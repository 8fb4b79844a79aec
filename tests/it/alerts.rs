//! Sending alerts and reading them: what is accepted, what is refused and with which problem, what
//! is a duplicate.

use std::collections::BTreeSet;
use std::io::Write as _;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::alert::{brute_force, drop_policy, from_agent, ndjson};
use crate::support::{Answer, Client, Database, TestApp};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

async fn compressed(client: &Client, encoding: &str, body: Vec<u8>) -> Answer {
    let request = client.request(Method::POST, "/v1/alerts").header("content-encoding", encoding);
    Answer::to(request.header("content-type", JSON).body(body)).await
}

async fn stored(client: &Client) -> usize {
    client.list("/v1/alerts").await.len()
}

/// Returns an alert whose text has exactly `bytes` bytes.
fn of_size(id: &str, bytes: usize) -> String {
    let mut alert = brute_force(id, "203.0.113.7");
    alert["full_log"] = json!("");
    let missing = bytes - alert.to_string().len();
    alert["full_log"] = json!("x".repeat(missing));
    let text = alert.to_string();
    assert_eq!(text.len(), bytes);
    text
}

#[tokio::test]
async fn a_bad_line_in_a_batch_is_rejected_alone_and_named_by_its_index() {
    let (_app, admin) = TestApp::start().await;
    let good = |id: &str| brute_force(id, "203.0.113.7").to_string();
    let mut levelless = brute_force("9", "203.0.113.7");
    levelless["rule"]["level"] = json!(17);
    let lines =
        [good("1"), "{\"id\": ".into(), String::new(), levelless.to_string(), "  ".into(), good("2"), "7".into()];
    let answer = admin.alerts(NDJSON, lines.join("\n")).await.is(202);
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(2), &json!(0)));
    let rejected = answer["rejected"].as_array().unwrap();
    // Blank lines are not counted.
    let at: Vec<&Value> = rejected.iter().map(|entry| &entry["index"]).collect();
    assert_eq!(at, [&json!(1), &json!(2), &json!(4)]);
    assert_eq!(rejected[1]["errors"][0]["pointer"], "/rule/level");
    assert_eq!(stored(&admin).await, 2);

    let array = format!("[{}, {levelless}, {}, [], null]", good("3"), good("4"));
    let answer = admin.alerts(JSON, array).await.is(202);
    let rejected: Vec<&Value> = answer["rejected"].as_array().unwrap().iter().map(|entry| &entry["index"]).collect();
    assert_eq!(rejected, [&json!(1), &json!(3), &json!(4)]);
    assert_eq!((&answer["accepted"], stored(&admin).await), (&json!(2), 4));
}

#[tokio::test]
async fn a_batch_in_which_every_line_is_bad_is_refused_with_a_pointer_to_each_fault() {
    let (_app, admin) = TestApp::start().await;
    let mut faulty = brute_force("1", "203.0.113.7");
    faulty["rule"]["id"] = Value::Null;
    faulty["timestamp"] = json!("yesterday");
    let answer = admin.alerts(NDJSON, format!("nothing\n{faulty}\n")).await;
    assert_eq!(answer.points_at(), ["/0", "/1/timestamp", "/1/rule/id"]);
    let answer = admin.post("/v1/alerts", &faulty).await;
    assert_eq!(answer.points_at(), ["/timestamp", "/rule/id"]);
    assert_eq!(stored(&admin).await, 0);
}

#[tokio::test]
async fn a_body_that_is_no_alert_is_refused_and_nothing_is_stored() {
    let (_app, admin) = TestApp::start().await;
    let alert = brute_force("1", "203.0.113.7").to_string();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        (JSON, b"".to_vec(), 400),
        (JSON, b"   \n".to_vec(), 400),
        (JSON, b"{".to_vec(), 400),
        (JSON, format!("{alert} {alert}").into_bytes(), 400),
        (JSON, format!("[{alert},]").into_bytes(), 400),
        (JSON, format!("[{alert}").into_bytes(), 400),
        (JSON, b"\xff\xfe{}".to_vec(), 400),
        (JSON, b"7".to_vec(), 422),
        (JSON, b"{}".to_vec(), 422),
        (JSON, b"\"text\"".to_vec(), 422),
        (NDJSON, b"\n\n\n".to_vec(), 400),
        ("text/xml", alert.clone().into_bytes(), 415),
        ("text/plain", alert.clone().into_bytes(), 415),
        ("application/x-www-form-urlencoded", alert.clone().into_bytes(), 415),
        ("application/octet-stream", alert.clone().into_bytes(), 415),
    ];
    for (media_type, body, status) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = admin.alerts(media_type, body).await;
        assert_eq!(answer.status, status, "{media_type}: {shown:.60}: {}", answer.text);
        answer.is_problem(status);
    }
    for encoding in ["br", "deflate", "gzip, gzip", "compress"] {
        compressed(&admin, encoding, alert.clone().into_bytes()).await.is_problem(415);
    }
    assert_eq!(stored(&admin).await, 0);
    // Unusual but valid input is accepted.
    admin.alerts("Application/JSON; charset=utf-8", alert).await.is(202);
}

#[tokio::test]
async fn a_body_is_taken_up_to_its_bound_and_not_a_byte_further() {
    let bound = 4096;
    let (_app, admin) = TestApp::start_with(Database::sqlite(), |config| config.limits.max_body_bytes = bound).await;
    admin.alerts(JSON, of_size("1", bound)).await.is(202);
    admin.alerts(JSON, of_size("2", bound + 1)).await.is_problem(413);
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let id = format!("{encoding}-at");
        compressed(&admin, encoding, compress(of_size(&id, bound).as_bytes())).await.is(202);
        let over = compress(of_size("over", bound + 1).as_bytes());
        assert!(over.len() < bound, "it is the decompressed size that counts");
        compressed(&admin, encoding, over).await.is_problem(413);
    }
    assert_eq!(stored(&admin).await, 3);
}

#[tokio::test]
async fn a_batch_is_taken_up_to_its_bound_and_not_an_alert_further() {
    let (_app, admin) = TestApp::start_with(Database::sqlite(), |config| config.limits.max_batch = 3).await;
    let alerts: Vec<Value> = (0..7).map(|n| brute_force(&n.to_string(), "203.0.113.7")).collect();
    admin.alerts(NDJSON, ndjson(&alerts[..3])).await.is(202);
    admin.alerts(NDJSON, ndjson(&alerts[3..7])).await.is_problem(413);
    admin.post("/v1/alerts", &json!(alerts[3..7])).await.is_problem(413);
    assert_eq!(stored(&admin).await, 3);
    admin.post("/v1/alerts", &json!(alerts[3..6])).await.is(202);
    assert_eq!(stored(&admin).await, 6);
}

#[tokio::test]
async fn promise_11_alerts_in_progress_stay_within_their_memory_budget() {
    let (app, admin) = TestApp::start_with(Database::sqlite(), |config| {
        (config.limits.max_body_bytes, config.limits.max_pending_bytes) = (4096, 4096);
    })
    .await;
    // A client sends three quarters of that except for the last byte, and waits.
    let mut slow = tokio::net::TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    let body = of_size("slow", 3072);
    let head = format!(
        "POST /v1/alerts HTTP/1.1\r\nHost: riposte\r\nAuthorization: Bearer {}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n",
        admin.key(),
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&body.as_bytes()[..3071]).await.unwrap();
    crate::support::eventually("there is no room left", async || {
        let answer = admin.alerts(JSON, of_size("1", 2048)).await;
        (answer.status == 503).then(|| assert_eq!(answer.header("retry-after"), Some("1")))
    })
    .await;
    // A small request still fits, and results of agents have a budget of their own.
    admin.alerts(JSON, of_size("2", 512)).await.is(202);
    admin.post("/v1/protected", &json!({"kind": "ip", "value": "192.0.2.1", "reason": "x".repeat(900)})).await.is(201);
    slow.write_all(&body.as_bytes()[3071..]).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");
    admin.alerts(JSON, of_size("3", 4096)).await.is(202);
    admin.alerts(JSON, of_size("4", 4096)).await.is(202);
}

#[tokio::test]
async fn a_compressed_bomb_and_a_torn_one_are_refused() {
    let (_app, admin) = TestApp::start().await;
    let limit = riposte::config::Config::default().limits.max_body_bytes;
    let blanks = vec![b' '; 2 * limit];
    for (encoding, bomb) in [("gzip", gzip(&blanks)), ("zstd", zstd(&blanks))] {
        assert!(bomb.len() < 100_000, "small enough for any client to send");
        compressed(&admin, encoding, bomb).await.is_problem(413);
    }
    let alert = brute_force("1", "203.0.113.7").to_string();
    for (encoding, body) in [("gzip", gzip(alert.as_bytes())), ("zstd", zstd(alert.as_bytes()))] {
        compressed(&admin, encoding, body[..body.len() - 5].to_vec()).await.is_problem(400);
        compressed(&admin, encoding, alert.clone().into_bytes()).await.is_problem(400);
        compressed(&admin, encoding, Vec::new()).await.is_problem(400);
    }
    assert_eq!(stored(&admin).await, 0);
}

#[tokio::test]
async fn an_alert_is_kept_as_it_came() {
    let (_app, admin) = TestApp::start().await;
    let raw = concat!(
        r#"{ "timestamp":"2026-11-24T09:59:58.123+0100" ,"id" :  "1.7", "rule":{"level":1e1,"id":5763, "x":1.0},"#,
        r#""agent":{"id":"5","name":"\u0077eb-01"}, "dup":1, "dup":2, "data":{"srcip":"::ffff:203.0.113.7"}}"#,
    );
    admin.alerts(JSON, raw).await.is(202);
    let listed = admin.list("/v1/alerts").await.remove(0);
    assert_eq!(listed.get("raw"), None, "a list leaves the raw alert out");
    let one = admin.get(&format!("/v1/alerts/{}", listed["id"].as_str().unwrap())).await;
    assert!(one.text.contains(raw), "{}", one.text);
    let one = one.is(200);
    assert_eq!(one["time"], "2026-11-24T08:59:58.123Z");
    assert_eq!((&one["rule"]["id"], &one["rule"]["level"]), (&json!("5763"), &json!(10)));
    assert_eq!(one["agent"], json!({"id": "005", "name": "web-01"}));
    // An address is shown in its canonical form.
    let source = json!({"value": "203.0.113.7", "field": "data.srcip"});
    assert_eq!(one["observables"], json!({"source_ip": source}));
}

#[tokio::test]
async fn an_alert_of_any_pipeline_is_taken_in_the_generic_shape() {
    let (app, admin) = TestApp::start().await;
    let agent = app.enrol(&admin, "mail-01", &json!({})).await;
    admin.policy(&drop_policy("drop")).await;
    let alert = json!({"pipeline": "sensor", "id": "a-1", "time": "2026-11-24T10:00:00Z",
        "rule": {"id": "5763", "level": 10}, "agent": {"name": "mail-01"}, "source": {"ip": "2001:DB8::1"}});
    admin.post("/v1/alerts", &alert).await.is(202);
    let command = agent.owed_one().await;
    assert_eq!((command.action.as_str(), command.target.value()), ("firewall-drop", "2001:db8::1"));
    let mut posing = alert;
    posing["pipeline"] = json!("wazuh");
    assert_eq!(admin.post("/v1/alerts", &posing).await.points_at(), ["/pipeline"]);
}

on_both_databases! {
    async fn filters_find_what_they_name_and_nothing_else(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let mut alerts = Vec::new();
        for n in 0..6 {
            let mut alert = brute_force(&format!("1.{n}"), "203.0.113.7");
            alert["rule"]["id"] = json!(if n % 2 == 0 { "5763" } else { "31151" });
            alert["rule"]["level"] = json!(5 + n);
            alert["timestamp"] = json!(format!("2026-11-24T09:0{n}:00.000+0000"));
            alerts.push(if n < 3 { alert } else { from_agent(alert, "7", "db-01") });
        }
        admin.alerts(NDJSON, ndjson(&alerts)).await.is(202);
        for (query, expected) in [
            ("", vec![5, 4, 3, 2, 1, 0]),
            ("?rule_id=5763", vec![4, 2, 0]),
            ("?rule_id=05763", vec![4, 2, 0]),
            ("?rule_id=1", vec![]),
            ("?min_level=8", vec![5, 4, 3]),
            ("?min_level=11", vec![]),
            ("?agent_id=005", vec![2, 1, 0]),
            ("?agent_id=7", vec![5, 4, 3]),
            ("?since=2026-11-24T09:02:00Z", vec![5, 4, 3, 2]),
            ("?until=2026-11-24T09:02:00Z", vec![1, 0]),
            ("?since=2026-11-24T10:01:00%2B01:00&until=2026-11-24T09:04:00Z&rule_id=31151", vec![3, 1]),
        ] {
            let found: Vec<String> = admin
                .list(&format!("/v1/alerts{query}"))
                .await
                .iter()
                .map(|alert| alert["pipeline_id"].as_str().unwrap().to_owned())
                .collect();
            let expected: Vec<String> = expected.iter().map(|n| format!("1.{n}")).collect();
            assert_eq!(found, expected, "{query}");
        }
    }

    async fn pages_show_everything_exactly_once_also_while_more_comes(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let alerts: Vec<Value> = (0..25).map(|n| brute_force(&format!("1.{n}"), "203.0.113.7")).collect();
        admin.alerts(NDJSON, ndjson(&alerts)).await.is(202);
        let mut seen = Vec::new();
        let mut next = Some("/v1/alerts?limit=4&min_level=3".to_owned());
        while let Some(path) = next {
            let answer = admin.get(&path).await;
            let page = answer.is(200);
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|item| item["pipeline_id"].as_str().unwrap().to_owned()),
            );
            // The header and the body name the same next page.
            next = answer.header("link").map(|link| {
                let link = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
                assert!(link.ends_with(&format!("cursor={}", page["next_cursor"].as_str().unwrap())), "{link}");
                assert!(link.starts_with("/v1/alerts?limit=4&min_level=3&"), "{link}");
                link.to_owned()
            });
            assert_eq!(next.is_none(), page["next_cursor"].is_null());
            admin.post("/v1/alerts", &brute_force(&format!("2.{}", seen.len()), "203.0.113.7")).await.is(202);
        }
        let expected: Vec<String> = (0..25).rev().map(|n| format!("1.{n}")).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn an_invalid_page_request_is_an_error_on_every_list() {
    let (_app, admin) = TestApp::start().await;
    for list in
        ["alerts", "responses", "effects", "commands", "agents", "audit", "enrollment-tokens", "protected", "policies"]
    {
        for (query, place) in
            [("limit=0", "/limit"), ("limit=501", "/limit"), ("limit=-1", "/limit"), ("cursor=x", "/cursor")]
        {
            // A policy's name is its cursor, and "x" is a name.
            if (list, place) != ("policies", "/cursor") {
                assert_eq!(admin.get(&format!("/v1/{list}?{query}")).await.points_at(), [place], "{list}?{query}");
            }
        }
        admin.get(&format!("/v1/{list}?limit=500")).await.is(200);
        admin.get(&format!("/v1/{list}?limit=x")).await.is_problem(400);
        // A misspelt filter must not look like one that matched everything.
        admin.get(&format!("/v1/{list}?limt=5")).await.is_problem(400);
    }
}

#[tokio::test]
async fn every_list_of_the_api_takes_a_limit_and_a_cursor() {
    let (_app, admin) = TestApp::start().await;
    let contract = admin.get("/openapi.json").await.is(200);
    let mut unpaged = BTreeSet::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        let schema = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let names = |operation: &Value| -> BTreeSet<String> {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            parameters.iter().map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
        };
        if schema.is_some_and(|name| name.contains("Page_")) && !names(&item["get"]).contains("cursor") {
            unpaged.insert(path.as_str());
        }
    }
    // Fixed tables of the program and its configuration: they cannot grow at run time.
    assert_eq!(unpaged, BTreeSet::from(["/v1/actions", "/v1/pipelines"]));
}
