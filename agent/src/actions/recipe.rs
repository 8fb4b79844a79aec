//! Actions that consist of running a system's tool, as data: the programs that bring an effect into
//! force and lift it, and how their answers are read. A recipe is a pure function of the system and
//! the target. So the recipe of every system is tested on every system; see `golden.txt`.

use riposte_protocol::command::Op;
use riposte_protocol::target::Target;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::failure;
use super::{About, Action, ActionError, Attempt, Host, Os, Step};
use crate::runner::Program;

/// One action on one system for one target.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    /// Conditions before anything is tried, each with the error if it does not hold.
    pub(super) needs: Vec<(Check, &'static str)>,
    /// Programs that bring the effect into force.
    pub(super) apply: Vec<Change>,
    /// Programs that lift it.
    pub(super) revert: Vec<Change>,
    /// Checks that must all succeed for the effect to be in force.
    pub(super) shows: Vec<Check>,
    /// How many of them, beyond the first, are parts of the effect itself: it is lifted when none
    /// of its parts is there. The others are prerequisites of the parts.
    pub(super) more_parts: usize,
    /// Whether its name or place marks the effect as the agent's own.
    pub(super) is_marked: bool,
    /// The argument that notes the effect in what brings it into force, for the administrator who
    /// finds it there.
    pub(super) note: Option<fn(Uuid) -> String>,
}

/// A program that changes something.
#[derive(Debug)]
pub(super) struct Change {
    program: Program,
    unless: Option<Check>,
    may_fail: bool,
}

impl Change {
    pub(super) fn new(program: Program) -> Self {
        Self { program, unless: None, may_fail: false }
    }

    /// Runs only if this check fails.
    pub(super) fn unless(mut self, check: Check) -> Self {
        self.unless = Some(check);
        self
    }

    /// Its failure is ignored: it is optional, or was done before.
    pub(super) fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }
}

/// A program that only looks, and how its answer is read.
#[derive(Clone, Debug)]
pub(super) struct Check {
    program: Program,
    yes: Yes,
    /// The exit code that means "no"; every other failure is an error, never an answer.
    no: Option<i32>,
}

#[derive(Clone, Debug)]
enum Yes {
    /// It exits with 0.
    Success,
    /// It prints all of these.
    Prints(Vec<String>),
    /// It does not print this, or ends with the code of what is not there.
    Lacks(String, i32),
}

impl Check {
    /// Exit code 0 means yes, `no` means no.
    pub(super) fn exit(program: Program, no: i32) -> Self {
        Self { program, yes: Yes::Success, no: Some(no) }
    }

    /// Printing all of `texts` means yes.
    pub(super) fn prints<const N: usize>(program: Program, texts: [&str; N]) -> Self {
        Self { program, yes: Yes::Prints(texts.map(str::to_owned).to_vec()), no: None }
    }

    /// Not printing `text` means yes, and so does exit code `missing`: what it asks for is not there.
    pub(super) fn lacks(program: Program, text: &str, missing: i32) -> Self {
        Self { program, yes: Yes::Lacks(text.to_owned(), missing), no: None }
    }

    /// Exit code `code` means no.
    pub(super) fn or_exit(mut self, code: i32) -> Self {
        self.no = Some(code);
        self
    }

