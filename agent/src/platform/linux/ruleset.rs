//! Asks the kernel what nftables holds in a table of the family `inet`.

use std::io;

use netlink_bindings::nftables::{
    BitwiseOps, CmpOps, ExprListAttrs, ExprOps, IterableDataAttrs, IterableExprListAttrs, MetaKeys, Nfgenmsg,
    PayloadBase, Request, SetFlags, SetelemListElemAttrs, TableFlags, VerdictCode,
};
use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::{NetlinkSocket, ReplyError};

use crate::platform::ruleset_objects::{Expression, FilterChain, Set};

/// `NFPROTO_INET` of `linux/netfilter.h`.
const INET: u8 = 1;
/// How often a listing of rules is repeated that was made while the ruleset changed.
const MAX_LOOKS: usize = 20;

/// A socket to the kernel's nftables, in the network namespace in which it was opened.
pub(crate) struct Ruleset(NetlinkSocket);

impl std::fmt::Debug for Ruleset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ruleset")
    }
}

impl Ruleset {
    /// # Errors
    /// When the kernel does not answer this process, for example for lack of a right.
    pub(crate) fn open() -> io::Result<Self> {
        let mut ruleset = Self(NetlinkSocket::new());
        // The socket is made with the first question.
        ruleset.generation()?;
        Ok(ruleset)
    }

    /// Whether the table exists and its chains are in use: those of a dormant one drop nothing.
    pub(crate) fn is_table_awake(&mut self, table: &str) -> io::Result<bool> {
        let mut request = Request::new().op_gettable_do(&header());
        request.encode().push_name_bytes(table.as_bytes());
        let flags = self.one(&request, |(_, table)| table.get_flags().ok())?;
        Ok(flags.flatten().is_some_and(|flags| flags & TableFlags::Dormant as u32 == 0))
    }

    /// The set of that name; `None` if there is none.
    pub(crate) fn set(&mut self, table: &str, name: &str) -> io::Result<Option<Set>> {
        let mut request = Request::new().op_getset_do(&header());
        request.encode().push_table_bytes(table.as_bytes()).push_name_bytes(name.as_bytes());
        self.one(&request, |(_, set)| {
            let is_plain = set.get_flags().is_ok_and(|flags| flags == SetFlags::Timeout as u32);
            Set { element_bytes: set.get_key_len().unwrap_or(0), is_plain }
        })
    }

    /// The chain of that name; `None` if there is none, or if it is not at a hook as a filter.
    pub(crate) fn filter_chain(&mut self, table: &str, name: &str) -> io::Result<Option<FilterChain>> {
        let mut request = Request::new().op_getchain_do(&header());
        request.encode().push_table_bytes(table.as_bytes()).push_name_bytes(name.as_bytes());
        let chain = self.one(&request, |(_, chain)| {
            let hook = chain.get_hook().ok()?;
            let is_filter = chain.get_type().is_ok_and(|kind| kind == c"filter");
            let (hook, priority) = (hook.get_num().ok()?, hook.get_priority().ok()?);
            is_filter.then_some(FilterChain { hook, priority })
        })?;
        Ok(chain.flatten())
    }

