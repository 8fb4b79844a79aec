//! Every operation of the API: who may call it, on what, and what it answers.

pub(super) const VIEWERS: &[&str] = &["viewer", "analyst", "engineer", "admin"];
pub(super) const PIPELINES: &[&str] = &["ingest", "engineer", "admin"];
pub(super) const ANALYSTS: &[&str] = &["analyst", "engineer", "admin"];
pub(super) const ENGINEERS: &[&str] = &["engineer", "admin"];
pub(super) const ADMINS: &[&str] = &["admin"];
pub(super) const ROLES: &[&str] = &["viewer", "analyst", "engineer", "admin", "ingest"];

/// The callers that may use an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Who {
    Anybody,
    /// Every client that has an enrolment token.
    TokenHolders,
    Agents,
    Roles(&'static [&'static str]),
}

/// The object that an operation acts on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum On {
    Nothing,
    Alert,
    Policy,
    /// A policy that its breaker has stopped.
    Stopped,
    Action,
    Response,
    Effect,
    Command,
    Agent,
    Token,
    Key,
    User,
    /// A user that is linked at an OpenID provider.
    Linked,
    Protected,
    LegalHold,
    /// An alert that was not taken in.
    Rejected,
    Secret,
    Webhook,
    Forwarder,
    Feed,
    /// A feed of the form `taxii`.
    Collection,
    /// A response that waits for approval.
    Waiting,
    /// A response that acted first and waits for confirmation.
    Unconfirmed,
    /// The signing key, without a rotation.
    OneKey,
    /// A rotation of the signing key that is under way.
    Rotation,
}

