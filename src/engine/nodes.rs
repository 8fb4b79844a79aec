//! The managers on one ledger, as one of them sees all.

use riposte_protocol::time::Timestamp;

use super::Engine;
use crate::store::StoreError;
use crate::store::configured::changes;
use crate::store::database::duties::Duty;
use crate::store::database::nodes::NodeRow;
use crate::views::nodes::{Node, NodeDuty, NodeState};

impl Engine {
    /// All managers that have a lease, or had one in the last hour, by their start. On SQLite this one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let last = changes::stands_at(&self.db).await?.epoch;
        let owned = self.lease.duties().await?;
        let rows = match self.lease.nodes().await? {
            rows if rows.is_empty() => vec![self.alone()],
            rows => rows,
        };
        let node = |row: NodeRow| {
            let asked = row.id == self.lease.node();
            let duties = if asked {
                self.duties.load().own.keys().map(|duty| self.own_duty(*duty)).collect()
            } else {
                let own = owned.iter().filter(|duty| duty.owner == row.id);
                own.map(|duty| NodeDuty { name: duty.name.clone(), late_seconds: None }).collect()
            };
            let state = match (row.serves(), row.lease_millis > 0) {
                (true, _) => NodeState::Serving,
                (false, true) => NodeState::Starting,
                (false, false) => NodeState::Lost,
            };
            Node {
                changes_behind: if row.serves() { (last - row.epoch).max(0) } else { 0 },
                started_at: Timestamp::from_millis(row.started_at),
                clock_off_millis: row.clock_off,
                id: row.id,
                name: row.name,
                version: row.version,
                state,
                asked,
                duties,
            }
        };
        Ok(rows.into_iter().map(node).collect())
    }

    /// A duty of this manager, and by how much its rounds are late.
    fn own_duty(&self, duty: Duty) -> NodeDuty {
        let rounds = self.health.rounds(self.clock.now());
        let of_duty = |stage: &str| match duty {
            Duty::Undo => matches!(stage, "undo" | "retry_reverts"),
            Duty::Checkpoints => stage == "checkpoint",
            Duty::Webhooks => stage == "webhooks",
            Duty::Sweep => super::sweep::SHARED.contains(&stage),
        };
        let late = rounds.iter().filter(|(stage, _)| of_duty(stage)).map(|(_, round)| round.late_millis).max();
        let late = i64::try_from(late.unwrap_or(0) / 1000).unwrap_or(i64::MAX);
        NodeDuty { name: duty.as_str().to_owned(), late_seconds: Some(late) }
    }

    /// The only manager of a SQLite ledger.
    fn alone(&self) -> NodeRow {
        NodeRow {
            id: self.lease.node().to_owned(),
            name: self.lease.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at.as_millis(),
            epoch: self.epochs.applied(),
            clock_off: 0,
            lease_millis: 1,
        }
    }
}
