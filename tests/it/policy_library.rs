//! The library of policies: each file does what it promises, and `riposte policy library …` lists,
//! shows and adds them without ever replacing what a site has changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use axum::http::{Method, StatusCode};
use riposte::domain::action::Catalogue;
use riposte::domain::alert::TargetField;
use riposte::domain::formats::AlertMappings;
use riposte::domain::policy::{Mode, Policy};
use riposte::engine::policy_tests::run_tests;
use serde_json::{Value, json};

use crate::policy_cli::{alone, folder, policy};
use crate::processes::{FakeAgent, Manager, alert};

/// Every policy of the library, by its name, from the files of the repository.
pub(crate) fn library() -> BTreeMap<String, Policy> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/library");
    let mut policies = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let document: Value = yaml_serde::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let policy = Policy::parse(&document, Catalogue::built_in())
            .unwrap_or_else(|faults| panic!("{}: {faults:#?}", path.display()));
        policies.insert(policy.name.clone(), policy);
    }
    assert_eq!(policies.len(), 20);
    policies
}

/// The rules that a policy names.
pub(crate) fn rules(policy: &Policy) -> Vec<&str> {
    policy.selectors.iter().flat_map(|selector| &selector.rule_ids).map(String::as_str).collect()
}

#[test]
fn every_policy_of_the_library_keeps_the_promises_of_its_page() {
    for (name, policy) in library() {
        assert_eq!(policy.mode, Mode::Observe, "{name}");
        assert_eq!(policy.warnings(), [], "{name}");
        assert_eq!(run_tests(&policy, &AlertMappings::default()), [], "{name}");
        let fires = policy.tests.iter().filter(|test| test.fires).count();
        assert!(fires > 0 && fires < policy.tests.len(), "{name} needs an alert that fires and one that does not");
        for test in &policy.tests {
            assert!(!test.name.is_empty(), "{name}: a test without a name");
            assert_eq!(test.fires, test.target.is_some(), "{name}: {}", test.name);
        }
        // Every selector names its rules: a group would grow with each version of Wazuh.
        assert!(policy.selectors.iter().all(|selector| !selector.rule_ids.is_empty()), "{name}");
        assert!(Catalogue::built_in().find(&policy.respond.action).is_some(), "{name}");
        let duration = policy.respond.duration.unwrap_or_else(|| panic!("{name} has no end")).duration();
        let limits = policy.guardrails.limits.as_ref().unwrap_or_else(|| panic!("{name} has no limits"));
        assert!(limits.responses.is_some() && limits.targets.is_some(), "{name}");
        let cooldown = limits.cooldown.unwrap_or_else(|| panic!("{name} has no cooldown")).duration();
        assert!(cooldown <= duration, "{name}: a target would be free before its next response");
        let breaker = policy.guardrails.breaker.as_ref().unwrap_or_else(|| panic!("{name} has no breaker"));
        assert!(breaker.undone.is_some() && breaker.failed.is_some(), "{name}");
        if let Some(escalation) = &policy.respond.escalate {
            let steps: Vec<_> =
                std::iter::once(duration).chain(escalation.ladder.iter().map(|step| step.duration())).collect();
            assert!(steps.is_sorted() && steps.len() > 1, "{name}: {steps:?}");
        }
        if let Some(threshold) = &policy.guardrails.threshold {
            assert_eq!(threshold.by, Some(TargetField::SourceIp), "{name} counts different sources together");
        }
        let paragraphs = ["Volume: ", "Can go wrong: ", "Before enforce: "];
        let found: Vec<usize> = paragraphs.iter().filter_map(|word| policy.note.find(&format!("\n{word}"))).collect();
        assert!(found.len() == paragraphs.len() && found.is_sorted(), "{name}: {}", policy.note);
        assert!(policy.note.lines().next().unwrap().ends_with('.'), "{name}: the first line is its summary");
    }
}

/// The alert with `address` wherever `from` stands.
pub(crate) fn at_address(alert: &Value, from: &str, address: &str) -> Value {
    serde_json::from_str(&alert.to_string().replace(&format!("\"{from}\""), &format!("\"{address}\""))).unwrap()
}

