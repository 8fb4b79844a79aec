//! `riposte policy import` against a real manager: its result is shown, written to files, or
//! applied.

use crate::policy_cli::{SSH, folder, policy};
use crate::processes::Manager;

const GOOD: &str = "<ossec_config>
  <global>
    <white_list>192.0.2.1</white_list>
  </global>
  <command>
    <name>firewall-drop</name>
    <executable>firewall-drop</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>
  <active-response>
    <command>firewall-drop</command>
    <location>local</location>
    <rules_id>5763</rules_id>
    <timeout>600</timeout>
  </active-response>
</ossec_config>
";

#[tokio::test]
async fn an_ossec_conf_is_shown_written_down_or_applied() {
    let manager = Manager::start().await;
    let files = folder(&[("ossec.conf", GOOD)]);
    let run = |words: &str| policy(&manager, files.path(), words);

    let shown = run("import ossec.conf --dry-run").gives(0);
    assert!(shown.contains("action: firewall-drop") && shown.contains("2 new"), "{shown}");
    assert!(run("import ossec.conf").complains(2).contains("add --yes"));
    assert_eq!(run("list --json").gives(0), "");

    // The files hold exactly what would be applied, including protected entries and mode.
    run("import ossec.conf --out imported --mode observe").gives(0);
    assert_eq!(run("list --json").gives(0), "");
    let refused = run("import ossec.conf --out imported").complains(1);
    assert!(refused.contains("imported/policies/wazuh-firewall-drop-1.yaml is there already and differs"), "{refused}");
    let again = run("import ossec.conf --out imported --mode observe").gives(0);
    assert!(again.contains("0 files written, 2 files there already and unchanged"), "{again}");
    run("diff -f imported").gives(1);

    run("import ossec.conf --mode observe --yes").gives(0);
    let listed: serde_json::Value = serde_json::from_str(run("list --json").gives(0).trim()).unwrap();
    assert_eq!(listed["mode"], "observe");
    let entries = manager.api().get("/v1/protected").await;
    assert_eq!(entries["items"][0]["value"], "192.0.2.1");
    run("diff -f imported").gives(0);
    // A second run changes nothing; changes that people made since are shown and need confirmation.
    let again = run("import ossec.conf --mode observe --yes").gives(0);
    assert!(again.contains("2 unchanged"), "{again}");
    let shown = run("import ossec.conf --dry-run").gives(0);
    assert!(shown.lines().any(|line| line.trim() == "- mode: observe"), "{shown}");
}

#[tokio::test]
async fn what_is_imported_is_named_by_its_own_file_line_and_policy() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "10m").await;
    let own = "<ossec_config>
  <command>
    <name>scan</name>
    <executable>scan.sh</executable>
  </command>
  <active-response>
    <command>scan</command>
    <location>defined-agent</location>
    <agent_id>042</agent_id>
    <rules_id>5710</rules_id>
  </active-response>
  <global>
    <white_list>198.51.100.1</white_list>
  </global>
</ossec_config>
";
    let files = folder(&[("ossec.conf", GOOD), ("own.conf", own), ("ssh.yaml", SSH)]);
    let ran = policy(&manager, files.path(), "import ossec.conf own.conf --yes");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("policy wazuh-scan-1 /respond/on/labels: warning: "), "{}", ran.err);
    // What `apply` alone can do, the others do not offer.
    assert!(ran.out.contains("1 policy in no file, left as they are\n"), "{}", ran.out);
    let applied = policy(&manager, files.path(), "apply -f ssh.yaml --dry-run").gives(0);
    assert!(applied.contains("(--prune deletes them)"), "{applied}");
    let reasons: Vec<String> = api.get("/v1/protected").await["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(reasons.contains(&"white_list \"198.51.100.1\" of own.conf, line 13".to_owned()), "{reasons:?}");
    let carried = api.get("/v1/policies/wazuh-scan-1").await;
    assert!(
        carried["note"].as_str().unwrap().starts_with("From Wazuh's active response of own.conf, line 6:"),
        "{carried}"
    );
    let scan = api.get("/v1/actions/scan").await;
    assert_eq!(scan["summary"], "Wazuh's command \"scan\" of own.conf, line 2.");
}

#[tokio::test]
async fn a_broken_ossec_conf_is_named_with_its_line() {
    let manager = Manager::start().await;
    let broken = "<ossec_config>\n  <active-response>\n    <command>absent</command>\n    <location>local</location>\n  </active-response>\n</ossec_config>\n";
    let files = folder(&[("a.conf", GOOD), ("b.conf", broken), ("c.conf", "<ossec_config>\n  <command>\n")]);
    let run = |words: &str| policy(&manager, files.path(), words);
    // Wazuh reads several files as one; a line of the report is named by its own file.
    let told = run("import a.conf b.conf --dry-run").gives(1);
    assert!(told.lines().any(|line| line.starts_with("b.conf:") && line.contains(": error: ")), "{told}");
    let json: serde_json::Value = serde_json::from_str(&run("import b.conf --dry-run --json").gives(1)).unwrap();
    assert!(json["report"].as_array().unwrap().iter().any(|line| line["level"] == "error"), "{json}");
    let ran = run("import c.conf --dry-run");
    assert_eq!(ran.code, 1, "{ran:?}");
    run("import not-there.conf").complains(2);
}
