//! `disable-account`: a local account cannot log in, by password or by key. Reverting restores
//! exactly the state before.
//!
//! The password is locked *and* the account is expired, because a locked password alone still lets
//! SSH keys in. What was locked or expired before stays so.
//!
//! The journal never holds a password hash, only the kind of the field. No argv holds a hash.

mod elsewhere;
#[cfg(test)]
pub(super) use elsewhere::recipe;

use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::about::has;
use super::error::failure;
use super::{About, Action, ActionError, Attempt, Form, Host, Os, Parameter, Step, process_stat};
use crate::platform::{self, guarded};
use crate::runner::Program;

/// The day that an account expires on while it is disabled. Not the epoch's first day: some
/// programs read 0 as "never".
const EXPIRED_ON_DAY: &str = "1";

/// Rounds of killing before the action fails: processes fork meanwhile.
const MAX_ROUNDS: usize = 20;
/// Pause between two rounds: a killed process takes a moment to disappear.
const PAUSE: Duration = Duration::from_millis(100);

/// The action.
#[derive(Debug)]
pub(super) struct DisableAccount;

/// Kind of an account's password field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Password {
    /// Begins with `!`.
    Locked,
    /// No password at all; restoring this needs an option of its own.
    Empty,
    /// A hash, or `*`.
    Set,
}

/// The login state of an account, from its line in `/etc/shadow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Login {
    password: Password,
    /// The day it expires on, as in the file; empty means never.
    expires_on_day: String,
}

impl Login {
    fn parse(shadow: &str, account: &str) -> Option<Self> {
        let line = shadow.lines().find(|line| line.split(':').next() == Some(account))?;
        let fields: Vec<&str> = line.split(':').collect();
        let password = match *fields.get(1)? {
            "" => Password::Empty,
            field if field.starts_with('!') => Password::Locked,
            _ => Password::Set,
        };
        Some(Self { password, expires_on_day: (*fields.get(7)?).to_owned() })
    }

    fn is_disabled(&self) -> bool {
        self.password == Password::Locked && self.expires_on_day == EXPIRED_ON_DAY
    }

    /// Options of `usermod` that lead from `now` back to `self`; empty if there is nothing to
    /// restore. A later change by another program is kept: a new password, another expiry.
    fn restore(&self, now: &Self) -> Vec<&str> {
        let mut options = Vec::new();
        if now.expires_on_day == EXPIRED_ON_DAY && self.expires_on_day != EXPIRED_ON_DAY {
            options.extend(["--expiredate", &self.expires_on_day]);
        }
        match (now.password, self.password) {
            (Password::Locked, Password::Set) => options.push("--unlock"),
            // `--unlock` refuses to leave an account without a password, but this account had none.
            (Password::Locked, Password::Empty) => options.extend(["--password", ""]),
            _ => {}
        }
        options
    }
}

const ABOUT: About = About {
    name: "disable-account",
    summary: "Refuses every login as a local account, by password or by key",
    targets: &[TargetKind::User],
    lock_domain: "accounts",
    parameters: &[Parameter {
        form: Form::Word("end-sessions"),
        summary: "also kill every process of the account",
        ..Parameter::DEFAULT
    }],
    applied: "Linux: `usermod --lock --expiredate 1`; FreeBSD: `pw lock`; NetBSD: `usermod -C yes`; OpenBSD: `usermod -Z`; macOS: \
              `pwpolicy -disableuser`; SunOS: `passwd -l`; Windows: `net user NAME /active:no`. Never a superuser or the agent's own",
    verified: "Linux: the account's line in `/etc/shadow` is locked and expired, and the system's own answer (`getent shadow`) says the \
               same; elsewhere by the system's own listing. Not sessions that are open, nor another account of the same number",
    undone: "Linux: exactly the state before, password and expiry, unless another program has changed it since; elsewhere the \
             opposite command, unless the account was disabled before",
    rights: "root; Administrator",
    ..About::DEFAULT
};

