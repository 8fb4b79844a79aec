//! A client of the manager, and its answers.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

/// A client of the API, with a key or without one.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Arc<str>,
    key: Option<Arc<str>>,
}

impl Client {
    /// A client without a key.
    pub(crate) fn anonymous(base: &str) -> Self {
        // A proxy from the environment must not interfere.
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: base.into(), key: None }
    }

    /// The same client with `key`.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.into()), ..self.clone() }
    }

    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().unwrap()
    }

    /// Returns a request for the test to complete.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(Method::POST, path).json(body)).await
    }

    /// Posts with an idempotency key, so that the request may be repeated.
    pub(crate) async fn post_once(&self, path: &str, body: &Value, key: &str) -> Answer {
        Answer::to(self.request(Method::POST, path).header("idempotency-key", key).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value, version: Option<&str>) -> Answer {
        let request = self.request(Method::PUT, path).json(body);
        Answer::to(match version {
            Some(version) => request.header("if-match", version),
            None => request,
        })
        .await
    }

    pub(crate) async fn delete(&self, path: &str, version: Option<&str>) -> Answer {
        let request = self.request(Method::DELETE, path);
        Answer::to(match version {
            Some(version) => request.header("if-match", version),
            None => request,
        })
        .await
    }

    /// Posts a body of any media type to the alerts.
    pub(crate) async fn alerts(&self, media_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::to(self.request(Method::POST, "/v1/alerts").header(CONTENT_TYPE, media_type).body(body)).await
    }

    /// Returns all entries of a list, page by page.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut next = format!("{path}{joint}limit=500");
        loop {
            let page = self.get(&next).await.is(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next_cursor"].as_str() else { return items };
            next = format!("{path}{joint}limit=500&cursor={cursor}");
        }
    }

    /// Creates a policy.
    pub(crate) async fn policy(&self, policy: &Value) -> Value {
        self.post("/v1/policies", policy).await.is(201)
    }

    /// Makes a personal key of this person; returns a client with it.
    pub(crate) async fn personal_key(&self, name: &str, role: &str) -> Self {
        let asked = serde_json::json!({"name": name, "kind": "personal", "role": role});
        let made = self.post("/v1/api-keys", &asked).await.is(201);
        self.with_key(made["key"].as_str().unwrap())
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value, version: &str) -> Answer {
        Answer::to(self.request(Method::PATCH, path).json(body).header("if-match", version)).await
    }

    /// Waits until the metrics have this line, or have it no more: the ledger is read for them once a
    /// second.
    pub(crate) async fn metrics_show(&self, line: &str, is_there: bool) {
        super::eventually(&format!("`{line}` is in the metrics: {is_there}"), async || {
            (self.get("/metrics").await.text.contains(line) == is_there).then_some(())
        })
        .await;
    }

    /// Returns the audit entries of one object: actor and verb, oldest first.
    pub(crate) async fn history(&self, noun: &str, id: &str) -> Vec<(String, String)> {
        let mut entries = self.list(&format!("/v1/audit?noun={noun}&noun_id={id}")).await;
        entries.reverse();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        entries.iter().map(|entry| (text(&entry["actor"]), text(&entry["verb"]))).collect()
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn to(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Returns the body, if the status is `status`; null if it is empty.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { serde_json::from_str(&self.text).unwrap() }
    }

    /// Returns the problem, if the status is `status`.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16) -> Value {
        let problem = self.is(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:riposte:problem:"), "{problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty() && problem["detail"].is_string(), "{problem}");
        problem
    }

    /// Returns the error in the form of Wazuh's API, if the status is `status`.
    #[track_caller]
    pub(crate) fn is_wazuh_problem(&self, status: u16) -> Value {
        let problem = self.is(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json; charset=utf-8"));
        let known = ["title", "detail", "remediation", "error"];
        assert!(problem.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
        problem
    }

    /// Returns the error in the form of `CrowdSec`'s API, if the status is `status`.
    #[track_caller]
    pub(crate) fn is_crowdsec_error(&self, status: u16) -> Value {
        let error = self.is(status);
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        assert_eq!(error.as_object().unwrap().len(), 1, "{error}");
        error
    }

    /// Returns the message of TAXII that an error is.
    #[track_caller]
    pub(crate) fn is_taxii_error(&self, status: u16) -> Value {
        let mut error = self.is(status);
        assert_eq!(self.header("content-type"), Some("application/taxii+json;version=2.1"));
        assert_eq!(error["http_status"], status.to_string(), "{error}");
        for field in ["title", "description", "error_code"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        }
        // As in other forms of errors.
        error["detail"] = error["description"].clone();
        error
    }

    /// Returns the error of an operation in the form that errors of its path have.
    #[track_caller]
    pub(crate) fn is_error_of(&self, path: &str, status: u16) -> Value {
        if path.ends_with("/openc2") {
            self.is_openc2_problem(status)
        } else if path.starts_with("/wazuh/") {
            self.is_wazuh_problem(status)
        } else if path.starts_with("/crowdsec/") {
            self.is_crowdsec_error(status)
        } else if path.starts_with("/taxii2/") {
            self.is_taxii_error(status)
        } else {
            self.is_problem(status)
        }
    }

    /// Returns the response of OpenC2 that an error is.
    #[track_caller]
    pub(crate) fn is_openc2_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/openc2+json;version=1.0"), "{}", self.text);
        let body: Value = serde_json::from_str(&self.text).unwrap();
        let mut response = body["body"]["openc2"]["response"].clone();
        let said = response["status"].as_u64().unwrap();
        assert!((400..600).contains(&said) && !response["status_text"].as_str().unwrap().is_empty(), "{response}");
        // As in other forms of errors.
        response["detail"] = response["status_text"].clone();
        response
    }

    /// Returns the pointers of a 422, in its order.
    #[track_caller]
    pub(crate) fn points_at(&self) -> Vec<String> {
        let problem = self.is_problem(422);
        let faults = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {problem}"));
        faults.iter().map(|fault| fault["pointer"].as_str().unwrap().to_owned()).collect()
    }
}
