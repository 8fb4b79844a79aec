//! Requests to an OpenID provider: bounded in time and size, no redirects, and TLS unless the
//! provider is on this host. What a provider sends is not trusted: an error names the operation and
//! holds no body.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::is_safe;

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
    http: reqwest::Client,
    /// Whether plain HTTP is allowed: the issuer itself is on this host.
    is_plain: bool,
}

impl ProviderClient {
    /// A client that trusts `authorities`, or the system's if there are none.
    ///
    /// # Errors
    /// If the library cannot be set up.
    pub fn new(is_plain: bool, authorities: Vec<Certificate>) -> Result<Self, reqwest::Error> {
        let builder = || {
            let builder = reqwest::Client::builder().redirect(Policy::none()).https_only(!is_plain);
            builder.timeout(TIMEOUT).connect_timeout(CONNECT_TIMEOUT)
        };
        let http = if !authorities.is_empty() {
            builder().tls_certs_only(authorities).build()?
        } else if is_plain {
            // A provider on this host can be reached on a system without authorities.
            builder().build().or_else(|_| builder().tls_certs_only([]).build())?
        } else {
            builder().build()?
        };
        Ok(Self { http, is_plain })
    }

    /// Whether people and requests may be sent to `url`.
    pub fn may_use(&self, url: &Url) -> bool {
        url.scheme() == "https" || (self.is_plain && is_safe(url))
    }

    /// What a GET of `url` returns.
    ///
    /// # Errors
    /// [`ProviderError::Away`].
    pub async fn get<T: DeserializeOwned>(&self, url: &str, bearer: Option<&str>) -> Result<T, ProviderError> {
        let request = self.http.get(url);
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

    /// Posts a form to the token endpoint `url`; `account` is sent as Basic credentials.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] if the provider refuses by an error of OAuth.
    pub async fn post(
        &self,
        url: &str,
        account: Option<(&str, &str)>,
        form: &[(&str, &str)],
    ) -> Result<Value, ProviderError> {
        let request = self.http.post(url).form(form);
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
    let away = |error: reqwest::Error| ProviderError::Away(chain(&error));
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

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
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
