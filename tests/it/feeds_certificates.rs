//! Consumers of feeds whose only credential is a client certificate.

use std::path::Path;

use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use reqwest::{Client, Identity, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::tls::{manager_client, start};
use crate::processes::{Api, Manager, alert};

/// An authority of clients' certificates.
struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(rcgen::Issuer::new(params, key), pem)
    }

    /// A certificate that is valid for this time from now, and the same with its key.
    fn issue(&self, name: &str, valid: Duration) -> (String, Identity) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
        params.extended_key_usages = vec![ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
        params.not_after = OffsetDateTime::now_utc() + valid;
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        let both = Identity::from_pem(format!("{certificate}{}", key.serialize_pem()).as_bytes()).unwrap();
        (certificate, both)
    }
}

async fn manager(dir: &Path, authority: &Authority) -> Manager {
    let file = dir.join("clients.pem");
    std::fs::write(&file, &authority.1).unwrap();
    start(dir, &["--tls-client-ca", file.to_str().unwrap(), "--tls-client-optional"]).await
}

fn client(manager: &Manager, identity: &Identity) -> Client {
    manager_client(manager).identity(identity.clone()).build().unwrap()
}

/// A key that a certificate stands for.
fn asked(feed: &str, certificate: &str) -> Value {
    let scope = json!({"rights": ["pull_feeds"], "feeds": [feed]});
    json!({"name": format!("firewall of {feed}"), "role": "viewer", "scope": scope, "certificate": certificate})
}

