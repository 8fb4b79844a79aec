//! The program `riposte`: reads its arguments and runs a command.

use std::process::ExitCode;

fn main() -> ExitCode {
    riposte::cli::run()
}
