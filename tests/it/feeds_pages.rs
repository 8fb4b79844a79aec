//! The commands of the pages about feeds, run by a shell as they stand.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use serde_json::json;
use tempfile::TempDir;

use crate::processes::{FakeAgent, Manager, manager_program, require, tied};

/// Runs the `sh` blocks of a page in a folder of its own; returns the folder and what they said.
fn run_page(page: &str, manager: &Manager) -> (TempDir, String) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let here = TempDir::new().unwrap();
    symlink(manager_program(), here.path().join("riposte")).unwrap();
    let output = shell(here.path(), manager, &format!("set -eu\n{}", blocks.collect::<String>()));
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page}: {said}{wrong}");
    (here, said.into_owned())
}

fn shell(here: &Path, manager: &Manager, script: &str) -> Output {
    let mut shell = tied(Path::new("sh"));
    shell.args(["-c", &format!("umask 077\n{script}")]).current_dir(here);
    let path = format!("{}:{}", here.display(), std::env::var("PATH").unwrap());
    shell.env("PATH", path).env("RIPOSTE_MANAGER", manager.base()).env("no_proxy", "*");
    shell.env("RIPOSTE_KEY_FILE", manager.data_dir().join("admin.key")).output().unwrap()
}

async fn with_a_block(target: &str) -> (Manager, FakeAgent) {
    require(&[("curl", "curl")]);
    let manager = Manager::start().await;
    let agent = FakeAgent::enroll(&manager, "web-01").await;
    block(&manager, target).await;
    (manager, agent)
}

async fn block(manager: &Manager, target: &str) {
    let asked =
        json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": "1h", "reason": "seen"});
    manager.api().post("/v1/responses", &asked).await;
}

#[tokio::test]
async fn the_page_of_feeds_makes_a_feed_that_is_fetched_and_shown() {
    let (manager, _agent) = with_a_block("203.0.113.7").await;
    let (here, said) = run_page("feeds.md", &manager);
    assert!(said.contains("feed edge: 1 entry now, served at /feeds/edge\n"), "{said}");
    assert!(said.contains("\n203.0.113.7\n"), "{said}");
    assert!(said.contains("fw-1") && said.contains("nothing") && said.contains("127.0.0.1"), "{said}");
    let list = shell(here.path(), &manager, "riposte feed list && riposte feed consumers edge --json");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["edge", "plain", "1", "100000", "1", "ok"], "{list}");
    assert!(list.contains(r#""owed_removed":0"#), "{list}");
    // What is not named stays, and so do the consumers.
    let changed = shell(
        here.path(),
        &manager,
        "riposte feed change edge --max-entries 7 --note edge && riposte feed show edge --json",
    );
    let changed = String::from_utf8_lossy(&changed.stdout).into_owned();
    assert!(changed.starts_with("feed edge: 1 entry now, at most 7\n"), "{changed}");
    let view: serde_json::Value = serde_json::from_str(changed.lines().nth(1).unwrap()).unwrap();
    assert_eq!(
        (&view["version"], &view["note"], &view["form"]),
        (&json!(2), &json!("edge"), &json!("plain")),
        "{view}"
    );
    assert_eq!(view["consumers"][0]["name"], "fw-1", "{view}");
    let deleted = shell(here.path(), &manager, "riposte feed delete edge && riposte feed list --json");
    assert!(deleted.status.success() && deleted.stdout.is_empty(), "{deleted:?}");
    let wrong = shell(here.path(), &manager, "riposte feed add x --form csv");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there are: plain, panos"), "{wrong:?}");
}

#[tokio::test]
async fn the_pages_of_nginx_and_haproxy_fetch_a_list_whole_and_only_if_it_has_changed() {
    require(&[("nginx", "nginx")]);
    let (manager, _agent) = with_a_block("203.0.113.7").await;
    for (page, file, line) in [
        ("integrations/nginx.md", "blocked.conf", "deny 203.0.113.7;\n"),
        ("integrations/haproxy.md", "blocked.lst", "203.0.113.7\n"),
    ] {
        let (here, said) = run_page(page, &manager);
        let list = || fs::read_to_string(here.path().join(file)).unwrap();
        assert!(list().contains(line), "{page}: {}", list());
        assert!(said.contains("nothing"), "{page}: nothing is owed: {said}");
        let again = |reload: &str| shell(here.path(), &manager, &format!("RELOAD='{reload}' ./riposte-fetch"));
        // The same list: no reload.
        let same = again("false");
        assert!(same.status.success(), "{page}: {}", String::from_utf8_lossy(&same.stderr));
        let more = if file.ends_with("conf") { "203.0.113.8" } else { "203.0.113.9" };
        block(&manager, more).await;
        let changed = again("echo reloaded");
        assert_eq!(String::from_utf8_lossy(&changed.stdout), "reloaded\n", "{page}");
        assert!(list().contains(more) && list().contains("203.0.113.7"), "{page}: {}", list());
        // An error leaves the old list.
        let before = list();
        let broken = shell(here.path(), &manager, "RIPOSTE_MANAGER=http://127.0.0.1:1 RELOAD=false ./riposte-fetch");
        assert!(!broken.status.success() && list() == before, "{page}");
    }
}

#[tokio::test]
async fn the_page_of_siems_makes_webhooks_of_both_kinds() {
    require(&[("curl", "curl")]);
    let manager = Manager::start_with(&["--egress-allow", "127.0.0.0/8"]).await;
    let (here, said) = run_page("integrations/siem.md", &manager);
    // What is signed has a secret, and syslog has none.
    assert_eq!(said.matches("whsec_").count(), 1, "{said}");
    let change = "riposte webhook change lake --disable --type 'freeze.*' && riposte webhook show lake --json";
    let changed = shell(here.path(), &manager, change);
    let changed = String::from_utf8_lossy(&changed.stdout).into_owned();
    let view: serde_json::Value = serde_json::from_str(changed.lines().last().unwrap()).unwrap();
    let settings = json!({"types": ["freeze.*"], "form": "ocsf", "is_disabled": true});
    assert_eq!((&view["settings"], &view["state"]), (&settings, &json!("disabled")), "{view}");
    let enabled = shell(
        here.path(),
        &manager,
        "riposte webhook change lake --enable --note x && riposte webhook show lake --json",
    );
    assert!(String::from_utf8_lossy(&enabled.stdout).contains(r#""state":"new""#), "{enabled:?}");
    assert!(said.contains("syslog+tls://127.0.0.1:6514") && said.contains("https://127.0.0.1:8443"), "{said}");
}

#[tokio::test]
async fn the_page_of_taxii_reads_a_collection_as_a_platform_does() {
    let (manager, _agent) = with_a_block("203.0.113.7").await;
    let (_here, said) = run_page("integrations/taxii.md", &manager);
    assert!(said.contains("served at /taxii2/\n"), "{said}");
    assert!(said.contains(r#""title":"edge""#) && said.contains("[ipv4-addr:value = '203.0.113.7']"), "{said}");
    assert!(said.contains("platform-1") && said.contains("nothing"), "{said}");
}

#[tokio::test]
async fn the_page_of_crowdsecs_bouncers_asks_as_a_bouncer_does() {
    let (manager, _agent) = with_a_block("203.0.113.7").await;
    let (_here, said) = run_page("integrations/crowdsec-bouncers.md", &manager);
    assert!(said.contains("served at /crowdsec/\n"), "{said}");
    assert_eq!(said.matches(r#""value":"203.0.113.7","duration":"59m"#).count(), 2, "{said}");
    assert!(said.contains("bouncer-1") && said.contains("nothing"), "{said}");
}
