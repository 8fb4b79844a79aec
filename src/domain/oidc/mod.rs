//! Single sign-on (OpenID Connect): what an ID token must be ([`id_token`]), which person its claims
//! name ([`people`]), and where a command line may receive its login code ([`loopback`]). Pure
//! rules: `engine/oidc/` talks to the provider.

pub mod id_token;
pub mod loopback;
pub mod people;
