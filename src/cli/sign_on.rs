//! The OpenID providers of a configuration, with their secrets and authorities, for the engine.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Certificate, Url};

use super::keyfiles;
use crate::config::{Config, OidcProvider};
use crate::domain::oidc::people::ClaimMapping;
use crate::engine::egress::rules::Egress;
use crate::engine::oidc::client::ProviderClient;
use crate::engine::oidc::provider::{Provider, ProviderSettings};
use crate::engine::oidc::providers::Providers;

/// Reads the providers of a manager that listens on `address`. No provider is asked anything yet.
///
/// # Errors
/// If a secret or an authority cannot be read, a role does not exist, or the address for browsers is
/// unknown.
pub(super) fn providers(config: &Config, egress: &Egress, address: SocketAddr) -> anyhow::Result<Providers> {
    let read = |provider: &OidcProvider| {
        read(provider, egress).with_context(|| format!("the configuration's [[oidc]] {}", provider.name))
    };
    let all = config.oidc.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let server = &config.server;
    let base = if !server.public_url.is_empty() {
        server.public_url.clone()
    } else if all.is_empty() || !address.ip().is_unspecified() {
        format!("{}://{address}", if server.tls_cert.as_os_str().is_empty() { "http" } else { "https" })
    } else {
        bail!("set public_url: OpenID providers send people back to it, and {address} is no address of one host");
    };
    Ok(Providers::new(&base, all))
}

fn read(provider: &OidcProvider, egress: &Egress) -> anyhow::Result<Provider> {
    let OidcProvider { name, issuer, client_id, client_secret_file, scopes, roles, ca, .. } = provider;
    let OidcProvider { username_claim, username_domain, groups_claim, default_role, .. } = provider;
    let mapping = ClaimMapping::new(username_claim, username_domain, groups_claim, roles, default_role);
    let is_given = |path: &Path| !path.as_os_str().is_empty();
    let secret = is_given(client_secret_file).then(|| keyfiles::read_secret(client_secret_file));
    let settings = ProviderSettings {
        name: name.clone(),
        issuer: issuer.clone(),
        client_id: client_id.clone(),
        client_secret: secret.transpose().context("client_secret_file")?,
        scopes: scopes.join(" "),
        mapping: mapping.map_err(anyhow::Error::msg)?,
    };
    let authorities = if is_given(ca) { authorities(ca)? } else { Vec::new() };
    let client = ProviderClient::new(egress, Url::parse(issuer)?, authorities).context("ca")?;
    Ok(Provider::new(settings, client))
}

fn authorities(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let place = path.display();
    let pem = std::fs::read(path).with_context(|| format!("ca: cannot read {place}"))?;
    let authorities = Certificate::from_pem_bundle(&pem).with_context(|| format!("ca: {place} is not PEM"))?;
    ensure!(!authorities.is_empty(), "ca: {place} holds no certificate");
    Ok(authorities)
}
