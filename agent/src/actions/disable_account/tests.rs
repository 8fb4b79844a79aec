//! The states of an account, as a table; and one real account in namespaces with an `/etc`, a
//! `/run` and processes of their own. Killing the account's processes must not reach the host's
//! account with the same number.

use std::fmt::Write as _;
use std::sync::Mutex;

use riposte_protocol::target::{Target, TargetKind};

use super::*;
use crate::actions::{Transcript, own_namespace};
use crate::runner::Runner;

fn login(password: &str, expires_on_day: &str) -> Login {
    let shadow = format!("other:x:1:::::2:\nalice:{password}:20000:0:99999:7::{expires_on_day}:\n");
    Login::parse(&shadow, "alice").unwrap()
}

#[test]
fn the_state_before_is_restored() {
    const HASH: &str = "$y$j9T$abc";
    for (before, now, options) in [
        // (before the lock) (when it is lifted) (options of usermod)
        ((HASH, ""), ("!$y$j9T$abc", "1"), vec!["--expiredate", "", "--unlock"]),
        ((HASH, "20500"), ("!$y$j9T$abc", "1"), vec!["--expiredate", "20500", "--unlock"]),
        (("*", ""), ("!*", "1"), vec!["--expiredate", "", "--unlock"]),
        (("", ""), ("!", "1"), vec!["--expiredate", "", "--password", ""]),
        (("!$y$j9T$abc", ""), ("!$y$j9T$abc", "1"), vec!["--expiredate", ""]),
        (("!", ""), ("!", "1"), vec!["--expiredate", ""]),
        (("!!", "20500"), ("!!", "1"), vec!["--expiredate", "20500"]),
        (("!$y$j9T$abc", "1"), ("!$y$j9T$abc", "1"), vec![]),
        ((HASH, "1"), ("!$y$j9T$abc", "1"), vec!["--unlock"]),
        // Changed since by another program: a new password, another expiry.
        ((HASH, ""), ("$y$j9T$new", "1"), vec!["--expiredate", ""]),
        ((HASH, ""), ("!$y$j9T$abc", "20600"), vec!["--unlock"]),
        ((HASH, ""), (HASH, ""), vec![]),
    ] {
        assert_eq!(login(before.0, before.1).restore(&login(now.0, now.1)), options, "{before:?} {now:?}");
    }
}

#[test]
fn an_account_is_disabled_only_if_neither_password_nor_key_lets_in() {
    assert!(login("!$y$abc", "1").is_disabled());
    assert!(!login("!$y$abc", "").is_disabled(), "an SSH key still lets in");
    assert!(!login("$y$abc", "1").is_disabled());
}

#[test]
fn superusers_strangers_and_the_agent_itself_are_refused() {
    let passwd = "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nriposte:x:990:990::/:/bin/false\nalice:x:1000:1000::/:/bin/sh\nbroken:x\n";
    assert_eq!(check(passwd, "alice", Some(990)), Ok(()));
    for (account, reason) in [
        ("root", "superuser"),
        ("toor", "superuser"),
        ("riposte", "agent's own"),
        ("ali", "no such account"),
        ("alice2", "no such account"),
        ("broken", "damaged"),
    ] {
        let refusal = check(passwd, account, Some(990)).unwrap_err();
        assert!(refusal.contains(reason), "{account}: {refusal}");
    }
}

#[test]
fn a_password_in_passwd_itself_is_none_that_shadow_locks() {
    let passwd = "alice:x:1000:1000::/:/bin/sh\nbob:$y$abc:1001:1001::/:/bin/sh\ncarol::1002:1002::/:/bin/sh\n";
    assert!(is_shadowed(passwd, "alice"));
    assert!(!is_shadowed(passwd, "bob") && !is_shadowed(passwd, "carol") && !is_shadowed(passwd, "dave"));
}

#[tokio::test]
async fn a_real_account_is_disabled_and_restored_exactly() {
    if own_namespace::is_inside() {
        return disable_and_restore_real_accounts().await;
    }
    // The copy is in memory only: it holds the host's secrets, and must be gone whatever happens
    // here. Without the host's `/run`, loginctl has no server to ask.
    let own_etc = "mount -t tmpfs tmpfs /run; mkdir /run/etc; cp -a /etc/. /run/etc; mount --bind /run/etc /etc";
    let name = "actions::disable_account::tests::a_real_account_is_disabled_and_restored_exactly";
    let namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    own_namespace::run_again(name, &["usermod", "pkill", "pgrep", "setpriv"], &namespaces, own_etc).await;
}

async fn disable_and_restore_real_accounts() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(mounts.lines().any(|mount| mount.starts_with("tmpfs /etc ")), "the real /etc must not be touched");
    assert_eq!(std::process::id(), 1, "the host's processes must not be reached");
    let line = |name: &str, password: &str, expiry: &str| format!("{name}:{password}:20000:0:99999:7::{expiry}:\n");
    let accounts = [
        ("rip-set", "$6$abc$def", ""),
        ("rip-locked", "!$6$abc$def", ""),
        ("rip-star", "*", "20500"),
        ("rip-empty", "", ""),
        ("rip-never", "!", "40000"),
    ];
    let (mut passwd, mut shadow) =
        (std::fs::read_to_string("/etc/passwd").unwrap(), std::fs::read_to_string("/etc/shadow").unwrap());
    for (position, (name, password, expiry)) in accounts.iter().enumerate() {
        writeln!(passwd, "{name}:x:{}:65534::/nonexistent:/bin/sh", 41_000 + position).unwrap();
        shadow += &line(name, password, expiry);
    }
    std::fs::write("/etc/passwd", passwd).unwrap();
    std::fs::write("/etc/shadow", &shadow).unwrap();
    let host = Host::new(Runner::new(), std::path::Path::new("/nonexistent"));
    let sleeps = ["--reuid", "41000", "--clear-groups", "sleep", "1000"];
    let mut session = tokio::process::Command::new("setpriv").args(sleeps).kill_on_drop(true).spawn().unwrap();
    for (name, password, expiry) in accounts {
        let end_sessions = ["end-sessions".to_owned()];
        let (target, transcript) = (Target::parse(TargetKind::User, name).unwrap(), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&host, &transcript, &target);
        if name == "rip-set" {
            attempt.arguments = &end_sessions;
        }
        let undo = DisableAccount.prepare(&attempt).await.unwrap();
        assert!(!undo.to_string().contains("abc"), "no hash is written down");
        attempt.undo = Some(&undo);
        for _ in 0..2 {
            DisableAccount.apply(&attempt).await.unwrap();
            assert!(DisableAccount.is_in_force(&attempt).await.unwrap(), "{name}");
            assert!(!DisableAccount.is_lifted(&attempt).await.unwrap(), "{name}");
        }
        if name == "rip-set" {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), session.wait()).await;
            assert!(!ended.expect("its sessions are ended").unwrap().success());
        }
        for _ in 0..2 {
            DisableAccount.revert(&attempt).await.unwrap();
            assert!(DisableAccount.is_lifted(&attempt).await.unwrap(), "{name}");
            let shadow = std::fs::read_to_string("/etc/shadow").unwrap();
            // The system sets the day of the last change.
            let now: Vec<&str> =
                shadow.lines().find(|l| l.split(':').next() == Some(name)).unwrap().split(':').collect();
            assert_eq!((now[1], now[7]), (password, expiry), "{name}");
        }
        attempt.undo = None;
        DisableAccount.revert(&attempt).await.unwrap();
        assert!(DisableAccount.is_lifted(&attempt).await.unwrap(), "{name}: not held, so nothing of ours");
    }
}