#[test]
fn no_policy_of_the_library_blocks_a_private_address() {
    let documentation = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"].map(str::parse::<ipnet::IpNet>);
    let mut tried = 0;
    for (name, policy) in library() {
        if policy.respond.target != Some(TargetField::SourceIp) {
            continue;
        }
        for test in policy.tests.iter().filter(|test| test.fires) {
            let target = test.target.as_deref().unwrap();
            let address: IpAddr = target.parse().unwrap();
            assert!(documentation.iter().flatten().any(|net| net.contains(&address)), "{name}: {target} may be real");
            for private in ["10.1.2.3", "172.31.255.1", "192.168.0.1", "100.64.0.1", "fd00::1", "::ffff:10.1.2.3"] {
                let mut spared = test.clone();
                spared.alert = at_address(&test.alert, target, private);
                (spared.fires, spared.target) = (false, None);
                let policy = Policy { tests: vec![spared], ..policy.clone() };
                assert_eq!(run_tests(&policy, &AlertMappings::default()), [], "{name} at {private}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried} alerts were tried");
}

#[test]
fn the_loud_rules_have_thresholds() {
    let library = library();
    for (name, count) in [
        ("web-error-scan", 20),
        ("pfsense-blocks", 5),
        ("suricata-severe", 3),
        ("web-exploit-probes", 3),
        ("missed-passwords", 3),
        ("mail-bruteforce", 3),
        ("ssh-scan", 3),
        ("pam-failures", 2),
        ("web-attacks", 2),
        ("web-login-bruteforce", 2),
    ] {
        assert_eq!(library[name].guardrails.threshold.as_ref().map(|threshold| threshold.count), Some(count), "{name}");
    }
}

#[test]
fn the_library_is_read_without_a_manager() {
    let here = tempfile::tempdir().unwrap();
    let run = |words: &str| alone(here.path(), &format!("policy library {words}"));
    let listed = run("list").gives(0);
    assert!(listed.starts_with("NAME"), "{listed}");
    let line = listed.lines().find(|line| line.starts_with("virustotal-quarantine ")).unwrap();
    for word in ["87105", "quarantine-file", "file.path", "30d", "engines of VirusTotal"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(listed.ends_with("have no safe response: riposte policy library list --without\n"), "{listed}");
    let rows: Vec<Value> =
        run("list --json").gives(0).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 20);
    for row in &rows {
        let (name, library) = (row["name"].as_str().unwrap(), library());
        assert_eq!(row["rules"], json!(rules(&library[name])), "{name}");
        assert_eq!(row["target"], serde_json::to_value(library[name].respond.target).unwrap(), "{name}");
        let shown = run(&format!("show {name}")).gives(0);
        let document: Value = yaml_serde::from_str(&shown).unwrap();
        assert_eq!(Policy::parse(&document, Catalogue::built_in()).as_ref(), Ok(&library[name]));
        let json: Value = serde_json::from_str(&run(&format!("show {name} --json")).gives(0)).unwrap();
        assert_eq!(json, serde_json::to_value(&library[name]).unwrap());
    }
    let without = run("list --without").gives(0);
    assert!(without.lines().any(|line| line.starts_with("31106 ") && line.contains("the page exists")), "{without}");
    assert_eq!(run("list --without --json").gives(0).lines().count() + 1, without.lines().count());
    let told = run("show ssh-brutforce").complains(2);
    assert_eq!(told, "riposte: the library has no policy \"ssh-brutforce\"; did you mean ssh-bruteforce?\n");
    assert!(run("add").complains(2).contains("<NAME>"));
    run("add ssh-scan --all").complains(2);
}

#[test]
fn the_library_is_written_for_a_repository_of_policies() {
    let here = tempfile::tempdir().unwrap();
    let run = |words: &str| alone(here.path(), words);
    let written = run("policy library add --all --to kept").gives(0);
    assert_eq!(written, "20 files written; look at them, then: riposte policy apply -f kept\n");
    assert!(run("policy test kept").gives(0).contains(" 0 failed"));
    let again = run("policy library add --all --to kept").gives(0);
    assert!(again.starts_with("0 files written, 20 files there already and unchanged"), "{again}");
    // Another mode is another file, and nothing that is there is replaced.
    let file = here.path().join("kept/ssh-scan.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let told = run("policy library add ssh-scan --mode approve --to kept").complains(1);
    assert!(told.contains("ssh-scan.yaml is there already and differs; nothing was written"), "{told}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    run("policy library add ssh-scan --mode approve --to other").gives(0);
    assert!(std::fs::read_to_string(here.path().join("other/ssh-scan.yaml")).unwrap().contains("\nmode: approve\n"));
}

#[tokio::test]
async fn a_policy_of_the_library_is_added_observes_and_is_left_alone() {
    let manager = Manager::start().await;
    let api = manager.api();
    let agent = FakeAgent::enroll(&manager, "web-02").await;
    api.make_policy("log-only", "10m").await;
    let here = folder(&[]);
    let run = |words: &str| policy(&manager, here.path(), &format!("library {words}"));
    let version = async |name: &str| api.get(&format!("/v1/policies/{name}")).await["version"].clone();

    assert!(run("add ssh-bruteforce").complains(2).contains("policy library add asks before it changes anything"));
    run("add ssh-bruteforce ssh-brut --yes").complains(2);
    let shown = run("add ssh-bruteforce ssh-bruteforce --dry-run").gives(0);
    for line in ["+ policy ssh-bruteforce: new", "    + mode: observe", "1 new"] {
        assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
    }
    assert!(!shown.contains("in no file"), "{shown}");
    let missing = "/v1/policies/ssh-bruteforce";
    assert_eq!(api.status(Method::GET, missing).await, StatusCode::NOT_FOUND);

    let added = run("add ssh-bruteforce --yes").gives(0);
    assert!(added.contains("policy ssh-bruteforce: created, version 1"), "{added}");
    let intake = api.post("/v1/alerts", &alert(1, "203.0.113.7", &agent.name)).await;
    let responses = intake["responses"].as_array().unwrap();
    let mut states = BTreeMap::new();
    for id in responses {
        let response = api.response(id.as_str().unwrap()).await;
        states.insert(response["policy"].as_str().unwrap().to_owned(), response["state"].clone());
    }
    assert_eq!(states["ssh-bruteforce"], "observed", "{states:?}");
    let inside = api.post("/v1/alerts", &alert(2, "10.20.1.15", &agent.name)).await;
    assert_eq!(inside["responses"].as_array().unwrap().len(), 1, "only the other policy answers: {inside}");

    // Once more changes nothing; a mode that was given is kept.
    let again = run("add ssh-bruteforce --yes").gives(0);
    assert_eq!(again, "  policy ssh-bruteforce: unchanged\n1 unchanged\n");
    assert_eq!(version("ssh-bruteforce").await, 1);
    let changed = run("add ssh-bruteforce --mode enforce --yes").gives(0);
    assert!(changed.contains("    - mode: observe\n    + mode: enforce\n"), "{changed}");
    assert_eq!(run("add ssh-bruteforce --yes").gives(0), again);
    assert_eq!(version("ssh-bruteforce").await, 2);

    // What the site has changed is left, and said; the others are added.
    let own = policy(&manager, here.path(), "show ssh-bruteforce").gives(0).replace("for: 10m", "for: 20m");
    std::fs::write(here.path().join("own.yaml"), own).unwrap();
    policy(&manager, here.path(), "apply -f own.yaml --yes").gives(0);
    let ran = run("add ssh-bruteforce ssh-scan --yes");
    assert!(ran.err.contains("ssh-bruteforce is on the manager and differs from the library; it was left"), "{ran:?}");
    assert!(ran.out.contains("    -   for: 20m\n    +   for: 10m\n"), "{ran:?}");
    assert!(ran.out.contains("policy ssh-scan: created, version 1"), "{ran:?}");
    ran.gives(1);
    run("add ssh-bruteforce --mode observe --yes").complains(1);
    assert_eq!(version("ssh-bruteforce").await, 3);
    let replaced = run("add ssh-bruteforce --overwrite --yes").gives(0);
    assert!(replaced.contains("~ policy ssh-bruteforce: changed since version 3"), "{replaced}");
    let stored = api.get("/v1/policies/ssh-bruteforce").await;
    assert_eq!((&stored["mode"], &stored["respond"]["for"]), (&json!("enforce"), &json!("10m")));

    // All of them are valid on a manager, and the second time nothing is new.
    run("add --all --yes").gives(0);
    assert!(run("add --all --yes").gives(0).ends_with("20 unchanged\n"));
    api.audit_is_intact().await;
}
