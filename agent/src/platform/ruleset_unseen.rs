//! For systems without nftables.

use crate::platform::ruleset_objects::{Expression, FilterChain, Set};

/// There is none.
#[derive(Debug)]
pub(crate) struct Ruleset;

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

/// Opens a socket in the network of that name.
#[cfg(test)]
pub(crate) fn in_network<T>(_name: &str, open: impl FnOnce() -> T) -> T {
    open()
}
