//! A client of `WebDriver` (W3C), as far as the tests need it: `chromedriver` on a port of its own,
//! and one session with a headless Chromium. It is written by hand because the crates for it turn on
//! `serde_json`'s `preserve_order`, and with it the programs under test would be built otherwise than
//! those that are shipped.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::programs::{is_root, require, tied};

/// The key under which `WebDriver` sends the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A page that is not loaded after this time hangs.
const PAGE_LOAD: Duration = Duration::from_mins(1);
/// Chromium ends with `chromedriver`, however that ends.
const WRAPPER: &str = "#!/bin/sh\nexec setpriv --pdeathsig SIGKILL chromium \"$@\"\n";
/// Lines that `chromedriver` writes before it listens.
const FIRST_LINES: usize = 20;

/// Why a step in the browser failed: the error's code in the standard, and its message.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) code: String,
    pub(crate) message: String,
}

pub(crate) type Step<T> = Result<T, Refused>;

/// An element of a page.
#[derive(Clone, Debug)]
pub(crate) struct Element(String);

/// A session with a Chromium of its own; both end with it.
pub(crate) struct WebDriver {
    driver: Child,
    port: u16,
    http: reqwest::Client,
    session: String,
    /// Holds the wrapper of Chromium, and what it writes.
    _dir: TempDir,
}

