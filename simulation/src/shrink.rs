//! The shortest plan that still fails: acts are taken out, in ever smaller pieces, for as long as the same promise is
//! broken without them.

use crate::campaign::play;
use crate::checker::Violation;
use crate::defect::Defect;
use crate::plan::{Plan, Shape};

/// Plans that are tried at most.
const TRIES: usize = 2000;

/// A failure that cannot be made shorter.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left of the plan.
    pub plan: Plan,
    /// Which promise it breaks.
    pub violation: Violation,
    /// What happens, one line an event.
    pub trace: Vec<String>,
    /// How many plans were tried.
    pub tries: usize,
}

/// Shortens `plan`, which breaks `violation`.
pub fn shrink(shape: &Shape, plan: Plan, violation: Violation, defect: Option<Defect>) -> Shrunk {
    let mut shrunk = Shrunk { plan, violation, trace: Vec::new(), tries: 0 };
    let mut piece = shrunk.plan.len().div_ceil(2);
    while piece > 0 && shrunk.tries < TRIES {
        let before = shrunk.plan.len();
        // From the end: what comes after the failure goes first.
        let mut end = shrunk.plan.len();
        while end > 0 && shrunk.tries < TRIES {
            let start = end.saturating_sub(piece);
            let mut shorter = shrunk.plan.clone();
            shorter.drain(start..end.min(shorter.len()));
            shrunk.tries += 1;
            let (_, played) = play(shape, shorter.clone(), defect, false);
            if let Err(violation) = played
                && violation.promise == shrunk.violation.promise
            {
                (shrunk.plan, shrunk.violation) = (shorter, violation);
            }
            end = start;
        }
        if piece > 1 || shrunk.plan.len() == before {
            piece /= 2;
        }
    }
    let (world, _) = play(shape, shrunk.plan.clone(), defect, true);
    shrunk.trace = world.trace.unwrap_or_default();
    shrunk
}
