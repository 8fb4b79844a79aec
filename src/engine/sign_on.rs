//! Single sign-on: a login at an OpenID provider becomes a session. The browser is sent to the
//! provider ([`Engine::begin_sign_on`]), comes back with the provider's code
//! ([`Engine::finish_sign_on`]), and the program that began the login exchanges a login code for
//! the session ([`Engine::exchange_login_code`]). A person is the same user by a password, by keys
//! and by a provider.

use std::sync::Arc;

use reqwest::Url;
use riposte_protocol::time::Timestamp;
use subtle::ConstantTimeEq as _;

use super::Engine;
use super::login::{LoginOrigin, Tokens};
use super::oidc::client::ProviderError;
use super::oidc::provider::{AuthorizationRequest, Provider};
use super::oidc::providers::{PendingLogin, ProvenLogin};
use super::refusal::{Refusal, UseCase};
use super::scopes::check_admin;
use super::secrets::{hash_secret, new_secret};
use crate::domain::actor::Actor;
use crate::domain::audit::AuditEvent;
use crate::domain::fault::Fault;
use crate::domain::forgotten::PSEUDONYM_PREFIX;
use crate::domain::id::new_id;
use crate::domain::oidc::id_token::ProvenPerson;
use crate::domain::oidc::loopback::{challenge, is_challenge, is_loopback, is_verifier_of};
use crate::domain::oidc::people::ClaimFault;
use crate::domain::password::DUMMY;
use crate::domain::principal::Role;
use crate::domain::refresh_token::LONGEST_SESSION;
use crate::domain::scope::Scope;
use crate::store::configured::{identities, sessions, users};
use crate::store::ledger::audit::LedgerTx;
use crate::views::oidc::{IdentityRow, SignOnResult};

/// Most characters of a reason in a message.
const MAX_WHY: usize = 400;
/// Stands in the audit log for a person without a user.
const UNKNOWN: &str = "(unknown)";

/// A login that has begun.
pub struct BegunSignOn {
    /// Where the browser goes.
    pub location: String,
    /// Ticket of the login, which comes back.
    pub state: String,
    /// Secret for a cookie: only this browser may finish the login.
    pub browser: String,
    /// Whether the cookie is for TLS only.
    pub is_https: bool,
}

/// What a provider sends with the browser that comes back.
#[derive(Debug, Default)]
pub struct SignOnAnswer {
    /// Ticket of the login.
    pub state: String,
    /// The provider's code.
    pub code: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
    /// Issuer.
    pub iss: Option<String>,
}

impl Engine {
    /// Begins a login at the provider called `name`, for the program that listens at `redirect_uri`
    /// and keeps the verifier of `code_challenge`.
    ///
    /// # Errors
    /// Faults of the address or the challenge, [`Refusal::NotFound`], [`Refusal::ProviderAway`].
    pub async fn begin_sign_on(
        &self,
        name: &str,
        redirect_uri: String,
        code_challenge: String,
    ) -> UseCase<BegunSignOn> {
        let provider = self.providers.named(name)?;
        let mut faults = Vec::new();
        if !is_loopback(&redirect_uri) && redirect_uri != self.providers.console() {
            let why = "must be a loopback address with a port and a path, such as http://127.0.0.1:4711/callback";
            faults.push(Fault::at("/redirect_uri", why));
        }
        if !is_challenge(&code_challenge) {
            faults.push(Fault::at("/code_challenge", "must be an S256 challenge: 43 characters of base64url"));
        }
        if !faults.is_empty() {
            return Err(Refusal::Invalid(faults));
        }
        let (now, browser, nonce, verifier) = (self.clock.now(), new_secret()?, new_secret()?, new_secret()?);
        let login = PendingLogin {
            provider: name.to_owned(),
            nonce: nonce.clone(),
            verifier: verifier.clone(),
            browser: hash_secret(&browser),
            redirect_uri,
            challenge: code_challenge,
        };
        let state = self.providers.begun.issue(login, now)?;
        let (callback, challenge) = (self.providers.callback(name), challenge(&verifier));
        let request =
            AuthorizationRequest { redirect_uri: &callback, state: &state, nonce: &nonce, challenge: &challenge };
        let location = provider.authorization_url(request, now).await.map_err(|error| away(provider, error));
        if location.is_err() {
            self.providers.begun.take(&state, now);
        }
        Ok(BegunSignOn { location: location?, state, browser, is_https: self.providers.is_https() })
    }

