//! The commands of `docs/integrations/wazuh-api.md`, run by a shell as they stand. A `json` block behind
//! commands is the answer of the last one.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::TestApp;

const PAGE: &str = include_str!("../../../docs/integrations/wazuh-api.md");
/// What separates the answers.
const MARK: &str = "---\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_on_the_page_of_wazuhs_api_do_what_it_says() {
    let (app, admin) = TestApp::start().await;
    for id in ["005", "006"] {
        app.enrol(&admin, &format!("web-{id}"), &json!({"wazuh_id": id})).await;
    }
    let key = app.client_with_role(&admin, "analyst").await.key().to_owned();
    let parts = PAGE.split("```").skip(1).step_by(2);
    let blocks: Vec<(&str, &str)> = parts.map(|block| block.split_once('\n').unwrap()).collect();
    let mark = MARK.escape_default().to_string();
    let (mut script, mut expected) = ("set -eu\n".to_owned(), Vec::new());
    for (nth, (kind, text)) in blocks.iter().enumerate() {
        match *kind {
            "sh" => {
                let (before, last) = text.rsplit_once("curl ").expect("a call");
                script.extend([before, "printf -- '", &mark, "'\ncurl ", last]);
                let answer = blocks.get(nth + 1).filter(|(kind, _)| *kind == "json");
                expected.push(answer.map(|(_, text)| serde_json::from_str::<Value>(text).unwrap()));
            }
            "json" => {}
            other => panic!("a block of kind {other:?} is run by no test"),
        }
    }
    assert!(expected.len() >= 4, "{} blocks: the page was not read", expected.len());
    let script = script.replace("https://riposte.example.org", &app.base);
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).env("key", &key).env("no_proxy", "*");
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}{wrong}");
    let answers: Vec<&str> = said.split(MARK).skip(1).collect();
    assert_eq!(answers.len(), expected.len(), "{said}");
    for (answer, expected) in answers.into_iter().zip(expected) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["error"], expected.as_ref().map_or(json!(0), |expected| expected["error"].clone()));
        if let Some(expected) = expected {
            assert_eq!(answer, expected);
        }
    }
    assert_eq!(admin.list("/v1/responses").await.len(), 2);
}
