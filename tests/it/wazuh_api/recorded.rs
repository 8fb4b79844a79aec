//! Requests of two published clients, `pyzuh` 1.0.0 and `wazuh-api-client` 0.1.1b0, as they were recorded: sent
//! byte for byte, behind `/wazuh`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fleet;
use crate::support::{Database, TestApp};

/// What `pyzuh` sends for an active response.
const BODY: &str = r#"{"command": "!firewall-drop", "arguments": [], "alert": {"data": {"srcip": "203.0.113.7"}}}"#;

/// Sends a request and returns the status and the body.
async fn send(app: &TestApp, request: &str) -> (u16, Value) {
    let address = app.base.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.replace("HOST", address).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn login(password: &str) -> String {
    let credentials = STANDARD.encode(format!("shuffle:{password}"));
    format!(
        "POST /wazuh/security/user/authenticate HTTP/1.1\r\nHost: HOST\r\nUser-Agent: python-requests/2.32.3\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\nContent-Length: 0\r\n\
         Authorization: Basic {credentials}\r\n\r\n"
    )
}

fn get(token: &str, path: &str) -> String {
    format!(
        "GET /wazuh{path} HTTP/1.1\r\nHost: HOST\r\nUser-Agent: python-requests/2.32.3\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

fn put(token: &str, path: &str, body: &str) -> String {
    format!(
        "PUT /wazuh{path} HTTP/1.1\r\nHost: HOST\r\nUser-Agent: python-requests/2.32.3\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

on_both_databases! {
    async fn the_recorded_requests_of_published_clients_are_answered_as_wazuh_answers(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let [web, db, _] = fleet(&app, &admin).await;
        let key = app.client_with_role(&admin, "analyst").await;
        let (status, answer) = send(&app, &login(key.key())).await;
        assert_eq!((status, &answer["error"]), (200, &Value::from(0)), "{answer}");
        let token = answer["data"]["token"].as_str().unwrap();
        for (query, count) in [("&agents_list=005", 1), ("", 2)] {
            let path = format!("/active-response?pretty=false&wait_for_complete=false{query}");
            let (status, answer) = send(&app, &put(token, &path, BODY)).await;
            assert_eq!((status, &answer["data"]["total_affected_items"]), (200, &Value::from(count)), "{answer}");
            assert_eq!((&answer["error"], &answer["data"]["failed_items"]), (&Value::from(0), &Value::from(Vec::<Value>::new())));
        }
        for agent in [web, db] {
            assert_eq!(agent.owed_one().await.target.value(), "203.0.113.7");
        }
        let (status, answer) = send(&app, &get(token, "/agents?offset=0&limit=500&group_config_status=synced")).await;
        assert_eq!((status, &answer["data"]["total_affected_items"]), (200, &Value::from(3)), "{answer}");
        let (status, answer) = send(&app, &get(token, "/agents/summary/status")).await;
        assert_eq!((status, &answer["data"]["connection"]["total"]), (200, &Value::from(3)), "{answer}");
        let (status, answer) = send(&app, &get(token, "/manager/info")).await;
        assert!(status == 200 && answer["data"]["version"].as_str().unwrap().starts_with('4'), "{answer}");
        // What Riposte has no equivalent of is not found.
        for request in [get(token, "/agents/005/key"), put(token, "/agents/005/restart", "")] {
            let (status, answer) = send(&app, &request).await;
            assert_eq!((status, &answer["title"]), (404, &Value::from("Not Found")));
        }
    }
}