    /// Whether all of `checks` say yes.
    pub(super) async fn all(checks: &[Self], attempt: &Attempt<'_>) -> Result<bool, ActionError> {
        for check in checks {
            if !check.shows(attempt).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn shows(&self, attempt: &Attempt<'_>) -> Result<bool, ActionError> {
        let exit = attempt.look(&self.program).await?;
        if self.no == Some(exit.code) {
            return Ok(false);
        }
        if matches!(&self.yes, Yes::Lacks(_, missing) if *missing == exit.code) {
            return Ok(true);
        }
        if !exit.is_success() {
            return Err(failure(&self.program, &exit));
        }
        Ok(match &self.yes {
            Yes::Lacks(text, _) => !holds_word(&exit.stdout, text),
            Yes::Success => true,
            Yes::Prints(texts) => texts.iter().all(|text| holds_word(&exit.stdout, text)),
        })
    }

    /// The check as written in `golden.txt`.
    #[cfg(test)]
    fn text(&self) -> String {
        let yes = match &self.yes {
            Yes::Success => "ends with 0".into(),
            Yes::Prints(texts) => format!("prints {texts:?}"),
            Yes::Lacks(text, missing) => format!("does not print {text:?}, or ends with {missing}"),
        };
        let no = self.no.map(|code| format!(", no: ends with {code}")).unwrap_or_default();
        format!("{} → yes: {yes}{no}", self.program.text())
    }
}

/// Whether `text` is a whole word of `output`: 203.0.113.1 is not in 203.0.113.10, nor in
/// 1203.0.113.1.
fn holds_word(output: &str, text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == ':' || c == '/';
    output.match_indices(text).any(|(at, _)| {
        let before = output[..at].chars().next_back();
        let after = output[at + text.len()..].chars().next();
        let starts = text.starts_with(|c| !inner(c)) || !before.is_some_and(inner);
        starts && (text.ends_with(|c| !inner(c)) || !after.is_some_and(inner))
    })
}

impl Recipe {
    /// The programs of `op`, for people.
    pub(super) fn plan(&self, op: Op) -> String {
        let changes = if op == Op::Apply { &self.apply } else { &self.revert };
        changes.iter().map(|change| change.program.text()).collect::<Vec<_>>().join("; ")
    }

    /// The whole recipe, one line each, for `golden.txt`.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        let noted = self.note.map(|note| format!("  note   {}", note(Uuid::nil())));
        lines.extend(self.needs.iter().map(|(check, _)| format!("  needs  {}", check.text())));
        for (word, changes) in [("apply", &self.apply), ("revert", &self.revert)] {
            for change in changes {
                let unless =
                    change.unless.as_ref().map(|check| format!("  unless {}", check.text())).unwrap_or_default();
                let may_fail = if change.may_fail { "  (may fail)" } else { "" };
                lines.push(format!("  {word:<6} {}{may_fail}{unless}", change.program.text().replace('\n', "\\n")));
            }
        }
        lines.extend(self.shows.iter().map(|check| format!("  shows  {}", check.text())));
        lines.extend(noted);
        lines.join("\n")
    }

    /// Returns whether the state was in force before. Then it belongs to another program, and
    /// stays.
    pub(super) async fn prepare(&self, attempt: &Attempt<'_>) -> Result<Value, ActionError> {
        Ok(json!({ "was_so": self.is_there(attempt).await? }))
    }

    pub(super) async fn apply(&self, attempt: &Attempt<'_>) -> Result<(), ActionError> {
        for (need, complaint) in &self.needs {
            if !need.shows(attempt).await? {
                return Err(ActionError::Failed((*complaint).into()));
            }
        }
        if !self.shows.is_empty() && self.is_in_force(attempt).await? {
            return Ok(());
        }
        self.change(attempt).await
    }

    /// Brings the effect into force, even if it is already.
    pub(super) async fn change(&self, attempt: &Attempt<'_>) -> Result<(), ActionError> {
        let note = self.note.map(|note| note(attempt.effect));
        run(&self.apply, note.as_deref(), attempt).await
    }

    pub(super) async fn is_in_force(&self, attempt: &Attempt<'_>) -> Result<bool, ActionError> {
        Check::all(&self.shows, attempt).await
    }

    pub(super) async fn revert(&self, attempt: &Attempt<'_>) -> Result<(), ActionError> {
        if !self.belongs_to_another(attempt) && self.is_there(attempt).await? {
            run(&self.revert, None, attempt).await?;
        }
        Ok(())
    }

    pub(super) async fn is_lifted(&self, attempt: &Attempt<'_>) -> Result<bool, ActionError> {
        // Without a journal entry, any such state may be the effect's.
        let is_known = attempt.undo.is_some() && self.belongs_to_another(attempt);
        Ok(is_known || !self.is_there(attempt).await?)
    }

    async fn is_there(&self, attempt: &Attempt<'_>) -> Result<bool, ActionError> {
        for part in self.shows.iter().take(1 + self.more_parts) {
            if part.shows(attempt).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn belongs_to_another(&self, attempt: &Attempt<'_>) -> bool {
        if self.is_marked {
            return false;
        }
        // Without a record of the state before, nothing is known to be ours.
        attempt.undo.is_none_or(|undo| undo["was_so"] != false)
    }
}

async fn run(changes: &[Change], note: Option<&str>, attempt: &Attempt<'_>) -> Result<(), ActionError> {
    for change in changes {
        if let Some(unless) = &change.unless
            && unless.shows(attempt).await?
        {
            continue;
        }
        let program = change.program.clone().arguments(note.as_slice());
        if change.may_fail {
            attempt.look(&program).await?;
        } else {
            attempt.run(&program).await?;
        }
    }
    Ok(())
}

/// An action that is a recipe on every system.
#[derive(Debug)]
pub(super) struct ByRecipe {
    pub(super) about: About,
    /// The programs that must be installed.
    pub(super) programs: fn(Os) -> &'static [&'static str],
    /// Other prerequisites, such as a right or a daemon; checked after the programs.
    pub(super) needs: fn(&Host) -> Result<(), String>,
    /// The recipe; `None` if the action does not support this target there.
    pub(super) recipe: fn(Os, &Target, &[String]) -> Option<Recipe>,
}

impl ByRecipe {
    fn of(&self, attempt: &Attempt<'_>) -> Result<Recipe, ActionError> {
        (self.recipe)(attempt.host.os, attempt.target, attempt.arguments).ok_or_else(|| unsuited(&self.about, attempt))
    }
}

/// The error for a target that the system's tool does not support.
pub(super) fn unsuited(about: &About, attempt: &Attempt<'_>) -> ActionError {
    let os = attempt.host.os.as_str();
    ActionError::Refused(format!("{} cannot be aimed at {} on {os}", about.name, attempt.target))
}

impl Action for ByRecipe {
    fn about(&self) -> &About {
        &self.about
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        host.has_programs((self.programs)(host.os))?;
        (self.needs)(host)
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        self.of(attempt).map_or_else(|error| error.to_string(), |recipe| recipe.plan(op))
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { self.of(attempt)?.prepare(attempt).await })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async { self.of(attempt)?.apply(attempt).await })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { self.of(attempt)?.is_in_force(attempt).await })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async { self.of(attempt)?.revert(attempt).await })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { self.of(attempt)?.is_lifted(attempt).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_found_inside_another() {
        assert!(holds_word("a 203.0.113.1/32 b", "203.0.113.1/32"));
        assert!(holds_word("203.0.113.1", "203.0.113.1"));
        assert!(holds_word("destination: 203.0.113.1\nflags: <UP,BLACKHOLE>", "BLACKHOLE"));
        assert!(holds_word("user:*LOCKED*$6$x:1001", "*LOCKED*"));
        for output in ["203.0.113.10", "1203.0.113.1", "203.0.113.1/24", "203.0.113.1.5", ""] {
            assert!(!holds_word(output, "203.0.113.1"), "{output}");
        }
    }
}
