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
    } else if let Some(why) = certificate(&chain) {
        format!("cannot connect to {manager}: {why}")
    } else if is_closed(&low) {
        let (spoken, other) = if is_https(manager) { ("plain HTTP", "http") } else { ("TLS", "https") };
        format!(
            "{manager} ended the connection without an answer; {LOOK}; if this port speaks {spoken}, write {other}://"
        )
    } else if low.contains("unreachable") {
        format!("{manager} is unreachable: check the network and the address ({chain})")
    } else {
        format!("cannot reach {manager}: {chain}")
    }
}

fn is_https(manager: &str) -> bool {
    manager.trim().split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
}

/// Whether the other side hung up before it answered; a port that speaks TLS may do that to plain HTTP, and the reverse. `low` is in
/// lower case.
fn is_closed(low: &str) -> bool {
    ["connection reset", "closed before", "connection closed", "broken pipe", "handshake eof"]
        .iter()
        .any(|words| low.contains(words))
}

/// What is wrong with the other side's certificate, and what mends it; nothing if the causes speak of no certificate.
fn certificate(chain: &str) -> Option<String> {
    let low = chain.to_ascii_lowercase();
    if !low.contains("certificate") {
        return None;
    }
    let has = |words: &[&str]| words.iter().any(|word| low.contains(word));
    Some(if has(&["causedasendentity"]) {
        "the server's certificate is itself a CA: make one with basicConstraints CA:FALSE".to_owned()
    } else if has(&["unknownissuer", "unknown issuer", "badsignature", "forpublickey"]) {
        "its certificate is signed by an authority that this system does not trust: add the authority to the system's \
         (`update-ca-certificates`), or name its file with --ca or RIPOSTE_CA"
            .to_owned()
    } else if has(&["certificate expired", "certificate: expired"]) {
        format!("its certificate has expired: renew it, or set this host's clock if that is wrong ({chain})")
    } else if has(&["not valid yet", "notvalidyet"]) {
        format!("its certificate is not valid yet: set this host's clock if that is wrong, else wait ({chain})")
    } else if has(&["notvalidforname", "not valid for name"]) {
        format!("its certificate is for another name: use the name that it was made for ({chain})")
    } else if has(&["certificate: revoked"]) {
        "its certificate was revoked: make another".to_owned()
    } else {
        format!("its certificate is not trusted: {chain}")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_plain_words() {
        for (chain, told) in [
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "is itself a CA: make one with basicConstraints CA:FALSE",
            ),
            ("invalid peer certificate: UnknownIssuer", "name its file with --ca or RIPOSTE_CA"),
            (
                "invalid peer certificate: certificate expired: verification time 2 (UNIX), but certificate is not valid after 1",
                "its certificate has expired: renew it",
            ),
            ("invalid peer certificate: Expired", "its certificate has expired: renew it"),
            (
                "invalid peer certificate: certificate not valid yet: verification time 1 (UNIX), but certificate is not valid before 2",
                "its certificate is not valid yet: set this host's clock",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for DnsName(\"b\")",
                "is for another name: use the name that it was made for",
            ),
            ("invalid peer certificate: NotValidForName", "is for another name"),
            ("invalid peer certificate: Revoked", "was revoked"),
            // An authority of the same name is trusted, with another key.
            ("invalid peer certificate: BadSignature", "an authority that this system does not trust"),
            ("invalid peer certificate: BadEncoding", "is not trusted: invalid peer certificate: BadEncoding"),
        ] {
            let words = certificate(chain).unwrap();
            assert!(words.contains(told), "{chain}: {words}");
        }
        assert_eq!(certificate("connection reset by peer"), None);
    }
}
