//! Compares the import with Wazuh on the corpus beside the repository, if present: files, and what
//! Wazuh makes of each.

use std::path::{Path, PathBuf};

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde_json::Value;

use super::{Imported, alert, fires, import, messages, protected, stored};
use crate::views::import::Level;

/// A folder or file of the corpus; prints a message if it is missing.
fn present(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("RIPOSTE_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("corpus not present: {name}; only the files of these tests were checked");
    None
}

/// The configurations in a folder of the corpus.
fn configurations(folder: &str) -> Vec<PathBuf> {
    let Some(folder) = present(folder) else { return Vec::new() };
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    assert!(paths.len() >= 10, "{} has only {} files", folder.display(), paths.len());
    paths
}

/// Compares one file with what Wazuh would load.
fn check(path: &Path) -> (Imported, Value) {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let import = import(&[(name.clone(), std::fs::read(path).unwrap())], None);
    let expected = std::fs::read_to_string(path.with_extension("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let mut same = expected.clone();
    for remark in ["file", "examples", "note"] {
        same.as_object_mut().unwrap().remove(remark);
    }
    for policy in same["policies"].as_array_mut().unwrap() {
        policy.as_object_mut().unwrap().remove("note");
    }
    assert_eq!(serde_json::to_value(&import.wazuh).unwrap(), same, "{name}");
    (import, expected)
}

#[test]
fn the_corpus_loads_as_in_wazuh() {
    for path in configurations("ossec-conf") {
        let (import, expected) = check(&path);
        let index = stored(&import);
        let protected = protected(&import);
        assert_eq!(import.carried.len(), import.wazuh.policies.len());
        for example in expected["examples"].as_array().unwrap() {
            if let Some(fired) = example.get("fires") {
                let fired: Vec<usize> = serde_json::from_value(fired.clone()).unwrap();
                assert_eq!(fires(&import, &index, &alert(&example["alert"])), fired, "{}: {example}", path.display());
            } else if let Some(address) = example["srcip"].as_str() {
                let target = Target::parse(TargetKind::Ip, address).unwrap();
                let stopped = protected.target(&target, None, Timestamp::from_millis(0)).is_some();
                // Wazuh splits text here: some pieces are addresses, others only look like the
                // start of one and are not converted.
                let differs = ["2001:db8::533", "198.51.100.9"].contains(&address);
                assert_eq!(stopped != differs, example["blocked"] == false, "{}: {address}", path.display());
            }
        }
        let carried_over = import.carried.iter().flatten().count();
        assert_eq!(carried_over, import.answer.policies.len());
    }
}

#[test]
fn a_refused_file_yields_wazuhs_error_only() {
    for path in configurations("ossec-conf/invalid") {
        let (import, expected) = check(&path);
        assert_eq!(
            (import.answer.policies.len(), import.answer.actions.len(), import.answer.protected.len()),
            (0, 0, 0)
        );
        let error = &expected["errors"][0];
        let said = messages(&import, Level::Error);
        let wanted = format!("({}): {}", error["code"], error["text"].as_str().unwrap());
        assert!(said.iter().any(|(line, message)| line.is_some() && message.contains(&wanted)), "{said:?}");
    }
}

/// The sample's policies as an `ossec.conf` match the same alerts as Wazuh.
#[test]
fn the_sample_matches_what_wazuh_would() {
    let (Some(policies), Some(alerts)) = (present("policies-sample.json"), present("alerts-sample.ndjson")) else {
        return;
    };
    let policies: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(policies).unwrap()).unwrap();
    let words = |value: &Value| {
        let list = value.as_array().unwrap().iter();
        list.map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>()
    };
    // Wazuh cannot select by the alert's agent; one policy of the sample does.
    let policies: Vec<&Value> = policies.iter().filter(|policy| words(&policy["agents"]).is_empty()).collect();
    let blocks = policies.iter().map(|policy| {
        let group = words(&policy["rule_groups"]).join("|");
        let group = if group.is_empty() { group } else { format!("<rules_group>{group}</rules_group>") };
        let (level, ids) = (&policy["min_level"], words(&policy["rule_ids"]).join(","));
        format!(
            "<active-response><command>c</command><location>local</location><level>{level}</level>{group}\
             <rules_id>{ids}</rules_id></active-response>"
        )
    });
    let command = "<command><name>c</name><executable>c</executable></command>";
    let text = format!("<ossec_config>{command}{}</ossec_config>", blocks.collect::<String>());
    let import = import(&[("sample.conf".into(), text.into())], None);
    let index = stored(&import);
    let mut counts = vec![0; policies.len()];
    for line in std::fs::read_to_string(alerts).unwrap().lines() {
        for place in fires(&import, &index, line) {
            counts[place] += 1;
        }
    }
    let expected = std::fs::read_to_string(present("policies-sample.expected.json").unwrap()).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let names = policies.iter().map(|policy| policy["id"].as_str().unwrap());
    for (name, count) in names.zip(counts) {
        assert_eq!(expected["wazuh_group_semantics"][name], count, "{name}");
    }
}
