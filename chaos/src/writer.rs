//! The writer of `alerts.json`: a steady rate of lines, some of them in two pieces, and a rotation
//! now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alert_files::{AlertFiles, Rotation};
use crate::random::Random;

/// Interval between two looks at what is due.
const TICK: Duration = Duration::from_millis(40);

/// The running writer.
#[derive(Debug)]
pub(crate) struct Writer {
    stop: CancellationToken,
    task: JoinSet<anyhow::Result<()>>,
}

impl Writer {
    /// Starts writing `rate` lines a second, with a rotation about every `pause`.
    pub(crate) fn start(files: Arc<Mutex<AlertFiles>>, rate: f64, pause: Duration, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(files, rate, pause, Random::new(seed, 0xa1e7), stop.clone()));
        Self { stop, task }
    }

    /// Writes no more. The last line is whole.
    ///
    /// # Errors
    /// If the files could not be written.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.join_next().await.context("no writer is running")??
    }
}

async fn run(
    files: Arc<Mutex<AlertFiles>>,
    rate: f64,
    pause: Duration,
    mut random: Random,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (begun, mut written) = (Instant::now(), 0_u32);
    let mut rotates_at = pause;
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = begun.elapsed();
        while Duration::from_secs_f64(f64::from(written) / rate) < elapsed {
            written += 1;
            // The rest of a line that was begun comes at the next look.
            if random.chance(20) { files.begin_line()? } else { files.line()? }
        }
        if elapsed >= rotates_at {
            files.rotate(Rotation::of(random.next()))?;
            rotates_at =
                elapsed + pause.mul_f64(0.5) + pause.mul_f64(f64::from(u8::try_from(random.between(0, 100))?) / 100.0);
        } else if random.chance(50) {
            files.end_line()?;
        }
    }
    // One line more, so that the file of the end is not empty.
    files.lock().unwrap_or_else(PoisonError::into_inner).line()
}
