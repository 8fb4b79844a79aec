//! The keys that commands are signed with. Private keys stay here; agents get the public ones. Each
//! command is signed with a key that its agent trusts: the new one once the agent has confirmed it,
//! else the old one (`key_rotation.rs`, `docs/decisions/0027-keys-rotate-by-statements.md`).

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use riposte_protocol::command::{Command, ManagerKey};
use riposte_protocol::key::SigningKey;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::key_numbers::KeyNumbers;
use crate::domain::checkpoint::{Checkpoint, CheckpointKeys};
use crate::domain::incident_seal::IncidentSeal;
use crate::store::configured::key_statements::StoredStatement;
use crate::store::database::{Result, StoreError};

/// Where the private keys are stored.
pub trait KeyStore: std::fmt::Debug + Send + Sync {
    /// Stores these keys durably in the place of those before, the first one first.
    ///
    /// # Errors
    /// If they cannot be stored; then the ones before still are.
    fn replace(&self, keys: &[SigningKey]) -> std::result::Result<(), String>;
}

/// A private key with its id.
#[derive(Clone, Debug)]
pub struct NamedKey {
    /// Id, as in a command's header.
    pub kid: String,
    /// The key.
    pub key: SigningKey,
}

impl NamedKey {
    /// The public half.
    pub fn public(&self) -> ManagerKey {
        ManagerKey { kid: self.kid.clone(), public_key: self.key.verifying_key().text() }
    }

    /// Signs a command.
    ///
    /// # Errors
    /// If the command cannot be encoded.
    pub(super) fn sign(&self, command: &Command) -> Result<String> {
        let signed = command.sign(&self.key, &self.kid);
        signed.map_err(|_| StoreError::Corrupt(format!("command {} cannot be signed", command.jti)))
    }
}

/// The keys and the statements about them, as they are now.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// The key that signs, and that agents pin at enrolment.
    pub current: NamedKey,
    /// The key that takes its place, during a rotation.
    pub next: Option<NamedKey>,
    /// Further keys of the file, which agents pin at enrolment and which sign nothing.
    pub others: Vec<NamedKey>,
    /// All statements, in their order.
    pub statements: Vec<StoredStatement>,
}

impl Ring {
    /// Sorts the private keys by what the statements say of them. A key that a rotation has taken the
    /// place of is dropped.
    fn of(current: NamedKey, mut others: Vec<NamedKey>, statements: Vec<StoredStatement>) -> Self {
        others.retain(|named| named.kid != current.kid && !is_rotated_out(&statements, &named.kid));
        let mut ring = Self { current, next: None, others, statements };
        let announced = |named: &NamedKey| {
            ring.rotation().is_some_and(|rotation| rotation.keys.iter().any(|key| key.kid == named.kid))
        };
        if let Some(at) = ring.others.iter().position(announced) {
            ring.next = Some(ring.others.remove(at));
        }
        ring
    }

    /// The number of the last statement; 0 before the first.
    pub(super) fn last_number(&self) -> u64 {
        self.statements.last().map_or(0, |statement| statement.number)
    }

    /// The private keys, in the order in which they are stored.
    pub(super) fn keys(&self) -> Vec<SigningKey> {
        let rest = self.next.iter().chain(&self.others);
        std::iter::once(&self.current).chain(rest).map(|named| named.key.clone()).collect()
    }

    /// The statement that announced the key of the rotation, if one is under way.
    pub(super) fn rotation(&self) -> Option<&StoredStatement> {
        self.statements.last().filter(|last| last.keys.len() > 1)
    }

    /// Whether an agent that has accepted the statements up to `number` trusts this key.
    fn is_trusted(&self, number: u64, kid: &str) -> bool {
        let accepted = self.statements.iter().rfind(|statement| statement.number <= number);
        let signer_of_next = || self.statements.iter().find(|statement| statement.number > number);
        match (accepted, signer_of_next()) {
            (Some(accepted), _) => accepted.keys.iter().any(|key| key.kid == kid),
            // Before the first statement: the key that signed it.
            (None, Some(first)) => first.signed_by == kid,
            (None, None) => self.current.kid == kid,
        }
    }

    /// The recovery key that agents have.
    pub(super) fn recovery(&self) -> Option<&String> {
        self.statements.last().and_then(|last| last.recovery.as_ref())
    }

    /// How many revocations there were.
    pub(super) fn revocations(&self) -> u64 {
        self.statements.iter().filter_map(|statement| statement.revocation).max().unwrap_or_default()
    }

    /// The number that an agent has accepted, as far as this ledger knows it. A higher one is of a
    /// thief of a key, or of a ledger that was restored since: what the recovery key signed is sent again.
    pub(super) fn believable(&self, said: u64) -> u64 {
        let last = self.last_number();
        let revoked = self.statements.iter().rfind(|statement| statement.revocation.is_some());
        if said <= last { said } else { revoked.map_or(last, |revoked| revoked.number - 1) }
    }

