//! Real consumers of feeds between two network namespaces: Debian's bouncer of `CrowdSec` blocks and unblocks real
//! packets by our feed, nginx and `HAProxy` refuse a blocked address. The packages are downloaded and unpacked into a
//! temporary folder; nothing is installed, because installing starts services on this host.
//!
//! Each test makes its namespaces and runs itself once more inside one of them, the `host`. Only the `attacker` at the
//! other end of a veth pair is reachable, with two addresses.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::processes::{FakeAgent, Manager, eventually, random_below, require, signal, tied};

/// Set inside the namespace; holds the name of the attacker's.
const INSIDE: &str = "NETNS_OF_CONSUMERS";
/// The folder with the unpacked packages.
const PACKAGES: &str = "DEBIAN_PACKAGES";
/// The host's address, and the two of the attacker.
const HOST: &str = "203.0.113.1";
const BAD: &str = "203.0.113.66";
const GOOD: &str = "203.0.113.77";
/// A bouncer asks each second.
const SOON: Duration = Duration::from_secs(15);

fn run(command: &str) -> Output {
    Command::new("sh").args(["-c", command]).output().unwrap()
}

fn must_run(command: &str) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Removes the namespaces, with everything in them.
struct Namespaces(Vec<String>);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            run(&format!("ip netns del {name}"));
        }
    }
}

/// Makes the namespaces, unpacks `packages` and runs the test `name` inside; returns whether this is the inside.
fn is_inside(name: &str, packages: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    assert!(is_root, "this test makes network namespaces and needs root: run it as root, or by `sudo -E`");
    require(&[("ip", "iproute2"), ("nft", "nftables"), ("bash", "bash"), ("apt-get", "apt"), ("dpkg-deb", "dpkg")]);
    let unpacked = TempDir::new().unwrap();
    let place = unpacked.path().display();
    must_run(&format!(
        "cd {place} && apt-get -q download {} >&2 && for package in *.deb; do dpkg-deb -x $package .; done",
        packages.join(" ")
    ));
    let unique = format!("{}-{:04x}", std::process::id(), random_below(0x10000));
    let (host, attacker) = (format!("riposte-edge-{unique}"), format!("riposte-bad-{unique}"));
    let _namespaces = Namespaces(vec![host.clone(), attacker.clone()]);
    must_run(&format!(
        "set -e
        ip netns add {host}
        ip netns add {attacker}
        ip -n {host} link add eth0 type veth peer name eth0 netns {attacker}
        for namespace in {host} {attacker}; do
            ip -n $namespace link set lo up
            ip -n $namespace link set eth0 up
        done
        ip -n {host} address add {HOST}/24 dev eth0
        ip -n {attacker} address add {BAD}/24 dev eth0
        ip -n {attacker} address add {GOOD}/24 dev eth0"
    ));
    let inside = Command::new("setpriv")
        .args(["--pdeathsig", "SIGKILL", "--", "ip", "netns", "exec", &host])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("conformance::consumers::{name}"), "--nocapture", "--test-threads", "1"])
        .env(INSIDE, &attacker)
        .env(PACKAGES, unpacked.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    let passed = inside.status.success() && out.contains("test result: ok. 1 passed");
    assert!(passed, "inside the namespace:\n{out}\n{err}");
    eprintln!("{err}");
    false
}

fn unpacked(program: &str) -> PathBuf {
    Path::new(&std::env::var_os(PACKAGES).unwrap()).join(program)
}

/// Whether a connection from an address of the attacker reaches the host now.
async fn flows(from: &'static str, port: u16) -> bool {
    let attacker = std::env::var(INSIDE).unwrap();
    let script = "import socket, sys\n\
                  socket.create_connection((sys.argv[2], int(sys.argv[3])), 0.7, (sys.argv[1], 0)).close()";
    let connecting = tokio::task::spawn_blocking(move || {
        let python = ["python3", "-c", script, from, HOST, &port.to_string()];
        Command::new("ip").args(["netns", "exec", &attacker]).args(python).output().unwrap()
    });
    let done = connecting.await.unwrap();
    let wrong = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() || wrong.contains("timed out"), "{wrong}");
    done.status.success()
}

