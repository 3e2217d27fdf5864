//! `adit bans`: which addresses come in at no door.

use std::net::IpAddr;
use std::time::Duration;

use adit_edge::control::BanInfo;
use clap::Subcommand;

use super::place::{EdgePlace, address};
use crate::report::span;
use crate::{Outcome, edge_seam, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Sub {
    /// List the addresses that are banned now
    #[command(after_help = "Examples:
  adit bans list
  adit bans list --json

Addresses that guess at secrets, PINs and passwords, or come far too often, are
banned by themselves ([limits] in server.toml).")]
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: EdgePlace,
    },
    /// Ban an address for a while
    #[command(after_help = "Examples:
  adit bans add 192.0.2.7
  adit bans add 192.0.2.7 --minutes 1440

It begins nothing more at any door; streams that are open go on. An IPv6 address
stands for its /64. A ban ends with the edge: for good, and for networks, there
is deny in a [[tunnel]] table.")]
    Add {
        /// The address
        #[arg(value_parser = address)]
        address: IpAddr,
        /// For how long, at most 366 days
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=527_040))]
        minutes: u64,
        #[command(flatten)]
        place: EdgePlace,
    },
    /// Lift a ban, however it came about
    #[command(after_help = "Examples:
  adit bans remove 192.0.2.7")]
    Remove {
        /// The address
        #[arg(value_parser = address)]
        address: IpAddr,
        #[command(flatten)]
        place: EdgePlace,
    },
}

pub(crate) fn run(command: &Sub) -> Outcome {
    match command {
        Sub::List { json, place } => {
            let bans = place.desk(false)?.bans().map_err(edge_seam::refused)?;
            list(&bans, *json)
        }
        Sub::Add {
            address,
            minutes,
            place,
        } => {
            let time = Duration::from_secs(60 * minutes);
            let desk = place.desk(false)?;
            desk.ban(*address, time).map_err(edge_seam::refused)?;
            terminal::print(&format!("{address} is banned for {minutes} min"));
            Ok(())
        }
        Sub::Remove { address, place } => {
            let lifted = place.desk(false)?.lift(*address);
            terminal::print(&if lifted.map_err(edge_seam::refused)? {
                format!("{address} is banned no more")
            } else {
                format!("{address} was not banned")
            });
            Ok(())
        }
    }
}

fn list(bans: &[BanInfo], json: bool) -> Outcome {
    if json {
        return Ok(terminal::print_json(&bans)?);
    }
    if bans.is_empty() {
        terminal::print("no address is banned");
        return Ok(());
    }
    let row = |ban: &BanInfo| {
        let left = span(ban.seconds_left);
        format!("{}  {left} more\n", terminal::plain(&ban.address))
    };
    Ok(terminal::print_whole(
        &bans.iter().map(row).collect::<String>(),
    )?)
}
