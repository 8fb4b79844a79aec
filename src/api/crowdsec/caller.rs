//! The bouncer of a request: a key that is bound to one feed of the form `crowdsec`, in `X-Api-Key`,
//! or the client certificate of such a key.
//!
//! A bouncer ends when its first request fails, so what can wait is waited for here: a lease that the manager is
//! about to have, and a database that does not answer for a moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::time::{Instant, sleep};

use crate::api::front::auth::{Caller, PullFeeds};
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::state::AppState;
use crate::domain::feed::{FeedForm, FeedSpec};
use crate::domain::principal::Principal;
use crate::engine::pull_feeds::kept::ServedList;
use crate::store::StoreError;

/// How long a request waits for what may come. Bouncers wait for longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// Interval between two looks.
const GLANCE: Duration = Duration::from_millis(100);
/// `Retry-After` in seconds of what did not come.
const RETRY_SECS: u64 = 2;

/// A bouncer.
#[derive(Debug)]
pub(super) struct Bouncer {
    /// The feed that its key is bound to.
    pub(super) spec: Arc<FeedSpec>,
    /// Name of its key.
    pub(super) name: String,
    /// Client address of the request.
    pub(super) address: IpAddr,
    /// Until when the request may wait.
    patience: Instant,
}

impl FromRequestParts<AppState> for Bouncer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let (engine, patience) = (&state.engine, Instant::now() + PATIENCE);
        // Before the key is looked at: another manager may have made or revoked it.
        while !engine.lease.is_held() {
            if Instant::now() >= patience {
                let why = "this manager has no lease on the ledger at the moment";
                return Err(ApiError::unavailable(why, RETRY_SECS));
            }
            sleep(GLANCE).await;
        }
        let caller = match parts.headers.get("x-api-key") {
            None if let Some(caller) = Caller::<PullFeeds>::of_certificate(parts, state) => caller?,
            given => {
                let key = given.and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
                Caller::of_feed(parts, state, key)?
            }
        };
        let spec = bound_to(&caller.principal, state)?;
        let name = engine.consumer_name(&caller.principal);
        let name = name.ok_or_else(|| ApiError::forbidden("the key was revoked"))?;
        Ok(Self { spec, name, address: caller.address, patience })
    }
}

/// The feed that a key is bound to.
fn bound_to(principal: &Principal, state: &AppState) -> ApiResult<Arc<FeedSpec>> {
    let feeds = principal.feeds().unwrap_or_default();
    let [feed] = feeds else {
        let why = format!("the key of a bouncer is bound to one feed, and this one to {}", feeds.len());
        return Err(ApiError::forbidden(why));
    };
    let missing = || ApiError::forbidden(format!("this key is bound to the feed {feed}, which does not exist"));
    let spec = state.engine.feed_spec(feed).ok_or_else(missing)?;
    if spec.form != FeedForm::Crowdsec {
        let form = spec.form.as_str();
        let why = format!("the feed {feed} has the form {form}; bouncers get feeds of the form crowdsec");
        return Err(ApiError::forbidden(why));
    }
    Ok(spec)
}

impl Bouncer {
    /// The list of its feed.
    ///
    /// # Errors
    /// 503 while the list is too long, or if the ledger cannot be read for longer than a request waits.
    pub(super) async fn list(&self, state: &AppState) -> ApiResult<ServedList> {
        let served = loop {
            match state.engine.feed_list(&self.spec).await {
                Err(error) if may_pass(&error) && Instant::now() < self.patience => sleep(GLANCE).await,
                served => break served?,
            }
        };
        match served.too_many {
            None => Ok(served),
            Some(count) => {
                let (name, most) = (&self.spec.name, self.spec.max_entries);
                let why = format!("the feed {name} has {count} entries and may hold {most}, so it is not served");
                Err(ApiError::unavailable(why, RETRY_SECS))
            }
        }
    }
}

/// Whether the same request may succeed in a moment.
const fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Busy | StoreError::Unavailable(_) | StoreError::LeaseLost | StoreError::Shared(_))
}
