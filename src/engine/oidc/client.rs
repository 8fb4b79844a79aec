//! Requests to an OpenID provider: bounded in time and size, no redirects, and TLS unless the
//! provider is on this host. What a provider sends is not trusted: an error names the operation and
//! holds no body, and the endpoints that it names are called by the rules of `engine/egress/`.

use std::time::Duration;

use reqwest::{Certificate, Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::is_safe;
use crate::engine::egress::client::{ClientSettings, EgressClient};
use crate::engine::egress::error::{EgressError, words};
use crate::engine::egress::rules::Egress;

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest response, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Why a provider's response cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It does not answer, or not as a provider does.
    #[error("{0}")]
    Away(String),
    /// It refuses this login.
    #[error("{0}")]
    Refused(String),
}

/// A client for one provider.
#[derive(Clone, Debug)]
pub struct ProviderClient {
    http: EgressClient,
    /// Whether plain HTTP is allowed: the issuer itself is on this host.
    is_plain: bool,
}

impl ProviderClient {
    /// A client that trusts `authorities`, or the system's if there are none. The issuer's host counts as
    /// listed, because an administrator wrote it.
    ///
    /// # Errors
    /// If no TLS client can be made.
    pub fn new(egress: &Egress, issuer: Url, authorities: Vec<Certificate>) -> Result<Self, EgressError> {
        let is_plain = issuer.scheme() == "http";
        let (timeout, connect_timeout) = (TIMEOUT, CONNECT_TIMEOUT);
        let settings = ClientSettings { authorities, is_plain, listed: Some(issuer), timeout, connect_timeout };
        Ok(Self { http: egress.client(settings)?, is_plain })
    }

    /// Whether people and requests may be sent to `url`.
    pub fn may_use(&self, url: &Url) -> bool {
        url.scheme() == "https" || (self.is_plain && is_safe(url))
    }

    /// What a GET of `url` returns.
    ///
    /// # Errors
    /// [`ProviderError::Away`].
    pub async fn get<T: DeserializeOwned>(&self, url: &Url, bearer: Option<&str>) -> Result<T, ProviderError> {
        let request = self.request(Method::GET, url)?;
        let request = match bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let (status, body) = read(request).await?;
        if status != StatusCode::OK {
            return Err(ProviderError::Away(format!("GET {url} is answered {status}")));
        }
        serde_json::from_value(body).map_err(|error| ProviderError::Away(format!("GET {url}: {error}")))
    }

    fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, ProviderError> {
        self.http.request(method, url).map_err(|error| ProviderError::Away(words(&error)))
    }

    /// Posts a form to the token endpoint `url`; `account` is sent as Basic credentials.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] if the provider refuses by an error of OAuth.
    pub async fn post(
        &self,
        url: &Url,
        account: Option<(&str, &str)>,
        form: &[(&str, &str)],
    ) -> Result<Value, ProviderError> {
        let request = self.request(Method::POST, url)?.form(form);
        let request = match account {
            Some((id, secret)) => request.basic_auth(form_encoded(id), Some(form_encoded(secret))),
            None => request,
        };
        let (status, body) = read(request).await?;
        match body.get("error").and_then(Value::as_str) {
            _ if status == StatusCode::OK => Ok(body),
            Some(error) if status.is_client_error() => {
                let error: String = error.chars().filter(char::is_ascii_graphic).take(64).collect();
                Err(ProviderError::Refused(format!("the provider refuses the login code of its own: {error}")))
            }
            _ => Err(ProviderError::Away(format!("POST {url} is answered {status}"))),
        }
    }
}

/// RFC 6749, section 2.3.1: the parts of Basic credentials are form-encoded.
fn form_encoded(text: &str) -> String {
    let Ok(mut url) = Url::parse("form:") else { return String::new() };
    url.query_pairs_mut().append_key_only(text);
    url.query().unwrap_or_default().to_owned()
}

async fn read(request: RequestBuilder) -> Result<(StatusCode, Value), ProviderError> {
    let away = |error: reqwest::Error| ProviderError::Away(words(&error));
    let mut response = request.send().await.map_err(away)?;
    let (status, mut bytes) = (response.status(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if bytes.len() + chunk.len() > MAX_BODY {
            return Err(ProviderError::Away(format!("{} answers more than {MAX_BODY} bytes", response.url())));
        }
        bytes.extend_from_slice(&chunk);
    }
    match serde_json::from_slice(&bytes) {
        Ok(body) => Ok((status, body)),
        Err(_) if status != StatusCode::OK => Ok((status, Value::Null)),
        Err(_) => Err(ProviderError::Away(format!("{} answers no JSON", response.url()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_basic_credentials_are_form_encoded() {
        assert_eq!(form_encoded("riposte"), "riposte");
        assert_eq!(form_encoded("a:b c&d=ü+"), "a%3Ab+c%26d%3D%C3%BC%2B");
    }
}
