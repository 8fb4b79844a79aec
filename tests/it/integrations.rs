//! The commands of the pages in `docs/integrations/` that are about pipelines, run by a shell as they stand, with the alert of
//! the page.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{Manager, manager_program, tied};

/// Pages that have a test of their own.
const OTHERS: [&str; 10] = [
    "crowdsec-bouncers",
    "haproxy",
    "nginx",
    "openc2",
    "opentelemetry",
    "prometheus",
    "siem",
    "taxii",
    "tickets",
    "wazuh-api",
];

#[tokio::test]
async fn the_commands_of_every_page_of_a_pipeline_do_what_they_say() {
    let manager = Manager::start().await;
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/integrations");
    let mut tried = 0;
    for entry in fs::read_dir(pages).unwrap().map(Result::unwrap) {
        let name = entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        let page = fs::read_to_string(entry.path()).unwrap();
        let blocks = page.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap());
        let (mut script, mut alert) = ("set -eu\n".to_owned(), None);
        for (kind, text) in blocks {
            match kind {
                "sh" => script.push_str(text),
                "json" => alert = Some(text),
                _ => {}
            }
        }
        let here = TempDir::new().unwrap();
        fs::write(here.path().join("alert.json"), alert.expect("an alert")).unwrap();
        symlink(manager_program(), here.path().join("riposte")).unwrap();
        let mut shell = tied(Path::new("sh"));
        shell.args(["-c", &format!("umask 077\n{script}")]).current_dir(here.path());
        let path = format!("{}:{}", here.path().display(), std::env::var("PATH").unwrap());
        shell.env("PATH", path).env("RIPOSTE_MANAGER", manager.base());
        let output = shell.env("RIPOSTE_KEY_FILE", manager.data_dir().join("admin.key")).output().unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {said}{wrong}");
        assert!(said.contains(&format!("alert 1: pipeline {name}, id ")), "{name}: {said}");
        assert!(said.contains(" 0 rejected, "), "{name}: {said}");
        let stored = manager.api().get("/v1/alerts?limit=500").await;
        let of_page = |alert: &&Value| alert["pipeline"] == name.as_str();
        assert!(stored["items"].as_array().unwrap().iter().any(|alert| of_page(&alert)), "{name}");
        tried += 1;
    }
    assert!(tried >= 10, "{tried} pages were read");
}
