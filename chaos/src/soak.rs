//! Steady load for a long time, without faults: memory and open files of the manager and of the
//! agents must not grow.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::faults::Database;
use crate::load::Load;
use crate::plan::Plan;
use crate::programs::Process;
use crate::world::World;

/// Share of the run at its start that does not count. Caches and pools fill up once. An agent,
/// which remembers its last 8,192 commands, reaches its level with the second or third compaction
/// of the journal: at ten alerts a second for each agent, after 18 minutes.
const WARM_UP: f64 = 1.0 / 3.0;
/// A shorter run reports its measurements without a verdict: its warm-up ends before the caches are
/// full.
const JUDGED_FROM: Duration = Duration::from_mins(54);
/// Number of blocks that the rest is divided into, to estimate the scatter. Single samples would
/// not do: neighbours are nearly equal, so their scatter says little about the next minutes.
const BLOCKS: usize = 12;
/// Student's t for a confidence of 95 % with `BLOCKS - 2` degrees of freedom.
const STUDENT: f64 = 2.23;
/// Growth an hour that counts as none: one part in twenty.
const NEGLIGIBLE: f64 = 0.05;
/// Share of the load that must be acknowledged: an idle manager does not grow.
const ENOUGH: f64 = 0.9;

/// One measurement of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    seconds: f64,
    rss_kib: f64,
    /// Memory without the pages of files, such as the program itself, which are loaded on first use
    /// and can be dropped again.
    own_kib: f64,
    files: f64,
}

/// Samples of one process, or the sum of several.
#[derive(Debug, Default)]
struct Series {
    samples: Vec<Sample>,
}

/// Change of a value, an hour.
#[derive(Clone, Copy, Debug)]
struct Slope {
    mean: f64,
    per_hour: f64,
    /// Half the width of the 95 % confidence interval of the slope.
    within: f64,
}

/// What a slope shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Flat,
    /// The samples scatter too much, or are too few.
    CannotTell,
    Grows,
}

impl Slope {
    fn verdict(self) -> Verdict {
        let negligible = NEGLIGIBLE * self.mean;
        if self.per_hour + self.within <= negligible {
            Verdict::Flat
        } else if self.per_hour - self.within > negligible {
            Verdict::Grows
        } else {
            Verdict::CannotTell
        }
    }
}

impl Series {
    fn counted(&self) -> &[Sample] {
        let length = self.samples.len();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count"
        )]
        let skipped = (length as f64 * WARM_UP) as usize;
        &self.samples[skipped.min(length)..]
    }

    /// Least squares over the means of [`BLOCKS`] blocks.
    fn slope(&self, of: impl Fn(&Sample) -> f64) -> Slope {
        let counted = self.counted();
        let blocks = counted.chunks_exact((counted.len() / BLOCKS).max(1)).take(BLOCKS);
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| values.sum::<f64>() / count.max(1) as f64;
        let points: Vec<(f64, f64)> = blocks
            .map(|block| {
                let seconds = mean(&mut block.iter().map(|sample| sample.seconds), block.len());
                (seconds, mean(&mut block.iter().map(&of), block.len()))
            })
            .collect();
        let x = mean(&mut points.iter().map(|point| point.0), points.len());
        let y = mean(&mut points.iter().map(|point| point.1), points.len());
        if points.len() < BLOCKS {
            return Slope { mean: y, per_hour: 0.0, within: f64::INFINITY };
        }
        let sxx: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / sxx;
        let residual = |point: &(f64, f64)| (point.1 - y - slope * (point.0 - x)).powi(2);
        #[expect(clippy::cast_precision_loss, reason = "twelve")]
        let error = (points.iter().map(residual).sum::<f64>() / (BLOCKS - 2) as f64 / sxx).sqrt();
        Slope { mean: y, per_hour: slope * 3600.0, within: STUDENT * error * 3600.0 }
    }

    fn verdict(&self) -> Verdict {
        self.slope(|sample| sample.own_kib).verdict().max(self.slope(|sample| sample.files).verdict())
    }

    fn told(&self, name: &str) -> String {
        let samples = self.counted();
        let (first, last) = (samples.first().copied().unwrap_or_default(), samples.last().copied().unwrap_or_default());
        let most = samples.iter().map(|sample| sample.own_kib).fold(0.0, f64::max);
        let (own, files) = (self.slope(|sample| sample.own_kib), self.slope(|sample| sample.files));
        format!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:+.2} ± {:.2} | {:.1} | {:.1} | {:.0} | {:.0} | {:+.1} ± {:.1} |",
            first.own_kib / 1024.0,
            last.own_kib / 1024.0,
            most / 1024.0,
            own.per_hour / 1024.0,
            own.within / 1024.0,
            first.rss_kib / 1024.0,
            last.rss_kib / 1024.0,
            first.files,
            last.files,
            files.per_hour,
            files.within,
        )
    }
}

