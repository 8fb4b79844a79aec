//! The accounts of this host.

/// Whether `name` is the superuser under any name, or the agent's own account.
pub fn is_own(name: &str) -> bool {
    let user = nix::unistd::User::from_name(name).ok().flatten();
    user.is_some_and(|user| user.uid.is_root() || user.uid == nix::unistd::geteuid())
}

/// The number of the account that this process runs as; `None` where accounts have no numbers.
pub fn own_number() -> Option<u32> {
    Some(nix::unistd::geteuid().as_raw())
}

/// The name of the account with this number.
pub fn name_of_number(number: u32) -> Option<String> {
    nix::unistd::User::from_uid(number.into()).ok().flatten().map(|user| user.name)
}

/// The name of the group with this number.
pub(super) fn group_name_of_number(number: u32) -> Option<String> {
    nix::unistd::Group::from_gid(number.into()).ok().flatten().map(|group| group.name)
}
