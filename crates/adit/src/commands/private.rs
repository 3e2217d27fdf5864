//! `adit private` and `adit forward`: a service for other agents alone, and the
//! local port that leads to it.

use adit_agent::config::keys::listen;
use adit_agent::{By, Carries, ForwardSettings, Peer};
use adit_model::{Code, PublicKey, TunnelName};

use super::publish::{Publish, Reach};
use super::tcp;
use crate::failure::Failure;
use crate::settings::{self, Remarks};
use crate::{Outcome, agent_seam, terminal};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit private 5432 --name db --peer ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
  adit private 22 --name shell --peer *

Nothing listens at the edge, which carries what the two agents have sealed
between them and reads none of it. `adit key show` prints an agent's key. The
command for the other side is printed.")]
pub(crate) struct Args {
    /// Port, host:port or unix:/path
    target: String,
    /// Name by which other agents reach it
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Key of an agent that may come in, or * for all of the same owner; again for more
    #[arg(long = "peer", value_name = "KEY", required = true)]
    peers: Vec<Peer>,
    #[command(flatten)]
    publish: Publish,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit forward db --listen 127.0.0.1:5432 --peer ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
  adit forward shell --listen 2222 --peer ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA

The key is that of the agent that has the tunnel: `adit private` and `adit key
show` print it there. Whoever else answers is refused, the edge too. A port alone
listens on 127.0.0.1.")]
pub(crate) struct ForwardArgs {
    /// Name of the private tunnel
    name: String,
    /// Local port, or address with a port
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// Key of the agent that has the tunnel
    #[arg(long, value_name = "KEY")]
    peer: Option<PublicKey>,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.publish.one_stdin(&[])?;
    let remarks = Remarks::default();
    let name = tunnel_name(&args.name)?;
    let carries = Carries::Bytes {
        target: tcp::target(&args.target)?,
        by: By::Agents(args.peers.iter().copied().collect()),
        proxy_protocol: None,
    };
    let config = args
        .publish
        .config(Some(name.as_str()), carries, &remarks)?;
    let key = args.publish.reach.place.folder()?.identity();
    let key = key.map_err(super::place::state)?.public();
    let port = port_of(&args.target);
    terminal::note(&format!(
        "on the other machine: adit forward {name} --listen 127.0.0.1:{port} --peer {key}"
    ));
    agent_seam::publish(config, args.publish.reach.log, &remarks)
}

fn tunnel_name(text: &str) -> Result<TunnelName, Failure> {
    TunnelName::parse(text).map_err(|why| {
        let what = format!("{text}: {why}");
        Failure::with(Code::BAD_NAME, what, "write a name like db or my-db")
    })
}

/// The target's own port, which the other side may use too. A socket has none:
/// any will do.
fn port_of(target: &str) -> u16 {
    let port = target.rsplit(':').next().and_then(|port| port.parse().ok());
    port.unwrap_or(5000)
}

/// `adit forward`.
pub(crate) fn run_forward(args: &ForwardArgs) -> Outcome {
    args.reach.one_stdin(&[])?;
    let name = tunnel_name(&args.name)?;
    let listen = listen(&args.listen).ok_or_else(|| {
        let what = format!(
            "--listen: `{}` is no port and no address with one",
            args.listen
        );
        Failure::with(Code::USAGE, what, "write it like 127.0.0.1:5432")
    })?;
    let peer = args.peer.ok_or_else(|| {
        let what = "--peer is missing: without it anybody could answer in the agent's place";
        let remedy = "ask the tunnel's owner: `adit private` and `adit key show` print it there";
        Failure::with(Code::USAGE, what, remedy)
    })?;
    let remarks = Remarks::default();
    let mut config = settings::agent(None, &args.reach.options()?, &remarks)?;
    config.forwards = vec![ForwardSettings { name, listen, peer }];
    agent_seam::publish(config, args.reach.log, &remarks)
}
