//! `[[oidc]]`: an OpenID provider at which people log in, and what its configuration may be. What
//! the claims of a person mean is in `domain/oidc/`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

/// Why an OpenID provider cannot be used as it is set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("[[oidc]] {name}: {key} {why}")]
pub struct OidcFault {
    /// Name of the provider, or its position if it has none.
    pub name: String,
    /// The key.
    pub key: &'static str,
    /// What is wrong, and what to write.
    pub why: String,
}

/// Largest name of a provider: it is part of addresses.
const MAX_NAME: usize = 32;

/// An OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcProvider {
    /// Name in addresses and messages: a-z, 0-9 and '-'.
    pub name: String,
    /// Issuer, exactly as the provider states it.
    pub issuer: String,
    /// Id of this manager at the provider.
    pub client_id: String,
    /// File with the secret of that client; empty for a public client.
    pub client_secret_file: PathBuf,
    /// Scopes to ask for; `openid` is one of them.
    pub scopes: Vec<String>,
    /// Claim that names the user at the first login.
    pub username_claim: String,
    /// Domain that is cut off that claim, with its `@`; empty: none.
    pub username_domain: String,
    /// Claim with the person's groups.
    pub groups_claim: String,
    /// Roles by group.
    pub roles: BTreeMap<String, String>,
    /// Role of a person without such a group; empty: the login is refused.
    pub default_role: String,
    /// Authorities in PEM, trusted instead of the system's; empty: the system's.
    pub ca: PathBuf,
}

impl Default for OidcProvider {
    fn default() -> Self {
        Self {
            name: String::new(),
            issuer: String::new(),
            client_id: String::new(),
            client_secret_file: PathBuf::new(),
            scopes: vec!["openid".to_owned(), "profile".to_owned()],
            username_claim: "preferred_username".to_owned(),
            username_domain: String::new(),
            groups_claim: "groups".to_owned(),
            roles: BTreeMap::new(),
            default_role: String::new(),
            ca: PathBuf::new(),
        }
    }
}

/// Whether a URL may be used: TLS, or plain HTTP to this host.
pub fn is_safe(url: &Url) -> bool {
    let is_loopback = || {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback())
}

/// The faults of all providers, each with the position of its block, from 0: at most one a block.
pub(super) fn faults(providers: &[OidcProvider]) -> Vec<(usize, OidcFault)> {
    let (mut names, mut issuers) = (BTreeSet::new(), BTreeSet::new());
    let mut faults = Vec::new();
    for (index, provider) in providers.iter().enumerate() {
        let is_new = [("name", names.insert(&provider.name)), ("issuer", issuers.insert(&provider.issuer))];
        let twice = is_new
            .into_iter()
            .find(|(_, is_new)| !is_new)
            .map(|(key, _)| (key, "is that of another provider too; each provider has one block".to_owned()));
        if let Some((key, why)) = provider.fault().or(twice) {
            let name = Some(provider.name.clone()).filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| format!("number {}", index + 1));
            faults.push((index, OidcFault { name, key, why }));
        }
    }
    faults
}

impl OidcProvider {
    /// The first key that cannot be used, and why.
    fn fault(&self) -> Option<(&'static str, String)> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.bytes().all(is_plain) {
            return Some(("name", format!("must be 1 to {MAX_NAME} characters of a-z, 0-9 and '-'")));
        }
        match Url::parse(&self.issuer) {
            Ok(url) if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() => {
                return Some(("issuer", "must have no query, no fragment and no account".to_owned()));
            }
            Ok(url) if is_safe(&url) => {}
            Ok(_) => {
                let why = "must begin with https://; http:// is for a loopback address such as 127.0.0.1";
                return Some(("issuer", why.to_owned()));
            }
            Err(error) => return Some(("issuer", format!("is no URL: {error}"))),
        }
        if !is_word(&self.client_id) {
            return Some(("client_id", "must name this manager's client at the provider".to_owned()));
        }
        if !self.scopes.iter().any(|scope| scope == "openid") || !self.scopes.iter().all(|scope| is_word(scope)) {
            return Some(("scopes", "must be words, and \"openid\" one of them".to_owned()));
        }
        for (key, claim) in [("username_claim", &self.username_claim), ("groups_claim", &self.groups_claim)] {
            if claim.is_empty() {
                return Some((key, "must name a claim".to_owned()));
            }
        }
        if self.username_domain.contains('@') {
            return Some(("username_domain", "must be a domain without '@', such as example.org".to_owned()));
        }
        if self.roles.is_empty() && self.default_role.is_empty() {
            let why = "must give a role to a group, or default_role one to everyone: now every login is refused";
            return Some(("roles", why.to_owned()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(providers: &[OidcProvider]) -> Result<(), OidcFault> {
        faults(providers).into_iter().next().map_or(Ok(()), |(_, fault)| Err(fault))
    }

    fn provider() -> OidcProvider {
        OidcProvider {
            name: "corp".into(),
            issuer: "https://login.example.org".into(),
            client_id: "riposte".into(),
            default_role: "viewer".into(),
            ..OidcProvider::default()
        }
    }

    #[test]
    fn a_provider_that_cannot_work_is_refused_with_the_key() {
        assert!(check(&[provider()]).is_ok());
        type Change = fn(&mut OidcProvider);
        let table: [(&str, Change); 12] = [
            ("name", |provider| provider.name = "Corp".into()),
            ("name", |provider| provider.name = String::new()),
            ("issuer", |provider| provider.issuer = "login.example.org".into()),
            ("issuer", |provider| provider.issuer = "http://login.example.org".into()),
            ("issuer", |provider| provider.issuer = "http://localhost.example.org".into()),
            ("issuer", |provider| provider.issuer = "https://login.example.org?x=1".into()),
            ("client_id", |provider| provider.client_id = String::new()),
            ("scopes", |provider| provider.scopes = vec!["profile".into()]),
            ("username_claim", |provider| provider.username_claim = String::new()),
            ("groups_claim", |provider| provider.groups_claim = String::new()),
            ("username_domain", |provider| provider.username_domain = "@example.org".into()),
            ("roles", |provider| provider.default_role = String::new()),
        ];
        for (key, change) in table {
            let mut wrong = provider();
            change(&mut wrong);
            let error = check(&[wrong]).unwrap_err();
            assert!(error.key == key, "{key}: {error}");
        }
        for issuer in ["http://127.0.0.1:8080", "http://[::1]:8080/realms/a"] {
            assert!(check(&[OidcProvider { issuer: issuer.into(), ..provider() }]).is_ok(), "{issuer}");
        }
        let error = check(&[provider(), provider()]).unwrap_err().to_string();
        assert!(error.contains("corp") && error.contains("another provider"), "{error}");
    }
}
