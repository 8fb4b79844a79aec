//! The records of the journal. A record is a fact that has happened or is about to; the
//! [`super::JournalState`] is the state that follows from all of them. A record type is never
//! removed or changed: an old journal must stay readable.

use std::time::Duration;

use riposte_protocol::command::{Command, Script};
use riposte_protocol::message::{Actual, CommandResult, HeldEffect};
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::moment::Moment;

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The inbox of a compacted journal.
    Inbox {
        /// The highest number received.
        cursor: u64,
        /// The highest number whose id was forgotten.
        forgotten_up_to: u64,
        /// The gaps: first and last number of each range up to the cursor that was not received.
        /// Absent in older journals.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<(u64, u64)>,
        /// Whether this journal knows every effect that was ever in force for this agent. A journal
        /// that replaced a lost one does not. Absent in older journals.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        whole: bool,
        /// When the latest order that was received was issued, in Unix seconds; absent if none was,
        /// and in older journals.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        latest_iat: Option<i64>,
    },
    /// A command that was received before the journal was compacted.
    Seen {
        /// The command's id.
        id: Uuid,
        /// The command's number.
        seq: u64,
        /// The effect it is about.
        effect: Uuid,
    },
    /// A command that was received before the journal was compacted and is not finished.
    Pending {
        /// The signed command.
        command: Box<Command>,
        /// When its execution began; `None` if it has not.
        started: Option<Timestamp>,
        /// State of the host before the execution, if the action recorded any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Box<serde_json::Value>>,
    },
    /// A command has arrived.
    Received {
        /// The signed command.
        command: Box<Command>,
    },
    /// A command is about to be executed.
    Started {
        /// The command's id.
        id: Uuid,
        /// When its execution began.
        at: Timestamp,
        /// State of the host before the execution. It is on disk before anything is done, so a
        /// crash in the middle does not lose it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Box<serde_json::Value>>,
    },
    /// A command is finished; its result goes into the outbox.
    Finished {
        /// The result to report.
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
        /// The effect's id.
        effect: Uuid,
    },
    /// An effect was lifted before its end by an operator or a program on this host.
    Released {
        /// The effect, and the reason.
        released: Box<Released>,
    },
    /// The manager knows that these effects were released.
    ReleaseTold {
        /// The effects' ids.
        effects: Vec<Uuid>,
    },
}

/// An effect that was lifted on purpose before its end; kept until the manager knows of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Released {
    /// The effect's id.
    pub effect: Uuid,
    /// The action that had brought it into force.
    pub action: String,
    /// The target it was applied to.
    pub target: Target,
    /// When it was released.
    pub at: Timestamp,
    /// The reason, for people.
    pub reason: String,
}

impl Released {
    /// The report to the manager.
    pub fn report(&self) -> HeldEffect {
        HeldEffect {
            effect: self.effect,
            action: self.action.clone(),
            target: self.target.clone(),
            until: Some(self.at),
            actual: Some(Actual::Absent),
            drifts: 0,
            failing: None,
            released: Some(self.reason.clone()),
        }
    }
}

/// The term of an effect, on the boot clock: the wall clock may be set back while the effect is in
/// force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The boot of the host that the end counts from.
    pub boot: String,
    /// The end, in milliseconds after that boot.
    pub end_millis: u64,
    /// The whole term, in milliseconds. A restart of the host must not make it longer.
    pub lasts_millis: u64,
}

impl Term {
    /// The term of an effect that ends at `until`, computed at `now`.
    pub fn until(until: Timestamp, now: &Moment) -> Self {
        Self::lasting(until.since(now.wall), now)
    }

    fn lasting(lasts: Duration, now: &Moment) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // Rounded up: a block must not be lifted even a part of a millisecond early.
        let end_millis = millis(now.since_boot).saturating_add(1).saturating_add(millis(lasts));
        Self { boot: now.boot.to_string(), end_millis, lasts_millis: millis(lasts) }
    }
}

