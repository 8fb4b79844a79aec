//! Which addresses the manager may call: what an address is ([`address`]), and what the configuration
//! lists ([`allow_list`]). No I/O: `engine/egress/` resolves names and connects.

pub mod address;
pub mod allow_list;
