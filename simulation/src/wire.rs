//! The messages of the simulated network. Commands are signed and opened as in the product. Only
//! one seed in eight runs the real cryptography, because it would take most of the time; the others
//! check the same claims in the same order.

use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, Refusal};
use riposte_protocol::jws::JwsError;
use riposte_protocol::key::{KeyError, SigningKey, VerifyingKey};
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

/// How commands are signed: with real keys, or with a flag instead.
#[derive(Debug)]
pub struct Seal {
    keys: Option<Result<Keys, KeyError>>,
}

/// The manager's key, a stranger's, and those that agents have pinned.
#[derive(Debug)]
struct Keys {
    own: SigningKey,
    stranger: SigningKey,
    pinned: Vec<(String, VerifyingKey)>,
}

impl Keys {
    fn new() -> Result<Self, KeyError> {
        let (own, stranger) = (SigningKey::from_seed(&[1; 32])?, SigningKey::from_seed(&[2; 32])?);
        let pinned = vec![(KID.to_owned(), own.verifying_key())];
        Ok(Self { own, stranger, pinned })
    }
}

const KID: &str = "k1";

impl Seal {
    /// A seal with real cryptography, or with a flag instead.
    pub fn new(is_real: bool) -> Self {
        Self { keys: is_real.then(Keys::new) }
    }

    /// Signs a command, or marks it as signed. One that cannot be signed is empty, which no agent
    /// accepts.
    pub fn sign(&self, command: Command, is_forged: bool) -> Sealed {
        let Some(keys) = &self.keys else { return Sealed::Plain(Box::new(command), !is_forged) };
        let key = keys.as_ref().ok().map(|keys| if is_forged { &keys.stranger } else { &keys.own });
        Sealed::Signed(key.and_then(|key| command.sign(key, KID).ok()).unwrap_or_default())
    }

    /// Opens a command as `agent` does ([`Command::open`]).
    ///
    /// # Errors
    /// Why it is not valid.
    pub fn open(&self, sealed: &Sealed, agent: Uuid) -> Result<Command, Refusal> {
        match sealed {
            Sealed::Signed(token) => {
                let pinned = self.keys.as_ref().and_then(|keys| keys.as_ref().ok());
                Command::open(token, pinned.map_or(&[], |keys| &keys.pinned), agent)
            }
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