    /// The statements after `number`, as far as an agent can follow them.
    fn after(&self, number: u64) -> impl Iterator<Item = &String> {
        let later = self.statements.iter().filter(move |statement| statement.number > number);
        later.map_while(|statement| statement.token.as_ref())
    }
}

/// Whether a rotation that has ended took this key's place.
pub fn is_rotated_out(statements: &[StoredStatement], kid: &str) -> bool {
    let Some(last) = statements.last().filter(|last| last.token.is_some()) else { return false };
    let names = |statement: &StoredStatement| statement.keys.iter().any(|key| key.kid == kid);
    !names(last) && statements.iter().any(|statement| names(statement) || statement.signed_by == kid)
}

/// The key for an agent's next commands.
#[derive(Debug)]
pub(super) enum KeyFor {
    /// Sign with this one.
    Sign(NamedKey),
    /// It trusts none of the keys, and learns one as soon as it answers: wait.
    Wait,
}

/// The manager's signing keys.
#[derive(Debug)]
pub struct Signer {
    ring: ArcSwap<Ring>,
    store: Box<dyn KeyStore>,
    /// What agents have confirmed.
    pub(super) numbers: KeyNumbers,
    /// A key whose revocation of the others waits for the signature of the recovery key.
    pub(super) prepared: Mutex<Option<NamedKey>>,
    /// Held while the keys change.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Signer {
    /// Creates a signer: `current` signs, `others` are the further keys of the file, and the
    /// `statements` say which of them is the next.
    pub fn new(
        current: NamedKey,
        others: Vec<NamedKey>,
        statements: Vec<StoredStatement>,
        store: Box<dyn KeyStore>,
    ) -> Self {
        let ring = Ring::of(current, others, statements);
        let (numbers, changing) = (KeyNumbers::default(), tokio::sync::Mutex::default());
        Self { ring: ArcSwap::from_pointee(ring), store, numbers, prepared: Mutex::default(), changing }
    }

    /// Takes over which statement each agent has accepted, as it is stored.
    pub fn load_numbers(&self, stored: Vec<(Uuid, u64)>) {
        self.numbers.load(stored);
    }

    /// What an agent pins at enrolment, with the number of the statement that it follows from.
    pub fn enrolment(&self) -> (Vec<ManagerKey>, u64) {
        let ring = self.ring.load();
        let keys = std::iter::once(&ring.current).chain(&ring.others).map(NamedKey::public).collect();
        // The key of a rotation comes by its statement, as for agents of before, and so does the recovery
        // key: the answer to an enrolment is not signed.
        let is_told = ring.rotation().is_some() || ring.recovery().is_some();
        let number = ring.last_number() - u64::from(is_told);
        (keys, number)
    }

    /// The key that signs, for keys of other purposes that follow from it.
    pub(super) fn root(&self) -> SigningKey {
        self.ring.load().current.key.clone()
    }

    /// The key of a rotation, if one is under way.
    pub(super) fn next_root(&self) -> Option<SigningKey> {
        self.ring.load().next.as_ref().map(|next| next.key.clone())
    }

    /// The public key under whose signature checkpoints of the audit log count. Those of an earlier key
    /// count because the later ones name them.
    pub fn checkpoint_keys(&self) -> CheckpointKeys {
        CheckpointKeys::new([self.ring.load().current.key.verifying_key()])
    }

    /// Signs a checkpoint with the key that signs now.
    ///
    /// # Errors
    /// If the library cannot sign.
    pub(super) fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<String> {
        let signed = checkpoint.sign(&self.root());
        signed.map_err(|_| StoreError::Corrupt(format!("the checkpoint of entry {} cannot be signed", checkpoint.seq)))
    }

    /// Seals the contents of an incident bundle with the key that signs now.
    ///
    /// # Errors
    /// As [`Signer::sign_checkpoint`].
    pub fn seal(&self, response: Uuid, contents: &str, now: Timestamp) -> Result<String> {
        let sealed = IncidentSeal::of(response, contents, now).sign(&self.root());
        sealed.map_err(|_| StoreError::Corrupt(format!("the bundle of {response} cannot be sealed")))
    }

