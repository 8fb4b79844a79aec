//! Riposte, the manager.
pub mod clock;
pub mod config;
pub mod domain;
pub mod engine;
pub mod shutdown;
pub mod store;
pub mod telemetry;
