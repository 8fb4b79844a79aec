//! The description of an action. The capabilities, the checks before an execution and
//! `docs/actions.md` are made from it; a test compares the manager's table with that page. Data only.

use riposte_protocol::target::{Target, TargetKind};

use super::Os;

/// The description of an action.
#[derive(Debug)]
pub struct About {
    /// The name in policies and commands.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The kinds of target it accepts; empty means any.
    pub targets: &'static [TargetKind],
    /// Whether an `ip` target may be a whole network.
    pub networks: bool,
    /// Which accounts a `user` target may be.
    pub users: Users,
    /// The systems it can run on.
    pub platforms: &'static [Os],
    /// How it was tried on Windows, if it exists there.
    pub windows: Proof,
    /// Lock domain: actions of one domain run one after the other.
    pub lock_domain: &'static str,
    /// Whether an effect is held afterwards, until it is lifted. If not, each command is complete
    /// in itself.
    pub undoable: bool,
    /// Whether its effect can be seen afterwards.
    pub looks: bool,
    /// Its arguments.
    pub parameters: &'static [Parameter],
    /// How it is brought into force; a sentence for the documentation.
    pub applied: &'static str,
    /// How it is verified; a sentence for the documentation.
    pub verified: &'static str,
    /// How it is lifted; a sentence for the documentation.
    pub undone: &'static str,
    /// The rights that the agent needs for it.
    pub rights: &'static str,
}

/// How an action was tried on a system that the tests cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It runs in the tests under Wine, against what Wine has of the system.
    Wine,
    /// The programs that it runs are compared with a table; none was run.
    Argv,
}

impl Proof {
    /// For the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wine => "run under Wine",
            Self::Argv => "argv-tested",
        }
    }
}

/// Which accounts an action accepts as a target of kind `user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Names that a local account can have.
    Local,
    /// Also names of directories and identity providers.
    Any,
}

/// One argument, or one kind of argument, of an action.
#[derive(Debug)]
pub struct Parameter {
    /// Its syntax.
    pub form: Form,
    /// What it does.
    pub summary: &'static str,
    /// Whether it is required.
    pub required: bool,
    /// Whether it may be given more than once.
    pub repeated: bool,
    /// Whether it is a secret, which only the action itself may see.
    pub is_secret: bool,
    /// Checks a value; the error is the end of a sentence that begins with the argument's name.
    pub check: fn(&str) -> Result<(), String>,
}

/// The syntax of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Exactly this word.
    Word(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `name=VALUE`.
    Value(&'static str, &'static str),
    /// Free text, with its name in the documentation.
    Text(&'static str),
}

impl Form {
    /// The argument as in the documentation.
    pub fn text(self) -> String {
        match self {
            Self::Word(word) => word.into(),
            Self::OneOf(words) => words.join("|"),
            Self::Value(name, value) => format!("{name}={value}"),
            Self::Text(name) => name.into(),
        }
    }

    /// The value, if `argument` has this form.
    fn value(self, argument: &str) -> Option<&str> {
        match self {
            Self::Word(word) => (argument == word).then_some(argument),
            Self::OneOf(words) => words.contains(&argument).then_some(argument),
            Self::Value(name, _) => argument.strip_prefix(name)?.strip_prefix('='),
            Self::Text(_) => Some(argument),
        }
    }
}

impl Parameter {
    /// Defaults of a parameter.
    pub const DEFAULT: Self = Self {
        form: Form::Word(""),
        summary: "",
        required: false,
        repeated: false,
        is_secret: false,
        check: |_| Ok(()),
    };
}

/// Longest argument, in bytes; Wazuh's own limit for all of them together.
const MAX_ARGUMENT_BYTES: usize = 4096;
/// Limit of arguments of one command.
const MAX_ARGUMENTS: usize = 64;

impl About {
    /// Defaults of an action.
    pub const DEFAULT: Self = Self {
        name: "",
        summary: "",
        targets: &[],
        networks: false,
        users: Users::Local,
        platforms: Os::ALL,
        windows: Proof::Argv,
        lock_domain: "",
        undoable: true,
        looks: true,
        parameters: &[],
        applied: "",
        verified: "",
        undone: "",
        rights: "",
    };

    /// Whether only the action itself may see its arguments.
    pub fn has_secrets(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.is_secret)
    }

    /// The kinds of target, for people.
    pub fn targets_text(&self) -> String {
        let words: Vec<_> = self.targets.iter().map(|kind| kind.as_str()).collect();
        if words.is_empty() { "any".into() } else { words.join(", ") }
    }

    /// Checks that the action accepts `target`.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn check_target(&self, target: &Target) -> Result<(), String> {
        let name = self.name;
        if !self.targets.is_empty() && !self.targets.contains(&target.kind()) {
            return Err(format!("{name} takes a target of kind {}, not {}", self.targets_text(), target.kind()));
        }
        // An action that accepts any target ignores it.
        if target.network().is_some() && target.ip().is_none() && !self.networks && !self.targets.is_empty() {
            return Err(format!("{name} takes single addresses, not the network {}", target.value()));
        }
        if target.kind() == TargetKind::User && !target.is_local_account() && self.users == Users::Local {
            return Err(format!("{name} takes accounts of this host, and {:?} cannot be one", target.value()));
        }
        Ok(())
    }

    /// Checks all `arguments`.
    ///
    /// # Errors
    /// The first invalid one, or what is missing, for people. The argument is hostile and is
    /// escaped.
    pub fn check_arguments(&self, arguments: &[String]) -> Result<(), String> {
        let name = self.name;
        if arguments.len() > MAX_ARGUMENTS {
            return Err(format!("{name} was given {} arguments; {MAX_ARGUMENTS} is the most", arguments.len()));
        }
        let mut given = vec![0; self.parameters.len()];
        for argument in arguments {
            if argument.len() > MAX_ARGUMENT_BYTES || argument.chars().any(char::is_control) {
                return Err(format!("{name} was given an argument with control characters or over 4096 bytes"));
            }
            let of = |parameter: &Parameter| parameter.form.value(argument);
            let found = self.parameters.iter().position(|parameter| of(parameter).is_some());
            let Some((position, parameter)) = found.and_then(|at| Some((at, self.parameters.get(at)?))) else {
                return Err(format!("{name} does not know the argument '{}'{}", short(argument), self.hint()));
            };
            if let Err(reason) = (parameter.check)(of(parameter).unwrap_or_default()) {
                let shown = if parameter.is_secret { parameter.form.text() } else { short(argument) };
                return Err(format!("{name}: the argument '{shown}' {reason}"));
            }
            given[position] += 1;
        }
        for (parameter, given) in self.parameters.iter().zip(given) {
            let form = parameter.form.text();
            if parameter.required && given == 0 {
                return Err(format!("{name} needs the argument {form}: {}", parameter.summary));
            }
            if given > 1 && !parameter.repeated {
                return Err(format!("{name} takes the argument {form} only once"));
            }
        }
        Ok(())
    }

    fn hint(&self) -> String {
        let forms: Vec<_> = self.parameters.iter().map(|parameter| parameter.form.text()).collect();
        if forms.is_empty() { "; it takes none".into() } else { format!("; it takes {}", forms.join(", ")) }
    }
}