/// An effect that could not be lifted: an incident until it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Time of the first failed attempt.
    pub since: Timestamp,
    /// Error of the last attempt.
    pub reason: String,
}

/// An effect that this agent holds, with all data to undo it without the manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The effect's id.
    pub effect: Uuid,
    /// The action that brings it into force and lifts it.
    pub action: String,
    /// The target it is applied to.
    pub target: Target,
    /// The action's parameters.
    pub arguments: Vec<String>,
    /// When it ends by itself; `None` if only a revert ends it.
    pub until: Option<Timestamp>,
    /// The term on the boot clock. Absent in older journals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// The action's own data about the state before, to restore exactly that.
    pub undo: serde_json::Value,
    /// The program of a custom action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// State at the last look; `None` if there was none since the host's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Actual>,
    /// How often drift was found.
    #[serde(default)]
    pub drifts: u32,
    /// The failed attempts to lift it; `None` if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// Whether the log of responses has a line that it came into force, so that its lifting is
    /// logged too. Absent in older journals, where it means yes.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub in_log: bool,
}

fn yes() -> bool {
    true
}

impl Held {
    /// The program of a custom action.
    pub fn program(&self) -> Option<&str> {
        self.script.as_ref().map(|script| script.executable.as_str())
    }

    /// Sets its end.
    pub fn end_at(&mut self, until: Option<Timestamp>, now: &Moment) {
        self.until = until;
        self.term = until.map(|until| Term::until(until, now));
    }

    /// Carries the effect over a restart of the host: the boot clock started at zero, and the
    /// effect has not been looked at yet. Returns whether anything had to change.
    pub fn carry_over(&mut self, now: &Moment) -> bool {
        let is_cleaned_up = self.actual == Some(Actual::Absent);
        let Some(until) = self.until else {
            // Without an end there is no term to tell one boot from another: one more look does no
            // harm.
            return self.actual.take_if(|_| !is_cleaned_up).is_some();
        };
        if self.term.as_ref().is_some_and(|term| *term.boot == *now.boot) {
            return false;
        }
        // A host without a battery for its clock wakes up in 1970: that must not move the end away.
        let longest = self.term.as_ref().map_or(Duration::MAX, |term| Duration::from_millis(term.lasts_millis));
        let lasts_millis = self.term.as_ref().map(|term| term.lasts_millis);
        let mut term = Term::lasting(until.since(now.wall).min(longest), now);
        term.lasts_millis = lasts_millis.unwrap_or(term.lasts_millis);
        self.term = Some(term);
        self.actual = self.actual.filter(|_| is_cleaned_up);
        true
    }

    /// Time until its end, by the clock that is further ahead. Setting the wall clock forward ends
    /// the effect early; setting it back does not prolong it. `None` if it has no end.
    pub fn remaining(&self, now: &Moment) -> Option<Duration> {
        let by_wall = self.until?.since(now.wall);
        let term = self.term.as_ref().filter(|term| *term.boot == *now.boot);
        let by_boot =
            term.map_or(Duration::MAX, |term| Duration::from_millis(term.end_millis).saturating_sub(now.since_boot));
        Some(by_wall.min(by_boot))
    }

    /// The record of its release.
    pub fn released(&self, at: Timestamp, reason: impl Into<String>) -> Record {
        let (effect, action, target) = (self.effect, self.action.clone(), self.target.clone());
        Record::Released { released: Box::new(Released { effect, action, target, at, reason: reason.into() }) }
    }

    /// The report to the manager.
    pub fn report(&self) -> HeldEffect {
        HeldEffect {
            effect: self.effect,
            action: self.action.clone(),
            target: self.target.clone(),
            until: self.until,
            actual: self.actual,
            drifts: self.drifts,
            failing: self.failing.as_ref().map(|failing| failing.reason.clone()),
            released: None,
        }
    }
}
