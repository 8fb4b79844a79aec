//! What goes over the simulated network. Commands are signed and opened as in the product; only one seed in eight really
//! does the cryptography, because it would take most of the time, the others check the same claims in the same order.

use ed25519_dalek::{SigningKey, VerifyingKey};
use riposte_protocol::MANAGER;
use riposte_protocol::command::{Command, Refusal};
use riposte_protocol::jws::JwsError;
use riposte_protocol::message::{CommandResult, HeldEffect};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

/// A command on its way.
#[derive(Clone, Debug)]
pub enum Sealed {
    /// A compact JWS.
    Signed(String),
    /// Its claims, and whether the signature would be right.
    Plain(Box<Command>, bool),
}

/// The manager's key, and what agents have pinned of it.
#[derive(Debug)]
pub struct Seal {
    key: SigningKey,
    stranger: SigningKey,
    pinned: Vec<(String, VerifyingKey)>,
    is_real: bool,
}

const KID: &str = "k1";

impl Seal {
    /// A seal that does the cryptography, or only says so.
    pub fn new(is_real: bool) -> Self {
        let (key, stranger) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let pinned = vec![(KID.to_owned(), key.verifying_key())];
        Self { key, stranger, pinned, is_real }
    }

    /// Signs a command, or pretends to be able to.
    pub fn sign(&self, command: Command, is_forged: bool) -> Sealed {
        let key = if is_forged { &self.stranger } else { &self.key };
        let signed = self.is_real.then(|| command.sign(key, KID).ok()).flatten();
        signed.map_or_else(|| Sealed::Plain(Box::new(command), !is_forged), Sealed::Signed)
    }

    /// Reads a command as `agent` does ([`Command::open`]).
    ///
    /// # Errors
    /// Why it is not to be believed.
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

/// What an agent says.
#[derive(Clone, Debug)]
pub enum ToManager {
    /// A conversation begins. By poll it carries what the last exchange has left untold.
    Hello {
        /// Everything up to this number is in the journal.
        cursor: u64,
        /// What a wrong agent would say instead: when it last heard of a command.
        since: Timestamp,
        /// The effects that it holds.
        effects: Vec<HeldEffect>,
        /// By poll: acknowledgements.
        acks: Vec<Uuid>,
        /// By poll: results.
        results: Vec<CommandResult>,
        /// Whether the conversation ends with its first commands.
        is_poll: bool,
    },
    /// These commands are in the journal.
    Ack(Vec<Uuid>),
    /// These commands are done.
    Results(Vec<CommandResult>),
    /// What has changed among the effects.
    Effects(Vec<HeldEffect>, Vec<Uuid>),
    /// A keep-alive question, answered by a pong.
    Ping,
}

/// What a manager says.
#[derive(Clone, Debug)]
pub enum ToAgent {
    /// The hello was taken in.
    Welcome,
    /// Commands, in the order of their numbers.
    Commands(Vec<Sealed>),
    /// These results are committed.
    ResultAck(Vec<Uuid>),
    /// Yes.
    Pong,
    /// The conversation is over.
    Close,
}
