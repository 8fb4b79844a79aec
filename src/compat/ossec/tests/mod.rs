//! Tests of the whole import: on our own files, on the corpus if present, and on arbitrary input.

mod corpus;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Imported, Load, import};
use crate::domain::action::{Action, Catalogue};
use crate::domain::formats::{self, AlertMappings};
use crate::domain::index::{PolicyIndex, VersionedPolicy};
use crate::domain::policy::Policy;
use crate::domain::protected::{Covered, ProtectedEntry, ProtectedSet};
use crate::views::import::{Level, Note};

fn one(text: &str) -> Imported {
    import(&[("ossec.conf".into(), text.as_bytes().to_vec())], None)
}

/// A configuration with one root around `inner`.
fn config(inner: &str) -> Imported {
    one(&format!("<ossec_config>\n{inner}\n</ossec_config>"))
}

/// Checks that every policy and action can be stored; returns the compiled policies.
fn stored(import: &Imported) -> PolicyIndex {
    let actions = import.answer.actions.iter().map(|action| Action::parse(action).unwrap()).collect();
    let catalogue = Catalogue::with(actions);
    let policy = |document| {
        let policy = Policy::parse(document, &catalogue).unwrap();
        assert!(policy.warnings().is_empty(), "{document}");
        Arc::new(VersionedPolicy { policy: Arc::new(policy), version: 1 })
    };
    PolicyIndex::compile(import.answer.policies.iter().map(policy).collect())
}

/// An alert of a rule, as text.
fn alert(rule: &Value) -> String {
    let rule = json!({"id": rule["rule_id"], "level": rule["level"], "groups": rule["groups"]});
    json!({"timestamp": "2026-11-20T10:11:12Z", "id": "1", "agent": {"id": "005"}, "rule": rule}).to_string()
}

/// The active responses whose imported policies match: indexes into what Wazuh would load.
fn fires(import: &Imported, index: &PolicyIndex, raw: &str) -> Vec<usize> {
    let alert = formats::parse(raw, &AlertMappings::default(), None).unwrap();
    let fired = index.matching(&alert, raw, &|| None).fired;
    let place = |name: &String| import.carried.iter().position(|carried| carried.as_ref() == Some(name)).unwrap();
    let mut places: Vec<usize> = fired.iter().map(|versioned| place(&versioned.policy.name)).collect();
    places.sort_unstable();
    places
}

fn protected(import: &Imported) -> ProtectedSet {
    let entry = |entry: &Value| {
        assert_eq!(entry["kind"], "ip");
        let covered = Covered::network(entry["value"].as_str().unwrap()).unwrap();
        let reason = entry["reason"].as_str().unwrap().to_owned();
        ProtectedEntry {
            id: uuid::Uuid::nil(),
            covered,
            policies: vec![],
            until: crate::domain::effect::Until::Never,
            reason,
        }
    };
    ProtectedSet::new(import.answer.protected.iter().map(entry).collect())
}

fn messages(import: &Imported, level: Level) -> Vec<(Option<u32>, &str)> {
    let of_level = import.answer.report.iter().filter(|note| note.level == level);
    of_level.map(|note| (note.line, note.message.as_str())).collect()
}

const SITE: &str = r"<!-- the manager of a small site -->
<ossec_config>
  <global>
    <white_list>198.51.100.7/24</white_list>
    <white_list>^2001:db8:1::/48$</white_list>
    <white_list>!192.0.2.1</white_list>
    <white_list>bastion</white_list>
  </global>
  <command>
    <name>firewall-drop</name>
    <executable>firewall-drop.sh</executable>
    <timeout_allowed>yes</timeout_allowed>
    <extra_args>output</extra_args>
  </command>
  <command>
    <name>Lock out</name>
    <executable>lock.py</executable>
    <expect>user</expect>
    <extra_args>-v  --deep</extra_args>
    <timeout_allowed>yes</timeout_allowed>
  </command>
  <command><name>tell</name><executable>tell</executable><timeout_allowed>no</timeout_allowed></command>
</ossec_config>
<ossec_config>
  <active-response>
    <command>firewall-drop</command>
    <location>local</location>
    <level>10</level>
    <rules_group>sshd,|web</rules_group>
    <rules_id>100, 200</rules_id>
    <timeout>90</timeout>
    <repeated_offenders>30,120</repeated_offenders>
  </active-response>
  <active-response>
    <command>Lock out</command>
    <location>defined-agent</location>
    <agent_id>7</agent_id>
    <level>12</level>
    <timeout>3600</timeout>
  </active-response>
  <active-response>
    <command>tell</command>
    <location>all</location>
    <rules_id>300</rules_id>
    <timeout>60</timeout>
  </active-response>