    /// Finishes the provider's part of a login. Returns where the browser goes: to the program that
    /// began the login, with a login code, or with the reason why there is none.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] if the login was not begun in this browser or is over; failures of the
    /// system.
    pub async fn finish_sign_on(
        self: &Arc<Self>,
        name: &str,
        answer: SignOnAnswer,
        browser: Option<&str>,
        origin: LoginOrigin,
    ) -> UseCase<String> {
        let provider = self.providers.named(name)?;
        let login = self.providers.begun.take(&answer.state, self.clock.now());
        let is_same = |login: &PendingLogin| {
            let hash = browser.map(hash_secret).unwrap_or_default();
            login.provider == name && bool::from(hash.ct_eq(&login.browser))
        };
        let Some(login) = login.filter(is_same) else {
            self.failed_sign_on(origin);
            return Err(Refusal::Forbidden(
                "this login was not begun in this browser, was finished already, or has taken longer than 10 minutes: \
                 begin again with `riposte login --sso`"
                    .to_owned(),
            ));
        };
        let proven = self.proven(provider, &login, &answer, origin).await;
        let result = match proven {
            Ok(code) => SignOnResult { code: Some(code), ..SignOnResult::default() },
            Err(refusal @ (Refusal::System(_) | Refusal::Store(_))) => return Err(refusal),
            Err(refusal) => {
                let is_away = matches!(refusal, Refusal::ProviderAway(_) | Refusal::Overloaded(_));
                let error = if is_away { "temporarily_unavailable" } else { "access_denied" }.to_owned();
                SignOnResult { code: None, error: Some(error), error_description: Some(refusal.to_string()) }
            }
        };
        let mut location = Url::parse(&login.redirect_uri).map_err(|error| Refusal::System(error.to_string()))?;
        let SignOnResult { code, error, error_description } = result;
        let parts = [("code", code), ("error", error), ("error_description", error_description)];
        for (name, value) in parts.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
            location.query_pairs_mut().append_pair(name, value);
        }
        Ok(location.into())
    }

    /// Begins the session of a login that a provider has proven.
    ///
    /// # Errors
    /// [`Refusal::Credentials`] if the code or the verifier is wrong, or the user is disabled now.
    pub async fn exchange_login_code(
        self: &Arc<Self>,
        code: &str,
        verifier: &str,
        origin: LoginOrigin,
    ) -> UseCase<Tokens> {
        let now = self.clock.now();
        let login = self.providers.proven.take(code, now);
        // A wrong verifier uses the code up: it was stolen, or there is nothing to try.
        let Some(login) = login.filter(|login| is_verifier_of(verifier, &login.challenge)) else {
            return Err(self.failed_sign_on(origin));
        };
        let (secret, address, session) = (new_secret()?, origin.address.to_string(), new_id(now));
        let ProvenLogin { user, issuer, .. } = login;
        let networks = self.networks_with(&user, origin.network);
        let mut ledger = LedgerTx::begin(&self.db).await?;
        if !users::log_in_by_provider(&mut ledger, &user, (&address, &networks), now).await? {
            return Err(self.failed_sign_on(origin));
        }
        let hash = hash_secret(&secret);
        let who = (user.as_str(), Some(issuer.as_str()));
        let until =
            sessions::begin(&mut ledger, session, who, &hash, &address, (now, now.plus(LONGEST_SESSION))).await?;
        self.commit_and_refresh(ledger).await?;
        self.tokens(&user, session, &secret, until, now)
    }

    /// Asks the provider who the person is; returns a login code for the user.
    async fn proven(
        self: &Arc<Self>,
        provider: &Provider,
        login: &PendingLogin,
        answer: &SignOnAnswer,
        origin: LoginOrigin,
    ) -> UseCase<String> {
        let now = self.clock.now();
        let name = &provider.settings.name;
        let asked = async {
            provider.check_issuer(answer.iss.as_deref(), now).await?;
            let Some(code) = &answer.code else {
                let error = answer.error.as_deref().unwrap_or("it sends no code");
                let error: String = error.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(ProviderError::Refused(format!("the provider says: {error}")));
            };
            let callback = self.providers.callback(name);
            provider.person(code, (&callback, &login.verifier, &login.nonce), now).await
        };
        let person = asked.await.map_err(|error| {
            self.failed_sign_on(origin);
            away(provider, error)
        })?;
        let user = self.user_of(provider, &person, origin).await?;
        let (issuer, challenge) = (provider.settings.issuer.clone(), login.challenge.clone());
        self.providers.proven.issue(ProvenLogin { user, issuer, challenge }, self.clock.now())
    }

    /// The user that a proven person is: linked before, or created now. The role follows the groups.
    async fn user_of(
        self: &Arc<Self>,
        provider: &Provider,
        person: &ProvenPerson,
        origin: LoginOrigin,
    ) -> UseCase<String> {
        let (now, settings) = (self.clock.now(), &provider.settings);
        let role = settings.mapping.role(&person.claims);
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let mut known = identities::find(&mut ledger, &settings.issuer, &person.subject).await?;
        if known.is_none() {
            // Of a person who was forgotten, who stays out.
            let former = self.forgetting_key()?.former_subject(&settings.issuer, &person.subject);
            known = identities::find(&mut ledger, &settings.issuer, &former).await?;
        }
        let outcome = match &known {
            Some(identity) => self.known_user(&mut ledger, provider, identity, role, now).await?,
            None => self.new_user(&mut ledger, provider, person, role, now).await?,
        };
        if let Err((user, why)) = &outcome {
            let user = user.as_deref().unwrap_or(UNKNOWN);
            let detail = format!("at {} from {}: {why}", settings.name, origin.address);
            users::record(&mut ledger, AuditEvent::UserFailedLogin, user, detail, &Actor::Riposte, now);
        }
        self.commit_and_refresh(ledger).await?;
        outcome.map_err(|(_, why)| Refusal::Forbidden(why))
    }

    /// Creates the user of a first login.
    async fn new_user(
        &self,
        ledger: &mut LedgerTx,
        provider: &Provider,
        person: &ProvenPerson,
        role: Result<Role, ClaimFault>,
        now: Timestamp,
    ) -> UseCase<Outcome> {
        let settings = &provider.settings;
        let (name, role) = match (settings.mapping.name(&person.claims), role) {
            (Ok(name), Ok(role)) => (name, role),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err((None, fault.to_string()))),
        };
        if name.starts_with(PSEUDONYM_PREFIX) || self.was_forgotten(&name)? {
            let why =
                "a person with this name was deleted, and a name is never given again: ask an administrator".to_owned();
            return Ok(Err((None, why)));
        }
        if users::find_in(ledger, &name).await?.is_some() {
            let (provider, subject) = (&settings.name, &person.subject);
            let why = format!(
                "a user called {name} exists and is not linked to this person; if it is the same person, an administrator \
                 links it: `riposte user link {name} --provider {provider} --subject {subject}`"
            );
            return Ok(Err((Some(name), why)));
        }
        let by = Actor::User(name.clone());
        // No password has this hash, so a login with one fails like any wrong password.
        users::create(ledger, &name, (role, &Scope::default()), (DUMMY, false), &by, now).await?;
        identities::link(ledger, (&settings.issuer, &person.subject), &name, true, &by, now).await?;
        Ok(Ok(name))
    }

    async fn known_user(
        &self,
        ledger: &mut LedgerTx,
        provider: &Provider,
        identity: &IdentityRow,
        role: Result<Role, ClaimFault>,
        now: Timestamp,
    ) -> UseCase<Outcome> {
        let name = identity.user_name.clone();
        let user = users::find_in(ledger, &name).await?.filter(|user| user.disabled_at.is_none());
        let Some(user) = user else {
            let why = format!("the user {name} is disabled: ask an administrator");
            return Ok(Err((Some(name), why)));
        };
        match role {
            Ok(role) if identity.role_from_groups && check_admin(role, &user.scope).is_err() => {
                let why = format!(
                    "the groups of {name} give the role admin, which a user with a scope cannot have: another \
                     administrator removes the scope, or changes the groups"
                );
                return Ok(Err((Some(name), why)));
            }
            Ok(role) if identity.role_from_groups && role != user.role => {
                users::follow_groups(ledger, &user, role, &provider.settings.name, now).await?;
            }
            Ok(_) => {}
            Err(fault) => {
                // The provider says that the person has no role any more, so nothing of it goes on.
                if identity.role_from_groups {
                    sessions::end_all(ledger, &name, now).await?;
                }
                return Ok(Err((Some(name), fault.to_string())));
            }
        }
        Ok(Ok(name))
    }

    /// Counts a failed login of an unknown person, and returns the refusal of a login code.
    fn failed_sign_on(&self, origin: LoginOrigin) -> Refusal {
        self.metrics.unauthenticated.inc();
        self.failed_logins.note(None, origin.address, false);
        Refusal::Credentials(
            "the login code is not valid, was used, or has expired, or the user is disabled: log in again",
        )
    }
}

/// The user's name, or the user and why the login is refused.
type Outcome = Result<String, (Option<String>, String)>;

/// What a caller is told of a provider that does not answer or refuses.
fn away(provider: &Provider, error: ProviderError) -> Refusal {
    let name = &provider.settings.name;
    // It may hold words of the provider.
    let brief = |why: String| why.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect::<String>();
    match error {
        ProviderError::Refused(why) => Refusal::Forbidden(format!("the login at {name} failed: {}", brief(why))),
        ProviderError::Away(why) => {
            let why = brief(why);
            let issuer = &provider.settings.issuer;
            tracing::warn!(provider = name, issuer, "the OpenID provider {name} does not answer as it should: {why}");
            Refusal::ProviderAway(format!(
                "the OpenID provider {name} ({issuer}) does not answer as it should: {why}. Logins with a password work"
            ))
        }
    }
}
