//! `adit udp`: publish datagrams.

use std::num::NonZeroU16;

use adit_agent::{Carries, Target, TargetError, TcpTarget, UdpTarget};
use adit_model::Code;

use super::publish::Publish;
use super::tcp::remarks;
use crate::Outcome;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit udp 53 --port 5353                      port 53 of this machine
  adit udp --target 192.168.1.5:51820          on a port that the edge chooses
  adit udp game.lan:34197 --name game

Each visitor's address and port has a socket of its own towards the service, as
long as something comes: 60 s as the edge is shipped. What finds no room on its
way is dropped, as datagrams are, and counted. Without --edge the edge that
`adit join` remembered is used. Secrets are read from ADIT_EDGE and ADIT_PIN
first; as options they may be file:PATH, env:NAME or - (stdin). On a terminal a
live view takes the place of the log, unless --log-level asks for it.")]
pub(crate) struct Args {
    /// Port or host:port
    #[arg(required_unless_present = "named")]
    target: Option<String>,
    /// The same as an option
    #[arg(
        id = "named",
        long = "target",
        value_name = "TARGET",
        conflicts_with = "target"
    )]
    named: Option<String>,
    /// Public port on the edge; default: one that the edge chooses
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Name of the tunnel, a host label; default: random, remembered for the target
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    publish: Publish,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.publish.one_stdin(&[])?;
    let given = args.target.as_deref().or(args.named.as_deref());
    let carries = Carries::Datagrams {
        target: target(given.unwrap_or_default())?,
        port: args.port.and_then(NonZeroU16::new),
    };
    args.publish.run(args.name.as_deref(), carries, &remarks())
}

fn target(text: &str) -> Result<UdpTarget, Failure> {
    text.parse().map_err(|why| {
        let url = match &why {
            TargetError::NotDatagrams(_) => text.parse::<Target>().ok(),
            _ => None,
        };
        let place = url.map(|url| TcpTarget::from(url).to_string());
        match place.and_then(|place| place.parse::<UdpTarget>().ok()) {
            Some(place) => {
                let remedy = format!("write {place}, or publish it with adit http");
                Failure::with(Code::BAD_TARGET, why, remedy)
            }
            None => Failure::new(Code::BAD_TARGET, why),
        }
    })
}
