//! `firewalld-drop`: drops an address by a rich rule of firewalld, in the default zone, until
//! firewalld is reloaded. For hosts whose administrators manage only firewalld.

use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Change, Check, Recipe};
use super::{About, Os, probe};
use crate::platform;
use crate::runner::Program;

pub(super) static FIREWALLD_DROP: ByRecipe = ByRecipe {
    about: About {
        name: "firewalld-drop",
        summary: "Drops everything from an address or a network by firewalld",
        targets: &[TargetKind::Ip],
        networks: true,
        platforms: &[Os::Linux],
        lock_domain: "firewalld",
        applied: "`firewall-cmd --add-rich-rule`, in the running configuration",
        verified: "`firewall-cmd --query-rich-rule` in the default zone, the only one in which the rule stands; not what arrives \
                   in another zone, by its interface or its source",
        undone: "`firewall-cmd --remove-rich-rule`, unless the rule was there before",
        rights: "root",
        ..About::DEFAULT
    },
    programs: |_| &["firewall-cmd"],
    needs: |host| {
        if !host.is_running("firewalld") {
            return Err("firewalld is not running".into());
        }
        platform::must_be_root()?;
        probe::firewalld(host)
    },
    recipe,
};

pub(super) fn recipe(_os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let family = if target.network()?.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let rule = format!("rule family={family} source address={} drop", target.value());
    let with = |verb: &str| Program::new("firewall-cmd", []).arguments(&[&format!("--{verb}-rich-rule={rule}")]);
    Some(Recipe {
        apply: vec![Change::new(with("add"))],
        revert: vec![Change::new(with("remove"))],
        shows: vec![Check::exit(with("query"), 1)],
        ..Recipe::default()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::actions::{Action, Attempt, Host, Transcript, own_namespace};
    use crate::runner::Runner;

    #[tokio::test]
    async fn the_real_firewalld_drops_and_lets_through_again() {
        if own_namespace::is_inside() {
            return drop_and_let_through().await;
        }
        let start = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/log; mkdir /run/dbus; ip link set lo up; \
                     dbus-daemon --system --fork --nopidfile; firewalld --nofork --nopid >/dev/null 2>&1 & \
                     for i in $(seq 100); do firewall-cmd --state >/dev/null 2>&1 && break; sleep 0.2; done";
        let name = "actions::firewalld_drop::tests::the_real_firewalld_drops_and_lets_through_again";
        let tools = ["firewalld", "firewall-cmd", "dbus-daemon", "ip"];
        let namespaces = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        own_namespace::run_again(name, &tools, &namespaces, start).await;
    }

    async fn drop_and_let_through() {
        let host = Host::new(Runner::new(), Path::new("/nonexistent"));
        assert_eq!(FIREWALLD_DROP.availability(&host), Ok(()));
        let transcript = Mutex::<Transcript>::default();
        for (kind, text) in [("address", "203.0.113.7"), ("address", "2001:db8::7"), ("network", "203.0.113.0/24")] {
            let target = match kind {
                "address" => Target::parse(TargetKind::Ip, text).unwrap(),
                _ => Target::parse_network(text).unwrap(),
            };
            let mut attempt = Attempt::new(&host, &transcript, &target);
            let undo = FIREWALLD_DROP.prepare(&attempt).await.unwrap();
            attempt.undo = Some(&undo);
            assert!(FIREWALLD_DROP.is_lifted(&attempt).await.unwrap(), "{text} at first");
            for _ in 0..2 {
                FIREWALLD_DROP.apply(&attempt).await.unwrap();
                assert!(FIREWALLD_DROP.is_in_force(&attempt).await.unwrap(), "{text}");
            }
            // An administrator's rule was there before.
            let theirs = FIREWALLD_DROP.prepare(&attempt).await.unwrap();
            attempt.undo = Some(&theirs);
            FIREWALLD_DROP.revert(&attempt).await.unwrap();
            assert!(FIREWALLD_DROP.is_in_force(&attempt).await.unwrap(), "{text}");
            attempt.undo = Some(&undo);
            for _ in 0..2 {
                FIREWALLD_DROP.revert(&attempt).await.unwrap();
                assert!(FIREWALLD_DROP.is_lifted(&attempt).await.unwrap(), "{text}");
                assert!(!FIREWALLD_DROP.is_in_force(&attempt).await.unwrap(), "{text}");
            }
        }
    }
}
