//! The front door of the API: what a request passes before a handler sees it, and what handlers use
//! to read and to answer. It knows of no resource.
//!
//! In the order of a request: [`listen`] accepts a [`connection`], over [`tls`] if there is a
//! certificate, [`auth`] finds the caller,
//! [`limits`], [`memory`] and [`poll_slots`] bound how much one caller may ask, and [`extract`] reads the body.
//! [`error`] turns a refusal into a response, and [`page`] returns lists, which [`compression`] compresses.
//! [`table`] is what the routes of resources are put into. [`request_id`] names a request in its response and in the log.

pub mod address;
pub mod auth;
pub mod auth_failures;
pub mod compression;
pub mod connection;
pub(in crate::api) mod controls;
pub mod error;
pub mod extract;
pub mod filling;
pub mod follower_slots;
pub mod limits;
pub mod listen;
pub mod memory;
pub mod page;
pub mod poll_slots;
pub mod rate_limit;
pub mod request_id;
pub mod reworded;
pub mod route;
pub(in crate::api) mod table;
pub mod tls;
pub mod validators;
pub mod visible;
