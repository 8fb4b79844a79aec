//! A PostgreSQL server of the bench's own, on a socket in its folder, with its defaults.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;

use postgres_programs::programs;

#[path = "../../chaos/src/postgres_programs.rs"]
mod postgres_programs;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The id of the account without rights: PostgreSQL does not run as root.
const UNPRIVILEGED: u32 = 65_534;

/// A running server; ended when dropped.
pub(crate) struct Postgres {
    child: Child,
    home: PathBuf,
}

impl Postgres {
    /// Creates a cluster below `dir` and starts it.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or does not start.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let programs = programs()?;
        let home = dir.join("postgres");
        std::fs::create_dir(&home)?;
        let is_root = std::fs::metadata(&home)?.uid() == 0;
        if is_root {
            // The account has to reach its folder.
            for folder in home.ancestors().take_while(|folder| folder.starts_with(dir)) {
                std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            }
            chown(&home, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let command = |name: &str| {
            let program = programs.join(name);
            let mut command = if is_root { Command::new("setpriv") } else { Command::new(&program) };
            if is_root {
                let account = format!("--reuid={UNPRIVILEGED}");
                command.args([account.as_str(), "--clear-groups", "--"]).arg(&program);
            }
            command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let mut init = command("initdb");
        init.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--pgdata"]);
        anyhow::ensure!(init.arg(home.join("data")).status()?.success(), "initdb failed");
        let log = std::fs::File::create(dir.join("postgres.log"))?;
        let mut serve = command("postgres");
        let child = serve.arg("-D").arg(home.join("data")).arg("-k").arg(&home).args(["-h", ""]).stderr(log).spawn()?;
        let server = Self { child, home };
        let begun = Instant::now();
        while !server.home.join(".s.PGSQL.5432").exists() {
            if begun.elapsed() > START_TIMEOUT {
                bail!("PostgreSQL does not start; see {}", dir.join("postgres.log").display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.home.display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // One that is killed leaves a segment of shared memory behind, and a system has few of them.
        if Command::new("kill").args(["-s", "QUIT", &self.child.id().to_string()]).status().is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
