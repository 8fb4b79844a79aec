//! One OpenID provider: its discovery document and its keys, read when they are needed and kept for
//! a time, and the exchange of its code for a proven person. A provider that is away holds up no
//! start and no other login.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use riposte_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::client::{ProviderClient, ProviderError};
use crate::domain::oidc::id_token::{self, ExpectedToken, IdTokenError, ProvenPerson, ProviderKeys};
use crate::domain::oidc::people::ClaimMapping;

/// How long the discovery document and the keys are kept.
const FRESH: Duration = Duration::from_hours(1);
/// Least time between two reads of the keys for the sake of an unknown key.
const KEYS_EVERY: Duration = Duration::from_secs(10);
/// How long a failure to reach the provider is kept: a login does not wait for one that has just
/// been found away.
const AWAY: Duration = Duration::from_secs(5);

/// How this manager is known to a provider.
#[derive(Clone)]
pub struct ProviderSettings {
    /// Name in addresses and messages.
    pub name: String,
    /// Issuer.
    pub issuer: String,
    /// Id of the client.
    pub client_id: String,
    /// Its secret; `None` for a public client.
    pub client_secret: Option<String>,
    /// Scopes to ask for.
    pub scopes: String,
    /// What the claims mean.
    pub mapping: ClaimMapping,
}

/// The URL of an endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Endpoint(Url);

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Url::parse(&text).map(Self).map_err(|error| format!("an endpoint is no URL: {error}"))
    }
}

/// What a provider says of itself (OpenID Connect Discovery 1.0).
#[derive(Clone, Debug, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: Endpoint,
    token_endpoint: Endpoint,
    jwks_uri: Endpoint,
    userinfo_endpoint: Option<Endpoint>,
    end_session_endpoint: Option<Endpoint>,
    #[serde(default)]
    id_token_signing_alg_values_supported: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Clone)]
struct Known {
    discovery: Arc<Discovery>,
    keys: Arc<ProviderKeys>,
    read_at: Timestamp,
    keys_read_at: Timestamp,
}

#[derive(Default)]
struct Memory {
    known: Option<Known>,
    away: Option<(Timestamp, ProviderError)>,
}

/// One OpenID provider.
pub struct Provider {
    /// How this manager is known to it.
    pub settings: ProviderSettings,
    client: ProviderClient,
    memory: Mutex<Memory>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Provider").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

/// What a login sends to the provider, and checks in its response.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest<'a> {
    /// Where the provider sends the person back to.
    pub redirect_uri: &'a str,
    /// Ties the response to this login.
    pub state: &'a str,
    /// Ties the ID token to this login.
    pub nonce: &'a str,
    /// S256 challenge of the verifier.
    pub challenge: &'a str,
}

impl Provider {
    /// A provider that has not been asked yet.
    pub fn new(settings: ProviderSettings, client: ProviderClient) -> Self {
        Self { settings, client, memory: Mutex::default() }
    }

