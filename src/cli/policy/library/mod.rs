//! `riposte policy library …`: ready-made policies for frequent rules of Wazuh. `catalogue.rs` holds
//! them. `add` goes the way of `apply`; a policy that a site has changed is never replaced without
//! a flag that says so.

mod catalogue;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::apply::{WRONG, carry_out_all, tell};
use super::args::{LibraryAdd, LibraryList, LibraryShow};
use super::files::Documents;
use super::plan::{Plan, Prune, Stored, lines, many};
use super::{new_files, yaml};
use crate::cli::output::{complain, say};
use crate::cli::terminal::{can_ask, needs_yes, plain, shade, table};
use crate::domain::alert::TargetField;
use crate::domain::formats::AlertMappings;
use crate::domain::policy::{Mode, Policy};
use catalogue::{LibraryPolicy, WITHOUT};

/// Subcommands of `riposte policy library`.
#[derive(Debug, Subcommand)]
pub enum LibraryCommand {
    /// List the policies of the library, or the frequent rules that have no safe response.
    List(LibraryList),
    /// Print a policy of the library as YAML, with what to expect of it and what can go wrong.
    Show(LibraryShow),
    /// Add policies of the library to a manager: shows the difference, asks, applies.
    Add(Box<LibraryAdd>),
}

/// Runs a subcommand.
///
/// # Errors
/// If the manager cannot be reached, or refuses.
pub(super) async fn run(command: LibraryCommand) -> anyhow::Result<ExitCode> {
    match command {
        LibraryCommand::List(args) => list(&args),
        LibraryCommand::Show(args) => show(&args),
        LibraryCommand::Add(args) => add(*args).await,
    }
}

/// A policy of the library, as `list` prints it.
#[derive(Serialize)]
struct LibraryRow<'a> {
    name: &'a str,
    rules: Vec<String>,
    action: &'a str,
    target: &'a str,
    #[serde(rename = "for")]
    duration: String,
    summary: &'a str,
}

impl<'a> LibraryRow<'a> {
    fn of(one: &'a LibraryPolicy) -> Self {
        let respond = &one.policy.respond;
        Self {
            name: one.name,
            rules: one.rules(),
            action: &respond.action,
            target: respond.target.map_or("none", TargetField::as_str),
            duration: respond.duration.map_or_else(|| "until lifted".to_owned(), |span| span.to_string()),
            summary: one.summary(),
        }
    }
}