</ossec_config>
";

#[test]
fn a_sites_configuration_is_converted() {
    let import = one(SITE);
    stored(&import);
    let ladder = json!({"ladder": ["30m", "2h"], "forget_after": "30d"});
    let responses: Vec<&Value> = import.answer.policies.iter().map(|policy| &policy["respond"]).collect();
    let want = [
        json!({"action": "firewall-drop", "on": "origin", "for": "1m30s", "escalate": ladder, "arguments": ["output"]}),
        json!({"action": "lock-out", "on": {"labels": {"wazuh_id": "007"}}, "for": "1h", "escalate": ladder, "arguments": ["-v", "--deep"]}),
        json!({"action": "tell", "on": "all"}),
    ];
    assert_eq!(responses, want.iter().collect::<Vec<_>>());
    let names: Vec<&str> = import.answer.policies.iter().map(|policy| policy["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["wazuh-firewall-drop-1", "wazuh-lock-out-1", "wazuh-tell-1"]);
    assert_eq!(
        import.answer.policies[0]["match"],
        json!([{"rule_ids": ["100", "200"]}, {"min_level": 10, "wazuh_rules_group": "sshd,|web"}])
    );
    let note = import.answer.policies[0]["note"].as_str().unwrap();
    assert!(note.contains("ossec.conf, line 25") && note.contains("rules_group sshd,|web"), "{note}");
    let actions: Vec<Value> = import
        .answer
        .actions
        .iter()
        .map(|action| json!([action["name"], action["executable"], action["undoable"], action["default_target"]]))
        .collect();
    assert_eq!(
        actions,
        [json!(["lock-out", "lock.py", true, "destination.user"]), json!(["tell", "tell", false, null])]
    );
    let values: Vec<&Value> = import.answer.protected.iter().map(|entry| &entry["value"]).collect();
    assert_eq!(values, ["198.51.100.0/24", "2001:db8:1::/48"]);
    let said: Vec<String> = import
        .answer
        .report
        .iter()
        .map(|note| format!("{:?} {}: {}", note.level, note.line.unwrap(), note.message))
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    Info 4: white_list "198.51.100.7/24" has bits behind its mask; Wazuh takes 198.51.100.0/24 of it, and so it is here
    Info 4: an address on Wazuh's white_list stops every command of an alert that has it as data.srcip, and nothing else; a protected entry stops every response aimed at the address, wherever in the alert it stands and also by hand, but not a response to the same alert that is aimed at something else
    Info 5: white_list "^2001:db8:1::/48$" is a text to Wazuh; here it is the network or address 2001:db8:1::/48, in every notation
    Warning 6: white_list "!192.0.2.1" is a negation, which protected entries do not support: ignored
    Warning 7: white_list "bastion" is a text that Wazuh searches in the source: ignored. Protected entries are addresses and networks; if it means some, protect those
    Info 9: command "firewall-drop" runs firewall-drop.sh, a program of Wazuh's own: it becomes Riposte's action firewall-drop
    Warning 15: command "Lock out" is called lock-out here: its own name is taken, or no action can have it
    Warning 15: command "Lock out" becomes the custom action lock-out, which runs lock.py from the agents' folder for programs. It is undone after a time, so it needs a target: destination.user of the alert. An alert without one is answered by Wazuh and not here; if the program looks at another field, say so in the policy's respond.target
    Info 22: command "tell" becomes the custom action tell, which runs tell from the agents' folder for programs; it is run once, has no target, and is never undone
    Info 25: Wazuh answers alerts of any age; here one that is older than max_age when it comes in (an hour, unless the configuration or the policy says otherwise; none lifts the limit) is spared as stale
    Warning 32: repeated_offenders is read by each host from its own ossec.conf in Wazuh, and never forgotten before a restart. Here it becomes the ladder of every policy with a timeout (30m, 2h), for everybody that is responded to within 30d again
    Info 34: the agent is found by its label wazuh_id: 007; with several Wazuh managers, name the one that this file is of
    Info 41: Wazuh says (1305): Timeout not allowed for command: 'tell'.
    Warning 41: location all leaves out the manager's own host in Wazuh; here it is every enrolled agent, that host's included if it has one
    Warning 41: the response has no target, so no protected entry stops it; in Wazuh the white_list does, if the alert has a data.srcip that is on it. The same goes for every response without a target
    "#);
}

#[test]
fn an_unconvertible_block_is_an_error_of_that_block_only() {
    let import = config(
        "<command><name>a</name><executable>a</executable></command>
        <command><name>b</name><executable>../b</executable></command>
        <active-response><command>a</command><location>local</location><rules_group>(web|ssh)d</rules_group></active-response>
        <active-response><command>b</command><location>local</location><level>3</level></active-response>
        <active-response><command>a</command><location>local</location><level>17</level></active-response>
        <active-response><command>a</command><location>local</location><level>18</level><rules_id>7</rules_id></active-response>",
    );
    assert_eq!(import.wazuh.load, Load::Ok);
    assert_eq!(import.carried, [None, None, None, Some("wazuh-a-1".into())]);
    let lines: Vec<Option<u32>> = messages(&import, Level::Error).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [Some(3), Some(4), Some(5)]);
    assert_eq!(import.answer.policies[0]["match"], json!([{"rule_ids": ["7"]}]));
    stored(&import);
}

#[test]
fn every_fault_of_a_file_is_reported_and_wazuhs_first_is_known() {
    let import = config(
        "<active-response><command>x</command><location>local</location></active-response>
        <command><name>y</name><executable>y</executable><timeout>5</timeout></command>
        <active-response><command>y</command><location>local</location></active-response>
        <global><white_list>1.2.3.400</white_list></global>
        <commands/>",
    );
    let said = messages(&import, Level::Error);
    // A block that uses a refused command is not reported.
    let lines: Vec<u32> = said.iter().filter_map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 5, 6], "{said:?}");
    assert_eq!((import.wazuh.errors.len(), import.wazuh.errors[0].code), (1, Some(1237)));
    assert!(
        import.answer.policies.is_empty() && import.answer.actions.is_empty() && import.answer.protected.is_empty()
    );
}

