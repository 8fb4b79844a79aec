//! What an action is: the targets and arguments that it accepts, its default target, and the program
//! that agents run for it.

use riposte_protocol::command::Script;
use riposte_protocol::target::{Target, TargetError, TargetKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;
use crate::domain::alert::TargetField;
use crate::domain::fault::Fault;

/// Maximum number of arguments, and maximum length of one in bytes.
const MAX_ARGUMENTS: (usize, usize) = (32, 1024);

/// Accounts that an action accepts as a `user` target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accounts {
    /// Local accounts: plain names, such as `alice` or `web01$`.
    #[default]
    Local,
    /// Also accounts of directories and identity providers: `CORP\alice`, `alice@example.org`,
    /// `John Smith`.
    Any,
}

impl Accounts {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    fn is_local(&self) -> bool {
        *self == Self::Local
    }
}

/// An action as the manager knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Action {
    /// Unique name; Wazuh's name where Wazuh has the action.
    pub name: String,
    /// What it does, in one sentence.
    pub summary: String,
    /// Kinds of target that it accepts.
    pub target_kinds: Vec<TargetKind>,
    /// Accounts that it accepts as a target of kind `user`; absent for `local`.
    #[serde(skip_serializing_if = "Accounts::is_local")]
    #[schema(value_type = Option<Accounts>)]
    pub user: Accounts,
    /// Default observable to target, if the policy names none.
    pub default_target: Option<TargetField>,
    /// Whether it has a lasting effect that must be lifted. If not, its commands are one-shot.
    pub undoable: bool,
    /// Supported operating systems.
    pub platforms: Vec<String>,
    /// JSON Schema of its arguments, an array of strings.
    #[schema(value_type = Object)]
    pub parameters: Value,
    /// Whether the command includes the alert.
    pub wants_alert: bool,
    /// D3FEND techniques that it is, such as `D3-NTF`; absent: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    pub d3fend: Vec<String>,
    /// The program that agents run; absent for built-in actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
}

impl Action {
    /// Checks a target of an accepted kind.
    ///
    /// # Errors
    /// If the account is not local and the action accepts only local ones.
    pub fn takes(&self, target: &Target) -> Result<(), TargetError> {
        let is_foreign = target.kind() == TargetKind::User && !target.is_local_account();
        if is_foreign && self.user.is_local() { Err(TargetError::User) } else { Ok(()) }
    }

    /// The faults of `arguments`, with pointers below `at`.
    pub fn check_arguments(&self, arguments: &[String], at: &str) -> Vec<Fault> {
        let (count, bytes) = MAX_ARGUMENTS;
        if arguments.len() > count || arguments.iter().any(|text| text.len() > bytes || text.contains('\0')) {
            return vec![Fault::at(at, format!("must be at most {count} texts of {bytes} bytes each"))];
        }
        // One that was stored before schemas were counted.
        if let Some(fault) = schema::fault(&self.parameters) {
            return vec![Fault::at(at, format!("cannot be checked: the schema of {} {fault}", self.name))];
        }
        let Ok(validator) = jsonschema::validator_for(&self.parameters) else {
            return vec![Fault::at(at, format!("the parameters of {} are not a JSON Schema", self.name))];
        };
        let list = Value::from(arguments);
        let fault = |error: jsonschema::ValidationError| {
            let at = format!("{at}{}", error.instance_path());
            Fault::at(at, format!("does not match the parameters of {}: {error}", self.name))
        };
        validator.iter_errors(&list).map(fault).collect()
    }

    /// The capability that agents report for it: its own name, or that of its program.
    pub fn capability(&self) -> String {
        self.script.as_ref().map_or_else(|| self.name.clone(), |script| format!("script:{}", script.executable))
    }
}

/// Whether `name` is a valid action name.
pub fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(plain) && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// JSON Schema of any array of strings.
pub(super) fn free_arguments() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::Catalogue;

    #[test]
    fn arguments_are_what_the_schema_says() {
        let drop = Catalogue::built_in().find("firewall-drop").unwrap();
        let faults = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            drop.check_arguments(&arguments, "/arguments").into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert_eq!(faults(&[]), Vec::<String>::new());
        assert_eq!(faults(&["output"]), Vec::<String>::new());
        assert_eq!(faults(&["outputs"]), ["/arguments/0"]);
        assert_eq!(faults(&["output", "output"]), ["/arguments"]);
        assert_eq!(faults(&["a\0"]), ["/arguments"]);
    }

    #[test]
    fn only_an_action_for_any_account_accepts_directory_accounts() {
        let of_corp = Target::account("CORP\\alice").unwrap();
        let own = Catalogue::built_in();
        for name in ["disable-account", "log-only", "kaspersky", "wazuh-slack"] {
            assert_eq!(own.find(name).unwrap().takes(&of_corp), Err(TargetError::User), "{name}");
        }
        let custom = |user: &str| json!({"name": "x", "summary": "", "executable": "x.sh", "target_kinds": ["user"], "user": user});
        let parse = |user: &str| Action::parse(&custom(user)).unwrap();
        assert_eq!((parse("any").takes(&of_corp), parse("local").takes(&of_corp)), (Ok(()), Err(TargetError::User)));
        assert_eq!(parse("local").takes(&Target::account("web01$").unwrap()), Ok(()));
        assert!(serde_json::to_value(parse("local")).unwrap().get("user").is_none());
        assert_eq!(serde_json::to_value(parse("any")).unwrap()["user"], "any");
    }
}
