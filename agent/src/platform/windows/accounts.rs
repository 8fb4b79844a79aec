//! The accounts of this host, by their security identifiers (SIDs).

use std::ffi::c_void;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::Authorization::{ConvertSidToStringSidW, ConvertStringSidToSidW};
use windows_sys::Win32::Security::{
    CheckTokenMembership, GetTokenInformation, LookupAccountNameW, LookupAccountSidW, PSID, SID_NAME_USE, TOKEN_QUERY,
    TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::handle::{Handle, Local};
use super::wide::{from_pointer, narrow, wide};

/// The local system, the administrators, and the installer of Windows' own files.
const TRUSTED: [&str; 3] =
    ["S-1-5-18", ADMINISTRATORS, "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"];
const ADMINISTRATORS: &str = "S-1-5-32-544";
/// Accounts of services that Windows itself runs by.
const SYSTEMS: [&str; 3] = ["S-1-5-18", "S-1-5-19", "S-1-5-20"];
/// The last part of the SID of a host's or a domain's built-in administrator, whatever its name is.
const BUILT_IN_ADMINISTRATOR: &str = "-500";

/// Whether `name` is the built-in administrator under any name, an account of the system, or the
/// agent's own.
pub fn is_own(name: &str) -> bool {
    let Some(sid) = sid_of(name) else { return false };
    let is_built_in = sid.starts_with("S-1-5-21-") && sid.ends_with(BUILT_IN_ADMINISTRATOR);
    is_built_in || SYSTEMS.contains(&sid.as_str()) || own_sid().is_some_and(|own| own == sid)
}

/// Accounts have no numbers here.
pub fn own_number() -> Option<u32> {
    None
}

/// Accounts have no numbers here, so none has a name.
pub fn name_of_number(_number: u32) -> Option<String> {
    None
}

/// Whether only Windows itself, its administrators and the agent's own account act as this SID.
pub(super) fn is_trusted(sid: &str) -> bool {
    TRUSTED.contains(&sid) || own_sid().as_deref() == Some(sid)
}

/// Whether this process acts as an administrator: elevated, where Windows asks for it.
#[expect(unsafe_code, reason = "the system's calls")]
pub(super) fn is_administrator() -> bool {
    let Some(sid) = parse(ADMINISTRATORS) else { return false };
    let mut is_member = 0;
    // SAFETY: a null token is the caller's own; the SID is whole.
    let is_told = unsafe { CheckTokenMembership(std::ptr::null_mut(), sid.0, &raw mut is_member) };
    is_told != 0 && is_member != 0
}

/// The SID of the account that this process runs as.
#[expect(unsafe_code, reason = "the system's calls")]
pub(super) fn own_sid() -> Option<String> {
    let mut token: HANDLE = std::ptr::null_mut();
    // SAFETY: the handle of the current process needs no closing.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) } == 0 {
        return None;
    }
    let token = Handle::own(token).ok()?;
    // Eight bytes each, so that the structure is aligned.
    let mut buffer = [0_u64; 32];
    let mut length = u32::try_from(size_of_val(&buffer)).ok()?;
    // SAFETY: `length` is the size of the buffer.
    let is_told = unsafe {
        GetTokenInformation(token.raw(), TokenUser, buffer.as_mut_ptr().cast::<c_void>(), length, &raw mut length)
    };
    if is_told == 0 {
        return None;
    }
    // SAFETY: the call has filled the buffer with this structure, whose SID is in the buffer too.
    text(unsafe { (*buffer.as_ptr().cast::<TOKEN_USER>()).User.Sid })
}

/// The SID of the account `name`, which may name its domain (`DOMAIN\name`).
#[expect(unsafe_code, reason = "the system's call")]
pub(super) fn sid_of(name: &str) -> Option<String> {
    let (mut sid, mut domain) = ([0_u64; 16], [0_u16; 256]);
    let mut sid_length = u32::try_from(size_of_val(&sid)).ok()?;
    let (mut domain_length, mut kind) = (256, SID_NAME_USE::default());
    // SAFETY: the name ends with a zero, and both lengths are those of their buffers.
    let is_found = unsafe {
        LookupAccountNameW(
            std::ptr::null(),
            wide(name).as_ptr(),
            sid.as_mut_ptr().cast::<c_void>(),
            &raw mut sid_length,
            domain.as_mut_ptr(),
            &raw mut domain_length,
            &raw mut kind,
        )
    };
    if is_found == 0 { None } else { text(sid.as_mut_ptr().cast::<c_void>()) }
}

/// The name of the account with this SID, with its domain; the SID itself if it has none.
#[expect(unsafe_code, reason = "the system's call")]
pub(super) fn name_of(sid: &str) -> String {
    let Some(parsed) = parse(sid) else { return sid.to_owned() };
    let (mut name, mut domain) = ([0_u16; 256], [0_u16; 256]);
    let (mut name_length, mut domain_length, mut kind) = (256, 256, SID_NAME_USE::default());
    // SAFETY: the SID is whole, and both lengths are those of their buffers.
    let is_found = unsafe {
        LookupAccountSidW(
            std::ptr::null(),
            parsed.0,
            name.as_mut_ptr(),
            &raw mut name_length,
            domain.as_mut_ptr(),
            &raw mut domain_length,
            &raw mut kind,
        )
    };
    match (is_found != 0, narrow(&domain)) {
        (false, _) => sid.to_owned(),
        (true, domain) if domain.is_empty() => narrow(&name),
        (true, domain) => format!("{domain}\\{}", narrow(&name)),
    }
}

/// The SID as text.
#[expect(unsafe_code, reason = "the system's call")]
pub(super) fn text(sid: PSID) -> Option<String> {
    let mut text = std::ptr::null_mut();
    // SAFETY: the caller's SID is whole; the text is given back below.
    if unsafe { ConvertSidToStringSidW(sid, &raw mut text) } == 0 {
        return None;
    }
    let _kept = Local(text.cast::<c_void>());
    // SAFETY: the call has returned a string.
    Some(unsafe { from_pointer(text) })
}

#[expect(unsafe_code, reason = "the system's call")]
fn parse(sid: &str) -> Option<Local> {
    let mut parsed: PSID = std::ptr::null_mut();
    // SAFETY: the text ends with a zero; the SID is given back by its owner.
    let is_parsed = unsafe { ConvertStringSidToSidW(wide(sid).as_ptr(), &raw mut parsed) };
    (is_parsed != 0).then_some(Local(parsed))
}