impl Action for DisableAccount {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        host.has_programs(elsewhere::programs(host.os))?;
        platform::must_be_root()?;
        if host.os == Os::Windows {
            return Ok(());
        }
        if host.os == Os::Linux {
            can_be_replaced(host, &["/etc/passwd", "/etc/shadow"])?;
        }
        // usermod writes the new files beside the old ones, and sets the same owner and mode on
        // them.
        platform::may_replace_files()
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        match (elsewhere::of(&ABOUT, attempt), op) {
            (Ok(Some(recipe)), op) => recipe.plan(op),
            (Ok(None), Op::Apply) => disable(attempt).text(),
            (Ok(None), Op::Revert) => {
                format!("usermod --unlock --expiredate '' {} (as far as it was so before)", attempt.target.value())
            }
            (Err(error), _) => error.to_string(),
        }
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async {
            if let Some(recipe) = elsewhere::of(&ABOUT, attempt)? {
                return recipe.prepare(attempt).await;
            }
            let passwd = read("/etc/passwd")?;
            check(&passwd, attempt.target.value(), platform::accounts::own_number()).map_err(ActionError::Refused)?;
            if !is_shadowed(&passwd, attempt.target.value()) {
                return Err(ActionError::Refused(
                    "the account's password is in /etc/passwd itself, where it does not expire: run pwconv first"
                        .into(),
                ));
            }
            let login = login(attempt)?.ok_or_else(|| {
                ActionError::Refused("the account has no line in /etc/shadow, so it cannot be locked here".into())
            })?;
            serde_json::to_value(login).map_err(|error| ActionError::Failed(error.to_string()))
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match elsewhere::of(&ABOUT, attempt)? {
                Some(recipe) => recipe.apply(attempt).await?,
                None if login(attempt)?.is_some_and(|login| login.is_disabled()) => {}
                None => attempt.run(&disable(attempt)).await.map(drop)?,
            }
            // After the lock; otherwise new sessions could start in between.
            if has(attempt.arguments, "end-sessions") { end_sessions(attempt).await } else { Ok(()) }
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match elsewhere::of(&ABOUT, attempt)? {
                Some(recipe) => recipe.is_in_force(attempt).await,
                None => {
                    Ok(login(attempt)?.is_some_and(|login| login.is_disabled()) && is_seen_disabled(attempt).await?)
                }
            }
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if let Some(recipe) = elsewhere::of(&ABOUT, attempt)? {
                return recipe.revert(attempt).await;
            }
            // An account that was deleted meanwhile has nothing left to restore.
            let (Some(before), Some(now)) = (before(attempt)?, login(attempt)?) else { return Ok(()) };
            let options = before.restore(&now);
            if options.is_empty() {
                return Ok(());
            }
            attempt.run(&usermod(&options, attempt.target.value())).await.map(drop)
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            if let Some(recipe) = elsewhere::of(&ABOUT, attempt)? {
                return recipe.is_lifted(attempt).await;
            }
            let (Some(before), Some(now)) = (before(attempt)?, login(attempt)?) else { return Ok(true) };
            Ok(before.restore(&now).is_empty())
        })
    }
}

/// Whether the system reports the account as disabled, asked in the way of login programs. The file
/// alone does not tell: another source of accounts may precede it, and a password in `/etc/passwd`
/// never expires.
async fn is_seen_disabled(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let account = attempt.target.value();
    if !is_shadowed(&read("/etc/passwd")?, account) {
        return Ok(false);
    }
    if !attempt.host.runner.is_installed("getent") {
        return Ok(true);
    }
    let ask = Program::new("getent", ["shadow", account]);
    let exit = attempt.look(&ask).await?;
    match exit.code {
        0 => Ok(Login::parse(&exit.stdout, account).is_some_and(|login| login.is_disabled())),
        // The system has no account of that name.
        2 => Ok(false),
        _ => Err(failure(&ask, &exit)),
    }
}

/// Whether the account's password and expiry are those of `/etc/shadow`.
fn is_shadowed(passwd: &str, account: &str) -> bool {
    let mut lines = passwd.lines().map(|line| line.split(':')).filter(|fields| fields.clone().next() == Some(account));
    lines.next().is_some_and(|mut fields| fields.nth(1) == Some("x"))
}

