//! TAXII 2.1: a feed as a collection of indicators, which says what is in force and what was lifted.

use reqwest::Method;
use serde_json::{Value, json};

use super::feeds::{block, key_of, lift, with_agent};
use crate::support::{Answer, Client, Database, FakeAgent, TestApp};

const OBJECTS: &str = "collections/edge/objects/";

/// Asks as a client of TAXII does, below the API root.
async fn ask(app: &TestApp, key: &str, path: &str) -> Answer {
    let request = Client::anonymous(&app.base).request(Method::GET, &format!("/taxii2/riposte/{path}"));
    let request = request.header("accept", "application/taxii+json;version=2.1").basic_auth("tip", Some(key));
    Answer::to(request).await
}

async fn read(app: &TestApp, key: &str, path: &str) -> Value {
    let answer = ask(app, key, path).await;
    assert_eq!(answer.header("content-type"), Some("application/taxii+json;version=2.1"), "{}", answer.text);
    answer.is(200)
}

/// The addresses of the indicators of an answer, with the time of their end.
fn ends(envelope: &Value) -> Vec<(&str, &str)> {
    let objects = envelope["objects"].as_array().map(Vec::as_slice).unwrap_or_default();
    objects.iter().map(|one| (one["name"].as_str().unwrap(), one["valid_until"].as_str().unwrap())).collect()
}

async fn with_collection(database: Database) -> (TestApp, Client, FakeAgent, String) {
    let (app, admin, agent) = with_agent(database).await;
    admin.post("/v1/feeds", &json!({"name": "edge", "form": "taxii"})).await.is(201);
    let key = key_of(&admin, "tip-1", "edge").await;
    (app, admin, agent, key)
}

