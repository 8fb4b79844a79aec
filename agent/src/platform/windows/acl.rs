//! Access lists of files: who can change one, and how one is kept to the agent alone.

use std::ffi::c_void;
use std::io;
use std::path::Path;

use windows_sys::Win32::Foundation::{GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ, GENERIC_WRITE};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, ConvertStringSecurityDescriptorToSecurityDescriptorW,
    GetNamedSecurityInfoW, SDDL_REVISION_1, SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACE_HEADER, ACL, DACL_SECURITY_INFORMATION, GetAce, INHERIT_ONLY_ACE,
    OWNER_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES,
    SetFileSecurityW,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateDirectoryW, DELETE, FILE_APPEND_DATA, FILE_DELETE_CHILD, FILE_EXECUTE, FILE_READ_DATA, FILE_WRITE_DATA,
    WRITE_DAC, WRITE_OWNER,
};

use super::accounts;
use super::handle::Local;
use super::wide::{from_pointer, wide};

/// Entries that allow something. The other kinds deny, or only record.
const ALLOWS: [u8; 4] = [0, 5, 9, 11];
/// The plain one of them, whose form is known here.
const PLAIN_ALLOWS: u8 = 0;
/// The place of an owner in the list of a folder: it counts for what is made there.
const CREATOR_OWNER: &str = "S-1-3-0";
/// The rights of the owner, who is checked by itself.
const OWNER_RIGHTS: &str = "S-1-3-4";

/// What another account must not be able to do to a file.
pub(super) const CHANGE_FILE: u32 =
    FILE_WRITE_DATA | FILE_APPEND_DATA | DELETE | WRITE_DAC | WRITE_OWNER | GENERIC_WRITE | GENERIC_ALL;
/// What it must not be able to do to a folder on the way to it.
pub(super) const REPLACE_ENTRIES: u32 = FILE_DELETE_CHILD | DELETE | WRITE_DAC | WRITE_OWNER | GENERIC_ALL;
/// What makes a folder one where others can put files.
pub(super) const ADD_ENTRIES: u32 = FILE_WRITE_DATA | FILE_APPEND_DATA | GENERIC_WRITE;
/// What it must not be able to do to a secret.
pub(super) const READ: u32 = FILE_READ_DATA | GENERIC_READ;

/// Who owns a file, and what its list allows to whom.
#[derive(Debug)]
pub(super) struct Access {
    owner: String,
    allowed: Vec<(String, u32)>,
    /// Without a list everybody may do everything.
    has_list: bool,
    /// An entry that allows something, of a form that is not known here.
    has_unknown: bool,
}

impl Access {
    /// Reads it.
    ///
    /// # Errors
    /// When the system refuses.
    #[expect(unsafe_code, reason = "the system's calls")]
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let (mut owner, mut list): (PSID, *mut ACL) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
        // SAFETY: the name ends with a zero; what is returned is in the descriptor, which is kept below.
        let status = unsafe {
            GetNamedSecurityInfoW(
                wide(path).as_ptr(),
                SE_FILE_OBJECT,
                OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                &raw mut owner,
                std::ptr::null_mut(),
                &raw mut list,
                std::ptr::null_mut(),
                &raw mut descriptor,
            )
        };
        done(status)?;
        let _kept = Local(descriptor);
        let owner = accounts::text(owner).ok_or_else(|| io::Error::other("it has no owner"))?;
        let (allowed, has_unknown) = if list.is_null() { (Vec::new(), false) } else { entries(list)? };
        Ok(Self { owner, allowed, has_list: !list.is_null(), has_unknown })
    }

    /// Who can do any of `rights`, beside those that are trusted; `None` if no account can.
    pub(super) fn other_with(&self, rights: u32) -> Option<String> {
        if !accounts::is_trusted(&self.owner) {
            return Some(format!("it belongs to {}", accounts::name_of(&self.owner)));
        }
        if !self.has_list {
            return Some("it has no access list, so every account can do everything with it".into());
        }
        if self.has_unknown {
            return Some("its access list has an entry of a kind that the agent does not know".into());
        }
        let is_other = |(sid, allowed): &&(String, u32)| {
            allowed & rights != 0
                && ![CREATOR_OWNER, OWNER_RIGHTS].contains(&sid.as_str())
                && !accounts::is_trusted(sid)
        };
        let (sid, _) = self.allowed.iter().find(is_other)?;
        Some(format!("{} has access to it", accounts::name_of(sid)))
    }
}

