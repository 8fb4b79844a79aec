//! A PostgreSQL of the test's own: it listens on a socket in its folder, and ends with the test.

use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::programs::{eventually, is_root};

#[path = "../../chaos/src/postgres_programs.rs"]
mod postgres_programs;

pub(crate) struct Postgres {
    process: Child,
    dir: TempDir,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let programs = postgres_programs::programs().unwrap();
        let dir = tempfile::Builder::new().prefix("riposte-pg-").tempdir().unwrap();
        if is_root() {
            chown(dir.path(), Some(unprivileged("-u")), Some(unprivileged("-g"))).unwrap();
        }
        let data = dir.path().join("data");
        let mut init = own(&programs.join("initdb"));
        init.args(["--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        let made = init.args(["--locale=C", "--pgdata"]).arg(&data).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut serve = own(&programs.join("postgres"));
        serve.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-h", ""]);
        let process = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Self { process, dir };
        eventually("PostgreSQL answers", async || {
            let mut asked = Command::new(programs.join("pg_isready"));
            let asked = asked.args(["-q", "-U", "postgres", "-h"]).arg(started.dir.path()).status().unwrap();
            asked.success().then_some(())
        })
        .await;
        started
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.dir.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server that is killed leaves shared memory behind.
        let _ = Command::new("kill").args(["-s", "QUIT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// The id of the account that PostgreSQL runs as, because it refuses to run as root.
fn unprivileged(flag: &str) -> u32 {
    let id = Command::new("id").args([flag, "nobody"]).output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().parse().expect("root needs an account called `nobody`")
}

/// A command of that account, which ends with this process.
fn own(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid", "nobody", "--clear-groups"]);
    }
    command.arg(program).current_dir("/");
    command
}
