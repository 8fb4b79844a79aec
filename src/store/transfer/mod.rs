//! The ledger as a stream of rows, to move it between databases: which tables it has (`tables.rs`), their
//! rows as lines of text (`row.rs`), reading them all in one snapshot (`source.rs`), and writing them into
//! an empty database in batches, resumable at each (`target.rs`). The file itself is `src/cli/transfer/file.rs`.

pub mod row;
pub mod source;
pub mod tables;
pub mod target;
