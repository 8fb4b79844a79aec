//! Conditional requests for lists (RFC 9110, section 13): `ETag`, which is a hash of the list, and `Last-Modified`
//! for clients that know no `ETag`.
//!
//! A time has a resolution of a second, and managers that share a ledger see a change at different times. So
//! `Last-Modified` is sent only for a list that this manager has seen unchanged for two seconds, and
//! `If-Modified-Since` counts only if it is exactly that time. Any other time gets the whole list.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte_protocol::time::Timestamp;
use sha2::{Digest as _, Sha256};

/// How long a list must have been the same before its time is told.
const SETTLED: Duration = Duration::from_secs(2);

/// What a client can ask with next time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag, in quotes.
    pub etag: String,
    /// The time as HTTP writes it, if it can be told.
    pub last_modified: Option<String>,
}

/// When each list was first seen as it is, by its name.
#[derive(Debug, Default)]
pub struct FeedValidators(Mutex<HashMap<String, (String, Timestamp)>>);

impl FeedValidators {
    /// The validators of the list `name`, which is `body` at `now`.
    pub fn of(&self, name: &str, body: &[u8], now: Timestamp) -> Validators {
        let digest = Sha256::digest(body);
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or_default()));
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, since) = seen.entry(name.to_owned()).or_insert_with(|| (etag.clone(), now));
        // A clock that was set back must not make two lists of one time.
        if *known != etag || *since > now {
            (*known, *since) = (etag.clone(), now);
        }
        let last_modified = (now.since(*since) >= SETTLED).then(|| http_date(*since)).flatten();
        Validators { etag, last_modified }
    }
}

impl Validators {
    /// Whether the client has this list, as its request says. `If-None-Match` comes first, as RFC 9110 says.
    pub fn are_met_by(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if headers.contains_key(header::IF_NONE_MATCH) {
            let mut tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
            return tags.any(|tags| {
                tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.etag)
            });
        }
        let asked = text(header::IF_MODIFIED_SINCE).and_then(|text| httpdate::parse_http_date(text).ok());
        let told = self.last_modified.as_deref().and_then(|text| httpdate::parse_http_date(text).ok());
        asked.is_some() && asked == told
    }
}

fn http_date(at: Timestamp) -> Option<String> {
    let secs = u64::try_from(at.as_millis()).ok()? / 1000;
    let at: SystemTime = UNIX_EPOCH.checked_add(Duration::from_secs(secs))?;
    Some(httpdate::fmt_http_date(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_list_is_not_modified_only_for_a_client_that_has_it() {
        let (known, at) = (FeedValidators::default(), |millis: i64| Timestamp::from_millis(millis));
        let first = known.of("edge", b"a", at(10_000));
        assert_eq!(first.last_modified, None, "it may change within the second");
        let settled = known.of("edge", b"a", at(12_000));
        assert_eq!(settled.last_modified.as_deref(), Some("Thu, 01 Jan 1970 00:00:10 GMT"));
        let since = |text: &str| headers(&[(header::IF_MODIFIED_SINCE, text)]);
        assert!(settled.are_met_by(&since("Thu, 01 Jan 1970 00:00:10 GMT")));
        // A later time is not one that was told for this list.
        assert!(!settled.are_met_by(&since("Thu, 01 Jan 1970 00:00:11 GMT")));
        assert!(!settled.are_met_by(&since("yesterday")) && !settled.are_met_by(&HeaderMap::new()));
        let tag = |text: &str| {
            headers(&[(header::IF_NONE_MATCH, text), (header::IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:00:10 GMT")])
        };
        assert!(
            settled.are_met_by(&tag(&settled.etag)) && settled.are_met_by(&tag(&format!("\"x\", W/{}", settled.etag)))
        );
        assert!(!settled.are_met_by(&tag("\"x\"")), "the tag comes first");
        // Changed, and changed back: the time is new each time.
        let other = known.of("edge", b"b", at(12_001));
        assert!(other.etag != settled.etag && !other.are_met_by(&since("Thu, 01 Jan 1970 00:00:10 GMT")));
        known.of("edge", b"a", at(12_002));
        assert!(!known.of("edge", b"a", at(20_000)).are_met_by(&since("Thu, 01 Jan 1970 00:00:10 GMT")));
    }
}
