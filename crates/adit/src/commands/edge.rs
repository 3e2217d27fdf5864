//! `adit edge`: the edges that this machine knows.

use adit_agent::DataFolder;
use adit_model::{Code, PublicKey};
use clap::Subcommand;
use serde_json::json;

use super::place::{AgentPlace, state};
use crate::failure::Failure;
use crate::{Outcome, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// List the edges that this machine has joined
    #[command(after_help = "Example:
  adit edge list")]
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
    /// Forget an edge: its key, its addresses and the secret it handed out
    #[command(after_help = "Examples:
  adit edge forget                   the only one, or the one joined last
  adit edge forget ed25519:AbCd…

Needed after an edge was set up anew with another key: compare the fingerprint
on its terminal first, then join again.")]
    Forget {
        /// The edge's key; default: the one joined last
        key: Option<String>,
        #[command(flatten)]
        place: AgentPlace,
    },
}

pub(crate) fn run(command: &Sub) -> Outcome {
    match command {
        Sub::List { json, place } => list(place, *json),
        Sub::Forget { key, place } => forget(place, key.as_deref()),
    }
}

fn list(place: &AgentPlace, as_json: bool) -> Outcome {
    let folder = place.folder()?;
    let joined = folder.joined().map_err(state)?.map(|edge| edge.edge);
    let edges = folder.known_edges().map_err(state)?;
    if as_json {
        let rows: Vec<_> = edges
            .iter()
            .map(|edge| {
                json!({
                    "key": edge.edge.to_string(),
                    "addresses": edge.addresses,
                    "default": joined == Some(edge.edge),
                    "admitted": edge.secret.is_some(),
                })
            })
            .collect();
        return Ok(terminal::print_json(&rows)?);
    }
    if edges.is_empty() {
        terminal::print("this machine has joined no edge; next: adit join adit1…");
    }
    for edge in edges {
        let default = if joined == Some(edge.edge) {
            "  default"
        } else {
            ""
        };
        let line = format!("{}  {}{default}", edge.edge, edge.addresses.join(", "));
        terminal::print(&terminal::plain(&line));
    }
    Ok(())
}

/// The edge joined last, else the only one that is known.
fn usual(folder: &DataFolder) -> Result<PublicKey, Failure> {
    if let Some(edge) = folder.joined().map_err(state)? {
        return Ok(edge.edge);
    }
    match &folder.known_edges().map_err(state)?[..] {
        [edge] => Ok(edge.edge),
        [] => Err(Failure::new(
            Code::NO_SUCH_EDGE,
            "this machine has joined no edge",
        )),
        _ => {
            let remedy = "name one by its key: adit edge list shows them";
            Err(Failure::with(
                Code::NO_SUCH_EDGE,
                "this machine knows several edges",
                remedy,
            ))
        }
    }
}

fn forget(place: &AgentPlace, key: Option<&str>) -> Outcome {
    let folder = place.folder()?;
    let key: PublicKey = match key {
        Some(text) => text
            .parse()
            .map_err(|why| Failure::new(Code::NO_SUCH_EDGE, format!("{text}: {why}")))?,
        None => usual(&folder)?,
    };
    if !folder.forget(&key).map_err(state)? {
        return Err(Failure::new(
            Code::NO_SUCH_EDGE,
            format!("{key} is not remembered"),
        ));
    }
    terminal::print(&format!("forgot {key}"));
    Ok(())
}
