//! `riposte-chaos`: runs a real manager and real agents, injects faults of every kind, and verifies
//! the promises. `docs/reliability.md` explains how to run it and how to read the results.

mod alert_files;
mod api;
mod clock;
mod consumer;
mod endpoint;
mod faults;
mod forwarder;
mod hostile;
mod ledger;
mod load;
mod peer;
mod plan;
mod postgres;
mod postgres_programs;
mod programs;
mod proxy;
mod random;
mod reader;
mod report;
mod run;
mod sandbox;
mod shield;
mod soak;
mod space;
mod verify;
mod witness;
mod world;
mod writer;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use faults::Database;

/// Injects faults into a manager and its agents, and verifies the promises.
#[derive(Debug, Parser)]
#[command(name = "riposte-chaos", version)]
enum Cli {
    /// Inject faults under load, then verify every promise
    Run(RunArgs),
    /// Fill the store's disk under load, and verify that the service resumes by itself
    Space(SpaceArgs),
    /// Steady load without faults: memory and open files must not grow
    Soak(SoakArgs),
    /// Slow and oversized clients: what they cost all other clients
    Hostile(HostileArgs),
}

#[derive(Debug, clap::Args)]
struct SoakArgs {
    /// The database; default: both, one after the other
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// Duration, in seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Number of agents
    #[arg(long, default_value_t = 20)]
    agents: u64,
    /// Alerts a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Append every sample to this file
    #[arg(long)]
    samples: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct HostileArgs {
    /// Largest allowed ratio of times with and without them
    #[arg(long, default_value_t = 2.0)]
    most: f64,
    /// Number of turns with and without them, each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Debug, clap::Args)]
struct SpaceArgs {
    /// The database; default: both, one after the other
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// How long the disk is full, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The database; default: both, one after the other
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// How long faults are injected, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of managers; several only on PostgreSQL
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    managers: u8,
    /// Number of agents
    #[arg(long, default_value_t = 50)]
    agents: u64,
    /// Alerts a second
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// The same seed injects the same faults at the same times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Mean time between two faults, in milliseconds
    #[arg(long, default_value_t = 2000)]
    gap_ms: u64,
    /// Duration of a short block, in seconds
    #[arg(long, default_value_t = 20)]
    brief_secs: u64,
    /// Append the tables to this file, as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = sandbox::enter().and_then(|()| {
        // Programs must be started on the main thread: they are killed when their starting thread
        // ends.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            match cli {
                Cli::Run(args) => chaos(&args).await,
                Cli::Space(args) => space(&args).await,
                Cli::Soak(args) => soak(&args).await,
                Cli::Hostile(args) => hostile::run(args.most, args.rounds, &mut |line| say(&line)).await,
            }
        })
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("riposte-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // A closed standard output must not stop the run.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The named database, or both.
fn databases(named: Option<Database>) -> Vec<Database> {
    named.map_or_else(|| vec![Database::Sqlite, Database::Postgres], |database| vec![database])
}

async fn space(args: &SpaceArgs) -> anyhow::Result<bool> {
    let mut is_good = true;
    for database in databases(args.database) {
        let verdicts = space::run(database, Duration::from_secs(args.seconds), &mut |line| say(&line)).await?;
        for verdict in verdicts {
            say(&format!(
                "{}: {} checked, {} broken {:?}",
                verdict.promise, verdict.checked, verdict.broken, verdict.told
            ));
            is_good &= verdict.broken == 0;
        }
    }
    Ok(is_good)
}

async fn soak(args: &SoakArgs) -> anyhow::Result<bool> {
    let SoakArgs { seconds, agents, rate, samples, .. } = args;
    let mut is_good = true;
    for database in databases(args.database) {
        let lasts = Duration::from_secs(*seconds);
        is_good &= soak::run(database, lasts, *agents, *rate, samples.as_deref(), &mut |line| say(&line)).await?;
    }
    Ok(is_good)
}

async fn chaos(args: &RunArgs) -> anyhow::Result<bool> {
    let mut is_good = true;
    for database in databases(args.database) {
        let order = run::Order {
            database,
            seed: args.seed,
            lasts: Duration::from_secs(args.seconds),
            managers: usize::from(args.managers),
            agents: args.agents,
            rate: args.rate,
            gap: Duration::from_millis(args.gap_ms),
            brief: Duration::from_secs(args.brief_secs),
        };
        let report = run::run(&order, &mut |line| say(&line)).await?;
        let text = report.markdown();
        say(&format!("\n{text}"));
        if let Some(path) = &args.markdown {
            writeln!(programs::append(path)?, "{text}")?;
        }
        is_good &= report.broken() == 0;
    }
    Ok(is_good)
}
