//! What is called, and what is not, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, Url};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::client::{ClientSettings, EgressClient};
use super::error::words;
use super::resolver;
use super::rules::Egress;
use crate::domain::egress::allow_list::{AllowList, Destination};

/// A server that answers every request with `answer`.
async fn server(answer: String) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mut serving) = (listener.local_addr().unwrap(), JoinSet::new());
    serving.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (address, serving)
}

fn ok() -> String {
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into()
}

fn client(entries: &[String], listed: Option<&str>) -> EgressClient {
    let settings = ClientSettings {
        authorities: Vec::new(),
        is_plain: true,
        listed: listed.map(|url| Url::parse(url).unwrap()),
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
    };
    Egress::new(AllowList::parse(entries).unwrap()).client(settings).unwrap()
}

async fn get(client: &EgressClient, url: &str) -> Result<u16, String> {
    let request = client.request(Method::GET, &Url::parse(url).unwrap()).map_err(|error| words(&error))?;
    request.send().await.map(|response| response.status().as_u16()).map_err(|error| words(&error))
}

#[tokio::test]
async fn an_internal_host_is_called_only_if_it_is_listed_with_this_port() {
    let (address, _serving) = server(ok()).await;
    let port = address.port();
    for url in [
        format!("http://{address}/"),
        format!("http://localhost:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
    ] {
        let refused = get(&client(&[], None), &url).await.unwrap_err();
        assert!(refused.starts_with("refusing to call") && refused.contains("[egress]"), "{url}: {refused}");
    }
    for (entry, host) in [
        ("localhost".to_owned(), "localhost"),
        (format!("localhost:{port}"), "localhost"),
        ("127.0.0.0/8".to_owned(), "localhost"),
        (address.to_string(), "127.0.0.1"),
    ] {
        let url = format!("http://{host}:{port}/");
        assert_eq!(get(&client(std::slice::from_ref(&entry), None), &url).await, Ok(200), "{entry}");
    }
    let other = get(&client(&["localhost:9".to_owned()], None), &format!("http://localhost:{port}/")).await;
    assert!(other.unwrap_err().contains(&format!("add \"localhost:{port}\"")));
    // What an administrator has written elsewhere counts with its port.
    let listed = client(&[], Some(&format!("http://{address}/issuer")));
    assert_eq!(get(&listed, &format!("http://{address}/keys")).await, Ok(200));
    assert!(get(&listed, "http://127.0.0.1:9/").await.unwrap_err().starts_with("refusing"));
}

#[tokio::test]
async fn a_metadata_service_is_never_called() {
    let all = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    for host in ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]"]
    {
        let url = format!("http://{host}/latest/meta-data/");
        for client in [client(&all, None), client(&all, Some(&url))] {
            let refused = get(&client, &url).await.unwrap_err();
            assert!(refused.contains("metadata") && refused.contains("no setting"), "{refused}");
        }
    }
    let name = Destination::new("rebinding.example", 80);
    let allowed = AllowList::parse(&["rebinding.example".to_owned()]).unwrap();
    let found = ["169.254.169.254:80", "[fd00:ec2::254]:80"].map(|text| text.parse().unwrap());
    let refused = resolver::select(&name, found.into_iter(), &allowed).unwrap_err();
    assert!(refused.to_string().contains("rebinding.example:80: its address 169.254.169.254"), "{refused}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_leads_nowhere() {
    let (inner, _inner_serving) = server(ok()).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{inner}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (outer, _outer_serving) = server(redirect).await;
    assert_eq!(get(&client(&[outer.to_string()], None), &format!("http://{outer}/")).await, Ok(307));
}

#[test]
fn a_name_with_internal_and_public_addresses_is_called_at_the_public_ones_only() {
    let found = ["10.0.0.1:443", "93.184.216.34:443"].map(|text| text.parse::<SocketAddr>().unwrap());
    let name = Destination::new("a.example", 443);
    let open = resolver::select(&name, found.into_iter(), &AllowList::default()).unwrap();
    assert_eq!(open, [found[1]]);
}
