//! The folder of quarantined files on Windows. A file is held by a handle from the look on, and is
//! moved by it; its access list is taken from it and given back. Every step can be repeated.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::super::{ActionError, Host};
use crate::local_policy::Limits;
use crate::platform::guarded::{self, PathError, Place};
use crate::platform::held_file::{self, FileId, HeldFile};

/// Set when a step is abandoned.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a file was, and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    name: String,
    pub(super) sha256: String,
    size_bytes: u64,
    /// Its access list, in the system's language of it.
    access: String,
    volume: u32,
    /// Its number in the volume; a string, because it may be larger than JSON's numbers are exact.
    number: String,
    place: PathBuf,
}

impl Kept {
    pub(super) fn look(place: &Place, effect: Uuid, limits: Limits, given_up: &GivenUp) -> Result<Self, ActionError> {
        let path = place.path();
        let failed = |error: io::Error| ActionError::Refused(format!("{}: {error}", path.display()));
        let held = HeldFile::open(&path).map_err(failed)?;
        let (id, size_bytes) = (held.id().map_err(failed)?, held.file().metadata().map_err(failed)?.len());
        if id.names > 1 {
            return Err(ActionError::Refused(format!("{} has {} names (hard links)", path.display(), id.names)));
        }
        if size_bytes > limits.max_file_bytes {
            return Err(ActionError::Refused(format!(
                "{} has {size_bytes} bytes; quarantine_max_file_bytes is {}",
                path.display(),
                limits.max_file_bytes
            )));
        }
        let sha256 = hash(&held, given_up).map_err(failed)?;
        Ok(Self {
            name: format!("{}-{}", effect.simple(), sha256.get(..16).unwrap_or_default()),
            sha256,
            size_bytes,
            access: held.access().map_err(failed)?,
            volume: id.volume,
            number: id.number.to_string(),
            place: path,
        })
    }

    fn is(&self, id: FileId) -> bool {
        id.volume == self.volume && id.number.to_string() == self.number
    }
}

/// The quarantine.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    limits: Limits,
}

impl Store {
    pub(super) fn folder(host: &Host) -> PathBuf {
        host.state_dir.join("quarantine")
    }

    pub(super) fn new(host: &Host, _path: &str, _kept: &Kept) -> Self {
        Self { folder: Self::folder(host), limits: host.quarantine }
    }

    /// Whether the file is here and not at its place.
    pub(super) fn holds(&self, kept: &Kept) -> Result<bool, ActionError> {
        let Some(inside) = self.inside(kept)? else { return Ok(false) };
        let is_sealed = held_file::is_sealed(&inside).map_err(|error| failed(&inside, "be looked at", &error))?;
        Ok(is_sealed && !is_at_place(kept)?)
    }

    /// Whether nothing is left of the file here.
    pub(super) fn has_given_back(&self, kept: &Kept) -> Result<bool, ActionError> {
        Ok(self.inside(kept)?.is_none())
    }

