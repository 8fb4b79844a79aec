//! Isolation for real: this test runs again in a network namespace of its own, connected to another
//! one with a manager.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::actions::{Transcript, own_namespace};
use crate::runner::Runner;

const MANAGER: &str = "203.0.113.1:8480";
const OTHER: &str = "203.0.113.2:8480";
const ALLOWED: &str = "203.0.113.3:22";
const MANAGER_6: &str = "[2001:db8::1]:8480";

#[test]
fn only_an_address_or_a_narrow_network_can_be_allowed() {
    for good in ["allow=203.0.113.3", "allow=2001:db8::3", "allow=10.1.0.0/16"] {
        assert_eq!(ABOUT.check_arguments(&[good.into()]), Ok(()), "{good}");
    }
    for bad in [
        "allow=",
        "allow=0.0.0.0/0",
        "allow=::/0",
        "allow=10.0.0.0/8",
        "allow=example.org",
        "allow=10.0.0.1 accept",
        "allow",
        "allow=10.0.0.1;flush ruleset",
        "deny=10.0.0.1",
        "allow=010.0.0.1",
    ] {
        assert!(ABOUT.check_arguments(&[bad.into()]).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn an_isolated_host_reaches_only_its_manager() {
    if own_namespace::is_inside() {
        return isolate().await;
    }
    // Duplicate address detection is off, so that the other side's addresses can be used at once.
    let wire = "mount -t tmpfs tmpfs /run; ip link set lo up; ip netns add peer; \
                ip link add here type veth peer name there netns peer; \
                ip addr add 203.0.113.9/24 dev here; ip addr add 2001:db8::9/64 dev here nodad; ip link set here up; \
                for last in 1 2 3; do ip -n peer addr add 203.0.113.$last/24 dev there; done; \
                ip -n peer addr add 2001:db8::1/64 dev there nodad; \
                ip -n peer link set lo up; ip -n peer link set there up";
    let name = "actions::isolate_host::tests::an_isolated_host_reaches_only_its_manager";
    own_namespace::run_again(name, &["ip", "nft"], &["--net"], wire).await;
}

/// A socket belongs to the namespace that it was made in, whichever thread uses it afterwards.
fn listen_over_there(addresses: [&'static str; 4]) -> Vec<TcpListener> {
    let there = std::fs::File::open("/run/netns/peer").unwrap();
    std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(there.as_fd(), None).unwrap();
        addresses.map(|address| TcpListener::bind(address).unwrap()).into()
    })
    .join()
    .unwrap()
}

async fn reaches(address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    let connect = tokio::net::TcpStream::connect(address);
    matches!(tokio::time::timeout(Duration::from_millis(500), connect).await, Ok(Ok(_)))
}

fn host(managers: &[&str]) -> Host {
    let mut host = Host::new(Runner::new(), std::path::Path::new("/nonexistent"));
    host.managers = managers.iter().map(|manager| format!("ws://{manager}/v1/agent/stream")).collect();
    host
}

async fn isolate() {
    let mut listeners = listen_over_there([MANAGER, OTHER, ALLOWED, MANAGER_6]);
    let (target, transcript) = (Target::host(), Mutex::<Transcript>::default());
    for manager in [MANAGER, MANAGER_6] {
        let host = host(&[manager]);
        let mut attempt = Attempt::new(&host, &transcript, &target);
        let arguments = ["allow=203.0.113.3".to_owned(), "allow=198.51.100.0/24".to_owned()];
        attempt.arguments = &arguments;
        assert!(!IsolateHost.is_in_force(&attempt).await.unwrap() && IsolateHost.is_lifted(&attempt).await.unwrap());
        assert!(reaches(OTHER).await && reaches(ALLOWED).await);
        let open = tokio::net::TcpStream::connect(OTHER.parse::<SocketAddr>().unwrap()).await.unwrap();
        let evidence = IsolateHost.evidence(&attempt).await.unwrap();
        let sockets = evidence["sockets"].as_array().unwrap();
        assert!(
            sockets.iter().any(|socket| socket["remote"] == OTHER && socket["state"] == "established"),
            "{evidence}"
        );
        for _ in 0..2 {
            IsolateHost.apply(&attempt).await.unwrap();
            assert!(IsolateHost.is_in_force(&attempt).await.unwrap());
            assert!(reaches(manager).await && reaches(ALLOWED).await, "{manager}");
            assert!(!reaches(OTHER).await, "no other host, not even over an open connection");
        }
        drop(open);
        for hole in [
            "insert rule inet riposte_isolate output accept",
            "insert rule inet riposte_isolate output ip daddr 203.0.0.0/8 accept",
            "insert rule inet riposte_isolate output ip daddr != 198.51.100.1 accept",
            "insert rule inet riposte_isolate output tcp dport 8480 accept",
            "add table inet riposte_isolate { flags dormant; }",
        ] {
            attempt.run(&transaction(format!("{hole}\n"))).await.unwrap();
            assert!(!IsolateHost.is_in_force(&attempt).await.unwrap(), "{hole}");
            IsolateHost.apply(&attempt).await.unwrap();
            assert!(IsolateHost.is_in_force(&attempt).await.unwrap() && !reaches(OTHER).await, "{hole}, repaired");
        }
        // The state after an agent was killed before the manager had answered.
        attempt.run(&transaction("add chain inet riposte_isolate unproven\n")).await.unwrap();
        assert!(!IsolateHost.is_in_force(&attempt).await.unwrap());
        IsolateHost.apply(&attempt).await.unwrap();
        assert!(IsolateHost.is_in_force(&attempt).await.unwrap());
        for _ in 0..2 {
            IsolateHost.revert(&attempt).await.unwrap();
            assert!(IsolateHost.is_lifted(&attempt).await.unwrap() && reaches(OTHER).await);
        }
    }

    // A manager that isolation cuts off: the host's own firewall redirects the connection.
    let redirect = "add table ip elsewhere\nadd chain ip elsewhere out { type nat hook output priority -100; }\n\
                    add rule ip elsewhere out ip daddr 203.0.113.77 dnat to 203.0.113.1\n";
    let lost = host(&["203.0.113.77:8480"]);
    let attempt = Attempt::new(&lost, &transcript, &target);
    attempt.run(&transaction(redirect)).await.unwrap();
    assert!(reaches("203.0.113.77:8480").await);
    let error = IsolateHost.apply(&attempt).await.unwrap_err().to_string();
    assert!(error.contains("does not answer the isolated host; it is removed again"), "{error}");
    assert!(IsolateHost.is_lifted(&attempt).await.unwrap() && reaches(OTHER).await, "rolled back");

    // A manager that cannot be reached at all: nothing is tried.
    listeners.clear();
    let host = host(&[MANAGER]);
    let attempt = Attempt::new(&host, &transcript, &target);
    let error = IsolateHost.apply(&attempt).await.unwrap_err();
    assert!(
        matches!(&error, ActionError::Refused(reason) if reason.contains("cannot be reached from here")),
        "{error}"
    );
    assert!(IsolateHost.is_lifted(&attempt).await.unwrap());
}
