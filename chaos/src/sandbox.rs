//! Where the programs under test live: a mount namespace of their own, with small file systems in
//! memory that can be filled while they are written to. As root it is a mount namespace alone;
//! otherwise a user namespace around it.
//!
//! Nothing here touches a mount that is visible outside.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

/// Set in the harness that runs inside.
const INSIDE: &str = "RIPOSTE_CHAOS_INSIDE";
/// Space that stays free on a full file system, in bytes: less than one commit.
const MARGIN: u64 = 64 * 1024;

/// Continues inside a namespace of our own: this program starts again in there, and ends with its
/// parent.
///
/// # Errors
/// If namespaces are not allowed here.
pub(crate) fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut inside = Command::new("setpriv");
    inside.args(["--pdeathsig", "SIGKILL", "--", "unshare", "--mount"]);
    if !nix::unistd::Uid::effective().is_root() {
        inside.args(["--user", "--map-root-user"]);
        inside.env("RIPOSTE_CHAOS_MAPPED", "1");
    }
    inside.arg("--").arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    let error = inside.exec();
    bail!("setpriv and unshare (util-linux) are needed, and namespaces must be allowed: {error}")
}

/// Whether root in here is another account outside.
pub(crate) fn is_mapped() -> bool {
    std::env::var_os("RIPOSTE_CHAOS_MAPPED").is_some()
}

/// A small file system in memory; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    size: u64,
}

impl Disk {
    /// Mounts a file system of `size` bytes.
    ///
    /// # Errors
    /// If that is not allowed.
    pub(crate) fn mount(path: &Path, size: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        // The database runs as another account; with the sticky bit each account can remove only
        // its own files.
        let options = format!("size={size},mode=1777");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("cannot mount a tmpfs at {}", path.display()))?;
        Ok(Self { path: path.into(), size })
    }

    fn remount(&self, flags: MsFlags, size: u64) -> nix::Result<()> {
        let options = format!("size={size}");
        mount(None::<&str>, &self.path, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options.as_str()))
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> anyhow::Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
    }

    /// Fills it: the next writes of any size fail with ENOSPC.
    ///
    /// # Errors
    /// If it grows faster than it can be shrunk.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        for attempt in 0..50 {
            if self.remount(MsFlags::empty(), self.used()? + MARGIN * attempt / 4).is_ok() {
                return Ok(());
            }
        }
        bail!("{} could not be filled", self.path.display())
    }

    /// Frees the space again.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        self.remount(MsFlags::empty(), self.size).context("cannot free the space again")
    }

    /// Makes it read-only; possible only while no file is open for writing.
    ///
    /// # Errors
    /// If a file is open for writing.
    pub(crate) fn protect(&self, read_only: bool) -> anyhow::Result<()> {
        let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        self.remount(flags, self.size).context("cannot be made read-only")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process with an open file there keeps it until it ends; the folder is free at once.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// A library that the programs load before the system's. Controlled by a file, it makes flushes to
/// disk slow or fail.
#[derive(Clone, Debug)]
pub(crate) struct SlowDisk {
    library: PathBuf,
    file: PathBuf,
}

impl SlowDisk {
    /// Builds it with `cc`; `None` where that is not installed.
    pub(crate) fn build(folder: &Path) -> Option<Self> {
        let source = folder.join("slow_fsync.c");
        let library = folder.join("slow_fsync.so");
        std::fs::write(&source, include_str!("slow_fsync.c")).ok()?;
        let mut build = Command::new("cc");
        build.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source);
        let built = build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        built.success().then(|| Self { library, file: folder.join("fsync") })
    }

    /// Makes a program load it, with the control file of that name.
    pub(crate) fn attach(&self, command: &mut Command, name: &str) {
        command.env("LD_PRELOAD", &self.library).env("CHAOS_FSYNC", self.of(name));
    }

    fn of(&self, name: &str) -> PathBuf {
        self.file.with_extension(name)
    }

    /// Sets the time of flushes of that name, in milliseconds; a negative number makes them fail.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn set(&self, name: &str, millis: i64) -> anyhow::Result<()> {
        let path = self.of(name);
        if millis == 0 {
            let _ = std::fs::remove_file(&path);
            return Ok(());
        }
        std::fs::write(&path, format!("{millis}\n")).context("cannot slow the disk down")
    }
}
