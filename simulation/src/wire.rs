//! The messages of the simulated network. Commands are signed and opened as in the product. Only
//! one seed in eight runs the real cryptography, because it would take most of the time; the others
//! check the same claims in the same order.

use ed25519_dalek::{SigningKey, VerifyingKey};
use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, Refusal};
use riposte_protocol::jws::JwsError;
use riposte_protocol::message::{CommandResult, HeldEffect};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

/// A signed command in transit.
#[derive(Clone, Debug)]
pub enum Sealed {
    /// A compact JWS.
    Signed(String),
    /// Its claims, and whether its signature counts as right.
    Plain(Box<Command>, bool),
}

/// The manager's key, and the keys that agents have pinned.
#[derive(Debug)]
pub struct Seal {
    key: SigningKey,
    stranger: SigningKey,
    pinned: Vec<(String, VerifyingKey)>,
    is_real: bool,
}

const KID: &str = "k1";

impl Seal {
    /// A seal with real cryptography, or with a flag instead.
    pub fn new(is_real: bool) -> Self {
        let (key, stranger) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let pinned = vec![(KID.to_owned(), key.verifying_key())];
        Self { key, stranger, pinned, is_real }
    }

    /// Signs a command, or marks it as signed.
    pub fn sign(&self, command: Command, is_forged: bool) -> Sealed {
        let key = if is_forged { &self.stranger } else { &self.key };
        let signed = self.is_real.then(|| command.sign(key, KID).ok()).flatten();
        signed.map_or_else(|| Sealed::Plain(Box::new(command), !is_forged), Sealed::Signed)
    }

    /// Opens a command as `agent` does ([`Command::open`]).
    ///
    /// # Errors
    /// Why it is not valid.
    pub fn open(&self, sealed: &Sealed, agent: Uuid) -> Result<Command, Refusal> {
        match sealed {
            Sealed::Signed(token) => Command::open(token, &self.pinned, agent),
            Sealed::Plain(_, false) => Err(JwsError::Signature.into()),
            Sealed::Plain(command, true) if command.iss != MANAGER => Err(Refusal::Issuer),
            Sealed::Plain(command, true) if command.aud != agent => Err(Refusal::Audience),
            Sealed::Plain(command, true) => Ok((**command).clone()),
        }
    }
}

/// A message of an agent.
#[derive(Clone, Debug)]
pub enum ToManager {
    /// Opens a connection. By poll it carries what the last exchange left out.
    Hello {
        /// Everything up to this number is in the journal.
        cursor: u64,
        /// What a defective agent would send instead: when it last received a command.
        since: Timestamp,
        /// The effects that it holds.
        effects: Vec<HeldEffect>,
        /// By poll: acknowledgements.
        acks: Vec<Uuid>,
        /// By poll: results.
        results: Vec<CommandResult>,
        /// Whether the connection ends with its first commands.
        is_poll: bool,
    },
    /// These commands are in the journal.
    Ack(Vec<Uuid>),
    /// The results of commands.
    Results(Vec<CommandResult>),
    /// Changes of effects.
    Effects(Vec<HeldEffect>, Vec<Uuid>),
    /// Ping; answered by [`ToAgent::Pong`].
    Ping,
}

/// A message of a manager.
#[derive(Clone, Debug)]
pub enum ToAgent {
    /// The hello was received.
    Welcome,
    /// Commands, in the order of their numbers.
    Commands(Vec<Sealed>),
    /// These results are committed.
    ResultAck(Vec<Uuid>),
    /// Answer to a ping.
    Pong,
    /// The connection is closed.
    Close,
}
