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
    let typed = |&place: &ChainSide| typed(is_v6(attempt), &line(attempt, flag, place)).text();
    places(attempt).iter().map(typed).collect::<Vec<_>>().join("; ")
}

/// Blocks or lifts all of these, or fails: then a part may be done.
pub(super) async fn change(op: Op, attempts: &[Attempt<'_>]) -> Result<(), ActionError> {
    match (op, attempts) {
        (Op::Revert, [one]) => unblock(one).await?,
        _ => change_together(op, attempts).await?,
    }
    for attempt in attempts {
        attempt.note(Some(0), "");
    }
    Ok(())
}

async fn change_together(op: Op, attempts: &[Attempt<'_>]) -> Result<(), ActionError> {
    for (is_v6, attempts) in families(attempts) {
        let Some(first) = attempts.first() else { continue };
        let rules = rules(first, is_v6).await?;
        let mut lines = Vec::new();
        for attempt in &attempts {
            let own = changes(op, attempt, &rules);
            // What the listing does not show may be printed in another way.
            if op == Op::Revert && own.is_empty() {
                unblock(attempt).await?;
            }
            lines.extend(own);
        }
        match attempts.as_slice() {
            // As a person would type it: every version does that.
            [one] => {
                for line in &lines {
                    one.run(&typed(is_v6, line)).await?;
                }
            }
            _ if lines.is_empty() => {}
            _ => {
                let program = restore(is_v6, &lines);
                let exit = first.look(&program).await?;
                if !exit.is_success() {
                    return Err(failure(&program, &exit));
                }
            }
        }
    }
    Ok(())
}

/// Lifts one, whatever a listing shows: `iptables` itself says whether the rule is there.
async fn unblock(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for &place in places(attempt) {
        for _ in 0..MAX_COPIES {
            if !has_rule(attempt, place).await? {
                break;
            }
            attempt.run(&typed(is_v6(attempt), &line(attempt, "-D", place))).await?;
        }
    }
    Ok(())
}

async fn has_rule(attempt: &Attempt<'_>, place: ChainSide) -> Result<bool, ActionError> {
    let program = typed(is_v6(attempt), &line(attempt, "-C", place));
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

/// The changes that are still to be made, as lines of `iptables-restore`.
fn changes(op: Op, attempt: &Attempt<'_>, rules: &Rules) -> Vec<String> {
    let mut lines = Vec::new();
    for &place in places(attempt) {
        match (op, rules.standing(attempt, place)) {
            (Op::Apply, Standing::First) => {}
            (Op::Apply, Standing::Absent) => lines.push(line(attempt, "-I", place)),
            // An earlier rule already accepts the packets, so nothing is lost while our rule is
            // moved to the head.
            (Op::Apply, Standing::Behind) => lines.extend(["-D", "-I"].map(|flag| line(attempt, flag, place))),
            // An interrupted run may have left several.
            (Op::Revert, _) => {
                let copies = rules.copies(attempt, place).min(MAX_COPIES);
                lines.extend(std::iter::repeat_n(line(attempt, "-D", place), copies));
            }
        }
    }
    lines
}

/// Whether each of these is blocked.
pub(super) async fn are_blocked(attempts: &[Attempt<'_>]) -> Vec<Result<bool, ActionError>> {
    look(attempts, |attempt, place, rules| rules.standing(attempt, place) == Standing::First).await
}

/// Whether nothing of each of these is blocked.
pub(super) async fn are_unblocked(attempts: &[Attempt<'_>]) -> Vec<Result<bool, ActionError>> {
    if let [one] = attempts {
        return vec![is_unblocked(one).await];
    }
    look(attempts, |attempt, place, rules| rules.copies(attempt, place) == 0).await
}

async fn is_unblocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    for &place in places(attempt) {
        if has_rule(attempt, place).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn look(
    attempts: &[Attempt<'_>],
    shows: impl Fn(&Attempt<'_>, ChainSide, &Rules) -> bool,
) -> Vec<Result<bool, ActionError>> {
    let mut listings = Vec::new();
    for (is_v6, attempts) in families(attempts) {
        listings.push(match attempts.first() {
            Some(first) => rules(first, is_v6).await.map_err(|error| error.to_string()),
            None => Ok(Rules::default()),
        });
    }
    let result = |attempt: &Attempt<'_>| match &listings[usize::from(is_v6(attempt))] {
        Ok(rules) => Ok(places(attempt).iter().all(|&place| shows(attempt, place, rules))),
        Err(error) => Err(ActionError::Failed(error.clone())),
    };
    attempts.iter().map(result).collect()
}

/// The attempts on IPv4, and those on IPv6.
fn families<'a, 'b>(attempts: &'a [Attempt<'b>]) -> [(bool, Vec<&'a Attempt<'b>>); 2] {
    [false, true].map(|family| (family, attempts.iter().filter(|attempt| is_v6(attempt) == family).collect()))
}

fn is_v6(attempt: &Attempt<'_>) -> bool {
    attempt.target.network().is_some_and(|network| network.addr().is_ipv6())
}

/// All rules of the listing.
async fn rules(attempt: &Attempt<'_>, is_v6: bool) -> Result<Rules, ActionError> {
    let program = Program::new(program(is_v6), ["-w", "5", "-S"]);
    let exit = attempt.look(&program).await?;
    if exit.is_success() { Ok(Rules::read(&exit.stdout)) } else { Err(failure(&program, &exit)) }
}

fn program(is_v6: bool) -> &'static str {
    if is_v6 { "ip6tables" } else { "iptables" }
}

/// One rule of ours, as a line of `iptables-restore` and as arguments of `iptables`.
fn line(attempt: &Attempt<'_>, flag: &str, (chain, side): ChainSide) -> String {
    let address = attempt.target.value();
    format!("{flag} {chain} {side} {address} -m comment --comment riposte -j DROP")
}

/// `-w 5` waits for the lock that every iptables shares; without it a busy host fails at random.
fn typed(is_v6: bool, line: &str) -> Program {
    let words: Vec<&str> = line.split(' ').collect();
    Program::new(program(is_v6), ["-w", "5"]).arguments(&words)
}

/// All of these in one transaction, with the rules that are there.
fn restore(is_v6: bool, lines: &[String]) -> Program {
    let name = if is_v6 { "ip6tables-restore" } else { "iptables-restore" };
    let lines = lines.join("\n");
    Program::new(name, ["-w", "5", "--noflush"]).stdin(format!("*filter\n{lines}\nCOMMIT\n"))
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
