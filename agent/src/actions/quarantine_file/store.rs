//! The folder of quarantined files: how a file is moved in and out. Every step can be repeated. A
//! crash between two steps leaves the file at its path or in the folder.
//!
//! Every name is looked up in a folder that is held open, in and out: the owner of the folder of the file can exchange what
//! leads there at any moment. The account that owns the file may have it open, so the file itself is taken from that account
//! ([`sealed`]) before its name is.

mod kept;
mod sealed;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use uuid::Uuid;

pub(super) use self::kept::Kept;
pub(super) use self::sealed::GivenUp;
use self::sealed::{copy, dress, failed, hash, is_sealed, seal, unseal};
use super::super::{ActionError, Host};
use crate::local_policy::Limits;
use crate::platform::guarded::{self, Folder, PathError, Place};

/// systemd hides `openat2` from a service that may not set the set-user-ID bit; such a service
/// could not restore that bit either.
const CANNOT_OPEN: &str =
    "no file can be opened without following links: the service has RestrictSUIDSGID=yes, or the kernel is too old";

/// Linux only. Without these calls an attacker could have another file moved.
#[cfg(target_os = "linux")]
mod kernel {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags};
    use rustix::io::Errno;
    use rustix::path::Arg;

    /// Whether the system has the call that a sandboxed service may lack.
    pub(super) fn probe() -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// Renames without replacing an existing file.
    pub(super) fn rename(from: impl AsFd, old: impl Arg, to: impl AsFd, new: impl Arg) -> Result<(), Errno> {
        rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
    }
}

/// The action is not offered there.
#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::io::Errno;
    use rustix::path::Arg;

    pub(super) fn probe() -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    pub(super) fn rename(_: impl AsFd, _: impl Arg, _: impl AsFd, _: impl Arg) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
}

/// What tells a file from every other of this host: its device, and its number there.
fn identity_of(stat: &Stat) -> (u64, u64) {
    fn wide(number: impl TryInto<u64>) -> u64 {
        // A negative number of a device: equal ones stay equal.
        number.try_into().unwrap_or(u64::MAX)
    }
    (wide(stat.st_dev), wide(stat.st_ino))
}

impl Kept {
    /// Looks at the file at `place`; changes nothing.
    pub(super) fn look(place: &Place, effect: Uuid, limits: Limits, given_up: &GivenUp) -> Result<Self, ActionError> {
        let path = place.path();
        let mut file = open(place)?;
        let metadata = file.metadata().map_err(|error| failed(&path, "be looked at", &error))?;
        if metadata.nlink() > 1 {
            let (path, names) = (path.display(), metadata.nlink());
            return Err(ActionError::Refused(format!(
                "{path} has {names} names (hard links): to move one would leave the file in reach by the others; find them \
                 with find / -xdev -samefile {path}"
            )));
        }
        if metadata.len() > limits.max_file_bytes {
            let (path, size, limit) = (path.display(), metadata.len(), limits.max_file_bytes);
            return Err(ActionError::Refused(format!(
                "{path} has {size} bytes, more than the {limit} of quarantine_max_file_bytes in the local policy"
            )));
        }
        let sha256 = hash(&mut file, io::sink(), limits.max_file_bytes, given_up);
        let sha256 = sha256.map_err(|error| failed(&path, "be read", &error))?;
        Ok(Self {
            name: format!("{}-{}", effect.simple(), sha256.get(..16).unwrap_or_default()),
            sha256,
            size_bytes: metadata.len(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified_secs: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
            place: Some(path),
        })
    }

    fn is(&self, stat: &Stat) -> bool {
        identity_of(stat) == (self.device, self.inode)
    }

    /// Whether what is at the file's place is the file, of which the quarantine has `inside`. The number of an inode that is gone
    /// may be another file's by now, such as one of root's that was linked there: it counts only with the marks of the agent.
    fn is_left(&self, stat: &Stat, inside: Option<&Stat>) -> bool {
        inside.is_some_and(|inside| identity_of(inside) == identity_of(stat))
            || self.is(stat) && is_sealed(stat) && stat.st_nlink == 1
    }
}

/// The quarantine, and the original path of a file.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    path: PathBuf,
    limits: Limits,
}

impl Store {
    pub(super) fn folder(host: &Host) -> PathBuf {
        host.state_dir.join("quarantine")
    }

    pub(super) fn new(host: &Host, path: &str, kept: &Kept) -> Self {
        let path = kept.place.clone().unwrap_or_else(|| path.into());
        Self { folder: Self::folder(host), path, limits: host.quarantine }
    }