impl WebDriver {
    /// Starts Chromium, `width` pixels wide. Without `scripts`, pages run no script.
    pub(crate) async fn start(width: u32, scripts: bool) -> Self {
        require(&[("chromium", "chromium"), ("chromedriver", "chromium-driver")]);
        let dir = tempfile::Builder::new().prefix("riposte-chromium-").tempdir().unwrap();
        let mut command = tied("chromedriver".as_ref());
        // Chromium leaves files behind: they end with the test.
        command.arg("--port=0").env("TMPDIR", dir.path());
        let mut driver = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let port = listening_port(&mut output);
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let http = reqwest::Client::builder().no_proxy().timeout(PAGE_LOAD * 2).build().unwrap();
        let wrapper = dir.path().join("chromium");
        std::fs::write(&wrapper, WRAPPER).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut started = Self { driver, port, http, session: String::new(), _dir: dir };
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-proxy-server".to_owned(),
            "--force-device-scale-factor=1".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--window-size={width},900"),
        ];
        if is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            // A dialog makes the next step fail, so that no test overlooks one.
            "unhandledPromptBehavior": "dismiss and notify",
            "timeouts": {"pageLoad": PAGE_LOAD.as_millis(), "script": PAGE_LOAD.as_millis()},
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": wrapper, "args": arguments},
        }}});
        let session = started.ask(Method::POST, "/session", &wanted).await;
        let session = session.unwrap_or_else(|why| panic!("Chromium does not start: {}", why.message));
        session["sessionId"].as_str().unwrap().clone_into(&mut started.session);
        if !scripts {
            started.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true})).await.unwrap();
        }
        started
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Step<Value> {
        let request = self.http.request(method.clone(), format!("http://127.0.0.1:{}{path}", self.port));
        let request = if method == Method::POST { request.json(body) } else { request };
        let answer = request.send().await.unwrap_or_else(|error| panic!("chromedriver does not answer: {error}"));
        let is_done = answer.status().is_success();
        let mut answer: Value = answer.json().await.unwrap();
        let value = answer["value"].take();
        if is_done {
            return Ok(value);
        }
        let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Err(Refused { code: word("error"), message: word("message") })
    }

    async fn post(&self, path: &str, body: &Value) -> Step<Value> {
        self.ask(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    async fn read(&self, path: &str) -> Step<Value> {
        self.ask(Method::GET, &format!("/session/{}{path}", self.session), &Value::Null).await
    }

    pub(crate) async fn open(&self, url: &str) -> Step<()> {
        self.post("/url", &json!({"url": url})).await.map(drop)
    }

    pub(crate) async fn url(&self) -> Step<String> {
        Ok(self.read("/url").await?.as_str().unwrap_or_default().to_owned())
    }

    /// The elements that an `XPath` finds.
    pub(crate) async fn find(&self, path: &str) -> Step<Vec<Element>> {
        self.found("xpath", path).await
    }

    /// The elements that a CSS selector finds.
    pub(crate) async fn select(&self, selector: &str) -> Step<Vec<Element>> {
        self.found("css selector", selector).await
    }

    async fn found(&self, using: &str, value: &str) -> Step<Vec<Element>> {
        let found = self.post("/elements", &json!({"using": using, "value": value})).await?;
        let found = found.as_array().cloned().unwrap_or_default();
        Ok(found.iter().map(|element| Element(element[ELEMENT].as_str().unwrap().to_owned())).collect())
    }

    pub(crate) async fn is_displayed(&self, element: &Element) -> Step<bool> {
        Ok(self.read(&format!("/element/{}/displayed", element.0)).await? == true)
    }

    pub(crate) async fn text(&self, element: &Element) -> Step<String> {
        Ok(self.read(&format!("/element/{}/text", element.0)).await?.as_str().unwrap_or_default().to_owned())
    }

    pub(crate) async fn property(&self, element: &Element, name: &str) -> Step<Value> {
        self.read(&format!("/element/{}/property/{name}", element.0)).await
    }

    pub(crate) async fn click(&self, element: &Element) -> Step<()> {
        self.post(&format!("/element/{}/click", element.0), &json!({})).await.map(drop)
    }

    pub(crate) async fn clear(&self, element: &Element) -> Step<()> {
        self.post(&format!("/element/{}/clear", element.0), &json!({})).await.map(drop)
    }

    pub(crate) async fn type_into(&self, element: &Element, text: &str) -> Step<()> {
        self.post(&format!("/element/{}/value", element.0), &json!({"text": text})).await.map(drop)
    }

    /// Runs a function's body in the page, and returns what it returns.
    pub(crate) async fn run(&self, script: &str, arguments: &[Value]) -> Step<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": arguments})).await
    }

    /// The same for a function that answers by calling its last argument.
    pub(crate) async fn run_to_end(&self, script: &str, arguments: &[Value]) -> Step<Value> {
        self.post("/execute/async", &json!({"script": script, "args": arguments})).await
    }

    /// Takes what the browser has logged since the last call: errors, and violations of the content
    /// security policy.
    pub(crate) async fn log(&self) -> Step<Vec<Value>> {
        Ok(self.post("/se/log", &json!({"type": "browser"})).await?.as_array().cloned().unwrap_or_default())
    }

    pub(crate) async fn cookies(&self) -> Step<Vec<Value>> {
        Ok(self.read("/cookie").await?.as_array().cloned().unwrap_or_default())
    }

    /// A command of Chromium's own protocol.
    pub(crate) async fn devtools(&self, command: &str, params: &Value) -> Step<Value> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params})).await
    }

    /// A picture of the whole page as PNG.
    pub(crate) async fn picture(&self) -> Step<Vec<u8>> {
        let wanted = json!({"format": "png", "captureBeyondViewport": true});
        let taken = self.devtools("Page.captureScreenshot", &wanted).await?;
        Ok(STANDARD.decode(taken["data"].as_str().unwrap()).unwrap())
    }
}

impl Drop for WebDriver {
    fn drop(&mut self) {
        // The session ends first, so that chromedriver removes Chromium's profile.
        if !self.session.is_empty()
            && let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port))
        {
            let request =
                format!("DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", self.session);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn listening_port(output: &mut impl std::io::BufRead) -> u16 {
    let mut said = String::new();
    for _ in 0..FIRST_LINES {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim().trim_end_matches('.').parse().unwrap();
        }
        said.push_str(&line);
    }
    panic!("chromedriver does not say where it listens: {said}");
}
