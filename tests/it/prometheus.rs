//! What Prometheus' own programs say of the metrics and the alert rules; and what the rules, their unit
//! tests, the runbooks and the dashboard say of each other. `scripts/test-deps.sh` unpacks promtool.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::metrics::{documented, use_everything};
use super::processes::{Manager, tied};
use super::support::{Database, TestApp, eventually};

/// Returns the path of a program of Debian's package prometheus.
///
/// # Panics
/// If it is not unpacked, saying how to do so.
pub(super) fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_riposte")).ancestors().nth(2).unwrap();
    let program = target.join("prometheus/usr/bin").join(name);
    assert!(program.is_file(), "{} is missing: run scripts/test-deps.sh", program.display());
    program
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    yaml_serde::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs promtool in the folder of the rules, with `input`. Returns whether it is content, and what it says.
fn promtool(args: &[&str], input: &str) -> (bool, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    let mut promtool = Command::new(program("promtool"));
    promtool.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The rules: names and objects.
fn rules() -> BTreeMap<String, Value> {
    let file = yaml("deploy/prometheus/riposte.rules.yml");
    let rules = file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule)).collect()
}

/// Every metric of Riposte that an expression names, and the labels that stand in braces behind it.
fn named(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_name = |c: &char| c.is_ascii_lowercase() || *c == '_';
    let found = expression.match_indices("riposte_").map(|(at, _)| {
        let rest = &expression[at..];
        let metric: String = rest.chars().take_while(is_name).collect();
        let braces = rest[metric.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = braces.map_or("", |(matchers, _)| matchers).split(',').filter(|matcher| !matcher.is_empty());
        let labels = matchers.map(|matcher| matcher.trim().chars().take_while(is_name).collect()).collect();
        (metric, labels)
    });
    found.collect()
}

/// Panics if an expression names a metric or a label that Riposte does not have.
fn check(expression: &str) -> usize {
    let documented = documented();
    let forwarder = read("docs/forward.md");
    let metrics = named(expression);
    for (metric, labels) in &metrics {
        if metric.starts_with("riposte_forward_") {
            assert!(forwarder.contains(&format!("`{metric}`")), "{metric}");
            continue;
        }
        let family = metric.strip_suffix("_bucket").unwrap_or(metric);
        let (kind, known) = documented.get(family).unwrap_or_else(|| panic!("{metric} does not exist: {expression}"));
        assert_eq!(kind == "histogram", metric.ends_with("_bucket"), "{expression}");
        assert!(labels.is_subset(known), "{metric} has {known:?}: {expression}");
    }
    metrics.len()
}

on_both_databases! {
    async fn the_metrics_are_clean_by_promtool(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        use_everything(&app, &admin).await;
        let metrics = eventually("each family has a value", async || {
            let metrics = admin.get("/metrics").await;
            assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
            let is_there = |line: &&str| metrics.text.contains(*line);
            let lines = ["riposte_effects{", "riposte_time_to_contain_seconds_count{"];
            lines.iter().all(is_there).then_some(metrics.text.clone())
        })
        .await;
        assert_eq!(promtool(&["check", "metrics"], &metrics), (true, String::new()));
        let contained = "riposte_time_to_contain_seconds_count{policy=\"drop\",action=\"firewall-drop\"} 1\n";
        assert!(metrics.contains(contained), "{metrics}");
    }
}

#[test]
fn promtool_finds_what_is_wrong_with_metrics() {
    let (is_clean, said) = promtool(&["check", "metrics"], "# TYPE riposte_things counter\nriposte_things 1\n");
    assert!(!is_clean && said.contains("_total"), "{said}");
}

#[test]
fn the_rules_and_their_unit_tests_pass_promtool() {
    let (is_well, said) = promtool(&["check", "rules", "riposte.rules.yml"], "");
    assert!(is_well, "{said}");
    let (is_well, said) = promtool(&["test", "rules", "riposte.rules.test.yml"], "");
    assert!(is_well, "{said}");
    let config = tempfile::NamedTempFile::new().unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/");
    std::fs::write(config.path(), read("deploy/compose/prometheus.yml").replace("/etc/prometheus/", folder)).unwrap();
    let (is_well, said) = promtool(&["check", "config", config.path().to_str().unwrap()], "");
    assert!(is_well && said.contains(&format!("{} rules found", rules().len())), "{said}");
}

#[test]
fn each_rule_has_a_test_that_makes_it_fire_and_one_that_does_not() {
    let file = yaml("deploy/prometheus/riposte.rules.test.yml");
    let mut tried: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for test in file["tests"].as_array().unwrap() {
        for case in test["alert_rule_test"].as_array().unwrap() {
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            tried.entry(case["alertname"].as_str().unwrap().to_owned()).or_default().insert(fires);
        }
    }
    let rules = rules();
    assert!(rules.len() > 20);
    assert_eq!(tried.keys().collect::<Vec<_>>(), rules.keys().collect::<Vec<_>>());
    assert!(tried.values().all(|ways| ways.len() == 2), "{tried:?}");
}

#[test]
fn each_rule_has_a_runbook_and_each_runbook_a_rule() {
    let page = read("docs/runbooks.md");
    let headings: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let rules = rules();
    assert_eq!(headings, rules.keys().cloned().collect());
    for (name, rule) in &rules {
        let runbook = format!("docs/runbooks.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], runbook, "{name}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(rule["annotations"]["summary"].as_str().unwrap().ends_with('.'), "{name}");
    }
}

#[test]
fn the_rules_and_the_dashboard_name_metrics_that_exist() {
    for (name, rule) in rules() {
        let metrics = check(rule["expr"].as_str().unwrap());
        assert!(metrics > 0 || name == "RiposteDown", "{name}");
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/compose/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 12);
    let mut shown = BTreeSet::new();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let expression = target["expr"].as_str().unwrap();
        assert!(check(expression) > 0, "{expression}");
        shown.extend(named(expression).into_iter().map(|(metric, _)| metric.trim_end_matches("_bucket").to_owned()));
    }
    // What a panel shows in another form, or what is of use in a log only.
    let elsewhere = [
        "riposte_agents_streaming",
        "riposte_alerts_conflicting_total",
        "riposte_commands_sent_total",
        "riposte_conditions_failed_total",
        "riposte_feed_consumer_silent",
        "riposte_feed_fetched_timestamp_seconds",
        "riposte_feed_too_long",
        "riposte_forwarders_silent",
        "riposte_orders_rejected_total",
        "riposte_telemetry_exported_total",
        "riposte_webhook_behind",
        "riposte_webhook_dead",
        "riposte_webhook_failing",
        "riposte_webhook_messages_total",
        "riposte_webhook_waiting",
    ];
    let left_out: Vec<String> = documented().into_keys().filter(|metric| !shown.contains(metric)).collect();
    assert_eq!(left_out, elsewhere);
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let metrics = named("sum(riposte_effects{actual=\"x\", other!=\"y\"}) / riposte_none");
    let labels = ["actual", "other"].map(str::to_owned).into();
    assert_eq!(metrics, [("riposte_effects".to_owned(), labels), ("riposte_none".to_owned(), BTreeSet::new())]);
    for wrong in ["riposte_none > 1", "riposte_effects{policy=\"x\"}", "riposte_http_request_seconds"] {
        assert!(std::panic::catch_unwind(|| check(wrong)).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn the_commands_of_the_page_do_what_they_say() {
    let manager = Manager::start().await;
    let here = tempfile::tempdir().unwrap();
    for name in ["riposte.rules.yml", "riposte.rules.test.yml"] {
        std::fs::write(here.path().join(name), read(&format!("deploy/prometheus/{name}"))).unwrap();
    }
    let page = read("docs/integrations/prometheus.md");
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let script = format!("set -eu\n{}promtool check rules mine.rules.yml\n", blocks.collect::<String>());
    assert!(script.matches("promtool").count() > 3, "{script}");
    let path = format!("{}:{}", program("promtool").parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = tied(Path::new("sh"));
    shell.args(["-c", &script]).current_dir(here.path()).env("PATH", path).env("riposte", manager.base());
    let output = shell.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    let mine = std::fs::read_to_string(here.path().join("mine.rules.yml")).unwrap();
    assert_eq!(mine.matches("runbook_url: https://wiki.example.org/riposte/runbooks.md#").count(), rules().len());
}
