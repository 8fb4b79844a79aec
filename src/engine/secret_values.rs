//! The values of secrets, in memory: they are put into the arguments of a command when it is signed for the
//! agent that needs it, and taken out of what agents say.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::fault::Fault;
use crate::domain::ledger_key::{LedgerKey, LedgerKeyError};
use crate::domain::secret_reference::reference;
use crate::store::StoreError;
use crate::store::configured::secrets::SealedSecret;

/// A value shorter than this is not looked for in what agents say: it would be found everywhere.
const MIN_REDACTED: usize = 6;

/// A value with the actions that may receive it.
#[derive(Clone)]
struct SecretValue {
    value: String,
    actions: Vec<String>,
}

/// All values, by name. It shows none of them.
#[derive(Clone, Default)]
pub struct SecretValues(BTreeMap<String, SecretValue>);

impl fmt::Debug for SecretValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretValues({})", self.0.len())
    }
}

/// What a value is sealed for.
pub(super) fn purpose(name: &str) -> String {
    format!("secret {name}")
}

impl SecretValues {
    /// Opens the values. One that cannot be opened is left out, and said: a command that needs it is not sent.
    ///
    /// # Errors
    /// If the list of actions cannot be read.
    pub fn open(rows: Vec<SealedSecret>, key: &LedgerKey) -> Result<Self, StoreError> {
        let mut values = BTreeMap::new();
        for SealedSecret { secret, sealed } in rows {
            let opened = key.open(&purpose(&secret.name), &sealed).ok().and_then(|plain| String::from_utf8(plain).ok());
            match opened {
                Some(value) => {
                    values.insert(secret.name, SecretValue { value, actions: secret.actions.read()? });
                }
                None => tracing::error!(
                    secret = secret.name,
                    "the secret {} cannot be opened: {}; set it again",
                    secret.name,
                    LedgerKeyError::Foreign
                ),
            }
        }
        Ok(Self(values))
    }

    /// The arguments of `action` with the values of the secrets that they refer to.
    ///
    /// # Errors
    /// Why a reference cannot be resolved.
    pub fn resolve(&self, action: &str, arguments: &[String]) -> Result<Vec<String>, String> {
        arguments.iter().map(|argument| self.argument(action, argument)).collect()
    }

    fn argument(&self, action: &str, argument: &str) -> Result<String, String> {
        let Some((before, name)) = reference(argument) else { return Ok(argument.to_owned()) };
        let secret = self.0.get(name).ok_or_else(|| format!("there is no secret {name:?}"))?;
        if !secret.actions.iter().any(|own| own == action) {
            return Err(format!("the secret {name:?} is not for the action {action}"));
        }
        Ok(format!("{before}{}", secret.value))
    }

    /// The name of a secret that `action` may receive, if there is one.
    pub fn received_by(&self, action: &str) -> Option<&str> {
        let receives = |secret: &SecretValue| secret.actions.iter().any(|own| own == action);
        self.0.iter().find(|(_, secret)| receives(secret)).map(|(name, _)| name.as_str())
    }

    /// `text` with a name in the place of each value.
    pub fn redact(&self, mut text: String) -> String {
        for (name, secret) in &self.0 {
            if secret.value.len() >= MIN_REDACTED && text.contains(&secret.value) {
                text = text.replace(&secret.value, &format!("[secret:{name}]"));
            }
        }
        text
    }

    /// Faults of the arguments of `action`, below `at`.
    pub fn faults(&self, action: &str, arguments: &[String], at: &str) -> Vec<Fault> {
        let checked = arguments.iter().enumerate().map(|(index, argument)| (index, self.argument(action, argument)));
        checked.filter_map(|(index, checked)| Some(Fault::at(format!("{at}/{index}"), checked.err()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> SecretValues {
        let secret = SecretValue { value: "https://chat/hook-1234".into(), actions: vec!["notify".into()] };
        SecretValues(BTreeMap::from([("chat".to_owned(), secret)]))
    }

    #[test]
    fn a_value_reaches_its_actions_only() {
        let arguments = ["-v".to_owned(), "secret:chat".to_owned(), "url=secret:chat".to_owned()];
        let resolved = values().resolve("notify", &arguments).unwrap();
        assert_eq!(resolved, ["-v", "https://chat/hook-1234", "url=https://chat/hook-1234"]);
        assert!(values().resolve("other", &arguments).unwrap_err().contains("is not for the action"));
        let missing = values().resolve("notify", &["secret:mail".to_owned()]);
        assert!(missing.unwrap_err().contains("there is no secret"));
        assert_eq!(
            values().faults("notify", &["secret:mail".to_owned()], "/respond/arguments")[0].pointer,
            "/respond/arguments/0"
        );
    }

    #[test]
    fn a_value_is_shown_nowhere() {
        assert_eq!(format!("{:?}", values()), "SecretValues(1)");
        let said = values().redact("POST https://chat/hook-1234: 200".to_owned());
        assert_eq!(said, "POST [secret:chat]: 200");
    }
}
