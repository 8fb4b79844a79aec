//! Explains why a manager cannot be reached, and what to do next.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

/// Hint for a manager that does not answer.
const LOOK: &str = "is it running? Its log (`journalctl -u riposte`, or its standard error) has details";

/// Explains a connection error to `manager`; `silence` is how long the client waited.
pub fn words(manager: &str, error: &reqwest::Error, silence: Duration) -> String {
    let chain = chain(error);
    let low = chain.to_ascii_lowercase();
    let secs = silence.as_secs();
    if error.is_timeout() && error.is_connect() {
        format!("{manager} cannot be reached within {secs} s: check the address and what filters the network between")
    } else if error.is_timeout() {
        format!("no answer from {manager} within {secs} s; {LOOK}")
    } else if low.contains("connection refused") {
        format!("nothing listens at {manager}; {LOOK}. --manager or RIPOSTE_MANAGER names another address")
    } else if low.contains("dns error") || low.contains("lookup address") {
        format!(
            "the name in {manager} cannot be resolved; check its spelling, or set an address (--manager, RIPOSTE_MANAGER)"
        )
    } else if let Some(speaks) = scheme_spoken(manager, &chain) {
        format!("cannot connect to {manager}: this port speaks {speaks}; write {speaks}://")
    } else if low.contains("unknownissuer") || low.contains("unknown issuer") {
        format!(
            "the certificate of {manager} is signed by an authority that this system does not trust; add it to the system's \
             authorities (`update-ca-certificates`)"
        )
    } else if low.contains("notvalidforname") || low.contains("not valid for name") {
        format!("the certificate of {manager} is for another name; use the name that it was made for ({chain})")
    } else if low.contains("certificate") {
        format!("the certificate of {manager} is not trusted: {chain}")
    } else if low.contains("connection reset") || low.contains("closed before") || low.contains("broken pipe") {
        format!("{manager} ended the connection without an answer; {LOOK}")
    } else if low.contains("unreachable") {
        format!("{manager} is unreachable: check the network and the address ({chain})")
    } else {
        format!("cannot reach {manager}: {chain}")
    }
}

/// The scheme spoken at a port, if it contradicts the URL: rustls fails on an HTTP response, hyper
/// on a TLS alert.
fn scheme_spoken(manager: &str, chain: &str) -> Option<&'static str> {
    match manager.trim().split_once("://")?.0.to_ascii_lowercase().as_str() {
        "https" if chain.contains("InvalidContentType") => Some("http"),
        "http" if chain.contains("invalid HTTP version") => Some("https"),
        _ => None,
    }
}

/// An error with all its causes, without repetitions.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, "{}{said}", if text.is_empty() { "" } else { ": " });
        }
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