on_both_databases! {
    async fn a_collection_tells_what_is_in_force_and_what_was_lifted_since(database: Database) {
        let (app, admin, agent, key) = with_collection(database).await;
        assert_eq!(read(&app, &key, OBJECTS).await, json!({}));
        let first = block(&admin, "203.0.113.7", &json!({})).await;
        app.advance(1);
        block(&admin, "2001:db8::7", &json!({})).await;
        let answer = ask(&app, &key, OBJECTS).await;
        let since = answer.header("x-taxii-date-added-last").unwrap().to_owned();
        let all = answer.is(200);
        let (one, other) = (("203.0.113.7", "2026-11-24T10:10:00.000Z"), ("2001:db8::7", "2026-11-24T10:10:01.000Z"));
        let mut listed = ends(&all);
        listed.sort_unstable();
        assert_eq!(listed, [other, one]);
        agent.obey().await;
        let changed = format!("{OBJECTS}?added_after={since}");
        assert_eq!(read(&app, &key, &changed).await, json!({}));
        // Lifted: the same indicator has ended. Extended: it ends later.
        app.advance(60);
        lift(&admin, &first).await;
        block(&admin, "2001:db8::7", &json!({"for": "1h"})).await;
        let told = read(&app, &key, &changed).await;
        let mut now = ends(&told);
        now.sort_unstable();
        assert_eq!(now, [("2001:db8::7", "2026-11-24T11:01:01.000Z"), ("203.0.113.7", "2026-11-24T10:01:01.000Z")]);
        let id = |envelope: &Value, name: &str| {
            let objects = envelope["objects"].as_array().unwrap();
            objects.iter().find(|one| one["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
        };
        for name in ["203.0.113.7", "2001:db8::7"] {
            assert_eq!(id(&all, name), id(&told, name));
        }
        // Without a time it is what is in force.
        assert_eq!(ends(&read(&app, &key, OBJECTS).await).len(), 1);
        let gone = id(&told, "203.0.113.7");
        assert_eq!(ends(&read(&app, &key, &format!("{OBJECTS}{gone}/")).await), [("203.0.113.7", "2026-11-24T10:01:01.000Z")]);
        let versions = read(&app, &key, &format!("{OBJECTS}{gone}/versions/")).await;
        assert_eq!(versions, json!({"versions": ["2026-11-24T10:01:01.000Z"]}));
        // It comes back as the same indicator, also after a restart.
        let (app, admin) = app.restart().await;
        app.advance(1);
        block(&admin, "203.0.113.7", &json!({})).await;
        let back = read(&app, &key, &changed).await;
        assert_eq!((ends(&back).len(), id(&back, "203.0.113.7")), (2, gone));
    }

    async fn a_collection_is_read_in_pages_that_lose_nothing(database: Database) {
        let (app, admin, _agent, key) = with_collection(database).await;
        for last in 1..=3 {
            block(&admin, &format!("198.51.100.{last}"), &json!({})).await;
            app.advance(1);
            read(&app, &key, OBJECTS).await;
        }
        let (mut seen, mut path) = (Vec::new(), format!("{OBJECTS}?limit=1"));
        loop {
            let page = read(&app, &key, &path).await;
            seen.extend(ends(&page).into_iter().map(|(name, _)| name.to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!(page["more"], true);
            if seen.len() == 1 {
                // A block that comes while a client reads is in a later page.
                block(&admin, "198.51.100.9", &json!({})).await;
            }
            path = format!("{OBJECTS}?limit=1&next={next}");
        }
        assert_eq!(seen, ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.9"]);
        let manifest = read(&app, &key, "collections/edge/manifest/?limit=2").await;
        assert_eq!((manifest["objects"].as_array().unwrap().len(), &manifest["more"]), (2, &json!(true)));
        let record = &manifest["objects"][0];
        assert_eq!((&record["media_type"], &record["date_added"]), (&json!("application/stix+json;version=2.1"), &record["version"]));
        let id = record["id"].as_str().unwrap();
        let one = read(&app, &key, &format!("{OBJECTS}?match[id]={id}&match[type]=indicator")).await;
        assert_eq!(ends(&one), [("198.51.100.1", "2026-11-24T10:10:00.000Z")]);
        assert_eq!(read(&app, &key, &format!("{OBJECTS}?match[type]=malware")).await, json!({}));
    }
}

#[tokio::test]
async fn what_a_consumer_was_told_is_noted_and_what_it_skipped_is_not() {
    let (app, admin, agent, key) = with_collection(Database::sqlite()).await;
    let owed = || async {
        let feed = admin.get("/v1/feeds/edge").await.is(200);
        (feed["consumers"][0]["owed_new"].clone(), feed["consumers"][0]["owed_removed"].clone())
    };
    let response = block(&admin, "203.0.113.7", &json!({})).await;
    read(&app, &key, OBJECTS).await;
    agent.obey().await;
    assert_eq!(owed().await, (json!(0), json!(0)));
    app.advance(10);
    lift(&admin, &response).await;
    // What is in force does not name the removal; a page and a part do not either, and a later time leaves it out.
    let later = format!("{OBJECTS}?added_after=2026-11-24T10:00:20Z");
    for path in [OBJECTS, &format!("{OBJECTS}?match[type]=malware&added_after=2026-11-24T10:00:00Z"), &later] {
        read(&app, &key, path).await;
        assert_eq!(owed().await, (json!(0), json!(1)), "{path}");
    }
    read(&app, &key, &format!("{OBJECTS}?added_after=2026-11-24T10:00:00Z")).await;
    assert_eq!(owed().await, (json!(0), json!(0)));
    // One that begins with a time is known too.
    let other = key_of(&admin, "tip-2", "edge").await;
    read(&app, &other, &format!("{OBJECTS}?added_after=2026-11-24T10:00:05Z")).await;
    let feed = admin.get("/v1/feeds/edge").await.is(200);
    assert_eq!((&feed["consumers"][1]["name"], feed["consumers"][1]["last_at"].is_string()), (&json!("tip-2"), true));
    // The list as lines is no fetch.
    block(&admin, "203.0.113.8", &json!({})).await;
    admin.with_key(&key).get("/feeds/edge").await;
    assert_eq!(owed().await, (json!(1), json!(0)));
}

#[tokio::test]
async fn a_key_finds_its_own_collections_and_faults_have_taxiis_form() {
    let (app, admin, _agent, key) = with_collection(Database::sqlite()).await;
    admin.post("/v1/feeds", &json!({"name": "other", "form": "taxii", "max_entries": 1})).await.is(201);
    admin.post("/v1/feeds", &json!({"name": "lines"})).await.is(201);
    let server = admin.get("/taxii2/").await.is(200);
    assert_eq!(server["api_roots"], json!(["/taxii2/riposte/"]));
    let root = admin.get("/taxii2/riposte/").await.is(200);
    assert_eq!(root["versions"], json!(["application/taxii+json;version=2.1"]));
    let titles = |collections: &Value| -> Vec<String> {
        let all = collections["collections"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|one| one["title"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(titles(&admin.get("/taxii2/riposte/collections/").await.is(200)), ["edge", "other"]);
    let own = read(&app, &key, "collections/").await;
    assert_eq!(titles(&own), ["edge"]);
    let id = own["collections"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(read(&app, &key, &format!("collections/{id}/")).await, own["collections"][0]);
    assert_eq!(read(&app, &key, "collections/edge/").await["can_write"], false);
    for path in ["collections/other/objects/", "collections/lines/", "collections/gone/", "status/1/", "nothing"] {
        ask(&app, &key, path).await.is_taxii_error(404);
    }
    for path in ["?limit=0", "?limit=x", "?next=x", "?added_after=yesterday"] {
        let refused = ask(&app, &key, &format!("{OBJECTS}{path}")).await.is_taxii_error(400);
        let field = path.trim_start_matches('?').split('=').next().unwrap();
        assert!(refused["description"].as_str().unwrap().starts_with(field), "{refused}");
    }
    ask(&app, &key, &format!("{OBJECTS}indicator--x/")).await.is_taxii_error(404);
    let refused = ask(&app, "wrong", OBJECTS).await;
    refused.is_taxii_error(401);
    let mut asked = refused.headers.get_all("www-authenticate").iter();
    assert!(asked.any(|how| how.as_bytes().starts_with(b"Basic")));
    let posted = admin.post("/taxii2/riposte/collections/edge/objects/", &json!({"objects": []})).await;
    posted.is_taxii_error(405);
    let old = admin.request(Method::GET, "/taxii2/").header("accept", "application/taxii+json;version=2.0");
    Answer::to(old).await.is_taxii_error(406);
    // A shorter list would lift blocks.
    block(&admin, "203.0.113.7", &json!({})).await;
    block(&admin, "203.0.113.8", &json!({})).await;
    let long = admin.get("/taxii2/riposte/collections/other/objects/").await;
    assert!(long.header("retry-after").is_some());
    let long = long.is_taxii_error(503);
    assert!(long["description"].as_str().unwrap().contains("2 entries and may hold 1"), "{long}");
}
