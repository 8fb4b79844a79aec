//! Accounts on systems other than Linux: one command to disable, one to enable, and the system's
//! own listing to verify.

use riposte_protocol::target::Target;

use super::super::recipe::{Change, Check, Recipe, unsuited};
use super::{About, ActionError, Attempt, Os};
use crate::runner::Program;

/// The programs that must be installed.
pub(super) fn programs(os: Os) -> &'static [&'static str] {
    match os {
        Os::Linux | Os::OpenBsd | Os::NetBsd => &["usermod"],
        Os::FreeBsd => &["pw"],
        Os::MacOs => &["pwpolicy", "dscl"],
        Os::SunOs => &["passwd"],
        Os::Windows => &["net.exe", "powershell.exe"],
    }
}

/// The recipe; `None` on Linux, which needs more.
pub(super) fn of(about: &About, attempt: &Attempt<'_>) -> Result<Option<Recipe>, ActionError> {
    if attempt.host.os == Os::Linux {
        return Ok(None);
    }
    recipe(attempt.host.os, attempt.target, &[]).map(Some).ok_or_else(|| unsuited(about, attempt))
}

pub(in super::super) fn recipe(os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let account = target.value();
    let (apply, revert, shows) = match os {
        Os::Linux => return None,
        Os::FreeBsd => (
            Program::new("pw", ["lock", account]),
            Program::new("pw", ["unlock", account]),
            Check::prints(Program::new("pw", ["usershow", account]), ["*LOCKED*"]),
        ),
        // A word between asterisks before the password, in the file that only root reads.
        Os::NetBsd => (
            Program::new("usermod", ["-C", "yes", account]),
            Program::new("usermod", ["-C", "no", account]),
            Check::exit(grep_master(&format!("^{}:\\*[A-Za-z]*\\*", escape(account))), 1),
        ),
        // A dash after the shell. An asterisk before the password proves nothing: every account
        // without a password has one.
        Os::OpenBsd => (
            Program::new("usermod", ["-Z", account]),
            Program::new("usermod", ["-U", account]),
            Check::exit(grep_master(&format!("^{}:.*-$", escape(account))), 1),
        ),
        Os::MacOs => (
            Program::new("pwpolicy", ["-u", account, "-disableuser"]),
            Program::new("pwpolicy", ["-u", account, "-enableuser"]),
            Check::prints(
                Program::new("dscl", [".", "-read", &format!("/Users/{account}"), "AuthenticationAuthority"]),
                [";DisabledUser;"],
            ),
        ),
        Os::SunOs => (
            Program::new("passwd", ["-l", account]),
            Program::new("passwd", ["-u", account]),
            Check::prints(Program::new("passwd", ["-s", account]), [" LK "]),
        ),
        Os::Windows => (
            Program::new("net.exe", ["user", account, "/active:no"]),
            Program::new("net.exe", ["user", account, "/active:yes"]),
            // The output of `net user NAME` depends on the system's language, so it is not used. This
            // way also finds the accounts of a domain on its controller. The name cannot contain a
            // quote. 2 is the flag of a disabled account.
            Check::prints(
                Program::new("powershell.exe", ["-NoProfile", "-NonInteractive", "-Command"])
                    .arguments(&[&format!("([ADSI]'WinNT://./{account},user').UserFlags.Value -band 2")]),
                ["2"],
            ),
        ),
    };
    Some(Recipe {
        apply: vec![Change::new(apply)],
        revert: vec![Change::new(revert)],
        shows: vec![shows],
        ..Recipe::default()
    })
}

fn grep_master(pattern: &str) -> Program {
    Program::new("grep", ["-q", pattern, "/etc/master.passwd"])
}

/// Escapes the one character of an account's name that is special in a pattern.
fn escape(account: &str) -> String {
    account.replace('.', "\\.")
}