    /// Fingerprint of the key that signs.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.ring.load().current.key.verifying_key().fingerprint()
    }

    pub(super) fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Adds a private key, which nothing names yet.
    pub(super) fn add(&self, named: &NamedKey) {
        self.ring.rcu(|ring| {
            let mut ring = Ring::clone(ring);
            ring.others.push(named.clone());
            ring
        });
    }

    /// Follows the ledger: `current` signs, and these are the statements. Returns whether there is
    /// something new.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] without the private half of the key.
    pub(super) fn follow(&self, current: &str, statements: Vec<StoredStatement>) -> Result<bool> {
        let before = self.ring.load_full();
        let is_news =
            before.current.kid != current || before.last_number() != statements.last().map_or(0, |last| last.number);
        if !is_news {
            return Ok(false);
        }
        let mut keys: Vec<NamedKey> =
            std::iter::once(&before.current).chain(&before.next).chain(&before.others).cloned().collect();
        let at = keys.iter().position(|named| named.kid == current);
        let at =
            at.ok_or_else(|| StoreError::Corrupt(format!("the signing key {current}, which this manager has not")))?;
        let current = keys.remove(at);
        self.ring.store(Arc::new(Ring::of(current, keys, statements)));
        Ok(true)
    }

    /// Stores the private keys as they are now.
    ///
    /// # Errors
    /// Why they cannot be stored.
    pub(super) fn store(&self) -> std::result::Result<(), String> {
        self.store.replace(&self.ring.load().keys())
    }

    /// The key for the commands of an agent, which has said in this conversation which statement it
    /// has accepted (`None` if it learns no keys).
    pub(super) fn key_for(&self, agent: Uuid, said: Option<u64>) -> KeyFor {
        let ring = self.ring.load();
        let number = said.unwrap_or_else(|| self.numbers.of(agent));
        let trusted = [ring.next.as_ref(), Some(&ring.current)];
        let trusted = trusted.into_iter().flatten().find(|named| ring.is_trusted(number, &named.kid));
        match trusted {
            Some(named) => KeyFor::Sign(named.clone()),
            None if said.is_some() && ring.after(number).next().is_some() => KeyFor::Wait,
            // It can learn no key of these: it refuses the command, and reports that.
            None => KeyFor::Sign(ring.current.clone()),
        }
    }

    /// The statements that an agent has not accepted, at most `max`.
    pub(super) fn statements_after(&self, number: u64, max: usize) -> Vec<String> {
        self.ring.load().after(number).take(max).cloned().collect()
    }

    /// The number of the last statement.
    pub(super) fn last_number(&self) -> u64 {
        self.ring.load().last_number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    impl KeyStore for Nowhere {
        fn replace(&self, _: &[SigningKey]) -> std::result::Result<(), String> {
            Ok(())
        }
    }

    fn named(seed: u8) -> NamedKey {
        NamedKey { kid: format!("k{seed}"), key: SigningKey::from_seed(&[seed; 32]).unwrap() }
    }

    fn statement(number: u64, signed_by: u8, keys: &[u8]) -> StoredStatement {
        StoredStatement {
            number,
            token: Some(format!("s{number}")),
            signed_by: format!("k{signed_by}"),
            keys: keys.iter().map(|seed| named(*seed).public()).collect(),
            made_at: riposte_protocol::time::Timestamp::from_millis(0),
            made_by: "a".into(),
            recovery: None,
            revocation: None,
        }
    }

    fn signer(current: u8, others: &[u8], statements: Vec<StoredStatement>) -> Signer {
        Signer::new(named(current), others.iter().map(|seed| named(*seed)).collect(), statements, Box::new(Nowhere))
    }

    fn kid(signer: &Signer, said: Option<u64>) -> String {
        match signer.key_for(Uuid::nil(), said) {
            KeyFor::Sign(named) => named.kid,
            KeyFor::Wait => "wait".into(),
        }
    }

    #[test]
    fn each_agent_gets_a_key_that_it_trusts() {
        let before = signer(1, &[], vec![]);
        assert_eq!([Some(0), None].map(|said| kid(&before, said)), ["k1", "k1"]);

        let during = signer(1, &[2], vec![statement(1, 1, &[1, 2])]);
        assert_eq!([Some(0), None, Some(1)].map(|said| kid(&during, said)), ["k1", "k1", "k2"]);
        assert_eq!(during.statements_after(0, 9), ["s1"]);
        let (keys, number) = during.enrolment();
        assert_eq!((keys, number), (vec![named(1).public()], 0), "an agent that enrols now learns the next one too");

        let after = signer(2, &[], vec![statement(1, 1, &[1, 2]), statement(2, 2, &[2])]);
        // One that was away waits for what it learns; one that learns nothing shows that it is lost.
        assert_eq!([Some(0), None, Some(1), Some(2)].map(|said| kid(&after, said)), ["wait", "k2", "k2", "k2"]);
        assert_eq!(after.statements_after(0, 9), ["s1", "s2"]);
        assert_eq!(after.statements_after(0, 1), ["s1"]);
        assert_eq!(after.enrolment(), (vec![named(2).public()], 2));

        let cancelled = signer(1, &[], vec![statement(1, 1, &[1, 2]), statement(2, 1, &[1])]);
        assert_eq!([Some(0), None, Some(1), Some(2)].map(|said| kid(&cancelled, said)), ["k1"; 4]);

        // The key was lost, and another one adopted: no agent of before can learn it.
        let adopted = StoredStatement { token: None, ..statement(2, 3, &[3]) };
        let adopted = signer(3, &[], vec![statement(1, 1, &[1]), adopted]);
        assert_eq!([Some(1), None, Some(2)].map(|said| kid(&adopted, said)), ["k3"; 3]);
        assert!(adopted.statements_after(1, 9).is_empty());
    }
}
