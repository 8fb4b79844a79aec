//! Whose turn it is among the commands of a lane. A function of the ledger, so that the simulation runs the same code.

use riposte_protocol::delivery::Rank;

use crate::journal::{Ledger, Pending};

/// The command to execute first among those that are ours: one that was begun before a crash and may be half done, else by
/// rank and number. Those of its effect that came before it go before it (promise 4).
pub(crate) fn first(ledger: &Ledger, is_ours: impl Fn(&&Pending) -> bool) -> Option<&Pending> {
    let rank = |pending: &Pending| Rank::of(pending.command.op, pending.command.urgent);
    let ours = || ledger.pending().filter(&is_ours);
    let foremost = ours().min_by_key(|pending| (pending.started.is_none(), rank(pending), pending.command.seq))?;
    ours().find(|pending| pending.command.effect == foremost.command.effect)
}
