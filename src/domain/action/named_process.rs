//! The name of a process beside its number. A busy host reuses process ids within minutes, so a
//! kill also needs a name or path, from the arguments or from the alert.

use super::definition::Action;
use crate::domain::alert::Observables;

/// Maximum length of a name from an alert, in characters; equal to the limit of the argument
/// `name=`.
const MAX_NAME_CHARS: usize = 64;

impl Action {
    /// Whether the action needs the name of its target process.
    pub fn needs_process_name(&self) -> bool {
        self.name == "kill-process"
    }

    /// Whether `arguments` name the process, or the action needs no name.
    pub fn is_process_named(&self, arguments: &[String]) -> bool {
        let names = |argument: &String| argument.starts_with("name=") || argument.starts_with("path=");
        !self.needs_process_name() || arguments.iter().any(names)
    }

    /// Adds the process name from the alert to `arguments` that have none; `None` if the alert has
    /// none either.
    pub fn naming_process(&self, arguments: &[String], observables: &Observables) -> Option<Vec<String>> {
        let mut arguments = arguments.to_vec();
        if !self.is_process_named(&arguments) {
            let called = &observables.process_name.as_ref()?.value;
            // The last part of a path is the kernel's process name. Agents of every version support
            // `name=`.
            let name = called.rsplit(['/', '\\']).next()?.trim();
            if name.is_empty() || name.chars().any(char::is_control) {
                return None;
            }
            arguments.push(format!("name={}", name.chars().take(MAX_NAME_CHARS).collect::<String>()));
        }
        Some(arguments)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::action::Catalogue;
    use crate::domain::alert::{Observable, Observables};

    #[test]
    fn a_process_name_comes_from_the_arguments_or_else_the_alert() {
        let kill = Catalogue::built_in().find("kill-process").unwrap();
        let named = |arguments: &[&str], called: Option<&str>| {
            let process_name = called.map(|value| Observable { value: value.into(), field: "f".into() });
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            kill.naming_process(&arguments, &Observables { process_name, ..Observables::default() })
        };
        let some = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&["name=nc"], Some("/usr/bin/vi")), some(&["name=nc"]));
        assert_eq!(named(&["path=/bin/nc"], None), some(&["path=/bin/nc"]));
        assert_eq!(named(&[], Some("/usr/bin/vi")), some(&["name=vi"]));
        assert_eq!(named(&[], Some("nc")), some(&["name=nc"]));
        for hostile in ["", "/", "a\nb", "/usr/bin/ "] {
            assert_eq!(named(&[], Some(hostile)), None, "{hostile:?}");
        }
        assert_eq!(named(&[], None), None);
        assert_eq!(named(&[], Some(&"x".repeat(99))).unwrap()[0].len(), "name=".len() + 64);
        let other = Catalogue::built_in().find("log-only").unwrap();
        assert_eq!(other.naming_process(&[], &Observables::default()), some(&[]));
    }
}
