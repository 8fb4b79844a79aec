//! Commands that ask a running manager, over the same API as everybody else.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Client, Method};
use serde_json::{Map, Value, json};

use super::say;

/// How long a manager may take to answer.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Which manager, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// The manager's address.
    #[arg(long, env = "RIPOSTE_MANAGER", default_value = "http://127.0.0.1:8480")]
    manager: String,
    /// A file that holds an API key, such as `DATA_DIR/admin.key`.
    #[arg(long, env = "RIPOSTE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// An API key; as a variable only, because arguments can be seen by everybody on the machine.
    #[arg(long, env = "RIPOSTE_KEY", hide = true)]
    key: Option<String>,
}

impl Remote {
    /// The manager at `manager`, with the key in `key_file`.
    pub fn to(manager: &str, key_file: PathBuf) -> Self {
        Self { manager: manager.to_owned(), key_file: Some(key_file), key: None }
    }

    /// What a GET of `path` gives.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// What a POST of `body` to `path` gives.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body)).await
    }

    fn key(&self) -> anyhow::Result<String> {
        match (&self.key, &self.key_file) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                Ok(text.with_context(|| format!("cannot read {}", path.display()))?.trim().to_owned())
            }
            (None, None) => bail!("an API key is needed: --key-file DATA_DIR/admin.key, or RIPOSTE_KEY"),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.manager.trim_end_matches('/'));
        let mut request = Client::builder().timeout(TIMEOUT).build()?.request(method, &url).bearer_auth(self.key()?);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("cannot reach {}", self.manager))?;
        let status = answer.status();
        let body: Value = answer.json().await.context("the manager's answer is not JSON")?;
        if !status.is_success() {
            let detail = body["detail"].as_str().unwrap_or("no reason given");
            bail!("{status}: {detail}{}", faults(&body));
        }
        Ok(body)
    }
}

fn faults(problem: &Value) -> String {
    let faults = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    faults.iter().map(|fault| format!("\n  {}: {}", text(&fault["pointer"]), text(&fault["detail"]))).collect()
}

/// `riposte status`
pub async fn status(remote: Remote) -> anyhow::Result<ExitCode> {
    let url = format!("{}/readyz", remote.manager.trim_end_matches('/'));
    let answer = Client::builder().timeout(Duration::from_secs(5)).build()?.get(&url).send().await;
    Ok(match answer {
        Ok(answer) if answer.status().is_success() => {
            say("ready");
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            say(&format!("not ready: {}", answer.status()));
            ExitCode::FAILURE
        }
        Err(_) => {
            say(&format!("nobody answers at {}", remote.manager));
            ExitCode::FAILURE
        }
    })
}

/// `riposte agent token`
pub async fn token(remote: Remote, uses: i64, expires_in: String, labels: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut object = Map::new();
    for label in labels {
        let (key, value) = label.split_once('=').with_context(|| format!("a label is KEY=VALUE, not {label}"))?;
        object.insert(key.to_owned(), value.into());
    }
    let body = json!({"labels": object, "uses": uses, "expires_in": expires_in});
    let answer = remote.post("/v1/enrollment-tokens", body).await?;
    say(answer["token"].as_str().context("the manager gave no token")?);
    Ok(ExitCode::SUCCESS)
}

/// `riposte agent list`
pub async fn agents(remote: Remote, json: bool) -> anyhow::Result<ExitCode> {
    let mut path = "/v1/agents?limit=500".to_owned();
    loop {
        let page = remote.get(&path).await?;
        for agent in page["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if json {
                say(&agent.to_string());
            } else {
                let here = if agent["streaming"] == true { "streaming" } else { "away" };
                let text = |key: &str| agent[key].as_str().unwrap_or("-").to_owned();
                say(&format!("{}  {:9}  {:24}  {}", text("id"), here, text("name"), agent["labels"]));
            }
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/agents?limit=500&cursor={cursor}"),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// `riposte audit verify`
pub async fn verify(remote: Remote, json: bool) -> anyhow::Result<ExitCode> {
    let proof = remote.get("/v1/audit/verify").await?;
    let intact = proof["intact"] == true;
    if json {
        say(&proof.to_string());
    } else if intact {
        say(&format!("intact: {} entries", proof["entries"]));
    } else {
        say(&format!("BROKEN at entry {}: it, or one before it, is not what was written", proof["broken_at"]));
    }
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