/// One operation: the callers that may, its object, the status that they get, and its audit verb.
pub(super) type Operation = (&'static str, &'static str, Who, On, u16, Option<&'static str>);

/// Every operation of the API. An operation that is missing here fails the test.
pub(super) const OPERATIONS: &[Operation] = &[
    ("POST", "/v1/alerts", Who::Roles(PIPELINES), On::Nothing, 202, Some("created")),
    // The matrix has no such key; `scopes.rs` sends alerts this way.
    ("POST", "/v1/ingest/{secret}", Who::Anybody, On::Nothing, 401, None),
    ("GET", "/v1/alerts", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/alerts/{id}", Who::Roles(VIEWERS), On::Alert, 200, None),
    ("GET", "/v1/alerts/{id}/explain", Who::Roles(VIEWERS), On::Alert, 200, None),
    ("GET", "/v1/policies", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/policies", Who::Roles(ENGINEERS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/policies/{name}", Who::Roles(VIEWERS), On::Policy, 200, None),
    ("PUT", "/v1/policies/{name}", Who::Roles(ENGINEERS), On::Policy, 200, Some("updated")),
    ("DELETE", "/v1/policies/{name}", Who::Roles(ENGINEERS), On::Policy, 204, Some("deleted")),
    ("GET", "/v1/policies/{name}/versions", Who::Roles(VIEWERS), On::Policy, 200, None),
    ("POST", "/v1/policies/{name}/rollback", Who::Roles(ENGINEERS), On::Policy, 200, Some("updated")),
    ("POST", "/v1/policies/{name}/reset", Who::Roles(ENGINEERS), On::Stopped, 200, Some("reset")),
    ("GET", "/v1/policies/{name}/counts", Who::Roles(VIEWERS), On::Policy, 200, None),
    ("POST", "/v1/policies/import", Who::Roles(ENGINEERS), On::Nothing, 201, Some("created")),
    ("POST", "/v1/policies/backtest", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/actions", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/actions", Who::Roles(ENGINEERS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/actions/{name}", Who::Roles(VIEWERS), On::Action, 200, None),
    ("PUT", "/v1/actions/{name}", Who::Roles(ENGINEERS), On::Action, 200, Some("updated")),
    ("DELETE", "/v1/actions/{name}", Who::Roles(ENGINEERS), On::Action, 204, Some("deleted")),
    ("GET", "/v1/responses", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/responses", Who::Roles(ANALYSTS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/responses/{id}", Who::Roles(VIEWERS), On::Response, 200, None),
    ("GET", "/v1/responses/{id}/bundle", Who::Roles(VIEWERS), On::Response, 200, None),
    ("PUT", "/v1/responses/{id}/case", Who::Roles(ANALYSTS), On::Response, 200, Some("filed")),
    ("POST", "/v1/responses/{id}/lift", Who::Roles(ANALYSTS), On::Response, 200, Some("ended")),
    ("POST", "/v1/responses/lift", Who::Roles(ANALYSTS), On::Response, 200, Some("ended")),
    ("POST", "/v1/responses/{id}/approve", Who::Roles(ANALYSTS), On::Waiting, 200, Some("approved")),
    ("POST", "/v1/responses/{id}/reject", Who::Roles(ANALYSTS), On::Waiting, 200, Some("rejected")),
    ("POST", "/v1/responses/{id}/confirm", Who::Roles(ANALYSTS), On::Unconfirmed, 200, Some("confirmed")),
    ("GET", "/v1/nodes", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/statistics", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("PUT", "/v1/wazuh-agents", Who::Roles(PIPELINES), On::Nothing, 200, None),
    ("GET", "/v1/pipelines", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/rejected", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/rejected/{id}", Who::Roles(VIEWERS), On::Rejected, 200, None),
    ("POST", "/v1/rejected/{id}/resend", Who::Roles(PIPELINES), On::Rejected, 200, Some("created")),
    ("GET", "/v1/holds", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/holds", Who::Roles(ADMINS), On::Nothing, 201, Some("placed")),
    ("GET", "/v1/holds/{id}", Who::Roles(VIEWERS), On::LegalHold, 200, None),
    ("DELETE", "/v1/holds/{id}", Who::Roles(ADMINS), On::LegalHold, 204, Some("released")),
    ("GET", "/v1/feeds", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/feeds", Who::Roles(ENGINEERS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/feeds/{name}", Who::Roles(VIEWERS), On::Feed, 200, None),
    ("PUT", "/v1/feeds/{name}", Who::Roles(ENGINEERS), On::Feed, 200, Some("updated")),
    ("DELETE", "/v1/feeds/{name}", Who::Roles(ENGINEERS), On::Feed, 204, Some("deleted")),
    ("GET", "/feeds/{name}", Who::Roles(VIEWERS), On::Feed, 200, None),
    ("GET", "/taxii2/", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/taxii2/riposte/", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/taxii2/riposte/collections/", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/taxii2/riposte/collections/{name}/", Who::Roles(VIEWERS), On::Collection, 200, None),
    ("GET", "/taxii2/riposte/collections/{name}/objects/", Who::Roles(VIEWERS), On::Collection, 200, None),
    ("GET", "/taxii2/riposte/collections/{name}/manifest/", Who::Roles(VIEWERS), On::Collection, 200, None),
    // There is no such object: `feeds_taxii.rs` asks for those that are there.
    ("GET", "/taxii2/riposte/collections/{name}/objects/{id}/", Who::Roles(VIEWERS), On::Collection, 404, None),
    (
        "GET",
        "/taxii2/riposte/collections/{name}/objects/{id}/versions/",
        Who::Roles(VIEWERS),
        On::Collection,
        404,
        None,
    ),
    // The matrix has no key in X-Api-Key; `crowdsec.rs` asks with one.
    ("GET", "/crowdsec/v1/decisions", Who::Anybody, On::Nothing, 403, None),
    ("GET", "/crowdsec/v1/decisions/stream", Who::Anybody, On::Nothing, 403, None),
    ("POST", "/crowdsec/v1/usage-metrics", Who::Anybody, On::Nothing, 403, None),
    ("GET", "/v1/secrets", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("PUT", "/v1/secrets/{name}", Who::Roles(ENGINEERS), On::Secret, 204, Some("set")),
    ("DELETE", "/v1/secrets/{name}", Who::Roles(ENGINEERS), On::Secret, 204, Some("deleted")),
    ("GET", "/v1/webhooks", Who::Roles(ADMINS), On::Nothing, 200, None),
    ("POST", "/v1/webhooks", Who::Roles(ADMINS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/webhooks/{name}", Who::Roles(ADMINS), On::Webhook, 200, None),
    ("PUT", "/v1/webhooks/{name}", Who::Roles(ADMINS), On::Webhook, 200, Some("updated")),
    ("DELETE", "/v1/webhooks/{name}", Who::Roles(ADMINS), On::Webhook, 204, Some("deleted")),
    ("POST", "/v1/webhooks/{name}/secret", Who::Roles(ADMINS), On::Webhook, 200, Some("secret_replaced")),
    ("POST", "/v1/webhooks/{name}/test", Who::Roles(ADMINS), On::Webhook, 200, None),
    ("GET", "/v1/webhooks/{name}/messages", Who::Roles(ADMINS), On::Webhook, 200, None),
    // Links are for a person who has logged in: `chat.rs`.
    ("POST", "/v1/webhooks/{name}/agreement", Who::Roles(ANALYSTS), On::Webhook, 403, None),
    ("POST", "/v1/webhooks/{name}/replay", Who::Roles(ADMINS), On::Webhook, 200, None),
    ("GET", "/v1/forwarders", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("PUT", "/v1/forwarders/{name}", Who::Roles(PIPELINES), On::Forwarder, 204, None),
    ("DELETE", "/v1/forwarders/{name}", Who::Roles(ADMINS), On::Forwarder, 204, Some("deleted")),
    ("GET", "/v1/freeze", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("PUT", "/v1/freeze", Who::Roles(ANALYSTS), On::Nothing, 200, Some("frozen")),
    ("GET", "/v1/signing-key", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/signing-key/rotation", Who::Roles(ADMINS), On::OneKey, 201, Some("rotation_started")),
    ("DELETE", "/v1/signing-key/rotation", Who::Roles(ADMINS), On::Rotation, 204, Some("rotation_cancelled")),
    ("POST", "/v1/signing-key/rotation/finish", Who::Roles(ADMINS), On::Rotation, 200, Some("adopted")),
    ("POST", "/v1/signing-key/recovery-key", Who::Roles(ADMINS), On::OneKey, 201, Some("recovery_key_set")),
    ("POST", "/v1/signing-key/revocation", Who::Roles(ADMINS), On::Nothing, 201, None),
    // Not signed by the recovery key; one that is, is in `key_rotation.rs`.
    ("PUT", "/v1/signing-key/revocation", Who::Roles(ADMINS), On::Nothing, 409, None),
    ("GET", "/v1/effects", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/effects/{id}", Who::Roles(VIEWERS), On::Effect, 200, None),
    ("GET", "/v1/targets", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/targets/{kind}/{value}", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/commands", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/commands/{id}", Who::Roles(VIEWERS), On::Command, 200, None),
    ("POST", "/v1/commands/{id}/cancel", Who::Roles(ANALYSTS), On::Command, 200, Some("cancelled")),
    ("GET", "/v1/agents", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/agents/{id}", Who::Roles(VIEWERS), On::Agent, 200, None),
    ("PATCH", "/v1/agents/{id}", Who::Roles(ENGINEERS), On::Agent, 200, Some("labelled")),
    ("DELETE", "/v1/agents/{id}", Who::Roles(ENGINEERS), On::Agent, 204, Some("revoked")),
    ("POST", "/v1/agents/{id}/rotate-key", Who::Roles(ENGINEERS), On::Agent, 202, Some("ordered to rotate its key")),
    ("POST", "/v1/agents/enroll", Who::TokenHolders, On::Nothing, 201, Some("enrolled")),
    ("GET", "/v1/enrollment-tokens", Who::Roles(ENGINEERS), On::Nothing, 200, None),
    ("POST", "/v1/enrollment-tokens", Who::Roles(ENGINEERS), On::Nothing, 201, Some("created")),
    ("DELETE", "/v1/enrollment-tokens/{id}", Who::Roles(ENGINEERS), On::Token, 204, Some("deleted")),
    ("GET", "/v1/api-keys", Who::Roles(ADMINS), On::Nothing, 200, None),
    ("POST", "/v1/api-keys", Who::Roles(ADMINS), On::Nothing, 201, Some("created")),
    ("DELETE", "/v1/api-keys/{id}", Who::Roles(ADMINS), On::Key, 204, Some("revoked")),
    ("GET", "/v1/users", Who::Roles(ADMINS), On::Nothing, 200, None),
    ("POST", "/v1/users", Who::Roles(ADMINS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/users/{name}", Who::Roles(ADMINS), On::User, 200, None),
    ("PATCH", "/v1/users/{name}", Who::Roles(ADMINS), On::User, 200, Some("disabled")),
    ("DELETE", "/v1/users/{name}", Who::Roles(ADMINS), On::User, 204, Some("deleted")),
    ("POST", "/v1/users/{name}/reset-password", Who::Roles(ADMINS), On::User, 200, Some("got a temporary password")),
    // The matrix has no user that was deleted long enough ago; `forgotten.rs` forgets one.
    ("POST", "/v1/users/{name}/forget", Who::Roles(ADMINS), On::User, 409, None),
    ("GET", "/v1/users/{name}/identities", Who::Roles(ADMINS), On::Linked, 200, None),
    ("PUT", "/v1/users/{name}/identities/{provider}", Who::Roles(ADMINS), On::User, 200, Some("linked")),
    ("DELETE", "/v1/users/{name}/identities/{provider}", Who::Roles(ADMINS), On::Linked, 204, Some("unlinked")),
    // What a browser with a login gets is in `sign_on.rs`.
    // The matrix has no such link; `chat.rs` decides by them.
    ("GET", "/approval/{link}", Who::Anybody, On::Nothing, 404, None),
    ("POST", "/approval/{link}", Who::Anybody, On::Nothing, 404, None),
    ("GET", "/v1/auth/oidc", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/v1/auth/oidc/{provider}/start", Who::Anybody, On::Nothing, 400, None),
    ("GET", "/v1/auth/oidc/{provider}/callback", Who::Anybody, On::Nothing, 403, None),
    // The matrix has no password; `wazuh_api.rs` logs in.
    ("POST", "/wazuh/security/user/authenticate", Who::Anybody, On::Nothing, 401, None),
    ("GET", "/wazuh/security/user/authenticate", Who::Anybody, On::Nothing, 401, None),
    ("DELETE", "/wazuh/security/user/authenticate", Who::Roles(ROLES), On::Nothing, 200, Some("logged out")),
    // The matrix asks what it can do; `openc2.rs` tries the rights of the other commands.
    ("POST", "/openc2", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/.well-known/openc2", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("PUT", "/wazuh/active-response", Who::Roles(ANALYSTS), On::Nothing, 200, Some("created")),
    ("GET", "/wazuh/agents", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/wazuh/agents/summary/status", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/wazuh/manager/info", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/wazuh/", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/auth/token", Who::Anybody, On::Nothing, 200, None),
    ("POST", "/v1/auth/password", Who::Anybody, On::Nothing, 204, None),
    // A service key has no session and no one-time codes; what a person gets is in `people.rs`.
    ("DELETE", "/v1/auth/token", Who::Roles(ROLES), On::Nothing, 409, None),
    ("POST", "/v1/auth/totp", Who::Roles(ROLES), On::Nothing, 403, None),
    ("POST", "/v1/auth/totp/confirm", Who::Roles(ROLES), On::Nothing, 403, None),
    ("DELETE", "/v1/auth/totp", Who::Roles(ROLES), On::Nothing, 403, None),
    ("GET", "/v1/whoami", Who::Roles(ROLES), On::Nothing, 200, None),
    ("GET", "/.well-known/jwks.json", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/v1/protected", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/protected", Who::Roles(ENGINEERS), On::Nothing, 201, Some("created")),
    ("GET", "/v1/protected/{id}", Who::Roles(VIEWERS), On::Protected, 200, None),
    ("DELETE", "/v1/protected/{id}", Who::Roles(ENGINEERS), On::Protected, 204, Some("deleted")),
    ("GET", "/v1/audit", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/events", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("GET", "/v1/audit/verify", Who::Roles(VIEWERS), On::Nothing, 200, None),
    ("POST", "/v1/agent/poll", Who::Agents, On::Nothing, 200, None),
    // `agent_keys.rs` has the changes that are accepted.
    ("POST", "/v1/agent/key", Who::Agents, On::Nothing, 422, None),
    // Not a WebSocket handshake: refused, but not because of the caller.
    ("GET", "/v1/agent/stream", Who::Agents, On::Nothing, 400, None),
    ("GET", "/livez", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/readyz", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/metrics", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/openapi.json", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/docs", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/docs/docs.js", Who::Anybody, On::Nothing, 200, None),
    ("GET", "/docs/docs.css", Who::Anybody, On::Nothing, 200, None),
];
