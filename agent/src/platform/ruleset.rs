//! What nftables holds in the kernel, in as much detail as the actions verify. The kernel is asked
//! itself, over netlink: `nft` reads the whole ruleset for every question, with all elements of all
//! sets, and that takes longer the more is blocked.

#[cfg(target_os = "linux")]
pub(crate) use crate::platform::linux::ruleset::Ruleset;

/// A set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// Length of an element, in bytes.
    pub(crate) element_bytes: u32,
    /// Whether each element is one address with a time-out and nothing else: no interval, no map, no
    /// condition.
    pub(crate) is_plain: bool,
}

/// A chain of the kind `filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterChain {
    /// Number of the hook, as in `linux/netfilter.h`.
    pub(crate) hook: u32,
    pub(crate) priority: i32,
}

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Loads the packet's protocol family.
    Family,
    /// Continues only if what was loaded is this.
    Equals(Vec<u8>),
    /// Loads a part of the network header.
    Header { offset: u32, length: u32 },
    /// Masks what was loaded.
    Mask(Vec<u8>),
    /// Continues only if what was loaded is in this set.
    IsIn(String),
    /// Counts packets.
    Counter,
    /// Drops the packet.
    Drop,
    /// Anything else.
    Other,
}

/// On other systems there is no nftables.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Ruleset;

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unused_self, reason = "where nftables exists, a socket is used")]
impl Ruleset {
    pub(crate) fn open() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_table_awake(&mut self, _table: &str) -> std::io::Result<bool> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set(&mut self, _table: &str, _name: &str) -> std::io::Result<Option<Set>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn filter_chain(&mut self, _table: &str, _name: &str) -> std::io::Result<Option<FilterChain>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn rules(&mut self, _table: &str, _chain: &str) -> std::io::Result<Vec<Vec<Expression>>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn has_element(&mut self, _table: &str, _set: &str, _element: &[u8]) -> std::io::Result<bool> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
