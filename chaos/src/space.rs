//! A full disk, by itself: a client that posts is told to retry, no acknowledged alert is lost, and
//! the service resumes by itself when there is room again.

use std::time::{Duration, Instant};

use crate::faults::Database;
use crate::ledger::Ledger;
use crate::load::Load;
use crate::plan::Plan;
use crate::verify::Verdict;
use crate::world::World;

/// Time limit, once there is free space, for accepting alerts again. It includes the pauses of the
/// load; PostgreSQL may have ended and be restarted by its unit.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);

/// Fills the store's disk for `lasts`, under load; returns the verdicts.
///
/// # Errors
/// If the set-up fails.
pub(crate) async fn run(
    database: Database,
    lasts: Duration,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<Vec<Verdict>> {
    let plan = Plan { seed: 1, agents: 2, brief: Duration::from_secs(5), lasting: true };
    let mut world = World::build(database, 1, &plan).await?;
    // Without the proxy: no other fault than the full disk.
    let load = Load::start(plan.clone(), &world.api.base, &world.api.key, 200.0)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = load.acknowledged();
    let pid = world.manager.process.pid();
    world.store.fill()?;
    tokio::time::sleep(lasts).await;
    let during = load.acknowledged();
    world.store.free()?;
    let freed = Instant::now();
    world.revive_store().await?;
    let mut resumed = Verdict::of("the service resumes by itself when space returns");
    while load.acknowledged() <= during + 20 && freed.elapsed() < 3 * RESUMES_WITHIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = freed.elapsed();
    let acknowledged = load.acknowledged();
    say(format!(
        "{}: {before} alerts before, {} while full, {} in {:.1} s after",
        database.name(),
        during - before,
        acknowledged - during,
        after.as_secs_f64()
    ));
    resumed.check(after < RESUMES_WITHIN, || format!("after {:.1} s", after.as_secs_f64()));
    resumed.check(world.manager.process.pid() == pid, || "the manager ended".into());
    if world.manager.process.pid().is_none() {
        world.revive().await?;
    }
    let seen = load.finish(Duration::from_mins(1)).await;
    let mut told = Verdict::of("while it is full, requests are answered 503 or 507 with Retry-After");
    let refused = seen.outcomes.iter().filter(|(word, _)| matches!(word.as_str(), "503" | "507"));
    told.check(refused.map(|(_, count)| count).sum::<u64>() > 0, || format!("{:?}", seen.outcomes));
    seen.wrong.iter().for_each(|what| told.check(false, || what.clone()));
    for word in ["no answer in time", "connection lost"] {
        told.check(!seen.outcomes.contains_key(word), || format!("{word}: {:?}", seen.outcomes));
    }
    let ledger = Ledger::read(&world.api).await?;
    let mut kept = Verdict::of("nothing that was acknowledged is lost");
    for number in &seen.acknowledged {
        kept.check(ledger.alerts.contains_key(number), || format!("alert {number}"));
    }
    let proof = world.api.audit_proof().await?;
    kept.check(proof["intact"] == true, || proof.to_string());
    say(format!("{:?}; {} alerts acknowledged", seen.outcomes, seen.acknowledged.len()));
    if resumed.broken + told.broken + kept.broken > 0 {
        say(crate::programs::last_lines(&world.manager.process.said()));
    }
    Ok(vec![told, resumed, kept])
}
