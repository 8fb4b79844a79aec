//! The actions Riposte knows: what each takes and what it is aimed at unless a policy says otherwise. How an action
//! is carried out is the agent's business (`agent/src/actions/`); here is what the manager needs to refuse a policy or a
//! request that no agent could obey. The ones that come with Riposte are in `built_in.rs`; people add their own.

mod built_in;
mod custom;
mod named_process;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use riposte_protocol::command::Script;
use riposte_protocol::target::{Target, TargetError, TargetKind};
pub use riposte_protocol::words::nearest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::alert::TargetField;
use super::fault::Fault;

/// The most arguments of an action, and the longest of them in bytes.
const MAX_ARGUMENTS: (usize, usize) = (32, 1024);

/// Which accounts an action takes as a `user` target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accounts {
    /// Those that a host can have: plain names, such as `alice` or `web01$`.
    #[default]
    Local,
    /// Those of directories and identity providers too: `CORP\alice`, `alice@example.org`, `John Smith`.
    Any,
}

impl Accounts {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    fn is_local(&self) -> bool {
        *self == Self::Local
    }
}

/// One action, as the manager knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Action {
    /// Its name, the same as Wazuh's where Wazuh has it.
    pub name: String,
    /// What it does, in one sentence.
    pub summary: String,
    /// The kinds of target it takes.
    pub target_kinds: Vec<TargetKind>,
    /// Which accounts it takes as a target of kind `user`; absent where it is `local`.
    #[serde(skip_serializing_if = "Accounts::is_local")]
    #[schema(value_type = Option<Accounts>)]
    pub user: Accounts,
    /// The observable it is aimed at unless the policy names another.
    pub default_target: Option<TargetField>,
    /// Whether it brings something into force that has to be lifted again. If not, each command is complete in itself.
    pub undoable: bool,
    /// Operating systems it runs on.
    pub platforms: Vec<String>,
    /// JSON Schema of its arguments, a list of texts.
    #[schema(value_type = Object)]
    pub parameters: Value,
    /// Whether the agent gets the alert with the command.
    pub wants_alert: bool,
    /// The program that agents run for it; absent for the actions that come with Riposte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
}

impl Action {
    /// Reads a custom action.
    ///
    /// # Errors
    /// Every fault, each with a pointer.
    pub fn parse(document: &Value) -> Result<Self, Vec<Fault>> {
        custom::read(document)
    }

    /// Whether `target`, which is of one of its kinds, is one that it takes.
    ///
    /// # Errors
    /// If it is an account that no host can have, and the action takes no others.
    pub fn takes(&self, target: &Target) -> Result<(), TargetError> {
        let is_foreign = target.kind() == TargetKind::User && !target.is_local_account();
        if is_foreign && self.user.is_local() { Err(TargetError::User) } else { Ok(()) }
    }

    /// What is wrong with `arguments`, each fault below `at`.
    pub fn check_arguments(&self, arguments: &[String], at: &str) -> Vec<Fault> {
        let (count, bytes) = MAX_ARGUMENTS;
        if arguments.len() > count || arguments.iter().any(|text| text.len() > bytes || text.contains('\0')) {
            return vec![Fault::at(at, format!("takes at most {count} texts of {bytes} bytes each"))];
        }
        let Ok(validator) = jsonschema::validator_for(&self.parameters) else {
            return vec![Fault::at(at, format!("the parameters of {} are no JSON Schema", self.name))];
        };
        let list = Value::from(arguments);
        let fault = |error: jsonschema::ValidationError| {
            let at = format!("{at}{}", error.instance_path());
            Fault::at(at, format!("is not what {} takes: {error}", self.name))
        };
        validator.iter_errors(&list).map(fault).collect()
    }

    /// The name under which agents say whether they can run it: its own, or that of its program.
    pub fn capability(&self) -> String {
        self.script.as_ref().map_or_else(|| self.name.clone(), |script| format!("script:{}", script.executable))
    }
}

/// Every action that can be named: Riposte's own and those that people added. Immutable, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    actions: BTreeMap<String, Arc<Action>>,
}

static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::with(Vec::new()));

impl Catalogue {
    /// The actions that come with Riposte, and `custom` ones. An action of Riposte's own is never replaced.
    pub fn with(custom: Vec<Action>) -> Self {
        let own = built_in::all();
        let actions = custom.into_iter().chain(own).map(|action| (action.name.clone(), Arc::new(action)));
        Self { actions: actions.collect() }
    }

    /// The actions that come with Riposte.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// The action called `name`.
    pub fn find(&self, name: &str) -> Option<&Arc<Action>> {
        self.actions.get(name)
    }

    /// The action that `name` was probably meant to be.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.actions.keys().map(String::as_str))
    }

    /// Every action, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Action>> {
        self.actions.values()
    }
}

/// Whether `name` can name an action.
pub fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(plain) && name.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_action_is_found_by_its_exact_name() {
        assert!(Catalogue::built_in().find("route-null").is_some());
        assert!(Catalogue::built_in().find("firewall-drop600").is_none());
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let known = Catalogue::built_in();
        assert_eq!(known.nearest("firewal-drop"), Some("firewall-drop"));
        assert_eq!(known.nearest("log_only"), Some("log-only"));
        assert_eq!(known.nearest("quarantine"), None);
        assert!(known.iter().all(|action| jsonschema::validator_for(&action.parameters).is_ok()));
    }

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
    fn only_an_action_that_says_so_takes_an_account_that_no_host_has() {
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

    #[test]
    fn a_custom_action_never_takes_the_place_of_an_own_one() {
        let own = Action {
            name: "firewall-drop".into(),
            ..Action::parse(&json!({"name": "x", "summary": "", "executable": "x.sh"})).unwrap()
        };
        assert!(Catalogue::with(vec![own]).find("firewall-drop").unwrap().script.is_none());
    }
}
