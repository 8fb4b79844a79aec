//! The parts of the agent's platform that the files of the agent here need.

#[path = "../../agent/src/platform/unix/clocks.rs"]
pub mod clocks;
#[path = "../../agent/src/platform/unix/guarded/mod.rs"]
pub mod guarded;
#[path = "../../agent/src/platform/path_error.rs"]
pub(crate) mod path_error;
