//! `/v1/whoami`: the caller, as this manager sees it.

use axum::extract::State;

use super::front::auth::{Caller, Identify};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::principal::{Credentials, Principal};
use crate::engine::key_uses::expires_soon;
use crate::views::auth::{CredentialKind, PrincipalKind, WhoAmI};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(who))
}

/// Returns the caller: principal, current role and rights, and kind of the credentials
#[utoipa::path(get, path = "/v1/whoami", tag = "auth", responses((status = 200, body = WhoAmI)))]
pub async fn who(caller: Caller<Identify>, State(state): State<AppState>) -> axum::Json<WhoAmI> {
    let Principal { actor, role, via, expires_at, .. } = &caller.principal;
    let person = caller.principal.person();
    let (key_id, via) = match via {
        Credentials::Key(id) => (Some(id.clone()), CredentialKind::Key),
        // A link asks for nothing but its page.
        Credentials::Session(_) | Credentials::Link(_) => (None, CredentialKind::Session),
    };
    let keys = state.engine.keys.load();
    let name_of_key = key_id.as_ref().and_then(|id| keys.get(id)).map(|row| row.key.name.clone());
    axum::Json(WhoAmI {
        principal: actor.to_string(),
        kind: if person.is_some() { PrincipalKind::User } else { PrincipalKind::Service },
        name: person.map(str::to_owned).or(name_of_key).unwrap_or_default(),
        role: *role,
        rights: caller.principal.rights(),
        scopes: caller.principal.scopes.all().to_vec(),
        expires_soon: via == CredentialKind::Key && expires_soon(*expires_at, state.engine.clock.now()),
        via,
        key_id,
        expires_at: *expires_at,
        address: caller.address.to_string(),
    })
}
