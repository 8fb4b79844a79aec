//! Many seeds, one after the other, until so many steps are taken or a promise is broken.

use crate::checker::Violation;
use crate::defect::Defect;
use crate::plan::{MINUTE, Millis, Plan, Shape, draw_up, shape};
use crate::world::World;

/// For how long there are faults in a world, in simulated time; it ends with a time without any.
pub const FAULTS: Millis = 90 * MINUTE;

/// What came out of some seeds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seeds that were begun.
    pub seeds: u64,
    /// The steps that were taken.
    pub steps: u64,
    /// The commands that were queued.
    pub commands: u64,
    /// The first failure, and its seed.
    pub failure: Option<(u64, Violation)>,
}

/// Plays one plan; gives the world as it is at the end.
pub fn play(shape: &Shape, plan: Plan, defect: Option<Defect>, is_traced: bool) -> (World, Result<(), Violation>) {
    let mut world = World::new(shape, plan, FAULTS, defect);
    world.trace = is_traced.then(Vec::new);
    let played = world.play();
    (world, played)
}

/// Plays seed after seed from `first` on, at most `seeds` and until at least `steps` are taken.
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
