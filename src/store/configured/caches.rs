//! Which of the engine's caches a transaction makes stale. The functions that change a row record it in the transaction, so
//! that its commit can refresh exactly these, and no use case has to remember them.

use uuid::Uuid;

/// A cache of the engine, in the order in which caches are refreshed: policies are read with the actions as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cache {
    /// Actions that people added.
    Actions,
    /// Policies.
    Policies,
    /// One agent that is new or says something else of itself. Reading all of them for each would make the enrolment of a
    /// fleet quadratic.
    Agent(Uuid),
    /// All agents.
    Fleet,
    /// Protected entries.
    Protected,
    /// Whether commands are held back.
    Freeze,
    /// The signing key, and the statements about it.
    SigningKeys,
    /// Secrets.
    Secrets,
    /// API keys.
    Keys,
    /// People.
    Users,
    /// One session that has begun or ended.
    Session(Uuid),
    /// All sessions.
    Sessions,
}
