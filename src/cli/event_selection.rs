//! Which events a command is about.

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::complete;

/// Options of commands that are about events. Without one of them they are about all.
#[derive(Clone, Debug, Args)]
pub struct EventSelection {
    /// Only this type, such as `response.created`, all that begin so: `response.*`, or all: `*`. May be repeated, or have several, separated
    /// by commas.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Only events about this policy.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::policies))]
    pub policy: Option<String>,
    /// Only events about this agent, by its id or name.
    #[arg(long, value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    pub agent: Option<String>,
    /// Only events about this target.
    #[arg(long, value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    pub target: Option<String>,
}