    /// Whether a file of this effect is in the quarantine.
    pub(super) fn has_taken(host: &Host, effect: Uuid) -> Result<bool, ActionError> {
        let folder = Self::folder(host);
        let prefix = format!("{}-", effect.simple());
        match std::fs::read_dir(&folder) {
            Ok(entries) => Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&folder, "be read", &error)),
        }
    }

    /// Moves the file in.
    pub(super) fn take(&self, kept: &Kept, _given_up: &GivenUp) -> Result<(), ActionError> {
        if let Some(inside) = self.inside(kept)? {
            // A crash may have come between the move and the seal.
            return held_file::seal(&inside).map_err(|error| failed(&inside, "be sealed", &error));
        }
        guarded::create_private_folder(&self.folder).map_err(|error| failed(&self.folder, "be made", &error))?;
        let inside = guarded::folder(&self.folder).and_then(|folder| folder.require_sure().map(|()| folder));
        let inside = inside.map_err(|error| ActionError::Failed(error.to_string()))?;
        let free = inside.free_bytes().map_err(|error| ActionError::Failed(error.to_string()))?;
        if free < self.limits.min_free_bytes {
            return Err(ActionError::Failed(format!(
                "{} has {free} bytes free; quarantine_min_free_bytes is {}",
                self.folder.display(),
                self.limits.min_free_bytes
            )));
        }
        let mut held = HeldFile::open(&kept.place).map_err(|error| failed(&kept.place, "be held", &error))?;
        if !held.id().is_ok_and(|id| kept.is(id)) {
            return Err(ActionError::Refused(format!("{} is another file by now", kept.place.display())));
        }
        let moved = held.move_to(&self.folder.join(&kept.name));
        moved.map_err(|error| failed(&kept.place, "be moved into the quarantine", &error))?;
        held.seal().map_err(|error| failed(&kept.place, "be sealed", &error))?;
        match held.id() {
            Ok(id) if id.names == 1 => Ok(()),
            _ => Err(ActionError::Failed(format!("{} has got a second name (hard link)", kept.place.display()))),
        }
    }

    /// Moves the file back, with its access list. Returns whether its content is as it was.
    pub(super) fn give_back(&self, kept: &Kept, given_up: &GivenUp) -> Result<bool, ActionError> {
        let Some(inside) = self.inside(kept)? else { return Ok(true) };
        if kept.place.symlink_metadata().is_ok() {
            return Err(ActionError::Failed(format!(
                "{} has another file now; the one in the quarantine is {}",
                kept.place.display(),
                inside.display()
            )));
        }
        // Sealed, it cannot be read: its list comes first, while it is still where only the agent can reach it.
        held_file::set_access(&inside, &kept.access).map_err(|error| failed(&inside, "get its rights", &error))?;
        put_back(&inside, kept, given_up).inspect_err(|_| {
            // Where it stays, it stays out of reach; the error of the first failure is what counts.
            let _still_sealed = held_file::seal(&inside);
        })
    }

    /// The file in the quarantine, if it is there.
    fn inside(&self, kept: &Kept) -> Result<Option<PathBuf>, ActionError> {
        let path = self.folder.join(&kept.name);
        match path.symlink_metadata() {
            Ok(_) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, "be looked at", &error)),
        }
    }
}

/// Moves an unsealed file to its place; returns whether its content is as it was.
fn put_back(inside: &Path, kept: &Kept, given_up: &GivenUp) -> Result<bool, ActionError> {
    let mut held = HeldFile::open(inside).map_err(|error| failed(inside, "be held", &error))?;
    let size_bytes = held.file().metadata().map_err(|error| failed(inside, "be looked at", &error))?.len();
    // An account that had it open may have grown it without an end.
    let is_same = size_bytes == kept.size_bytes
        && hash(&held, given_up).map_err(|error| failed(inside, "be read", &error))? == kept.sha256;
    held.move_to(&kept.place).map_err(|error| failed(&kept.place, "be put back", &error))?;
    Ok(is_same)
}

/// Whether the file that is meant is at its place.
fn is_at_place(kept: &Kept) -> Result<bool, ActionError> {
    match held_file::id_at(&kept.place) {
        Ok(id) => Ok(kept.is(id)),
        // What the agent may not even look at is not the file that it has moved.
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind()) => Ok(false),
        Err(error) => Err(failed(&kept.place, "be looked at", &error)),
    }
}

fn hash(held: &HeldFile, given_up: &GivenUp) -> io::Result<String> {
    let (mut sha256, mut chunk, mut file) = (Sha256::new(), vec![0; 128 * 1024], held.file());
    loop {
        if given_up.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("it took too long"));
        }
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sha256.update(&chunk[..length]);
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> ActionError {
    ActionError::Failed(format!("{} cannot {what}: {error}", path.display()))
}

/// A handle can always be had here.
///
/// # Errors
/// Never.
#[expect(clippy::unnecessary_wraps, reason = "other systems may lack the call")]
pub(super) fn can_open() -> Result<(), String> {
    Ok(())
}

/// The refusal of a path.
pub(super) fn refused(error: &PathError) -> ActionError {
    ActionError::Refused(error.to_string())
}