    /// The folder of the quarantine, held open.
    fn inside(&self) -> Result<Folder, ActionError> {
        let folder = guarded::folder(&self.folder).and_then(|folder| folder.require_sure().map(|()| folder));
        folder.map_err(|error| ActionError::Failed(error.to_string()))
    }

    /// What the quarantine has of the file, if anything.
    fn stat_inside(&self, kept: &Kept) -> Result<Option<Stat>, ActionError> {
        if !self.folder.exists() {
            return Ok(None);
        }
        let stat = self.inside()?.stat(&kept.name).map_err(|error| ActionError::Failed(error.to_string()))?;
        Ok(stat.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
    }

    /// Whether the file is here, out of its owner's reach, and has no other name.
    pub(super) fn holds(&self, kept: &Kept) -> Result<bool, ActionError> {
        let Some(stat) = self.stat_inside(kept)? else { return Ok(false) };
        // What had to be copied is another inode, which no program but the agent has ever had open.
        let is_it = kept.is(&stat) || u64::try_from(stat.st_size) == Ok(kept.size_bytes);
        Ok(is_it && is_sealed(&stat) && stat.st_nlink == 1 && self.left_behind(kept, Some(&stat)).is_none())
    }

    /// Whether nothing is left of the file here, nor of what was done to it at its place.
    pub(super) fn has_given_back(&self, kept: &Kept) -> Result<bool, ActionError> {
        Ok(self.stat_inside(kept)?.is_none() && self.left_behind(kept, None).is_none())
    }

    /// The place of the file, if the file is there all the same: a crash came between, or another account has linked the file
    /// back. `inside` is what the quarantine has.
    fn left_behind(&self, kept: &Kept, inside: Option<&Stat>) -> Option<Place> {
        let place = guarded::place(&self.path).ok()?;
        let stat = place.stat().ok()??;
        kept.is_left(&stat, inside).then_some(place)
    }

    /// Whether the quarantine holds a file of this effect, even without a record of it.
    pub(super) fn has_taken(host: &Host, effect: Uuid) -> Result<bool, ActionError> {
        let folder = Self::folder(host);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(|error| failed(&folder, "be read", &error))?,
        };
        let prefix = format!("{}-", effect.simple());
        for entry in entries {
            let entry = entry.map_err(|error| failed(&folder, "be read", &error))?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the file into the quarantine.
    pub(super) fn take(&self, kept: &Kept, given_up: &GivenUp) -> Result<(), ActionError> {
        crate::durable::create_directory(&self.folder).map_err(|error| failed(&self.folder, "be made", &error))?;
        let inside = self.inside()?;
        if self.stat_inside(kept)?.is_none() {
            self.move_in(&inside, kept, given_up)?;
        }
        // What a crash or an older version left half done, and what another account has linked back.
        let out_of_reach = || -> io::Result<File> {
            let file = inside.open_waiting(&kept.name, OFlags::RDONLY, Mode::empty())?;
            seal(&file)?;
            if let Some(place) = self.left_behind(kept, Some(&rustix::fs::fstat(&file)?)) {
                place.folder.unlink(&place.name)?;
                place.folder.sync()?;
            }
            inside.sync()?;
            Ok(file)
        };
        let file = out_of_reach().map_err(|error| failed(&self.path, "be put out of reach", &error))?;
        self.require_one_name(&file)
    }

    /// That the file has one name. Its owner can link it until it is sealed, and later where the system has
    /// `fs.protected_hardlinks=0`.
    fn require_one_name(&self, file: &File) -> Result<(), ActionError> {
        let metadata = file.metadata().map_err(|error| failed(&self.path, "be looked at", &error))?;
        if metadata.nlink() == 1 {
            return Ok(());
        }
        let (path, inode) = (self.path.display(), metadata.ino());
        Err(ActionError::Failed(format!(
            "{path} got another name (hard link) while it was taken, by which it is in reach; find it with \
             find / -xdev -inum {inode}"
        )))
    }

    fn changed(&self) -> ActionError {
        ActionError::Failed(format!("{} has changed since it was looked at", self.path.display()))
    }

    fn move_in(&self, inside: &Folder, kept: &Kept, given_up: &GivenUp) -> Result<(), ActionError> {
        let from = guarded::place(&self.path).map_err(|error| refused(&error))?;
        let mut file = open(&from)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(&self.path, "be looked at", &error.into()))?;
        if !kept.is(&stat) || stat.st_nlink != 1 {
            return Err(self.changed());
        }
        given_up.check().map_err(|error| failed(&self.path, "be moved", &error))?;
        // Before it is moved: an owner who has it open and sees it go would change its mode, and link it back.
        let sealed = seal(&file);
        let moved = self.require_one_name(&file);
        let moved = moved.and_then(|()| self.move_sealed(&from, &mut file, inside, kept, sealed, given_up));
        // If that fails, the lift that follows does it.
        if moved.is_err()
            && let Err(error) = unseal(&mut file, kept, given_up)
        {
            tracing::warn!(path = %self.path.display(), %error, "a file that is not taken does not get its owner and mode back yet");
        }
        moved
    }

    /// `sealed` is what came of taking the file from its owner: a file system may know no owners, and no hard links then.
    fn move_sealed(
        &self,
        from: &Place,
        file: &mut File,
        inside: &Folder,
        kept: &Kept,
        sealed: io::Result<()>,
        given_up: &GivenUp,
    ) -> Result<(), ActionError> {
        match kernel::rename(&from.folder, &from.name, inside, &kept.name) {
            Ok(()) => {
                // The name may have got another file between the two.
                let is_it = inside.stat(&kept.name).is_ok_and(|stat| stat.is_some_and(|stat| kept.is(&stat)));
                if is_it && sealed.is_ok() {
                    return sync(&from.folder, &self.path);
                }
                let _back = kernel::rename(inside, &kept.name, &from.folder, &from.name);
                Err(sealed.map_or_else(|error| failed(&self.path, "be put out of reach", &error), |()| self.changed()))
            }
            Err(Errno::XDEV) => {
                let free = inside.free_bytes().map_err(|error| ActionError::Failed(error.to_string()))?;
                if free < kept.size_bytes.saturating_add(self.limits.min_free_bytes) {
                    return Err(ActionError::Failed(format!(
                        "{} is on another file system and has to be copied: {} bytes, and quarantine_min_free_bytes ({}) have to \
                         stay free where the agent's state is; {free} are free",
                        self.path.display(),
                        kept.size_bytes,
                        self.limits.min_free_bytes
                    )));
                }
                let beside = format!("{}.new", kept.name);
                copy(file, (inside, &beside), (kept.size_bytes, Some(&kept.sha256)), given_up, seal)?;
                inside.rename(&beside, &kept.name).map_err(|error| failed(&self.path, "be copied", &error.into()))?;
                let now = from.stat();
                if !now.is_ok_and(|now| now.is_some_and(|now| kept.is(&now))) {
                    let _unused = inside.unlink(&kept.name);
                    return Err(self.changed());
                }
                if let Err(error) = self.require_one_name(file) {
                    let _unused = inside.unlink(&kept.name);
                    return Err(error);
                }
                from.folder.unlink(&from.name).map_err(|error| failed(&self.path, "be removed", &error.into()))?;
                sync(&from.folder, &self.path)
            }
            Err(error) => Err(failed(&self.path, "be moved", &error.into())),
        }
    }

    /// Moves the file back to its place, as it was; returns whether it has the bytes that it had. An account that had it open may
    /// have gone on writing; keeping it for ever would not help.
    pub(super) fn give_back(&self, kept: &Kept, given_up: &GivenUp) -> Result<bool, ActionError> {
        let inside_stat = self.stat_inside(kept)?;
        if let Some(place) = self.left_behind(kept, inside_stat.as_ref()) {
            let is_same = self.unseal_at(&place, kept, inside_stat.as_ref(), given_up)?;
            if inside_stat.is_some() {
                let inside = self.inside()?;
                inside.unlink(&kept.name).map_err(|error| failed(&self.folder, "be written", &error.into()))?;
                sync(&inside, &self.folder)?;
            }
            return Ok(is_same);
        }
        if inside_stat.is_none() {
            return Ok(true);
        }
        let (inside, held) = (self.inside()?, self.folder.join(&kept.name));
        let to = guarded::place(&self.path).map_err(|error| refused(&error))?;
        if to.stat().map_err(|error| ActionError::Failed(error.to_string()))?.is_some() {
            let (path, held) = (self.path.display(), held.display());
            return Err(ActionError::Failed(format!("something else is at {path} now; the file is kept at {held}")));
        }
        // Mode 000 does not keep out the account that may do this; but it has to be readable to be compared.
        let opened = inside.open_waiting(&kept.name, OFlags::RDONLY, Mode::empty()).map_err(io::Error::from);
        let mut file = opened.map_err(|error| failed(&held, "be read", &error))?;
        // First, so that it is never at its place half dressed; no other account reaches it in the folder, whatever its mode.
        let unsealed = unseal(&mut file, kept, given_up);
        let is_same = unsealed.map_err(|error| failed(&self.path, "get back its owner, mode and time", &error))?;
        if let Err(error) = kernel::rename(&inside, &kept.name, &to.folder, &to.name) {
            seal(&file).map_err(|error| failed(&held, "be put out of reach again", &error))?;
            if error != Errno::XDEV {
                return Err(failed(&self.path, "be put back", &error.into()));
            }
            self.copy_back(&mut file, &to, kept, is_same, given_up)?;
            inside.unlink(&kept.name).map_err(|error| failed(&held, "be removed", &error.into()))?;
        }
        sync(&to.folder, &self.path)?;
        Ok(is_same)
    }

    /// Gives the file that is at its place already its owner, mode and time again.
    fn unseal_at(
        &self,
        place: &Place,
        kept: &Kept,
        inside: Option<&Stat>,
        given_up: &GivenUp,
    ) -> Result<bool, ActionError> {
        let mut file = open(place)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(&self.path, "be looked at", &error.into()))?;
        // Of what is open, not of what the name has come to mean: another file must not get this one's owner.
        if !kept.is_left(&stat, inside) {
            return Err(self.changed());
        }
        let unsealed = unseal(&mut file, kept, given_up);
        unsealed.map_err(|error| failed(&self.path, "get back its owner, mode and time", &error))
    }

