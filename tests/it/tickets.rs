//! `deploy/integrations/riposte-tickets.py`: a response gets one ticket, in `TheHive` or Jira, and is filed under it. The ticket
//! systems are receivers that answer as their documentation says.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::processes::{Api, FakeAgent, Manager, PATIENCE, alert, eventually, require, tied};
use crate::support::receiver::{Mood, Received, Receiver};

/// The script; it ends with the test.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the script beside a ticket system.
async fn start(api: &Api, kind: &str, system: &Receiver) -> Script {
    require(&[("python3", "python3")]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let types = ["response.created", "response.submitted"];
    let asked = json!({"name": "tickets", "url": format!("http://{address}/"), "settings": {"types": types}});
    let secret = api.post("/v1/webhooks", &asked).await["secret"].as_str().unwrap().to_owned();
    let key = api.post("/v1/api-keys", &json!({"name": "tickets", "role": "analyst"})).await["key"].clone();
    let mut script = tied(Path::new("python3"));
    script.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/integrations/riposte-tickets.py"));
    script.env("RIPOSTE_URL", &api.base).env("RIPOSTE_KEY", key.as_str().unwrap()).env("WEBHOOK_SECRET", secret);
    script.env("TICKETS", kind).env("TICKETS_URL", system.url("")).env("TICKETS_KEY", "soc@example.org:token");
    script.env("JIRA_PROJECT", "SOC").env("LISTEN", &address).env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1");
    let mut script = script.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listens on"), "{line}");
    Script(script)
}

async fn case(api: &Api, response: &str) -> String {
    let filed = async || api.response(response).await["case"].as_str().map(str::to_owned);
    eventually("the response is filed", PATIENCE, filed).await
}

/// The requests of one path.
fn of<'a>(seen: &'a [Received], path: &str) -> Vec<&'a Received> {
    seen.iter().filter(|request| request.path.starts_with(path)).collect()
}

#[tokio::test]
async fn a_response_gets_one_alert_in_thehive_and_is_filed_under_it() {
    let manager = Manager::start_with(&["--egress-allow", "127.0.0.0/8"]).await;
    let api = manager.api();
    FakeAgent::enroll(&manager, "web-01").await;
    api.make_policy("firewall-drop", "10m").await;
    // Away at first: the manager sends again.
    let thehive = Receiver::start(Mood::Answers(503)).await;
    let _script = start(&api, "thehive", &thehive).await;
    let (response, _) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    eventually("it was asked", PATIENCE, async || (!thehive.seen().is_empty()).then_some(())).await;
    thehive.becomes(Mood::Says(&[
        ("/api/v1/query", "[]"),
        ("/api/v1/alert", r#"{"_id": "~41", "_type": "Alert", "sourceRef": "x"}"#),
    ]));
    assert_eq!(case(&api, &response).await, "thehive ~41");
    let taken = thehive.taken();
    let made: Vec<Value> = of(&taken, "/api/v1/alert").iter().map(|request| request.json()).collect();
    assert_eq!(made.len(), 1, "one ticket");
    assert_eq!(
        (&made[0]["sourceRef"], &made[0]["type"], &made[0]["source"]),
        (&json!(response), &json!("riposte"), &json!("riposte"))
    );
    assert_eq!(made[0]["observables"], json!([{"dataType": "ip", "data": "203.0.113.7"}]));
    assert_eq!(of(&taken, "/api/v1/alert")[0].header("authorization"), "Bearer soc@example.org:token");
    // One that TheHive knows already is not made again.
    thehive.becomes(Mood::Says(&[("/api/v1/query", r#"[{"_id": "~42"}]"#)]));
    let (second, _) = api.answer_to(&alert(2, "203.0.113.8", "web-01")).await;
    assert_eq!(case(&api, &second).await, "thehive ~42");
    assert_eq!(of(&thehive.taken(), "/api/v1/alert").len(), 1);
}

#[tokio::test]
async fn a_response_gets_one_issue_in_jira_and_only_what_riposte_signed_is_taken() {
    let manager = Manager::start_with(&["--egress-allow", "127.0.0.0/8"]).await;
    let api = manager.api();
    FakeAgent::enroll(&manager, "web-01").await;
    api.make_policy("firewall-drop", "10m").await;
    let jira = Receiver::start(Mood::Says(&[
        ("/rest/api/2/search", r#"{"issues": []}"#),
        ("/rest/api/2/issue", r#"{"id": "10000", "key": "SOC-17"}"#),
    ]))
    .await;
    let _script = start(&api, "jira", &jira).await;
    let (response, _) = api.answer_to(&alert(1, "203.0.113.7", "web-01")).await;
    assert_eq!(case(&api, &response).await, "SOC-17");
    let taken = jira.taken();
    let made = of(&taken, "/rest/api/2/issue");
    let fields = made[0].json()["fields"].clone();
    assert_eq!(
        (&fields["project"]["key"], &fields["labels"]),
        (&json!("SOC"), &json!([format!("riposte-{response}")]))
    );
    assert!(fields["summary"].as_str().unwrap().contains("firewall-drop ip 203.0.113.7"), "{fields}");
    assert!(made.len() == 1 && made[0].header("authorization").starts_with("Basic "), "{made:?}");
    // Found again by its case.
    let found = api.get("/v1/responses?case=SOC-17").await;
    assert_eq!(found["items"][0]["id"], response.as_str());
    // A forged message.
    let place = api.get("/v1/webhooks/tickets").await["place"].as_str().unwrap().to_owned();
    let forged =
        reqwest::Client::new().post(place).body(r#"{"type":"riposte.response.created"}"#).send().await.unwrap();
    assert_eq!(forged.status(), 401);
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/integrations/riposte-tickets.py");
    let output = tied(Path::new("python3")).arg(settings).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("RIPOSTE_URL"), "{output:?}");
}
