//! The part of `SECURITY.md` between its two markers is generated: what an agent can be made to do,
//! what undoes it, and what the host forbids. This test compares the two, and rewrites that part with
//! `UPDATE=1`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use riposte_protocol::message::MAX_OUTPUT_BYTES;

use super::docs_tests::{platforms, targets};
use super::quarantine_file::{NOT_SYSTEM, SYSTEM, SYSTEM_FILES};
use super::{ALL, About};
use crate::local_policy::{KEYS, LONGEST_STEP_SECONDS, LocalPolicy, PROTECTED_KEYS, paths};

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

const HEAD: &str = "\
_This part is generated from the agent's code
(`UPDATE=1 cargo test -p riposte-agent --lib security`)._

### It may

run these built-in actions, and custom programs. [docs/actions.md](docs/actions.md) says how each
works and how it is verified.

| action | what it does | platforms | target | arguments | undone by |
|---|---|---|---|---|---|
";

/// What an action takes beside its target.
fn arguments(about: &About) -> String {
    let argument = |it: &super::Parameter| {
        let form = it.form.text().replace('|', "\\|");
        if it.required { format!("`{form}`, required") } else { format!("`{form}`") }
    };
    let all: Vec<_> = about.parameters.iter().map(argument).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

fn code(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    words.into_iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// An item of a list, wrapped at 100 columns.
fn item(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), "-".to_owned());
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            lines.extend([line.as_str(), "\n"]);
            line = " ".into();
        }
        line.extend([" ", word]);
    }
    lines + &line + "\n"
}

/// What a key of the local policy restricts, with its default. `None` for a key that this list does
/// not know yet.
fn restricts(key: &str, default: &LocalPolicy) -> Option<String> {
    Some(match key {
        "allowed_actions" => match &default.allowed_actions {
            None => "the only actions and programs that run. Default: all".into(),
            Some(allowed) => format!("the only actions and programs that run. Default: {allowed:?}"),
        },
        "denied_actions" => "actions and programs that do not run, even if allowed. Default: none".into(),
        "protected" => format!("targets that are never touched, by {}. Default: none", code(PROTECTED_KEYS)),
        "observe" => format!("bring nothing into force. Default: `{}`", default.observe),
        "max_output_bytes" => format!("how much output of programs it reports: at most {MAX_OUTPUT_BYTES} bytes"),
        "timeout_seconds" => format!(
            "how long one step of an action runs. Default: {}, at most {LONGEST_STEP_SECONDS}",
            default.timeout.as_secs()
        ),
        "script_timeout_seconds" => {
            format!("how long a custom program runs. Default: {}", default.script_timeout.as_secs())
        }
        "quarantine_max_file_bytes" => {
            format!("the largest file that is moved away. Default: {}", default.quarantine.max_file_bytes)
        }
        "quarantine_min_free_bytes" => {
            format!("the space that a copy leaves free. Default: {}", default.quarantine.min_free_bytes)
        }
        "scripts_dir" => format!("the folder of custom programs. Default: `{}`", default.scripts_dir.display()),
        "drift" => "whether it applies an effect again that another program removed. Default: it does".into(),
        "verify_every" => format!("how often it looks at its effects. Default: {} s", default.verify_every.as_secs()),
        "responses_log" => {
            let path = default.responses_log.as_deref().unwrap_or(Path::new("none"));
            format!("the file in which it logs what it did. Default: `{}`", path.display())
        }
        _ => return None,
    })
}

fn part() -> String {
    let mut part = HEAD.to_owned();
    for about in ALL.iter().map(|action| action.about()) {
        let (undone, name) = (if about.undoable { about.undone } else { "cannot be undone" }, about.name);
        let (platforms, targets, arguments) = (platforms(about), targets(about), arguments(about));
        let row = format!("| `{name}` | {} | {platforms} | {targets} | {arguments} | {undone} |", about.summary);
        part.extend([row.as_str(), "\n"]);
    }
    let default = LocalPolicy::default();
    let _infallible = write!(
        part,
        "| custom program | Runs a plain file of the host's own folder `{}` that only root and the agent's account can \
         change | all | as the action declares | as the action declares; each one text, read by no shell | \
         the same program with `delete` or `disable`, if the action is undoable |\n\n",
        default.scripts_dir.display()
    );
    part += "### It may not\n\n";
    part += "- run any other program, take a program or a path of one from the manager, or open a shell;\n";
    part += "- send the contents of a file. What it sends is [evidence](docs/actions.md#evidence), and the output\n";
    let _infallible = writeln!(part, "  of programs, at most {MAX_OUTPUT_BYTES} bytes;");
    part += "- act where the host's local policy forbids it. No manager sees or changes that file:\n\n";
    part += "| key of the local policy | what the host decides |\n|---|---|\n";
    for key in KEYS {
        let text = restricts(key, &default);
        assert!(text.is_some(), "say in this test what the key {key} of the local policy restricts");
        let _infallible = writeln!(part, "| `{key}` | {} |", text.unwrap_or_default());
    }
    let paths: Vec<PathBuf> = paths().collect();
    let (own, others): (Vec<_>, Vec<_>) =
        paths.iter().map(|path| path.to_string_lossy()).partition(|path| path.contains("riposte"));
    assert!(!own.is_empty(), "Riposte's own files are protected by default");
    part += "\n";
    let by_default = format!(
        "touch these by a new effect, unless the host names them in `protected.exempt`: {}; and the programs, units, \
         configuration and state of Riposte;",
        code(others)
    );
    let needed = format!(
        "quarantine what the system needs, exempted or not: {} and what is below them (but not below `{NOT_SYSTEM}`); {}.",
        code(SYSTEM),
        code(SYSTEM_FILES)
    );
    part += &item(&by_default);
    part += &item(&needed);
    part += "\n";
    part
}

#[test]
fn the_list_in_security_md_matches_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the first marker");
    let (_, after) = rest.split_once(END).expect("the second marker");
    let wanted = format!("{before}{BEGIN}\n{}{END}{after}", part());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(page == wanted, "SECURITY.md is out of date: run this test with UPDATE=1");
}
