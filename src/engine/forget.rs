//! Forgetting a person who was deleted: in many small transactions, so that no other request waits long for it.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use super::users::missing;
use crate::domain::actor::Actor;
use crate::domain::forgotten::{ForgettingKey, PSEUDONYM_PREFIX};
use crate::store::StoreError;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::forgotten::{self, Forgetting, Obstacle};
use crate::store::seals::whole;

/// Entries of the audit log per transaction, which are written by one statement.
const ENTRIES: i64 = 200;
/// Other rows per transaction, which are sealed one by one.
const ROWS: i64 = 25;
/// Pause between two transactions, in which others get the ledger.
const PAUSE: Duration = Duration::from_millis(5);
/// Time after a deletion until which managers may write what they remember of the person, such as refused requests.
const REMEMBERED: Duration = Duration::from_mins(5);

impl Engine {
    /// Forgets the deleted user `name`: a pseudonym takes the place of the name, and texts of the audit log that can
    /// name the person are removed. Returns the pseudonym. It can be repeated after a failure, and goes on then.
    ///
    /// # Errors
    /// No such user, one who is not deleted, or what must be kept.
    pub async fn forget_user(self: &Arc<Self>, name: &str, by: &Actor) -> UseCase<String> {
        if name.starts_with(PSEUDONYM_PREFIX) {
            return Err(Refusal::Conflict(format!("{name} is the pseudonym of a person who was forgotten")));
        }
        whole::examine_legal_holds(&self.db).await?;
        if let Some(breach) = self.db.seals().keeps_all() {
            return Err(Refusal::Conflict(format!("nothing may be removed now: {}", breach.describe())));
        }
        if let Some(webhook) = self.webhook_of_person(name).await? {
            let why = format!("the webhook {webhook} is for {name}: change or delete it first");
            return Err(Refusal::Conflict(why));
        }
        let key = self.forgetting_key()?;
        let who = Forgetting::of(name, &key);
        let mut ledger = self.begin_to_forget(&who).await?;
        forgotten::order(&mut ledger, &who, by, self.clock.now()).await?;
        ledger.commit().await?;
        while self.forget_some(&who, &key).await? {
            tokio::time::sleep(PAUSE).await;
        }
        let mut ledger = self.begin_to_forget(&who).await?;
        let finished = forgotten::finish(&mut ledger, &who, &key, by, self.clock.now()).await;
        finished.map_err(|error| missing(error, name))?;
        self.commit_and_refresh(ledger).await?;
        self.lockouts.forget(name);
        Ok(who.pseudonym)
    }

    async fn begin_to_forget(&self, who: &Forgetting) -> UseCase<LedgerTx> {
        let before = self.clock.now().minus(REMEMBERED);
        let Forgetting { name, .. } = who;
        forgotten::begin(&self.db, who, before).await?.map_err(|obstacle| match obstacle {
            Obstacle::Unknown => Refusal::NotFound(format!(
                "there is no user called {name:?}; a person with that name has been forgotten already, if there was one \
                 (`riposte user list`)"
            )),
            Obstacle::NotDeleted => Refusal::Conflict(format!(
                "{name} must have been deleted for {} minutes: managers write until then what they remember of the person \
                 (`riposte user revoke`)",
                REMEMBERED.as_secs() / 60
            )),
            Obstacle::Held => Refusal::Conflict(
                "a legal hold is in force (`riposte hold list`): until it is released no person is forgotten".to_owned(),
            ),
            Obstacle::Counts => Refusal::Conflict(format!(
                "a decision of {name} counts for a response that waits for approval: forget the person when it is decided"
            )),
        })
    }

    /// One batch. Returns whether there is more to do.
    async fn forget_some(&self, who: &Forgetting, key: &ForgettingKey) -> UseCase<bool> {
        let mut ledger = self.begin_to_forget(who).await?;
        let removed = forgotten::remove_texts(&mut ledger, who, key, ENTRIES, self.clock.now()).await?;
        let replaced = if removed == 0 { forgotten::replace_names(&mut ledger, who, ROWS).await? } else { 0 };
        ledger.commit().await?;
        Ok(removed + replaced > 0)
    }

    /// The key that pseudonyms and lists of removed texts follow from.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn forgetting_key(&self) -> UseCase<ForgettingKey> {
        let derived = self.ledger_key.derive("forgetting");
        derived.map(|bytes| ForgettingKey::new(&bytes)).map_err(|error| Refusal::System(error.to_string()))
    }

    /// Goes on with people whom a manager began to forget before it ended.
    pub(super) async fn finish_forgetting(self: &Arc<Self>) -> Result<(), StoreError> {
        let Ok(key) = self.forgetting_key() else { return Ok(()) };
        let users = self.users.load_full();
        let deleted = users.values().filter(|stored| stored.user.deleted_at.is_some());
        let forgettable = deleted.filter(|stored| !stored.user.name.starts_with(PSEUDONYM_PREFIX));
        for name in forgettable.map(|stored| &stored.user.name) {
            if !forgotten::is_ordered(&self.db, &Forgetting::of(name, &key)).await? {
                continue;
            }
            match self.forget_user(name, &Actor::Riposte).await {
                Ok(pseudonym) => tracing::info!("a person whom a manager began to forget is {pseudonym} now"),
                Err(refusal) => tracing::error!("a person cannot be forgotten to the end: {refusal}"),
            }
        }
        Ok(())
    }

    /// Whether the name was that of a person who was forgotten.
    pub(super) fn was_forgotten(&self, name: &str) -> UseCase<bool> {
        let pseudonym = self.forgetting_key()?.pseudonym(name);
        Ok(self.users.load().contains_key(&pseudonym))
    }
}
