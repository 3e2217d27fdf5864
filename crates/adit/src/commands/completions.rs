//! `adit completions`: scripts for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::{Outcome, terminal};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit completions bash
  adit completions zsh")]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "adit", &mut script);
    Ok(terminal::print_whole(&String::from_utf8_lossy(&script))?)
}
