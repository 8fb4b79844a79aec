//! Many blocks at once.

use std::sync::Mutex;
use std::time::Duration;

use riposte_protocol::target::{Target, TargetKind};
use serde_json::Value;

use super::{Namespace, iptables, nftables};
use crate::actions::firewall_drop::FirewallDrop;
use crate::actions::{Action as _, ActionError, Attempt};
use crate::runner::Program;

/// Many blocks together: at first; again, which moves their ends; and after other programs have
/// changed the firewall, as `changes` does.
async fn many_blocks_come_and_go(namespace: &Namespace, undo: Value, changes: &[Program], fewer: &Program) {
    namespace.own(&["203.0.113.7/32"]).await;
    let bulk = FirewallDrop.bulk().unwrap();
    let user = Target::parse(TargetKind::User, "alice").unwrap();
    let addresses = (0..300).flat_map(|n| [format!("20.0.{}.{}", n / 200, n % 200), format!("2001:db8::{n:x}")]);
    let targets = addresses.chain(["203.0.113.7".into(), "198.51.100.0/24".into()]);
    let targets: Vec<Target> = targets
        .map(|target| Target::parse(TargetKind::Ip, &target).or_else(|_| Target::parse_network(&target)).unwrap())
        .collect();
    let transcript = Mutex::default();
    let attempt = |target| {
        let mut attempt = Attempt::new(&namespace.host, &transcript, target);
        (attempt.undo, attempt.remaining) = (Some(&undo), Some(Duration::from_mins(10)));
        attempt
    };
    let attempts: Vec<Attempt<'_>> = targets.iter().map(attempt).collect();
    let all = |shown: Vec<Result<bool, ActionError>>, expected: bool| {
        assert_eq!(shown.len(), attempts.len());
        assert!(shown.iter().all(|shown| *shown.as_ref().unwrap() == expected), "{shown:?}");
    };
    for change in [None, None].into_iter().chain(changes.iter().map(Some)) {
        if let Some(change) = change {
            namespace.run(change).await;
            assert!(bulk.are_in_force(&attempts).await.iter().any(|shown| !*shown.as_ref().unwrap()), "{change:?}");
        }
        bulk.apply_all(&attempts).await.unwrap();
        all(bulk.are_in_force(&attempts).await, true);
        assert!(!namespace.connects("203.0.113.7"), "{change:?}");
    }
    // One that is gone already does not keep the others.
    namespace.run(fewer).await;
    assert_eq!(bulk.are_in_force(&attempts).await.iter().filter(|shown| !*shown.as_ref().unwrap()).count(), 1);
    bulk.revert_all(&attempts).await.unwrap();
    all(bulk.are_lifted(&attempts).await, true);
    assert!(namespace.connects("203.0.113.7"));
    // A part that cannot be blocked is an error for all, and leaves nothing behind.
    let attempts = [&targets[0], &user, &targets[1]].map(attempt);
    assert!(bulk.apply_all(&attempts).await.is_err());
    let shown = bulk.are_in_force(&attempts).await;
    assert!(shown.iter().all(|shown| !matches!(shown, Ok(true))), "{shown:?}");
}

#[tokio::test]
async fn many_blocks_by_nftables_come_and_go_together() {
    let namespace = Namespace::new(&["nft"]);
    assert!(FirewallDrop.bulk().unwrap().works_on(&namespace.host));
    let nft = |script: &str| Program::new("nft", ["-f", "-"]).stdin(script);
    let emptied = nft("flush chain inet riposte input_v4\ndelete element inet riposte blocked_v4 { 20.0.0.9 }");
    let fewer = nft("delete element inet riposte blocked_v4 { 20.0.0.9 }");
    many_blocks_come_and_go(&namespace, nftables(), &[emptied, nft("delete table inet riposte")], &fewer).await;
}

#[tokio::test]
async fn many_blocks_by_iptables_come_and_go_together() {
    for namespace in [Namespace::new(&["iptables", "ip6tables"]), Namespace::with_legacy_iptables()] {
        let flushed = Program::new("iptables", ["-F", "FORWARD"]);
        let accepts = Program::new("iptables", ["-I", "INPUT", "-p", "tcp", "-j", "ACCEPT"]);
        let ours = ["20.0.0.9", "-m", "comment", "--comment", "riposte", "-j", "DROP"];
        let fewer = Program::new("iptables", ["-D", "INPUT", "-s"]).arguments(&ours);
        many_blocks_come_and_go(&namespace, iptables(), &[flushed, accepts], &fewer).await;
    }
}