async fn make(api: &Api, asked: &Value) -> (StatusCode, Value) {
    let answer = api.request(Method::POST, "/v1/api-keys").json(asked).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn get(http: &Client, api: &Api, path: &str) -> (StatusCode, String) {
    let accept = "application/taxii+json;version=2.1, text/plain, application/json";
    let answer = http.get(format!("{}{path}", api.base)).header("accept", accept).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_alone_fetches_its_feed_and_nothing_else() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let manager = manager(dir.path(), &authority).await;
    let api = manager.api();
    for form in ["plain", "crowdsec", "taxii"] {
        api.post("/v1/feeds", &json!({"name": form, "form": form})).await;
        let (certificate, identity) = authority.issue("firewall", Duration::days(90));
        let firewall = client(&manager, &identity);
        let path = match form {
            "crowdsec" => "/crowdsec/v1/decisions".to_owned(),
            "taxii" => "/taxii2/riposte/collections/taxii/objects/".to_owned(),
            form => format!("/feeds/{form}"),
        };
        let (status, why) = get(&firewall, &api, &path).await;
        assert!(status.as_u16() == 401 || (form == "crowdsec" && status.as_u16() == 403), "{form}: {status} {why}");
        assert!(why.contains("belongs to no valid key of a feed"), "{why}");

        let (status, made) = make(&api, &asked(form, &certificate)).await;
        assert_eq!((status, made.get("key")), (StatusCode::CREATED, None), "{made}");
        let (status, list) = get(&firewall, &api, &path).await;
        assert_eq!(status, StatusCode::OK, "{form}: {list}");
        for other in ["/feeds/elsewhere", "/v1/alerts", "/v1/feeds"] {
            let (status, why) = get(&firewall, &api, other).await;
            assert!([401, 403].contains(&status.as_u16()), "{form}: {other} {status} {why}");
        }

        // Neither its certificate nor its id is a secret.
        let id = made["id"].as_str().unwrap();
        let keys = api.get("/v1/api-keys").await;
        let key = keys["items"].as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
        let fingerprint = key["certificate"].as_str().unwrap();
        for secret in [fingerprint, &format!("\u{ff}{fingerprint}")] {
            let request =
                api.http.get(format!("{}{path}", api.base)).basic_auth("x", Some(format!("rip_{id}_{secret}")));
            assert!([401, 403].contains(&request.send().await.unwrap().status().as_u16()));
        }
        assert!(get(&api.http, &api, &path).await.0.is_client_error(), "without a certificate");

        // The connection is still open when the key is revoked.
        assert_eq!(api.status(Method::DELETE, &format!("/v1/api-keys/{id}")).await, StatusCode::NO_CONTENT);
        let (status, why) = get(&firewall, &api, &path).await;
        assert!(status.is_client_error() && why.contains("belongs to no valid key"), "{why}");
        let (status, _) = make(&api, &asked(form, &certificate)).await;
        assert_eq!(status, StatusCode::CREATED, "the certificate is free again");
    }
    let feed = api.get("/v1/feeds/plain").await;
    assert_eq!(
        (&feed["consumers"][0]["name"], feed["consumers"][0]["last_at"].is_string()),
        (&json!("firewall of plain"), true)
    );

    // Agents and pipelines need no certificate here.
    let pipeline = api.post("/v1/api-keys", &json!({"name": "wazuh", "role": "ingest"})).await;
    let sender = api.with_key(pipeline["key"].as_str().unwrap());
    let sent =
        sender.request(Method::POST, "/v1/alerts").json(&alert(1, "203.0.113.7", "web-01")).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_would_be_refused_makes_no_key() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let manager = manager(dir.path(), &authority).await;
    let api = manager.api();
    api.post("/v1/feeds", &json!({"name": "edge"})).await;
    let (certificate, identity) = authority.issue("firewall", Duration::days(90));
    let (ended, _) = authority.issue("firewall", -Duration::days(1));
    let (foreign, _) = Authority::new().issue("firewall", Duration::days(90));
    let with = |more: &Value| {
        let mut asked = asked("edge", &certificate);
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked
    };
    for (asked, status, said) in [
        (asked("edge", "no certificate"), 422, "holds no certificate in PEM"),
        (asked("edge", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 422, "cannot be read"),
        (asked("edge", &ended), 422, "would be refused"),
        (asked("edge", &foreign), 422, "would be refused"),
        (with(&json!({"scope": null})), 422, "consumers of feeds alone"),
        (with(&json!({"scope": {"rights": ["read"]}})), 422, "consumers of feeds alone"),
    ] {
        let (found, why) = make(&api, &asked).await;
        assert_eq!(found.as_u16(), status, "{why}");
        assert_eq!(why["errors"][0]["pointer"], "/certificate", "{why}");
        assert!(why.to_string().contains(said), "{why}");
    }

    // It ends with the certificate, however long it was asked for.
    let (status, made) = make(&api, &with(&json!({"expires_in": "365d"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let pem = pem_end(&certificate);
    assert_eq!(made["expires_at"].as_str().map(|at| &at[..19]), Some(&pem[..19]));
    let (status, why) = make(&api, &asked("edge", &certificate)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{why}");
    assert!(why["detail"].as_str().unwrap().contains(made["id"].as_str().unwrap()), "{why}");

    // A bearer token counts more than a certificate.
    let firewall = client(&manager, &identity);
    let request = firewall.get(format!("{}/feeds/edge", api.base)).bearer_auth("rip_0123456789abcdef_x");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

/// The end of a certificate, as the API says times.
fn pem_end(certificate: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    let end = pem.parse_x509().unwrap().validity().not_after.timestamp();
    riposte_protocol::time::Timestamp::from_millis(end * 1000).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_asks_for_no_certificate_says_what_is_missing() {
    let (certificate, _) = Authority::new().issue("firewall", Duration::days(90));
    let plain = Manager::start().await;
    let (status, why) = make(&plain.api(), &asked("edge", &certificate)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{why}");
    assert!(why.to_string().contains("this manager speaks plain HTTP"), "{why}");
    let dir = TempDir::new().unwrap();
    let manager = start(dir.path(), &[]).await;
    let (status, why) = make(&manager.api(), &asked("edge", &certificate)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{why}");
    assert!(why.to_string().contains("needs tls_client_ca"), "{why}");
}
