//! Single sign-on (OpenID Connect): the [`providers`] that are configured, how one is asked
//! ([`client`], [`provider`]), and the logins that are under way ([`tickets`]). The use cases are in
//! `engine/sign_on.rs`.

pub mod client;
pub mod provider;
pub mod providers;
pub mod tickets;
