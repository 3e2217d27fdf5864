//! `adit udp`: publish datagrams.

use adit_agent::{Carries, Target, TargetError, TcpTarget, UdpTarget};

use super::publish::Publish;
use super::tcp::{AtPort, bad_target, remarks};
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
    #[command(flatten)]
    at: AtPort,
    #[command(flatten)]
    publish: Publish,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.publish.one_stdin(&[])?;
    let carries = Carries::Datagrams {
        target: target(args.at.target(args.target.as_deref()))?,
        port: args.at.port(),
    };
    let name = args.at.name.as_deref();
    args.publish.run(name, carries, &remarks())
}

fn target(text: &str) -> Result<UdpTarget, Failure> {
    text.parse().map_err(|why| {
        let url = match &why {
            TargetError::NotDatagrams(_) => text.parse::<Target>().ok(),
            _ => None,
        };
        let place = url.map(TcpTarget::from);
        let fits = |place: &TcpTarget| place.to_string().parse::<UdpTarget>().is_ok();
        bad_target(why, place.filter(fits))
    })
}