    /// Puts a copy at the file's place, which is on another file system.
    fn copy_back(
        &self,
        file: &mut File,
        to: &Place,
        kept: &Kept,
        is_same: bool,
        given_up: &GivenUp,
    ) -> Result<(), ActionError> {
        let (path, held) = (self.path.display(), self.folder.join(&kept.name));
        let size = file.metadata().map_err(|error| failed(&held, "be looked at", &error))?.len();
        let (held, was) = (held.display(), kept.size_bytes);
        if size > self.limits.max_file_bytes.max(was) {
            return Err(ActionError::Failed(format!(
                "{held} had {was} bytes when it was taken and has {size} now, more than quarantine_max_file_bytes, so it is not \
                 copied back to {path}: move or remove it by hand"
            )));
        }
        let free = to.folder.free_bytes().map_err(|error| ActionError::Failed(error.to_string()))?;
        if free < size {
            return Err(ActionError::Failed(format!(
                "{held} cannot be copied back to {path}: it has {size} bytes, and {free} are free there"
            )));
        }
        let (beside, sha256) = (format!(".{}", kept.name), is_same.then_some(kept.sha256.as_str()));
        copy(file, (&to.folder, &beside), (size, sha256), given_up, |copy| dress(copy, kept, is_same))?;
        let moved = kernel::rename(&to.folder, &beside, &to.folder, &to.name);
        moved.map_err(|error| failed(&self.path, "be put back", &error.into()))
    }
}

