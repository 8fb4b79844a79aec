//! Finds the shortest plan that still fails: acts are removed, in ever smaller groups, as long as
//! the same promise is broken without them.

use crate::campaign::play;
use crate::checker::Violation;
use crate::defect::Defect;
use crate::plan::{Act, Plan, Shape};

/// Limit of plans that are tried.
const TRIES: usize = 2000;

/// A failure that cannot be shortened any more.
#[derive(Debug)]
pub struct Shrunk {
    /// The remaining plan.
    pub plan: Plan,
    /// The promise that it breaks.
    pub violation: Violation,
    /// The events, one line each.
    pub trace: Vec<String>,
    /// Number of plans that were tried.
    pub tries: usize,
}

/// Shortens `plan`, which breaks `violation`.
pub fn shrink(shape: &Shape, plan: Plan, violation: Violation, defect: Option<Defect>) -> Shrunk {
    let mut shrunk = Shrunk { plan, violation, trace: Vec::new(), tries: 0 };
    let mut piece = shrunk.plan.len().div_ceil(2);
    while piece > 0 && shrunk.tries < TRIES {
        let before = shrunk.plan.len();
        // From the end: acts after the failure are removed first.
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
    narrow(shape, &mut shrunk, defect);
    let (world, _) = play(shape, shrunk.plan.clone(), defect, true);
    shrunk.trace = readable(world.trace.unwrap_or_default(), &shrunk.violation.detail);
    shrunk
}

/// The trace without events of other agents than the violation's, and without connections that
/// carried no message.
fn readable(trace: Vec<String>, violation: &str) -> Vec<String> {
    let about = |text: &str| {
        let number = text.split_once("agent ").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect());
        number.filter(|number: &String| !number.is_empty())
    };
    let agent = about(violation);
    let is_mine = |line: &&String| agent.is_none() || about(line).is_none_or(|other| Some(other) == agent);
    let mine: Vec<String> = trace.iter().filter(is_mine).cloned().collect();
    let is_opening = |line: &String| line.contains("opens connection");
    let next = mine.iter().skip(1).map(is_opening).chain([false]);
    mine.iter().zip(next).filter(|(line, next)| !(is_opening(line) && *next)).map(|(line, _)| line.clone()).collect()
}

/// Restricts acts for all agents to one agent, where one is enough.
fn narrow(shape: &Shape, shrunk: &mut Shrunk, defect: Option<Defect>) {
    for index in 0..shrunk.plan.len() {
        for one in 0..shape.agents {
            let mut narrower = shrunk.plan.clone();
            let Act::Respond { agent: agent @ None, .. } = &mut narrower[index].act else { break };
            *agent = Some(one);
            shrunk.tries += 1;
            let (_, played) = play(shape, narrower.clone(), defect, false);
            if let Err(violation) = played
                && violation.promise == shrunk.violation.promise
            {
                (shrunk.plan, shrunk.violation) = (narrower, violation);
            }
        }
    }
}
