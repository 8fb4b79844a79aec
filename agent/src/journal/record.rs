//! What a line of the journal says. A record is a fact that has happened or is about to; the state that follows
//! from all of them is the [`super::Ledger`]. Records are only ever added to this list: an old journal must stay
//! readable.

use riposte_protocol::command::{Command, Script};
use riposte_protocol::message::{CommandResult, HeldEffect};
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// Where the inbox of a compacted journal starts.
    Inbox {
        /// The highest number received.
        cursor: u64,
        /// The highest number whose id was forgotten.
        forgotten_up_to: u64,
    },
    /// A command that was received before the journal was compacted.
    Seen {
        /// Its id.
        id: Uuid,
        /// Its number.
        seq: u64,
        /// Its effect.
        effect: Uuid,
    },
    /// A command that was received before the journal was compacted and is not finished.
    Pending {
        /// The command.
        command: Box<Command>,
        /// When its execution began, if it did.
        started: Option<Timestamp>,
    },
    /// A command has arrived.
    Received {
        /// The command.
        command: Box<Command>,
    },
    /// A command is about to be executed.
    Started {
        /// Its id.
        id: Uuid,
        /// When.
        at: Timestamp,
    },
    /// A command is finished; its result goes into the outbox.
    Finished {
        /// The result.
        result: Box<CommandResult>,
    },
    /// The manager has committed these results.
    Acknowledged {
        /// The commands' ids.
        ids: Vec<Uuid>,
    },
    /// An effect is about to be in force, or its end has changed.
    Held {
        /// The effect and how to undo it.
        held: Box<Held>,
    },
    /// An effect is not in force any more.
    Lifted {
        /// The effect.
        effect: Uuid,
    },
}

/// An effect that this agent holds, with all that is needed to undo it without the manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The effect's id.
    pub effect: Uuid,
    /// The action that brings it into force and lifts it.
    pub action: String,
    /// What it is aimed at.
    pub target: Target,
    /// The action's parameters.
    pub arguments: Vec<String>,
    /// When it ends by itself; `None` means only by a revert.
    pub until: Option<Timestamp>,
    /// What the action wrote down about the state before, to restore exactly that.
    pub undo: serde_json::Value,
    /// The program that lifts it, where the action is a custom one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
}

impl Held {
    /// As the manager is told of it.
    pub fn report(&self) -> HeldEffect {
        HeldEffect { effect: self.effect, action: self.action.clone(), target: self.target.clone(), until: self.until }
    }
}
