//! Duties: what one manager at a time does for all that share a PostgreSQL database. The owner
//! renews its claim with each round. The claim has a number, the fence, that grows with each change
//! of the owner; a transaction of the duty reads it, so that an owner who was paused changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::Postgres;

use super::db::Tx;
use super::error::{Result, StoreError};
use super::nodes::{Lease, TTL, millis, now};

/// Takes a duty that is free or the node's own. Only PostgreSQL runs these. One duty in each statement: a transaction may check
/// several in any order, and a statement that had locked one of them and waits for another would be a deadlock.
const CLAIM: &str = concat!(
    "INSERT INTO duties (name, owner, fence, until) VALUES ($1, $2, 1, ",
    now!(),
    " + $3)
        ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until,
            fence = duties.fence + CASE WHEN duties.owner = excluded.owner THEN 0 ELSE 1 END
        WHERE duties.owner = excluded.owner OR duties.until <= ",
    now!(),
    " RETURNING fence"
);
const RESIGN: &str = "UPDATE duties SET until = 0 WHERE owner = $1";
const CHECK: &str = "SELECT fence FROM duties WHERE name = $1 AND owner = $2 AND fence = $3 FOR SHARE";
const OWNED: &str = concat!("SELECT name, owner FROM duties WHERE until > ", now!(), " ORDER BY name");

/// What one manager at a time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Ends responses whose time is over, and repeats reverts.
    Undo,
    /// Every other deadline, and what is removed by its age.
    Sweep,
    /// Signs the checkpoints of the audit log.
    Checkpoints,
    /// Sends events to webhooks.
    Webhooks,
}

impl Duty {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Undo, Self::Sweep, Self::Checkpoints, Self::Webhooks];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undo => "undo",
            Self::Sweep => "sweep",
            Self::Checkpoints => "checkpoints",
            Self::Webhooks => "webhooks",
        }
    }
}

/// Which duties are whose, as a node saw it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// Its own.
    pub own: BTreeMap<Duty, Claim>,
    /// Those that another node has.
    pub elsewhere: BTreeSet<Duty>,
}

/// The number by which a node owns a duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    duty: Duty,
    node: String,
    number: i64,
}

/// Who has a duty.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DutyRow {
    /// The duty.
    pub name: String,
    /// The run of the manager that has it.
    pub owner: String,
}

/// A duty that this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Checked in each transaction of the duty; none where this process is the only one.
    pub fence: Option<Fence>,
}

impl Lease {
    /// Claims the duties, for as long as a lease lasts; returns which this node has, and which others have. A node without a
    /// lease, or whose clock is off, takes none.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn claim(&self) -> Result<Duties> {
        let Some(pool) = self.peers() else {
            let own = Duty::ALL.map(|duty| (duty, Claim { fence: None })).into();
            return Ok(Duties { own, elsewhere: BTreeSet::new() });
        };
        let parse = |name: &str| Duty::ALL.into_iter().find(|duty| duty.as_str() == name);
        let mut own = BTreeMap::new();
        if self.is_held() && self.clock_off().is_none() {
            for duty in Duty::ALL {
                let claim = sqlx::query_scalar::<Postgres, i64>(CLAIM).bind(duty.as_str());
                if let Some(number) = claim.bind(self.node()).bind(millis(TTL)).fetch_optional(pool).await? {
                    own.insert(duty, Claim { fence: Some(Fence { duty, node: self.node().to_owned(), number }) });
                }
            }
        }
        if own.len() == Duty::ALL.len() {
            return Ok(Duties { own, elsewhere: BTreeSet::new() });
        }
        let others = self.duties().await?.into_iter().filter(|row| row.owner != self.node());
        let elsewhere = others.filter_map(|row| parse(&row.name)).collect();
        Ok(Duties { own, elsewhere })
    }

    /// Gives all duties back.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn resign(&self) -> Result<()> {
        if let Some(pool) = self.peers() {
            sqlx::query::<Postgres>(RESIGN).bind(self.node()).execute(pool).await?;
        }
        Ok(())
    }

    /// Which node has which duty.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn duties(&self) -> Result<Vec<DutyRow>> {
        let Some(pool) = self.peers() else { return Ok(Vec::new()) };
        Ok(sqlx::query_as::<Postgres, DutyRow>(OWNED).fetch_all(pool).await?)
    }
}

/// Checks in a transaction of a duty that its node still owns it; until the commit no other node can.
///
/// # Errors
/// [`StoreError::LeaseLost`] if another node does.
pub(in crate::store) async fn check(tx: &mut Tx, fence: Option<&Fence>) -> Result<()> {
    let (Some(Fence { duty, node, number }), Tx::Postgres(tx)) = (fence, tx) else { return Ok(()) };
    let check = sqlx::query_scalar::<Postgres, i64>(CHECK).bind(duty.as_str()).bind(node).bind(*number);
    check.fetch_optional(&mut **tx).await?.map(drop).ok_or(StoreError::LeaseLost)
}
