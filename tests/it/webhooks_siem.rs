//! Webhooks to a SIEM: events by syslog and as OCSF, those of the audit log too. What is not known to be read is sent again.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::receiver::{Mood, Receiver};
use crate::support::siem::{Siem, SiemMood};
use crate::support::{Database, eventually};
use crate::webhooks::{create, start, state};

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Option<&'a Value> {
    events.iter().find(|event| event["metadata"]["event_code"] == kind)
}

on_both_databases! {
    async fn a_block_and_the_audit_log_reach_a_siem_as_ocsf_by_syslog(database: Database) {
        let (app, admin) = start(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("ssh")).await;
        let siem = Siem::start(SiemMood::Reads, None).await;
        create(&admin, "siem", &format!("syslog+tcp://{}", siem.address), &json!({"form": "ocsf", "types": ["*"]})).await;
        let mut alert = brute_force("1", "203.0.113.7");
        alert["rule"]["mitre"] = json!({"id": ["T1110.001", "no technique"]});
        admin.post("/v1/alerts", &alert).await.is(202);
        agent.obey().await;
        app.person(&admin, "alice", "viewer").await;
        let entry = json!({"kind": "user", "value": "älice", "reason": "für 😀"});
        admin.post("/v1/protected", &entry).await.is(201);
        app.in_time("the SIEM has them", || async {
            let events = siem.events();
            ["response.created", "effect.active", "audit.user_created", "protected.created"]
                .iter().all(|kind| of_kind(&events, kind).is_some()).then_some(())
        }).await;
        let events = siem.events();
        let active = of_kind(&events, "effect.active").unwrap();
        assert_eq!((&active["type_uid"], &active["status_id"]), (&json!(700_401), &json!(1)), "{active}");
        assert_eq!(active["attacks"], json!([{"sub_technique": {"uid": "T1110.001"}}]));
        assert_eq!(active["countermeasures"], json!([{"d3f_technique": {"uid": "D3-NTF"}}]));
        assert_eq!(active["device"]["name"], "web-01");
        assert_eq!(active["observables"][0]["value"], "203.0.113.7");
        let user = of_kind(&events, "audit.user_created").unwrap();
        assert_eq!((&user["type_uid"], &user["entity"]["uid"]), (&json!(300_401), &json!("alice")), "{user}");
        let entry = of_kind(&events, "protected.created").unwrap();
        assert!(entry["message"].as_str().unwrap().contains("für 😀"), "{entry}");
        // The header of RFC 5424, and nothing but ASCII behind it.
        for message in siem.messages() {
            let words: Vec<&str> = message.splitn(8, ' ').collect();
            assert!(["<109>1", "<108>1", "<107>1"].contains(&words[0]), "{message}");
            assert!(words[1].starts_with("2026-11-24T10:") && words[3] == "riposte" && words[6] == "-", "{message}");
            assert!(message.is_ascii(), "{message}");
        }
        // The same as the API says.
        let response = &admin.get("/v1/responses").await.is(200)["items"][0];
        assert_eq!((&response["mitre"], &response["d3fend"]), (&json!(["T1110.001"]), &json!(["D3-NTF"])));
        assert_eq!(admin.get("/v1/actions/firewall-drop").await.is(200)["d3fend"], json!(["D3-NTF"]));
    }

    async fn what_a_syslog_receiver_did_not_read_is_sent_again(database: Database) {
        let (app, admin) = start(database).await;
        let siem = Siem::start(SiemMood::HangsUp, None).await;
        let url = format!("syslog+tcp://{}", siem.address);
        create(&admin, "siem", &url, &json!({"types": ["protected.created"]})).await;
        crate::webhooks::make_events(&admin, "user", 3).await;
        app.in_time("it is failing", || async {
            Some(state(&admin, "siem").await).filter(|view| view["state"] == "failing")
        }).await;
        assert!(siem.hung_up() >= 3 && siem.messages().is_empty());
        siem.set(SiemMood::Reads);
        app.in_time("all are there", || async {
            app.advance(60);
            let mut ids: Vec<String> =
                siem.events().iter().map(|event| event["subject"].as_str().unwrap().to_owned()).collect();
            ids.sort();
            ids.dedup();
            (ids.len() == 3).then_some(())
        }).await;
        let trial = admin.post("/v1/webhooks/siem/test", &json!({})).await.is(200);
        assert_eq!(trial["is_taken"], true, "{trial}");
    }
}