    /// The rules of a chain, in their order; none if there is no such chain.
    pub(crate) fn rules(&mut self, table: &str, chain: &str) -> io::Result<Vec<Vec<Expression>>> {
        let mut generation = self.generation()?;
        for _ in 0..MAX_LOOKS {
            let rules = self.list_rules(table, chain)?;
            // A listing that another program's change has interrupted may show parts of both.
            let now = self.generation()?;
            if now == generation {
                return Ok(rules);
            }
            generation = now;
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "other programs keep changing the ruleset"))
    }

    /// Whether this element is in the set, has not ended, and has no condition of its own; false too if
    /// there is no such set, or one of other elements.
    pub(crate) fn has_element(&mut self, table: &str, set: &str, element: &[u8]) -> io::Result<bool> {
        let mut request = Request::new().op_getsetelem_do(&header());
        request
            .encode()
            .push_table_bytes(table.as_bytes())
            .push_set_bytes(set.as_bytes())
            .nested_elements()
            .nested_elem()
            .nested_key()
            .push_value(element);
        let found = self.one(&request, |(_, list)| {
            let elements = list.get_elements().ok()?;
            let is_bare = |attribute| match attribute {
                Ok(SetelemListElemAttrs::Elem(element)) => {
                    element.get_expr().is_err() && element.get_expressions().is_err()
                }
                Err(_) => false,
            };
            Some(elements.map(is_bare).collect::<Vec<_>>())
        });
        match found {
            Ok(found) => Ok(found.flatten().is_some_and(|bare| bare == [true])),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Number of the current ruleset: each change makes it another one.
    fn generation(&mut self) -> io::Result<u32> {
        let request = Request::new().op_getgen_do(&Nfgenmsg::new());
        let generation = self.one(&request, |(_, generation)| generation.get_id().ok())?;
        generation.flatten().ok_or_else(|| io::Error::other("the kernel does not number its rulesets"))
    }

    fn list_rules(&mut self, table: &str, chain: &str) -> io::Result<Vec<Vec<Expression>>> {
        let mut request = Request::new().op_getrule_dump(&header());
        request.encode().push_table_bytes(table.as_bytes()).push_chain_bytes(chain.as_bytes());
        let mut rules = Vec::new();
        let mut replies = self.0.request(&request)?;
        while let Some(reply) = replies.recv() {
            match reply {
                Ok((_, rule)) => {
                    // Kernels before 4.10 list the rules of all chains.
                    let is_here = rule.get_table().is_ok_and(|name| name.to_bytes() == table.as_bytes())
                        && rule.get_chain().is_ok_and(|name| name.to_bytes() == chain.as_bytes());
                    if is_here {
                        rules.push(rule.get_expressions().map(expressions).unwrap_or_default());
                    }
                }
                Err(error) => return unless_missing(error, Vec::new()),
            }
        }
        Ok(rules)
    }

    /// What `read` returns of the object that the request is for; `None` if there is none.
    fn one<R: NetlinkRequest, T>(
        &mut self,
        request: &R,
        read: impl Fn(R::ReplyType<'_>) -> T,
    ) -> io::Result<Option<T>> {
        let mut found = None;
        let mut replies = self.0.request(request)?;
        // Up to the acknowledgement, which is not a reply of its own here.
        while let Some(reply) = replies.recv() {
            match reply {
                Ok(reply) => found = Some(read(reply)),
                Err(error) => return unless_missing(error, None),
            }
        }
        Ok(found)
    }
}

fn header() -> Nfgenmsg {
    Nfgenmsg { nfgen_family: INET, ..Nfgenmsg::new() }
}

fn unless_missing<T>(error: ReplyError, none: T) -> io::Result<T> {
    let error = io::Error::from(error);
    if error.kind() == io::ErrorKind::NotFound { Ok(none) } else { Err(error) }
}

fn expressions(all: IterableExprListAttrs<'_>) -> Vec<Expression> {
    let expression = |attribute| match attribute {
        Ok(ExprListAttrs::Elem(expression)) => expression.get_data().ok().and_then(|data| decoded(&data)),
        Err(_) => None,
    };
    all.map(|attribute| expression(attribute).unwrap_or(Expression::Other)).collect()
}

/// The expression; `None` if it is of no kind that is known here.
fn decoded(expression: &ExprOps<'_>) -> Option<Expression> {
    match expression {
        ExprOps::Meta(meta) => (meta.get_key().ok()? == MetaKeys::Nfproto as u32).then_some(Expression::Family),
        ExprOps::Cmp(cmp) => {
            let is_equal = cmp.get_op().ok()? == CmpOps::Eq as u32;
            is_equal.then_some(Expression::Equals(bytes(cmp.get_data().ok()?)?))
        }
        ExprOps::Payload(payload) => {
            let is_network = payload.get_base().ok()? == PayloadBase::NetworkHeader as u32;
            let (offset, length) = (payload.get_offset().ok()?, payload.get_len().ok()?);
            // One that names what it reads from writes into the packet.
            (is_network && payload.get_sreg().is_err()).then_some(Expression::Header { offset, length })
        }
        ExprOps::Bitwise(bitwise) => {
            // Kernels before 5.5 know no other operation, and do not name it.
            let is_mask = bitwise.get_op().map_or(true, |op| op == BitwiseOps::MaskXor as u32);
            let changes = bytes(bitwise.get_xor().ok()?)?.iter().any(|byte| *byte != 0);
            (is_mask && !changes).then_some(Expression::Mask(bytes(bitwise.get_mask().ok()?)?))
        }
        ExprOps::Lookup(lookup) => {
            let is_inverted = lookup.get_flags().unwrap_or(0) != 0;
            (!is_inverted).then_some(Expression::IsIn(lookup.get_set().ok()?.to_str().ok()?.to_owned()))
        }
        ExprOps::Counter(_) => Some(Expression::Counter),
        ExprOps::Immediate(immediate) => {
            let verdict = immediate.get_data().ok()?.get_verdict().ok()?.get_code().ok()?;
            (verdict == VerdictCode::Drop as u32).then_some(Expression::Drop)
        }
        _ => None,
    }
}

fn bytes(data: IterableDataAttrs<'_>) -> Option<Vec<u8>> {
    data.get_value().ok().map(<[u8]>::to_vec)
}

/// Opens a socket in the network namespace of that name.
#[cfg(test)]
pub(crate) fn in_network<T: Send>(name: &str, open: impl FnOnce() -> T + Send) -> T {
    let there = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
    let inside = || {
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&there), None).unwrap();
        open()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}
