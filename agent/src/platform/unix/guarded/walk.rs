//! Walks a path part by part, each by the held folder before it, and follows only links that root or
//! the agent could have made.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::trust::{OTHERS_WRITE, STICKY, distrust, is_trusted, mode_of};
use super::{Folder, PathError};

/// Limit of links on one path; the kernel's own.
const MAX_LINKS: usize = 40;

/// A folder on the path, and whether others can change the path up to it.
struct Step {
    held: OwnedFd,
    name: OsString,
    stat: Stat,
    doubt: Option<(PathBuf, String)>,
}

impl Step {
    /// Whether other accounts can create files here, but not replace each other's.
    fn is_shared(&self) -> bool {
        mode_of(&self.stat) & STICKY != 0 && mode_of(&self.stat) & OTHERS_WRITE != 0
    }
}

/// The state of a walk: the folders from the root down to here, and the parts that are left.
pub(super) struct Walk {
    steps: Vec<Step>,
    todo: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    pub(super) fn to(path: &Path) -> Result<Self, PathError> {
        let whole = std::path::absolute(path).map_err(|error| PathError::system(path, error))?;
        let mut walk = Self { steps: Vec::new(), todo: VecDeque::new(), links: 0 };
        walk.begin()?;
        walk.push(&whole);
        Ok(walk)
    }

    fn begin(&mut self) -> Result<(), PathError> {
        self.steps.clear();
        let root = Path::new("/");
        let held = rustix::fs::openat(CWD, root, looking(), Mode::empty());
        let held = held.map_err(|error| PathError::system(root, error))?;
        let stat = rustix::fs::fstat(&held).map_err(|error| PathError::system(root, error))?;
        let doubt = distrust(&stat, root).map(|reason| (root.to_owned(), reason));
        self.steps.push(Step { held, name: OsString::new(), stat, doubt });
        Ok(())
    }

    fn push(&mut self, path: &Path) {
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        for (place, part) in parts.enumerate() {
            self.todo.insert(place, part);
        }
    }

    pub(super) fn top(&self) -> &OwnedFd {
        &self.here().held
    }

    #[expect(clippy::expect_used, reason = "the root is never taken off")]
    fn here(&self) -> &Step {
        self.steps.last().expect("the root")
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new("/").join(self.steps.iter().map(|step| &step.name).collect::<PathBuf>())
    }

    /// Walks down until one part is left, and returns it; `None` if the path ends with a folder
    /// above.
    pub(super) fn step_to_last(&mut self) -> Result<Option<OsString>, PathError> {
        while self.todo.len() > 1 || self.todo.front().is_some_and(|part| part == "..") {
            self.step()?;
        }
        Ok(self.todo.pop_front())
    }

    pub(super) fn finish(mut self) -> Result<Folder, PathError> {
        while !self.todo.is_empty() {
            self.step()?;
        }
        let (path, here) = (self.path(), self.here());
        let (is_shared, owner) = (here.is_shared(), here.stat.st_uid);
        let last = self.steps.pop();
        let Some(Step { held, doubt, .. }) = last else { return Err(PathError::refused(&path, "it has no root")) };
        Ok(Folder { held, path, doubt, owner, is_shared })
    }

    fn step(&mut self) -> Result<(), PathError> {
        let Some(name) = self.todo.pop_front() else { return Ok(()) };
        if name == ".." {
            if self.steps.len() > 1 {
                self.steps.pop();
            }
            return Ok(());
        }
        let path = self.path().join(&name);
        let system = |error: Errno| PathError::system(&path, error);
        let stat = rustix::fs::statat(self.top(), &name, AtFlags::SYMLINK_NOFOLLOW).map_err(system)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return self.follow(&name, &stat, &path);
        }
        let held =
            rustix::fs::openat(self.top(), &name, looking() | OFlags::NOFOLLOW, Mode::empty()).map_err(system)?;
        // The status of what is held: the name may lead elsewhere by now.
        let stat = rustix::fs::fstat(&held).map_err(system)?;
        let own = || {
            let is_sticky = mode_of(&stat) & STICKY != 0 && is_trusted(stat.st_uid);
            distrust(&stat, &path).filter(|_| !is_sticky).map(|reason| (path.clone(), reason))
        };
        let doubt = self.here().doubt.clone().or_else(own);
        self.steps.push(Step { held, name, stat, doubt });
        Ok(())
    }

    /// Follows a link, if only root or the agent's own account could have made it.
    pub(super) fn follow(&mut self, name: &OsStr, stat: &Stat, path: &Path) -> Result<(), PathError> {
        let here = self.here();
        // In a folder such as /tmp others cannot replace it, but they could have made a second name
        // for it.
        let is_kept = !here.is_shared() || is_trusted(stat.st_uid) && stat.st_nlink == 1;
        if here.doubt.is_some() || !is_kept {
            return Err(PathError::refused(path, "it is a symbolic link that another account could have made"));
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(PathError::system(path, Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(self.top(), name, Vec::new());
        let target = target.map_err(|error| PathError::system(path, error))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.begin()?;
        }
        self.push(&target);
        Ok(())
    }
}

/// How a folder on the path is opened: with `O_PATH` where the system has it.
fn looking() -> OFlags {
    #[cfg(target_os = "linux")]
    let how = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let how = OFlags::RDONLY;
    how | OFlags::DIRECTORY | OFlags::CLOEXEC
}