/// Opens a regular file for reading, and nothing else.
fn open(place: &Place) -> Result<File, ActionError> {
    match place.folder.open_waiting(&place.name, OFlags::RDONLY, Mode::empty()) {
        Ok(file) => Ok(file),
        Err(error) if error.is_missing() => {
            Err(ActionError::Refused(format!("there is no file {}", place.path().display())))
        }
        Err(error) => Err(refused(&error)),
    }
}

/// Checks that files can be opened without following links, and restored with their attributes.
///
/// # Errors
/// Why not, for people.
pub(super) fn can_open() -> Result<(), String> {
    match kernel::probe() {
        Ok(_) => Ok(()),
        Err(Errno::NOSYS) => Err(CANNOT_OPEN.into()),
        // Some seccomp filters answer EPERM to system calls that they do not know.
        Err(error) => Err(format!("no file can be opened without following links: {}", io::Error::from(error))),
    }
}

fn sync(folder: &Folder, path: &Path) -> Result<(), ActionError> {
    folder.sync().map_err(|error| failed(path, "be made durable", &error.into()))
}

pub(super) fn refused(error: &PathError) -> ActionError {
    match error {
        error if error.is_missing() => ActionError::Refused(format!("there is no file: {error}")),
        PathError::Refused { .. } => ActionError::Refused(error.to_string()),
        PathError::System { .. } => ActionError::Failed(error.to_string()),
    }
}
