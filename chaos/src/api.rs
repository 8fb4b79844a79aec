//! A small client of the manager's API, for set-up, faults and verification. The load has one of
//! its own.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// Time limit of a request.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time limit of a request that reads the whole ledger; the manager's own limit is the same.
const LONG_PATIENCE: Duration = Duration::from_mins(10);
/// Number of attempts of a request before it counts as failed.
const ATTEMPTS: u32 = 5;

/// A client with an admin key.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) http: reqwest::Client,
    /// Base URL of the manager.
    pub(crate) base: String,
    /// The admin key.
    pub(crate) key: String,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    /// Cursor of the next page; `None` on the last.
    pub(crate) next: Option<String>,
}

impl Page {
    fn read(mut page: Value) -> anyhow::Result<Self> {
        let next = page["next_cursor"].as_str().map(str::to_owned);
        match page["items"].take() {
            Value::Array(items) => Ok(Self { items, next }),
            _ => bail!("a page without items"),
        }
    }
}

fn paged(path: &str, cursor: Option<&str>) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    format!("{path}{joint}limit=500{cursor}")
}

async fn answer(request: RequestBuilder) -> anyhow::Result<Value> {
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        bail!("{status}: {text}");
    }
    Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
}

/// An HTTP client that ignores the environment's proxies.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    Ok(builder.connect_timeout(Duration::from_secs(5)).build()?)
}

impl Api {
    fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        self.http.request(method.clone(), format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    async fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> anyhow::Result<Value> {
        let mut request = self.request(method, path).timeout(patience);
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await.with_context(|| format!("{method} {path}"))
    }

    /// POST, once, with the idempotency key `key`.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) async fn post_as(&self, key: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        answer(self.request(&Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    async fn ask_again(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut attempt = 1;
        loop {
            match self.ask(&method, path, body, PATIENCE).await {
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(500) * attempt).await,
                Ok(value) => return Ok(value),
            }
            attempt += 1;
        }
    }

    /// GET.
    ///
    /// # Errors
    /// If all attempts fail.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask_again(Method::GET, path, None).await
    }

    /// The text of a GET, once.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.request(&Method::GET, path).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status.is_success() { Ok(text) } else { bail!("GET {path}: {status}: {text}") }
    }

    /// POST.
    ///
    /// # Errors
    /// If all attempts fail.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask_again(Method::POST, path, Some(body)).await
    }

    /// The proof of the audit chain; takes longer with a longer chain.
    ///
    /// # Errors
    /// If the request fails.
    pub(crate) async fn audit_proof(&self) -> anyhow::Result<Value> {
        self.ask(&Method::GET, "/v1/audit/verify", None, LONG_PATIENCE).await
    }

    /// Lifts every response of a policy.
    ///
    /// # Errors
    /// If a request fails.
    pub(crate) async fn lift_all(&self, policy: &str) -> anyhow::Result<Value> {
        let body = json!({"policy": policy, "reason": "the run is over"});
        self.ask(&Method::POST, "/v1/responses/lift", Some(&body), LONG_PATIENCE).await
    }

    /// Passes every item of a list to `take`.
    ///
    /// # Errors
    /// If a page cannot be read.
    pub(crate) async fn each(&self, path: &str, mut take: impl FnMut(&Value)) -> anyhow::Result<()> {
        let mut cursor = None;
        loop {
            let page = Page::read(self.get(&paged(path, cursor.as_deref())).await?)?;
            page.items.iter().for_each(&mut take);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Requests one page of a list, once.
    ///
    /// # Errors
    /// If the request fails.
    pub(crate) async fn page(&self, path: &str, cursor: Option<&str>) -> anyhow::Result<Page> {
        Page::read(answer(self.request(&Method::GET, &paged(path, cursor))).await?)
    }

    /// Whether a list has no items.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn is_empty(&self, path: &str) -> anyhow::Result<bool> {
        let joint = if path.contains('?') { '&' } else { '?' };
        Ok(self.get(&format!("{path}{joint}limit=1")).await?["items"].as_array().is_some_and(Vec::is_empty))
    }

    /// An enrolment token for `uses` agents.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) async fn token(&self, uses: usize) -> anyhow::Result<String> {
        let token = self.post("/v1/enrollment-tokens", &json!({"uses": uses})).await?;
        Ok(token["token"].as_str().context("no token")?.to_owned())
    }
}
