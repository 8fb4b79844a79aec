//! `riposte forward`: alerts from a Wazuh manager's `alerts.json` to Riposte. `files.rs` knows the files, `reader.rs` reads their
//! lines (`open_file.rs`: of one file) into batches (`batch.rs`), `sender.rs` sends each until the manager has it, and only then the cursor (`position.rs`)
//! goes on. After a crash what was sent but not noted is sent again, and the manager knows it as a duplicate.

mod agent_list;
mod batch;
mod catch_up;
mod files;
mod metrics;
mod open_file;
mod position;
mod reader;
mod report;
mod sender;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use self::batch::{Batch, BatchLimits};
use self::catch_up::CatchUp;
use self::files::AlertFiles;
use self::metrics::ForwardMetrics;
use self::position::{CursorFile, Position};
use self::reader::{Reader, Start};
use self::sender::Sender;
use super::client::{NO_BODY, Remote};
use crate::shutdown::{Signals, Tasks};
use crate::telemetry::{self, LogFormat};
use crate::views::auth::WhoAmI;

/// Interval between two writes of the cursor: what a crash sends twice at most.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// Requests at once. Their alerts are confirmed in order.
const IN_FLIGHT: usize = 2;
/// Batches that are read ahead.
const READ_AHEAD: usize = 4;

/// Arguments of `riposte forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    #[command(flatten)]
    remote: Remote,
    /// Wazuh's file of alerts.
    #[arg(long, env = "RIPOSTE_ALERTS", value_name = "FILE", default_value = "/var/ossec/logs/alerts/alerts.json")]
    alerts: PathBuf,
    /// Folder of the cursor: which alerts the manager has.
    #[arg(long, env = "RIPOSTE_STATE_DIR", value_name = "DIR", default_value = "/var/lib/riposte-forward")]
    state_dir: PathBuf,
    /// Where to begin. By default at the cursor, and at the first start with the next alert.
    #[arg(long, value_enum, default_value_t = From::Cursor)]
    from: From,
    /// Serve metrics and `/readyz` at this address, such as 127.0.0.1:9481.
    #[arg(long, env = "RIPOSTE_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Maximum number of alerts per request.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Format of log lines.
    #[arg(long, env = "RIPOSTE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// With the next alert.
    Now,
    /// With the first alert of the present file.
    Beginning,
    /// Where the forwarder was; at the first start with the next alert.
    Cursor,
}

/// Runs the forwarder until a signal.
///
/// # Errors
/// If the file is none with alerts, the cursor cannot be read, or the manager refuses the key.
pub async fn run(args: ForwardArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(args.log_format);
    let cursor = CursorFile::open(&args.state_dir)?;
    let start = match args.from {
        From::Now => Start::Now,
        From::Beginning => Start::Beginning,
        From::Cursor => cursor.read()?.map_or(Start::Now, Start::After),
    };
    check_key(&args.remote).await?;
    let (tasks, metrics) = (Tasks::new(), Arc::new(ForwardMetrics::default()));
    let stop = tasks.stopping().clone();
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    if let Some(listen) = args.metrics_listen {
        tasks.spawn("metrics", metrics::serve(listen, Arc::clone(&metrics), stop.clone()).await?);
    }
    if let Some(keys) = agent_list::beside(&args.alerts) {
        tasks.spawn("agent list", agent_list::run(args.remote.clone(), keys, stop.clone()));
    }
    tasks.spawn("report", report::run(args.remote.clone(), Arc::clone(&metrics), stop.clone()));
    let sender = Sender::new(args.remote, Arc::clone(&metrics), stop.clone())?;
    let files = AlertFiles::new(args.alerts);
    let mut catch_up = CatchUp::new(files.clone(), Arc::clone(&metrics), &start);
    // The largest alert fits whole.
    let limits = BatchLimits { lines: args.batch.into(), bytes: 1024 * 1024 };
    let (batches, mut read) = mpsc::channel(READ_AHEAD);
    let reader = Reader::new(files, limits, batches, Arc::clone(&metrics), stop.clone());
    let mut reading = tokio::task::spawn_blocking(move || reader.run(start));
    let read = futures_util::stream::poll_fn(move |context| read.poll_recv(context));
    let mut delivered = read.map(|batch| sender.deliver(batch)).buffered(IN_FLIGHT);
    let mut saver = Saver { cursor, pending: None, saved_at: None, metrics: Arc::clone(&metrics) };
    let mut tick = tokio::time::interval(SAVE_EVERY);
    let ended = loop {
        tokio::select! {
            batch = delivered.next() => match batch {
                Some(Ok(batch)) => {
                    saver.reached(&batch);
                    catch_up.reached(batch.end.as_ref());
                }
                // The reader ended: its result says why.
                Some(Err(_)) | None => break (&mut reading).await?,
            },
            _ = tick.tick() => { saver.save_if_due(); catch_up.tick(); }
            () = signals.next() => { tracing::info!("stopping"); tasks.stop(); }
            ended = &mut reading, if !reading.is_finished() => break ended?,
        }
    };
    tasks.stop();
    saver.save();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the manager who the key is of, so that a wrong one is said at once. A manager that is away is waited for.
async fn check_key(remote: &Remote) -> anyhow::Result<()> {
    let reply = match remote.send(reqwest::Method::GET, "/v1/whoami", None, NO_BODY).await {
        Ok(reply) => reply,
        // Such as no key at all.
        Err(error) if remote.bearer().await.is_err() => return Err(error),
        Err(error) => {
            tracing::warn!("{error:#}; the alerts wait in their files");
            return Ok(());
        }
    };
    if matches!(reply.status.as_u16(), 401 | 403) {
        bail!(
            "the manager refuses the key ({}). `riposte key add` makes one with the role ingest",
            reply.refused().unwrap_or_default()
        );
    }
    if reply.status.is_success() {
        let me: WhoAmI = reply.done()?;
        tracing::info!("forwarding as {}", me.principal);
    }
    Ok(())
}

/// Writes the cursor, at most each [`SAVE_EVERY`].
struct Saver {
    cursor: CursorFile,
    /// Reached, and not written yet.
    pending: Option<Position>,
    saved_at: Option<Instant>,
    metrics: Arc<ForwardMetrics>,
}

impl Saver {
    fn reached(&mut self, batch: &Batch) {
        self.pending.clone_from(&batch.end);
        self.save_if_due();
    }

    fn save_if_due(&mut self) {
        if self.saved_at.is_none_or(|at| at.elapsed() >= SAVE_EVERY) {
            self.save();
        }
    }

    fn save(&mut self) {
        let Some(position) = &self.pending else { return };
        self.saved_at = Some(Instant::now());
        match self.cursor.write(position) {
            Ok(()) => self.pending = None,
            // It is tried again at the next tick; until then a crash would send more twice.
            Err(error) => {
                self.metrics.cursor_failures.inc();
                tracing::error!("cannot write the cursor: {error}");
            }
        }
    }
}
