//! `riposte policy import` against a real manager: its result is shown, written to files, or
//! applied.

use crate::policy_cli::{folder, policy};
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
    run("import ossec.conf --out imported").complains(1);
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
