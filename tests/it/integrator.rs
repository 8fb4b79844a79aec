//! `deploy/integrations/custom-riposte`, called as Wazuh's integratord calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::processes::{Api, Manager, PATIENCE, alert, eventually, require, tied};

struct Integrator {
    /// A folder as Wazuh's, with the integration in it.
    home: TempDir,
    key: String,
    number: u64,
}

impl Integrator {
    async fn new(api: &Api) -> Self {
        require(&[("python3", "python3")]);
        let home = TempDir::new().unwrap();
        for folder in ["integrations", "queue", "logs"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/integrations");
        for name in ["custom-riposte", "custom-riposte.py"] {
            fs::copy(source.join(name), home.path().join("integrations").join(name)).unwrap();
        }
        let made = api.post("/v1/api-keys", &json!({"name": "integratord", "role": "ingest"})).await;
        Self { home, key: made["key"].as_str().unwrap().to_owned(), number: 0 }
    }

    fn spool(&self) -> PathBuf {
        self.home.path().join("queue/riposte")
    }

    fn waiting(&self) -> usize {
        let names = fs::read_dir(self.spool()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.strip_suffix(".json").is_some()).count()
    }

    /// Calls the integration with a file. Returns the exit code, what it said, and how long it took.
    fn call_with(&self, text: &str, url: &str) -> (Option<i32>, String, Duration) {
        let file = self.home.path().join("custom-riposte-1.alert");
        fs::write(&file, text).unwrap();
        let began = Instant::now();
        // As integratord does: the words for a redirection are an argument.
        let output = tied(&self.home.path().join("integrations/custom-riposte"))
            .arg(&file)
            .args([&self.key, url, "", "", "10", "3", "> /dev/null 2>&1"])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), began.elapsed())
    }

    fn call(&mut self, url: &str) -> Duration {
        self.number += 1;
        let pretty = serde_json::to_string_pretty(&alert(self.number, "203.0.113.7", "web-01")).unwrap();
        let (code, said, took) = self.call_with(&pretty, url);
        assert_eq!(code, Some(0), "{said}");
        took
    }
}

async fn count(api: &Api) -> usize {
    api.get("/v1/alerts").await["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_alert_is_there_at_once_and_one_that_cannot_be_sent_is_there_later() {
    let mut manager = Manager::start().await;
    let mut integrator = Integrator::new(&manager.api()).await;
    let (api, url) = (manager.api(), manager.base());
    integrator.call(&url);
    assert_eq!((count(&api).await, integrator.waiting()), (1, 0));
    manager.kill9();
    let (first, second) = (integrator.call(&url), integrator.call(&url));
    assert!(first < Duration::from_secs(3) && second < Duration::from_secs(3), "{first:?} {second:?}");
    assert_eq!(integrator.waiting(), 2);
    let log = fs::read_to_string(integrator.home.path().join("logs/integrations.log")).unwrap();
    assert!(log.contains("cannot reach Riposte") && log.contains("the alerts wait in"), "{log}");
    manager.start_again().await;
    // Without another alert: the process in the background sends them.
    eventually("the alerts that waited", PATIENCE * 2, || async { (count(&api).await == 3).then_some(()) }).await;
    eventually("an empty spool", PATIENCE, || async { (integrator.waiting() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_manager_that_answers_nothing_does_not_hold_integratord_up() {
    let manager = Manager::start().await;
    let mut integrator = Integrator::new(&manager.api()).await;
    // It takes connections, and never answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let took = integrator.call(&format!("http://{}", deaf.local_addr().unwrap()));
    // The limit is 0.7 s; the rest is the start of Python on a busy machine.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(integrator.waiting(), 1);
    stop_background(&integrator);
}

#[tokio::test]
async fn what_is_no_alert_or_has_no_address_is_said() {
    let manager = Manager::start().await;
    let integrator = Integrator::new(&manager.api()).await;
    let (code, said, _) = integrator.call_with("** Alert 1795.1: - sshd\n", &manager.base());
    assert!(code == Some(1) && said.contains("set <alert_format>json</alert_format>"), "{said}");
    let (code, said, _) = integrator.call_with("{}", "");
    assert!(code == Some(1) && said.contains("hook_url is missing"), "{said}");
    // A faulty alert does not stay in the spool for ever.
    let (code, said, _) = integrator.call_with("{\"rule\":{}}", &manager.base());
    assert_eq!((code, integrator.waiting()), (Some(0), 0), "{said}");
    let text: Value = json!({"a": "x".repeat(1024 * 1024)});
    let (code, said, _) = integrator.call_with(&text.to_string(), &manager.base());
    assert!(code == Some(1) && said.contains("larger than Riposte takes"), "{said}");
}

/// Ends the process that holds the lock of the spool.
fn stop_background(integrator: &Integrator) {
    let lock = integrator.spool().join("lock");
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = files.filter_map(Result::ok).any(|file| fs::read_link(file.path()).is_ok_and(|path| path == lock));
        if holds {
            let id = entry.file_name().into_string().unwrap();
            assert!(Command::new("kill").arg(&id).status().unwrap().success());
        }
    }
}
