//! A person's browser at a manager's console: opens pages, presses what is written on buttons and
//! links, fills in fields, and reads. Pages change by themselves, so each step is tried again until
//! it succeeds or the test's patience ends.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::programs::{in_time, password};
use crate::webdriver::{Element, Refused, Step, WebDriver};

/// Width of a usual screen, and of a phone.
pub(crate) const WIDE: u32 = 1280;
pub(crate) const PHONE: u32 = 390;

pub(crate) struct Browser {
    pub(crate) driver: WebDriver,
    pub(crate) base: String,
}

impl Browser {
    /// A browser that has opened no page yet.
    pub(crate) async fn start(base: &str) -> Self {
        Self { driver: WebDriver::start(WIDE, true).await, base: base.to_owned() }
    }

    /// The same, whose pages run no script.
    pub(crate) async fn without_scripts(base: &str) -> Self {
        Self { driver: WebDriver::start(WIDE, false).await, base: base.to_owned() }
    }

    /// A browser in which a person of `Manager::people` has logged in.
    pub(crate) async fn of(base: &str, name: &str) -> Self {
        let browser = Self::start(base).await;
        browser.log_in(name).await;
        browser
    }

    /// Opens a page of the console.
    pub(crate) async fn open(&self, path: &str) {
        self.driver.open(&format!("{}{path}", self.base)).await.unwrap_or_else(|why| panic!("{path}: {}", why.message));
    }

    /// Path and query of the page.
    pub(crate) async fn place(&self) -> String {
        let url = self.driver.url().await.unwrap();
        url.strip_prefix(&self.base).unwrap_or(&url).to_owned()
    }

    /// Waits until the page has this path and query.
    pub(crate) async fn is_at(&self, place: &str) {
        self.until_done(&format!("the page is {place}"), async || Ok((self.place().await == place).then_some(())))
            .await;
    }

    pub(crate) async fn log_in(&self, name: &str) {
        self.open("/login").await;
        self.fill("username", name).await;
        self.fill("password", &password(name)).await;
        self.press("Log in").await;
        self.is_at("/").await;
    }

    /// Tries a step until it succeeds.
    async fn until_done<T>(&self, what: &str, mut step: impl AsyncFnMut() -> Step<Option<T>>) -> T {
        let mut last = None::<Refused>;
        let done = in_time(async || match step().await {
            Ok(found) => found,
            Err(why) if why.code == "unexpected alert open" => panic!("{what}: a dialog is open: {}", why.message),
            Err(why) => {
                last = Some(why);
                None
            }
        })
        .await;
        match done {
            Some(done) => done,
            None => panic!("not done: {what}; {last:?}; {}", self.shown().await),
        }
    }

    /// Where the page is and what it shows, for messages of failures.
    async fn shown(&self) -> String {
        let text = match self.driver.select("body").await.unwrap_or_default().first() {
            Some(body) => self.driver.text(body).await.unwrap_or_default(),
            None => String::new(),
        };
        format!("{} shows:\n{text}", self.place().await)
    }

