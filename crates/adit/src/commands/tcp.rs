//! `adit tcp` and `adit tls`: publish bytes as they are.

use std::num::NonZeroU16;

use adit_agent::{By, Carries, ProxyProtocol, Target, TargetError, TcpTarget};
use adit_model::Code;

use super::publish::Publish;
use crate::Outcome;
use crate::failure::Failure;
use crate::settings::{self, Remarks};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit tcp 22 --port 2222                      port 22 of this machine
  adit tcp --target 192.168.1.5:22             on a port that the edge chooses
  adit tcp unix:/run/db.sock --name db

Bytes are carried as they are: what visitors must prove is up to the service.
Without --edge the edge that `adit join` remembered is used. Secrets are read
from ADIT_EDGE and ADIT_PIN first; as options they may be file:PATH, env:NAME or
- (stdin). On a terminal a live view takes the place of the log, unless
--log-level asks for it.")]
pub(crate) struct Args {
    /// Port, host:port or unix:/path
    #[arg(required_unless_present = "named")]
    target: Option<String>,
    #[command(flatten)]
    at: AtPort,
    #[command(flatten)]
    announce: Announce,
    #[command(flatten)]
    publish: Publish,
}

/// What commands have in common that publish at a port of the edge.
#[derive(Debug, clap::Args)]
pub(super) struct AtPort {
    /// The same as an option
    #[arg(
        id = "named",
        long = "target",
        value_name = "TARGET",
        conflicts_with = "target"
    )]
    named: Option<String>,
    /// Public port on the edge; default: one that the edge chooses
    #[arg(long, value_name = "PORT", value_parser = port, allow_negative_numbers = true)]
    port: Option<NonZeroU16>,
    /// Name of the tunnel, a host label; default: random, remembered for the target
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

impl AtPort {
    /// The target, as whichever of both it is given: clap has seen to one.
    pub(super) fn target<'a>(&'a self, argument: Option<&'a str>) -> &'a str {
        argument.or(self.named.as_deref()).unwrap_or_default()
    }

    pub(super) fn port(&self) -> Option<NonZeroU16> {
        self.port
    }
}

fn port(text: &str) -> Result<NonZeroU16, &'static str> {
    text.parse().map_err(|_| "one port, from 1 to 65535")
}

/// How the service learns who its visitor is.
#[derive(Debug, clap::Args)]
struct Announce {
    /// Tell the service its visitors' addresses by this header, which it must expect
    #[arg(long, value_name = "VERSION")]
    proxy_protocol: Option<Version>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Version {
    /// A line of text
    V1,
    /// Bytes
    V2,
}

impl Announce {
    fn version(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol.map(|version| match version {
            Version::V1 => ProxyProtocol::V1,
            Version::V2 => ProxyProtocol::V2,
        })
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  adit tls 443 --name nas                      what speaks TLS on port 443 of this machine
  adit tls nas.lan:8443

The edge passes TLS on by the name that visitors ask for; the service ends it with
its own certificate, and the edge reads nothing of it. Without --edge the edge
that `adit join` remembered is used; secrets are read from ADIT_EDGE and ADIT_PIN
first.")]
pub(crate) struct TlsArgs {
    /// Port, host:port or unix:/path
    target: String,
    /// First label of the public host name; default: random, remembered for the target
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    announce: Announce,
    #[command(flatten)]
    publish: Publish,
}

pub(crate) fn run(args: &Args) -> Outcome {
    args.publish.one_stdin(&[])?;
    let carries = Carries::Bytes {
        target: target(args.at.target(args.target.as_deref()))?,
        by: By::Port(args.at.port()),
        proxy_protocol: args.announce.version(),
    };
    let name = args.at.name.as_deref();
    args.publish.run(name, carries, &remarks())
}

/// `adit tls`.
pub(crate) fn run_tls(args: &TlsArgs) -> Outcome {
    args.publish.one_stdin(&[])?;
    let carries = Carries::Bytes {
        target: target(&args.target)?,
        by: By::TlsName,
        proxy_protocol: args.announce.version(),
    };
    args.publish.run(args.name.as_deref(), carries, &remarks())
}

/// What is set and has no meaning but for HTTP tunnels.
pub(super) fn remarks() -> Remarks {
    let remarks = Remarks::default();
    if settings::variable("ADIT_AUTH").is_some() {
        remarks.add(
            "ADIT_AUTH is set and protects nothing: only HTTP tunnels ask visitors for a password",
        );
    }
    remarks
}

pub(crate) fn target(text: &str) -> Result<TcpTarget, Failure> {
    text.parse().map_err(|why| {
        let url = match &why {
            TargetError::NotBytes(_) => text.parse::<Target>().ok(),
            _ => None,
        };
        bad_target(why, url.map(TcpTarget::from))
    })
}

/// A target that is none; `place` is where its URL leads, as it can be written.
pub(super) fn bad_target(why: TargetError, place: Option<TcpTarget>) -> Failure {
    match place {
        Some(place) => {
            let remedy = format!("write {place}, or publish it with adit http");
            Failure::with(Code::BAD_TARGET, why, remedy)
        }
        None => Failure::new(Code::BAD_TARGET, why),
    }
}
