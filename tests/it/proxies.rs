//! The proxies of `deploy/proxy/`: real nginx and real Caddy in front of a real manager, with a real
//! agent. The files are used as they stand, but for ports, paths and the name of the host.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::processes::{Agent, Api, Manager, PATIENCE, alert, eventually, require, text, tied};

/// The default of `max_body_bytes`.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A running proxy, its manager, and what they share.
struct Proxied {
    manager: Manager,
    proxy: Child,
    /// The port with TLS, and the one that redirects to it.
    ports: (u16, u16),
    folder: TempDir,
}

impl Drop for Proxied {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
        if std::thread::panicking() {
            eprintln!("--- the proxy ---\n{}", self.file("output"));
        }
    }
}

/// A free port below those that the kernel gives to outgoing connections.
fn free_port() -> u16 {
    loop {
        let port = 10_000 + u16::try_from(crate::processes::random_below(20_000)).unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Reads a file of `deploy/proxy/` and replaces in it; every text must occur.
fn adapted(name: &str, replaced: &[(&str, String)]) -> String {
    let path = format!("{}/deploy/proxy/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut content = std::fs::read_to_string(path).unwrap();
    for (from, to) in replaced {
        assert!(content.contains(from), "{name} has no {from}");
        content = content.replace(from, to);
    }
    content
}

/// Starts a manager and a proxy. `start` writes the proxy's files, for the folder, its two ports and
/// the manager's address, and returns the command that checks them and the one that runs it.
async fn start(make: impl FnOnce(&Path, (u16, u16), &str) -> (Command, Command)) -> Proxied {
    let (folder, ports) = (TempDir::new().unwrap(), (free_port(), free_port()));
    let made = tied(Path::new(env!("CARGO_BIN_EXE_riposte")))
        .args(["tls", "self-signed", "--name", "localhost", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = format!("https://localhost:{}", ports.0);
    let manager = Manager::start_with(&["--public-url", &public, "--trusted-proxies", "127.0.0.1"]).await;
    let (mut check, mut run) = make(folder.path(), ports, &manager.address.to_string());
    let checked = check.output().unwrap();
    let said = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
    assert!(checked.status.success() && !said.contains("[warn]"), "{said}");
    let output = OpenOptions::new().create(true).append(true).open(folder.path().join("output")).unwrap();
    let proxy = run.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let proxied = Proxied { manager, proxy, ports, folder };
    let http = proxied.client("127.0.0.1");
    eventually("the proxy answers", PATIENCE, async || {
        let answer = http.get(format!("{public}/readyz")).send().await.ok()?;
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;
    proxied
}

impl Proxied {
    fn file(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join(name)).unwrap_or_default()).into_owned()
    }

    /// A client with this address, which believes the proxy's authority only.
    fn client(&self, address: &str) -> reqwest::Client {
        let authority = std::fs::read(self.folder.path().join("ca.pem")).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(1))
            .redirect(reqwest::redirect::Policy::none())
            .local_address(address.parse::<IpAddr>().unwrap())
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&authority).unwrap())
            .build()
            .unwrap()
    }

    fn api(&self, address: &str) -> Api {
        let base = format!("https://localhost:{}", self.ports.0);
        Api { http: self.client(address), base, ..self.manager.api() }
    }

    /// GET of a path as it is written: a client library would normalise it.
    fn status_of(&self, path: &str) -> (u16, String) {
        let output = tied(Path::new("curl"))
            .args(["--silent", "--path-as-is", "--cacert"])
            .arg(self.folder.path().join("ca.pem"))
            .args(["--write-out", "\n%{http_code}"])
            .arg(format!("https://localhost:{}{path}", self.ports.0))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Everything that a deployment does through the proxy.
    async fn works(&self, access_log: &str) {
        let api = self.api("127.0.0.2");
        self.an_agent_works(&api).await;
        self.the_client_is_seen(&api).await;
        self.keys_stay_out_of_the_log(&api, access_log).await;
        // The manager, and not the proxy, refuses a body that is too large, and says why.
        let large = vec![b' '; MAX_BODY + 1];
        let refused = api.request(Method::POST, "/v1/alerts").header("content-type", "application/json").body(large);
        let refused = refused.send().await.unwrap();
        let said = (refused.status(), refused.headers()["content-type"].to_str().unwrap().to_owned());
        assert_eq!(said, (StatusCode::PAYLOAD_TOO_LARGE, "application/problem+json".into()));
        let fits = [alert(7, "203.0.113.70", "web-01").to_string(), " ".repeat(MAX_BODY - 4096)].concat();
        let accepted = api.request(Method::POST, "/v1/alerts").header("content-type", "application/json").body(fits);
        assert_eq!(accepted.send().await.unwrap().status(), StatusCode::ACCEPTED);
        for path in [
            "/metrics",
            "/%6detrics",
            "//metrics",
            "/./metrics",
            "/x/../metrics",
            "/metrics/",
            "/METRICS",
            "/metrics?x",
        ] {
            let (status, body) = self.status_of(path);
            assert!(status >= 400 && !body.contains("riposte_"), "{path}: {status} {body}");
        }
        let answer = self.client("127.0.0.1").get(format!("{}/livez", api.base)).send().await.unwrap();
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
        self.plain_http_is_redirected();
        api.audit_is_intact().await;
    }

    /// An agent enrols, streams, polls, applies and lifts, all through the proxy.
    async fn an_agent_works(&self, api: &Api) {
        let authority = self.folder.path().join("ca.pem");
        let flags = ["--ca", authority.to_str().unwrap()];
        let token = api.make_token().await;
        let mut agent = tokio::task::block_in_place(|| Agent::try_enroll(&api.base, &token, "web-01", &flags)).unwrap();
        assert_eq!(agent.identity()["stream_url"], format!("wss://localhost:{}/v1/agent/stream", self.ports.0));
        api.make_policy("log-only", "1h").await;
        for (number, transport) in [(1, "stream"), (2, "poll")] {
            agent.run(&["--transport", transport]);
            if transport == "stream" {
                api.agent_streams(&agent.id).await;
            }
            let (response, command) = api.answer_to(&alert(number, &format!("203.0.113.{number}"), "web-01")).await;
            api.command_is(text(&command, "id"), "succeeded").await;
            api.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "over"})).await;
            let undone = eventually("the undo", PATIENCE, async || {
                let response = api.response(&response).await;
                let commands = response["commands"].as_array().unwrap().clone();
                commands.into_iter().find(|command| command["op"] == "revert" && command["state"] == "succeeded")
            });
            assert_eq!(undone.await["action"], "log-only");
            let row = api.get(&format!("/v1/agents/{}", agent.id)).await;
            assert_eq!(row["streaming"], transport == "stream", "{row}");
        }
        assert!(!agent.log().contains("not encrypted"), "{}", agent.log());
    }

    /// The audit log names the address of the client, whatever the client writes into its headers.
    async fn the_client_is_seen(&self, api: &Api) {
        for (header, forged) in [
            ("x-forwarded-for", "192.0.2.66"),
            ("forwarded", "for=192.0.2.66"),
            ("x-real-ip", "192.0.2.66"),
            ("connection", "x-forwarded-for, close"),
        ] {
            let name = format!("key-{header}");
            let body = json!({"name": name, "role": "viewer"});
            let made =
                api.request(Method::POST, "/v1/api-keys").header(header, forged).json(&body).send().await.unwrap();
            assert_eq!(made.status(), StatusCode::CREATED, "{header}");
            let made: Value = made.json().await.unwrap();
            let entries = api.get("/v1/audit?limit=20").await;
            let entry =
                entries["items"].as_array().unwrap().iter().find(|entry| entry["noun_id"] == made["id"]).unwrap();
            assert!(text(entry, "detail").ends_with("(from 127.0.0.2)"), "{header}: {entry}");
        }
    }

    /// A pipeline sends an alert with its key in the path.
    async fn keys_stay_out_of_the_log(&self, api: &Api, access_log: &str) {
        let made = api.post("/v1/api-keys", &json!({"name": "siem", "role": "ingest", "pipeline": "siem"})).await;
        let key = text(&made, "key");
        let post = |path: String| api.http.post(format!("{}{path}", api.base)).json(&alert(9, "203.0.113.9", "web-01"));
        let accepted = post(format!("/v1/ingest/{key}")).send().await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        // Mistakes of a sender: another path, and a query.
        post(format!("//v1/ingest/{key}/")).send().await.unwrap();
        post(format!("/v1/alerts?key={key}")).send().await.unwrap();
        let log = eventually("the request is in the log", PATIENCE, async || {
            let log = self.file(access_log);
            (log.contains("/v1/ingest/-") && log.matches("/v1/alerts").count() > 1).then_some(log)
        });
        let (log, secret) = (log.await, key.rsplit('_').next().unwrap());
        for said in [&log, &self.file("output"), &self.file("error.log"), &self.manager.log()] {
            assert!(!said.contains(secret) && !said.contains(&api.key), "{said}");
        }
        assert!(log.contains("127.0.0.2"), "{log}");
    }

    fn plain_http_is_redirected(&self) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.ports.1)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET /v1/agents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        let line = said.lines().find(|line| line.to_ascii_lowercase().starts_with("location:")).unwrap_or(&said);
        assert!(said.starts_with("HTTP/1.1 308 ") && line.contains("https://localhost"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_agents_stream_and_clients_are_seen_by_their_address() {
    require(&[("nginx", "nginx"), ("curl", "curl")]);
    let proxied = start(|folder, (port, plain), manager| {
        let path = folder.to_str().unwrap();
        let site = adapted(
            "nginx.conf",
            &[
                ("listen 443", format!("listen {port}")),
                ("listen 80;", format!("listen {plain};")),
                ("127.0.0.1:8480;\n    keepalive", format!("{manager};\n    keepalive")),
                ("riposte.example.org", "localhost".into()),
                ("/etc/riposte/tls", path.into()),
                ("/var/log/nginx", path.into()),
            ],
        );
        std::fs::write(folder.join("riposte.conf"), site).unwrap();
        // What the system's own nginx.conf says, for this folder. One process, so that it ends with the test.
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
            .collect();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\nevents {{}}\n\
             http {{\n{temporary}include {path}/riposte.conf;\n}}\n"
        );
        std::fs::write(folder.join("main.conf"), main).unwrap();
        let nginx = |more: &[&str]| {
            let mut command = tied(Path::new("nginx"));
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(more).arg("-c").arg(folder.join("main.conf"));
            command
        };
        (nginx(&["-t"]), nginx(&[]))
    })
    .await;
    proxied.works("riposte.log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_caddy_agents_stream_and_clients_are_seen_by_their_address() {
    require(&[("caddy", "caddy"), ("curl", "curl")]);
    let proxied = start(|folder, (port, plain), manager| {
        let path = folder.to_str().unwrap();
        let file = adapted(
            "Caddyfile",
            &[
                ("https_port 443", format!("https_port {port}")),
                ("http_port 80\n", format!("http_port {plain}\n")),
                ("reverse_proxy 127.0.0.1:8480", format!("reverse_proxy {manager}")),
                ("riposte.example.org", "localhost".into()),
                ("/etc/riposte/tls", path.into()),
                ("/var/log/caddy", path.into()),
            ],
        );
        std::fs::write(folder.join("Caddyfile"), file).unwrap();
        let caddy = |verb: &str| {
            let mut command = tied(Path::new("caddy"));
            // Caddy keeps what it stores below its home.
            command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            command.args([verb, "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
            command
        };
        (caddy("validate"), caddy("run"))
    })
    .await;
    proxied.works("riposte.log").await;
}
