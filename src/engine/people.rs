//! What users may do at this moment: the role and the scope that they have now, whatever their credentials said when they were
//! made.

use super::Engine;
use crate::domain::actor::Actor;
use crate::domain::principal::{Credentials, Principal, Role};
use crate::domain::scope::{Scope, Scopes};

impl Engine {
    /// The role and the scope of a user that is enabled.
    pub fn role_of(&self, user: &str) -> Option<(Role, Scope)> {
        let users = self.users.load();
        let user = users.get(user).filter(|user| user.user.disabled_at.is_none())?;
        Some((user.user.role, user.user.scope.clone()))
    }

    /// The person of a link in a message of `webhook`; `None` if the user is not enabled.
    pub fn principal_of_link(&self, webhook: &str, user: &str) -> Option<Principal> {
        if self.db.seals().refuses_callers().is_some() {
            return None;
        }
        let (role, scope) = self.role_of(user)?;
        let (actor, via) = (Actor::User(user.to_owned()), Credentials::Link(webhook.to_owned()));
        Some(Principal {
            actor,
            role,
            scopes: Scopes::of([scope]),
            pipeline: None,
            via,
            expires_at: None,
            address: None,
        })
    }
}
