//! What is read of an alert, whatever its bytes: one decoder for intake, conditions, stored alerts
//! and programs; wrapped and flattened formats; observables as other programs write them.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, TestApp};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Returns an alert of rule 5763 of the agent 001 `h1`, with these `data`.
fn alert(id: &str, data: &Value) -> Value {
    json!({"timestamp": "2026-11-24T09:59:58.345+0000", "id": id, "agent": {"id": "001", "name": "h1"}, "manager": {"name": "wm"},
        "rule": {"id": "5763", "level": 10, "description": "t", "groups": ["sshd"]}, "data": data})
}

/// Returns the target of `policy` for the stored alert with this id, or why it was spared.
async fn answered(admin: &Client, id: &str, policy: &str) -> String {
    let alerts = admin.list("/v1/alerts").await;
    let stored = alerts.iter().find(|alert| alert["pipeline_id"] == id).unwrap_or_else(|| panic!("no alert {id}"));
    let alert_id = stored["id"].as_str().unwrap();
    let responses = admin.list(&format!("/v1/responses?alert_id={alert_id}&policy={policy}")).await;
    let [response] = responses.as_slice() else { panic!("{id}: {responses:?}") };
    match response["state"].as_str().unwrap() {
        "spared" => response["reason"].as_str().unwrap().to_owned(),
        _ => response["target_value"].as_str().unwrap().to_owned(),
    }
}

