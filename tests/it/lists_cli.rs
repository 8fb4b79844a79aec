//! Every list of the command line in every form: the words for people, and what programs read.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::processes::{FakeAgent, Manager, alert, text};

/// A list, the name of the one thing in it, and a word of the head of its table.
type List<'a> = (&'a [&'a str], String, &'a str);

#[tokio::test]
async fn every_list_is_printed_in_every_form() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "10m").await;
    let _away = FakeAgent::enroll(&manager, "web-01").await;
    api.answer_to(&alert(7, "203.0.113.7", "web-01")).await;
    api.post("/v1/users", &json!({"name": "alice", "role": "viewer"})).await;
    api.post("/v1/feeds", &json!({"name": "edge"})).await;
    api.post("/v1/holds", &json!({"name": "case-17", "reason": "a court", "kind": "policy", "value": "answer"})).await;
    let webhook = json!({"name": "siem", "url": "https://siem.example.org/", "secret": null});
    api.post("/v1/webhooks", &webhook).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "hunter2").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (is_set, said) =
        manager.command(&["secret", "set", "token", "--value-file", file.to_str().unwrap(), "--action", "log-only"]);
    assert!(is_set, "{said}");
    let first = async |path: &str, field: &str| text(&api.get(path).await["items"][0], field).to_owned();

    let lists: Vec<List<'_>> = vec![
        (&["agent", "list"], "web-01".into(), "PRESENCE"),
        (&["response", "list"], first("/v1/responses", "id").await, "OUTCOME"),
        (&["alert", "list"], first("/v1/alerts", "id").await, "DESCRIPTION"),
        (&["policy", "list"], "answer".into(), "BREAKER"),
        (&["policy", "history", "answer"], "1".into(), "WHO"),
        (&["user", "list"], "alice".into(), "ONE-TIME CODES"),
        (&["feed", "list"], "edge".into(), "CONSUMERS"),
        (&["hold", "list"], "case-17".into(), "COVERS"),
        (&["webhook", "list"], "siem".into(), "GIVEN UP"),
        (&["secret", "list"], "token".into(), "USED BY"),
        (&["node", "list"], first("/v1/nodes", "name").await, "DUTIES"),
        (&["effect", "list"], first("/v1/effects", "id").await, "WANTED"),
    ];
    for (list, name, head) in lists {
        let print = |form: &[&str]| {
            let (is_done, said) = manager.command(&[list, form].concat());
            assert!(is_done, "{list:?} {form:?}: {said}");
            said
        };
        assert!(print(&[]).lines().next().unwrap().contains(head), "{list:?}: {}", print(&[]));
        assert!(print(&["-o", "wide"]).contains(head));
        assert_eq!(print(&["-o", "name"]), format!("{name}\n"), "{list:?}");
        let json: Value = serde_json::from_str(&print(&["-o", "json"])).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 1, "{list:?}: {json}");
        for form in [&["-o", "jsonl"][..], &["--json"]] {
            let said = print(form);
            assert_eq!(serde_json::from_str::<Value>(said.trim_end()).unwrap(), json[0], "{list:?}");
            assert_eq!(said.lines().count(), 1, "{list:?}: {said}");
        }
        let yaml: Value = yaml_serde::from_str(&print(&["-o", "yaml"])).unwrap();
        assert_eq!(yaml, json, "{list:?}");
        let (is_done, said) = manager.command(&[list, &["--json", "-o", "yaml"]].concat());
        assert!(!is_done && said.contains("cannot be used with"), "{said}");
    }
    for (thing, name) in [
        (&["policy", "show", "answer"][..], "answer"),
        (&["webhook", "show", "siem"], "siem"),
        (&["agent", "show", "web-01"], "web-01"),
    ] {
        let (_, said) = manager.command(&[thing, &["-o", "name"]].concat());
        assert_eq!(said.trim_end(), name);
        let (_, said) = manager.command(&[thing, &["-o", "json"]].concat());
        assert!(serde_json::from_str::<Value>(&said).unwrap().is_object(), "{said}");
    }
    let (_, said) = manager.command(&["events", "-o", "jsonl"]);
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["type"] == "riposte.response.created"), "{said}");
    let (_, said) = manager.command(&["events", "-o", "name"]);
    assert_eq!(said.lines().count(), events.len());
    let (_, said) = manager.command(&["response", "list", "--state", "rejected"]);
    assert_eq!(said, "no responses\n");
}
