//! The manager's API, with which a test prepares what a page shows, and asks what a page has done.

use reqwest::{Client, Method, RequestBuilder};
use riposte::clock::Clock;
use serde_json::{Value, json};

/// A client with a key; every request must succeed.
#[derive(Clone)]
pub(crate) struct Api {
    http: Client,
    base: String,
    key: String,
}

impl Api {
    pub(crate) fn new(base: &str, key: &str) -> Self {
        let http = Client::builder().no_proxy().build().unwrap();
        Self { http, base: base.to_owned(), key: key.to_owned() }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.base)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn send(&self, what: &str, request: RequestBuilder) -> Value {
        let answer = request.bearer_auth(&self.key).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{what}: {status}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.send(path, self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.send(path, self.request(Method::POST, path).json(body)).await
    }

    /// A request that may be refused; returns its status.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> u16 {
        let request = self.request(Method::POST, path).bearer_auth(&self.key);
        request.json(body).send().await.unwrap().status().as_u16()
    }

    /// Imports the active responses of an `ossec.conf`.
    pub(crate) async fn import(&self, conf: &str) -> Value {
        let request = self.request(Method::POST, "/v1/policies/import").header("content-type", "application/xml");
        self.send("import", request.body(conf.to_owned())).await
    }

    /// Creates a policy that logs the alert's address on every agent; `more` replaces fields.
    pub(crate) async fn policy(&self, name: &str, rule: &str, more: &Value) {
        let mut policy = json!({"name": name, "match": [{"rule_ids": [rule]}],
            "respond": {"action": "log-only", "target": "source.ip", "on": "all", "for": "30m"}});
        for (field, value) in more.as_object().into_iter().flatten() {
            policy[field] = value.clone();
        }
        self.post("/v1/policies", &policy).await;
    }

    /// Posts an alert of `rule` from `address`; returns the id of its first response.
    pub(crate) async fn alert(&self, rule: &str, address: &str) -> String {
        self.alert_with(rule, address, &json!({})).await
    }

    /// The same with fields of the alert replaced.
    pub(crate) async fn alert_with(&self, rule: &str, address: &str, more: &Value) -> String {
        let now = Clock::system().now().to_string();
        let mut alert = json!({"timestamp": now, "id": uuid::Uuid::now_v7().to_string(), "location": "/var/log/auth.log",
            "rule": {"level": 10, "id": rule, "groups": ["attack"], "description": "sshd: guessed passwords"},
            "agent": {"id": "001", "name": "web-01", "ip": "10.0.0.1"}, "manager": {"name": "wazuh"},
            "decoder": {"name": "sshd"}, "data": {"srcip": address, "dstuser": "root"}});
        for (field, value) in more.as_object().into_iter().flatten() {
            alert[field] = value.clone();
        }
        let taken = self.post("/v1/alerts", &alert).await;
        assert_eq!(taken["accepted"], 1, "{taken}");
        taken["responses"][0].as_str().unwrap_or_default().to_owned()
    }
}