on_both_databases! {
    async fn field_05_one_byte_that_is_no_text_costs_no_alert_its_answer(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        admin.policy(&drop_policy("drop")).await;
        admin.policy(&json!({"name": "cafe", "mode": "observe", "match": [{"when": "full_log == 'caf\u{fffd}'"}],
            "respond": {"action": "log-only"}})).await;
        // A program reads the same as a condition.
        admin.post("/v1/actions", &json!({"name": "scan", "executable": "scan.sh"})).await.is(201);
        admin.policy(&json!({"name": "scan", "match": [{"when": "full_log == 'caf\u{fffd}'"}], "respond": {"action": "scan"}})).await;
        let lines: Vec<String> =
            (70..73).map(|n| alert(&format!("1.{n}"), &json!({"srcip": format!("203.0.113.{n}")})).to_string()).collect();
        let mut body = lines.join("\n").into_bytes();
        let place = body.windows(lines[1].len()).position(|part| part == lines[1].as_bytes()).unwrap();
        body.splice(place..=place, *b"{\"full_log\": \"caf\xe9\", ");
        let answer = admin.alerts(NDJSON, body.clone()).await.is(202);
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(3), &json!([])));
        let (scans, drops): (Vec<_>, Vec<_>) = agent.owed().await.into_iter().partition(|command| command.action == "scan");
        let drops: Vec<&str> = drops.iter().map(|command| command.target.value()).collect();
        assert_eq!(drops, ["203.0.113.70", "203.0.113.71", "203.0.113.72"]);
        let told: Vec<&Value> = scans.iter().map(|scan| &scan.alert.as_ref().unwrap()["full_log"]).collect();
        assert_eq!(told, ["caf\u{fffd}"]);
        assert_eq!(admin.list("/v1/responses?policy=cafe").await.len(), 1);
        // The alert can be read and explained, and the same bytes are a duplicate.
        let stored = admin.list("/v1/alerts").await;
        let id = stored.iter().find(|alert| alert["pipeline_id"] == "1.71").unwrap()["id"].as_str().unwrap().to_owned();
        assert_eq!(admin.get(&format!("/v1/alerts/{id}")).await.is(200)["raw"]["full_log"], "caf\u{fffd}");
        let explained = admin.get(&format!("/v1/alerts/{id}/explain")).await.is(200);
        assert!(explained["now"].as_array().unwrap().iter().all(|verdict| verdict["fires"] == true), "{explained}");
        assert_eq!(admin.alerts(NDJSON, body).await.is(202)["duplicates"], 3);
        // The same in an array, beside an element that is not JSON.
        let mut array = format!("[{}, {{\"id\": }}, ", alert("1.80", &json!({}))).into_bytes();
        array.extend_from_slice(b"{\"x\": \"\xff\", ");
        array.extend_from_slice(&alert("1.81", &json!({})).to_string().as_bytes()[1..]);
        array.push(b']');
        let answer = admin.alerts(JSON, array).await.is(202);
        assert_eq!((&answer["accepted"], &answer["rejected"][0]["index"]), (&json!(2), &json!(1)));
    }

    async fn field_06_half_a_pair_hides_nothing(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        let mut policy = drop_policy("attack");
        policy["match"] = json!([{"when": "full_log.contains('attack')"}]);
        admin.policy(&policy).await;
        let odd = |id: &str, more: &str| format!("{{{more}, {}", &alert(id, &json!({"srcip": "203.0.113.76"})).to_string()[1..]);
        admin.alerts(JSON, odd("1.81", r#""full_log": "attack \ud83d""#)).await.is(202);
        let command = agent.owed_one().await;
        assert_eq!(command.target.value(), "203.0.113.76");
        // The same in a key, in a number and in nested values.
        admin.alerts(JSON, odd("1.82", r#""full_log": "attack", "\udc80": 1e400"#)).await.is(202);
        admin.alerts(JSON, odd("1.83", r#""full_log": "attack", "x": {"y": [-1e999, "\uD800\uD800"]}"#)).await.is(202);
        assert_eq!(admin.list("/v1/responses?policy=attack").await.len(), 3);
        // A lone surrogate cannot be part of an account's name.
        let mut lock = drop_policy("lock");
        lock["respond"] = json!({"action": "disable-account", "target": "destination.user", "on": "origin", "for": "10m"});
        admin.policy(&lock).await;
        let half = alert("1.84", &json!({"dstuser": "HALF"})).to_string().replace("HALF", r"bob\ud800");
        admin.alerts(JSON, half).await.is(202);
        assert_eq!(answered(&admin, "1.84", "lock").await, "target_invalid");
    }

    async fn field_12_an_address_with_a_port_in_brackets_or_between_blanks_is_that_address(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        let mut policy = drop_policy("drop");
        policy["mode"] = json!("observe");
        admin.policy(&policy).await;
        let office = |address: &str| json!({"office365": {"ClientIP": address, "UserId": "alice@example.org"}});
        let cases = [
            (office("203.0.113.7:51234"), "203.0.113.7"),
            (office("[2001:db8::7]:51234"), "2001:db8::7"),
            (json!({"aws": {"source_ip_address": "203.0.113.8:4444"}}), "203.0.113.8"),
            (json!({"srcip": " 203.0.113.21 "}), "203.0.113.21"),
            (office("[2001:DB8::9]"), "2001:db8::9"),
            (office("203.0.113.16, 10.0.0.1"), "target_invalid"),
            (office("203.0.113.0/24"), "target_invalid"),
            (office("0177.1:80"), "target_invalid"),
            (office("1"), "target_invalid"),
            (json!({"srcip": "203.0.113.9\n"}), "target_invalid"),
            // Wazuh's own decoders cut the address out of a log: a port there is not understood.
            (json!({"srcip": "203.0.113.9:443"}), "target_invalid"),
        ];
        for (n, (data, expected)) in cases.iter().enumerate() {
            let id = format!("1.{n}");
            admin.post("/v1/alerts", &alert(&id, data)).await.is(202);
            assert_eq!(answered(&admin, &id, "drop").await, *expected, "{data}");
        }
    }

    async fn field_14_the_first_candidate_that_is_an_address_wins(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        for (name, target) in [("source", "source.ip"), ("destination", "destination.ip"), ("process", "process.id")] {
            let action = if name == "process" { "log-only" } else { "firewall-drop" };
            admin.policy(&json!({"name": name, "mode": "observe", "match": [{"rule_ids": ["5763"]}],
                "respond": {"action": action, "target": target}})).await;
        }
        let eventdata = json!({"sourceIp": "192.0.2.5", "destinationIp": "203.0.113.14", "processId": "4711"});
        let probe = json!({"portProbeDetails": [{"remoteIpDetails": {"ipAddressV4": "203.0.113.10"}}]});
        let cases = [
            (json!({"srcip": "unknown", "src_ip": "203.0.113.18"}), "203.0.113.18", "target_missing"),
            (json!({"win": {"eventdata": eventdata}}), "192.0.2.5", "203.0.113.14"),
            (json!({"aws": {"srcaddr": "203.0.113.11", "dstaddr": "192.0.2.1"}}), "203.0.113.11", "192.0.2.1"),
            (json!({"aws": {"httpRequest": {"clientIp": "203.0.113.12"}}}), "203.0.113.12", "target_missing"),
            (json!({"aws": {"service": {"action": {"portProbeAction": probe}}}}), "203.0.113.10", "target_missing"),
            // If no candidate is an address, the first string decides the reason.
            (json!({"srcip": "unknown", "src_ip": "domain.example"}), "target_invalid", "target_missing"),
            (json!({"srcip": null, "src_ip": "-", "dstip": ""}), "target_missing", "target_missing"),
        ];
        for (n, (data, source, destination)) in cases.iter().enumerate() {
            let id = format!("1.{n}");
            admin.post("/v1/alerts", &alert(&id, data)).await.is(202);
            assert_eq!(answered(&admin, &id, "source").await, *source, "{data}");
            assert_eq!(answered(&admin, &id, "destination").await, *destination, "{data}");
        }
        assert_eq!(answered(&admin, "1.1", "process").await, "4711");
    }

    async fn field_10_a_site_s_path_finds_keys_with_dots_and_numbers(database: Database) {
        let observables = [("source.ip", "output_fields.fd.sip"), ("process.id", "output_fields.proc.pid")];
        let observables = observables.map(|(name, path)| (name.to_owned(), vec![path.to_owned()]));
        let (app, admin) = TestApp::start_with(database, |config| config.observables = observables.into()).await;
        app.enrol(&admin, "h1", &json!({})).await;
        for (name, action, target) in [("drop", "firewall-drop", "source.ip"), ("kill", "log-only", "process.id")] {
            admin.policy(&json!({"name": name, "mode": "observe", "match": [{"rule_groups": ["p"]}],
                "respond": {"action": action, "target": target}})).await;
        }
        let event = |id: &str, fields: Value| json!({"pipeline": "falco", "id": id, "time": "2026-11-24T09:59:00.123456789Z",
            "rule": {"id": "Terminal shell in container", "level": 9, "groups": ["p"]}, "agent": {"name": "h1"},
            "output_fields": fields});
        let dotted = json!({"proc.pid": 4711, "fd.sip": "203.0.113.34"});
        let nested = json!({"proc": {"pid": "4711"}, "fd": {"sip": "203.0.113.34"}});
        for (id, fields) in [("f1", dotted), ("f2", nested)] {
            admin.post("/v1/alerts", &event(id, fields)).await.is(202);
            assert_eq!(answered(&admin, id, "drop").await, "203.0.113.34");
            assert_eq!(answered(&admin, id, "kill").await, "4711");
        }
        // A completely flattened document.
        let flat = json!({"pipeline": "falco", "id": "f3", "time": "2026-11-24T09:59:00Z", "rule.id": "r", "rule.level": 9,
            "rule.groups": ["p"], "agent.name": "h1", "output_fields.fd.sip": "203.0.113.35", "output_fields.proc.pid": 7});
        admin.post("/v1/alerts", &flat).await.is(202);
        assert_eq!(answered(&admin, "f3", "drop").await, "203.0.113.35");
    }

    async fn field_15_a_wrapped_alert_is_unwrapped_and_an_unknown_shape_lists_the_known_ones(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "h1", &json!({"wazuh_id": "001"})).await;
        let mut policy = drop_policy("drop");
        // A condition reads the alert without its wrapper.
        policy["match"] = json!([{"when": "has(data.srcip) && rule.id == '5763'"}]);
        admin.policy(&policy).await;
        let shuffle = json!({"severity": 3, "pretext": "WAZUH Alert", "title": "t", "text": "", "rule_id": "5763",
            "timestamp": "2026-11-24T09:59:58.345+0000", "id": "1.1", "all_fields": alert("1.1", &json!({"srcip": "203.0.113.40"}))});
        let hit = json!({"_index": "wazuh-alerts-4.x-2026.11.24", "_id": "abc",
            "_source": alert("1.2", &json!({"srcip": "203.0.113.41"}))});
        for wrapped in [&shuffle, &hit] {
            let answer = admin.post("/v1/alerts", wrapped).await.is(202);
            assert_eq!(answer["accepted"], 1);
        }
        let owed: Vec<String> = agent.owed().await.iter().map(|command| command.target.value().to_owned()).collect();
        assert_eq!(owed, ["203.0.113.40", "203.0.113.41"]);
        // It is the same alert without its wrapper, and it is stored as it came.
        let bare = alert("1.2", &json!({"srcip": "203.0.113.41"}));
        assert_eq!(admin.post("/v1/alerts", &bare).await.is(202)["duplicates"], 1);
        let stored = admin.list("/v1/alerts").await;
        let id = stored.iter().find(|alert| alert["pipeline_id"] == "1.2").unwrap()["id"].as_str().unwrap();
        let one = admin.get(&format!("/v1/alerts/{id}")).await.is(200);
        assert_eq!((&one["raw"], &one["observables"]["source_ip"]["field"]), (&hit, &json!("data.srcip")));
        // A finding has its id where the index keeps it.
        let finding = json!({"_index": "wazuh-findings-v5-security", "_id": "d9", "_source": {"@timestamp": "2026-11-24T09:59:00Z",
            "wazuh": {"agent": {"id": "001"}, "rule": {"id": "r", "level": "high"}}, "source": {"ip": "203.0.113.42"}}});
        admin.post("/v1/alerts", &finding).await.is(202);
        assert_eq!(admin.list("/v1/alerts?rule_id=r").await[0]["pipeline_id"], "d9");

        let alertmanager = json!({"receiver": "riposte", "status": "firing", "alerts": [{"status": "firing",
            "labels": {"alertname": "BruteForce"}, "startsAt": "2026-11-24T09:59:00Z", "fingerprint": "8a07"}]});
        let falco = json!({"output": "x", "priority": "Warning", "rule": "Terminal shell", "time": "2026-11-24T09:59:00.1Z",
            "uuid": "f7", "output_fields": {"proc.pid": 4711}});
        // Other pipelines are recognised by what they send.
        for (known, pipeline) in [(alertmanager, "alertmanager"), (falco, "falco")] {
            assert_eq!(admin.post("/v1/alerts", &known).await.is(202)["accepted"], 1);
            assert_eq!(admin.list("/v1/alerts").await[0]["pipeline"], pipeline);
        }
        for unknown in [json!({}), json!({"_source": {}}), json!({"rule": ["x"]})] {
            let answer = admin.post("/v1/alerts", &unknown).await;
            let problem = answer.is_problem(422);
            let detail = problem["errors"][0]["detail"].as_str().unwrap();
            for known in ["Wazuh 4", "Wazuh 5", "`pipeline`", "docs/pipelines.md"] {
                assert!(detail.contains(known), "{detail}");
            }
            assert!(!detail.contains("struct") && !detail.contains("Raw"), "{detail}");
        }
    }

    async fn field_17_null_and_empty_are_absent(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let finding = |id: Value, doc_id: &str| json!({"@timestamp": "2026-11-24T09:59:00Z", "id": id, "_id": "",
            "event": {"doc_id": doc_id, "index": "i"}, "source": {"ip": null, "user": {"name": ""}}, "client": {"ip": "203.0.113.31"},
            "user": {"name": "alice"}, "wazuh": {"agent": {"id": "001", "name": null}, "rule": {"id": "r", "level": "high",
            "tags": [null, "", "a"], "category": null}}});
        for (id, doc_id) in [(Value::Null, "d2"), (json!(""), "d3")] {
            admin.post("/v1/alerts", &finding(id, doc_id)).await.is(202);
            let stored = admin.list("/v1/alerts").await.remove(0);
            assert_eq!(stored["pipeline_id"], doc_id);
            assert_eq!(stored["observables"]["source_ip"]["value"], "203.0.113.31");
            assert_eq!(stored["observables"]["source_user"]["value"], "alice");
            assert_eq!((&stored["rule"]["groups"], &stored["agent"]), (&json!(["a"]), &json!({"id": "001", "name": null})));
        }
        let nothing = admin.post("/v1/alerts", &finding(Value::Null, "")).await;
        assert_eq!(nothing.points_at(), ["/id"]);
        // In every format.
        let mut wazuh = brute_force("1.9", "");
        wazuh["cluster"] = Value::Null;
        wazuh["manager"]["name"] = Value::Null;
        wazuh["rule"]["groups"] = json!(["sshd", null, ""]);
        wazuh["rule"]["mitre"] = Value::Null;
        wazuh["data"]["src_ip"] = json!("203.0.113.32");
        admin.post("/v1/alerts", &wazuh).await.is(202);
        let stored = admin.list("/v1/alerts").await.remove(0);
        assert_eq!(stored["observables"]["source_ip"], json!({"value": "203.0.113.32", "field": "data.src_ip"}));
        let generic = json!({"pipeline": "p", "id": "g", "time": "2026-11-24T09:59:00Z", "rule": {"id": "1", "level": 3, "groups": null},
            "agent": null, "source": null, "file": {"path": ""}, "process": {"id": null}});
        admin.post("/v1/alerts", &generic).await.is(202);
        assert_eq!(admin.list("/v1/alerts").await.remove(0)["observables"], json!({}));
    }
}
