//! Selects the next command of a lane. The result depends only on the journal, so the simulation
//! runs the same code.

use riposte_protocol::delivery::Rank;

use crate::journal::{JournalState, Pending};

/// The first command to execute among those for which `is_ours` holds: one that was begun before a
/// crash and may be half done, otherwise by rank and number. Older commands of the same effect go
/// before it (promise 4).
pub(crate) fn first(state: &JournalState, is_ours: impl Fn(&&Pending) -> bool) -> Option<&Pending> {
    let rank = |pending: &Pending| Rank::of(pending.command.op, pending.command.urgent);
    let ours = || state.pending().filter(&is_ours);
    let foremost = ours().min_by_key(|pending| (pending.started.is_none(), rank(pending), pending.command.seq))?;
    ours().find(|pending| pending.command.effect == foremost.command.effect)
}
