//! `riposte policy apply` and `diff`: files are what counts, and the manager is made like them. Everything is checked
//! before anything is sent; each change names the version it was seen at, and none is tried twice.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::files::{Documents, Held, Placed};
use super::plan::{Change, Plan, Step, Stored, many};
use super::{Apply, Diff, Files, Site};
use crate::cli::client::Remote;
use crate::cli::terminal::{Tone, can_ask, is_confirmed, needs_yes, plain, shade};
use crate::cli::{complain, say};

/// The question was wrong.
pub(super) const WRONG: u8 = 2;

/// `riposte policy apply`
pub(super) async fn apply(args: Apply) -> anyhow::Result<ExitCode> {
    let Apply { remote, files, site, dry_run, prune, yes } = args;
    if !dry_run && !yes && !can_ask() {
        return Ok(needs_yes("policy apply"));
    }
    let Some((held, plan)) = planned(&remote, &files, &site, prune).await? else { return Ok(ExitCode::from(WRONG)) };
    plan.show()?;
    warn(&held);
    say(&plan.summary());
    if plan.steps.is_empty() || dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !is_confirmed(&format!("Apply {}?", many(plan.steps.len(), "change"))) {
        complain("riposte: nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let mut refused = 0;
    for (done, step) in plan.steps.iter().enumerate() {
        let outcome = carry_out(&remote, step).await;
        let outcome = outcome.with_context(|| {
            let rest = plan.steps.len() - done;
            format!("{}: whether it was changed is not known; {} not made", step.subject(), many(rest, "change"))
        })?;
        match outcome {
            Ok(line) => shade(Tone::Good, &line),
            Err(line) => {
                refused += 1;
                complain(&format!("riposte: {line}"));
            }
        }
    }
    if refused == 0 {
        say(&format!("{} applied", many(plan.steps.len(), "change")));
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("riposte: {} of {} not applied", refused, many(plan.steps.len(), "change")));
    Ok(ExitCode::FAILURE)
}

/// `riposte policy diff`: as `diff(1)`, 0 is no difference, 1 is one, 2 is trouble.
pub(super) async fn diff(args: Diff) -> anyhow::Result<ExitCode> {
    let Diff { remote, files, site } = args;
    match planned(&remote, &files, &site, false).await {
        Ok(Some((_, plan))) => {
            plan.show()?;
            Ok(if plan.steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ok(None) => Ok(ExitCode::from(WRONG)),
        Err(error) => {
            complain(&format!("riposte: {error:#}"));
            Ok(ExitCode::from(WRONG))
        }
    }
}

/// What the files hold and what would be done, or nothing if the files are wrong: then that has been said.
async fn planned(remote: &Remote, files: &Files, site: &Site, prune: bool) -> anyhow::Result<Option<(Held, Plan)>> {
    let Some(documents) = documents(&files.paths) else { return Ok(None) };
    let sources = site.sources()?;
    let stored = Stored::ask(remote).await?;
    match documents.check(&stored.known_actions(), &sources) {
        Ok(held) => {
            let plan = Plan::between(&held, &stored, prune)?;
            Ok(Some((held, plan)))
        }
        Err(faults) => {
            tell(&faults);
            Ok(None)
        }
    }
}

/// The documents of `paths`. No document at all is a wrong question: with `--prune` it would empty the manager.
pub(super) fn documents(paths: &[std::path::PathBuf]) -> Option<Documents> {
    let documents = Documents::read(paths);
    if documents.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        complain(&format!("riposte: no policy and no action in {}", paths.join(", ")));
        return None;
    }
    Some(documents)
}

/// Tells every fault; nothing is sent then.
pub(super) fn tell(faults: &[Placed]) {
    for line in faults.iter().flat_map(|fault| fault.to_string().lines().map(plain).collect::<Vec<_>>()) {
        complain(&line);
    }
    complain(&format!("riposte: {}; nothing was sent", many(faults.len(), "fault")));
}

fn warn(held: &Held) {
    for entry in &held.policies {
        for warning in entry.read.warnings() {
            complain(&format!("{} {}: warning: {}", entry.document.place, warning.pointer, warning.detail));
        }
    }
}

/// Makes one change: what was done, or why the manager did not.
async fn carry_out(remote: &Remote, step: &Step) -> anyhow::Result<Result<String, String>> {
    let (collection, subject) = (step.kind.path(), step.subject());
    let one = format!("{collection}/{}", step.name);
    let body = step.document.as_ref().map(|document| document.content.clone());
    let (answer, done) = match step.change {
        Change::Create => (remote.send(Method::POST, collection, None, body).await?, "created"),
        Change::Replace(version) => (remote.send(Method::PUT, &one, Some(version), body).await?, "changed"),
        Change::Delete(version) => (remote.send(Method::DELETE, &one, Some(version), None).await?, "deleted"),
    };
    let is_lost = match step.change {
        Change::Create => answer.status == StatusCode::CONFLICT,
        Change::Replace(_) | Change::Delete(_) => {
            matches!(answer.status, StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND)
        }
    };
    if is_lost {
        let told = "somebody changed it in the meantime, and that was not overwritten. Look with `riposte policy diff`";
        return Ok(Err(format!("{}: {told}", step.placed())));
    }
    Ok(match answer.done() {
        Ok(Value::Null) => Ok(format!("{subject}: {done}")),
        Ok(view) => Ok(format!("{subject}: {done}, version {}", view["version"])),
        Err(error) => Err(format!("{}: {error:#}", step.placed())),
    })
}