#[test]
fn an_xml_error_has_line_and_column() {
    for (text, line, column, message) in [
        ("<ossec_config>\n  <global>\n  <a>ü</b></global>", 3, 7, "XMLERR: Element 'a' not closed."),
        (
            "<ossec_config>\n<!-- a\n b --> <command><name>x</nam></command>",
            3,
            24,
            "XMLERR: Element 'name' not closed.",
        ),
        ("<ossec_config>\n <!-- ", 2, 2, "XMLERR: Comment not closed."),
        ("<ossec_config>\n</ossec_config>\n</ossec_config>", 3, 1, "XMLERR: Element not opened."),
        ("<ossec_config>\n  <glob", 2, 3, "XMLERR: End of file and some elements were not closed."),
        ("<ossec_config>\n  <global a>", 2, 3, "XMLERR: Attribute 'a' has no value."),
        ("<ossec_config a='1' a='2'>", 1, 1, "XMLERR: Attribute 'a' already defined."),
        ("<ossec_config a=1>", 1, 1, "XMLERR: Attribute 'a' not followed by a \" or '."),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>\n<ossec_config/>", 1, 1, "XMLERR: Comment not closed."),
    ] {
        let import = one(text);
        let note = &import.answer.report[0];
        assert_eq!((note.line, note.column), (Some(line), Some(column)), "{text}: {}", note.message);
        assert!(note.message.contains(message), "{text}: {}", note.message);
        assert_eq!(import.wazuh.errors[0].text, message);
    }
}

#[test]
fn the_quirks_of_wazuhs_parser_are_reproduced() {
    // Comments may end at `!>`, a backslash makes `<` an ordinary character, and entities are text.
    let import = config(
        "<! a comment !><!-- <command> -->
        <localfile><query>\\<QueryList>\\</QueryList></query></localfile>
        <command><name>a&amp;b & c</name><executable>x<!-- y -->z</executable></command>",
    );
    assert_eq!(import.wazuh.errors, []);
    assert!(messages(&import, Level::Warning)[0].1.contains("does not resolve entities"));
    let command = &import.wazuh.commands[0];
    assert_eq!((command.name.as_str(), command.executable.as_str()), ("a&amp;b & c", "xz"));
    assert_eq!(import.answer.actions[0]["name"], "a-amp-b---c");
    assert_eq!(one("\u{feff}\r\n<ossec_config >\r\n</ossec_config>\r\n").answer.report, []);
}

#[test]
fn several_files_are_joined_and_reported_by_file() {
    let file =
        |name: &str, inner: &str| (name.to_owned(), format!("<ossec_config>{inner}</ossec_config>").into_bytes());
    let commands = file("commands.conf", "<command><name>a</name><executable>a</executable></command>");
    let uses = "<active-response><command>a</command><location>local</location><level>3</level></active-response>";
    let import = super::import(&[commands.clone(), file("responses.conf", uses)], None);
    assert_eq!(import.answer.policies.len(), 1);
    let import = super::import(&[file("responses.conf", uses), commands], None);
    assert_eq!(import.wazuh.errors[0].code, Some(1303));
    assert_eq!(import.answer.report[0].file.as_deref(), Some("responses.conf"));
}

