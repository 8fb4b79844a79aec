//! Tests whether an installed program does what an action needs, with a trial that changes nothing
//! in use. An `nft` without its kernel module, or an `/etc` that cannot be written, is found before
//! a response depends on it. The agent reports the reason to the manager.

pub(super) mod cache;

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use self::cache::Found;
use super::error::failure;
use super::{ActionError, Host};
use crate::runner::Program;

/// How long a success is cached, and how long a failure: a repair must be noticed soon.
const BELIEVED: (Duration, Duration) = (Duration::from_mins(10), Duration::from_secs(10));
/// Time limit of one program of a trial.
const PATIENCE: Duration = Duration::from_secs(5);
/// The table, the chain and the routing table of the trial, and an address reserved for
/// documentation.
const NFT_TRIAL: &str = "table inet riposte_probe {
  set tried { type ipv4_addr; flags timeout; elements = { 192.0.2.113 timeout 1m }; }
  chain tried { type filter hook input priority -10; policy accept; ip saddr @tried counter drop; }
}
";
const CHAIN: &str = "riposte-probe";
const ROUTE: &[&str] = &["blackhole", "192.0.2.113", "proto", "113", "table", "11399"];

/// One program of a trial.
struct Trial {
    program: Program,
    /// Whether it only removes the remains of an earlier trial.
    may_fail: bool,
}

/// Tests whether `nft` can load a table, a set and a rule like ours into the kernel; in check mode,
/// so nothing remains. Also, whether the kernel says what it holds: kernels before 4.15 do not name a
/// single element, and a sandbox may forbid to ask.
pub(super) fn nft(host: &Host) -> Result<(), String> {
    host.has_programs(&["nft"])?;
    tried(host, "nft", || vec![must(Program::new("nft", ["-c", "-f", "-"]).stdin(NFT_TRIAL))])?;
    let answer =
        host.ruleset().and_then(|mut ruleset| ruleset.has_element("riposte_probe", "tried", &[192, 0, 2, 113]));
    answer.map(drop).map_err(|error| format!("the kernel does not say what nftables holds: {error}"))
}

/// Tests whether `iptables-restore` changes many rules in one transaction as we call it; versions
/// before 1.6.2 have no `-w`.
pub(super) fn iptables_restore(host: &Host) -> Result<(), String> {
    host.has_programs(&["iptables-restore", "ip6tables-restore"])?;
    tried(host, "iptables-restore", || {
        let test = |name| Program::new(name, ["-w", "5", "--noflush", "--test"]).stdin("*filter\nCOMMIT\n");
        vec![must(test("iptables-restore")), must(test("ip6tables-restore"))]
    })
}

/// Tests whether `iptables` can make a chain with a rule like ours. No rule jumps to it, and it is
/// removed.
pub(super) fn iptables(host: &Host) -> Result<(), String> {
    let run = |arguments: &[&str]| Program::new("iptables", ["-w", "5"]).arguments(arguments);
    let clear = || [run(&["-F", CHAIN]), run(&["-X", CHAIN])];
    tried(host, "iptables", || {
        let rule = run(&["-A", CHAIN, "-s", "192.0.2.113", "-m", "comment", "--comment", "riposte", "-j", "DROP"]);
        let left = clear().map(|program| Trial { program, may_fail: true });
        left.into_iter().chain([must(run(&["-N", CHAIN])), must(rule)]).chain(clear().map(must)).collect()
    })
}

/// Tests whether `ip` can make a blackhole route. It is in an unused table of its own, and is
/// removed.
pub(super) fn blackhole(host: &Host) -> Result<(), String> {
    host.has_programs(&["ip"])?;
    let run = |verb: &str| must(Program::new("ip", ["-4", "route", verb]).arguments(ROUTE));
    tried(host, "ip route", || vec![run("replace"), run("del")])
}

/// Tests whether firewalld answers.
pub(super) fn firewalld(host: &Host) -> Result<(), String> {
    tried(host, "firewalld", || vec![must(Program::new("firewall-cmd", ["--state"]))])
}

fn must(program: Program) -> Trial {
    Trial { program: program.timeout(PATIENCE), may_fail: false }
}

fn tried(host: &Host, what: &'static str, trials: impl FnOnce() -> Vec<Trial>) -> Result<(), String> {
    let is_fresh = |(at, found): &Found| {
        let believed = if found.is_ok() { BELIEVED.0 } else { BELIEVED.1 };
        at.elapsed() < believed
    };
    let mut known = host.probes.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = known.get(what).filter(|known| is_fresh(known)) {
        return found.clone();
    }
    let found = run(host, trials()).map_err(|error| error.to_string());
    known.insert(what, (Instant::now(), found.clone()));
    found
}

/// Runs the programs one after the other, on a runtime of their own: a probe must not block the
/// agent's runtime.
fn run(host: &Host, trials: Vec<Trial>) -> Result<(), ActionError> {
    let all = async {
        for Trial { program, may_fail } in trials {
            let ended = host.runner.run(&program).await.map_err(|error| ActionError::Failed(error.to_string()))?;
            if !ended.is_success() && !may_fail {
                return Err(failure(&program, &ended));
            }
        }
        Ok(())
    };
    let failed = |reason: String| ActionError::Failed(format!("it could not be tried: {reason}"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| failed(error.to_string()))?.block_on(all)
        });
        thread.join().unwrap_or_else(|_| Err(failed("its thread panicked".into())))
    })
}