    /// Where a person is sent to log in.
    ///
    /// # Errors
    /// [`ProviderError::Away`].
    pub async fn authorization_url(
        &self,
        request: AuthorizationRequest<'_>,
        now: Timestamp,
    ) -> Result<String, ProviderError> {
        let mut url = self.known(now).await?.discovery.authorization_endpoint.0.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("scope", &self.settings.scopes)
            .append_pair("redirect_uri", request.redirect_uri)
            .append_pair("state", request.state)
            .append_pair("nonce", request.nonce)
            .append_pair("code_challenge", request.challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// Checks the `iss` of a response (RFC 9207): a provider that announces it must send its own.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] if it is another one.
    pub async fn check_issuer(&self, iss: Option<&str>, now: Timestamp) -> Result<(), ProviderError> {
        let is_announced = self.known(now).await?.discovery.authorization_response_iss_parameter_supported;
        match iss {
            Some(iss) if iss == self.settings.issuer => Ok(()),
            None if !is_announced => Ok(()),
            _ => Err(ProviderError::Refused("the response is not from this provider (iss)".to_owned())),
        }
    }

    /// Exchanges the provider's code for the person.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn person(
        &self,
        code: &str,
        (redirect_uri, verifier, nonce): (&str, &str, &str),
        now: Timestamp,
    ) -> Result<ProvenPerson, ProviderError> {
        let known = self.known(now).await?;
        let tokens = self.tokens(&known.discovery, code, redirect_uri, verifier).await?;
        let text = |name: &str| tokens.get(name).and_then(Value::as_str);
        let id_token = text("id_token");
        let id_token = id_token.ok_or_else(|| ProviderError::Away("the provider sends no ID token".to_owned()))?;
        let algorithms = id_token::accepted(&known.discovery.id_token_signing_alg_values_supported);
        let ProviderSettings { issuer, client_id, .. } = &self.settings;
        let expected = ExpectedToken { issuer, client_id, nonce, now };
        let verified = match id_token::verify(id_token, &known.keys, &algorithms, expected) {
            Err(IdTokenError::UnknownKey) => {
                let keys = self.newer_keys(now).await?;
                id_token::verify(id_token, &keys, &algorithms, expected)
            }
            verified => verified,
        };
        let mut person = verified.map_err(|error| ProviderError::Refused(error.to_string()))?;
        // Many providers keep the claims of a scope for this endpoint.
        if self.settings.mapping.lacks(&person.claims)
            && let (Some(Endpoint(url)), Some(token)) = (&known.discovery.userinfo_endpoint, text("access_token"))
        {
            let more: Map<String, Value> = self.client.get(url, Some(token)).await?;
            if more.get("sub").and_then(Value::as_str) != Some(person.subject.as_str()) {
                return Err(ProviderError::Refused("the provider's user info is of another person (sub)".to_owned()));
            }
            // What is signed counts.
            for (claim, value) in more {
                person.claims.entry(claim).or_insert(value);
            }
        }
        Ok(person)
    }

    /// Where a person ends the session at the provider, if that is known.
    pub async fn end_session_url(&self) -> Option<String> {
        let known = self.memory.lock().await.known.clone()?;
        let mut url = known.discovery.end_session_endpoint.clone()?.0;
        url.query_pairs_mut().append_pair("client_id", &self.settings.client_id);
        Some(url.into())
    }

    async fn tokens(
        &self,
        discovery: &Discovery,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Value, ProviderError> {
        let client_id = self.settings.client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let methods = &discovery.token_endpoint_auth_methods_supported;
        let has = |method: &str| methods.iter().any(|known| known == method);
        let url = &discovery.token_endpoint.0;
        match self.settings.client_secret.as_deref() {
            // Basic is what a provider that announces nothing understands.
            Some(secret) if methods.is_empty() || has("client_secret_basic") || !has("client_secret_post") => {
                self.client.post(url, Some((client_id, secret)), &form).await
            }
            Some(secret) => {
                form.extend([("client_id", client_id), ("client_secret", secret)]);
                self.client.post(url, None, &form).await
            }
            None => {
                form.push(("client_id", client_id));
                self.client.post(url, None, &form).await
            }
        }
    }

    /// What the provider says of itself, and its keys. Logins at the same time share one read.
    async fn known(&self, now: Timestamp) -> Result<Known, ProviderError> {
        let mut memory = self.memory.lock().await;
        if let Some(known) = memory.known.as_ref().filter(|known| now.since(known.read_at) < FRESH) {
            return Ok(known.clone());
        }
        if let Some((_, error)) = memory.away.as_ref().filter(|(at, _)| now.since(*at) < AWAY) {
            return Err(error.clone());
        }
        let read = self.discover(now).await;
        match &read {
            Ok(known) => *memory = Memory { known: Some(known.clone()), away: None },
            Err(error) => memory.away = Some((now, error.clone())),
        }
        read
    }

    async fn discover(&self, now: Timestamp) -> Result<Known, ProviderError> {
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| ProviderError::Away(format!("{url}: {error}")))?;
        let discovery: Discovery = self.client.get(&url, None).await?;
        if discovery.issuer != *issuer {
            let other: String = discovery.issuer.chars().take(200).collect();
            return Err(ProviderError::Away(format!(
                "it calls itself {other:?}: the configuration's issuer must be exactly that"
            )));
        }
        let Discovery { authorization_endpoint, token_endpoint, jwks_uri, .. } = &discovery;
        let others = [&discovery.userinfo_endpoint, &discovery.end_session_endpoint];
        let endpoints = [authorization_endpoint, token_endpoint, jwks_uri].into_iter();
        if let Some(bad) = endpoints.chain(others.into_iter().flatten()).find(|url| !self.client.may_use(&url.0)) {
            return Err(ProviderError::Away(format!(
                "its endpoint {} is not https, nor on this host as the issuer is",
                bad.0
            )));
        }
        let keys = self.read_keys(&jwks_uri.0).await?;
        Ok(Known { discovery: Arc::new(discovery), keys, read_at: now, keys_read_at: now })
    }

    async fn read_keys(&self, url: &Url) -> Result<Arc<ProviderKeys>, ProviderError> {
        let set: Value = self.client.get(url, None).await?;
        let keys = ProviderKeys::read(&set).ok_or_else(|| ProviderError::Away(format!("{url} is no key set")))?;
        Ok(Arc::new(keys))
    }

    /// Reads the keys again, because a token is signed with one that is not known, unless that was
    /// done a moment ago.
    async fn newer_keys(&self, now: Timestamp) -> Result<Arc<ProviderKeys>, ProviderError> {
        let mut memory = self.memory.lock().await;
        let Some(known) = memory.known.as_mut() else { return Ok(Arc::default()) };
        if now.since(known.keys_read_at) >= KEYS_EVERY {
            // Before the read: a provider that fails is not asked more often.
            known.keys_read_at = now;
            known.keys = self.read_keys(&known.discovery.jwks_uri.0).await?;
        }
        Ok(Arc::clone(&known.keys))
    }
}
