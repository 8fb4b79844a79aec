//! A decision acts on what was meant, or on nothing: the origin of an alert, its age, whether it is
//! a duplicate, and whether it is the echo of a response. On both databases.

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::support::agent::{enrollment, new_key};
use crate::support::alert::{brute_force, drop_policy, from_agent, ndjson};
use crate::support::{Answer, Client, Database, TestApp};

const NDJSON: &str = "application/x-ndjson";

/// Returns the one response of an alert that is sent.
async fn response_to(admin: &Client, alert: &Value) -> Value {
    let answer = admin.post("/v1/alerts", alert).await.is(202);
    let [id] = answer["responses"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    admin.get(&format!("/v1/responses/{}", id.as_str().unwrap())).await.is(200)
}

fn spared(response: &Value) -> (String, String) {
    assert_eq!(response["state"], "spared", "{response}");
    (response["reason"].as_str().unwrap().to_owned(), response["detail"].as_str().unwrap().to_owned())
}

fn of_manager(mut alert: Value, manager: &str) -> Value {
    alert["manager"]["name"] = json!(manager);
    alert
}

async fn enrol_as(app: &TestApp, admin: &Client, name: &str, labels: &Value, replace: bool) -> Answer {
    let token = admin.post("/v1/enrollment-tokens", &json!({"labels": labels})).await.is(201);
    let mut asked = enrollment(token["token"].as_str().unwrap(), name, &new_key());
    asked.replace = replace;
    Client::anonymous(&app.base).post("/v1/agents/enroll", &serde_json::to_value(asked).unwrap()).await
}

on_both_databases! {
    async fn field_03_an_alert_acts_on_the_host_that_it_names_and_on_no_other(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let acme = app.enrol(&admin, "acme-web", &json!({"wazuh_id": "001", "wazuh_manager": "acme"})).await;
        let globex = app.enrol(&admin, "globex-db", &json!({"wazuh_id": "001", "wazuh_manager": "globex"})).await;
        let old = app.enrol(&admin, "old-host", &json!({"wazuh_id": "007"})).await;
        let mut policy = drop_policy("drop");
        policy["respond"] = json!({"action": "firewall-drop", "on": "origin", "for": "10m"});
        admin.policy(&policy).await;
        // Docker gives every Wazuh manager the same name; the names of the agents tell them apart.
        for (id, name, agent) in [("1", "acme-web", &acme), ("2", "globex-db", &globex)] {
            let alert = from_agent(brute_force(id, &format!("203.0.113.{id}")), "001", name);
            let mut alert = of_manager(alert, "wazuh.manager");
            alert["cluster"] = json!({"name": if name == "acme-web" { "ACME" } else { "globex" }, "node": "n"});
            let response = response_to(&admin, &alert).await;
            assert_eq!((&response["state"], &response["agents"]), (&json!("active"), &json!([agent.id])), "{response}");
        }
        let alert = of_manager(from_agent(brute_force("3", "203.0.113.5"), "007", "new-host"), "wm");
        let (reason, detail) = spared(&response_to(&admin, &alert).await);
        assert_eq!(reason, "agent_ambiguous");
        assert!(detail.contains("agent 007 new-host of wm") && detail.contains("old-host (wazuh_id 007)"), "{detail}");
        assert!(old.owed().await.is_empty(), "the host that had the number before is left alone");
        let stored = admin.list("/v1/alerts").await;
        let explained = admin.get(&format!("/v1/alerts/{}/explain", stored[0]["id"].as_str().unwrap())).await.is(200);
        assert_eq!((&explained["origin"], &explained["origin_ambiguous"]), (&Value::Null, &json!(detail)));
        // An agent of that name, once enrolled, whatever its number is.
        let new = app.enrol(&admin, "NEW-HOST.corp.example", &json!({})).await;
        let alert = of_manager(from_agent(brute_force("4", "203.0.113.6"), "007", "new-host"), "wm");
        assert_eq!(response_to(&admin, &alert).await["agents"], json!([new.id]));
        // Where the two names differ on purpose, a label maps them.
        let label = json!({"labels": {"wazuh_name": "renamed"}});
        let path = format!("/v1/agents/{}", old.id);
        Answer::to(admin.request(reqwest::Method::PATCH, &path).json(&label)).await.is(200);
        let alert = from_agent(brute_force("5", "203.0.113.9"), "007", "renamed");
        assert_eq!(response_to(&admin, &alert).await["agents"], json!([old.id]));
    }

    async fn a_second_holder_of_a_wazuh_id_is_refused(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let first = app.enrol(&admin, "web-01", &json!({"wazuh_id": "5"})).await;
        let refused = enrol_as(&app, &admin, "db-01", &json!({"wazuh_id": "005"}), false).await.is_problem(409);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("web-01") && detail.contains(&first.id.to_string()), "{detail}");
        let refused = enrol_as(&app, &admin, "db-01", &json!({"wazuh_id": "005"}), true).await.is_problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("web-01"), "another host cannot replace it: {refused}");
        // Another Wazuh manager has its own numbers.
        let labels = json!({"wazuh_id": "005", "wazuh_manager": "siem-2"});
        enrol_as(&app, &admin, "db-01", &labels, false).await.is(201);
        let refused = enrol_as(&app, &admin, "db-02", &labels, false).await.is_problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("siem-2"), "{refused}");
        let plain = app.enrol(&admin, "db-03", &json!({})).await;
        let patch = |labels: Value| {
            let path = format!("/v1/agents/{}", plain.id);
            Answer::to(admin.request(reqwest::Method::PATCH, &path).json(&json!({"labels": labels})))
        };
        let refused = patch(json!({"wazuh_id": "005"})).await.is_problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("web-01"), "{refused}");
        patch(json!({"wazuh_id": "005", "wazuh_manager": "SIEM-2"})).await.is_problem(409);
        patch(json!({"wazuh_id": "006"})).await.is(200);
        patch(json!({"wazuh_id": "006", "env": "prod"})).await.is(200);
        assert_eq!(enrol_as(&app, &admin, "WEB-01", &json!({}), false).await.status, 409, "a name in any case");
    }

    async fn a_reinstalled_host_takes_over_the_effects_in_force_on_it(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let old = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005", "env": "prod"})).await;
        admin.policy(&drop_policy("drop")).await;
        let response = response_to(&admin, &brute_force("1", "203.0.113.7")).await;
        old.answer(Outcome::Succeeded, Some(true)).await;
        let queued = response_to(&admin, &brute_force("2", "203.0.113.8")).await;
        let protected = json!({"kind": "agent", "value": "web-01", "policies": ["other"], "reason": "a test"});
        admin.post("/v1/protected", &protected).await.is(201);
        assert_eq!(enrol_as(&app, &admin, "web-01", &json!({}), false).await.status, 409);
        let stream = old.stream(u64::MAX >> 1).await;
        crate::support::eventually("the stream is open", || async {
            let agent = admin.get(&format!("/v1/agents/{}", old.id)).await.is(200);
            (agent["streaming"] == json!(true)).then_some(())
        })
        .await;
        let refused = enrol_as(&app, &admin, "web-01", &json!({}), true).await.is_problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("connected"), "a connected agent is not replaced: {refused}");
        drop(stream);
        crate::support::eventually("the stream is over", || async {
            let agent = admin.get(&format!("/v1/agents/{}", old.id)).await.is(200);
            (agent["streaming"] == json!(false)).then_some(())
        })
        .await;
        // The host has been silent for long enough.
        app.advance(150);
        let token = admin.post("/v1/enrollment-tokens", &json!({"labels": {"env": "test"}})).await.is(201);
        let new = crate::support::FakeAgent::replace(&app, token["token"].as_str().unwrap(), "web-01").await;
        let agents = admin.list("/v1/agents?revoked=true").await;
        assert!(agents.iter().any(|agent| agent["id"] == json!(old.id) && agent["revoked_at"].is_string()), "{agents:?}");
        let labels = admin.get(&format!("/v1/agents/{}", new.id)).await.is(200)["labels"].clone();
        assert_eq!(labels, json!({"wazuh_id": "005", "env": "test"}));
        // The new agent is owed both blocks, and lifts them.
        let mut targets: Vec<String> = new.obey().await.iter().map(|command| command.target.value().to_owned()).collect();
        targets.sort();
        assert_eq!(targets, ["203.0.113.7", "203.0.113.8"]);
        for one in [&response, &queued] {
            let one = admin.get(&format!("/v1/responses/{}", one["id"].as_str().unwrap())).await.is(200);
            assert_eq!((&one["state"], &one["agents"]), (&json!("active"), &json!([new.id])), "{one}");
        }
        assert_eq!(admin.list("/v1/protected").await[0]["value"], json!(new.id));
        assert_eq!(old.exchange(&old.token(), &riposte_protocol::message::PollRequest::default()).await.status, 403);
        app.advance(700);
        app.in_time("both are lifted", || async { (new.owed().await.len() == 2).then_some(()) }).await;
    }

    /// The loop: the block ends after its four seconds, even if Wazuh alerts on the agent's own
    /// lines.
    async fn field_08_the_echo_of_a_response_triggers_no_response(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        let respond = json!({"action": "firewall-drop", "for": "4s"});
        admin.policy(&json!({"name": "lvl3", "match": [{"min_level": 3}], "respond": respond})).await;
        let alert = from_agent(brute_force("1", "203.0.113.1"), "001", "h1");
        let response = response_to(&admin, &alert).await;
        agent.answer(Outcome::Succeeded, Some(true)).await;
        let echo = |id: String, data: Value| {
            let mut alert = from_agent(brute_force(&id, "203.0.113.1"), "001", "h1");
            alert["rule"] = json!({"id": "651", "level": 3, "groups": ["ossec", "active_response"]});
            alert["data"] = data;
            alert
        };
        for n in 0..3 {
            app.advance(1);
            let line = json!({"srcip": "203.0.113.1", "command": "add"});
            let answer = admin.post("/v1/alerts", &echo(format!("e{n}"), line)).await.is(202);
            assert_eq!(answer["responses"], json!([]), "{answer}");
        }
        // A rule of the site's own, about a line that Wazuh read from the agent's log.
        let mut derived = echo("d".into(), json!({"srcip": "203.0.113.1", "command": "add",
            "parameters": {"alert": {"rule": {"groups": ["riposte"]}, "location": "riposte"}}}));
        derived["rule"] = json!({"id": "100200", "level": 12, "groups": ["local"]});
        derived["location"] = json!("/var/ossec/logs/active-responses.log");
        assert_eq!(admin.post("/v1/alerts", &derived).await.is(202)["responses"], json!([]));
        let stored = admin.list("/v1/alerts").await;
        let explained = admin.get(&format!("/v1/alerts/{}/explain", stored[0]["id"].as_str().unwrap())).await.is(200);
        let because = explained["now"][0]["selectors"][0]["because"].as_str().unwrap();
        assert!(because.contains("reports an active response"), "{because}");
        app.advance(1);
        let lifted = app.in_time("the block is lifted", || async { agent.owed().await.pop() }).await;
        assert_eq!(lifted.target.value(), "203.0.113.1");
        let response = admin.get(&format!("/v1/responses/{}", response["id"].as_str().unwrap())).await.is(200);
        assert_eq!((&response["state"], &response["reason"]), (&json!("ended"), &json!("elapsed")), "{response}");
        // A selector that names the rule asked for it.
        admin.policy(&json!({"name": "by-rule", "match": [{"rule_ids": ["651"]}], "respond": {"action": "log-only"}})).await;
        let answer = admin.post("/v1/alerts", &echo("last".into(), json!({"srcip": "203.0.113.1"}))).await.is(202);
        assert_eq!(answer["responses"].as_array().unwrap().len(), 1, "{answer}");
    }

    async fn field_11_a_recurring_id_is_answered_or_reported(database: Database) {
        let (app, admin) = TestApp::start_with(database, |config| {
            config.pipelines = [("mine".to_owned(), riposte::config::MappingSpec { ids_recur: Some(true), ..Default::default() })].into();
        })
        .await;
        app.enrol(&admin, "web-01", &json!({})).await;
        admin.policy(&json!({"name": "drop", "match": [{"min_level": 3}], "respond": {"action": "firewall-drop", "on": "all"}})).await;
        let finding = |pipeline: &str, time: &str, address: &str| {
            json!({"pipeline": pipeline, "id": "8a07086b74f3ba78", "time": time,
                "rule": {"id": "BruteForce", "level": 9}, "source": {"ip": address}})
        };
        let (first, second) = ("2026-11-28T17:00:00Z", "2026-11-29T02:00:00Z");
        for pipeline in ["alertmanager", "mine"] {
            for (time, address) in [(first, "203.0.113.50"), (second, "203.0.113.51")] {
                let alert = finding(pipeline, time, address);
                assert_eq!(response_to(&admin, &alert).await["target_value"], json!(address), "{pipeline}");
                // The same alert sent again is a duplicate.
                let again = admin.post("/v1/alerts", &alert).await.is(202);
                assert_eq!((&again["duplicates"], &again["conflicting"]), (&json!(1), &json!(0)), "{again}");
            }
        }
        // If the pipeline does not say that its ids recur, the response names the conflict.
        admin.post("/v1/alerts", &finding("other", first, "203.0.113.50")).await.is(202);
        let answer = admin.post("/v1/alerts", &finding("other", second, "203.0.113.51")).await.is(202);
        assert_eq!((&answer["accepted"], &answer["duplicates"], &answer["conflicting"]), (&json!(0), &json!(1), &json!(1)));
        let both = [finding("third", first, "203.0.113.50"), finding("third", second, "203.0.113.51")];
        let answer = admin.alerts(NDJSON, ndjson(&both)).await.is(202);
        assert_eq!((&answer["accepted"], &answer["conflicting"]), (&json!(1), &json!(1)), "within one request too");
        let metrics = admin.get("/metrics").await;
        assert!(metrics.text.contains("riposte_alerts_conflicting_total 2"), "{}", metrics.text);
    }

    async fn a_decoy_from_another_pipelines_key_swallows_no_alert(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let key = async |pipeline: Option<&str>| {
            let made = admin.post("/v1/api-keys", &json!({"name": "k", "role": "ingest", "pipeline": pipeline})).await.is(201);
            assert_eq!(made["pipeline"], json!(pipeline));
            admin.with_key(made["key"].as_str().unwrap())
        };
        let unbound = key(None).await;
        let before = brute_force("1", "203.0.113.1");
        unbound.post("/v1/alerts", &before).await.is(202);
        let (siem, scanner) = (key(Some("siem")).await, key(Some("scanner")).await);
        let second = key(Some("siem")).await;
        // The move to a bound key answers no alert twice.
        let again = siem.post("/v1/alerts", &before).await.is(202);
        assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)), "{again}");
        let alert = brute_force("2", "203.0.113.2");
        let mut decoy = alert.clone();
        decoy["rule"]["level"] = json!(0);
        scanner.post("/v1/alerts", &decoy).await.is(202);
        let answer = siem.post("/v1/alerts", &alert).await.is(202);
        assert_eq!((&answer["accepted"], answer["responses"].as_array().unwrap().len()), (&json!(1), 1), "{answer}");
        // A second sender of the same pipeline, or its next key, answers no alert twice either.
        let again = second.post("/v1/alerts", &alert).await.is(202);
        assert_eq!((&again["accepted"], &again["conflicting"]), (&json!(0), &json!(0)), "{again}");
        // After the move a key without a pipeline is another source.
        app.advance(25 * 3600);
        let late = brute_force("3", "203.0.113.3");
        unbound.post("/v1/alerts", &late).await.is(202);
        assert_eq!(siem.post("/v1/alerts", &late).await.is(202)["accepted"], json!(1));
        for (name, role) in [("no blank", "ingest"), ("", "ingest"), ("siem", "viewer")] {
            let asked = json!({"name": "k", "role": role, "pipeline": name});
            assert_eq!(admin.post("/v1/api-keys", &asked).await.points_at(), ["/pipeline"], "{name} {role}");
        }
    }

    async fn alerts_that_come_after_an_outage_are_announced_once(database: Database) {
        let (app, admin) = TestApp::start_with(database, |config| config.alerts.max_age = "1h".into()).await;
        let at = |id: &str, time: &str| {
            let mut alert = brute_force(id, "203.0.113.1");
            alert["timestamp"] = json!(time);
            alert
        };
        let old = [at("1", "2026-11-16T10:00:00.000+0000"), at("2", "2026-11-16T09:00:00.000+0000")];
        admin.post("/v1/alerts", &json!(old)).await.is(202);
        admin.post("/v1/alerts", &json!([old[0], at("3", "2026-11-16T11:00:00.000+0000"), brute_force("4", "203.0.113.1")])).await.is(202);
        // The manager is stopped in the middle, for longer than a pipeline waits between two tries.
        let clock = app.clock.clone();
        let (app, admin) = app.restart_after(async |_, _| clock.advance(std::time::Duration::from_mins(10))).await;
        let late = async || {
            let entries = admin.list("/v1/audit").await.into_iter();
            entries.filter(|entry| entry["noun"] == "pipeline" && entry["verb"] == "late").collect::<Vec<_>>()
        };
        app.advance(50);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        admin.post("/v1/alerts", &json!([old[1], at("5", "2026-11-16T08:00:00.000+0000")])).await.is(202);
        app.advance(20);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(late().await.is_empty(), "it may go on");
        app.advance(11);
        app.in_time("the entry", async || (late().await.len() == 1).then_some(())).await;
        let entry = late().await.remove(0);
        let told = "4 alerts from 2026-11-16T08:00:00.000Z to 2026-11-16T11:00:00.000Z came later than max_age (1h) and were spared, unless a policy has a max_age of its own";
        assert_eq!((&entry["noun_id"], &entry["detail"]), (&json!("wazuh"), &json!(told)));
        app.advance(120);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(late().await.len(), 1);
    }

    async fn field_18_a_policy_can_say_how_old_an_alert_may_be(database: Database) {
        let (app, admin) = TestApp::start_with(database, |config| config.alerts.max_age = "1h".into()).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        admin.policy(&drop_policy("default")).await;
        let at = |id: &str, time: &str| {
            let mut alert = from_agent(brute_force(id, "203.0.113.1"), "001", "h1");
            alert["timestamp"] = json!(time);
            alert
        };
        let alert = at("1795169472.1", "2026-11-16T10:00:00.000+0000");
        let (reason, detail) = spared(&response_to(&admin, &alert).await);
        assert_eq!(reason, "stale");
        assert_eq!(detail, "the alert was 8d old when it came in, and max_age is 1h");
        let (reason, detail) = spared(&response_to(&admin, &at("2", "2027-11-24T10:00:00.000+0000")).await);
        assert!(reason == "stale" && detail.contains("dated 365d after it came in"), "{detail}");
        assert!(agent.owed().await.is_empty());
        assert_eq!(admin.list("/v1/alerts").await.len(), 2, "they are stored");
        let id = admin.list("/v1/alerts").await[1]["id"].as_str().unwrap().to_owned();
        // A later explanation does not age the alert, and a repetition is a duplicate.
        app.advance(86_400);
        let explained = admin.get(&format!("/v1/alerts/{id}/explain")).await.is(200);
        assert_eq!((&explained["now"][0]["verdict"], &explained["now"][0]["reason"]), (&json!("spare"), &json!("the alert was 8d old when it came in, and max_age is 1h")));
        assert_eq!(admin.post("/v1/alerts", &alert).await.is(202)["duplicates"], json!(1));
        // A backtest judges all of them.
        let tried = admin.post("/v1/policies/backtest", &json!({"policy": drop_policy("draft")})).await.is(200);
        assert_eq!((&tried["responses"], &tried["spared"]), (&json!(2), &json!({})), "{tried}");
        // A policy's own limit takes precedence.
        let mut policy = drop_policy("any-age");
        policy["max_age"] = json!("none");
        admin.policy(&policy).await;
        assert_eq!(admin.get("/v1/policies/any-age").await.is(200)["max_age"], json!("none"));
        admin.delete("/v1/policies/default", Some("\"1\"")).await.is(204);
        assert_eq!(response_to(&admin, &at("3", "2026-11-16T10:00:00.000+0000")).await["state"], json!("active"));
        policy["max_age"] = json!("soon");
        assert_eq!(admin.put("/v1/policies/any-age", &policy, Some("\"1\"")).await.points_at(), ["/max_age"]);
        // Without a time of its own, an alert's time of receipt counts.
        let respond = json!({"action": "firewall-drop", "on": "all", "for": "1m"});
        admin.policy(&json!({"name": "sensor", "match": [{"pipelines": ["sensor"]}], "respond": respond})).await;
        let untimed = json!({"pipeline": "sensor", "id": "1", "rule": {"id": "1", "level": 3}, "source": {"ip": "203.0.113.9"}});
        assert_eq!(response_to(&admin, &untimed).await["state"], json!("active"));
        let listed = admin.list("/v1/alerts").await;
        assert_eq!(listed[0]["time"], json!(app.clock.now()));
    }

    async fn existing_duplicates_are_listed_and_do_not_prevent_a_start(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let web = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        app.enrol(&admin, "db-01", &json!({"wazuh_id": "006"})).await;
        admin.policy(&drop_policy("drop")).await;
        spared(&response_to(&admin, &from_agent(brute_force("1", "203.0.113.1"), "006", "mail")).await);
        let shared = "UPDATE agents SET labels = replace(labels, '006', '005') WHERE name = 'db-01'";
        let (app, admin) = app.restart_with(&[shared]).await;
        let findings = riposte::store::doctor::examine(&app.db().await, app.clock.now()).await.unwrap();
        let of = |what: &str| findings.iter().find(|finding| finding.what.contains(what)).unwrap_or_else(|| panic!("{findings:?}"));
        let duplicates = of("share a Wazuh id");
        assert!(duplicates.examples[0].contains("web-01 and db-01 both have the wazuh_id 005"), "{duplicates:?}");
        assert!(duplicates.examples[0].contains("riposte agent label"), "{duplicates:?}");
        let contradictions = of("name agents differently");
        assert!(contradictions.examples[0].contains("agent 006 mail") && contradictions.help.contains("wazuh_name=NAME"));
        assert!(!contradictions.examples[0].contains("riposte doctor"), "{contradictions:?}");
        // The name still tells them apart, and labels without a conflict can be changed.
        assert_eq!(response_to(&admin, &brute_force("2", "203.0.113.2")).await["agents"], json!([web.id]));
        let path = format!("/v1/agents/{}", web.id);
        let label = json!({"labels": {"env": "prod"}});
        Answer::to(admin.request(reqwest::Method::PATCH, &path).json(&label)).await.is(200);
    }

    async fn a_condition_that_cannot_be_decided_is_counted_and_explained(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        for (name, when) in [
            ("outside", "!source.ip.in_cidr(['10.0.0.0/8', '192.168.0.0/16'])"),
            ("missing", "data.url.contains('x')"),
        ] {
            let selector = json!({"rule_ids": ["5763"], "when": when});
            admin.policy(&json!({"name": name, "match": [selector], "respond": {"action": "log-only"}})).await;
        }
        let answer = admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202);
        assert_eq!(answer["responses"].as_array().unwrap().len(), 1, "{answer}");
        let answer = admin.post("/v1/alerts", &brute_force("2", "localhost")).await.is(202);
        assert_eq!(answer["responses"], json!([]), "a text that is no address is neither inside nor outside a network");
        let counts = admin.get("/v1/policies/outside/counts").await.is(200);
        let failed = &counts["conditions_failed"];
        assert_eq!((&failed["fault"], &failed["missing_field"]), (&json!(1), &json!(0)), "{counts}");
        assert_eq!(failed["last"], "in_cidr: the text is not an address");
        let counts = admin.get("/v1/policies/missing/counts").await.is(200);
        assert_eq!(counts["conditions_failed"]["missing_field"], json!(2), "{counts}");
        let id = admin.list("/v1/alerts").await[0]["id"].as_str().unwrap().to_owned();
        let explained = admin.get(&format!("/v1/alerts/{id}/explain")).await.is(200);
        let because: Vec<&str> =
            explained["now"].as_array().unwrap().iter().map(|one| one["selectors"][0]["because"].as_str().unwrap()).collect();
        assert_eq!(because, [
            "when: the expression cannot be decided: there is no field url",
            "when: the expression cannot be decided: in_cidr: the text is not an address",
        ]);
        let metrics = admin.get("/metrics").await.text;
        assert!(metrics.contains("riposte_conditions_failed_total{policy=\"outside\",kind=\"fault\"} 1"), "{metrics}");
        // Deleted policies leave no counters behind.
        admin.delete("/v1/policies/outside", Some("\"1\"")).await.is(204);
        assert!(!admin.get("/metrics").await.text.contains("riposte_conditions_failed_total{policy=\"outside\""));
        let draft = json!({"name": "bad", "match": [{"when": "data.url.startWith('x')"}], "respond": {"action": "log-only"}});
        let problem = admin.post("/v1/policies", &draft).await.is_problem(422);
        assert_eq!(problem["errors"][0], json!({"pointer": "/match/0/when",
            "detail": "line 1, column 10: there is no function startWith; did you mean startsWith?"}));
    }

    /// An earlier version saved conditions that call unknown functions.
    async fn a_condition_that_was_saved_before_its_fault_was_known_stops_no_start(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let policy = json!({"name": "old", "match": [{"when": "location.startsWith('x')"}], "respond": {"action": "log-only"}});
        admin.policy(&policy).await;
        let misspelt = "UPDATE policies SET document = replace(document, 'startsWith', 'startWith')";
        let (_app, admin) = app.restart_with(&[misspelt]).await;
        assert_eq!(admin.post("/v1/alerts", &brute_force("1", "203.0.113.1")).await.is(202)["responses"], json!([]));
        let stored = admin.get("/v1/policies/old").await.is(200);
        assert_eq!(stored["match"][0]["when"], "location.startWith('x')");
        let warning = stored["warnings"][0]["detail"].as_str().unwrap();
        assert!(warning.contains("never holds") && warning.contains("did you mean startsWith?"), "{warning}");
    }
}