/// The status that the host answers a request from an address of the attacker.
async fn status(from: &'static str, port: u16) -> String {
    let attacker = std::env::var(INSIDE).unwrap();
    let asking = tokio::task::spawn_blocking(move || {
        let url = format!("http://{HOST}:{port}/");
        let curl = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "--interface", from, &url];
        Command::new("ip").args(["netns", "exec", &attacker]).args(curl).output().unwrap()
    });
    String::from_utf8_lossy(&asking.await.unwrap().stdout).into_owned()
}

/// Stands between the bouncer and the manager: passes requests on, notes their heads, and answers 503 when told to.
struct Gate {
    port: u16,
    is_busy: Arc<AtomicBool>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    fn before(manager: &Manager) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_busy, heads) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (busy, noted, to) = (Arc::clone(&is_busy), Arc::clone(&heads), manager.address);
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                // A request that breaks off is the bouncer's end.
                let _ = pass(client, to, &busy, &noted);
            }
        });
        Self { port, is_busy, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn pass(
    mut client: TcpStream,
    to: std::net::SocketAddr,
    is_busy: &AtomicBool,
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    heads.lock().unwrap().push(head.clone());
    if is_busy.load(Ordering::SeqCst) {
        let body = r#"{"message":"busy"}"#;
        let length = body.len();
        return write!(
            client,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
    }
    let mut server = TcpStream::connect(to)?;
    let head = head.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    server.write_all(head.as_bytes())?;
    std::io::copy(&mut server, &mut client).map(drop)
}

/// The programs, and a port of the host to connect to.
struct Scene {
    manager: Manager,
    _agent: FakeAgent,
    port: u16,
}

impl Scene {
    async fn start(form: &str) -> (Self, String) {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let manager = Manager::start().await;
        let agent = FakeAgent::enroll(&manager, "web-01").await;
        manager.api().post("/v1/feeds", &json!({"name": "edge", "form": form, "expected_interval": "1m"})).await;
        let scope = json!({"rights": ["pull_feeds"], "feeds": ["edge"]});
        let asked = json!({"name": "edge-1", "role": "viewer", "scope": scope});
        let made = manager.api().post("/v1/api-keys", &asked).await;
        (Self { manager, _agent: agent, port }, made["key"].as_str().unwrap().to_owned())
    }

    /// Blocks an address for a time; returns the response.
    async fn block(&self, target: &str, duration: &str) -> String {
        let asked = json!({"action": "firewall-drop", "target": target, "agents": ["web-01"], "for": duration, "reason": "seen"});
        self.manager.api().post("/v1/responses", &asked).await["id"].as_str().unwrap().to_owned()
    }

    async fn lift(&self, response: &str) {
        let path = format!("/v1/responses/{response}/lift");
        self.manager.api().post(&path, &json!({"reason": "over"})).await;
    }

    async fn is(&self, from: &'static str, reaches: bool) {
        eventually(&format!("{from} gets through: {reaches}"), SOON, async || {
            (flows(from, self.port).await == reaches).then_some(())
        })
        .await;
    }

    async fn owed(&self) -> Value {
        self.manager.api().get("/v1/feeds/edge").await["consumers"][0].clone()
    }
}

fn bouncer(here: &Path, port: u16, key: &str) -> Child {
    let place = here.display();
    let config = format!(
        "mode: nftables\npid_dir: {place}\nupdate_frequency: 1s\ndaemonize: false\nlog_mode: stdout\nlog_dir: {place}\n\
         log_level: debug\napi_url: http://127.0.0.1:{port}/crowdsec/\napi_key: {key}\ndisable_ipv6: false\ndeny_action: DROP\n\
         deny_log: false\nblacklists_ipv4: crowdsec-blacklists\nblacklists_ipv6: crowdsec6-blacklists\n\
         nftables:\n  ipv4:\n    enabled: true\n    set-only: false\n    table: crowdsec\n    chain: crowdsec-chain\n\
         \x20 ipv6:\n    enabled: true\n    set-only: false\n    table: crowdsec6\n    chain: crowdsec6-chain\n\
         prometheus:\n  enabled: false\n"
    );
    std::fs::write(here.join("bouncer.yaml"), config).unwrap();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(here.join("log")).unwrap();
    let mut command = tied(&unpacked("usr/bin/crowdsec-firewall-bouncer"));
    command.args(["-c", here.join("bouncer.yaml").to_str().unwrap()]).env("NO_PROXY", "*").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[tokio::test]
async fn debians_firewall_bouncer_blocks_and_unblocks_real_packets() {
    if !is_inside("debians_firewall_bouncer_blocks_and_unblocks_real_packets", &["crowdsec-firewall-bouncer"]) {
        return;
    }
    let (mut scene, key) = Scene::start("crowdsec").await;
    let (gate, here) = (Gate::before(&scene.manager), TempDir::new().unwrap());
    // In force before the bouncer starts.
    let first = scene.block(BAD, "1h").await;
    let mut program = bouncer(here.path(), gate.port, &key);
    scene.is(BAD, false).await;
    assert!(flows(GOOD, scene.port).await, "only what is blocked is blocked");
    scene.lift(&first).await;
    scene.is(BAD, true).await;

    // Expiry: the set's own time-out, which is what was left.
    scene.block(BAD, "6s").await;
    scene.is(BAD, false).await;
    scene.is(BAD, true).await;

    // Extension: it lasts beyond the end of the first block.
    scene.block(BAD, "6s").await;
    scene.is(BAD, false).await;
    let longer = scene.block(BAD, "1h").await;
    let set = || must_run("nft list set ip crowdsec crowdsec-blacklists");
    eventually("the set has the later end", SOON, async || set().contains("59m").then_some(())).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!flows(BAD, scene.port).await, "the first end has lifted it: {}", set());

    // 503 in between: it keeps what it has, and then hears what it missed.
    gate.is_busy.store(true, Ordering::SeqCst);
    scene.lift(&longer).await;
    let seen = gate.heads().len();
    eventually("it was refused twice", SOON, async || (gate.heads().len() >= seen + 2).then_some(())).await;
    assert!(!flows(BAD, scene.port).await);
    assert_eq!(scene.owed().await["owed_removed"], 1, "{}", scene.owed().await);
    gate.is_busy.store(false, Ordering::SeqCst);
    scene.is(BAD, true).await;

    // A restart of the manager.
    scene.manager.start_again().await;
    let gate = Gate::before(&scene.manager);
    signal(&program, "TERM");
    program.wait().unwrap();
    let mut program = bouncer(here.path(), gate.port, &key);
    let kept = scene.block(BAD, "1h").await;
    scene.is(BAD, false).await;

    // A restart of the bouncer: its set stays, and what was lifted meanwhile is told after its start.
    signal(&program, "TERM");
    program.wait().unwrap();
    scene.lift(&kept).await;
    assert!(!flows(BAD, scene.port).await, "its elements stay");
    let mut program = bouncer(here.path(), gate.port, &key);
    scene.is(BAD, true).await;
    assert!(
        program.try_wait().unwrap().is_none(),
        "it runs: {}",
        std::fs::read_to_string(here.path().join("log")).unwrap()
    );
    signal(&program, "TERM");
    program.wait().unwrap();
    // What it sent is what `make test` sends.
    let recorded = include_str!("../../data/bouncers/crowdsec-firewall-bouncer.txt");
    for head in gate.heads() {
        let lines: Vec<&str> =
            head.lines().filter(|line| !line.starts_with("Host:") && !line.starts_with("X-Api-Key:")).collect();
        assert!(
            lines.iter().all(|line| recorded.contains(line)),
            "it sends something else than what was recorded:\n{head}"
        );
    }
}

#[tokio::test]
async fn nginx_and_haproxy_refuse_a_blocked_address_by_a_feed() {
    const NEEDED: [&str; 3] = ["haproxy", "libopentracing-c-wrapper0", "libopentracing1"];
    if !is_inside("nginx_and_haproxy_refuse_a_blocked_address_by_a_feed", &NEEDED) {
        return;
    }
    require(&[("nginx", "nginx"), ("curl", "curl")]);
    let (scene, key) = Scene::start("nginx").await;
    let here = TempDir::new().unwrap();
    // The worker of nginx is another account.
    must_run(&format!("chmod 755 {}", here.path().display()));
    let plain = json!({"name": "plain", "form": "haproxy"});
    scene.manager.api().post("/v1/feeds", &plain).await;
    let fetch = |feed: &str, key: &str, file: &str| {
        let (base, file) = (scene.manager.base(), here.path().join(file));
        must_run(&format!("curl -fsS -u x:{key} -o {} {base}/feeds/{feed} && chmod 644 {0}", file.display()));
    };
    let scope = json!({"rights": ["pull_feeds"], "feeds": ["plain"]});
    let asked = json!({"name": "haproxy", "role": "viewer", "scope": scope});
    let other = scene.manager.api().post("/v1/api-keys", &asked).await["key"].as_str().unwrap().to_owned();
    let place = here.path().display();
    let nginx_config = format!(
        "worker_processes 1;\ndaemon off;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {place}/body;\nproxy_temp_path {place}/proxy;\nfastcgi_temp_path {place}/fastcgi;\n\
         uwsgi_temp_path {place}/uwsgi;\nscgi_temp_path {place}/scgi;\nserver {{ listen {HOST}:8081;\nlocation / {{\n\
         include {place}/blocked.conf;\nalias {place}/www/;\n}}\n}}\n}}\n"
    );
    std::fs::create_dir(here.path().join("www")).unwrap();
    std::fs::write(here.path().join("www/index.html"), "welcome").unwrap();
    std::fs::write(here.path().join("nginx.conf"), nginx_config).unwrap();
    let haproxy_config = format!(
        "global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n\
         frontend web\n    bind {HOST}:8082\n    acl blocked src -f {place}/blocked.lst\n\
         \x20   http-request deny deny_status 403 if blocked\n    http-request return status 200\n"
    );
    std::fs::write(here.path().join("haproxy.cfg"), haproxy_config).unwrap();
    let start = |with: &str| {
        let mut nginx = tied(Path::new("nginx"));
        nginx.args(["-e", &format!("{place}/error.log"), "-c", &format!("{place}/nginx.conf")]);
        let mut haproxy = tied(&unpacked("usr/sbin/haproxy"));
        haproxy.args(["-db", "-f", &format!("{place}/haproxy.cfg")]);
        haproxy.env("LD_LIBRARY_PATH", unpacked("usr/lib/x86_64-linux-gnu"));
        let log = || std::fs::OpenOptions::new().create(true).append(true).open(here.path().join(with)).unwrap();
        [nginx, haproxy].map(|mut command| command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap())
    };
    for (round, is_blocked) in [("1", false), ("2", true), ("3", false)] {
        let block = if is_blocked { Some(scene.block(BAD, "1h").await) } else { None };
        fetch("edge", &key, "blocked.conf");
        fetch("plain", &other, "blocked.lst");
        let mut programs = start(round);
        let expected = if is_blocked { "403" } else { "200" };
        for port in [8081, 8082] {
            let answers = eventually(&format!("{port} serves"), SOON, async || {
                let good = status(GOOD, port).await;
                if good == "000" { None } else { Some((status(BAD, port).await, good)) }
            })
            .await;
            assert_eq!(answers, (expected.to_owned(), "200".to_owned()), "round {round}, port {port}");
        }
        for program in &mut programs {
            signal(program, "TERM");
            program.wait().unwrap();
        }
        if let Some(block) = block {
            scene.lift(&block).await;
        }
    }
}
