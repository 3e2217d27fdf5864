//! `adit secret`: the edge's shared secret.

use clap::Subcommand;

use super::place::EdgePlace;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// Make a new shared secret and print the new join string
    #[command(after_help = "Example:
  adit secret rotate --config server.toml

Agents that have joined stay in: each has a secret of its own by now. Join
strings that were handed out before admit nobody any more.")]
    Rotate(EdgePlace),
}

pub(crate) fn run(command: &Sub) -> Outcome {
    let Sub::Rotate(place) = command;
    let join = place
        .desk(false)?
        .rotate_secret()
        .map_err(edge_seam::refused)?;
    terminal::note("the shared secret is new; the join string is now:");
    Ok(terminal::print_whole(&format!("{}\n", join.expose()))?)
}
