//! `adit key`: identities.

use std::path::PathBuf;

use adit_agent::DataFolder;
use adit_model::Code;
use clap::Subcommand;

use super::place::{AgentPlace, EdgePlace, state};
use crate::failure::Failure;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// Make the identity of a new agent or edge and print its key
    #[command(after_help = "Examples:
  adit key new                       this machine's agent
  adit key new --server --data /var/lib/adit

An identity that is there already is never replaced.")]
    New(Whose),
    /// Print the key of this machine's agent or edge
    #[command(after_help = "Examples:
  adit key show                      for allowed_keys of an edge
  adit key show --server             the edge's fingerprint")]
    Show(Whose),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Whose {
    /// The edge's instead of the agent's
    #[arg(long)]
    server: bool,
    /// The edge's configuration file
    #[arg(long, value_name = "FILE", requires = "server")]
    config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

pub(crate) fn run(command: &Sub) -> Outcome {
    let key = match command {
        Sub::New(whose) => make(whose)?,
        Sub::Show(whose) => show(whose)?,
    };
    Ok(terminal::print_whole(&format!("{key}\n"))?)
}

fn make(whose: &Whose) -> Result<String, Failure> {
    if whose.server {
        let place = edge_place(whose);
        if place.desk(false).is_ok() {
            return Err(exists("the edge's data folder"));
        }
        return edge_key(&place, true);
    }
    let folder = agent_place(whose).folder()?;
    if folder.has_identity() {
        return Err(exists(&folder.path().display().to_string()));
    }
    agent_key(&folder)
}

fn show(whose: &Whose) -> Result<String, Failure> {
    if whose.server {
        return edge_key(&edge_place(whose), false);
    }
    let place = agent_place(whose);
    let path = place.path(None)?;
    let what = format!("there is no identity in {}", path.display());
    let absent = Failure::with(
        Code::NO_IDENTITY,
        what,
        "make one: adit key new, or name another folder by --data",
    );
    // A folder that is not there is not made by looking.
    if !path.exists() {
        return Err(absent);
    }
    let folder = place.folder()?;
    if !folder.has_identity() {
        return Err(absent);
    }
    agent_key(&folder)
}

fn exists(place: &str) -> Failure {
    let what = format!("{place} holds an identity already");
    let remedy = "print it with adit key show; to start anew, move the folder away";
    Failure::with(Code::KEY_EXISTS, what, remedy)
}

fn agent_key(folder: &DataFolder) -> Result<String, Failure> {
    let identity = folder.identity().map_err(state)?;
    Ok(identity.public().to_string())
}

fn agent_place(whose: &Whose) -> AgentPlace {
    AgentPlace {
        data: whose.data.clone(),
    }
}

fn edge_key(place: &EdgePlace, may_create: bool) -> Result<String, Failure> {
    let join = place.desk(may_create)?.join().map_err(edge_seam::refused)?;
    Ok(join.edge.to_string())
}

fn edge_place(whose: &Whose) -> EdgePlace {
    EdgePlace {
        config: whose.config.clone(),
        data: whose.data.clone(),
    }
}
