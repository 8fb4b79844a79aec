//! Which person the claims of a provider name, and with which role. Claims are taken as they are:
//! one that is no user name is refused, and never bent into one, because two persons would become
//! one.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::domain::principal::Role;
use crate::domain::right::Right;
use crate::domain::user::is_user_name;

/// Largest subject: that of the standard.
const MAX_SUBJECT: usize = 255;

/// What the claims of one provider mean.
#[derive(Clone, Debug)]
pub struct ClaimMapping {
    username_claim: String,
    username_domain: String,
    groups_claim: String,
    roles: BTreeMap<String, Role>,
    default_role: Option<Role>,
}

/// Why the claims name no person who may log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFault {
    /// The claim with the name is absent, or no text.
    #[error("the provider sends no claim {0}: check username_claim and scopes")]
    NoName(String),
    /// The name is no user name.
    #[error(
        "the claim {claim} holds {name:?}, which is no user name (a-z, 0-9, '.', '_', '-'): an administrator creates \
         the user and links it (`riposte user link`)"
    )]
    BadName {
        /// The claim.
        claim: String,
        /// What it holds.
        name: String,
    },
    /// No group has a role.
    #[error("none of the person's groups (claim {0}) has a role here: ask an administrator")]
    NoRole(String),
}

/// Whether `text` can be the subject of a person at a provider.
pub fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SUBJECT && !text.chars().any(char::is_control)
}

impl ClaimMapping {
    /// Reads what a configuration says.
    ///
    /// # Errors
    /// The key with a role that a person cannot have, and why.
    pub fn new(
        username_claim: &str,
        username_domain: &str,
        groups_claim: &str,
        roles: &BTreeMap<String, String>,
        default_role: &str,
    ) -> Result<Self, String> {
        let role = |key: &str, word: &str| {
            let role = Role::parse(word).filter(|role| *role != Role::Ingest);
            role.ok_or_else(|| format!("{key} is {word:?}: must be viewer, analyst, engineer or admin"))
        };
        let read = roles.iter().map(|(group, word)| Ok((group.clone(), role(&format!("roles.{group:?}"), word)?)));
        Ok(Self {
            username_claim: username_claim.to_owned(),
            username_domain: username_domain.to_owned(),
            groups_claim: groups_claim.to_owned(),
            roles: read.collect::<Result<_, String>>()?,
            default_role: if default_role.is_empty() { None } else { Some(role("default_role", default_role)?) },
        })
    }

    /// Whether `claims` lack the name or the groups, which the provider may send elsewhere.
    pub fn lacks(&self, claims: &Map<String, Value>) -> bool {
        !claims.contains_key(&self.username_claim) || !claims.contains_key(&self.groups_claim)
    }

    /// The name of the user that a first login creates.
    ///
    /// # Errors
    /// [`ClaimFault::NoName`] or [`ClaimFault::BadName`].
    pub fn name(&self, claims: &Map<String, Value>) -> Result<String, ClaimFault> {
        let said = claims.get(&self.username_claim).and_then(Value::as_str);
        let said = said.ok_or_else(|| ClaimFault::NoName(self.username_claim.clone()))?;
        let at = said.rsplit_once('@').filter(|(_, domain)| *domain == self.username_domain);
        let name = at.filter(|_| !self.username_domain.is_empty()).map_or(said, |(name, _)| name);
        if is_user_name(name) {
            return Ok(name.to_owned());
        }
        let name = said.chars().take(64).collect();
        Err(ClaimFault::BadName { claim: self.username_claim.clone(), name })
    }

    /// The role of the person's groups: the one with the most rights.
    ///
    /// # Errors
    /// [`ClaimFault::NoRole`].
    pub fn role(&self, claims: &Map<String, Value>) -> Result<Role, ClaimFault> {
        let said = match claims.get(&self.groups_claim) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(group)) => vec![group.as_str()],
            _ => Vec::new(),
        };
        let mapped = said.into_iter().filter_map(|group| self.roles.get(group).copied());
        let most = mapped.max_by_key(|role| Right::ALL.into_iter().filter(|right| role.may(*right)).count());
        most.or(self.default_role).ok_or_else(|| ClaimFault::NoRole(self.groups_claim.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(domain: &str, default_role: &str) -> ClaimMapping {
        let roles = [("soc", "analyst"), ("leads", "engineer")].map(|(group, role)| (group.into(), role.into()));
        ClaimMapping::new("preferred_username", domain, "groups", &roles.into(), default_role).unwrap()
    }

    fn claims(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_name_is_taken_as_it_is_or_refused() {
        let name = |domain: &str, said: Value| mapping(domain, "").name(&claims(json!({"preferred_username": said})));
        assert_eq!(name("", json!("alice")), Ok("alice".into()));
        assert_eq!(name("example.org", json!("alice@example.org")), Ok("alice".into()));
        assert_eq!(name("example.org", json!("alice")), Ok("alice".into()));
        for (domain, said) in [
            ("", "alice@example.org"),
            ("", "Alice"),
            ("", " alice"),
            ("", ""),
            ("example.org", "alice@example.com"),
            ("example.org", "alice@evil@example.org"),
            ("example.org", "@example.org"),
            ("", "аlice"),
        ] {
            let fault = name(domain, json!(said)).unwrap_err();
            assert!(matches!(&fault, ClaimFault::BadName { name, .. } if name == said), "{said}: {fault}");
        }
        assert_eq!(name("", json!(7)), Err(ClaimFault::NoName("preferred_username".into())));
    }

    #[test]
    fn the_role_with_the_most_rights_counts() {
        let role = |default: &str, groups: Value| mapping("", default).role(&claims(json!({"groups": groups})));
        assert_eq!(role("", json!(["x", "soc"])), Ok(Role::Analyst));
        assert_eq!(role("", json!(["leads", "soc"])), Ok(Role::Engineer));
        assert_eq!(role("", json!("soc")), Ok(Role::Analyst));
        assert_eq!(role("viewer", json!(["SOC"])), Ok(Role::Viewer));
        for groups in [json!([]), json!(["SOC", 7, null]), json!(null), json!({"soc": true})] {
            assert_eq!(role("", groups), Err(ClaimFault::NoRole("groups".into())));
        }
        let ingest = [("soc".to_owned(), "ingest".to_owned())].into();
        let error = ClaimMapping::new("a", "", "b", &ingest, "").unwrap_err();
        assert!(error.contains("soc") && error.contains("ingest"), "{error}");
        assert!(ClaimMapping::new("a", "", "b", &BTreeMap::new(), "root").is_err());
    }
}
