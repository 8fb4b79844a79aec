//! What nftables holds in the kernel, in as much detail as the actions verify. The kernel is asked
//! itself, over netlink: `nft` reads the whole ruleset for every question, with all elements of all
//! sets, and that takes longer the more is blocked.

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
