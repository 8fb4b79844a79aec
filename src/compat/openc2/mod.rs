//! What a command of OpenC2 1.0 (language and the profile SLPF) means in Riposte's words: [`message`] opens
//! the envelope, [`command`] reads action, target and arguments, [`times`] how long, and [`answer`] writes
//! the response. `src/api/openc2/` carries it out. Both dialects of producers are read: arguments inside
//! `slpf` or beside it, a message with an envelope or without. What cannot be done exactly is refused as 501,
//! never done in part. Nothing here does I/O.

pub mod answer;
pub mod command;
pub mod message;
pub mod times;
