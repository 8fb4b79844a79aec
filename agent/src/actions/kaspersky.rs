//! `kaspersky`: passes its arguments to `kesl-control` of Kaspersky Endpoint Security, for example
//! to start a scan. Each argument stays one argument.

use std::time::Duration;

use riposte_protocol::target::Target;

use super::recipe::{ByRecipe, Change, Recipe};
use super::{About, Form, Os, Parameter, Proof, Users};
use crate::platform;
use crate::runner::Program;

const CONTROL: &str = "/opt/kaspersky/kesl/bin/kesl-control";
/// Tasks are started, not waited for; but the answer can take long.
const TIMEOUT: Duration = Duration::from_mins(2);

pub(super) static KASPERSKY: ByRecipe = ByRecipe {
    about: About {
        name: "kaspersky",
        summary: "Runs kesl-control of Kaspersky Endpoint Security",
        targets: &[],
        networks: true,
        users: Users::Local,
        platforms: &[Os::Linux],
        windows: Proof::Argv,
        lock_domain: "kaspersky",
        undoable: false,
        looks: false,
        parameters: &[Parameter {
            form: Form::Text("ARGUMENT"),
            summary: "passed to `kesl-control`, such as `--start-task` `2`",
            required: true,
            repeated: true,
            check: |value| if value.is_empty() { Err("is empty".into()) } else { Ok(()) },
            ..Parameter::DEFAULT
        }],
        applied: "`/opt/kaspersky/kesl/bin/kesl-control ARGUMENT…`",
        verified: "by the exit status",
        undone: "nothing to undo",
        rights: "root",
    },
    programs: |_| &[CONTROL],
    needs: |_| platform::must_be_root(),
    recipe,
};

#[expect(clippy::unnecessary_wraps, reason = "the shape of every recipe")]
pub(super) fn recipe(_os: Os, _target: &Target, arguments: &[String]) -> Option<Recipe> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = Program::new(CONTROL, []).arguments(&words).timeout(TIMEOUT);
    Some(Recipe { apply: vec![Change::new(run)], ..Recipe::default() })
}
