//! The program `riposte-agent`. Everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    riposte_agent::cli::main()
}
