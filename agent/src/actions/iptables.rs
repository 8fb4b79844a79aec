//! Blocks addresses by iptables and ip6tables rules, for hosts without `nft`: one rule in INPUT and one in FORWARD,
//! marked as ours, so that an administrator's own rule for the same address is neither counted nor removed.

use riposte_protocol::command::Op;

use super::attempt::failure;
use super::{ActionError, Attempt};
use crate::runner::{Exit, Program};

const CHAINS: [&str; 2] = ["INPUT", "FORWARD"];
/// The most copies of one rule that are removed in one go; more than any history of double adds leaves behind.
const MAX_COPIES: usize = 1000;

pub(super) fn plan(op: Op, attempt: &Attempt<'_>) -> String {
    let flag = if op == Op::Apply { "-I" } else { "-D" };
    CHAINS.map(|chain| rule(attempt, flag, chain).text()).join("; ")
}

pub(super) async fn block(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for chain in CHAINS {
        if !has_rule(attempt, chain).await? {
            attempt.run(&rule(attempt, "-I", chain)).await?;
        }
    }
    Ok(())
}

pub(super) async fn is_blocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    for chain in CHAINS {
        if !has_rule(attempt, chain).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) async fn unblock(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for chain in CHAINS {
        for _ in 0..MAX_COPIES {
            if !has_rule(attempt, chain).await? {
                break;
            }
            attempt.run(&rule(attempt, "-D", chain)).await?;
        }
    }
    Ok(())
}

pub(super) async fn is_unblocked(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    for chain in CHAINS {
        if has_rule(attempt, chain).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn has_rule(attempt: &Attempt<'_>, chain: &str) -> Result<bool, ActionError> {
    let program = rule(attempt, "-C", chain);
    let exit = attempt.look(&program).await?;
    // 1 is "no such rule", and also some real failures; those say something else than this.
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

/// `-w 5` waits for the lock that every iptables shares; without it a busy host fails at random.
fn rule(attempt: &Attempt<'_>, flag: &str, chain: &str) -> Program {
    let address = attempt.target.value();
    let program = if attempt.target.ip().is_some_and(|ip| ip.is_ipv6()) { "ip6tables" } else { "iptables" };
    Program::new(
        program,
        ["-w", "5", flag, chain, "-s", address, "-m", "comment", "--comment", "riposte", "-j", "DROP"],
    )
}
