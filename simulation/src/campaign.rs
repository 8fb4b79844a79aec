//! Runs many seeds, one after the other, until a number of steps is reached or a promise is broken.

use crate::checker::Violation;
use crate::defect::Defect;
use crate::plan::{MINUTE, Millis, Plan, Shape, draw_up, shape};
use crate::world::World;

/// How long faults happen in a world, in simulated time; a time without faults follows.
pub const FAULTS: Millis = 90 * MINUTE;

/// The totals of several seeds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Number of seeds that were started.
    pub seeds: u64,
    /// Number of steps.
    pub steps: u64,
    /// Number of commands that were queued.
    pub commands: u64,
    /// The first failure, and its seed.
    pub failure: Option<(u64, Violation)>,
}

/// Runs one plan; returns the world as it is at the end.
pub fn play(shape: &Shape, plan: Plan, defect: Option<Defect>, is_traced: bool) -> (World, Result<(), Violation>) {
    let mut world = World::new(shape, plan, FAULTS, defect);
    world.trace = is_traced.then(Vec::new);
    let played = world.play();
    (world, played)
}

/// Runs seed after seed from `first` on, at most `seeds` and until at least `steps` are taken.
pub fn run(first: u64, seeds: u64, steps: u64, defect: Option<Defect>) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in first..first.saturating_add(seeds) {
        if outcome.steps >= steps {
            break;
        }
        let shape = shape(seed);
        let plan = draw_up(&shape, FAULTS);
        let (world, played) = play(&shape, plan, defect, false);
        outcome.seeds += 1;
        outcome.steps += world.steps;
        outcome.commands += world.commands();
        if let Err(violation) = played {
            outcome.failure = Some((seed, violation));
            break;
        }
    }
    outcome
}