#[test]
fn a_configuration_over_the_limits_is_refused() {
    let deep = "<a>".repeat(100);
    let many = "<wodle/>".repeat(20_000);
    let long = format!("<global><white_list>{}</white_list></global>", "a".repeat(30_000));
    for (inner, message) in [(deep, "64 levels"), (many, "10000 sections"), (long, "String overflow")] {
        let import = config(&inner);
        assert_eq!(import.wazuh.load, Load::Error);
        assert!(import.answer.report[0].message.contains(message), "{:?}", import.answer.report);
    }
    let import = one(&" ".repeat(super::load::MAX_BYTES + 1));
    assert_eq!(import.answer.report[0].line, None);
    assert_eq!(one(&" ".repeat(super::load::MAX_BYTES)).answer.report, []);
}

/// Thousands of comments, tags and commands must not cost quadratic time.
#[test]
fn a_large_file_is_parsed_in_linear_time() {
    let commands = "<command><name>x</name><executable>x</executable></command>".repeat(4000);
    let blocks = "<active-response><command>x</command><location>local</location><level>3</level></active-response>"
        .repeat(4000);
    let import = config(&format!("{commands}{blocks}{}", "<!-- - -->".repeat(100_000)));
    assert_eq!((import.answer.policies.len(), import.answer.actions.len()), (4000, 1));
    let attributes = format!("<ossec_config {}>", "a='1' ".repeat(500_000));
    assert_eq!(one(&attributes).wazuh.load, Load::Error);
}

/// Checks that every converted document can be stored, and everything else is reported.
fn holds(import: &Imported) {
    stored(import);
    for (block, carried) in import.wazuh.policies.iter().zip(&import.carried) {
        let is_told = |note: &Note| note.line == Some(block.place.line) && note.level != Level::Info;
        assert!(carried.is_some() || import.answer.report.iter().any(is_told), "{block:?}");
    }
    protected(import);
    if import.wazuh.load == Load::Error {
        assert!(
            import.answer.policies.is_empty() && import.answer.actions.is_empty() && import.answer.protected.is_empty()
        );
        assert!(!import.wazuh.errors.is_empty() && !messages(import, Level::Error).is_empty());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    /// Compares with Wazuh's documented rule: level and group must match together, an id matches
    /// alone.
    #[test]
    fn an_imported_policy_fires_when_wazuhs_response_would(
        blocks in proptest::collection::vec((0u8..18, 0usize..4, 0u8..4), 1..6), id in 0u8..4, level in 0u8..17, group in 1usize..4,
    ) {
        const GROUPS: [&str; 4] = ["", "web", "ssh", "ssh|mail,"];
        let text: String = blocks.iter().map(|(level, group, id)| {
            let group = if *group > 0 { format!("<rules_group>{}</rules_group>", GROUPS[*group]) } else { String::new() };
            let ids = if *id > 0 { format!("<rules_id>{id}</rules_id>") } else { String::new() };
            format!("<active-response><command>c</command><location>local</location><level>{level}</level>{group}{ids}</active-response>")
        }).collect();
        let import = config(&format!("<command><name>c</name><executable>c</executable></command>{text}"));
        let word = ["", "web", "sshd", "mail"][group];
        let raw = alert(&json!({"rule_id": id.to_string(), "level": level, "groups": ["a", word]}));
        let expected: Vec<usize> = blocks.iter().enumerate().filter(|(_, (least, groups, wanted))| {
            let by_level = level >= *least;
            let by_group = match groups { 1 => word == "web", 2 => word == "sshd", 3 => word != "web", _ => false };
            let general = match (*least > 0, *groups > 0) {
                (true, true) => by_level && by_group,
                (true, false) => by_level,
                (false, _) => by_group,
            };
            level > 0 && (general || (*wanted > 0 && *wanted == id))
        }).map(|(nth, _)| nth).collect();
        proptest::prop_assert_eq!(fires(&import, &stored(&import), &raw), expected);
    }

    #[test]
    fn no_bytes_make_the_import_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        holds(&one(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn no_xml_makes_the_import_panic(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "<ossec_config>", "</ossec_config>", "<global>", "</global>", "<command>", "</command>", "<name>x</name>",
        "<executable>x.sh</executable>", "<white_list>", "</white_list>", "::1/7", "10.0.0.1", "!", "|", "<!--", "-->", "<!", "!>", "\\",
        "<", ">", "&", "&amp;", "&#0;", "<?xml ?>", "<![CDATA[", "]]>", "ü", "\0", "\u{1}", "a='b'", "<a b", "'", "\"", "/>", "\n", " ",
    ]), 0..40)) {
        holds(&one(&pieces.concat()));
    }

    #[test]
    fn every_block_is_converted_or_reported(
        name in "[ -~üß\\x00-\\x1f]{0,80}", executable in "[a-zA-Z./ -]{1,20}", arguments in "[ -;a-z]{0,400}", level in 0u8..24,
        location in proptest::sample::select(vec!["local", "server", "all", "defined-agent", "local,all", "AS", "x", ""]),
        group in "[a-z,|^$\\\\()]{0,12}", ids in "[0-9, x]{0,12}", timeout in "-?[0-9]{0,12}", offenders in "[0-9, -]{0,30}", agent in "[0-9 ,-]{0,6}",
        white in "[0-9a-f.:/|^$! ]{0,24}",
    ) {
        let clean = |text: &str| text.replace(['<', '\\'], "");
        let name = clean(&name);
        let group = group.replace('<', "");
        holds(&config(&format!("<global><white_list>{white}</white_list></global>
            <command><name>{name}</name><executable>{executable}</executable><extra_args>{arguments}</extra_args><timeout_allowed>yes</timeout_allowed></command>
            <active-response><command>{name}</command><location>{location}</location><agent_id>{agent}</agent_id><level>{level}</level>
            <rules_group>{group} </rules_group><rules_id>{ids}</rules_id><timeout>{timeout}</timeout>
            <repeated_offenders>{offenders}</repeated_offenders></active-response>",
            arguments = clean(&arguments))));
    }
}

