//! Identities of people at OpenID providers, linked and unlinked by administrators.

use std::sync::Arc;

use super::Engine;
use super::refusal::{Refusal, UseCase};
use super::users::missing;
use crate::domain::actor::Actor;
use crate::domain::oidc::people::is_subject;
use crate::store::StoreError;
use crate::store::configured::{identities, sessions, users};
use crate::store::ledger::audit::LedgerTx;
use crate::views::oidc::LinkIdentity;

impl Engine {
    /// Links the user `name` to a subject at the provider called `provider`.
    ///
    /// # Errors
    /// No such user or provider, a fault of the subject, or either of them is linked already.
    pub async fn link_identity(
        self: &Arc<Self>,
        name: &str,
        provider: &str,
        link: LinkIdentity,
        by: &Actor,
    ) -> UseCase<()> {
        let LinkIdentity { subject, role_from_groups } = link;
        let issuer = &self.providers.named(provider)?.settings.issuer;
        if !is_subject(&subject) {
            return Err(Refusal::fault("/subject", "must have 1 to 255 bytes, none of them a control character"));
        }
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let user = users::find_in(&mut ledger, name).await?.filter(|user| user.deleted_at.is_none());
        user.ok_or_else(|| missing(StoreError::NotFound, name))?;
        let known = identities::find(&mut ledger, issuer, &subject).await?;
        if known.as_ref().is_some_and(|known| known.user_name == name && known.role_from_groups == role_from_groups) {
            return Ok(());
        }
        if let Some(known) = known.filter(|known| known.user_name != name) {
            let other = &known.user_name;
            return Err(Refusal::Conflict(format!(
                "this subject is linked to the user {other}: `riposte user unlink {other} --provider {provider}` first"
            )));
        }
        let linked = identities::link(&mut ledger, (issuer, &subject), name, role_from_groups, by, now).await;
        linked.map_err(|error| match error {
            StoreError::Duplicate => Refusal::Conflict(format!(
                "the user {name} is linked at {provider} already: `riposte user unlink {name} --provider {provider}` first"
            )),
            other => other.into(),
        })?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Ends that the user `name` can log in at the provider called `provider`. All sessions end.
    ///
    /// # Errors
    /// No such provider, or no such link.
    pub async fn unlink_identity(self: &Arc<Self>, name: &str, provider: &str, by: &Actor) -> UseCase<()> {
        let issuer = &self.providers.named(provider)?.settings.issuer;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let unlinked = identities::unlink(&mut ledger, issuer, name, by, now).await;
        unlinked.map_err(|error| match error {
            StoreError::NotFound => Refusal::NotFound(format!("the user {name} is not linked at {provider}")),
            other => other.into(),
        })?;
        sessions::end_all(&mut ledger, name, now).await?;
        Ok(self.commit_and_refresh(ledger).await?)
    }
}
