//! A client for the manager's API, as the first administrator; every request must succeed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{PATIENCE, eventually, text};

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) key: String,
}

impl Api {
    /// Returns a request without body or extra headers.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    /// The same with another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Returns the status of a request without body.
    pub(crate) async fn status(&self, method: Method, path: &str) -> StatusCode {
        self.request(method, path).send().await.unwrap().status()
    }

    /// GET; must succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "GET {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// POST; must succeed.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.request(Method::POST, path).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "POST {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the items of a list, newest first, page by page until one is in `known` or the list
    /// ends.
    pub(crate) async fn newer_than(&self, path: &str, known: impl Fn(&str) -> bool) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit=500{cursor}")).await;
            let found = page["items"].as_array().unwrap();
            items.extend(found.iter().cloned());
            let is_known = found.last().is_some_and(|item| known(text(item, "id")));
            match page["next_cursor"].as_str() {
                Some(next) if !is_known => cursor = format!("&cursor={next}"),
                _ => return items,
            }
        }
    }

    /// Creates a policy that answers rule 5763 with `action` on the agent that the alert comes
    /// from.
    pub(crate) async fn make_policy(&self, action: &str, duration: &str) {
        let policy = json!({"name": "answer", "mode": "enforce", "match": [{"rule_ids": ["5763"]}],
            "respond": {"action": action, "target": "source.ip", "on": "origin", "for": duration}});
        self.post("/v1/policies", &policy).await;
    }

    /// Creates an enrolment token.
    pub(crate) async fn make_token(&self) -> String {
        let token = self.post("/v1/enrollment-tokens", &json!({})).await;
        text(&token, "token").to_owned()
    }

    /// Posts an alert; returns its one response and its one command.
    pub(crate) async fn answer_to(&self, alert: &Value) -> (String, Value) {
        let intake = self.post("/v1/alerts", alert).await;
        assert_eq!((&intake["accepted"], &intake["rejected"]), (&json!(1), &json!([])), "{intake}");
        let response = self.response(intake["responses"][0].as_str().unwrap()).await;
        assert_eq!(response["state"], "active", "{response}");
        (text(&response, "id").to_owned(), response["commands"][0].clone())
    }

    pub(crate) async fn response(&self, id: &str) -> Value {
        self.get(&format!("/v1/responses/{id}")).await
    }

    pub(crate) async fn command(&self, id: &str) -> Value {
        self.get(&format!("/v1/commands/{id}")).await
    }

    /// Waits until a command is in `state`.
    pub(crate) async fn command_is(&self, id: &str, state: &str) -> Value {
        eventually(&format!("command {id} is {state}"), PATIENCE, async || {
            let command = self.command(id).await;
            (command["state"] == state).then_some(command)
        })
        .await
    }

    /// Waits until the manager has a stream of the agent.
    pub(crate) async fn agent_streams(&self, id: &str) {
        eventually("the agent streams", PATIENCE, async || {
            (self.get(&format!("/v1/agents/{id}")).await["streaming"] == true).then_some(())
        })
        .await;
    }

    /// Waits until the manager has a stream of the agent or is polled by it.
    pub(crate) async fn agent_is_present(&self, id: &str) {
        eventually("the agent is present", PATIENCE, async || {
            (self.get(&format!("/v1/agents/{id}")).await["presence"] != "away").then_some(())
        })
        .await;
    }

    /// Fails if the audit log was edited.
    pub(crate) async fn audit_is_intact(&self) {
        let proof = self.get("/v1/audit/verify").await;
        assert_eq!(proof["intact"], true, "{proof}");
    }
}
