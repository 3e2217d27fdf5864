//! `cargo xtask bench`: Adit beside its peers, on one origin, in one run.
//!
//! Every subject carries the same loads to the same nginx. Rounds alternate
//! between the subjects, so that whatever else the machine does falls on all
//! of them alike, and each figure is the median of the rounds. Beside rates
//! and latencies stands the CPU time of the subject's own processes, which a
//! busy machine distorts far less. Only ratios within one run mean anything.
//!
//! Invariants: servers listen on loopback only; each load ends by itself;
//! only processes started here are ended, by their ids.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks on its standard output"
)]

mod bulk;
mod command;
mod datagrams;
mod error;
mod far;
mod hold;
mod http;
mod idle;
mod locate;
mod origin;
mod process;
mod report;
mod rounds;
mod subject;
mod workshop;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let command = command::Command::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(error::BenchError::io("start the runtime"))
        .and_then(|runtime| runtime.block_on(act(&command)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: &command::Command) -> Result<(), error::BenchError> {
    match &command.part {
        Some(command::Part::Hold { join, count }) => hold::run(join, *count).await,
        Some(command::Part::Echo { address }) => datagrams::echo(*address),
        None if command.far && command.placed.is_none() => far::run(command).await,
        None => {
            println!("{}", rounds::run(command).await?);
            Ok(())
        }
    }
}