/// Kills the account's processes, sessions first, so that these start nothing new.
async fn end_sessions(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let account = attempt.target.value();
    if attempt.host.os == Os::Windows {
        return end_windows_sessions(attempt).await;
    }
    if attempt.host.os == Os::Linux && attempt.host.runner.is_installed("loginctl") {
        // loginctl knows only accounts with a session, and needs systemd.
        attempt.look(&Program::new("loginctl", ["terminate-user", account])).await?;
    }
    let kill = Program::new("pkill", ["-KILL", "-u", account]);
    for _ in 0..MAX_ROUNDS {
        let exit = attempt.change(&kill).await?;
        // Exit code 1 means that no process could be signalled.
        if exit.code > 1 {
            return Err(failure(&kill, &exit));
        }
        if !has_processes(attempt).await? {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(ActionError::Failed(format!(
        "the account is disabled, but something still runs as it after {MAX_ROUNDS} pkill"
    )))
}

/// The same on Windows: a session ends with its processes.
async fn end_windows_sessions(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let filter = format!("USERNAME eq {}", attempt.target.value());
    let list = Program::new("tasklist.exe", ["/FI", &filter, "/FO", "CSV", "/NH"]);
    let kill = Program::new("taskkill.exe", ["/F", "/FI", &filter]);
    for _ in 0..MAX_ROUNDS {
        let exit = attempt.look(&list).await?;
        if !exit.is_success() {
            return Err(failure(&list, &exit));
        }
        // A line of a process begins with a quote; that there is none is said in the system's language.
        if !exit.stdout.lines().any(|line| line.starts_with('"')) {
            return Ok(());
        }
        attempt.change(&kill).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Err(ActionError::Failed(format!(
        "the account is disabled, but something still runs as it after {MAX_ROUNDS} taskkill"
    )))
}

/// Whether a process runs as the account. A zombie does not count.
async fn has_processes(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let list = Program::new("pgrep", ["-u", attempt.target.value()]);
    let exit = attempt.look(&list).await?;
    let is_dead = |number: &str| {
        attempt.host.os == Os::Linux
            && process_stat::read(attempt.host, number).is_ok_and(|seen| seen.is_none_or(|seen| seen.is_dead))
    };
    match exit.code {
        0 => Ok(exit.stdout.split_whitespace().any(|number| !is_dead(number))),
        1 => Ok(false),
        _ => Err(failure(&list, &exit)),
    }
}

/// The state before, if the effect is held. Without it no lock is known to be ours, and nothing is
/// unlocked.
fn before(attempt: &Attempt<'_>) -> Result<Option<Login>, ActionError> {
    let undo = attempt.undo.filter(|undo| !undo.is_null()).cloned();
    undo.map(serde_json::from_value)
        .transpose()
        .map_err(|error| ActionError::Failed(format!("the journal has no valid record of the account: {error}")))
}

fn login(attempt: &Attempt<'_>) -> Result<Option<Login>, ActionError> {
    Ok(Login::parse(&read("/etc/shadow")?, attempt.target.value()))
}

fn read(path: &str) -> Result<String, ActionError> {
    std::fs::read_to_string(path).map_err(|error| ActionError::Failed(format!("{path} cannot be read: {error}")))
}

/// Checks that a program may replace these files.
fn can_be_replaced(host: &Host, files: &[&str]) -> Result<(), String> {
    let etc = host.path("/etc");
    guarded::may_write(&etc).map_err(|error| format!("{} cannot be written: {error}", etc.display()))?;
    let mounts = std::fs::read_to_string(host.path("/proc/self/mountinfo")).unwrap_or_default();
    for file in files {
        // The fifth field is the mount point.
        if mounts.lines().any(|mount| mount.split(' ').nth(4) == Some(file)) {
            return Err(format!("{file} is a mount point, so usermod cannot put a new file in its place"));
        }
    }
    Ok(())
}

/// Checks that the account may be disabled: it is local, no superuser under any name, and not the
/// agent's own.
fn check(passwd: &str, account: &str, own_uid: Option<u32>) -> Result<(), String> {
    let mut found = false;
    for line in passwd.lines().filter(|line| line.split(':').next() == Some(account)) {
        found = true;
        match line.split(':').nth(2).and_then(|uid| uid.parse::<u32>().ok()) {
            None => return Err("the account's line in /etc/passwd is damaged".into()),
            Some(0) => return Err("the account is a superuser: protected".into()),
            Some(uid) if Some(uid) == own_uid => return Err("the account is the agent's own: protected".into()),
            Some(_) => {}
        }
    }
    if found { Ok(()) } else { Err("there is no such account on this host".into()) }
}

fn disable(attempt: &Attempt<'_>) -> Program {
    usermod(&["--lock", "--expiredate", EXPIRED_ON_DAY], attempt.target.value())
}

fn usermod(options: &[&str], account: &str) -> Program {
    // A target never begins with a dash today. `--` keeps the call safe if that rule is ever
    // loosened.
    Program::new("usermod", []).arguments(options).arguments(&["--", account])
}

#[cfg(test)]
mod tests;
