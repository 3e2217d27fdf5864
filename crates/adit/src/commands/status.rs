//! `adit status`: what a running edge does.

use super::place::EdgePlace;
use crate::report::{self, Look};
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit status
  adit status --config server.toml
  adit status --json

IN is from visitors, OUT to them, in thousands (1 kB = 1000 bytes). All numbers
begin with the edge; a tunnel's are kept while its agent is away. On a terminal
long lines are cut; into a pipe they are whole. The JSON object is described
in docs/status.md.")]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: EdgePlace,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let desk = args.place.desk(false)?;
    if args.json {
        let status = desk.status().map_err(edge_seam::refused)?;
        return Ok(terminal::print_whole(&format!("{status}\n"))?);
    }
    let report = desk.report().map_err(edge_seam::refused)?;
    let person = terminal::is_person();
    let look = Look {
        width: if person {
            terminal::width()
        } else {
            usize::MAX
        },
        bold: terminal::out_has_colour(),
    };
    let lines = report::status(&report, look);
    Ok(terminal::print_whole(&format!("{}\n", lines.join("\n")))?)
}
