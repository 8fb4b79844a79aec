//! Why a manager could not be spoken to at enrolment, in words that say what to do next. What is not known here is told by its
//! causes.

/// What `chain`, the causes of a failed request to `url`, means.
pub fn words(url: &str, chain: &str) -> Option<String> {
    let low = chain.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| low.contains(word));
    if low.contains("certificate") {
        return certificate(&low).map(|why| format!("cannot speak to {url}: {why}"));
    }
    let is_closed = has(&["connection reset", "closed before", "connection closed", "broken pipe", "handshake eof"]);
    let is_https = url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"));
    let (spoken, other) = if is_https { ("plain HTTP", "http") } else { ("TLS", "https") };
    is_closed.then(|| {
        format!("{url} ended the connection without an answer: is the manager running? If this port speaks {spoken}, write {other}://")
    })
}

fn certificate(low: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| low.contains(word));
    let why = if has(&["causedasendentity"]) {
        "the server's certificate is itself a CA: make one with basicConstraints CA:FALSE".to_owned()
    } else if has(&["unknownissuer", "unknown issuer", "badsignature", "forpublickey"]) {
        "its certificate is signed by an authority that is not trusted here: give the authority's file with --ca (RIPOSTE_CA)".to_owned()
    } else if has(&["certificate expired", "certificate: expired"]) {
        "its certificate has expired: renew it, or set this host's clock if that is wrong".to_owned()
    } else if has(&["not valid yet", "notvalidyet"]) {
        "its certificate is not valid yet: set this host's clock if that is wrong, else wait".to_owned()
    } else if has(&["notvalidforname", "not valid for name"]) {
        format!("its certificate is for another name: use the name that it was made for ({low})")
    } else {
        return None;
    };
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_request_is_told_with_what_mends_it() {
        for (url, chain, told) in [
            ("http://a", "connection closed before message completed", "If this port speaks TLS, write https://"),
            ("http://a", "Connection reset by peer (os error 104)", "If this port speaks TLS, write https://"),
            ("https://a", "tls handshake eof", "If this port speaks plain HTTP, write http://"),
            (
                "https://a",
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "make one with basicConstraints CA:FALSE",
            ),
            ("https://a", "invalid peer certificate: UnknownIssuer", "with --ca (RIPOSTE_CA)"),
            // An authority of the same name is trusted, with another key.
            ("https://a", "invalid peer certificate: BadSignature", "with --ca (RIPOSTE_CA)"),
            (
                "https://a",
                "invalid peer certificate: certificate expired: verification time 2",
                "has expired: renew it",
            ),
            ("https://a", "invalid peer certificate: NotValidYet", "is not valid yet"),
            (
                "https://a",
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for b",
                "is for another name",
            ),
        ] {
            let words = words(url, chain).unwrap();
            assert!(words.contains(told), "{chain}: {words}");
        }
        assert_eq!(words("https://a", "invalid peer certificate: BadEncoding"), None);
        assert_eq!(words("http://a", "connection refused"), None);
    }
}
