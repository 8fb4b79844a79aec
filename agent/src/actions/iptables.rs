//! Blocks addresses by iptables and ip6tables rules, for hosts without `nft`: one rule in INPUT and
//! one in FORWARD. They are marked as ours, so that an administrator's own rule for the same
//! address is neither counted nor removed.

mod rules;

use std::path::PathBuf;

use riposte_protocol::command::Op;

use self::rules::{ChainSide, Rules, Standing};
use super::about::has;
use super::error::failure;
use super::{ActionError, Attempt};
use crate::platform;
use crate::runner::{Exit, Program, Runner};

/// Limit of copies of one rule that are removed in one step; more than repeated additions ever
/// leave.
const MAX_COPIES: usize = 1000;

fn places(attempt: &Attempt<'_>) -> &'static [ChainSide] {
    const ALL: &[ChainSide] = &[("INPUT", "-s"), ("FORWARD", "-s"), ("OUTPUT", "-d")];
    if has(attempt.arguments, "output") { ALL } else { &ALL[..2] }
}

/// Checks that the installed programs may open the socket that they need.
///
/// # Errors
/// Why not, for people.
pub(super) fn may_talk_to_the_kernel() -> Result<(), String> {
    let is_legacy = ["iptables", "ip6tables"].into_iter().filter_map(Runner::find).any(is_legacy);
    if is_legacy { platform::may_open_raw_sockets() } else { Ok(()) }
}

/// The legacy iptables opens a raw socket. Both versions are one program under many names, and only
/// the program's own output tells which one it is.
fn is_legacy(program: PathBuf) -> bool {
    let own = program.canonicalize().unwrap_or(program);
    !own.file_name().is_some_and(|name| name.to_string_lossy().contains("nft"))
}

pub(super) fn plan(op: Op, attempt: &Attempt<'_>) -> String {
    let flag = if op == Op::Apply { "-I" } else { "-D" };
    places(attempt).iter().map(|&place| rule(attempt, flag, place).text()).collect::<Vec<_>>().join("; ")
}

pub(super) async fn block(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let rules = rules(attempt).await?;
    for &place in places(attempt) {
        match rules.standing(attempt, place) {
            Standing::First => continue,
            // An earlier rule already accepts the packets, so nothing is lost while our rule is
            // moved to the head.
            Standing::Behind => attempt.run(&rule(attempt, "-D", place)).await.map(drop)?,
            Standing::Absent => {}
        }
        attempt.run(&rule(attempt, "-I", place)).await?;
    }
    Ok(())
}

pub(super) async fn is_blocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let rules = rules(attempt).await?;
    Ok(places(attempt).iter().all(|&place| rules.standing(attempt, place) == Standing::First))
}

/// All rules of the listing.
async fn rules(attempt: &Attempt<'_>) -> Result<Rules, ActionError> {
    let program = Program::new(program(attempt), ["-w", "5", "-S"]);
    let exit = attempt.look(&program).await?;
    if exit.is_success() { Ok(Rules::read(&exit.stdout)) } else { Err(failure(&program, &exit)) }
}

pub(super) async fn unblock(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for &place in places(attempt) {
        for _ in 0..MAX_COPIES {
            if !has_rule(attempt, place).await? {
                break;
            }
            attempt.run(&rule(attempt, "-D", place)).await?;
        }
    }
    Ok(())
}

pub(super) async fn is_unblocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    for &place in places(attempt) {
        if has_rule(attempt, place).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn has_rule(attempt: &Attempt<'_>, place: ChainSide) -> Result<bool, ActionError> {
    let program = rule(attempt, "-C", place);
    let exit = attempt.look(&program).await?;
    // 1 means "no such rule", but also some real failures, which print another text.
    let absent = |exit: &Exit| {
        exit.code == 1 && ["Bad rule", "No chain/target/match"].iter().any(|word| exit.stderr.contains(word))
    };
    if exit.is_success() {
        Ok(true)
    } else if absent(&exit) {
        Ok(false)
    } else {
        Err(failure(&program, &exit))
    }
}

fn program(attempt: &Attempt<'_>) -> &'static str {
    let is_v6 = attempt.target.network().is_some_and(|network| network.addr().is_ipv6());
    if is_v6 { "ip6tables" } else { "iptables" }
}

/// `-w 5` waits for the lock that every iptables shares; without it a busy host fails at random.
fn rule(attempt: &Attempt<'_>, flag: &str, (chain, side): ChainSide) -> Program {
    let address = attempt.target.value();
    Program::new(
        program(attempt),
        ["-w", "5", flag, chain, side, address, "-m", "comment", "--comment", "riposte", "-j", "DROP"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_iptables_is_known_behind_its_links() {
        let folder = tempfile::tempdir().unwrap();
        for (program, expected) in
            [("xtables-nft-multi", false), ("xtables-legacy-multi", true), ("xtables-multi", true)]
        {
            let link = folder.path().join(format!("iptables-to-{program}").replace("nft", "new"));
            std::fs::write(folder.path().join(program), "").unwrap();
            std::os::unix::fs::symlink(folder.path().join(program), &link).unwrap();
            assert_eq!(is_legacy(link), expected, "{program}");
        }
        assert!(is_legacy("/nonexistent/iptables".into()), "what is not known needs the more");
    }
}
