//! A deterministic simulation of several managers and agents that tries to break the promises of
//! Riposte. Everything follows from a seed; there is no wall clock and no thread, and time passes
//! only from event to event.
//!
//! - [`plan`] draws up requests and faults: responses, crashes, partitions, clocks that jump, disks
//!   that fill up.
//! - [`world`] runs it: the network and the queue of events; [`manager`], [`cluster`], [`deliver`]
//!   and [`agent`] act in it, on the states of a [`node`] and a [`host`].
//! - [`checker`] keeps its own records and checks every step against the promises.
//! - [`shrink`] finds the shortest plan that still fails; [`campaign`] runs many seeds.
//! - [`defect`] are mistakes that can be built into the model, to prove that the checker detects
//!   them.
//!
//! The product's own files decide here too. From the protocol: the delivery rules and the
//! signatures. From the agent: the journal, the handling of arriving commands, the selection of
//! results to send. From the manager: the rules of effects and commands, and of
//! what results say about effects. They are compiled in by
//! path, so that a simulation needs neither a database nor TLS to be built. The head of each model
//! says what is modelled.

#![expect(clippy::needless_pass_by_value, reason = "acts, events and messages are moved to their receiver")]
#![expect(clippy::needless_for_each, reason = "the files of the agent have it, and what is modelled after them")]

pub mod agent;
pub mod campaign;
pub mod checker;
pub mod cluster;
pub mod defect;
pub mod deliver;
pub mod disk;
pub mod host;
pub mod instant;
pub mod manager;
pub mod node;
pub mod plan;
pub mod platform;
pub mod random;
pub mod shrink;
pub mod store;
pub mod wire;
pub mod world;

#[path = "../../agent/src/clock.rs"]
pub mod clock;
#[path = "../../src/domain/command.rs"]
pub mod command;
#[path = "../../agent/src/durable.rs"]
pub mod durable;
#[path = "../../src/domain/effect.rs"]
pub mod effect;
#[path = "../../agent/src/journal/mod.rs"]
pub mod journal;
#[path = "../../agent/src/manager_time.rs"]
pub mod manager_time;
#[path = "../../agent/src/moment.rs"]
pub mod moment;
#[path = "../../agent/src/session/outgoing.rs"]
mod outgoing;
#[path = "../../agent/src/intake/receive.rs"]
pub mod receive;
#[path = "../../agent/src/refusal.rs"]
pub mod refusal;
#[path = "../../src/domain/settlement.rs"]
pub mod settlement;
#[path = "../../agent/src/executor/turn.rs"]
mod turn;

/// The part of the agent's log that the journal needs.
mod telemetry {
    pub(crate) fn chain(error: &dyn std::error::Error) -> String {
        std::iter::successors(Some(error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }
}
