//! A port that a container publishes: its packets are translated and forwarded, and never pass the host's
//! INPUT chain. The container is a network namespace behind a bridge of its own, with the rules that Docker
//! makes for `-p 8080:80`.

use std::fmt::Write as _;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use super::{Firewall, Scene, V4, V4_OTHER, V6, V6_OTHER, firewall_of, flows, is_inside, must_run};
use crate::processes::{PATIENCE, eventually, require, tied};

/// The published port of the host.
const PUBLISHED: u16 = 8080;
/// The container's addresses, and the host's beside them.
const NETWORKS: [(&str, &str, &str); 2] = [("172.17.0.2", "172.17.0.1", "24"), ("fd00:17::2", "fd00:17::1", "64")];
/// Accepts connections at port 80, of both families.
const SERVER: &str = "import socket
server = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    server.accept()[0].close()";

/// Ends with the test.
struct Container(Child);

impl Drop for Container {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            eprintln!("the container cannot be ended: {error}");
        }
    }
}

impl Container {
    /// Starts a server in a namespace behind this one, and publishes its port.
    fn start() -> Self {
        require(&[("unshare", "util-linux"), ("nsenter", "util-linux"), ("python3", "python3")]);
        let mut child = tied(Path::new("unshare"))
            .args(["--net", "sh", "-c", r#"echo ready; read -r _; exec python3 -c "$0""#, SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        let inside = format!("nsenter --net --target {}", child.id());
        let mut script = format!(
            "set -e
            ip link add docker0 type veth peer name eth0 netns {}
            ip link set docker0 up
            {inside} ip link set lo up
            {inside} ip link set eth0 up
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n",
            child.id()
        );
        for (address, host, length) in NETWORKS {
            let (family, tables, to, nodad) = if address.contains(':') {
                ("-6", "ip6tables", format!("[{address}]:80"), "nodad")
            } else {
                ("-4", "iptables", format!("{address}:80"), "")
            };
            write!(
                script,
                "ip address add {host}/{length} dev docker0 {nodad}
                {inside} ip address add {address}/{length} dev eth0 {nodad}
                {inside} ip {family} route add default via {host}
                {tables} -t nat -A PREROUTING -p tcp --dport {PUBLISHED} -j DNAT --to-destination {to}
                {tables} -P FORWARD DROP
                {tables} -A FORWARD -o docker0 -p tcp --dport 80 -j ACCEPT
                {tables} -A FORWARD -i docker0 -j ACCEPT\n"
            )
            .unwrap();
        }
        must_run(&script);
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(said.next().unwrap().unwrap(), "listening");
        Self(child)
    }
}

async fn no_packet_reaches_the_container(firewall: Firewall) {
    let _container = Container::start();
    let scene = Scene::start("1h").await;
    for (number, source, other) in [(1, V4, V4_OTHER), (2, V6, V6_OTHER)] {
        eventually("the source reaches the published port", PATIENCE, async || {
            flows(source, PUBLISHED).await.then_some(())
        })
        .await;
        let block = scene.block(number, source).await;
        assert!(!flows(source, PUBLISHED).await, "{source:?} still reaches the published port");
        eventually("the other source reaches the published port", PATIENCE, async || {
            flows(other, PUBLISHED).await.then_some(())
        })
        .await;
        assert!(firewall_of(source, firewall).contains(source.address));
        let path = format!("/v1/responses/{}/lift", block.response);
        scene.api.post(&path, &serde_json::json!({"reason": "the container is patched"})).await;
        eventually("the source reaches the published port again", PATIENCE, async || {
            flows(source, PUBLISHED).await.then_some(())
        })
        .await;
        scene.ledger_is_settled(&block).await;
    }
}

#[tokio::test]
async fn a_blocked_source_does_not_reach_a_published_container_port() {
    if is_inside("published::a_blocked_source_does_not_reach_a_published_container_port", Firewall::Nftables) {
        no_packet_reaches_the_container(Firewall::Nftables).await;
    }
}

#[tokio::test]
async fn without_nftables_a_blocked_source_does_not_reach_a_published_container_port() {
    let name = "published::without_nftables_a_blocked_source_does_not_reach_a_published_container_port";
    if is_inside(name, Firewall::Iptables) {
        no_packet_reaches_the_container(Firewall::Iptables).await;
    }
}
