//! Calls of the manager's own API, inside the program: through the same router as a call from
//! elsewhere, so rights, scopes, limits, audit and metrics are the same. What the API needs to know
//! of the browser's connection goes with each call.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_service::Service as _;

use super::shared_reads::SharedReads;
use crate::api::front::{address, listen};
use crate::views::problem::Problem;

/// Largest answer that a page is made of, in bytes; lists are paged far below.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// A call without a body.
pub(super) const NO_BODY: Option<&()> = None;

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The API refused, in these words.
    Refused(Box<Problem>),
    /// What was typed cannot be sent.
    Mistyped(String),
    /// The answer is not what this version expects.
    Broken(String),
}

impl Trouble {
    /// Status of a page that shows it.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(problem) => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Self::Mistyped(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the problem's type ends with `word`.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Refused(problem) if problem.kind.rsplit(':').next() == Some(word))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) => {
                let Problem { detail, errors, .. } = &**problem;
                match errors.as_slice() {
                    [] => f.write_str(detail),
                    faults => {
                        let faults = faults.iter().map(|fault| {
                            let field = fault.pointer.trim_start_matches('/').replace('/', ", ");
                            if field.is_empty() { fault.detail.clone() } else { format!("{field} {}", fault.detail) }
                        });
                        f.write_str(&faults.collect::<Vec<_>>().join("; "))
                    }
                }
            }
            Self::Mistyped(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

/// What the API answered.
#[derive(Debug)]
pub(super) struct Answer(Bytes);

impl Answer {
    /// Reads the body.
    ///
    /// # Errors
    /// If it does not fit.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        serde_json::from_slice(&self.0)
            .map_err(|error| Trouble::Broken(format!("the API's answer does not fit the console: {error}")))
    }
}

/// The API, as one browser calls it.
#[derive(Clone)]
pub(super) struct ApiClient {
    router: Router,
    bearer: Option<HeaderValue>,
    extensions: Extensions,
    headers: HeaderMap,
    /// Set while a page that is open loads itself anew.
    shared: Option<(Arc<SharedReads>, Arc<str>)>,
}

impl ApiClient {
    /// The API for the browser that sent `parts`, without a credential.
    pub(super) fn of(router: Router, parts: &Parts) -> Self {
        let extensions = listen::connection_of(&parts.extensions);
        let headers = address::sent_by_proxies(&parts.headers);
        Self { router, bearer: None, extensions, headers, shared: None }
    }

    /// The same with an access token or a key. A text that no header can hold is no credential.
    pub(super) fn with(&self, token: &str) -> Self {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok();
        Self { bearer, ..self.clone() }
    }

    /// The same for a page that loads itself anew: it shares lists with other pages of people who have
    /// the same `sight`.
    pub(super) fn sharing(self, reads: &Arc<SharedReads>, sight: &str) -> Self {
        Self { shared: Some((Arc::clone(reads), sight.into())), ..self }
    }

    /// Calls the API; the body is not read yet.
    ///
    /// # Errors
    /// If the path is none.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, Trouble> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Trouble::Broken(format!("{path} is no path of the API")))?;
        *request.extensions_mut() = self.extensions.clone();
        *request.headers_mut() = headers;
        request.headers_mut().extend(self.headers.clone());
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        Ok(self.router.clone().call(request).await.unwrap_or_else(|never| match never {}))
    }

    /// Sends `body`, with `version` as `If-Match`.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        version: Option<i64>,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(version) = version.and_then(|version| HeaderValue::from_str(&format!("\"{version}\"")).ok()) {
            headers.insert(IF_MATCH, version);
        }
        let body = match body {
            Some(body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let bytes = serde_json::to_vec(body);
                Body::from(bytes.map_err(|error| Trouble::Broken(format!("the request cannot be written: {error}")))?)
            }
            None => Body::empty(),
        };
        let response = self.call(method, path, headers, body).await?;
        let status = response.status();
        let body = to_bytes(response.into_body(), MAX_ANSWER).await;
        let body = body.map_err(|error| Trouble::Broken(format!("the API's answer to {path} broke off: {error}")))?;
        let answer = Answer(body);
        if status.is_success() || status.is_redirection() {
            return Ok(answer);
        }
        Err(match answer.read::<Problem>() {
            Ok(problem) => Trouble::Refused(Box::new(problem)),
            Err(_) => Trouble::Broken(format!("the API answered {path} with {status}")),
        })
    }

    /// What a GET of `path` returns.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        if let Some((reads, sight)) = self.shared.as_ref().filter(|_| SharedReads::takes(path)) {
            let (api, asked) = (self.clone(), path.to_owned());
            let read = async move { api.send(Method::GET, &asked, None, NO_BODY).await.ok().map(|answer| answer.0) };
            // What went wrong for one may be about that one alone.
            if let Some(body) = reads.get(path, sight, read.boxed()).await {
                return Answer(body).read();
            }
        }
        self.send(Method::GET, path, None, NO_BODY).await?.read()
    }

    /// What a POST of `body` returns.
    ///
    /// # Errors
    /// If the API refuses.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Trouble> {
        self.send(Method::POST, path, None, Some(body)).await?.read()
    }
}
