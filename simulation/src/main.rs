//! `riposte-simulation`: runs seeds, and prints the shortest plan that fails. `make simulate` calls
//! it.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use riposte_simulation::campaign::{FAULTS, run};
use riposte_simulation::defect::Defect;
use riposte_simulation::plan::{draw_up, shape};
use riposte_simulation::shrink::shrink;

/// Tries to break Riposte's promises in a simulated world.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Without --seed: the first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Without --seed: take at least this many steps
    #[arg(long, default_value_t = 10_000_000)]
    steps: u64,
    /// Build this mistake into the model
    #[arg(long)]
    defect: Option<Defect>,
    /// Print a failure without shortening it
    #[arg(long)]
    whole: bool,
}

fn main() -> std::io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let began = Instant::now();
    let (first, seeds) = arguments.seed.map_or((arguments.first, u64::MAX), |seed| (seed, 1));
    let outcome = run(first, seeds, arguments.steps, arguments.defect);
    let secs = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let per_minute = outcome.steps as f64 / secs.max(0.001) * 60.0 / 1e6;
    let (seeds, steps, commands) = (outcome.seeds, outcome.steps, outcome.commands);
    writeln!(
        out,
        "{steps} steps, {commands} commands, {seeds} seeds in {secs:.1} s: {per_minute:.1} M steps a minute"
    )?;
    let Some((seed, violation)) = outcome.failure else {
        writeln!(out, "no promise was broken")?;
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(out, "seed {seed} breaks a promise: {violation}")?;
    let shape = shape(seed);
    let plan = draw_up(&shape, FAULTS);
    writeln!(out, "{shape:?}")?;
    if arguments.whole {
        let (world, _) = riposte_simulation::campaign::play(&shape, plan, arguments.defect, true);
        for line in world.trace.unwrap_or_default() {
            writeln!(out, "{line}")?;
        }
        return Ok(ExitCode::FAILURE);
    }
    let whole = plan.len();
    let shrunk = shrink(&shape, plan, violation, arguments.defect);
    writeln!(out, "{} of {whole} acts are enough ({} plans tried):", shrunk.plan.len(), shrunk.tries)?;
    for line in &shrunk.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "again: make simulate SEED={seed}")?;
    Ok(ExitCode::FAILURE)
}
