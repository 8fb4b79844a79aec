//! A Wazuh manager's `ossec.conf`, imported over HTTP, and what its policies then do. On both
//! databases. The semantics are tested beside the code (`src/compat/ossec/tests`).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::alert::brute_force;
use crate::support::{Answer, Client, Database, TestApp};

const CONF: &str = "<ossec_config>
  <global>
    <white_list>203.0.113.9</white_list>
    <white_list>2001:db8:9::/48</white_list>
  </global>
  <command><name>firewall-drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>
  <command><name>Scan It</name><executable>scan.sh</executable><extra_args>-deep now</extra_args></command>
  <active-response>
    <command>firewall-drop</command><location>local</location><rules_id>5763</rules_id><timeout>180</timeout>
    <repeated_offenders>30,60</repeated_offenders>
  </active-response>
  <active-response>
    <command>Scan It</command><location>server</location><level>10</level><rules_group>sshd,|web,</rules_group>
  </active-response>
</ossec_config>
";

async fn import(admin: &Client, query: &str, xml: &str) -> Answer {
    let request = admin.request(Method::POST, &format!("/v1/policies/import{query}"));
    Answer::to(request.header("content-type", "application/xml").body(xml.to_owned())).await
}

on_both_databases! {
    async fn an_agent_named_by_number_is_that_of_the_wazuh_manager_that_the_file_is_of(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let label = |manager: &str| json!({"wazuh_id": "005", "wazuh_manager": manager});
        let east = app.enrol(&admin, "web-east", &label("east")).await;
        let west = app.enrol(&admin, "web-west", &label("west")).await;
        let conf = "<ossec_config><command><name>block</name><executable>firewall-drop</executable></command><active-response>
            <command>block</command><location>defined-agent</location><agent_id>005</agent_id><rules_id>5763</rules_id>
            </active-response></ossec_config>";
        for (wrong, status) in [("?wazuh_manager=", 400), ("?wazuh_manager=%20", 400), ("?wazuh_manager=a%00b", 422)] {
            let problem = import(&admin, wrong, conf).await.is_problem(status);
            assert!(problem["detail"].as_str().unwrap().contains("wazuh_manager"), "{problem}");
        }
        import(&admin, "?wazuh_manager=west", conf).await.is(201);
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        assert_eq!(west.owed_one().await.target.value(), "203.0.113.7");
        assert!(east.owed().await.is_empty());
    }

    async fn an_imported_configuration_does_what_wazuh_would_have_done(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let web = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let server = app.enrol(&admin, "manager", &json!({"wazuh_id": "000"})).await;
        let shown = import(&admin, "?dry_run=true", CONF).await.is(200);
        assert!(admin.list("/v1/policies").await.is_empty(), "a dry run changes nothing");
        assert_eq!(import(&admin, "", CONF).await.is(201), shown);
        let names: Vec<Value> = admin.list("/v1/policies").await.iter().map(|policy| policy["name"].clone()).collect();
        assert_eq!((names.len(), shown["actions"].as_array().unwrap().len()), (2, 1), "{shown}");
        admin.post("/v1/alerts", &brute_force("1", "203.0.113.7")).await.is(202);
        let drop = web.owed_one().await;
        assert_eq!((drop.action.as_str(), drop.target.value()), ("firewall-drop", "203.0.113.7"));
        let scan = server.owed_one().await;
        assert_eq!(scan.script.as_ref().unwrap().executable, "scan.sh");
        assert_eq!((scan.arguments.as_slice(), scan.alert.is_some()), (["-deep".to_owned(), "now".to_owned()].as_slice(), true));
        for protected in ["203.0.113.9", "2001:db8:9::7"] {
            let answer = admin.post("/v1/alerts", &brute_force(protected, protected)).await.is(202);
            let mut reasons = Vec::new();
            for id in answer["responses"].as_array().unwrap() {
                reasons.push(admin.get(&format!("/v1/responses/{}", id.as_str().unwrap())).await.is(200)["reason"].clone());
            }
            assert!(reasons.contains(&json!("protected")), "{protected}: {reasons:?}");
        }
        let problem = import(&admin, "", CONF).await.is_problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("nothing was imported"));
        assert_eq!(admin.list("/v1/protected").await.len(), 2, "all of it or nothing");
    }

    async fn a_configuration_that_wazuh_would_refuse_is_refused_with_its_place(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let broken = CONF.replace("</global>", "</globe>");
        let shown = import(&admin, "?dry_run=true", &broken).await.is(200);
        assert_eq!((&shown["policies"], &shown["report"][0]["level"]), (&json!([]), &json!("error")), "{shown}");
        assert_eq!(shown["report"][0]["line"], 5, "{shown}");
        let problem = import(&admin, "", &broken).await.is_problem(422);
        assert!(problem["errors"][0]["detail"].as_str().unwrap().starts_with("line 5, column "), "{problem}");
        let unknown = CONF.replace("<command>firewall-drop</command>", "<command>firewall-dorp</command>");
        import(&admin, "", &unknown).await.is_problem(422);
        assert!(admin.list("/v1/policies").await.is_empty());
        let json = admin.post("/v1/policies/import", &json!({})).await;
        json.is_problem(415);
        import(&admin, "", " \n").await.is_problem(400);
        import(&admin, "?dryrun=true", CONF).await.is_problem(400);
    }
}

on_both_databases! {
    async fn field_19_a_comment_in_another_encoding_costs_nothing(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let mut conf = b"<!-- r\xe8gle du site -->\n".to_vec();
        conf.extend_from_slice(
            b"<ossec_config><command><name>c</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed>\
              </command><active-response><command>c</command><location>local</location><rules_id>5763</rules_id>\
              <timeout>60</timeout></active-response>\n# <active-response><command>c</command><location>all</location>\
              <level>16</level></active-response>\n</ossec_config>",
        );
        let request = admin.request(Method::POST, "/v1/policies/import").header("content-type", "application/xml");
        let imported = Answer::to(request.body(conf)).await.is(201);
        let names: Vec<&str> = imported["policies"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["wazuh-c-1", "wazuh-c-2"], "the text after a # is live");
        assert_eq!(admin.list("/v1/policies").await.len(), 2);
        let warning = |words: &str, line: u64| {
            let notes = imported["report"].as_array().unwrap();
            let is_it = |note: &&Value| note["message"].as_str().unwrap().contains(words) && note["line"] == line;
            let found = notes.iter().find(is_it).unwrap_or_else(|| panic!("{words}: {notes:?}"));
            assert_eq!(found["level"], "warning");
        };
        warning("not UTF-8", 1);
        warning("text between elements", 3);
    }

    async fn field_14_the_import_of_netsh_says_what_sysmon_needs(database: Database) {
        let (_app, admin) = TestApp::start_on(database).await;
        let conf = "<ossec_config><command><name>n</name><executable>netsh.exe</executable><timeout_allowed>yes</timeout_allowed>\
                    </command><active-response><command>n</command><location>local</location><rules_id>61605</rules_id>\
                    <timeout>60</timeout></active-response></ossec_config>";
        let imported = import(&admin, "", conf).await.is(201);
        let notes = imported["report"].as_array().unwrap();
        let note = notes.iter().find(|note| note["message"].as_str().unwrap().contains("destinationIp")).unwrap();
        assert!(note["level"] == "warning" && note["message"].as_str().unwrap().contains("event 3 of Sysmon"), "{note}");
    }
}