#[expect(unsafe_code, reason = "the system's calls")]
fn entries(list: *const ACL) -> io::Result<(Vec<(String, u32)>, bool)> {
    let (mut allowed, mut has_unknown) = (Vec::new(), false);
    // SAFETY: the list is whole, as the system returned it.
    for place in 0..u32::from(unsafe { (*list).AceCount }) {
        let mut entry: *mut c_void = std::ptr::null_mut();
        // SAFETY: as above; `place` is within the list.
        if unsafe { GetAce(list, place, &raw mut entry) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: every entry begins with this header.
        let header = unsafe { entry.cast::<ACE_HEADER>().read_unaligned() };
        if u32::from(header.AceFlags) & INHERIT_ONLY_ACE != 0 || !ALLOWS.contains(&header.AceType) {
            continue;
        }
        if header.AceType != PLAIN_ALLOWS {
            has_unknown = true;
            continue;
        }
        let entry = entry.cast::<ACCESS_ALLOWED_ACE>();
        // SAFETY: an entry of this type has this form, and its SID begins at the last field.
        let (mask, sid) =
            unsafe { ((&raw const (*entry).Mask).read_unaligned(), (&raw mut (*entry).SidStart).cast::<c_void>()) };
        allowed.push((accounts::text(sid).ok_or_else(|| io::Error::other("an entry has no account"))?, mask));
    }
    Ok((allowed, has_unknown))
}

/// The owner's name.
///
/// # Errors
/// When the system refuses.
pub(super) fn owner(path: &Path) -> io::Result<String> {
    Ok(accounts::name_of(&Access::of(path)?.owner))
}

/// Whether no account but the system and the administrators can read, run or change the file, whichever account owns it.
///
/// # Errors
/// When the system refuses.
pub(super) fn is_sealed(path: &Path) -> io::Result<bool> {
    let access = Access::of(path)?;
    let is_open = |(sid, allowed): &(String, u32)| {
        allowed & (READ | CHANGE_FILE | FILE_EXECUTE | GENERIC_EXECUTE) != 0 && !accounts::is_trusted(sid)
    };
    Ok(access.has_list && !access.has_unknown && !access.allowed.iter().any(is_open))
}

/// Keeps the file or folder to SYSTEM, the administrators, and the agent's own account if it is
/// neither; what is made in a folder later gets the same.
///
/// # Errors
/// When the system refuses.
pub(super) fn keep_to_ourselves(path: &Path) -> io::Result<()> {
    set(path, &ours(if path.is_dir() { "OICI" } else { "" }))
}

fn ours(inherited: &str) -> String {
    let own = accounts::own_sid().filter(|_| !accounts::is_administrator());
    let own = own.map(|sid| format!("(A;{inherited};FA;;;{sid})")).unwrap_or_default();
    format!("D:P(A;{inherited};FA;;;SY)(A;{inherited};FA;;;BA){own}")
}

/// Makes a folder that is kept like that from its first moment on: what another account puts into a folder before would
/// stay that account's.
///
/// # Errors
/// When the system refuses.
#[expect(unsafe_code, reason = "the system's call")]
pub(super) fn create_folder_of_ours(path: &Path) -> io::Result<()> {
    let descriptor = descriptor(&ours("OICI"))?;
    let length = u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).map_err(io::Error::other)?;
    let attributes = SECURITY_ATTRIBUTES { nLength: length, lpSecurityDescriptor: descriptor.0, bInheritHandle: 0 };
    let name = wide(path);
    // SAFETY: the name ends with a zero, and the descriptor lives through the call.
    let is_made = unsafe { CreateDirectoryW(name.as_ptr(), &raw const attributes) };
    if is_made == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SYSTEM and the administrators can only remove it or give it back: no account can run or read it.
///
/// # Errors
/// When the system refuses.
pub(super) fn seal(path: &Path) -> io::Result<()> {
    let own = accounts::own_sid().filter(|_| !accounts::is_administrator());
    // Standard rights, and those to look at its attributes: neither content nor execution.
    let own = own.map(|sid| format!("(A;;SDRCWDWO;;;{sid})")).unwrap_or_default();
    // The owner could change the list all the same, unless the list has an entry for the owner.
    set(path, &format!("D:P(A;;RC;;;OW)(A;;SDRCWDWO;;;SY)(A;;SDRCWDWO;;;BA){own}"))
}

/// The access list as text.
///
/// # Errors
/// When the system refuses.
#[expect(unsafe_code, reason = "the system's calls")]
pub(super) fn get(path: &Path) -> io::Result<String> {
    let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
    // SAFETY: the name ends with a zero; the descriptor is kept below.
    let status = unsafe {
        GetNamedSecurityInfoW(
            wide(path).as_ptr(),
            SE_FILE_OBJECT,
            DACL_SECURITY_INFORMATION,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut descriptor,
        )
    };
    done(status)?;
    let _kept = Local(descriptor);
    let (mut text, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: the descriptor is whole; the text is kept below.
    let is_told = unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor,
            SDDL_REVISION_1,
            DACL_SECURITY_INFORMATION,
            &raw mut text,
            &raw mut length,
        )
    };
    if is_told == 0 {
        return Err(io::Error::last_os_error());
    }
    let _text = Local(text.cast::<c_void>());
    // SAFETY: the call has returned a string.
    Ok(unsafe { from_pointer(text) })
}

/// Sets the access list that `text` describes, in the system's own language of it (SDDL).
///
/// # Errors
/// When the system refuses.
#[expect(unsafe_code, reason = "the system's calls")]
pub(super) fn set(path: &Path, text: &str) -> io::Result<()> {
    // A list that was inherited is kept as one only if the text asks for it.
    let asked = text.strip_prefix("D:AI").map(|rest| format!("D:ARAI{rest}"));
    let descriptor = descriptor(asked.as_deref().unwrap_or(text))?;
    // `D:P` says that nothing is inherited; other texts keep what is.
    let is_own = text.starts_with("D:P");
    let what = DACL_SECURITY_INFORMATION | if is_own { PROTECTED_DACL_SECURITY_INFORMATION } else { 0 };
    // Not `SetNamedSecurityInfo`: it works out what is inherited by itself, and the list is to be exactly this one.
    // SAFETY: the name ends with a zero, and the descriptor is whole.
    let is_set = unsafe {
        let name = wide(path);
        SetFileSecurityW(name.as_ptr(), what, descriptor.0)
    };
    if is_set == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The descriptor that a text of the system's language of access lists describes.
#[expect(unsafe_code, reason = "the system's call")]
fn descriptor(text: &str) -> io::Result<Local> {
    let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
    let text = wide(text);
    // SAFETY: the text ends with a zero; the descriptor is given back by its owner.
    let is_read = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            std::ptr::null_mut(),
        )
    };
    if is_read == 0 { Err(io::Error::last_os_error()) } else { Ok(Local(descriptor)) }
}

fn done(status: u32) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(i32::try_from(status).unwrap_or(-1))) }
}