/// `riposte policy library list`
fn list(args: &LibraryList) -> anyhow::Result<ExitCode> {
    if args.without {
        return without(args.json);
    }
    let all = catalogue::all()?;
    let rows: Vec<LibraryRow> = all.iter().map(LibraryRow::of).collect();
    if args.json {
        for row in rows {
            say(&serde_json::to_string(&row)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cells = |row: &LibraryRow| {
        let LibraryRow { name, rules, action, target, duration, summary } = row;
        [name, rules.join(" ").as_str(), action, target, duration.as_str(), summary].map(str::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table(&["name", "rules", "action", "target", "for", "summary"], &rows);
    let rules: usize = WITHOUT.iter().map(|entry| entry.rules.len()).sum();
    say(&format!("{rules} frequent rules have no safe response: riposte policy library list --without"));
    Ok(ExitCode::SUCCESS)
}

fn without(json: bool) -> anyhow::Result<ExitCode> {
    if json {
        for entry in WITHOUT {
            say(&serde_json::to_string(&entry)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cells = |entry: &catalogue::WithoutResponse| {
        [entry.rules.join(" ").as_str(), entry.what, entry.why].map(str::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = WITHOUT.iter().map(cells).collect();
    table(&["rules", "what", "why there is no policy"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// `riposte policy library show`
fn show(args: &LibraryShow) -> anyhow::Result<ExitCode> {
    let one = match catalogue::find(&args.name) {
        Ok(one) => one,
        Err(why) => return Ok(wrong(&why)),
    };
    if args.json {
        say(&serde_json::to_string(&one.policy)?);
    } else {
        say(one.text.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn wrong(why: &str) -> ExitCode {
    complain(&plain(&format!("riposte: {why}")));
    ExitCode::from(WRONG)
}

/// `riposte policy library add`
async fn add(args: LibraryAdd) -> anyhow::Result<ExitCode> {
    let LibraryAdd { remote, names, all, consent, mode, overwrite, to } = args;
    let chosen = match chosen(&names, all)? {
        Ok(chosen) => chosen,
        Err(why) => return Ok(wrong(&why)),
    };
    let mode = mode.map(super::args::ModeFlag::mode);
    if let Some(folder) = to {
        return write(&folder, chosen, mode);
    }
    if !consent.dry_run && !consent.yes && !can_ask() {
        return Ok(needs_yes("policy library add"));
    }
    let stored = Stored::ask(&remote).await?;
    let (mut documents, mut kept) = (Vec::new(), 0);
    for one in chosen {
        let held = stored.policy(&one.name);
        let wanted = Moded::of(&one, held, mode)?;
        if let Some(held) = held.filter(|held| !overwrite && wanted.is_other(held)) {
            kept += 1;
            complain(&format!(
                "riposte: {} is on the manager and differs from the library; it was left as it is. To replace it, add \
                 --overwrite:",
                one.name
            ));
            for (tone, line) in lines(held, &wanted.document()?)? {
                shade(tone, &format!("    {line}"));
            }
            continue;
        }
        documents.push((format!("policy {}", one.name), wanted.document()?));
    }
    let as_kept = if kept == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if documents.is_empty() {
        return Ok(as_kept);
    }
    let held = match Documents::of(documents.into_iter()).check(&stored.known(), &AlertMappings::default()) {
        Ok(held) => held,
        Err(faults) => {
            tell(&faults);
            return Ok(ExitCode::FAILURE);
        }
    };
    let plan = Plan::between(&held, &stored, Prune::default())?.of_a_choice();
    plan.show(false)?;
    let done = carry_out_all(&remote, &held, &stored, &plan, consent).await?;
    Ok(if kept == 0 { done } else { as_kept })
}

/// The policies of these names, each once, or why there is none.
fn chosen(names: &[String], all: bool) -> anyhow::Result<Result<Vec<Policy>, String>> {
    if all {
        return Ok(Ok(catalogue::all()?.into_iter().map(|one| one.policy).collect()));
    }
    let mut chosen: Vec<Policy> = Vec::new();
    for name in names {
        match catalogue::find(name) {
            Ok(one) if chosen.iter().any(|known| known.name == one.name) => {}
            Ok(one) => chosen.push(one.policy),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(chosen))
}

/// A policy's document, apart from its mode: that is the site's own choice.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Moded {
    mode: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Moded {
    /// The document to have: in the given mode, else in that of the manager, else in the library's.
    fn of(one: &Policy, held: Option<&Value>, mode: Option<Mode>) -> anyhow::Result<Self> {
        let mut wanted: Self = serde_json::from_value(serde_json::to_value(one)?)?;
        let on_manager = held.and_then(|held| Self::deserialize(held).ok()).map(|held| held.mode);
        if let Some(mode) = mode.map(|mode| mode.as_str().to_owned()).or(on_manager) {
            wanted.mode = mode;
        }
        Ok(wanted)
    }

    fn document(&self) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// Whether the manager's policy differs in more than its mode.
    fn is_other(&self, held: &Value) -> bool {
        Self::deserialize(held).ok().is_none_or(|held| held.rest != self.rest)
    }
}

/// Writes a file for each policy, as it is in the repository unless another mode is wanted.
fn write(folder: &Path, chosen: Vec<Policy>, mode: Option<Mode>) -> anyhow::Result<ExitCode> {
    let mut files = Vec::with_capacity(chosen.len());
    for one in chosen {
        let text = match mode.filter(|mode| *mode != one.mode) {
            Some(mode) => yaml::write(&serde_json::to_value(Policy { mode, ..one.clone() })?)?,
            None => catalogue::find(&one.name).map_err(anyhow::Error::msg)?.text.to_owned(),
        };
        files.push((folder.join(format!("{}.yaml", one.name)), text));
    }
    let (written, kept) = new_files::write(files)?;
    let kept = if kept == 0 { String::new() } else { format!(", {} there already and unchanged", many(kept, "file")) };
    let place = folder.display();
    say(&format!("{} written{kept}; look at them, then: riposte policy apply -f {place}", many(written, "file")));
    Ok(ExitCode::SUCCESS)
}
