//! `riposte policy apply` and `diff`: make the manager match the files. All files are checked
//! before any request. Each change states the version that it replaces, and none is retried.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::args::{Apply, Consent, Diff};
use super::files::{Documents, Held, Placed};
use super::plan::{Change, ItemKind, Plan, Prune, Step, Stored, many};
use crate::cli::client::{NO_BODY, Remote};
use crate::cli::output::{complain, say};
use crate::cli::reply::Reply;
use crate::cli::terminal::{Tone, can_ask, is_confirmed, needs_yes, plain, plain_lines, shade};
use crate::domain::formats::AlertMappings;
use crate::views::actions::ActionView;
use crate::views::policies::PolicyView;
use crate::views::protected::CreatedProtected;

/// Exit code of wrong usage.
pub(super) const WRONG: u8 = 2;

/// `riposte policy apply`
pub(super) async fn apply(args: Apply) -> anyhow::Result<ExitCode> {
    let Apply { remote, files, site, consent, prune, prune_protected } = args;
    // Report faults in files first; an error about a missing --yes would hide them.
    let Some(documents) = documents(&files.paths) else { return Ok(ExitCode::from(WRONG)) };
    if !consent.dry_run && !consent.yes && !can_ask() {
        return Ok(needs_yes("policy apply"));
    }
    let prune = Prune { policies: prune, protected: prune_protected };
    let Some((held, stored)) = checked(documents, &remote, &site.mappings()?).await? else {
        return Ok(ExitCode::from(WRONG));
    };
    carry_over(&remote, &held, &stored, Some(prune), consent).await
}

/// Shows the changes that make the manager match `held`, asks, and applies them. Without `prune`
/// nothing is deleted: the command has no flag for it.
pub(super) async fn carry_over(
    remote: &Remote,
    held: &Held,
    stored: &Stored,
    prune: Option<Prune>,
    consent: Consent,
) -> anyhow::Result<ExitCode> {
    let plan = Plan::between(held, stored, prune.unwrap_or_default())?;
    plan.show(prune.is_some())?;
    carry_out_all(remote, held, stored, &plan, consent).await
}

