//! Blocks addresses and networks in an nftables table of our own, `inet riposte`: one set for each
//! family and prefix length, and two chains that drop their packets before the host's own filters
//! run. The host's own rules are never changed.
//!
//! A set holds plain addresses, and a rule masks the address before the lookup: interval sets would
//! refuse overlapping networks. An element has a kernel time-out as a backup of the agent's own
//! timer: if the agent never runs again, the block still ends.
//!
//! `nft` changes the table, any number of blocks in one transaction. What the table holds is asked
//! of the kernel itself. The kernel needs about 5 ms for a transaction that only adds, and 15 ms or
//! more for one that also removes. So adding is tried first, and the chains are only verified.

mod fence;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use riposte_protocol::command::Op;

use self::fence::{Fence, TABLE, TABLE_NAME};
use super::error::failure;
use super::{ActionError, Attempt, Host};
use crate::platform::ruleset::Ruleset;
use crate::runner::{Exit, Program};

pub(super) fn plan(op: Op, attempt: &Attempt<'_>) -> String {
    let Ok(fences) = Fence::all(attempt) else { return String::new() };
    match op {
        Op::Apply => {
            let script = fences.iter().map(|fence| fence.definition() + &fence.creation(attempt.remaining));
            transaction(script.collect::<String>()).text()
        }
        Op::Revert => {
            let removals = fences.iter().map(|fence| transaction(fence.removal()).text());
            removals.collect::<Vec<_>>().join("; ")
        }
    }
}

/// Whether each of these is blocked.
pub(super) fn are_blocked(attempts: &[Attempt<'_>]) -> Vec<Result<bool, ActionError>> {
    look_at_each(attempts, |look, fences| look.all(fences, |look, fence| Ok(look.is_whole(fence)? && look.has(fence)?)))
}

/// Whether nothing of each of these is blocked.
pub(super) fn are_unblocked(attempts: &[Attempt<'_>]) -> Vec<Result<bool, ActionError>> {
    look_at_each(attempts, |look, fences| look.all(fences, |look, fence| Ok(!look.has(fence)?)))
}

/// Blocks or lifts all of these, or fails.
pub(super) async fn change(op: Op, attempts: &[Attempt<'_>]) -> Result<(), ActionError> {
    let Some(first) = attempts.first() else { return Ok(()) };
    match op {
        Op::Apply => block(first, attempts).await?,
        Op::Revert => unblock(first, attempts).await?,
    }
    for attempt in attempts {
        attempt.note(Some(0), "");
    }
    Ok(())
}

/// Blocks all of these. The programs are run by the first attempt.
async fn block(first: &Attempt<'_>, attempts: &[Attempt<'_>]) -> Result<(), ActionError> {
    let fences = fences(attempts)?;
    let script = |part: fn(Fence, Option<Duration>) -> String| {
        fences.iter().map(|(attempt, fence)| part(*fence, attempt.remaining)).collect::<String>()
    };
    // Its failure is an answer: there is no table yet, or the end of an element has to be moved.
    let created = first.look(&transaction(script(Fence::creation))).await?;
    let is_there = created.is_success()
        || (created.stderr.contains("File exists")
            && first.look(&transaction(script(Fence::renewal))).await?.is_success());
    // If the kernel does not answer, the look that follows says so.
    if is_there && are_whole(first.host, &fences).unwrap_or(true) {
        return Ok(());
    }
    let classes: HashMap<String, Fence> = fences.iter().map(|(_, fence)| (fence.set(), *fence)).collect();
    let whole = classes.values().map(|fence| fence.definition()).collect::<String>() + &script(Fence::renewal);
    let program = transaction(whole.clone());
    let defined = first.look(&program).await?;
    if defined.is_success() {
        return Ok(());
    }
    // A set of another kind, or a chain at another hook, cannot have blocked anything: it is made
    // anew. The other classes of the table are kept.
    let mut ruleset = first.host.ruleset().map_err(|error| unseen(&error))?;
    let mut obstacles = String::new();
    for fence in classes.values() {
        obstacles.extend(fence.obstacle(&mut ruleset).map_err(|error| unseen(&error))?);
    }
    if obstacles.is_empty() {
        return Err(failure(&program, &defined));
    }
    tracing::warn!(table = TABLE, "a set or a chain of the firewall table is another one: it is made anew");
    let program = transaction(obstacles + &whole);
    let cleared = first.look(&program).await?;
    if cleared.is_success() { Ok(()) } else { Err(failure(&program, &cleared)) }
}

/// Lifts all of these. It is changed without a look first: a change waits for one that is under way,
/// such as that of a program that was stopped, and a look does not.
async fn unblock(first: &Attempt<'_>, attempts: &[Attempt<'_>]) -> Result<(), ActionError> {
    let fences = fences(attempts)?;
    let program = transaction(fences.iter().map(|(_, fence)| fence.removal()).collect::<String>());
    let exit = first.look(&program).await?;
    if exit.is_success() {
        return Ok(());
    }
    if attempts.len() > 1 || !is_missing(&exit) {
        return Err(failure(&program, &exit));
    }
    // Without a set there is no element; the other direction may have one.
    for (_, fence) in fences {
        let program = transaction(fence.removal());
        let exit = first.look(&program).await?;
        if !exit.is_success() && !is_missing(&exit) {
            return Err(failure(&program, &exit));
        }
    }
    Ok(())
}

/// What each attempt blocks.
fn fences<'a, 'b>(attempts: &'a [Attempt<'b>]) -> Result<Vec<(&'a Attempt<'b>, Fence)>, ActionError> {
    let mut all = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        all.extend(Fence::all(attempt)?.into_iter().map(|fence| (attempt, fence)));
    }
    Ok(all)
}

