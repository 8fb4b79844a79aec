//! The evidence bundle of one incident, as the API makes it: passed through as a file to keep.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};

use super::client::NO_BODY;
use super::format::short;
use super::page::{PageFailure, PageResult};
use super::paths::segment;
use super::session::Session;

/// The bundle of a response.
pub(super) async fn download(session: Session, Path(id): Path<String>) -> PageResult {
    let path = format!("/v1/responses/{}/bundle", segment(&id));
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = session.api.call(Method::GET, &path, headers, Body::empty()).await?;
    if !answer.status().is_success() {
        // The refusal in the API's words.
        let refused = session.api.send(Method::GET, &path, None, NO_BODY).await;
        return Err(refused.err().map_or_else(|| PageFailure::system("the bundle cannot be made"), PageFailure::from));
    }
    let name = format!("attachment; filename=\"riposte-incident-{}.json\"", short(&segment(&id)));
    let name = HeaderValue::from_str(&name).map_err(|_| PageFailure::system("the name of the bundle is no header"))?;
    let mut response: Response = answer.into_body().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(response)
}