    /// The first of the elements that an `XPath` finds and that a person can see.
    async fn visible(&self, path: &str) -> Step<Option<Element>> {
        for element in self.driver.find(path).await? {
            if self.driver.is_displayed(&element).await? {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// Presses the button or follows the link with this text. While a plan is open, only in it.
    pub(crate) async fn press(&self, words: &str) {
        let words = literal(words);
        let named = format!("*[self::a or self::button][normalize-space(.)={words} or @aria-label={words}]");
        self.click(&format!("//dialog[@open]//{named} | //body[not(.//dialog[@open])]//{named}")).await;
    }

    /// The same for one row of a list.
    pub(crate) async fn press_in(&self, row: &str, words: &str) {
        let (row, words) = (literal(row), literal(words));
        self.click(&format!(
            "//*[@data-row][contains(., {row})]//*[self::a or self::button][normalize-space(.)={words}]"
        ))
        .await;
    }

    /// Clicks on the first visible element that an `XPath` finds.
    pub(crate) async fn click(&self, path: &str) {
        self.until_done(&format!("click {path}"), async || match self.visible(path).await? {
            Some(element) => self.driver.click(&element).await.map(Some),
            None => Ok(None),
        })
        .await;
    }

    /// Replaces what is in the field with this name.
    pub(crate) async fn fill(&self, field: &str, text: &str) {
        let named = format!("*[@name='{field}'][self::input or self::textarea]");
        let path = format!("//dialog[@open]//{named} | //body[not(.//dialog[@open])]//{named}");
        self.until_done(&format!("fill in {field}"), async || match self.visible(&path).await? {
            Some(element) => {
                self.driver.clear(&element).await?;
                self.driver.type_into(&element, text).await.map(Some)
            }
            None => Ok(None),
        })
        .await;
    }

    /// Chooses a value of the selection with this name.
    pub(crate) async fn choose(&self, field: &str, value: &str) {
        let named = format!("select[@name='{field}']/option[@value='{value}']");
        self.click(&format!("//dialog[@open]//{named} | //body[not(.//dialog[@open])]//{named}")).await;
    }

    /// What is in the field with this name.
    pub(crate) async fn value_of(&self, field: &str) -> String {
        self.until_done(&format!("read {field}"), async || {
            let found = self.driver.select(&format!("[name='{field}']:not([type=hidden])")).await?;
            let Some(element) = found.first() else { return Ok(None) };
            Ok(self.driver.property(element, "value").await?.as_str().map(str::to_owned))
        })
        .await
    }

    /// What a person reads on the page.
    pub(crate) async fn text(&self) -> String {
        self.until_done("read the page", async || match self.driver.select("body").await?.first() {
            Some(body) => self.driver.text(body).await.map(Some),
            None => Ok(None),
        })
        .await
    }

    /// Waits until the page shows these words.
    pub(crate) async fn sees(&self, words: &str) {
        self.until_done(&format!("{words:?} is shown"), async || Ok(self.text().await.contains(words).then_some(())))
            .await;
    }

    /// The same, but the page no longer shows them.
    pub(crate) async fn sees_no_more(&self, words: &str) {
        self.until_done(&format!("{words:?} is gone"), async || Ok((!self.text().await.contains(words)).then_some(())))
            .await;
    }

    /// Waits until a button has these words.
    pub(crate) async fn is_offered(&self, words: &str) {
        let path = format!("//button[normalize-space(.)={}]", literal(words));
        self.until_done(&format!("{words:?} is offered"), async || self.visible(&path).await).await;
    }

    /// Waits until no button has these words.
    pub(crate) async fn is_offered_no_more(&self, words: &str) {
        let path = format!("//button[normalize-space(.)={}]", literal(words));
        self.until_done(&format!("{words:?} is offered no more"), async || {
            Ok(self.visible(&path).await?.is_none().then_some(()))
        })
        .await;
    }

    /// Runs a function's body in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.driver.run(script, &[]).await.unwrap_or_else(|why| panic!("{script}: {}", why.message))
    }

    /// Marks the page, so that a load is noticed.
    pub(crate) async fn mark(&self) {
        self.run("window.isTheSamePage = true").await;
    }

    /// Whether the page is the one that `mark` marked.
    pub(crate) async fn is_unloaded_since_mark(&self) -> bool {
        self.run("return window.isTheSamePage !== true").await == true
    }

    /// Fails if the browser has logged an error, or a violation of the content security policy, since
    /// the last call. `expected` are words of messages that the test has caused on purpose.
    pub(crate) async fn has_no_errors(&self, expected: &[&str]) {
        let log = self.driver.log().await.unwrap();
        let faults: Vec<&str> = log
            .iter()
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .map(|entry| entry["message"].as_str().unwrap())
            .filter(|message| !expected.iter().any(|words| message.contains(words)))
            .collect();
        assert!(faults.is_empty(), "{}: {faults:#?}", self.place().await);
    }

    /// Makes pages dark or light, and as wide as a phone or a screen.
    pub(crate) async fn looks(&self, is_dark: bool, width: u32) {
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let is_phone = width == PHONE;
        let screen = json!({"width": width, "height": if is_phone { 844 } else { 900 }, "deviceScaleFactor": 1,
            "mobile": is_phone});
        self.driver.devtools("Emulation.setEmulatedMedia", &media).await.unwrap();
        self.driver.devtools("Emulation.setDeviceMetricsOverride", &screen).await.unwrap();
    }

    /// The values of the session's cookies: access, refresh.
    pub(crate) async fn cookie_header(&self) -> String {
        let cookies = self.driver.cookies().await.unwrap();
        let pair = |cookie: &Value| Some(format!("{}={}", cookie["name"].as_str()?, cookie["value"].as_str()?));
        cookies.iter().filter_map(pair).collect::<Vec<_>>().join("; ")
    }
}

/// A text as `XPath` writes it.
fn literal(text: &str) -> String {
    assert!(!text.contains('"'), "{text}");
    format!("\"{text}\"")
}

/// The build's folder for files that people look at.
pub(crate) fn target(folder: &str) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_riposte"));
    target.ancestors().nth(2).unwrap().join(folder)
}
