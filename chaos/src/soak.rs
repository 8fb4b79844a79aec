//! Steady load for a long time, nothing broken: memory and open files of the manager and of the agents must not grow.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::faults::Database;
use crate::load::Load;
use crate::plan::Plan;
use crate::world::World;

/// The part at the beginning that does not count: caches and pools fill up once, and an agent remembers up to 8,192 commands.
const WARM_UP: f64 = 0.25;

/// One look at a process.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    seconds: f64,
    rss_kib: f64,
    files: f64,
}

/// Samples of one process, or of several added up.
#[derive(Debug, Default)]
struct Series {
    samples: Vec<Sample>,
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

    /// Least squares, per hour, and the standard error of that: a slope within two of these is noise.
    fn slope(&self, of: impl Fn(&Sample) -> f64) -> (f64, f64) {
        let samples = self.counted();
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let n = samples.len() as f64;
        if samples.len() < 3 {
            return (0.0, 0.0);
        }
        let mean = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(value).sum::<f64>() / n;
        let (x, y) = (mean(&|sample| sample.seconds), mean(&|sample| of(sample)));
        let sxx: f64 = samples.iter().map(|sample| (sample.seconds - x).powi(2)).sum();
        let sxy: f64 = samples.iter().map(|sample| (sample.seconds - x) * (of(sample) - y)).sum();
        let slope = sxy / sxx;
        let residual = |sample: &Sample| (of(sample) - y - slope * (sample.seconds - x)).powi(2);
        let error = (samples.iter().map(residual).sum::<f64>() / (n - 2.0) / sxx).sqrt();
        (slope * 3600.0, error * 3600.0)
    }

    fn told(&self, name: &str) -> String {
        let samples = self.counted();
        let (first, last) = (samples.first().copied().unwrap_or_default(), samples.last().copied().unwrap_or_default());
        let most = samples.iter().map(|sample| sample.rss_kib).fold(0.0, f64::max);
        let (rss, rss_error) = self.slope(|sample| sample.rss_kib);
        let (files, _) = self.slope(|sample| sample.files);
        format!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:+.2} ± {:.2} | {:.0} | {:.0} | {files:+.1} |",
            first.rss_kib / 1024.0,
            last.rss_kib / 1024.0,
            most / 1024.0,
            rss / 1024.0,
            rss_error / 1024.0,
            first.files,
            last.files,
        )
    }
}

fn look(pid: u32) -> Option<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let files = files as f64;
    Some((rss, files))
}

/// Runs and tells.
///
/// # Errors
/// If the stage cannot be set.
pub(crate) async fn run(
    database: Database,
    lasts: Duration,
    agents: u64,
    rate: f64,
    samples: Option<&Path>,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<()> {
    let plan = Plan { seed: 1, agents, brief: Duration::from_secs(20), lasting: false };
    let mut world = World::build(database, &plan).await?;
    let base = world.api.base.clone();
    let load = Load::start(plan, &base, &world.api.key, rate)?;
    let every = (lasts / 240).max(Duration::from_millis(500));
    let (mut manager, mut fleet) = (Series::default(), Series::default());
    let begun = Instant::now();
    let mut file = samples.map(crate::programs::append).transpose()?;
    while begun.elapsed() < lasts {
        tokio::time::sleep(every).await;
        let seconds = begun.elapsed().as_secs_f64();
        if let Some((rss_kib, files)) = world.manager.process.pid().and_then(look) {
            manager.samples.push(Sample { seconds, rss_kib, files });
        }
        let mut all = Sample { seconds, ..Sample::default() };
        for (rss, files) in world.agents.iter_mut().filter_map(|agent| agent.process.pid().and_then(look)) {
            all.rss_kib += rss;
            all.files += files;
        }
        fleet.samples.push(all);
        if let (Some(file), Some(manager)) = (&mut file, manager.samples.last()) {
            writeln!(file, "{seconds:.1} {} {} {} {}", manager.rss_kib, manager.files, all.rss_kib, all.files)?;
        }
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
    say("| | RSS MiB at a quarter | at the end | most | slope, MiB/h | files at a quarter | at the end | slope, files/h |".into());
    say("|---|---|---|---|---|---|---|---|".into());
    say(manager.told("manager"));
    say(fleet.told(&format!("{agents} agents together")));
    say(String::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let sample = |n: u32| Sample { seconds: f64::from(n), rss_kib: 100.0 + f64::from(n), files: 7.0 };
        let series = Series { samples: (0..100).map(sample).collect() };
        let (slope, error) = series.slope(|sample| sample.rss_kib);
        assert!((slope - 3600.0).abs() < 0.01 && error < 0.01, "{slope} {error}");
    }
}