/// The start of a hostile text, for a sentence.
fn short(text: &str) -> String {
    let head: String = text.chars().take(64).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{}{more}", head.escape_debug())
}

/// The values of all arguments `name=VALUE`, in their order.
pub(super) fn values<'a>(arguments: &'a [String], name: &str) -> Vec<&'a str> {
    arguments.iter().filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// Whether the word is among the arguments.
pub(super) fn has(arguments: &[String], word: &str) -> bool {
    arguments.iter().any(|argument| argument == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About = About {
        name: "brew",
        targets: &[TargetKind::Ip],
        parameters: &[
            Parameter { form: Form::Word("hot"), ..Parameter::DEFAULT },
            Parameter {
                form: Form::Value("cup", "N"),
                required: true,
                summary: "which cup",
                check: |value| if value == "1" { Ok(()) } else { Err("is not 1".into()) },
                ..Parameter::DEFAULT
            },
        ],
        ..About::DEFAULT
    };

    #[test]
    fn arguments_are_understood_or_refused_with_a_sentence() {
        let check = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
            ABOUT.check_arguments(&arguments).err().unwrap_or_default()
        };
        assert_eq!(check(&["cup=1", "hot"]), "");
        assert_eq!(check(&[]), "brew needs the argument cup=N: which cup");
        assert_eq!(check(&["cup=2"]), "brew: the argument 'cup=2' is not 1");
        assert_eq!(check(&["cup=1", "hot", "hot"]), "brew takes the argument hot only once");
        assert_eq!(
            check(&["cup=1", "; rm -rf /"]),
            "brew does not know the argument '; rm -rf /'; it takes hot, cup=N"
        );
        assert!(check(&["cup=1", "a\nb"]).contains("control characters"));
        assert!(check(&["cup=1", "x".repeat(4097).as_str()]).contains("4096"));
        assert!(check(&vec!["hot"; 65]).contains("64 is the most"));
    }

    #[test]
    fn a_network_is_only_for_actions_that_take_networks() {
        let network = Target::parse_network("203.0.113.0/24").unwrap();
        let refusal = ABOUT.check_target(&network).unwrap_err();
        assert_eq!(refusal, "brew takes single addresses, not the network 203.0.113.0/24");
        assert_eq!(About { networks: true, ..ABOUT }.check_target(&network), Ok(()));
        assert_eq!(About { targets: &[], ..ABOUT }.check_target(&network), Ok(()));
        let (alice, of_corp) = (Target::account("alice").unwrap(), Target::account("CORP\\alice").unwrap());
        let on_users = About { targets: &[TargetKind::User], ..ABOUT };
        assert_eq!(on_users.check_target(&alice), Ok(()));
        let refusal = on_users.check_target(&of_corp).unwrap_err();
        assert_eq!(refusal, "brew takes accounts of this host, and \"CORP\\\\alice\" cannot be one");
        assert!(About { targets: &[], ..ABOUT }.check_target(&of_corp).is_err(), "also where any target is taken");
        assert_eq!(About { users: Users::Any, ..on_users }.check_target(&of_corp), Ok(()));
        let refusal = ABOUT.check_target(&Target::host()).unwrap_err();
        assert_eq!(refusal, "brew takes a target of kind ip, not host");
    }
}
