//! The steps of the sweep, each of which is one job of the writer.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::store::configured::{agents, changes, sessions};
use crate::store::database::Result;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::{approvals, events, guard, idempotency, rejected, settle, stages, standing};

/// A step of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// Expire commands that were not acknowledged in time.
    Expire,
    /// Time out commands that were acknowledged but got no result.
    TimeOut,
    /// Retry failed reverts.
    RetryReverts,
    /// End responses whose approval deadline has passed.
    Silence,
    /// Undo responses that were not confirmed in time.
    Unconfirmed,
    /// Send the waves that are due.
    Waves,
    /// Delete sightings older than an instant.
    ForgetSightings(Timestamp),
    /// Delete idempotent responses stored before an instant.
    ForgetAnswers(Timestamp),
    /// Deletes rejected alerts that came last before this time.
    ForgetRejected(Timestamp),
    /// Delete enrolment tokens that expired before an instant.
    ForgetTokens(Timestamp),
    /// Delete sessions that expired before an instant.
    ForgetSessions(Timestamp),
    /// Delete changes of configuration of before an instant.
    ForgetChanges(Timestamp),
    /// Delete events from before an instant, the oldest first.
    ForgetEvents(Timestamp),
}

/// Runs one step on at most `limit` rows; returns the number of rows found, and adds the agents to
/// wake.
pub(super) async fn sweep(
    ledger: &mut LedgerTx,
    step: SweepStep,
    limit: i64,
    now: Timestamp,
    wake: &mut Vec<Uuid>,
) -> Result<usize> {
    let rows = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    Ok(match step {
        SweepStep::Expire => {
            let (count, agents) = settle::expire(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::TimeOut => {
            let (count, agents) = settle::time_out(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::RetryReverts => {
            let agents = standing::retry_reverts(ledger, now, limit).await?;
            let count = agents.len();
            wake.extend(agents);
            count
        }
        SweepStep::Silence => {
            let (count, agents) = approvals::silence(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::Unconfirmed => {
            let (count, agents) = approvals::unconfirmed(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::Waves => {
            let (count, agents) = stages::send(ledger, now, limit).await?;
            wake.extend(agents);
            count
        }
        SweepStep::ForgetSightings(cutoff) => rows(guard::forget(ledger, cutoff).await?),
        SweepStep::ForgetAnswers(cutoff) => rows(idempotency::forget(ledger, cutoff).await?),
        SweepStep::ForgetRejected(cutoff) => rows(rejected::forget(ledger, cutoff, limit).await?),
        SweepStep::ForgetTokens(cutoff) => rows(agents::forget_tokens(ledger, cutoff).await?),
        SweepStep::ForgetSessions(cutoff) => rows(sessions::forget(ledger, cutoff).await?),
        SweepStep::ForgetChanges(cutoff) => rows(changes::forget(&mut ledger.tx, cutoff).await?),
        SweepStep::ForgetEvents(cutoff) => rows(events::forget(&mut ledger.tx, cutoff, limit).await?),
    })
}
