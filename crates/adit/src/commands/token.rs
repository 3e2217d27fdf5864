//! `adit server token`: join strings that admit one agent.

use std::time::Duration;

use adit_edge::admission::TokenWish;
use adit_model::{Code, JoinString, TunnelName};
use clap::Subcommand;
use serde_json::json;

use super::place::EdgePlace;
use crate::failure::Failure;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// Make a join string that admits one agent, once
    New(New),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit server token new
  adit server token new --label laptop --tunnel app --hours 1

The string alone goes to stdout. It binds to the first agent that joins by it;
that agent can be revoked without touching the others (adit agents revoke).")]
pub(crate) struct New {
    /// What to call the agent that joins by it
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// The only tunnel that this agent may open
    #[arg(long, value_name = "NAME")]
    tunnel: Option<String>,
    /// How long it may be used
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
    hours: u32,
    /// Print it as JSON, with its id and end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: EdgePlace,
}

pub(crate) fn run(command: &Sub) -> Outcome {
    let Sub::New(new) = command;
    let scope = new.tunnel.as_deref().map(TunnelName::parse).transpose();
    let wish = TokenWish {
        scope: scope.map_err(|why| Failure::new(Code::BAD_NAME, format!("--tunnel: {why}")))?,
        label: new.label.clone(),
        life: Some(Duration::from_secs(u64::from(new.hours) * 3600)),
    };
    let desk = new.place.desk(true)?;
    let token = desk.new_token(&wish).map_err(edge_seam::refused)?;
    let join = token.join.parse::<JoinString>();
    join.map_or(Ok(()), |join| edge_seam::leads_somewhere(&join))?;
    if new.json {
        let facts = json!({
            "id": token.id,
            "join": token.join,
            "expires": token.expires,
            "tunnel": token.scope,
        });
        return Ok(terminal::print_json(&facts)?);
    }
    Ok(terminal::print_whole(&format!("{}\n", token.join))?)
}
