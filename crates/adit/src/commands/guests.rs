//! `adit guests`: who is let in to tunnels that take guests only.

use std::net::IpAddr;
use std::time::Duration;

use adit_model::{Code, TunnelName};
use clap::Subcommand;

use super::place::{EdgePlace, address};
use crate::failure::Failure;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// Let an address in for a while
    #[command(after_help = "Examples:
  adit guests add ssh 192.0.2.7
  adit guests add ssh 192.0.2.7 --minutes 480

For tunnels whose [[tunnel]] table on the edge says guests_only = true. An IPv6
address stands for its /64. Programs on the edge's machine do the same by
POST /_sys/guests on the API door.")]
    Add {
        /// The tunnel's name
        tunnel: String,
        /// The visitor's address
        #[arg(value_parser = address)]
        address: IpAddr,
        /// For how long, at most a day
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
        #[command(flatten)]
        place: EdgePlace,
    },
    /// Take that back; connections that are open go on
    #[command(after_help = "Examples:
  adit guests remove ssh 192.0.2.7")]
    Remove {
        /// The tunnel's name
        tunnel: String,
        /// The visitor's address
        #[arg(value_parser = address)]
        address: IpAddr,
        #[command(flatten)]
        place: EdgePlace,
    },
}

pub(crate) fn run(command: &Sub) -> Outcome {
    match command {
        Sub::Add {
            tunnel,
            address,
            minutes,
            place,
        } => {
            let (tunnel, time) = (name(tunnel)?, Duration::from_secs(60 * minutes));
            let desk = place.desk(false)?;
            desk.let_in(&tunnel, *address, time)
                .map_err(edge_seam::refused)?;
            let line = format!("{address} may visit {tunnel} for {minutes} min");
            terminal::print(&line);
        }
        Sub::Remove {
            tunnel,
            address,
            place,
        } => {
            let tunnel = name(tunnel)?;
            let desk = place.desk(false)?;
            let changed = desk.shut_out(&tunnel, *address);
            terminal::print(&if changed.map_err(edge_seam::refused)? {
                format!("{address} may no longer visit {tunnel}")
            } else {
                format!("{address} was not let in to {tunnel}")
            });
        }
    }
    Ok(())
}

fn name(text: &str) -> Result<TunnelName, Failure> {
    TunnelName::parse(text).map_err(|why| Failure::new(Code::BAD_NAME, format!("{text}: {why}")))
}