/// Measures a process.
fn look(process: &mut Process, seconds: f64) -> Option<Sample> {
    let (rss_kib, own_kib) = (process.kib("VmRSS")?, process.kib("RssAnon")?);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let files = process.open_files()? as f64;
    Some(Sample { seconds, rss_kib, own_kib, files })
}

/// Runs and reports; returns whether nothing grew, if it ran for long enough to tell.
///
/// # Errors
/// If the set-up fails.
pub(crate) async fn run(
    database: Database,
    lasts: Duration,
    agents: u64,
    rate: f64,
    samples: Option<&Path>,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<bool> {
    let plan = Plan { seed: 1, agents, brief: Duration::from_secs(20), lasting: false };
    let mut world = World::build(database, 1, &plan).await?;
    let base = world.api.base.clone();
    let load = Load::start(plan, &base, &world.api.key, rate)?;
    let every = (lasts / 720).max(Duration::from_millis(500));
    let (mut manager, mut fleet) = (Series::default(), Series::default());
    let begun = Instant::now();
    let mut file = samples.map(crate::programs::append).transpose()?;
    while begun.elapsed() < lasts {
        tokio::time::sleep(every).await;
        let seconds = begun.elapsed().as_secs_f64();
        let one = look(&mut world.manager.process, seconds).context("the manager has ended")?;
        let mut all = Sample { seconds, ..Sample::default() };
        for agent in &mut world.agents {
            let seen = look(&mut agent.process, seconds).with_context(|| format!("{} has ended", agent.name))?;
            all.rss_kib += seen.rss_kib;
            all.own_kib += seen.own_kib;
            all.files += seen.files;
        }
        if let Some(file) = &mut file {
            write!(file, "{seconds:.1} {}", load.acknowledged())?;
            for Sample { rss_kib, own_kib, files, .. } in [one, all] {
                write!(file, " {rss_kib} {own_kib} {files}")?;
            }
            writeln!(file)?;
        }
        manager.samples.push(one);
        fleet.samples.push(all);
    }
    let acknowledged = load.acknowledged();
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    let reached = acknowledged as f64 / begun.elapsed().as_secs_f64();
    let seen = load.finish(Duration::from_secs(30)).await;
    say(format!(
        "#### {}: {} s, {agents} agents, {reached:.0} alerts/s ({acknowledged} in all); requests: {:?}\n",
        database.name(),
        lasts.as_secs(),
        seen.outcomes
    ));
    say("| | own memory MiB at a third | at the end | most | slope, MiB/h | RSS MiB at a third | at the end | \
         files at a third | at the end | slope, files/h |"
        .into());
    say("|---|---|---|---|---|---|---|---|---|---|".into());
    say(manager.told("manager"));
    say(fleet.told(&format!("{agents} agents together")));
    let (verdict, is_judged) = (manager.verdict().max(fleet.verdict()), lasts >= JUDGED_FROM);
    let what = match verdict {
        Verdict::Flat => "Flat.",
        Verdict::CannotTell => "**Neither flat nor growing: it scatters too much to tell.**",
        Verdict::Grows => "**It grows.**",
    };
    say(format!("\n{what}{}\n", if is_judged { "" } else { " Too short to judge." }));
    let is_loaded = reached >= ENOUGH * rate;
    if !is_loaded {
        say(format!("**Only {reached:.0} of {rate:.0} alerts/s were acknowledged: that shows nothing.**\n"));
    }
    Ok(is_loaded && (verdict == Verdict::Flat || !is_judged))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(own_kib: impl Fn(u32) -> f64) -> Series {
        let sample = |n: u32| Sample { seconds: f64::from(n * 5), own_kib: own_kib(n), ..Sample::default() };
        Series { samples: (0..720).map(sample).collect() }
    }

    #[test]
    fn a_line_has_its_slope() {
        let slope = series(|n| 100.0 + f64::from(n)).slope(|sample| sample.own_kib);
        assert!((slope.per_hour - 720.0).abs() < 0.01 && slope.within < 0.01, "{slope:?}");
    }

    #[test]
    fn growth_is_distinguished_from_scatter_and_warm_up() {
        // Waves of 40 and 7 samples: neighbours are nearly equal, as in a process.
        let waves = |n: u32| 40.0 * (f64::from(n) / 40.0).sin() + 25.0 * (f64::from(n) / 7.0).sin();
        let warming = |n: u32| 1000.0 - 900.0 * (-f64::from(n) / 30.0).exp();
        assert_eq!(series(|n| 1000.0 + waves(n) / 10.0).verdict(), Verdict::Flat);
        assert_eq!(series(warming).verdict(), Verdict::Flat);
        assert_eq!(series(|n| 1000.0 + waves(n)).verdict(), Verdict::CannotTell, "noise proves nothing");
        assert_eq!(series(|n| 1000.0 + waves(n) + 0.3 * f64::from(n)).verdict(), Verdict::Grows);
        assert_eq!(Series { samples: vec![Sample::default(); 5] }.verdict(), Verdict::CannotTell);
    }
}
