//! Mistakes that can be built into the model, never into the product: they prove that the checker
//! detects them. Each is a mistake of a real project.

use std::fmt;

macro_rules! defects {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Defect {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Defect {
            /// All mistakes.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name on the command line.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

defects! {
    /// The agent acknowledges a command a moment before it is in its journal.
    AckBeforeJournal = "ack-before-journal",
    /// A command that was delivered once is never delivered again.
    LeaseNeverEnds = "lease-never-ends",
    /// A restarted agent has lost its undo data.
    UndoLostOnRestart = "undo-lost-on-restart",
    /// A command that arrives again is executed again.
    DuplicateAccepted = "duplicate-accepted",
    /// A connection continues from a time instead of a number.
    CursorFromClock = "cursor-from-clock",
    /// Reverts are executed before applies that arrived earlier.
    RevertOvertakesApply = "revert-overtakes-apply",
    /// The first hold that ends lifts the effect, although others still hold it.
    HoldsNotCounted = "holds-not-counted",
    /// The agent forgets a result as soon as it is sent.
    ResultDropped = "result-dropped",
    /// The manager acknowledges a result before it is committed.
    ResultAckBeforeCommit = "result-ack-before-commit",
    /// A starting agent lifts everything that an earlier run has left.
    RestartLiftsAll = "restart-lifts-all",
    /// The agent has no timer of its own.
    NoTimerOnAgent = "no-timer-on-agent",
    /// The agent accepts any signature.
    ForgeryBelieved = "forgery-believed",
    /// The agent does not check whether a command has expired.
    ExpiryIgnored = "expiry-ignored",
    /// The manager does not compare what agents report with what it wants.
    ReportIgnored = "report-ignored",
    /// The manager waits for ever for the result of an acknowledged command.
    SilenceWaitedForEver = "silence-waited-for-ever",
    /// A longer response to a target that is already blocked changes nothing.
    ExtensionIgnored = "extension-ignored",
    /// A command that was begun before a crash is begun again after it.
    BegunAgainAfterCrash = "begun-again-after-crash",
    /// A manager that was paused goes on without its lease: neither a delivery nor a commit checks
    /// it, nor does a duty check its fence.
    NoFence = "no-fence",
    /// A manager commits what it decided by an older configuration.
    OldEpoch = "old-epoch",
    /// A manager waits for hints alone, which can be lost.
    NoLook = "no-look",
    /// What arrives by an older connection of an agent is believed.
    OlderStreamBelieved = "older-stream-believed",
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for Defect {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|defect| defect.word()).collect::<Vec<_>>().join(", ");
        Self::ALL.iter().copied().find(|defect| defect.word() == word).ok_or_else(|| format!("one of {}", known()))
    }
}
