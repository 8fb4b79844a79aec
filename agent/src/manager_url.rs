//! The manager's address: which forms are accepted, and whether the connection is private.

/// Why an address of a manager cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It has no scheme.
    #[error("{0} has no scheme: write http:// or https:// before it, such as https://{0}")]
    NoScheme(String),
    /// Its scheme is neither http nor https.
    #[error("{0} cannot be spoken to: write http:// or https://")]
    OtherScheme(String),
    /// It names no host.
    #[error("{0} names no host: write it as https://riposte.example.org")]
    NoHost(String),
    /// The connection is neither encrypted nor local.
    #[error(
        "{0} is plain HTTP over a network: an attacker on it can read the token and pose as the manager. Use an https:// \
         address, or allow it with --insecure-http (RIPOSTE_INSECURE_HTTP=true) where the network itself is trusted"
    )]
    Insecure(String),
    /// An agent that enrolled over TLS would be moved to plain HTTP.
    #[error(
        "the manager is at {manager} and names {named}, which is not encrypted: set public_url = \"{manager}\" there"
    )]
    Downgrade {
        /// Address at enrolment.
        manager: String,
        /// Address in the manager's answer.
        named: String,
    },
}

/// Checks an address that an operator typed; returns it without a slash at its end.
///
/// # Errors
/// What is wrong with it.
pub fn typed(url: &str) -> Result<&str, UrlError> {
    let url = url.trim();
    match url.split_once("://") {
        None => Err(UrlError::NoScheme(url.into())),
        Some((scheme, _)) if !is_http(scheme) => Err(UrlError::OtherScheme(url.into())),
        Some(_) if host_and_port(url).is_none() => Err(UrlError::NoHost(url.into())),
        Some(_) => Ok(url.trim_end_matches('/')),
    }
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Whether the connection to `url` is private: it is encrypted, or does not leave this host.
pub fn is_protected(url: &str) -> bool {
    is_encrypted(url) || is_loopback(url)
}

/// Whether the connection to `url` uses TLS.
pub fn is_encrypted(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("https" | "wss"))
}

fn is_loopback(url: &str) -> bool {
    let Some((host, _)) = host_and_port(url) else { return false };
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Checks the addresses in the answer of a manager that the agent enrolled at. A TLS manager must
/// not name plain HTTP. Over a network, plain HTTP must be allowed by `is_allowed`.
///
/// # Errors
/// The first address that must not be used.
pub fn check<'a>(manager: &str, named: impl IntoIterator<Item = &'a str>, is_allowed: bool) -> Result<(), UrlError> {
    if !is_protected(manager) && !is_allowed {
        return Err(UrlError::Insecure(manager.into()));
    }
    for url in named {
        if is_encrypted(manager) && !is_encrypted(url) {
            return Err(UrlError::Downgrade { manager: manager.into(), named: url.into() });
        }
        if !is_protected(url) && !is_allowed {
            return Err(UrlError::Insecure(url.into()));
        }
    }
    Ok(())
}

/// The host and the port in a URL.
pub fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let default = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encrypted_or_local_connections_are_private() {
        for url in [
            "ws://manager.example/v1",
            "http://10.0.0.1:8480/x",
            "ws://[2001:db8::1]:8480/x",
            "http://127.0.0.1.evil.org/",
        ] {
            assert!(!is_protected(url), "{url}");
        }
        for url in [
            "wss://manager.example/v1",
            "HTTPS://10.0.0.1/x",
            "ws://127.0.0.1:8480/x",
            "ws://[::1]:1/x",
            "http://localhost/x",
        ] {
            assert!(is_protected(url), "{url}");
        }
    }

    #[test]
    fn typed_addresses_are_classified() {
        assert_eq!(typed(" https://riposte.example.org/ "), Ok("https://riposte.example.org"));
        assert_eq!(typed("HTTP://127.0.0.1:8480"), Ok("HTTP://127.0.0.1:8480"));
        for (text, said) in [
            ("riposte.example.org:8480", "write http:// or https:// before it"),
            ("ftp://riposte.example.org", "write http:// or https://"),
            ("https://", "names no host"),
        ] {
            let error = typed(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn an_agent_is_never_moved_from_tls_to_plain_http() {
        let sent = |manager: &str, stream: &str, allowed| check(manager, [stream], allowed).is_ok();
        assert!(sent("https://m.example", "wss://m.example/v1/agent/stream", false));
        assert!(!sent("https://m.example", "ws://m.example/v1/agent/stream", true), "not even where it is allowed");
        assert!(!sent("https://m.example", "ws://127.0.0.1/v1/agent/stream", false), "nor on this host");
        assert!(!sent("http://m.example", "wss://m.example/v1/agent/stream", false));
        assert!(sent("http://m.example", "ws://m.example/v1/agent/stream", true));
        assert!(sent("http://127.0.0.1:8480", "ws://127.0.0.1:8480/v1/agent/stream", false));
        assert!(!sent("http://127.0.0.1:8480", "ws://m.example/v1/agent/stream", false));
    }

    #[test]
    fn the_host_and_the_port_of_a_url_are_found() {
        for (url, expected) in [
            ("https://riposte.example.org/v1/x", Some(("riposte.example.org", 443))),
            ("ws://10.0.0.1:8480/x?y#z", Some(("10.0.0.1", 8480))),
            ("wss://[2001:db8::1]/x", Some(("2001:db8::1", 443))),
            ("http://[::1]:81", Some(("::1", 81))),
            ("http://user:word@host:82/", Some(("host", 82))),
            ("http://host:port/", None),
            ("http:///x", None),
            ("host", None),
        ] {
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