fn are_whole(host: &Host, fences: &[(&Attempt<'_>, Fence)]) -> io::Result<bool> {
    let mut look = Look::open(host)?;
    for (_, fence) in fences {
        if !look.is_whole(*fence)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn look_at_each(
    attempts: &[Attempt<'_>],
    shows: impl Fn(&mut Look, &[Fence]) -> io::Result<bool>,
) -> Vec<Result<bool, ActionError>> {
    let mut look = attempts.first().map(|first| Look::open(first.host));
    let result = |attempt: &Attempt<'_>| match look.as_mut() {
        Some(Ok(look)) => shows(look, &Fence::all(attempt)?).map_err(|error| unseen(&error)),
        Some(Err(error)) => Err(unseen(error)),
        None => Ok(false),
    };
    attempts.iter().map(result).collect()
}

fn unseen(error: &io::Error) -> ActionError {
    ActionError::Failed(format!("the kernel did not say what nftables holds: {error}"))
}

/// One look at the kernel. Each class of networks has a set and chains, which are looked at once.
struct Look {
    ruleset: Ruleset,
    whole: HashMap<String, bool>,
}

impl Look {
    fn open(host: &Host) -> io::Result<Self> {
        Ok(Self { ruleset: host.ruleset()?, whole: HashMap::new() })
    }

    /// Whether a packet of the fence's class is looked up in its set, and dropped if it is in it.
    fn is_whole(&mut self, fence: Fence) -> io::Result<bool> {
        if let Some(known) = self.whole.get(&fence.set()) {
            return Ok(*known);
        }
        let is_whole = self.ruleset.is_table_awake(TABLE_NAME)? && fence.is_whole_in(&mut self.ruleset)?;
        self.whole.insert(fence.set(), is_whole);
        Ok(is_whole)
    }

    fn has(&mut self, fence: Fence) -> io::Result<bool> {
        fence.is_element_of(&mut self.ruleset)
    }

    fn all(&mut self, fences: &[Fence], holds: impl Fn(&mut Self, Fence) -> io::Result<bool>) -> io::Result<bool> {
        for fence in fences {
            if !holds(self, *fence)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(super) fn transaction(script: impl Into<String>) -> Program {
    Program::new("nft", ["-f", "-"]).stdin(script)
}

/// `nft` has one exit code for all failures; only the kernel's text for "not there" differs.
pub(super) fn is_missing(exit: &Exit) -> bool {
    exit.stderr.contains("No such file or directory")
}
