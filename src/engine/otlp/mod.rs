//! Traces and metrics over OTLP/HTTP ([0042](../../../docs/decisions/0042-otlp-by-hand.md)). Commits put
//! what changed into a bounded queue (`store/ledger/trace_queue.rs`). One stage makes spans of it, by the
//! ledger's rows ([`spans`]), and another reads the metrics ([`points`]). Both encode them ([`wire`]) and
//! post them to the collector ([`exporter`]). A collector that is away costs spans, which are counted,
//! and never a commit.

pub mod exporter;
mod points;
mod spans;
mod stages;
mod wire;

pub use stages::start;
