//! The real program as a whole, over real sockets and with real signals. One binary, so that it is
//! linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong here fails the test")]

mod config_check;
mod conversation;
mod crashes;
mod keys;
mod own_key;
mod promises;
mod support;
mod tls;
mod transports;
mod units;