#[test]
fn text_between_elements_is_reported_and_hides_nothing() {
    let text = "<ossec_config>\n# <command>\n#   <name>c</name>\n#   <executable>x.sh</executable>\n# </command>\n<!-- no # text -->\n\
                # <active-response>\n#   <command>c</command><location>local</location><level>3</level>\n# </active-response>\n\
                </ossec_config>\n# end\n";
    let import = one(text);
    assert_eq!(import.answer.policies.len(), 1, "it is live for Wazuh, and so it is here");
    let stray: Vec<u32> = import
        .answer
        .report
        .iter()
        .filter(|note| note.message.contains("only <!--"))
        .filter_map(|note| note.line)
        .collect();
    assert_eq!(stray, [2, 3, 7, 8, 11], "one for each section and each gap between two");
}

#[test]
fn undecodable_bytes_matter_only_in_values() {
    let import = |text: &str| {
        // Latin-1: one byte per character.
        let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        super::import(&[("ossec.conf".into(), bytes)], None)
    };
    let block = |name: &str, group: &str| {
        format!(
            "<command><name>{name}</name><executable>x.sh</executable></command>\n<active-response><command>{name}</command>\
             <location>local</location><rules_group>{group}</rules_group></active-response>\n"
        )
    };
    let read = import(&format!("<ossec_config>\n<!-- r\u{e8}gle -->\n{}</ossec_config>", block("c", "sshd")));
    assert_eq!((read.answer.policies.len(), read.answer.actions.len()), (1, 1));
    let warnings: Vec<_> = read.answer.report.iter().filter(|note| note.message.contains("not UTF-8")).collect();
    assert_eq!((warnings.len(), warnings[0].level, warnings[0].line), (1, Level::Warning, Some(2)));

    let read = import(&format!("<ossec_config>\n{}{}</ossec_config>", block("c", "sshd"), block("caf\u{e9}", "a")));
    assert_eq!((read.answer.policies.len(), read.answer.actions.len()), (1, 1), "the others are converted");
    let errors: Vec<_> = read.answer.report.iter().filter(|note| note.level == Level::Error).collect();
    assert!(errors[0].line == Some(4) && errors[0].message.contains("the value of name contains bytes"), "{errors:?}");
    let read = import(&format!("<ossec_config>\n{}</ossec_config>", block("c", "caf\u{e9}")));
    assert_eq!(read.answer.policies.len(), 0);
    assert!(read.answer.report.iter().any(|note| note.level == Level::Error && note.message.contains("rules_group")));
    // A UTF-8 file may contain the replacement character itself.
    assert_eq!(one(&format!("<ossec_config>{}</ossec_config>", block("c", "caf\u{fffd}"))).answer.policies.len(), 1);
}
