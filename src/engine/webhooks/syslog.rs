//! A syslog receiver as the receiver of a webhook: one event a message.

use reqwest::Url;
use riposte_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::egress::allow_list::Destination;
use crate::domain::event::TYPE_PREFIX;
use crate::domain::ocsf::EventSeverity;
use crate::engine::egress::error::words;
use crate::engine::egress::rules::Egress;
use crate::engine::syslog::{self, SyslogTls};

/// Port of syslog over TLS, by RFC 5425.
const TLS_PORT: u16 = 6514;
/// Port of syslog over TCP.
const TCP_PORT: u16 = 601;

/// Longest text of an event that is too long as a whole, in bytes as they are sent.
const MAX_TEXT: usize = 500;

/// Where a receiver is.
#[derive(Clone, Debug)]
pub(super) struct SyslogServer {
    destination: Destination,
    /// Absent: without TLS, on this host.
    tls: Option<SyslogTls>,
}

/// What the header of a message says of an event, in either form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EventHead {
    r#type: String,
    time: EventTime,
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    event_code: String,
}

/// A text in a `CloudEvent`, milliseconds in OCSF.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum EventTime {
    Text(Timestamp),
    Millis(i64),
    #[default]
    Absent,
}

impl SyslogServer {
    /// Whether a URL is that of a syslog receiver.
    pub(super) fn is_meant(url: &Url) -> bool {
        url.scheme().starts_with("syslog")
    }

    /// Reads a URL: `syslog+tls://HOST:6514`, or `syslog+tcp://` to a loopback address.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn read(url: &Url) -> Result<Self, String> {
        let is_plain = match url.scheme() {
            "syslog+tls" => false,
            "syslog+tcp" => true,
            _ => return Err("must be syslog+tls://HOST, or syslog+tcp:// to a loopback address".into()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let destination = Destination::new(host, url.port().unwrap_or(if is_plain { TCP_PORT } else { TLS_PORT }));
        if is_plain && !destination.address().is_some_and(|address| address.is_loopback()) {
            return Err("syslog+tcp is for loopback addresses: what leaves this host needs syslog+tls".into());
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || !["", "/"].contains(&url.path())
            || url.query().is_some()
        {
            return Err("must have nothing but a host and a port".into());
        }
        Ok(Self { destination, tls: (!is_plain).then(SyslogTls::default) })
    }

    /// The receiver.
    pub(super) const fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Sends an event.
    ///
    /// # Errors
    /// Why the receiver does not have it, in words.
    pub(super) async fn send(&self, egress: &Egress, body: &str, now: Timestamp) -> Result<(), String> {
        let EventHead { r#type, time, metadata } = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let kind = if r#type.is_empty() { metadata.event_code } else { r#type };
        let kind = kind.strip_prefix(TYPE_PREFIX).unwrap_or(&kind);
        let at = match time {
            EventTime::Text(at) => at,
            EventTime::Millis(millis) if millis > 0 => Timestamp::from_millis(millis),
            EventTime::Millis(_) | EventTime::Absent => now,
        };
        let severity = EventSeverity::of(kind).syslog();
        let mut message = syslog::message(severity, at, kind, &syslog::ascii(body));
        if message.len() > syslog::MAX_MESSAGE {
            // A receiver would cut it, and what is cut is no JSON.
            let mut event = serde_json::from_str(body).map_err(|error| error.to_string())?;
            shorten(&mut event);
            message = syslog::message(severity, at, kind, &syslog::ascii(&event.to_string()));
        }
        let to = egress.connectable(&self.destination).await.map_err(|error| words(&error))?;
        syslog::send(&to, self.tls.as_ref().map(|tls| (tls, self.destination.host())), &message).await
    }
}

/// Cuts long texts; `…` shows where.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_TEXT => {
            let mut left = MAX_TEXT;
            let is_kept = |letter: &char| {
                // As they are escaped.
                let bytes = if letter.is_ascii() { 1 } else { 6 * letter.len_utf16() };
                left = left.saturating_sub(bytes);
                left > 0
            };
            *text = text.chars().take_while(is_kept).chain(['…']).collect();
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_event_is_cut_where_it_is_seen() {
        let long = "ä".repeat(4000);
        let mut event = serde_json::json!({"file": {"path": long, "name": "a"}, "list": ["b".repeat(999)]});
        shorten(&mut event);
        let path = event["file"]["path"].as_str().unwrap();
        assert!(path.ends_with("ä…") && syslog::ascii(path).len() <= MAX_TEXT + 6, "{path}");
        assert_eq!(
            (&event["file"]["name"], event["list"][0].as_str().unwrap().len()),
            (&Value::from("a"), MAX_TEXT - 1 + 3)
        );
    }

    #[test]
    fn a_url_is_tls_to_a_host_or_plain_to_this_one() {
        let read = |text: &str| SyslogServer::read(&Url::parse(text).unwrap());
        for (text, port) in [
            ("syslog+tls://siem.example.org", 6514),
            ("syslog+tls://[2001:db8::7]:7000", 7000),
            ("syslog+tcp://127.0.0.1", 601),
            ("syslog+tcp://[::1]:514/", 514),
        ] {
            assert_eq!(read(text).map(|server| server.destination().port()), Ok(port), "{text}");
        }
        for (text, words) in [
            ("syslog://siem.example.org", "must be syslog+tls"),
            ("syslog+udp://127.0.0.1", "must be syslog+tls"),
            ("syslog+tcp://siem.example.org", "loopback"),
            ("syslog+tcp://192.0.2.7", "loopback"),
            ("syslog+tls://", "no host"),
            ("syslog+tls://a@siem.example.org", "nothing but"),
            ("syslog+tls://siem.example.org/x", "nothing but"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}: {:?}", read(text));
        }
    }
}