#[tokio::test]
async fn ocsf_goes_by_https_too_and_keeps_to_the_fields_and_the_ceiling() {
    let (app, admin) = start(Database::sqlite()).await;
    let receiver = Receiver::start(Mood::Answers(200)).await;
    let settings = json!({"form": "ocsf", "types": ["response.*"], "fields": ["response_id", "action"]});
    create(&admin, "lake", &receiver.url("/"), &settings).await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    for (tlp, number) in [("green", "1"), ("red", "2")] {
        let mut policy = drop_policy(&format!("ssh-{tlp}"));
        policy["tlp"] = json!(tlp);
        policy["match"][0]["rule_ids"] = json!([number]);
        admin.policy(&policy).await;
        let mut alert = brute_force(number, "203.0.113.7");
        alert["rule"]["id"] = json!(number);
        admin.post("/v1/alerts", &alert).await.is(202);
    }
    app.in_time("both are there", || async { (receiver.taken().len() == 2).then_some(()) }).await;
    let mut taken = receiver.taken();
    taken.sort_by_key(|message| message.json()["metadata"]["uid"].as_str().unwrap().parse::<i64>().unwrap());
    assert_eq!(taken[0].header("content-type"), "application/json");
    let (shown, withheld) = (taken[0].json(), taken[1].json());
    assert_eq!(shown["command_uid"], shown["unmapped"]["response_id"], "{shown}");
    assert!(shown.get("policy").is_none() && shown.get("observables").is_none(), "{shown}");
    assert!(shown["unmapped"]["redacted"].as_array().unwrap().contains(&json!("target_value")), "{shown}");
    assert_eq!((&withheld["class_uid"], &withheld["time"]), (&json!(0), &json!(0)), "{withheld}");
    assert!(!taken[1].body.contains("203.0.113.7") && !taken[1].body.contains("ssh-red"), "{withheld}");
}

/// A certificate for `localhost`, of an authority that is returned too, as a TLS server has it.
fn acceptor() -> (TlsAcceptor, String) {
    let [certificate, key, authority] = crate::tls::issued("localhost", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority)
}

#[tokio::test]
async fn syslog_over_tls_goes_to_a_receiver_that_is_proven_and_to_no_other() {
    let (tls, authority) = acceptor();
    let (trusted, other) =
        (Siem::start(SiemMood::Reads, Some(tls)).await, Siem::start(SiemMood::Reads, Some(acceptor().0)).await);
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let trust = format!("SSL_CERT_FILE={}", file.display());
    let manager = crate::processes::Manager::start_by(&["env", &trust], &["--egress-allow", "127.0.0.0/8"]).await;
    let api = manager.api();
    for (name, siem) in [("trusted", &trusted), ("other", &other)] {
        let url = format!("syslog+tls://localhost:{}", siem.address.port());
        let asked = json!({"name": name, "url": url, "settings": {"types": ["protected.created"]}});
        api.post("/v1/webhooks", &asked).await;
    }
    api.post("/v1/protected", &json!({"kind": "user", "value": "root", "reason": "a test"})).await;
    eventually("the proven one has it", || async { (trusted.events().len() == 1).then_some(()) }).await;
    eventually("the other one was tried", || async { (other.hung_up() > 0).then_some(()) }).await;
    assert_eq!((trusted.events()[0]["type"].as_str(), other.messages().len()), (Some("riposte.protected.created"), 0));
    let trial = api.post("/v1/webhooks/other/test", &json!({})).await;
    assert!(trial["fault"].as_str().unwrap().contains("certificate"), "{trial}");
}

#[tokio::test]
async fn a_url_of_syslog_is_refused_that_no_event_can_go_to() {
    let (_app, admin) = start(Database::sqlite()).await;
    for (url, settings, words) in [
        ("syslog+tls://127.0.0.1/x", json!({}), "nothing but a host and a port"),
        ("syslog+tcp://192.0.2.7", json!({}), "loopback"),
        ("syslog+udp://127.0.0.1", json!({}), "must be syslog+tls"),
        ("syslog+tls://127.0.0.1", json!({"form": "slack"}), "takes the forms cloudevents and ocsf"),
        ("syslog+tls://169.254.169.254", json!({}), "169.254.169.254"),
    ] {
        let refused = admin.post("/v1/webhooks", &json!({"name": "siem", "url": url, "settings": settings})).await;
        assert_eq!(refused.points_at(), ["/url"], "{url}");
        assert!(refused.text.contains(words), "{url}: {}", refused.text);
    }
}
