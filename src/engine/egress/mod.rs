//! Calls of the manager to other hosts: the only place that makes an HTTP client for the manager
//! ([`client`]), and that resolves the names of other calls ([`rules`]). A call goes to the address that
//! was checked, never to a second look-up of the name, so that a name that changes in between (DNS
//! rebinding) leads nowhere. Redirects are not followed, and proxies of the environment are not used:
//! both would lead past the check.

pub mod client;
pub mod error;
mod resolver;
pub mod rules;
#[cfg(test)]
mod tests;
