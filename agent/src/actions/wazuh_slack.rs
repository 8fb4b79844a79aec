//! `wazuh-slack`: posts the alert to an incoming webhook of Slack. The webhook's URL is a secret:
//! it is in the command, and never in a plan, a result or a log.

use std::time::Duration;

use reqwest::Url;
use riposte_protocol::command::Op;
use serde_json::{Value, json};

use super::{About, Action, ActionError, Attempt, Form, Host, Os, Parameter, Proof, Step, Users};
use crate::conventions::minimal_alert;

/// The action.
#[derive(Debug)]
pub(super) struct WazuhSlack;

/// Number of attempts, and the time limit of each.
const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Slack shows about this much of a field and no more.
const MAX_TEXT_CHARS: usize = 3000;

const ABOUT: About = About {
    name: "wazuh-slack",
    summary: "Posts the alert to a Slack webhook",
    targets: &[],
    networks: true,
    users: Users::Local,
    platforms: Os::ALL,
    windows: Proof::Argv,
    lock_domain: "slack",
    undoable: false,
    looks: false,
    parameters: &[Parameter {
        form: Form::Text("HOOK-URL"),
        summary: "the webhook, https; in a policy `secret:NAME`",
        required: true,
        is_secret: true,
        check: check_url,
        ..Parameter::DEFAULT
    }],
    applied: "an HTTP POST, tried three times",
    verified: "by the answer's status",
    undone: "nothing to undo",
    rights: "none; the host has to reach Slack",
};

fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|_| "is not a URL".to_owned())?;
    let is_loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    // Packets to the host itself cannot be read on a network.
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback) {
        Ok(())
    } else {
        Err("is not an https URL".into())
    }
}

impl Action for WazuhSlack {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        Ok(())
    }

    fn plan(&self, _op: Op, attempt: &Attempt<'_>) -> String {
        let host = hook(attempt).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        format!("POST to a webhook at {host}: {}", body(attempt))
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let (url, body) = (hook(attempt)?, body(attempt));
            let client = reqwest::Client::builder()
                .timeout(TIMEOUT)
                // A webhook never redirects.
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| ActionError::Failed(format!("no HTTP here: {}", error.without_url())))?;
            let mut pause = PAUSE;
            for tried in 1.. {
                let (reason, is_final) = match client.post(url.clone()).json(&body).send().await {
                    Ok(answer) if answer.status().is_success() => return Ok(()),
                    Ok(answer) => {
                        let status = answer.status();
                        let busy = status.as_u16() == 429 || status.is_server_error();
                        (format!("the webhook answered {status}"), !busy)
                    }
                    Err(error) => {
                        let error = error.without_url();
                        (format!("the webhook could not be reached: {}", crate::telemetry::chain(&error)), false)
                    }
                };
                if is_final || tried == ATTEMPTS {
                    return Err(ActionError::Failed(format!("{reason} (tried {tried} times)")));
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Ok(())
        })
    }
}

fn hook(attempt: &Attempt<'_>) -> Result<Url, ActionError> {
    let text = attempt.arguments.first().map_or("", String::as_str);
    Url::parse(text).map_err(|_| ActionError::Refused("the webhook's URL is missing".into()))
}

/// The message in Slack's format: one attachment with the rule, the level, the target and the host.
fn body(attempt: &Attempt<'_>) -> Value {
    let minimal = minimal_alert(attempt.target, ABOUT.name);
    let alert = attempt.alert.filter(|alert| alert.is_object()).unwrap_or(&minimal);
    let text = |pointer: &str| {
        let text = match alert.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return None,
        };
        // Slack reads three characters as markup: a log line must never ping a channel.
        let text: String = text.chars().take(MAX_TEXT_CHARS).collect();
        Some(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
    };
    let level = alert.pointer("/rule/level").and_then(Value::as_u64).unwrap_or(0);
    let color = match level {
        0..=4 => "good",
        5..=7 => "warning",
        _ => "danger",
    };
    let mut fields = Vec::new();
    let mut field = |title: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fields.push(json!({ "title": title, "value": value, "short": true }));
        }
    };
    let agent = [text("/agent/id"), text("/agent/name")].into_iter().flatten().collect::<Vec<_>>().join(" ");
    field("Agent", Some(agent));
    field("Location", text("/location"));
    field("Rule", text("/rule/id").map(|id| format!("{id} (level {level})")));
    field("Target", (!attempt.target.value().is_empty()).then(|| attempt.target.to_string()));
    json!({ "attachments": [{
        "color": color,
        "pretext": "Riposte: response to an alert",
        "title": text("/rule/description").unwrap_or_default(),
        "text": text("/full_log").unwrap_or_default(),
        "fields": fields,
        "ts": text("/id").unwrap_or_default(),
    }] })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use riposte_protocol::target::{Target, TargetKind};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::actions::Transcript;
    use crate::runner::Runner;

    #[test]
    fn only_an_https_hook_is_taken() {
        assert_eq!(check_url("https://hooks.slack.com/services/T/B/x"), Ok(()));
        for url in ["http://hooks.slack.com/x", "ftp://a/b", "hooks", "", "file:///etc/passwd"] {
            let refusal = ABOUT.check_arguments(&[url.to_owned()]).unwrap_err();
            assert!(refusal.starts_with("wazuh-slack: the argument 'HOOK-URL' is not"), "no secret in it: {refusal}");
        }
    }

    #[tokio::test]
    async fn a_busy_hook_is_asked_again_and_a_refusing_one_is_not() {
        for (statuses, outcome) in [
            (vec!["503 Busy", "200 OK"], None),
            (vec!["404 Not Found"], Some("the webhook answered 404 Not Found (tried 1 times)")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let arguments = [format!("http://{}/services/secret", listener.local_addr().unwrap())];
            let serve = async {
                let mut bodies = Vec::new();
                for status in &statuses {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
                    // The body is JSON and ends with its braces.
                    while !request.ends_with(b"}]}") {
                        let length = socket.read(&mut chunk).await.unwrap();
                        request.extend_from_slice(&chunk[..length]);
                    }
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    socket.write_all(answer.as_bytes()).await.unwrap();
                    bodies.push(String::from_utf8(request).unwrap());
                }
                bodies
            };
            let host = Host::new(Runner::new(), std::path::Path::new("/nonexistent"));
            let (target, transcript) =
                (Target::parse(TargetKind::Ip, "203.0.113.7").unwrap(), Mutex::<Transcript>::default());
            let alert = json!({"rule": {"level": 12, "id": "5712", "description": "a <!channel> & more"}, "id": "1.2"});
            let mut attempt = Attempt::new(&host, &transcript, &target);
            (attempt.arguments, attempt.alert) = (&arguments, Some(&alert));
            assert!(!WazuhSlack.plan(Op::Apply, &attempt).contains("secret"));
            let (done, bodies) = tokio::join!(WazuhSlack.apply(&attempt), serve);
            assert_eq!(done.err().map(|error| error.to_string()).as_deref(), outcome);
            let body = bodies.last().unwrap();
            assert!(body.contains(r#""color":"danger""#) && body.contains("a &lt;!channel&gt; &amp; more"), "{body}");
        }
    }
}
