//! `adit`: the one binary. Each command is one file below `commands`; this
//! file parses, runs and turns the end into an exit status.
//!
//! Invariants: facts go to stdout, everything else to stderr; nothing but
//! [`terminal`], [`view`] and [`logging`] writes to either; what serves never
//! waits for who reads them; a secret is printed to a terminal or by a command
//! that was asked for it, never into a log.

mod advice;
mod agent_seam;
mod ask;
mod cli;
mod commands;
mod demo;
mod edge_seam;
mod failure;
mod given;
mod logging;
mod report;
mod runtime;
mod settings;
mod terminal;
mod view;
mod way_out;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refused(&error),
    };
    let _written = logging::AtEnd;
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// How every command ends.
type Outcome = Result<(), Failure>;
