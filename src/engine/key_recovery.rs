//! The recovery key: it is made once, kept offline, and revokes a stolen signing key. Its private half
//! is never here. A revocation has two steps, because only its owner can sign: a new key is made and
//! the statement about it returned; the signed statement puts it into force at once.

use std::sync::{Arc, PoisonError};

use riposte_protocol::MANAGER;
use riposte_protocol::key::VerifyingKey;
use riposte_protocol::key_statement::{KeyStatement, KeyTrust};

use super::Engine;
use super::key_rotation::{new_key, record};
use super::refusal::{Refusal, UseCase};
use super::signer::Ring;
use crate::domain::actor::Actor;
use crate::domain::audit::AuditEvent;
use crate::store::configured::key_statements::{self, StoredStatement};
use crate::store::configured::signing_keys;
use crate::store::ledger::audit::LedgerTx;

impl Engine {
    /// The recovery key, if there is one.
    pub fn recovery_key(&self) -> Option<String> {
        self.signer.ring().recovery().cloned()
    }

    /// Takes over the public half of a recovery key, and tells all agents.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] if it is no key, [`Refusal::Conflict`] if there is one, or a rotation is
    /// under way.
    pub async fn set_recovery_key(self: &Arc<Self>, public_key: &str, by: &Actor) -> UseCase<()> {
        let key = VerifyingKey::parse(public_key).map_err(|why| Refusal::fault("/public_key", why.to_string()))?;
        let changing = self.signer.changing.lock().await;
        let ring = self.signer.ring();
        if let Some(known) = ring.recovery() {
            return Err(Refusal::Conflict(format!(
                "there is a recovery key already ({known}): agents keep the first one"
            )));
        }
        if ring.rotation().is_some() {
            return Err(Refusal::Conflict(
                "a rotation of the signing key is under way: finish or cancel it first".into(),
            ));
        }
        let keys = vec![ring.current.public()];
        let statement = self.statement_with(&ring, &ring.current, keys, Some(key.text()), by)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        key_statements::add(&mut ledger, &statement, by).await?;
        let detail = "it revokes a stolen signing key; its private half is kept elsewhere".to_owned();
        record(&mut ledger, AuditEvent::SigningKeyRecoverySet, &key.kid(), detail, by, statement.made_at);
        self.commit_and_refresh(ledger).await?;
        drop(changing);
        Ok(())
    }

    /// Makes a key that takes the place of a stolen one, and returns the statement that the recovery key
    /// has to sign.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] without a recovery key.
    pub async fn prepare_revocation(self: &Arc<Self>) -> UseCase<KeyStatement> {
        let changing = self.signer.changing.lock().await;
        if self.signer.ring().recovery().is_none() {
            return Err(Refusal::Conflict(
                "there is no recovery key. Stop the agents, replace signing.key, start once with --adopt-signing-key, and \
                 enrol the agents again"
                    .into(),
            ));
        }
        let next = new_key()?;
        let (ring, named) = (self.signer.ring(), next.public());
        // In memory until it is signed: what is never signed leaves nothing behind.
        *self.signer.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        drop(changing);
        Ok(KeyStatement {
            iss: MANAGER.into(),
            number: ring.last_number() + 1,
            keys: vec![named],
            iat: self.clock.now().as_secs(),
            recovery: ring.recovery().cloned(),
            revocation: Some(ring.revocations() + 1),
        })
    }

    /// Revokes all signing keys of before by a statement that the recovery key has signed.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if the recovery key has not signed it, or it is not the one that was
    /// prepared last.
    pub async fn revoke_signing_key(self: &Arc<Self>, token: &str, by: &Actor) -> UseCase<()> {
        let changing = self.signer.changing.lock().await;
        let mut ring = Ring::clone(&self.signer.ring());
        let recovery = ring.recovery().and_then(|key| VerifyingKey::parse(key).ok());
        let trust = KeyTrust { keys: &[], number: ring.last_number(), recovery, revocations: ring.revocations() };
        let opened = KeyStatement::open(token, &trust)
            .map_err(|why| Refusal::Conflict(format!("the recovery key has not signed this revocation: {why}")))?;
        let [named] = opened.keys.as_slice() else {
            return Err(Refusal::Conflict("the statement names more than one key".into()));
        };
        let prepared = self.signer.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let next = prepared.filter(|prepared| prepared.public() == *named);
        let (Some(next), true) = (next, opened.number == ring.last_number() + 1) else {
            return Err(Refusal::Conflict(
                "the keys have changed since this statement was prepared: prepare another".into(),
            ));
        };
        self.signer.add(&next);
        self.store_keys().await?;
        let (now, stolen) = (self.clock.now(), ring.current.kid.clone());
        let revocation = StoredStatement {
            number: opened.number,
            token: Some(token.to_owned()),
            signed_by: recovery.map(|key| key.kid()).unwrap_or_default(),
            keys: opened.keys.clone(),
            recovery: ring.recovery().cloned(),
            revocation: opened.revocation,
            made_at: now,
            made_by: by.to_string(),
        };
        ring.statements.push(revocation.clone());
        // Agents that enrol from now on learn the recovery key from the new signing key.
        let told = self.statement(&ring, &next, vec![next.public()], by)?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        key_statements::add(&mut ledger, &revocation, by).await?;
        key_statements::add(&mut ledger, &told, by).await?;
        let detail = format!("by the recovery key; {} takes its place", next.kid);
        record(&mut ledger, AuditEvent::SigningKeyRevoked, &stolen, detail, by, now);
        let why = format!("in the place of {stolen}, which was revoked");
        signing_keys::adopt(&mut ledger, &next.public(), &why, by, now).await?;
        self.commit_and_refresh(ledger).await?;
        if let Err(error) = self.store_keys().await {
            tracing::error!("the revoked signing key is still in signing.key: {error}; the next start takes it out");
        }
        drop(changing);
        Ok(())
    }
}