/// Asks, and applies a plan that was shown.
pub(super) async fn carry_out_all(
    remote: &Remote,
    held: &Held,
    stored: &Stored,
    plan: &Plan,
    consent: Consent,
) -> anyhow::Result<ExitCode> {
    for warning in stored.warnings(held) {
        complain(&plain(&warning));
    }
    if !plan.steps.is_empty() {
        lifts(remote, plan).await?;
    }
    say(&plan.summary());
    if plan.steps.is_empty() || consent.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !consent.yes && !is_confirmed(&format!("Apply {}?", many(plan.steps.len(), "change"))) {
        complain("riposte: nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let mut refused = 0;
    for (done, step) in plan.steps.iter().enumerate() {
        let outcome = carry_out(remote, step).await;
        let outcome = outcome.with_context(|| {
            let rest = plan.steps.len() - done;
            format!("{}: whether it was changed is not known; {} not made", step.subject(), many(rest, "change"))
        })?;
        match outcome {
            Ok(line) => shade(Tone::Good, &line),
            Err(line) => {
                refused += 1;
                complain(&plain_lines(&format!("riposte: {line}")));
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

/// Shows what new protected entries would lift. Skipped for a caller without the right to change
/// entries, because the dry run needs the same right.
async fn lifts(remote: &Remote, plan: &Plan) -> anyhow::Result<()> {
    let protected = plan.steps.iter().filter(|step| step.kind == ItemKind::Protected);
    for step in protected {
        let Some(document) = &step.document else { continue };
        let path = "/v1/protected?dry_run=true";
        let answer = remote.send(Method::POST, path, None, Some(&document.content)).await?;
        if answer.status == StatusCode::FORBIDDEN {
            return Ok(());
        }
        let view: CreatedProtected = answer.done().with_context(|| step.placed())?;
        if !view.lifts.is_empty() {
            let lifts = many(view.lifts.len(), "block in force against it");
            complain(&format!("{}: lifts {lifts} at once", step.subject()));
        }
    }
    Ok(())
}

/// `riposte policy diff`: exit codes as `diff(1)`, 0 without differences, 1 with, 2 on errors.
pub(super) async fn diff(args: Diff) -> anyhow::Result<ExitCode> {
    match difference(args).await {
        Ok(Some(plan)) => {
            plan.show(false)?;
            Ok(if plan.steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ok(None) => Ok(ExitCode::from(WRONG)),
        Err(error) => {
            complain(&plain_lines(&format!("riposte: {error:#}")));
            Ok(ExitCode::from(WRONG))
        }
    }
}

async fn difference(args: Diff) -> anyhow::Result<Option<Plan>> {
    let Diff { remote, files, site } = args;
    let Some(documents) = documents(&files.paths) else { return Ok(None) };
    let Some((held, stored)) = checked(documents, &remote, &site.mappings()?).await? else { return Ok(None) };
    Ok(Some(Plan::between(&held, &stored, Prune::default())?))
}

/// The documents in the files and the manager's state; `None` if documents have faults, which are
/// printed.
pub(super) async fn checked(
    documents: Documents,
    remote: &Remote,
    mappings: &AlertMappings,
) -> anyhow::Result<Option<(Held, Stored)>> {
    let stored = Stored::ask(remote).await?;
    match documents.check(&stored.known(), mappings) {
        Ok(held) => Ok(Some((held, stored))),
        Err(faults) => {
            tell(&faults);
            Ok(None)
        }
    }
}

/// The documents in `paths`. No document is wrong usage: with `--prune` it would empty the manager.
pub(super) fn documents(paths: &[std::path::PathBuf]) -> Option<Documents> {
    let documents = Documents::read(paths);
    if documents.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        complain(&format!("riposte: no policy, action or protected entry in {}", paths.join(", ")));
        return None;
    }
    if let Some(faults) = documents.unread() {
        tell(&faults);
        return None;
    }
    Some(documents)
}

/// Prints every fault; no request is sent then.
pub(super) fn tell(faults: &[Placed]) {
    for line in faults.iter().flat_map(|fault| fault.to_string().lines().map(plain).collect::<Vec<_>>()) {
        complain(&line);
    }
    complain(&format!("riposte: {}; nothing was sent", many(faults.len(), "fault")));
}

/// Applies one change: returns what was done, or the manager's refusal.
async fn carry_out(remote: &Remote, step: &Step) -> anyhow::Result<Result<String, String>> {
    let (collection, subject) = (step.kind.path(), step.subject());
    let one = format!("{collection}/{}", step.name);
    let body = step.document.as_ref().map(|document| &document.content);
    let (answer, done) = match &step.change {
        Change::Create => (remote.send(Method::POST, collection, None, body).await?, "created"),
        Change::Replace(version) => (remote.send(Method::PUT, &one, Some(*version), body).await?, "changed"),
        Change::Delete(version) => (remote.send(Method::DELETE, &one, Some(*version), NO_BODY).await?, "deleted"),
        Change::Renew(id) => (renew(remote, id, body).await?, "changed"),
        Change::Remove(id) => (remove(remote, id).await?, "deleted"),
    };
    let is_lost = match step.change {
        Change::Create => answer.status == StatusCode::CONFLICT,
        Change::Replace(_) | Change::Delete(_) => {
            matches!(answer.status, StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND)
        }
        Change::Renew(_) | Change::Remove(_) => answer.status == StatusCode::NOT_FOUND,
    };
    if is_lost {
        let told = "another change came first, and was not overwritten. Look with `riposte policy diff`";
        return Ok(Err(format!("{}: {told}", step.placed())));
    }
    if let Some(why) = answer.refused() {
        return Ok(Err(format!("{}: {why}", step.placed())));
    }
    let version = stored_version(step, answer)?.map_or_else(String::new, |version| format!(", version {version}"));
    Ok(Ok(format!("{subject}: {done}{version}")))
}

/// The version that a change made, if it is of an object with versions.
fn stored_version(step: &Step, answer: Reply) -> anyhow::Result<Option<i64>> {
    match (&step.change, step.kind) {
        (Change::Create | Change::Replace(_), ItemKind::Policy) => Ok(Some(answer.done::<PolicyView>()?.version)),
        (Change::Create | Change::Replace(_), ItemKind::Action) => Ok(answer.done::<ActionView>()?.version),
        _ => Ok(None),
    }
}

/// Creates the new entry first, so that the target stays protected.
async fn renew(remote: &Remote, id: &str, body: Option<&impl Serialize>) -> anyhow::Result<Reply> {
    let made = remote.send(Method::POST, ItemKind::Protected.path(), None, body).await?;
    if !made.status.is_success() {
        return Ok(made);
    }
    remove(remote, id).await
}

async fn remove(remote: &Remote, id: &str) -> anyhow::Result<Reply> {
    remote.send(Method::DELETE, &format!("{}/{id}", ItemKind::Protected.path()), None, NO_BODY).await
}
