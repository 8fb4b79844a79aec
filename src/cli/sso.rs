//! `riposte login --sso`: the person logs in with a browser, and this program receives the login
//! code on a loopback address (RFC 8252). The code is worth nothing without the verifier, which
//! stays here (RFC 7636).

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::client::{Remote, segment};
use super::output::complain;
use super::terminal::{can_ask, plain};
use crate::domain::oidc::loopback::challenge;
use crate::engine::secrets::new_secret;
use crate::views::auth::{AskToken, IssuedToken};
use crate::views::oidc::{SignOnProviders, SignOnResult};

/// How long the person may take.
const LOGIN: Duration = Duration::from_mins(10);
/// How long the browser may take to read the last page.
const GOODBYE: Duration = Duration::from_secs(2);
/// The last page.
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>Riposte</title>\
    <p>Riposte: the browser has done its part. Go back to the terminal; this page can be closed.";

/// Logs a person in at the OpenID provider of that name; without a name, at the only one.
///
/// # Errors
/// If the manager or the provider refuses, or the person takes too long.
pub(super) async fn log_in(remote: &Remote, provider: &str) -> anyhow::Result<IssuedToken> {
    let provider = chosen(remote, provider).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
    let (verifier, path) = (new_secret()?, format!("/{}", new_secret()?));
    let redirect_uri = format!("http://{}{path}", listener.local_addr()?);
    let start = format!(
        "/v1/auth/oidc/{}/start?redirect_uri={}&code_challenge={}",
        segment(&provider),
        segment(&redirect_uri),
        challenge(&verifier)
    );
    // Here and not in the browser is read why a login cannot begin.
    if let Some(why) = remote.redirects(&start).await? {
        bail!(why);
    }
    let url = format!("{}{start}", remote.target()?.manager);
    complain(&plain(&format!("riposte: log in with a browser on this host: {url}")));
    if can_ask() {
        open(&url);
    }
    let SignOnResult { code, error, error_description } = answer(listener, &path).await?;
    let Some(code) = code else {
        bail!(error_description.or(error).unwrap_or_else(|| "the browser brings no login code".to_owned()));
    };
    let asked = AskToken { login_code: Some(code), code_verifier: Some(verifier), ..AskToken::default() };
    remote.post_unsigned("/v1/auth/token", &asked).await?.done()
}

/// The provider that is named, or the only one.
async fn chosen(remote: &Remote, named: &str) -> anyhow::Result<String> {
    if !named.is_empty() {
        return Ok(named.to_owned());
    }
    let SignOnProviders { providers } = remote.get_unsigned("/v1/auth/oidc").await?;
    let mut names: Vec<String> = providers.into_iter().map(|provider| provider.name).collect();
    match names.len() {
        0 => bail!("{} has no OpenID provider ([[oidc]] in its configuration)", remote.target()?.manager),
        1 => Ok(names.remove(0)),
        _ => bail!("name the OpenID provider: --sso {}", names.join(", --sso ")),
    }
}

/// What the browser brings. Requests for another path are not answered with the page, and end
/// nothing: another program on this host cannot know the path.
async fn answer(listener: TcpListener, path: &str) -> anyhow::Result<SignOnResult> {
    let (told, mut heard) = mpsc::channel(1);
    let receive = |State(told): State<mpsc::Sender<SignOnResult>>, Query(answer): Query<SignOnResult>| async move {
        // A second request of the browser finds the channel full or closed.
        let _ = told.try_send(answer);
        Html(PAGE)
    };
    let router = Router::new().route(path, get(receive)).with_state(told);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { drop(stopped.await) });
    let mut serving = std::pin::pin!(serving.into_future());
    let answer = tokio::select! {
        answer = heard.recv() => answer,
        ended = &mut serving => {
            ended.context("the loopback address failed")?;
            None
        }
        () = tokio::time::sleep(LOGIN) => bail!("no login within {} minutes", LOGIN.as_secs() / 60),
    };
    drop(stop);
    // The page is on its way; a browser that keeps the connection open is not waited for.
    let _ = tokio::time::timeout(GOODBYE, serving).await;
    answer.context("the browser brings nothing")
}

/// Opens the person's browser, if there is one. The address is printed in any case.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started =
        Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(error) = started {
        tracing::debug!("{program} cannot be started: {error}");
    }
}
